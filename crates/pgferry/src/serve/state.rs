//! What the daemon knows of one migration beyond the journal: preflights, and what went wrong
//! before there was an engine. Memory only; a restart forgets it, and looks again.

use jiff::Timestamp;
use pgferry_api::{Operation, OperationState, Verb};
use pgferry_engine::{Condition, ConditionKind};
use pgferry_plan::{Blocker, Finding, MigrationName, Severity};
use pgferry_server::NotReady;
use uuid::Uuid;

/// Beyond the journal.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// Operations that are not journaled: preflights.
    pub(super) operations: Vec<Operation>,
    /// What the last preflight found.
    pub(super) findings: Option<Vec<Finding>>,
    /// Why nothing goes on while no engine runs.
    pub(super) condition: Option<Condition>,
    /// Why this daemon is not ready, apart from what the monitor sees.
    pub(super) not_ready: Vec<NotReady>,
    /// Whether this daemon may act, and under which epoch.
    pub(super) leader: bool,
}

impl Notes {
    /// A preflight that was asked for.
    pub(super) fn preflight_began(&mut self, migration: &MigrationName) -> Operation {
        let operation = Operation {
            id: Uuid::now_v7(),
            migration: migration.clone(),
            verb: Verb::Preflight,
            state: OperationState::Running,
            requested_at: Timestamp::now(),
            finished_at: None,
            problem: None,
            remains: Vec::new(),
        };
        self.operations.push(operation.clone());
        operation
    }

    /// A preflight has ended.
    pub(super) fn preflight_ended(&mut self, id: Uuid, findings: Vec<Finding>) {
        if let Some(operation) = self.operations.iter_mut().find(|operation| operation.id == id) {
            operation.state = OperationState::Succeeded;
            operation.finished_at = Some(Timestamp::now());
        }
        // A clean preflight takes back what an earlier start was refused for.
        if findings.iter().all(|finding| finding.severity != Severity::Block) {
            self.condition = None;
        }
        self.findings = Some(findings);
    }

    /// Says why nothing goes on.
    pub(super) fn blocked(&mut self, blockers: Vec<Blocker>) {
        let Some(blocker) = blockers.first().cloned() else { return };
        let since = match &self.condition {
            Some(old) if old.blocker.code == blocker.code => old.since,
            Some(_) | None => Timestamp::now(),
        };
        let kind = ConditionKind::Blocked;
        self.condition = Some(Condition { kind, blocker, all: blockers, since });
    }

    /// The daemon cannot serve this migration now.
    pub(super) fn unavailable(&mut self, code: &str, message: impl Into<String>) {
        self.leader = false;
        self.not_ready = vec![NotReady::new(code, message)];
    }

    /// The journal is away: it goes on by itself when it is back.
    pub(super) fn waiting_for(&mut self, blocker: Blocker) {
        self.blocked(vec![blocker]);
        if let Some(condition) = &mut self.condition {
            condition.kind = ConditionKind::Waiting;
        }
    }

    /// Nothing of its own stands in the way.
    pub(super) fn available(&mut self, leader: bool) {
        if self.condition.as_ref().is_some_and(|c| c.kind == ConditionKind::Waiting) {
            self.condition = None;
        }
        self.leader = leader;
        self.not_ready.clear();
    }
}
