-- Roles as they are on a managed server, where nobody but the provider is superuser: pgferry's
-- role has what RDS gives its master user, and no more. Both servers have the same roles.
CREATE ROLE owner NOLOGIN;
CREATE ROLE app LOGIN PASSWORD 'app-password';
CREATE ROLE reader LOGIN PASSWORD 'reader-password';
CREATE ROLE pgferry LOGIN REPLICATION CREATEROLE PASSWORD 'pgferry-password'
    IN ROLE pg_monitor, pg_signal_backend, owner;
