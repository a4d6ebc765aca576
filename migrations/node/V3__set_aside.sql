-- What stood on a destination that brought its own schema, and is away while rows are copied. It
-- comes back from the source's dump; this is for the end of a migration that is given up before.

CREATE TABLE pgferry.set_aside (
    kind         text        NOT NULL
        CHECK (kind IN ('constraint', 'trigger', 'content of materialized view')),
    schema_name  text        NOT NULL,
    table_name   text        NOT NULL,
    name         text        NOT NULL,
    definition   text        NULL,
    set_aside_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (kind, schema_name, table_name, name)
);
COMMENT ON TABLE pgferry.set_aside IS
    'pgferry: foreign keys and triggers of this database, removed for the time of the copy';
COMMENT ON COLUMN pgferry.set_aside.name IS 'empty for what has no name beside its table''s';
COMMENT ON COLUMN pgferry.set_aside.definition IS
    'the statements that make it again; NULL when it comes with the one of the table above';
