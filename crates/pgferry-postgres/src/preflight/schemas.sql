-- Schemas that exist here, with the roles that may create in them. Superusers always may, and
-- are left out.
SELECT n.nspname::text AS name,
       ARRAY(SELECT r.rolname::text
             FROM pg_catalog.pg_roles AS r
             WHERE NOT r.rolsuper AND r.rolname !~ '^pg_'
               AND pg_catalog.has_schema_privilege(r.oid, n.oid, 'CREATE')
             ORDER BY 1) AS creators
FROM pg_catalog.pg_namespace AS n
WHERE n.nspname !~ '^pg_'
  AND n.nspname NOT IN ('information_schema', 'pgferry', 'pglogical')
ORDER BY n.nspname
