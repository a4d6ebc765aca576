-- Client sessions in this database of roles that no fence ever touches: superusers, and our own
-- roles under an application_name that is not pgferry's.
--
-- $1 text[]: names of our own roles
SELECT a.usename::text AS role, r.rolsuper AS superuser, coalesce(a.application_name, '') AS application,
       count(*) AS sessions
FROM pg_catalog.pg_stat_activity AS a
JOIN pg_catalog.pg_roles AS r ON r.oid = a.usesysid
WHERE a.datname = pg_catalog.current_database()
  AND a.backend_type = 'client backend'
  AND (r.rolsuper OR r.rolname = ANY ($1::text[]))
  AND a.application_name !~ '^(pgferry|pglogical)'
  AND a.pid <> pg_catalog.pg_backend_pid()
GROUP BY 1, 2, 3
ORDER BY 1, 3
