-- Transactions that would be waited for: open ones that have an id, in any database of the
-- server, and prepared ones. A transaction without an id holds up neither a slot nor a set.
SELECT 'open' AS kind, a.pid, NULL::text AS gid, a.datname::text AS database_name,
       a.usename::text AS role, a.datname = pg_catalog.current_database() AS here,
       extract(epoch FROM pg_catalog.clock_timestamp() - a.xact_start)::float8 AS seconds
FROM pg_catalog.pg_stat_activity AS a
WHERE a.backend_xid IS NOT NULL
  AND a.xact_start < pg_catalog.clock_timestamp() - interval '60 seconds'
UNION ALL
SELECT 'prepared', NULL, p.gid, p.database::text, p.owner::text,
       p.database = pg_catalog.current_database(),
       extract(epoch FROM pg_catalog.clock_timestamp() - p.prepared)::float8
FROM pg_catalog.pg_prepared_xacts AS p
ORDER BY 1, 7 DESC
