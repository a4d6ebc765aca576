//! What was asked of a migration, what stands in its way, and what happened to it.

use jiff::Timestamp;
use pgferry_plan::{Blocker, Finding, Kind, MigrationName};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::problem::Problem;
use crate::words::{OperationState, Verb};

/// One accepted request and how it stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Operation {
    /// Names it in `…/operations/{id}`.
    pub id: Uuid,
    /// The migration it was asked of.
    pub migration: MigrationName,
    /// What was asked.
    pub verb: Verb,
    /// How it stands.
    pub state: OperationState,
    /// When it was accepted.
    pub requested_at: Timestamp,
    /// When it ended; null while it runs.
    pub finished_at: Option<Timestamp>,
    /// Why it did not succeed; null otherwise.
    pub problem: Option<Problem>,
    /// What `finish` or `abandon` left behind, on purpose or for want of a privilege: the subject
    /// is the object, the hint the statement that removes it; and who wrote on the closed side behind the
    /// line of a switchover. Left out of the JSON when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remains: Vec<Finding>,
}

/// Whether a switchover could begin now, and everything that speaks against it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// True exactly when nothing stands in the way.
    pub go: bool,
    /// The switchover it is about.
    pub kind: Kind,
    /// Everything in the way, at once.
    pub blockers: Vec<Blocker>,
    /// For how long it would hold writes at the least, in milliseconds; only in a dry run that may go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predicted_stall_ms: Option<f64>,
    /// How old the last verification is, what it came to and what changed since; only in a dry run that
    /// may go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification: Option<String>,
    /// What a forced switchover may lose, in one sentence; only in the verdict on one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub may_be_lost: Option<String>,
}

impl Verdict {
    /// A verdict from what stands in the way; it goes when nothing does.
    #[must_use]
    pub fn of(kind: Kind, blockers: Vec<Blocker>) -> Self {
        Self {
            go: blockers.is_empty(),
            kind,
            blockers,
            predicted_stall_ms: None,
            verification: None,
            may_be_lost: None,
        }
    }
}

/// The answer of `GET …/preflight`: what the last preflight found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Findings {
    /// Every finding, those that block first.
    pub findings: Vec<Finding>,
}

/// The answer of `GET …/events`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Events {
    /// Events in order of `seq`.
    pub events: Vec<Event>,
}

/// One row of the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Its place in the journal; grows by one or more.
    pub seq: u64,
    /// When it was written.
    pub at: Timestamp,
    /// The leadership that wrote it.
    pub epoch: u64,
    /// What it records, as a word.
    pub event: String,
    /// Its further fields, which stand beside the four above in the JSON.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_has_exactly_the_fields_of_the_contract() {
        let text = r#"{"id": "01936b2a-0000-7000-8000-000000000000", "migration": "orders", "verb": "cutover",
            "state": "running", "requested_at": "2026-11-21T06:00:00Z", "finished_at": null, "problem": null}"#;
        let operation: Operation = serde_json::from_str(text).unwrap();
        let expected: Value = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_value(&operation).unwrap(), expected);
    }

    #[test]
    fn further_fields_of_an_event_stand_beside_the_first_four() {
        let text = r#"{"seq": 7, "at": "2026-11-21T06:00:00Z", "epoch": 2, "event": "completed", "step": "copy_rows"}"#;
        let event: Event = serde_json::from_str(text).unwrap();
        assert_eq!(event.fields["step"], "copy_rows");
        let expected: Value = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_value(&event).unwrap(), expected);
    }

    #[test]
    fn a_verdict_goes_exactly_when_nothing_stands_in_the_way() {
        assert!(Verdict::of(Kind::Cutover, vec![]).go);
        assert!(!Verdict::of(Kind::Rollback, vec![Blocker::new("lag", "m", "h")]).go);
    }
}
