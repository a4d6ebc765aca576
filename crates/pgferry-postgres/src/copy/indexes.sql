-- The indexes that the copy builds itself, one row each: those of ordinary tables, alone or under a
-- primary key or unique constraint. Exclusion constraints, and what belongs to a partitioned table,
-- are pg_restore's.
--
-- $1 text[], $2 text[]: schemas and names of the tables
SELECT n.nspname::text AS table_schema,
       c.relname::text AS table_name,
       ic.relname::text AS index_name,
       pg_catalog.pg_get_indexdef(i.indexrelid) AS definition,
       i.indisunique AS is_unique,
       am.amname = 'btree' AS is_btree,
       i.indisclustered AS is_clustered,
       i.indisreplident AS is_replica_identity,
       k.contype::text AS constraint_type,
       k.condeferrable AS is_deferrable,
       k.condeferred AS is_deferred,
       pg_catalog.pg_relation_size(i.indexrelid) AS bytes,
       coalesce(statistics.numbers, '{}') AS statistics_columns,
       coalesce(statistics.targets, '{}') AS statistics_targets
FROM unnest($1::text[], $2::text[]) AS wanted (nspname, relname)
JOIN pg_catalog.pg_namespace AS n ON n.nspname = wanted.nspname
JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relname = wanted.relname AND c.relkind = 'r'
JOIN pg_catalog.pg_index AS i ON i.indrelid = c.oid AND i.indisvalid AND i.indisready AND i.indislive
JOIN pg_catalog.pg_class AS ic ON ic.oid = i.indexrelid
JOIN pg_catalog.pg_am AS am ON am.oid = ic.relam
LEFT JOIN pg_catalog.pg_constraint AS k
       ON k.conindid = i.indexrelid AND k.conrelid = c.oid AND k.contype IN ('p', 'u', 'x')
LEFT JOIN LATERAL (
    SELECT array_agg(a.attnum ORDER BY a.attnum) AS numbers,
           array_agg(a.attstattarget::integer ORDER BY a.attnum) AS targets
    FROM pg_catalog.pg_attribute AS a
    WHERE a.attrelid = i.indexrelid AND a.attstattarget >= 0
) AS statistics ON true
WHERE k.contype IS DISTINCT FROM 'x'
ORDER BY i.indisprimary DESC, i.indisunique DESC, ic.relname
