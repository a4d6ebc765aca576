-- What is in use of what max_replication_slots and its like limit, server-wide.
-- Origins are counted in the catalog, which everybody may read: an upper bound of the states in
-- use. Background workers are whatever is not one of the server's own fixed processes.
SELECT (SELECT count(*) FROM pg_catalog.pg_replication_slots) AS slots,
       (SELECT count(*) FROM pg_catalog.pg_stat_activity
        WHERE backend_type = 'walsender') AS wal_senders,
       (SELECT count(*) FROM pg_catalog.pg_replication_origin) AS origins,
       (SELECT count(*) FROM pg_catalog.pg_stat_activity
        WHERE backend_type NOT IN (
            'client backend', 'walsender', 'autovacuum launcher', 'autovacuum worker',
            'checkpointer', 'background writer', 'walwriter', 'startup', 'archiver', 'logger',
            'walreceiver', 'walsummarizer', 'slotsync worker', 'io worker', 'standalone backend',
            'dead-end client backend')) AS workers
