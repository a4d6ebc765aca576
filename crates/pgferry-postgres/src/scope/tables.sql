-- Every table a migration carries, one row each, with its columns as parallel arrays.
-- Only catalogs are read and no lock on a table is taken, unless $4 asks for measured sizes:
-- pg_table_size waits behind an ACCESS EXCLUSIVE lock, so a look that repeats must not ask.
--
-- $1 text[]: schemas, NULL for every schema that is neither the system's, ours nor an extension's
-- $2 text[], $3 text[]: schemas and names of excluded tables; a partitioned parent excludes its leaves
-- $4 boolean: measure sizes
WITH owned_by_extension AS MATERIALIZED (
    SELECT classid, objid
    FROM pg_catalog.pg_depend
    -- By the extension and not by the object: there is an index that begins with it.
    WHERE refclassid = 'pg_catalog.pg_extension'::regclass AND deptype = 'e'
      AND classid IN ('pg_catalog.pg_class'::regclass, 'pg_catalog.pg_namespace'::regclass)
),
excluded AS MATERIALIZED (
    SELECT c.oid
    FROM unnest($2::text[], $3::text[]) AS e (nspname, relname)
    JOIN pg_catalog.pg_namespace AS n ON n.nspname = e.nspname
    JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relname = e.relname
),
candidate AS (
    SELECT c.oid, c.relfilenode, n.nspname, c.relname, c.relowner, c.relpersistence, c.relpages, c.reltuples,
           c.relrowsecurity, c.relforcerowsecurity, c.relreplident,
           CASE WHEN c.relispartition
                THEN ARRAY(SELECT a.relid::oid
                           FROM pg_catalog.pg_partition_ancestors(c.oid) WITH ORDINALITY AS a (relid, depth)
                           WHERE a.relid <> c.oid
                           ORDER BY a.depth)
                ELSE '{}'
           END AS ancestors
    FROM pg_catalog.pg_class AS c
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r'
      AND c.relpersistence IN ('p', 'u')
      AND n.nspname !~ '^pg_'
      AND n.nspname NOT IN ('information_schema', 'pgferry', 'pglogical')
      AND ($1::text[] IS NULL OR n.nspname = ANY ($1))
      AND c.oid NOT IN (SELECT e.objid FROM owned_by_extension AS e
                        WHERE e.classid = 'pg_catalog.pg_class'::regclass)
      AND n.oid NOT IN (SELECT e.objid FROM owned_by_extension AS e
                        WHERE e.classid = 'pg_catalog.pg_namespace'::regclass)
),
-- Of all tables at once: one by one, each would be a plan of its own carried out once more.
col AS (
    SELECT a.attrelid,
           -- In one order for all arrays, and whoever reads them sorts by position.
           array_agg(a.attname::text) AS names,
           array_agg(
               -- Never what search_path makes of a name: it may differ between the sides.
               CASE WHEN tn.nspname = 'pg_catalog'
                    THEN pg_catalog.format_type(a.atttypid, a.atttypmod)
                    ELSE pg_catalog.quote_ident(tn.nspname) || '.' || pg_catalog.quote_ident(t.typname)
                         || CASE WHEN a.atttypmod >= 0 THEN '(' || a.atttypmod || ')' ELSE '' END
               END) AS types,
           array_agg(
               CASE WHEN a.attcollation <> 0 AND a.attcollation <> t.typcollation
                    THEN pg_catalog.quote_ident(cn.nspname) || '.' || pg_catalog.quote_ident(co.collname)
               END) AS collations,
           array_agg(a.attnotnull) AS not_null,
           array_agg(a.attgenerated::text) AS generated,
           -- A partition has its table's from 17 on, and none before.
           array_agg(
               CASE WHEN c.ancestors = '{}' THEN a.attidentity::text ELSE '' END) AS identity,
           array_agg(a.attnum) AS positions
    FROM pg_catalog.pg_attribute AS a
    JOIN candidate AS c ON c.oid = a.attrelid
    JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
    JOIN pg_catalog.pg_namespace AS tn ON tn.oid = t.typnamespace
    LEFT JOIN pg_catalog.pg_collation AS co ON co.oid = a.attcollation
    LEFT JOIN pg_catalog.pg_namespace AS cn ON cn.oid = co.collnamespace
    WHERE a.attnum > 0 AND NOT a.attisdropped
    GROUP BY a.attrelid
)
SELECT c.oid,
       c.nspname::text AS table_schema,
       c.relname::text AS table_name,
       pg_catalog.pg_get_userbyid(c.relowner)::text AS owner,
       c.relpersistence = 'u' AS unlogged,
       -- By the statement's snapshot; pg_relation_filenode() tells today's whatever is read.
       c.relfilenode,
       CASE WHEN $4::boolean
            THEN coalesce(pg_catalog.pg_table_size(c.oid), 0)
            ELSE c.relpages::bigint * pg_catalog.current_setting('block_size')::bigint
       END AS bytes,
       CASE WHEN c.reltuples >= 0 THEN c.reltuples::bigint END AS rows,
       c.relrowsecurity AS row_security_enabled,
       c.relforcerowsecurity AS row_security_forced,
       pg_catalog.row_security_active(c.oid) AS row_security_active,
       ARRAY(SELECT an.nspname::text
             FROM unnest(c.ancestors) WITH ORDINALITY AS a (relid, depth)
             JOIN pg_catalog.pg_class AS ac ON ac.oid = a.relid
             JOIN pg_catalog.pg_namespace AS an ON an.oid = ac.relnamespace
             ORDER BY a.depth) AS ancestor_schemas,
       ARRAY(SELECT ac.relname::text
             FROM unnest(c.ancestors) WITH ORDINALITY AS a (relid, depth)
             JOIN pg_catalog.pg_class AS ac ON ac.oid = a.relid
             ORDER BY a.depth) AS ancestor_names,
       c.relreplident::text AS replica_identity,
       key.index_name,
       key.columns AS key_columns,
       key.usable AS key_usable,
       key.immediate AS key_immediate,
       CASE WHEN key.index_name IS NULL THEN (
           -- What REPLICA IDENTITY USING INDEX accepts.
           SELECT ic.relname::text
           FROM pg_catalog.pg_index AS i
           JOIN pg_catalog.pg_class AS ic ON ic.oid = i.indexrelid
           WHERE i.indrelid = c.oid
             AND i.indisunique AND i.indimmediate AND i.indisvalid
             AND i.indpred IS NULL AND i.indexprs IS NULL
             AND NOT EXISTS (
                 SELECT FROM pg_catalog.pg_attribute AS a
                 WHERE a.attrelid = c.oid AND NOT a.attnotnull
                   AND a.attnum = ANY (i.indkey[0:i.indnkeyatts - 1]))
           ORDER BY i.indnkeyatts, ic.relname
           LIMIT 1)
       END AS candidate_index,
       coalesce(col.names, '{}') AS names,
       coalesce(col.types, '{}') AS types,
       coalesce(col.collations, '{}') AS collations,
       coalesce(col.not_null, '{}') AS not_null,
       coalesce(col.generated, '{}') AS generated,
       coalesce(col.identity, '{}') AS identity,
       coalesce(col.positions, '{}') AS positions
FROM candidate AS c
LEFT JOIN LATERAL (
    -- The index that pglogical would find rows by: the primary key, or the one chosen by
    -- REPLICA IDENTITY USING INDEX. FULL and NOTHING leave it none; the primary key is still
    -- listed, to say so in the remedy.
    SELECT ic.relname::text AS index_name,
           i.indisvalid AND i.indisready AND i.indislive AS usable,
           i.indimmediate AS immediate,
           ARRAY(SELECT (SELECT a.attname::text FROM pg_catalog.pg_attribute AS a
                         WHERE a.attrelid = c.oid AND a.attnum = k.attnum)
                 FROM unnest(i.indkey[0:i.indnkeyatts - 1]) WITH ORDINALITY AS k (attnum, place)
                 ORDER BY k.place) AS columns
    FROM pg_catalog.pg_index AS i
    JOIN pg_catalog.pg_class AS ic ON ic.oid = i.indexrelid
    WHERE i.indrelid = c.oid
      AND CASE c.relreplident WHEN 'i' THEN i.indisreplident ELSE i.indisprimary END
    LIMIT 1
) AS key ON true
-- A table without columns is a table.
LEFT JOIN col ON col.attrelid = c.oid
WHERE c.oid NOT IN (SELECT oid FROM excluded)
  AND NOT c.ancestors && ARRAY(SELECT oid FROM excluded)
ORDER BY c.nspname, c.relname
