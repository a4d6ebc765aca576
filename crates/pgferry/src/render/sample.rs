//! Made-up documents for the tests of the client.

use jiff::Timestamp;
use pgferry_api::{
    Condition, ConditionKind, Copy, CopyReport, CopyState, CopyTable, Kind, LastSwitchover,
    Migration, MigrationName, Operation, OperationState, Outcome, Phase, Sequences, Side, StepTime,
    Stream, StreamStatus, Verb, Verification,
};
use uuid::Uuid;

const ID: Uuid = Uuid::from_u128(0x0193_6b2a_0000_7000_8000_0000_0000_0001);

pub(crate) fn name() -> MigrationName {
    "orders".parse().unwrap()
}

pub(crate) fn planned() -> Migration {
    Migration {
        name: name(),
        phase: Phase::Planned,
        step: None,
        active: Side::Source,
        condition: None,
        forward: Stream::without_figures(StreamStatus::Absent),
        reverse: Stream::without_figures(StreamStatus::Absent),
        copy: None,
        sequences: Sequences::default(),
        verification: None,
        last_switchover: None,
        leader: true,
        epoch: None,
    }
}

pub(crate) fn copying() -> Migration {
    Migration {
        phase: Phase::Copying,
        step: Some("copy_rows".to_owned()),
        forward: Stream::without_figures(StreamStatus::Disabled),
        copy: Some(Copy {
            tables_total: Some(11),
            tables_done: Some(3),
            rows: Some(4000),
            bytes: Some(204_800),
            bytes_expected: Some(901_120),
            seconds: Some(0.4),
        }),
        epoch: Some(1),
        ..planned()
    }
}

/// A verification that has ended.
pub(crate) fn verified() -> Verification {
    Verification {
        state: "clean".to_owned(),
        finished_at: None,
        tables: Some(11),
        rows: Some(15_607),
        mismatched_rows: Some(0),
        active: None,
        age_seconds: Some(300),
        since: Some("the source has been active since".to_owned()),
        tables_total: None,
        seconds_left: None,
        unsettled_rows: None,
        mended_rows: None,
        other_differences: None,
        background: Some("a round has compared 3 of 11 tables again".to_owned()),
    }
}

/// The copy of [`copying`], a little later.
pub(crate) fn copy_report() -> CopyReport {
    let table = |name: &str, state, rows, bytes: [u64; 2], indexes: [u64; 2]| CopyTable {
        schema: "public".to_owned(),
        table: name.to_owned(),
        state,
        rows,
        bytes: bytes[0],
        bytes_expected: bytes[1],
        indexes_total: indexes[1],
        indexes_done: indexes[0],
        seconds_left: (state == CopyState::Copying).then_some(1.0),
    };
    CopyReport {
        tables_total: Some(11),
        tables_done: Some(3),
        rows: Some(4100),
        bytes: Some(210_000),
        bytes_expected: Some(901_120),
        indexes_total: Some(40),
        indexes_done: Some(7),
        bytes_per_second: Some(512_000.0),
        rows_per_second: Some(10_000.0),
        seconds_left: Some(1.36),
        seconds: Some(0.5),
        tables: vec![
            table("orders", CopyState::Copying, 1000, [44_032, 102_400], [0, 2]),
            table("items", CopyState::Indexing, 3000, [163_840, 163_840], [1, 3]),
            table("events", CopyState::Waiting, 0, [0, 512_000], [0, 0]),
            table("countries", CopyState::Done, 100, [2_128, 2_128], [1, 1]),
        ],
    }
}

pub(crate) fn ready() -> Migration {
    Migration {
        phase: Phase::Ready,
        condition: Some(Condition {
            kind: ConditionKind::Blocked,
            code: "tables_missing".to_owned(),
            message: "public.new is in no set".to_owned(),
            hint: "pgferry resume\ntakes it in".to_owned(),
            since: at(),
        }),
        forward: Stream {
            status: StreamStatus::Streaming,
            lag_seconds: Some(0.012),
            lag_bytes: Some(4096),
            retained_wal_bytes: Some(16_777_216),
        },
        reverse: Stream::without_figures(StreamStatus::Unknown),
        copy: Some(Copy {
            tables_total: Some(11),
            tables_done: Some(11),
            rows: Some(15_607),
            bytes: Some(901_120),
            bytes_expected: Some(901_120),
            seconds: Some(1.2),
        }),
        sequences: Sequences { total: Some(11), behind: Some(0) },
        last_switchover: Some(LastSwitchover {
            id: ID,
            kind: Kind::Rollback,
            outcome: Outcome::Succeeded,
            started_at: at(),
            write_stall_ms: Some(31.2),
            steps: vec![
                StepTime { step: "fence_active".to_owned(), ms: 12.1 },
                StepTime { step: "drain".to_owned(), ms: 4.0 },
            ],
        }),
        epoch: Some(3),
        ..planned()
    }
}

/// The operation of the last switchover of [`ready`], or another one with the same id.
pub(crate) fn operation(verb: Verb, state: OperationState) -> Operation {
    let running = state == OperationState::Running;
    Operation {
        id: ID,
        migration: name(),
        verb,
        state,
        requested_at: at(),
        finished_at: (!running).then(at),
        problem: None,
        remains: vec![],
    }
}

fn at() -> Timestamp {
    "2026-11-21T06:00:00Z".parse().unwrap()
}
