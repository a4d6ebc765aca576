-- The journal of every migration that is kept in this database, and who may write it.

CREATE TABLE pgferry.lease (
    migration     text        PRIMARY KEY,
    holder        uuid        NOT NULL,
    epoch         bigint      NOT NULL,
    expires_at    timestamptz NOT NULL,
    backend_pid   integer     NOT NULL,
    backend_start timestamptz NOT NULL
);
COMMENT ON TABLE pgferry.lease IS
    'pgferry: the one daemon that may write a migration''s journal; renewed while it lives';
COMMENT ON COLUMN pgferry.lease.epoch IS
    'raised by every take-over; the same number is raised on both nodes before anything else';
COMMENT ON COLUMN pgferry.lease.backend_pid IS
    'the session that holds the lease: once it is gone the lease need not be waited for';

CREATE TABLE pgferry.journal (
    migration text        NOT NULL,
    seq       bigint      NOT NULL CHECK (seq > 0),
    at        timestamptz NOT NULL,
    epoch     bigint      NOT NULL,
    event     jsonb       NOT NULL,
    PRIMARY KEY (migration, seq)
);
COMMENT ON TABLE pgferry.journal IS
    'pgferry: what was asked for, intended, and seen to be done; rows are only ever added';

COMMENT ON TABLE pgferry.journal_history IS 'pgferry: versions of these tables, kept by refinery';
