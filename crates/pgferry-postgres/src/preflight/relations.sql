-- How many relations are in the schemas in scope, by what a transaction that makes or dumps them
-- must lock. Counted in the catalog: what an extension owns is in it too, and is made as well.
--
-- $1 text[]: schemas in scope, NULL for all
SELECT count(*) FILTER (WHERE c.relkind IN ('r', 'p')) AS tables,
       count(*) FILTER (WHERE c.reltoastrelid <> 0) AS toast_tables,
       count(*) FILTER (WHERE c.relkind = 'S') AS sequences,
       count(*) FILTER (WHERE c.relkind IN ('v', 'm', 'f', 'c')) AS others
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relpersistence <> 't'
  AND n.nspname !~ '^pg_'
  AND n.nspname NOT IN ('information_schema', 'pgferry', 'pglogical')
  AND ($1::text[] IS NULL OR n.nspname = ANY ($1))
