//! A migration as `GET /v1/migrations/{name}` shows it.
//!
//! Every field is always present in the JSON; what is not known is null.

use jiff::Timestamp;
use pgferry_plan::verify::Difference;
use pgferry_plan::{Kind, MigrationName, Side};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::words::{ConditionKind, Outcome, Phase, StreamStatus};

/// One migration: where it stands, what holds it, and how its streams are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Migration {
    /// Its name in the configuration.
    pub name: MigrationName,
    /// Where it stands in its life.
    pub phase: Phase,
    /// The step at work; null between steps and at a gate.
    pub step: Option<String>,
    /// The side that takes writes.
    pub active: Side,
    /// What keeps it from moving; null when nothing does.
    pub condition: Option<Condition>,
    /// The stream from source to destination.
    pub forward: Stream,
    /// The stream from destination to source.
    pub reverse: Stream,
    /// The copy of the rows; null before it begins.
    pub copy: Option<Copy>,
    /// The sequences of both sides.
    pub sequences: Sequences,
    /// The last comparison of rows; null before the first.
    pub verification: Option<Verification>,
    /// The last cutover or rollback; null before the first.
    pub last_switchover: Option<LastSwitchover>,
    /// Whether this daemon may act on it.
    pub leader: bool,
    /// The number of the present leadership; null when it was never read, or before `start`.
    pub epoch: Option<u64>,
}

/// The answer of `GET /v1/migrations`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Migrations {
    /// Every configured migration, by name.
    pub migrations: Vec<Migration>,
}

/// Why a migration does not move, for programs and for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// Whether it waits, is blocked, or was paused.
    pub kind: ConditionKind,
    /// A stable word for programs, `snake_case`.
    pub code: String,
    /// One sentence for people.
    pub message: String,
    /// What to do about it; empty when there is nothing to do.
    pub hint: String,
    /// Since when.
    pub since: Timestamp,
}

/// One direction's stream and how far it is behind.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stream {
    /// How it is.
    pub status: StreamStatus,
    /// Age of the newest heartbeat that has arrived.
    pub lag_seconds: Option<f64>,
    /// Bytes of write-ahead log between what is written and what is confirmed.
    pub lag_bytes: Option<u64>,
    /// Bytes of write-ahead log that the slot keeps on the server.
    pub retained_wal_bytes: Option<u64>,
}

impl Stream {
    /// A stream with a status and no figures.
    #[must_use]
    pub fn without_figures(status: StreamStatus) -> Self {
        Self { status, lag_seconds: None, lag_bytes: None, retained_wal_bytes: None }
    }
}

/// How far the copy of the rows is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Copy {
    /// Tables to copy.
    pub tables_total: Option<u64>,
    /// Tables copied and committed.
    pub tables_done: Option<u64>,
    /// Rows sent so far.
    pub rows: Option<u64>,
    /// Bytes sent so far.
    pub bytes: Option<u64>,
    /// Bytes expected in all, in the form of `bytes`: an estimate by the size of the tables and by
    /// what was read of them so far. Never below `bytes`.
    pub bytes_expected: Option<u64>,
    /// How long the copying took, or has taken so far.
    pub seconds: Option<f64>,
}

/// The sequences in scope.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sequences {
    /// How many there are.
    pub total: Option<u64>,
    /// How many of the passive side are behind the active side.
    pub behind: Option<u64>,
}

/// The last comparison of rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verification {
    /// Its result, as a word: `running`, `clean` or `mismatched`.
    pub state: String,
    /// When it ended; null while it runs.
    pub finished_at: Option<Timestamp>,
    /// Tables compared.
    pub tables: Option<u64>,
    /// Rows compared.
    pub rows: Option<u64>,
    /// Rows that differ.
    pub mismatched_rows: Option<u64>,
    /// The side that took the writes meanwhile. This field and those below it are left out of the
    /// JSON when they are not known, or say nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<Side>,
    /// Whole seconds since it began: what it says is as old as that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_seconds: Option<u64>,
    /// What has changed since, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Tables to compare, while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tables_total: Option<u64>,
    /// Seconds until every table is compared, while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds_left: Option<u64>,
    /// Rows that changed between any two looks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsettled_rows: Option<u64>,
    /// Rows that differed, and were copied again from the active side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mended_rows: Option<u64>,
    /// What else differs: sequences, large objects, definitions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other_differences: Option<u64>,
    /// What goes on in the background, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub background: Option<String>,
}

/// The answer of `GET …/verification`: the last comparison, and what it found one by one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VerificationReport {
    /// As in the migration; null before the first.
    pub verification: Option<Verification>,
    /// What differs, the first thousand.
    pub differences: Vec<Difference>,
}

/// The last cutover or rollback, and where its time went.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LastSwitchover {
    /// The operation that asked for it.
    pub id: Uuid,
    /// Forward or back.
    pub kind: Kind,
    /// How it ended.
    pub outcome: Outcome,
    /// When it began.
    pub started_at: Timestamp,
    /// How long writes were refused or held; null when they never were.
    pub write_stall_ms: Option<f64>,
    /// Each step that ran, in order.
    pub steps: Vec<StepTime>,
}

/// One step of a switchover and how long it took.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepTime {
    /// The step's name in the plan.
    pub step: String,
    /// Milliseconds from its first look to its last.
    pub ms: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the contract, with real values where it has an ellipsis.
    const CONTRACT: &str = r#"{
        "name": "orders", "phase": "ready", "step": null, "active": "source",
        "condition": {"kind": "blocked", "code": "tables_missing", "message": "m", "hint": "h", "since": "2026-11-21T06:00:00Z"},
        "forward": {"status": "streaming", "lag_seconds": 0.012, "lag_bytes": 4096, "retained_wal_bytes": 16777216},
        "reverse": {"status": "streaming", "lag_seconds": 0.011, "lag_bytes": 0, "retained_wal_bytes": 8192},
        "copy": {"tables_total": 11, "tables_done": 11, "rows": 15607, "bytes": 901120, "bytes_expected": 901120, "seconds": 1.2},
        "sequences": {"total": 11, "behind": 0},
        "verification": {"state": "clean", "finished_at": "2026-11-21T06:00:00Z", "tables": 11, "rows": 15607, "mismatched_rows": 0},
        "last_switchover": {"id": "01936b2a-0000-7000-8000-000000000000", "kind": "cutover", "outcome": "succeeded",
                            "started_at": "2026-11-21T06:00:00Z", "write_stall_ms": 31.2,
                            "steps": [{"step": "fence_active", "ms": 12.1}]},
        "leader": true, "epoch": 3}"#;

    #[test]
    fn the_example_of_the_contract_survives_the_round_trip() {
        let migration: Migration = serde_json::from_str(CONTRACT).unwrap();
        let expected: serde_json::Value = serde_json::from_str(CONTRACT).unwrap();
        assert_eq!(serde_json::to_value(&migration).unwrap(), expected);
    }

    #[test]
    fn what_is_not_known_is_null_and_never_left_out() {
        let mut value: serde_json::Value = serde_json::from_str(CONTRACT).unwrap();
        for key in ["condition", "copy", "verification", "last_switchover", "epoch"] {
            value[key] = serde_json::Value::Null;
        }
        value["forward"] = serde_json::json!(
            {"status": "unknown", "lag_seconds": null, "lag_bytes": null, "retained_wal_bytes": null}
        );
        let migration: Migration = serde_json::from_value(value.clone()).unwrap();
        assert_eq!(migration.forward, Stream::without_figures(StreamStatus::Unknown));
        assert_eq!(serde_json::to_value(&migration).unwrap(), value);
    }
}
