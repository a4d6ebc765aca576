-- Settings kept in the catalog for this database, for roles in it, and for roles everywhere.
-- is_worker marks what the apply worker reads: it runs as the bootstrap superuser (OID 10).
SELECT s.setdatabase <> 0 AS in_database,
       r.rolname::text AS role,
       pg_catalog.split_part(entry, '=', 1) AS name,
       substr(entry, strpos(entry, '=') + 1) AS value,
       s.setrole IN (0, 10) AS is_worker
FROM pg_catalog.pg_db_role_setting AS s
CROSS JOIN LATERAL unnest(s.setconfig) AS entry
LEFT JOIN pg_catalog.pg_roles AS r ON r.oid = s.setrole
WHERE s.setdatabase IN (0, (SELECT oid FROM pg_catalog.pg_database
                            WHERE datname = pg_catalog.current_database()))
  AND (s.setrole = 0 OR r.rolname IS NOT NULL)
ORDER BY 1 DESC, 2 NULLS FIRST, 3
