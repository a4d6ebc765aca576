-- What a COPY into the tables of $1 (schemas) and $2 (names) would fire or be refused by, and the
-- filled materialized views of the schemas in scope ($3: names, or NULL for all).
--
-- A foreign key holds TRUNCATE up as well. A check that was never validated may refuse rows that
-- the source has. Triggers that are disabled stay: nothing fires them. What comes and goes with
-- the same object of a table above has no definition of its own.
WITH filled AS (
    SELECT c.oid, n.nspname, c.relname
    FROM unnest($1::text[], $2::text[]) AS w (nspname, relname)
    JOIN pg_catalog.pg_namespace AS n ON n.nspname = w.nspname
    JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relname = w.relname
    WHERE c.relkind IN ('r', 'p')
)
SELECT 'constraint' AS kind, f.nspname::text AS table_schema, f.relname::text AS table_name,
       k.conname::text AS object_name,
       CASE WHEN k.contype = 'f' OR k.conislocal THEN
           pg_catalog.format('ALTER TABLE %I.%I ADD CONSTRAINT %I %s;', f.nspname, f.relname,
                             k.conname, pg_catalog.pg_get_constraintdef(k.oid))
           || coalesce(pg_catalog.format(' COMMENT ON CONSTRAINT %I ON %I.%I IS ',
                                              k.conname, f.nspname, f.relname)
                       || quote_literal(pg_catalog.obj_description(k.oid, 'pg_constraint')) || ';', '')
       END AS definition,
       false AS own_state
FROM pg_catalog.pg_constraint AS k
JOIN filled AS f ON f.oid = k.conrelid
WHERE (k.contype = 'f' AND k.conparentid = 0) OR (k.contype = 'c' AND NOT k.convalidated)
UNION ALL
SELECT 'trigger', f.nspname::text, f.relname::text, g.tgname::text,
       CASE WHEN g.tgparentid = 0 THEN
           pg_catalog.pg_get_triggerdef(g.oid) || ';'
           || CASE g.tgenabled
                  WHEN 'A' THEN pg_catalog.format(' ALTER TABLE %I.%I ENABLE ALWAYS TRIGGER %I;',
                                                  f.nspname, f.relname, g.tgname)
                  WHEN 'R' THEN pg_catalog.format(' ALTER TABLE %I.%I ENABLE REPLICA TRIGGER %I;',
                                                  f.nspname, f.relname, g.tgname)
                  ELSE ''
              END
           || coalesce(pg_catalog.format(' COMMENT ON TRIGGER %I ON %I.%I IS ',
                                              g.tgname, f.nspname, f.relname)
                       || quote_literal(pg_catalog.obj_description(g.oid, 'pg_trigger')) || ';', '')
       END,
       g.tgparentid <> 0 AND g.tgenabled IS DISTINCT FROM p.tgenabled
FROM pg_catalog.pg_trigger AS g
JOIN filled AS f ON f.oid = g.tgrelid
LEFT JOIN pg_catalog.pg_trigger AS p ON p.oid = g.tgparentid
WHERE g.tgname NOT LIKE 'queue\_truncate\_trigger\_%'
  AND (g.tgenabled <> 'D' OR p.tgenabled <> 'D')
  -- Before version 15 the triggers of partitions count as internal.
  AND (NOT g.tgisinternal
       OR (g.tgparentid <> 0
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint AS k
                           WHERE k.oid = g.tgconstraint AND k.contype = 'f')))
UNION ALL
SELECT 'content of materialized view', n.nspname::text, c.relname::text, '',
       pg_catalog.format('REFRESH MATERIALIZED VIEW %I.%I;', n.nspname, c.relname), false
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind = 'm' AND c.relispopulated
  AND n.nspname !~ '^pg_'
  AND n.nspname NOT IN ('information_schema', 'pgferry', 'pglogical')
  AND ($3::text[] IS NULL OR n.nspname = ANY ($3))
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                  WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid
                    AND d.deptype = 'e')
ORDER BY 2, 3, 1, 4
