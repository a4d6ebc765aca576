-- Foreign keys that point to the tables of $1 (schemas) and $2 (names) from tables that are not
-- among them: they hold up the TRUNCATE, and nothing would make them again.
WITH filled AS (
    SELECT c.oid
    FROM unnest($1::text[], $2::text[]) AS w (nspname, relname)
    JOIN pg_catalog.pg_namespace AS n ON n.nspname = w.nspname
    JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relname = w.relname
)
SELECT n.nspname::text AS table_schema, c.relname::text AS table_name, k.conname::text AS object_name
FROM pg_catalog.pg_constraint AS k
JOIN pg_catalog.pg_class AS c ON c.oid = k.conrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE k.contype = 'f' AND k.conparentid = 0
  AND k.confrelid IN (SELECT oid FROM filled)
  AND k.conrelid NOT IN (SELECT oid FROM filled)
ORDER BY 1, 2, 3
