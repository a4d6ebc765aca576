//! What the daemon shows of a migration: the state for the server, and the figures for metrics.
//!
//! Reads what others published; changes nothing but what is shown.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pgferry_api as api;
use pgferry_api::CopyState;
use pgferry_plan::{Blocker, Course, Entry, Event, Facts, Phase, Step, World};

use pgferry_postgres::PgCluster;
use pgferry_postgres::verify::VerifyFigures;
use pgferry_server::FoundDifferences;

use super::Daemon;
use super::lead::PgEngine;
use crate::serve::copy::{Begun, Counts, Stage};
use crate::serve::view::{self, Sources, Standing};

/// An estimate is worth no more; without it the copy is shown without what is expected.
const ESTIMATE_TIME: Duration = Duration::from_secs(5);

/// What the last verification found, read when it is asked for.
pub(super) struct Differences {
    verification: Arc<Mutex<VerifyFigures>>,
    round: Arc<Mutex<VerifyFigures>>,
}

impl Differences {
    pub(super) fn of(cluster: &PgCluster) -> Self {
        Self { verification: cluster.verify_figures(), round: cluster.background_figures() }
    }
}

impl FoundDifferences for Differences {
    fn read(&self) -> Vec<api::Difference> {
        let found = locked(&self.verification).differences.clone();
        // What a round in the background finds is told before it has come to its end. What one that was
        // given up has found may have been mended since.
        let round = locked(&self.round);
        if found.is_empty() && round.running { round.differences.clone() } else { found }
    }
}

fn locked(figures: &Mutex<VerifyFigures>) -> MutexGuard<'_, VerifyFigures> {
    figures.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Daemon {
    pub(super) fn show_engine(&mut self, engine: &PgEngine) {
        if let Some(sequences) = view::sequences_view(engine.facts(), engine.world()) {
            self.shown.sequences = sequences;
        }
        self.shown.verification = Some(Standing::of(engine.facts(), engine.world()));
        self.expect_copy(engine.facts());
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
        self.gauge(condition);
        self.measure(entries);
    }

    /// Shows what is known already, with what changed around it.
    pub(super) fn show_known(&mut self, why: Blocker) {
        self.publish(None, vec![why]);
        self.gauge(None);
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
        self.copy.turn(self.copy_stage(facts));
        let state = view::state(
            &Sources {
                name: &self.config.name,
                facts,
                condition,
                verdict,
                lag: &self.lag.borrow(),
                nodes: &self.nodes.borrow(),
                copy: self.copy.sums(),
                verification: self.verification(),
                sequences: self.shown.sequences,
                notes: &self.notes,
            },
            Arc::clone(&self.shown.events),
        );
        self.state.send_replace(state);
    }

    /// Looks up what the copy has before it: once, and not on the loop, which goes on telling how
    /// far it is.
    fn expect_copy(&mut self, facts: &Facts) {
        // Its own counters know it better, as soon as they are there.
        let known = self.shown.copy_expected.is_some() || self.copy.counts().is_some();
        let looks = !self.shown.copy_expecting.is_empty();
        if facts.step() == Some(Step::CopyRows) && !known && !looks {
            let cluster = self.cluster.clone();
            self.shown.copy_expecting.spawn(async move {
                tokio::time::timeout(ESTIMATE_TIME, cluster.copy_expected()).await.ok().flatten()
            });
        }
        if let Some(Ok(Some(expected))) = self.shown.copy_expecting.try_join_next() {
            self.shown.copy_expected = Some(expected);
        }
    }

    /// How far the copy is, by the journal. A daemon that does not lead carries out no copy, and
    /// neither does one whose migration was abandoned on the way: their counters are of no worth.
    fn copy_stage(&self, facts: &Facts) -> Stage {
        if let Some(sums) = view::copied(facts) {
            return Stage::Arrived { sums, indexing: facts.phase() == Phase::Copying };
        }
        let (tables, size_bytes) = self.shown.copy_expected.unzip();
        let runs = self.notes.leader && facts.phase() == Phase::Copying;
        match facts.copy_began_at.filter(|_| runs) {
            Some(at) => Stage::Running(Begun { at, tables, size_bytes: size_bytes.flatten() }),
            None => Stage::Unknown,
        }
    }

    /// What is now, as the status says it.
    fn gauge(&self, condition: Option<&pgferry_engine::Condition>) {
        let all = pgferry_plan::Phase::ALL.map(pgferry_plan::Phase::as_str);
        self.metrics.set_phase(self.known.phase().as_str(), &all);
        let condition = condition.or(self.notes.condition.as_ref());
        self.metrics.set_blocked(
            condition.is_some_and(|c| c.kind == pgferry_engine::ConditionKind::Blocked),
        );
        self.metrics.set_leader(self.notes.leader);
        self.metrics.set_epoch(self.known.epoch);
    }

    /// What has happened, counted once.
    fn measure(&mut self, entries: &[Entry]) {
        self.measure_copy();
        self.measure_verification();
        self.count_steps(entries);
        if let Some(report) = &self.known.last_switchover
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

    /// The comparison of rows that runs, or the last one.
    fn verification(&self) -> Option<api::Verification> {
        let figures = self.cluster.verify_figures();
        view::verification(&self.standing(), &locked(&figures), jiff::Timestamp::now())
    }

    /// Without an engine: what the journal holds.
    fn standing(&self) -> Standing {
        let seen = self.shown.verification.clone();
        seen.unwrap_or_else(|| Standing::of(&self.known, &World::default()))
    }

    fn measure_verification(&self) {
        let (figures, round) = (self.cluster.verify_figures(), self.cluster.background_figures());
        let round = locked(&round);
        let figures = locked(&figures);
        let at_work = if round.running { &round } else { &figures };
        // A counter stays where it was while nothing is known.
        if at_work.tables_total.is_some() {
            self.metrics.set_verified(at_work.rows);
        }
        self.metrics.set_mismatched(if figures.running {
            Some(figures.mismatched_rows)
        } else {
            self.standing().verified.map(|verified| verified.mismatched_rows)
        });
    }

    fn measure_copy(&self) {
        let sums = self.copy.sums();
        // A counter stays where it was while nothing is known.
        if let Some((rows, bytes)) = sums.and_then(|sums| sums.rows.zip(sums.bytes)) {
            self.metrics.set_copied(rows, bytes);
        }
        self.metrics.set_copy_expected(sums.and_then(|sums| sums.bytes_expected));
        self.metrics.set_copy_seconds_left(self.copy.seconds_left());
        let counts = self.copy.counts();
        let of = |figure: fn(&Counts) -> u64| counts.as_ref().map(figure);
        self.metrics.set_copy_tables(&[
            (CopyState::Waiting.as_str(), of(|counts| counts.waiting)),
            (CopyState::Copying.as_str(), of(|counts| counts.copying)),
            (CopyState::Indexing.as_str(), of(|counts| counts.indexing)),
            (CopyState::Done.as_str(), of(|counts| counts.done)),
        ]);
        self.metrics.set_copy_indexes(&[
            (CopyState::Waiting.as_str(), of(|counts| counts.indexes_waiting)),
            (CopyState::Done.as_str(), of(|counts| counts.indexes_done)),
        ]);
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
                Event::Completed { .. }
                | Event::Requested { .. }
                | Event::Adopted { .. }
                | Event::TookOver => {
                    began = Some(entry.at);
                }
                Event::Intended { .. }
                | Event::Unwinding { .. }
                | Event::Undone { .. }
                | Event::LineCrossed
                | Event::RepairRequested { .. }
                | Event::RepairIntended { .. }
                | Event::Repaired { .. }
                | Event::Verified { .. }
                | Event::StrayFound { .. }
                | Event::StrayEnded { .. }
                | Event::StrayCompared { .. }
                | Event::OperationEnded { .. } => {}
            }
        }
    }
}
