-- Every role of the server, as far as creating, owning and connecting go.
-- $1 text[]: names of roles that the fence has locked out, which may log in when it is lifted
SELECT r.rolname::text AS name,
       r.rolcanlogin OR r.rolname = ANY ($1::text[]) AS login,
       r.rolsuper AS superuser,
       pg_catalog.pg_has_role(r.oid, 'USAGE') AS usable_by_us,
       pg_catalog.has_database_privilege(r.oid, pg_catalog.current_database(), 'CONNECT') AS may_connect
FROM pg_catalog.pg_roles AS r
ORDER BY r.rolname
