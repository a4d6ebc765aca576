//! While this daemon leads: the engine's turns, people's requests, and an orderly end.
//!
//! Decides nothing about the migration. When the lead is lost the engine is thrown away, and the
//! next one begins with a take-over.

use std::time::Duration;

use pgferry_api as api;
use pgferry_engine::{Condition, ConditionKind, Engine, LeadershipLost, Turn};
use pgferry_plan::decide::{goes_on_with, stranded};
use pgferry_plan::{Blocker, Course, Facts, Order, Seen, Side, Step, Verb, verify};
use pgferry_postgres::PgCluster;
use pgferry_postgres::journal::Leader;
use pgferry_postgres::node::LookError;
use pgferry_server::{Accepted, Command};
use pgferry_traffic::MigrationTraffic;

use super::answers::{answer, conflict, journal_blocker, not_leader, unavailable};
use super::forced::{forced_answer, given_up};
use super::{Daemon, First, Next, Reply, SEEK};
use crate::serve::view;

/// Between two looks while something is waited for that nobody's writes depend on. Most of what is
/// waited for takes a fraction of a second: the first looks follow each other faster.
const WAIT: Duration = Duration::from_millis(150);
const FIRST_WAIT: Duration = Duration::from_millis(10);
/// The same while writes are held: a look itself takes about as long.
const WAIT_IN_STALL: Duration = Duration::from_millis(1);
/// The same while one of the two servers is not seen.
const WAIT_FOR_SERVER: Duration = Duration::from_millis(25);
/// At rest, how much longer than the look the pause after it is at least, and where that ends.
const REST_PER_LOOK: u32 = 4;
const LONGEST_REST: Duration = Duration::from_secs(5);
/// For how long a stop waits until a switchover is back or through.
const FAREWELL: Duration = Duration::from_secs(20);

pub(super) type PgEngine = Engine<PgCluster, MigrationTraffic<PgCluster>, Leader>;

impl Daemon {
    /// The lead is ours: the epoch goes up on both nodes, then the engine runs.
    pub(super) async fn led(&mut self, leader: Leader, first: Option<First>) {
        let epoch = leader.epoch();
        let renewal =
            tokio::spawn(Leader::renew(self.place.clone(), self.config.name.clone(), epoch));
        self.lead_until_lost(leader, epoch, first, &renewal).await;
        renewal.abort();
        self.beat.send_replace(None);
        self.traffic.shut_down();
        self.cluster.shut_down().await;
        self.shown.verification = None;
        // They carry the name of a leadership that is over.
        self.cluster.forget_connections();
    }

    pub(super) async fn lead_until_lost(
        &mut self,
        leader: Leader,
        epoch: i64,
        mut first: Option<First>,
        renewal: &tokio::task::JoinHandle<LeadershipLost>,
    ) {
        let (facts, entries) = match self.load().await {
            Ok(loaded) => loaded,
            Err(error) => {
                tracing::error!(%error, "could not load the journal");
                let blocker = journal_blocker(&error);
                self.notes.unavailable(&blocker.code, blocker.message.clone());
                self.notes.blocked(vec![blocker.clone()]);
                self.show_known(blocker.clone());
                if let Next::Command(command) = self.next_command(SEEK).await {
                    answer(Some(command.reply), Err(unavailable(blocker)));
                }
                return leader.release().await;
            }
        };
        for side in Side::BOTH {
            self.cluster.node(side).expect(facts.expected_id(side));
        }
        let mut raised = [false; 2];
        let alone = loop {
            let refused = self.raise_epochs(epoch, &mut raised).await;
            let Some((refused, away)) = refused else { break false };
            // A node that answers and refuses is not away: a newer daemon leads, or it is another server.
            if !away {
                // Told below.
            } else if given_up(&facts, first.as_ref())
                .is_some_and(|lost| raised[lost.other() as usize])
            {
                tracing::warn!(message = refused.message, "leading without the side that is lost");
                break false;
            } else if goes_on_with(&facts).is_some_and(|side| raised[side as usize]) {
                tracing::warn!(message = refused.message, "going on with one side alone");
                break true;
            }
            self.notes.available(true);
            self.notes.blocked(vec![refused]);
            self.show(&facts, &entries, None, Vec::new());
            // One side may be away for long; the other one is not held closed for it.
            self.stranded = stranded(&facts).map(|left| (left, epoch));
            self.open_what_is_stranded().await;
            if renewal.is_finished() || self.shutdown.is_cancelled() {
                return leader.release().await;
            }
            match self.next_command(SEEK).await {
                Next::Command(command) if command.force => {
                    first = self.force_without_engine(command, &facts).await.or(first);
                }
                Next::Command(command) => self.answer_without_engine(command),
                Next::Nothing => {}
            }
        };
        let engine = Engine::take_over(
            self.cluster.clone(),
            self.traffic.clone(),
            leader,
            self.policy.clone(),
            facts,
            entries,
            epoch,
        );
        let mut engine = match engine.await {
            Ok(engine) => engine,
            Err(lost) => return tracing::warn!(%lost, "could not take over"),
        };
        let round = self.cluster.recall_background().await;
        let verified = engine.facts().verification.iter().chain(&round);
        if let Some(last) = verified.max_by_key(|verified| verified.finished_at) {
            self.cluster.recall_verification(last.run).await;
        }
        self.notes.available(true);
        self.notes.condition = None;
        self.stranded = None;
        tracing::info!(migration = %self.config.name, epoch, phase = %engine.facts().phase(), "leading");
        let result = self.run_engine(&mut engine, first, renewal, alone).await;
        match result {
            Ok(()) => engine.into_journal().release().await,
            Err(lost) => {
                tracing::warn!(%lost, migration = %self.config.name, "not leading any more");
                self.stranded = stranded(engine.facts()).map(|left| (left, epoch));
            }
        }
    }

    /// Raises the epoch on the sides that do not carry it yet, and tells why one of them still
    /// does not, and whether that is because nobody answers there.
    async fn raise_epochs(&self, epoch: i64, raised: &mut [bool; 2]) -> Option<(Blocker, bool)> {
        let raise = async |side: Side| {
            if raised[side as usize] {
                return None;
            }
            let error = self.cluster.node(side).raise_epoch(epoch).await.err()?;
            let (code, hint) = error.code_and_hint();
            let away = matches!(error, LookError::Connect(_));
            Some((Blocker::new(code, format!("the {side}: {error}"), hint), away))
        };
        // At once: neither waits for the other, which may be away.
        let (source, destination) = tokio::join!(raise(Side::Source), raise(Side::Destination));
        *raised = [source.is_none(), destination.is_none()];
        match (source, destination) {
            (Some((blocker, source)), Some((_, destination))) => {
                Some((blocker, source && destination))
            }
            (source, destination) => source.or(destination),
        }
    }

    pub(super) async fn run_engine(
        &mut self,
        engine: &mut PgEngine,
        first: Option<First>,
        renewal: &tokio::task::JoinHandle<LeadershipLost>,
        alone: bool,
    ) -> Result<(), LeadershipLost> {
        if let Some(First { order, adopts, lease: _, reply }) = first {
            if let Some((lost, node_id)) = adopts {
                engine.adopt(lost, node_id).await?;
            }
            self.request(engine, order, reply).await?;
        }
        let job_ended = self.cluster.job_ended();
        let mut waited = 0;
        loop {
            if renewal.is_finished() && !engine.journal_is_dropped() {
                return Err(LeadershipLost("the lease was lost".to_owned()));
            }
            let began = tokio::time::Instant::now();
            let mut turn = engine.tick().await?;
            let took = began.elapsed();
            if turn == Turn::Progressed && engine.facts().course == Course::AtRest {
                // Rest is shown only with looks of its own, the first with its upkeep: whoever
                // waits for it asks at once for verdict and sequences.
                turn = engine.tick().await?;
                turn = if turn == Turn::AtRest { engine.tick().await? } else { turn };
            }
            self.show_engine(engine);
            let beat = beats(engine.facts()).then_some(engine.facts().epoch);
            self.beat.send_if_modified(|now| std::mem::replace(now, beat) != beat);
            for side in Side::BOTH {
                self.cluster.node(side).expect(engine.facts().expected_id(side));
            }
            if turn == Turn::Ended {
                return self.ended(engine).await;
            }
            if alone && turn != Turn::Progressed && goes_on_with(engine.facts()).is_none() {
                // The next leadership raises the epoch on both sides before it goes on.
                return Ok(());
            }
            if self.shutdown.is_cancelled() {
                return self.farewell(engine).await;
            }
            waited = if turn == Turn::Waiting { waited + 1 } else { 0 };
            let mut pause = pause_after(&turn, waited, engine.facts(), self.config.poll_interval);
            if waits_for_streams(engine.facts()) && pause < WAIT {
                self.look_sooner.notify_one();
            }
            if turn == Turn::Waiting && sees_not(engine) {
                // Not a thousand refused connections a second, for as long as a server is away.
                pause = pause.max(WAIT_FOR_SERVER);
            }
            let blocked = |c: &Condition| c.kind == ConditionKind::Blocked;
            if turn == Turn::Waiting && engine.condition().is_some_and(blocked) {
                // A pooler or a hook behind the line, or a person: none is there a moment later.
                pause = pause.max(WAIT);
            }
            if turn == Turn::AtRest {
                // A look at thousands of tables is not repeated at once: at rest, the two servers
                // are the application's.
                pause = pause.max(took * REST_PER_LOOK).min(LONGEST_REST.max(pause));
            }
            if pause.is_zero() {
                // No timer, which would cost a millisecond, but whoever asks is still heard.
                if let Ok(command) = self.commands.try_recv() {
                    self.handle(engine, command).await?;
                }
                continue;
            }
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => {}
                command = self.commands.recv() => {
                    let Some(command) = command else { return Ok(()) };
                    self.handle(engine, command).await?;
                    self.show_engine(engine);
                }
                Some(ended) = self.preflights.join_next() => self.preflight_ended(ended),
                () = job_ended.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    pub(super) async fn handle(
        &mut self,
        engine: &mut PgEngine,
        command: Command,
    ) -> Result<(), LeadershipLost> {
        let Command { verb, open_passive, force, show_values, repair, dry_run, reply } = command;
        if let Some(verb) = journaled(verb).filter(|_| dry_run && force) {
            let (blockers, loss) = engine.forced_verdict(verb).await;
            answer(Some(reply), Ok(forced_answer(verb, blockers, &loss)));
            return Ok(());
        }
        if dry_run {
            let kind = engine.facts().kind();
            let mut blockers = engine.fresh_verdict().await.to_vec();
            if Verb::of_switchover(kind).as_str() != verb.as_str() && blockers.is_empty() {
                blockers.push(pgferry_plan::verdict::not_ready(engine.facts().phase()));
            }
            let asked = if verb == api::Verb::Rollback {
                pgferry_plan::Kind::Rollback
            } else {
                pgferry_plan::Kind::Cutover
            };
            let mut verdict = api::Verdict::of(asked, blockers);
            if verdict.go {
                verdict.predicted_stall_ms = engine.predicted_stall_ms().await;
                let verified = verify::in_one_sentence(engine.facts(), engine.world());
                verdict.verification = verified;
            }
            answer(Some(reply), Ok(Accepted::Verdict(verdict)));
            return Ok(());
        }
        let Some(verb) = journaled(verb) else {
            let command =
                Command { verb, open_passive, force, show_values, repair, dry_run, reply };
            self.answer_without_engine(command);
            return Ok(());
        };
        let verifies = engine.facts().running(Verb::Verify).is_some();
        if verb == Verb::Resume {
            self.cluster.forget_failure();
            self.traffic.forget_failure();
        }
        self.request(engine, Order { verb, open_passive, force, repair }, Some(reply)).await?;
        let accepted = engine.facts().running(Verb::Verify).filter(|_| !verifies && show_values);
        if let Some(run) = accepted.map(|accepted| accepted.id) {
            self.cluster.show_values_of_verification(run);
        }
        Ok(())
    }

    pub(super) async fn request(
        &mut self,
        engine: &mut PgEngine,
        order: Order,
        reply: Option<Reply>,
    ) -> Result<(), LeadershipLost> {
        let result = match engine.request(order).await? {
            Ok(id) => {
                let facts = engine.facts();
                let accepted = facts.operations.iter().find(|operation| operation.id == id);
                accepted
                    .map(|operation| {
                        Accepted::Operation(view::operation_view(
                            &self.config.name,
                            operation,
                            facts,
                        ))
                    })
                    .ok_or_else(not_leader)
            }
            Err(refusal) => {
                let mut refused = conflict(refusal.blockers);
                refused.code = refusal.reason.code;
                refused.detail = refusal.reason.message;
                refused.hint = refusal.reason.hint;
                Err(refused)
            }
        };
        // The state that a client asks for next must know what it was just told.
        self.show_engine(engine);
        answer(reply, result);
        Ok(())
    }

    /// Everything is taken away; the daemon goes on answering that.
    pub(super) async fn ended(&mut self, engine: &mut PgEngine) -> Result<(), LeadershipLost> {
        self.beat.send_replace(None);
        self.show_engine(engine);
        while !self.shutdown.is_cancelled() {
            match self.next_command(Duration::from_secs(3600)).await {
                Next::Command(command) => self.handle(engine, command).await?,
                Next::Nothing => {}
            }
            self.show_engine(engine);
        }
        Ok(())
    }

    /// A stop in the middle of a switchover first brings it to one open side.
    pub(super) async fn farewell(&mut self, engine: &mut PgEngine) -> Result<(), LeadershipLost> {
        let deadline = tokio::time::Instant::now() + FAREWELL;
        if engine.facts().switchover().is_some_and(|s| s.unwinding.is_none()) {
            // Refused behind the line, where the only way is forward.
            if engine.request(Verb::Abort.into()).await?.is_ok() {
                tracing::info!("taking the switchover back before stopping");
            }
        }
        while engine.facts().switchover().is_some() && tokio::time::Instant::now() < deadline {
            let turn = engine.tick().await?;
            self.show_engine(engine);
            tokio::time::sleep(pause_after(&turn, 0, engine.facts(), WAIT)).await;
        }
        Ok(())
    }
}

/// `waited` is how many turns in a row have waited, this one included.
/// Whether the last look was at a side that did not answer.
fn sees_not(engine: &PgEngine) -> bool {
    Side::BOTH.into_iter().any(|side| match &engine.world().node(side).record {
        Seen::Unknown(reason) => !reason.is_empty(),
        Seen::Present(_) | Seen::Absent => false,
    })
}

fn pause_after(turn: &Turn, waited: u32, facts: &Facts, poll: Duration) -> Duration {
    match turn {
        Turn::Progressed => Duration::ZERO,
        Turn::Waiting if facts.switchover().is_some_and(|s| !s.step.is_forced()) => WAIT_IN_STALL,
        Turn::Waiting => WAIT.min(poll).min(FIRST_WAIT.saturating_mul(waited.max(1))),
        Turn::AtRest | Turn::Ended => poll,
    }
}

/// The engine's verb; None for those that need no journal.
pub(super) fn journaled(verb: api::Verb) -> Option<Verb> {
    match verb {
        api::Verb::Preflight => None,
        api::Verb::Verify => Some(Verb::Verify),
        api::Verb::Start => Some(Verb::Start),
        api::Verb::Cutover => Some(Verb::Cutover),
        api::Verb::Rollback => Some(Verb::Rollback),
        api::Verb::Abort => Some(Verb::Abort),
        api::Verb::Pause => Some(Verb::Pause),
        api::Verb::Resume => Some(Verb::Resume),
        api::Verb::Finish => Some(Verb::Finish),
        api::Verb::Abandon => Some(Verb::Abandon),
    }
}

/// Whether the step at hand goes by what the monitor sees.
fn waits_for_streams(facts: &Facts) -> bool {
    matches!(facts.course, Course::SetUp(Step::AwaitCatchUp | Step::ProveBothDirections))
}

/// Whether both nodes have a heartbeat to write: from their installation to their removal.
fn beats(facts: &Facts) -> bool {
    match facts.course {
        Course::Planned | Course::Ended(_) => false,
        Course::SetUp(step) => step > Step::InstallPglogical,
        Course::AtRest | Course::Switchover(_) => true,
        // Abandoned in the middle of the installation, there may be none.
        Course::End { step, verb, .. } => verb == Verb::Finish && step == Step::DrainBoth,
    }
}
