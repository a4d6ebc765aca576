//! What the daemon shows of a migration: the state for the server, and the figures for metrics.
//!
//! Reads what others published; changes nothing but what is shown.

use std::sync::Arc;
use std::time::Duration;

use pgferry_api as api;
use pgferry_plan::{Blocker, Course, Entry, Event, Facts, Step};

use super::Daemon;
use super::lead::PgEngine;
use crate::serve::view::{self, Sources};

/// An estimate is worth no more; without it the copy is shown without what is expected.
const ESTIMATE_TIME: Duration = Duration::from_secs(5);

impl Daemon {
    pub(super) async fn show_engine(&mut self, engine: &PgEngine) {
        if let Some(sequences) = view::sequences_view(engine.facts(), engine.world()) {
            self.shown.sequences = sequences;
        }
        if engine.facts().step() == Some(Step::CopyRows) && self.shown.copy_expected.is_none() {
            let expected = tokio::time::timeout(ESTIMATE_TIME, self.cluster.copy_expected()).await;
            self.shown.copy_expected = Some(expected.ok().flatten().unwrap_or_default());
            self.metrics.set_copy_expected(self.shown.copy_expected.and_then(|(_, bytes)| bytes));
        }
        let verdict = match engine.facts().course {
            Course::AtRest => engine.verdict().to_vec(),
            Course::Planned
            | Course::SetUp(_)
            | Course::Switchover(_)
            | Course::End { .. }
            | Course::Ended(_) => {
                vec![pgferry_plan::verdict::not_ready(engine.facts().phase())]
            }
        };
        self.show(engine.facts(), engine.entries(), engine.condition(), verdict);
    }

    pub(super) fn show(
        &mut self,
        facts: &Facts,
        entries: &[Entry],
        condition: Option<&pgferry_engine::Condition>,
        verdict: Vec<Blocker>,
    ) {
        let known = self.shown.events.len();
        if entries.len() != known {
            let mut events = Vec::clone(&self.shown.events);
            events.truncate(entries.len());
            events.extend(entries[events.len()..].iter().map(view::event));
            self.shown.events = Arc::new(events);
        }
        if self.known != *facts {
            self.known = facts.clone();
        }
        self.publish(condition, verdict);
        self.measure(facts, entries, condition);
    }

    /// Shows what is known already, with what changed around it.
    pub(super) fn show_known(&mut self, why: Blocker) {
        self.publish(None, vec![why]);
    }

    pub(super) fn publish(
        &self,
        condition: Option<&pgferry_engine::Condition>,
        verdict: Vec<Blocker>,
    ) {
        let facts = &self.known;
        let verdict = match facts.course {
            Course::Planned => vec![pgferry_plan::verdict::not_ready(facts.phase())],
            Course::SetUp(_)
            | Course::AtRest
            | Course::Switchover(_)
            | Course::End { .. }
            | Course::Ended(_) => verdict,
        };
        let copy = self.copy_so_far(facts);
        let state = view::state(
            &Sources {
                name: &self.config.name,
                facts,
                condition,
                verdict,
                lag: &self.lag.borrow(),
                nodes: &self.nodes.borrow(),
                copy,
                sequences: self.shown.sequences,
                notes: &self.notes,
            },
            Arc::clone(&self.shown.events),
        );
        self.state.send_replace(state);
    }

    pub(super) fn copy_so_far(&self, facts: &Facts) -> Option<api::Copy> {
        let (tables, bytes_expected) = self.shown.copy_expected?;
        let totals = self.cluster.copy_progress().totals();
        let began = facts.copy_began_at?;
        Some(api::Copy {
            tables_total: Some(tables),
            tables_done: Some(totals.tables_done),
            rows: Some(totals.rows),
            bytes: Some(totals.bytes),
            bytes_expected,
            seconds: Some(
                pgferry_plan::facts::milliseconds(began, jiff::Timestamp::now()) / 1000.0,
            ),
        })
    }

    pub(super) fn measure(
        &mut self,
        facts: &Facts,
        entries: &[Entry],
        condition: Option<&pgferry_engine::Condition>,
    ) {
        let all = pgferry_plan::Phase::ALL.map(pgferry_plan::Phase::as_str);
        self.metrics.set_phase(facts.phase().as_str(), &all);
        let condition = condition.or(self.notes.condition.as_ref());
        self.metrics.set_blocked(
            condition.is_some_and(|c| c.kind == pgferry_engine::ConditionKind::Blocked),
        );
        self.metrics.set_leader(self.notes.leader);
        self.metrics.set_epoch(facts.epoch);
        match &facts.copied {
            Some(pgferry_plan::Evidence::Copied { rows, bytes, .. }) => {
                self.metrics.set_copied(*rows, *bytes);
                self.metrics.set_copy_expected(Some(*bytes));
            }
            Some(_) | None => {
                let totals = self.cluster.copy_progress().totals();
                self.metrics.set_copied(totals.rows, totals.bytes);
            }
        }
        self.count_steps(entries);
        if let Some(report) = &facts.last_switchover
            && self.shown.switchover != Some(report.operation)
        {
            // What ended before this process began was counted by the one before it.
            if self.shown.counted_to.is_some() {
                let stall = report.write_stall_ms.map(|ms| Duration::from_secs_f64(ms / 1000.0));
                self.metrics.observe_switchover(report.kind, report.outcome.as_str(), stall);
            }
            self.shown.switchover = Some(report.operation);
        }
        self.shown.counted_to = Some(entries.last().map_or(0, |entry| entry.seq));
    }

    pub(super) fn count_steps(&self, entries: &[Entry]) {
        let Some(counted_to) = self.shown.counted_to else { return };
        let mut began = None;
        for entry in entries {
            if let Event::Completed { step, .. } = &entry.event
                && entry.seq > counted_to
                && let Some(began) = began
            {
                let ms = pgferry_plan::facts::milliseconds(began, entry.at);
                self.metrics.observe_step(step.as_str(), Duration::from_secs_f64(ms / 1000.0));
            }
            match entry.event {
                Event::Completed { .. } | Event::Requested { .. } | Event::TookOver => {
                    began = Some(entry.at);
                }
                Event::Intended { .. }
                | Event::Unwinding { .. }
                | Event::Undone { .. }
                | Event::LineCrossed
                | Event::OperationEnded { .. } => {}
            }
        }
    }
}
