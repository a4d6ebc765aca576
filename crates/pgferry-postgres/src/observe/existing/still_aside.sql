-- What was set aside and is not there again, by name.
SELECT s.kind, s.schema_name, s.table_name, s.name, s.definition
FROM pgferry.set_aside AS s
WHERE s.definition IS NOT NULL
  AND NOT EXISTS (
      SELECT
      FROM pg_catalog.pg_class AS c
      JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
      WHERE n.nspname = s.schema_name AND c.relname = s.table_name
        AND CASE s.kind
                WHEN 'constraint' THEN EXISTS (SELECT FROM pg_catalog.pg_constraint AS k
                                               WHERE k.conrelid = c.oid AND k.conname = s.name)
                WHEN 'trigger' THEN EXISTS (SELECT FROM pg_catalog.pg_trigger AS g
                                            WHERE g.tgrelid = c.oid AND g.tgname = s.name)
                ELSE c.relispopulated
            END)
-- Triggers first: what follows may take long, or fail for want of rows.
ORDER BY s.kind DESC, s.schema_name, s.table_name, s.name
