-- What stands in the schemas in scope and is not an extension's: what a copied schema would
-- collide with. has_storage says that a table holds rows, or did since its last TRUNCATE or
-- VACUUM; asking the file needs no privilege on the table.
--
-- $1 text[]: schemas in scope, NULL for all
WITH user_schema AS MATERIALIZED (
    SELECT n.oid, n.nspname
    FROM pg_catalog.pg_namespace AS n
    WHERE n.nspname !~ '^pg_'
      AND n.nspname NOT IN ('information_schema', 'pgferry', 'pglogical')
      AND ($1::text[] IS NULL OR n.nspname = ANY ($1))
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                      WHERE d.classid = 'pg_catalog.pg_namespace'::regclass
                        AND d.objid = n.oid AND d.deptype = 'e')
),
object AS (
    SELECT 'pg_catalog.pg_class'::regclass AS classid, c.oid, s.nspname, c.relname AS name,
           c.relowner AS owner, NULL::text AS arguments,
           CASE c.relkind
               WHEN 'r' THEN 'table' WHEN 'p' THEN 'table' WHEN 'v' THEN 'view'
               WHEN 'm' THEN 'materialized view' WHEN 'f' THEN 'foreign table'
               WHEN 'S' THEN 'sequence'
           END AS kind,
           c.relkind = 'r' AND coalesce(pg_catalog.pg_relation_size(c.oid), 0) > 0 AS has_storage
    FROM pg_catalog.pg_class AS c
    JOIN user_schema AS s ON s.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND c.relpersistence <> 't'
    UNION ALL
    SELECT 'pg_catalog.pg_proc'::regclass, p.oid, s.nspname, p.proname, p.proowner,
           pg_catalog.pg_get_function_identity_arguments(p.oid), 'function', false
    FROM pg_catalog.pg_proc AS p
    JOIN user_schema AS s ON s.oid = p.pronamespace
    UNION ALL
    SELECT 'pg_catalog.pg_type'::regclass, t.oid, s.nspname, t.typname, t.typowner, NULL, 'type', false
    FROM pg_catalog.pg_type AS t
    JOIN user_schema AS s ON s.oid = t.typnamespace
    WHERE t.typtype IN ('d', 'e', 'r')
       OR (t.typtype = 'c' AND EXISTS (SELECT FROM pg_catalog.pg_class AS c
                                       WHERE c.oid = t.typrelid AND c.relkind = 'c'))
)
SELECT o.kind, o.nspname::text AS object_schema, o.name::text AS object_name,
       pg_catalog.pg_get_userbyid(o.owner)::text AS owner, o.arguments, o.has_storage
FROM object AS o
WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                  WHERE d.classid = o.classid AND d.objid = o.oid AND d.objsubid = 0
                    -- 'i': the sequence of an identity column, which its table stands for
                    AND d.deptype IN ('e', 'i'))
ORDER BY o.kind, 2, 3
