-- Triggers that fire for replicated rows too: ENABLE ALWAYS and ENABLE REPLICA.
SELECT n.nspname::text AS table_schema, c.relname::text AS table_name, t.tgname::text AS trigger_name,
       t.tgenabled = 'A' AS always
FROM pg_catalog.pg_trigger AS t
JOIN pg_catalog.pg_class AS c ON c.oid = t.tgrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE NOT t.tgisinternal AND t.tgenabled IN ('A', 'R')
  AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'pgferry', 'pglogical')
  AND c.relkind = 'r'
ORDER BY 1, 2, 3
