-- What the schemas in scope ($1: names, or NULL for all) define beside tables and what belongs to them,
-- and the owner and privileges of everything that is no table. Nothing that an extension owns. What is
-- granted to this session's own role is left out: it needs not be the same on both sides.
WITH in_scope AS (
    SELECT n.oid, n.nspname, n.nspowner, n.nspacl
    FROM pg_catalog.pg_namespace AS n
    WHERE n.nspname !~ '^pg_'
      AND n.nspname NOT IN ('information_schema', 'pgferry', 'pglogical')
      AND ($1::text[] IS NULL OR n.nspname = ANY ($1))
), owned AS (
    SELECT d.classid, d.objid FROM pg_catalog.pg_depend AS d
    WHERE d.refclassid = 'pg_catalog.pg_extension'::regclass AND d.deptype = 'e'
), relations AS (
    SELECT c.oid, s.nspname, c.relname, c.relkind, c.relowner, c.relacl, c.relpartbound
    FROM pg_catalog.pg_class AS c
    JOIN in_scope AS s ON s.oid = c.relnamespace
    WHERE c.relpersistence <> 't'
      AND NOT EXISTS (SELECT FROM owned AS o
                      WHERE o.classid = 'pg_catalog.pg_class'::regclass AND o.objid = c.oid)
), objects AS (
    -- Labels are compared in their order, the fields of a composite as they are declared.
    SELECT 'type ' || s.nspname || '.' || t.typname AS object,
           CASE t.typtype
               WHEN 'e' THEN (SELECT string_agg(pg_catalog.quote_literal(e.enumlabel), ', '
                                                ORDER BY e.enumsortorder)
                              FROM pg_catalog.pg_enum AS e WHERE e.enumtypid = t.oid)
               WHEN 'd' THEN concat_ws(' ', pg_catalog.format_type(t.typbasetype, t.typtypmod),
                   (SELECT l.collname FROM pg_catalog.pg_collation AS l
                    WHERE l.oid = t.typcollation), CASE WHEN t.typnotnull THEN 'NOT NULL' END,
                   'DEFAULT ' || t.typdefault,
                   (SELECT string_agg(k.conname || ' ' || pg_catalog.pg_get_constraintdef(k.oid), ', '
                                      ORDER BY k.conname)
                    FROM pg_catalog.pg_constraint AS k WHERE k.contypid = t.oid))
               ELSE (SELECT string_agg(a.attname || ' '
                                       || pg_catalog.format_type(a.atttypid, a.atttypmod), ', '
                                       ORDER BY a.attnum)
                     FROM pg_catalog.pg_attribute AS a
                     WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped)
           END AS definition,
           "char" 'T' AS kind, t.typowner AS owner, t.typacl AS acl
    FROM pg_catalog.pg_type AS t
    JOIN in_scope AS s ON s.oid = t.typnamespace
    WHERE (t.typtype IN ('e', 'd')
           OR t.typtype = 'c' AND EXISTS (SELECT FROM pg_catalog.pg_class AS c
                                          WHERE c.oid = t.typrelid AND c.relkind = 'c'))
      AND NOT EXISTS (SELECT FROM owned AS o
                      WHERE o.classid = 'pg_catalog.pg_type'::regclass AND o.objid = t.oid)
  UNION ALL
    -- An aggregate is not printed, only that it is there.
    SELECT 'function ' || s.nspname || '.' || p.proname
           || '(' || pg_catalog.pg_get_function_identity_arguments(p.oid) || ')',
           CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_aggregate AS g WHERE g.aggfnoid = p.oid)
                THEN '' ELSE pg_catalog.pg_get_functiondef(p.oid) END,
           'f', p.proowner, p.proacl
    FROM pg_catalog.pg_proc AS p
    JOIN in_scope AS s ON s.oid = p.pronamespace
    WHERE NOT EXISTS (SELECT FROM owned AS o
                      WHERE o.classid = 'pg_catalog.pg_proc'::regclass AND o.objid = p.oid)
  UNION ALL
    SELECT 'partition ' || r.nspname || '.' || r.relname,
           pg_catalog.pg_get_expr(r.relpartbound, r.oid), NULL, NULL, NULL
    FROM relations AS r
    WHERE r.relkind IN ('r', 'p') AND r.relpartbound IS NOT NULL
  UNION ALL
    SELECT CASE r.relkind WHEN 'S' THEN 'sequence ' ELSE 'view ' END || r.nspname || '.' || r.relname,
           NULL, CASE r.relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", r.relowner, r.relacl
    FROM relations AS r
    WHERE r.relkind IN ('S', 'v', 'm')
  UNION ALL
    SELECT 'column ' || r.nspname || '.' || r.relname || '.' || a.attname,
           NULL, 'c', r.relowner, a.attacl
    FROM pg_catalog.pg_attribute AS a
    JOIN relations AS r ON r.oid = a.attrelid
    WHERE a.attnum > 0 AND NOT a.attisdropped AND r.relkind IN ('r', 'p', 'v', 'm')
      AND a.attacl IS NOT NULL
  UNION ALL
    SELECT 'schema ' || s.nspname, NULL, 'n', s.nspowner, s.nspacl
    FROM in_scope AS s
)
SELECT o.object, o.definition,
       CASE WHEN o.kind IS NOT NULL THEN
           pg_catalog.pg_get_userbyid(o.owner) || ': '
           || (SELECT coalesce(string_agg(i.item::text, ', ' ORDER BY i.item::text COLLATE "C"), '')
               FROM unnest(coalesce(o.acl, pg_catalog.acldefault(o.kind, o.owner))) AS i (item)
               WHERE strpos(i.item::text, pg_catalog.quote_ident(current_user) || '=') <> 1)
       END AS grants
FROM objects AS o
