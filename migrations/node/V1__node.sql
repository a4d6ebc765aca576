-- What a node keeps of a migration. Only pgferry.heartbeat and pgferry.marker are ever in a
-- replication set; everything else is this server's own word about itself.

CREATE TABLE pgferry.node (
    singleton  boolean     PRIMARY KEY DEFAULT true CHECK (singleton),
    migration  text        NOT NULL,
    side       text        NOT NULL CHECK (side IN ('source', 'destination')),
    id         uuid        NOT NULL,
    epoch      bigint      NOT NULL,
    state      text        NOT NULL CHECK (state IN ('open', 'fenced', 'yielded')),
    revision   bigint      NOT NULL DEFAULT 0,
    fenced_at  timestamptz NULL,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE pgferry.node IS
    'pgferry: who this database is in the migration; every mutation of it checks the epoch here';
COMMENT ON COLUMN pgferry.node.singleton IS 'holds the table at one row';
COMMENT ON COLUMN pgferry.node.id IS
    'random identity, checked on every connection: a host name may have moved to another server';
COMMENT ON COLUMN pgferry.node.epoch IS 'the leadership that may change this node';
COMMENT ON COLUMN pgferry.node.revision IS
    'raised by every change of state: the guard against a change that lands late';

CREATE TABLE pgferry.fenced_role (
    role             name PRIMARY KEY,
    previous_setting text NULL,
    lifted_at        timestamptz NULL
);
COMMENT ON TABLE pgferry.fenced_role IS
    'pgferry: roles fenced on this side, with what lifting the fence restores';
COMMENT ON COLUMN pgferry.fenced_role.previous_setting IS
    'default_transaction_read_only of the role in this database before the fence; NULL when it had none';

-- Few rows, rewritten all day: room in the page lets every version stay there (HOT), so that
-- neither index nor table grows while a long snapshot holds vacuum back.
CREATE TABLE pgferry.heartbeat (
    side    text        PRIMARY KEY CHECK (side IN ('source', 'destination')),
    beat_at timestamptz NULL,
    beat    bigint      NOT NULL DEFAULT 0
) WITH (fillfactor = 10);
COMMENT ON TABLE pgferry.heartbeat IS
    'pgferry: each side rewrites its own row; the other row is what replication brought';
COMMENT ON COLUMN pgferry.heartbeat.beat_at IS
    'clock of the side that wrote it; NULL until its first beat, so that no installation time passes for one';

CREATE TABLE pgferry.marker (
    side       text        PRIMARY KEY CHECK (side IN ('source', 'destination')),
    token      bigint      NOT NULL DEFAULT 0,
    written_at timestamptz NULL,
    writer     xid8        NULL
) WITH (fillfactor = 10);
COMMENT ON TABLE pgferry.marker IS
    'pgferry: written on one side and awaited on the other: proof that everything committed before it has been applied';
COMMENT ON COLUMN pgferry.marker.written_at IS 'NULL until the first marker';
COMMENT ON COLUMN pgferry.marker.writer IS
    'transaction that wrote the row on its own side: another xmin there means that the row came back';

-- Both rows on both sides from the start: a replicated UPDATE needs a row to find.
INSERT INTO pgferry.heartbeat (side) VALUES ('source'), ('destination');
INSERT INTO pgferry.marker (side) VALUES ('source'), ('destination');

CREATE TABLE pgferry.copied (
    schema_name  text        NOT NULL,
    table_name   text        NOT NULL,
    snapshot_lsn pg_lsn      NOT NULL,
    row_count    bigint      NOT NULL,
    byte_count   bigint      NOT NULL,
    copied_at    timestamptz NOT NULL DEFAULT now(),
    analyzed_at  timestamptz NULL,
    PRIMARY KEY (schema_name, table_name)
);
COMMENT ON TABLE pgferry.copied IS
    'pgferry: tables whose rows are here, written in the transaction that copied them';
COMMENT ON COLUMN pgferry.copied.snapshot_lsn IS
    'position of the snapshot the rows were read under: rows of another snapshot do not count';

COMMENT ON TABLE pgferry.node_history IS 'pgferry: versions of these tables, kept by refinery';
