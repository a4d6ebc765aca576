-- What a verification has compared already, so that a restarted one does not begin again. Kept on the
-- destination, whichever side is active, until the next verification begins.

CREATE TABLE pgferry.verified (
    run         uuid        NOT NULL,
    schema_name text        NOT NULL,
    table_name  text        NOT NULL,
    range_no    integer     NOT NULL,
    from_key    text[]      NULL,
    to_key      text[]      NULL,
    outcome     jsonb       NULL,
    verified_at timestamptz NULL,
    PRIMARY KEY (run, schema_name, table_name, range_no)
);
COMMENT ON TABLE pgferry.verified IS
    'pgferry: ranges of tables that a verification compares, with what it found';
COMMENT ON COLUMN pgferry.verified.run IS 'the operation that asked for it';
COMMENT ON COLUMN pgferry.verified.from_key IS 'first key of the range; NULL from the beginning';
COMMENT ON COLUMN pgferry.verified.to_key IS 'first key behind the range; NULL to the end';
COMMENT ON COLUMN pgferry.verified.outcome IS
    'rows, and what differs by key and column, without values; NULL while it is not compared';
