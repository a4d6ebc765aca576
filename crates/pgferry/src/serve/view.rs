//! From what is known to what is shown: facts, lag and notes, composed into the API's words.
//!
//! Pure but for reading the latest values that others published.

use std::sync::Arc;

use jiff::Timestamp;
use pgferry_api as api;
use pgferry_engine::{Condition, ConditionKind};
use pgferry_monitor::{NodeReach, NodesReport};
use pgferry_plan::facts::Operation;
use pgferry_plan::journal::Evidence;
use pgferry_plan::strays::of_operation;
use pgferry_plan::verify::background::{latest, told_of};
use pgferry_plan::verify::{self, Verified};
use pgferry_plan::{
    Blocker, Course, Direction, Entry, Facts, Finding, LagReport, MigrationName, Seen, Side, World,
    sequences,
};
use pgferry_postgres::verify::VerifyFigures;
use pgferry_server::{MigrationState, NotReady};

use super::state::Notes;

/// Everything that a state is composed of.
pub(super) struct Sources<'a> {
    pub(super) name: &'a MigrationName,
    pub(super) facts: &'a Facts,
    pub(super) condition: Option<&'a Condition>,
    pub(super) verdict: Vec<Blocker>,
    pub(super) lag: &'a LagReport,
    pub(super) nodes: &'a NodesReport,
    pub(super) copy: Option<api::Copy>,
    pub(super) verification: Option<api::Verification>,
    pub(super) sequences: api::Sequences,
    pub(super) notes: &'a Notes,
}

/// The state that the server answers from.
pub(super) fn state(from: &Sources<'_>, events: Arc<Vec<api::Event>>) -> MigrationState {
    let facts = from.facts;
    let condition = from.condition.or(from.notes.condition.as_ref());
    MigrationState {
        migration: api::Migration {
            name: from.name.clone(),
            phase: word(facts.phase().as_str()),
            step: facts.step().map(|step| step.as_str().to_owned()),
            active: facts.active,
            condition: condition.map(condition_view),
            forward: stream(facts, from.lag, Direction::Forward),
            reverse: stream(facts, from.lag, Direction::Reverse),
            copy: from.copy,
            sequences: from.sequences,
            verification: from.verification.clone(),
            last_switchover: last_switchover(facts),
            leader: from.notes.leader,
            epoch: u64::try_from(facts.epoch).ok().filter(|epoch| *epoch > 0),
        },
        verdict: api::Verdict::of(facts.kind(), from.verdict.clone()),
        operations: facts
            .operations
            .iter()
            .map(|operation| operation_view(from.name, operation, facts))
            .chain(from.notes.operations.iter().cloned())
            .collect(),
        findings: from.notes.findings.clone(),
        readiness: readiness(from),
        events,
    }
}

fn condition_view(condition: &Condition) -> api::Condition {
    let several = condition.all.len();
    let more = if several > 1 { format!(" (and {} more)", several - 1) } else { String::new() };
    api::Condition {
        kind: match condition.kind {
            ConditionKind::Waiting => api::ConditionKind::Waiting,
            ConditionKind::Blocked => api::ConditionKind::Blocked,
            ConditionKind::Paused => api::ConditionKind::Paused,
        },
        code: condition.blocker.code.clone(),
        message: format!("{}{more}", condition.blocker.message),
        hint: condition.blocker.hint.clone(),
        since: condition.since,
    }
}

fn stream(facts: &Facts, lag: &LagReport, direction: Direction) -> api::Stream {
    let report = lag.stream(direction);
    // The monitor's last look may be from before the removal.
    if matches!(facts.course, Course::Ended(_)) {
        return api::Stream::without_figures(api::StreamStatus::Absent);
    }
    api::Stream {
        status: word(report.status.as_str()),
        lag_seconds: report.lag_seconds,
        lag_bytes: report.lag_bytes,
        retained_wal_bytes: report.retained_wal_bytes,
    }
}

/// What the journal holds of a copy whose every row has arrived.
pub(super) fn copied(facts: &Facts) -> Option<api::Copy> {
    match facts.copied {
        Some(Evidence::Copied { tables, rows, bytes, seconds }) => Some(api::Copy {
            tables_total: Some(tables),
            tables_done: Some(tables),
            rows: Some(rows),
            bytes: Some(bytes),
            bytes_expected: Some(bytes),
            seconds: Some(seconds),
        }),
        Some(
            Evidence::Nothing
            | Evidence::Subscription { .. }
            | Evidence::Held { .. }
            | Evidence::Opened { .. }
            | Evidence::Verified { .. }
            | Evidence::Leftovers { .. },
        )
        | None => None,
    }
}

/// The verification as it stands, whoever asked for it.
#[derive(Clone, Debug, Default)]
pub(super) struct Standing {
    /// The one that counts.
    pub(super) verified: Option<Verified>,
    /// What has changed since it.
    since: Option<String>,
    /// What goes on in the background.
    background: Option<String>,
}

impl Standing {
    pub(super) fn of(facts: &Facts, world: &World) -> Self {
        let verified = latest(facts, world).cloned();
        Self {
            since: verified.as_ref().map(|verified| verify::since(facts, verified, world)),
            background: world.background.present().and_then(told_of),
            verified,
        }
    }
}

/// The comparison of rows that runs, else the last one that came to a result.
pub(super) fn verification(
    standing: &Standing,
    figures: &VerifyFigures,
    now: Timestamp,
) -> Option<api::Verification> {
    if figures.running {
        return Some(api::Verification {
            state: "running".to_owned(),
            finished_at: None,
            tables: Some(figures.tables_done),
            rows: Some(figures.rows),
            mismatched_rows: Some(figures.mismatched_rows),
            active: None,
            age_seconds: None,
            since: None,
            tables_total: figures.tables_total,
            seconds_left: figures.seconds_left(now),
            unsettled_rows: some(figures.unsettled_rows),
            mended_rows: some(figures.mended_rows),
            other_differences: None,
            background: None,
        });
    }
    let verified = standing.verified.as_ref()?;
    Some(api::Verification {
        state: verified.state().to_owned(),
        finished_at: Some(verified.finished_at),
        tables: Some(verified.tables),
        rows: Some(verified.rows),
        mismatched_rows: Some(verified.mismatched_rows),
        active: Some(verified.active),
        age_seconds: Some(verify::age(verified, now).as_secs()),
        since: standing.since.clone(),
        tables_total: None,
        seconds_left: None,
        unsettled_rows: some(verified.unsettled_rows),
        mended_rows: some(verified.mended_rows),
        other_differences: some(verified.other_differences),
        background: standing.background.clone(),
    })
}

fn some(number: u64) -> Option<u64> {
    (number > 0).then_some(number)
}

/// What the last look saw of both sides' sequences.
pub(super) fn sequences_view(facts: &Facts, world: &World) -> Option<api::Sequences> {
    let (from, to) = (facts.kind().from(), facts.kind().to());
    match (&world.node(from).sequences, &world.node(to).sequences) {
        (Seen::Present(active), Seen::Present(passive)) => Some(api::Sequences {
            total: Some(active.len() as u64),
            behind: Some(sequences::count_behind(active, passive)),
        }),
        (Seen::Unknown(_) | Seen::Absent, _) | (_, Seen::Unknown(_) | Seen::Absent) => None,
    }
}

fn last_switchover(facts: &Facts) -> Option<api::LastSwitchover> {
    let report = facts.last_switchover.as_ref()?;
    Some(api::LastSwitchover {
        id: report.operation,
        kind: report.kind,
        outcome: word(report.outcome.as_str()),
        started_at: report.started_at,
        write_stall_ms: report.write_stall_ms.map(tenths),
        steps: report
            .steps
            .iter()
            .map(|step| api::StepTime { step: step.step.as_str().to_owned(), ms: tenths(step.ms) })
            .collect(),
    })
}

fn tenths(ms: f64) -> f64 {
    (ms * 10.0).round() / 10.0
}

/// An operation in the API's words. Finish and abandon also say what stays, on purpose or not, a
/// switchover whom it could not lead over or open its side to, and who wrote behind its line.
pub(super) fn operation_view(
    name: &MigrationName,
    operation: &Operation,
    facts: &Facts,
) -> api::Operation {
    use pgferry_plan::Verb;
    let last = facts.last_switchover.as_ref().is_some_and(|last| last.operation == operation.id);
    let leaves = last || matches!(operation.verb, Verb::Finish | Verb::Abandon);
    api::Operation {
        id: operation.id,
        migration: name.clone(),
        verb: word(operation.verb.as_str()),
        state: word(operation.state.as_str()),
        requested_at: operation.requested_at,
        finished_at: operation.finished_at,
        problem: operation.problem.as_ref().map(|problem| {
            api::Problem::new(409, &problem.code, &problem.message, &problem.hint)
                .with_blockers(operation.blockers.clone())
        }),
        remains: facts
            .leftovers
            .iter()
            .filter(|_| leaves)
            .chain(&of_operation(facts, operation.id))
            .map(remains)
            .collect(),
    }
}

fn remains(left: &Blocker) -> Finding {
    Finding::warn(&left.code, &left.code, &left.message, &left.hint)
}

/// Journal entries in the API's words.
pub(super) fn event(entry: &Entry) -> api::Event {
    let mut fields = match serde_json::to_value(&entry.event) {
        Ok(serde_json::Value::Object(fields)) => fields,
        Ok(_) | Err(_) => serde_json::Map::new(),
    };
    let event = match fields.remove("event") {
        Some(serde_json::Value::String(word)) => word,
        Some(_) | None => String::new(),
    };
    api::Event {
        seq: entry.seq,
        at: entry.at,
        epoch: u64::try_from(entry.epoch).unwrap_or(0),
        event,
        fields,
    }
}

fn readiness(from: &Sources<'_>) -> Vec<NotReady> {
    let mut reasons = from.notes.not_ready.clone();
    for side in Side::BOTH {
        match from.nodes.node(side) {
            NodeReach::Up => {}
            NodeReach::NotYet => reasons.push(NotReady::new(
                &format!("{side}_not_seen"),
                format!("the {side} has not been reached yet"),
            )),
            NodeReach::Down(why) => {
                reasons.push(NotReady::new(&format!("{side}_unreachable"), why.clone()));
            }
        }
    }
    reasons
}

/// Both vocabularies hold the same words; the API's tests compare its lists with the design.
fn word<W: std::str::FromStr + FirstWord>(text: &str) -> W {
    text.parse().unwrap_or_else(|_| W::first())
}

/// What is shown for a word that the API does not know; it cannot happen while its lists match.
trait FirstWord {
    fn first() -> Self;
}

macro_rules! first_word {
    ($($word:ty),*) => { $(impl FirstWord for $word { fn first() -> Self { Self::ALL[0] } })* };
}
first_word!(api::Phase, api::StreamStatus, api::OperationState, api::Outcome, api::Verb);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_of_the_plan_is_a_word_of_the_api() {
        for phase in pgferry_plan::Phase::ALL {
            assert_eq!(word::<api::Phase>(phase.as_str()).as_str(), phase.as_str());
        }
        for status in pgferry_plan::StreamStatus::ALL {
            assert_eq!(word::<api::StreamStatus>(status.as_str()).as_str(), status.as_str());
        }
    }
}
