-- Everything that pg_restore makes in its post-data section, or may have to make after something
-- of it, for the schemas in scope ($1: names, or NULL for all), with the oids that a dump's table
-- of contents shows. No event triggers: they are not carried.
WITH in_scope AS (
    SELECT c.oid, n.nspname AS schema_name, c.relname AS table_name, c.relkind,
           c.relrowsecurity, c.relforcerowsecurity, c.relispopulated
    FROM pg_class AS c
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'm', 'v', 'f')
      AND c.relpersistence <> 't'
      AND n.nspname !~ '^pg_'
      AND n.nspname NOT IN ('information_schema', 'pgferry', 'pglogical')
      AND ($1::text[] IS NULL OR n.nspname = ANY ($1))
      AND c.oid NOT IN (
          SELECT d.objid FROM pg_depend AS d
          WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
            AND d.classid = 'pg_class'::regclass)
), objects AS (
    SELECT 'pg_class'::regclass::oid AS class_id, i.indexrelid AS object_id, 'index' AS kind,
           t.schema_name, t.table_name, c.relname AS object_name,
           pg_get_indexdef(i.indexrelid) AS definition,
           CASE WHEN i.indisreplident THEN 'replica identity' ELSE '' END AS state,
           i.indisvalid AND i.indisready AS sound
    FROM pg_index AS i
    JOIN in_scope AS t ON t.oid = i.indrelid
    JOIN pg_class AS c ON c.oid = i.indexrelid
  UNION ALL
    -- Foreign keys of partitions are made with their parent's, under names that may differ.
    SELECT 'pg_constraint'::regclass, k.oid, 'constraint', t.schema_name, t.table_name, k.conname,
           pg_get_constraintdef(k.oid),
           CASE WHEN k.convalidated THEN '' ELSE 'not validated' END, true
    FROM pg_constraint AS k
    JOIN in_scope AS t ON t.oid = k.conrelid
    WHERE k.contype IN ('p', 'u', 'x', 'c') OR (k.contype = 'f' AND k.conparentid = 0)
  UNION ALL
    SELECT 'pg_trigger'::regclass, g.oid, 'trigger', t.schema_name, t.table_name, g.tgname,
           pg_get_triggerdef(g.oid), g.tgenabled::text, true
    FROM pg_trigger AS g
    JOIN in_scope AS t ON t.oid = g.tgrelid
    WHERE g.tgname NOT LIKE 'queue\_truncate\_trigger\_%'
      -- Before version 15 the triggers of partitions count as internal.
      AND (NOT g.tgisinternal
           OR (g.tgparentid <> 0
               AND NOT EXISTS (SELECT FROM pg_constraint AS k
                               WHERE k.oid = g.tgconstraint AND k.contype = 'f')))
  UNION ALL
    SELECT 'pg_rewrite'::regclass, r.oid, 'rule', t.schema_name, t.table_name, r.rulename,
           pg_get_ruledef(r.oid), r.ev_enabled::text, true
    FROM pg_rewrite AS r
    JOIN in_scope AS t ON t.oid = r.ev_class
    WHERE r.rulename <> '_RETURN'
  UNION ALL
    SELECT 'pg_policy'::regclass, p.oid, 'policy', t.schema_name, t.table_name, p.polname,
           concat_ws(' ', pg_get_expr(p.polqual, p.polrelid),
                     'WITH CHECK ' || pg_get_expr(p.polwithcheck, p.polrelid)),
           concat_ws(' ', p.polcmd::text,
                     CASE WHEN p.polpermissive THEN 'permissive' ELSE 'restrictive' END,
                     (SELECT string_agg(coalesce(a.rolname, 'public'), ',' ORDER BY a.rolname)
                      FROM unnest(p.polroles) AS r (oid) LEFT JOIN pg_roles AS a ON a.oid = r.oid)),
           true
    FROM pg_policy AS p
    JOIN in_scope AS t ON t.oid = p.polrelid
  UNION ALL
    -- A dump shows row security under its table's oid and no catalog's.
    SELECT 0, t.oid, 'row security', t.schema_name, t.table_name, NULL, '',
           CASE WHEN t.relforcerowsecurity THEN 'forced' ELSE '' END, true
    FROM in_scope AS t
    WHERE t.relrowsecurity
  UNION ALL
    SELECT 'pg_statistic_ext'::regclass, s.oid, 'statistics', n.nspname, t.table_name, s.stxname,
           pg_get_statisticsobjdef(s.oid), '', true
    FROM pg_statistic_ext AS s
    JOIN in_scope AS t ON t.oid = s.stxrelid
    JOIN pg_namespace AS n ON n.oid = s.stxnamespace
  UNION ALL
    -- pg_dump makes a view that needs a key as a dummy without a query of its own, and gives it
    -- the query as a rule after the key. Not under the rule's oid: the dummy has the rule too, and
    -- what is present is left out of a restore.
    SELECT 'pg_class'::regclass, t.oid, 'view', t.schema_name, t.table_name, NULL,
           pg_get_viewdef(t.oid),
           CASE WHEN EXISTS (
               SELECT FROM pg_rewrite AS r
               JOIN pg_depend AS d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
               WHERE r.ev_class = t.oid AND r.rulename = '_RETURN'
                 AND d.refclassid IN ('pg_class'::regclass, 'pg_proc'::regclass)
                 AND d.refobjid <> t.oid)
           THEN '' ELSE 'reads nothing' END, true
    FROM in_scope AS t
    WHERE t.relkind = 'v'
  UNION ALL
    SELECT 'pg_class'::regclass, t.oid, 'materialized view', t.schema_name, t.table_name, NULL,
           pg_get_viewdef(t.oid), '', true
    FROM in_scope AS t
    WHERE t.relkind = 'm'
  UNION ALL
    -- Only a body that was parsed when it was made can need a key, and be postponed until there is
    -- one. By way of JSON, because servers before 14 do not have the column.
    SELECT 'pg_proc'::regclass, p.oid, 'function', n.nspname, NULL,
           p.proname || '(' || pg_get_function_identity_arguments(p.oid) || ')',
           pg_get_functiondef(p.oid), '', true
    FROM pg_proc AS p
    JOIN pg_namespace AS n ON n.oid = p.pronamespace
    JOIN pg_language AS l ON l.oid = p.prolang AND l.lanname = 'sql'
    WHERE n.nspname !~ '^pg_'
      AND n.nspname NOT IN ('information_schema', 'pgferry', 'pglogical')
      AND ($1::text[] IS NULL OR n.nspname = ANY ($1))
      AND to_jsonb(p) ->> 'prosqlbody' IS NOT NULL
      AND NOT EXISTS (
          SELECT FROM pg_depend AS d
          WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
  UNION ALL
    -- Never 0 and 0: a dump shows these for every entry that has no object of its own.
    SELECT 0, t.oid, 'content of materialized view', t.schema_name, t.table_name, NULL, '', '', true
    FROM in_scope AS t
    WHERE t.relkind = 'm' AND t.relispopulated
)
SELECT class_id, object_id, kind, schema_name::text, table_name::text, object_name::text,
       coalesce(definition, '') AS definition, state, sound
FROM objects
