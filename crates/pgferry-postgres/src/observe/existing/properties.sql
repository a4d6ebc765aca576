-- What the tables of $1 (schemas) and $2 (names) have beside columns and what comes after rows:
-- defaults, the expressions of generated columns, owner and privileges; MAINTAIN, which servers
-- before 17 do not have, only where $3 says so.
WITH wanted AS (
    SELECT c.oid, n.nspname, c.relname, c.relowner, c.relacl
    FROM unnest($1::text[], $2::text[]) AS w (nspname, relname)
    JOIN pg_catalog.pg_namespace AS n ON n.nspname = w.nspname
    JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relname = w.relname
    WHERE c.relkind IN ('r', 'p')
)
SELECT 'default' AS what, w.nspname::text AS table_schema, w.relname::text AS table_name,
       a.attname::text AS column_name, pg_catalog.pg_get_expr(d.adbin, d.adrelid) AS value
FROM pg_catalog.pg_attrdef AS d
JOIN wanted AS w ON w.oid = d.adrelid
JOIN pg_catalog.pg_attribute AS a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
UNION ALL
SELECT 'grants', w.nspname::text, w.relname::text, '',
       pg_catalog.pg_get_userbyid(w.relowner) || ': '
       || (SELECT coalesce(string_agg(i.item, ', ' ORDER BY i.item), '')
           FROM (SELECT CASE WHEN $3::boolean THEN acl.item::text
                             ELSE regexp_replace(acl.item::text, '(=[A-Za-z*]*)m\*?([A-Za-z*]*/)', '\1\2')
                        END AS item
                 FROM unnest(coalesce(w.relacl, pg_catalog.acldefault('r', w.relowner))) AS acl (item)
                ) AS i)
FROM wanted AS w
ORDER BY 2, 3, 1, 4
