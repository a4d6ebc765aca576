//! One migration's engine: what it knows, and one turn of its loop.
//!
//! Never sleeps, never reads configuration, never concludes from the result of an action. An
//! engine whose journal failed is thrown away; the next one begins with a take-over and a load.

mod foretold;
mod repairing;
mod straying;
mod verifying;
mod writing;

use std::collections::VecDeque;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use pgferry_plan::decide::rests;
use pgferry_plan::journal::{Entry, Event, Evidence, OperationState, Verb};
use pgferry_plan::request::{succeeded, taken_back};
use pgferry_plan::{
    Action, Blocker, Course, Decision, Direction, Facts, Order, Policy, Refusal, Side, Step, World,
    admit, decide, verdict,
};
use uuid::Uuid;

use crate::failpoint;
use crate::ports::{Cluster, Condition, ConditionKind, Fault, Journal, LeadershipLost, Traffic};

/// Between two acts of upkeep; pglogical itself waits five seconds before it restarts a worker.
const UPKEEP: SignedDuration = SignedDuration::from_secs(6);
/// The same while a switchover waits for a stream to confirm.
const UPKEEP_IN_SWITCHOVER: SignedDuration = SignedDuration::from_secs(2);
/// A worker that was woken connects three times, to a server that may be far away and busy.
const TO_REACH_ITS_SLOT: SignedDuration = SignedDuration::from_secs(15);

/// What a turn came to, and so when the next one is due.
#[derive(Clone, Debug, PartialEq)]
pub enum Turn {
    /// Something changed: look again at once.
    Progressed,
    /// Nothing to do but look again; at once while writes are held.
    Waiting,
    /// Nothing is asked for.
    AtRest,
    /// Everything has been taken away.
    Ended,
}

/// The engine of one migration under one leadership.
#[derive(Debug)]
pub struct Engine<C, T, J> {
    cluster: C,
    traffic: T,
    journal: J,
    policy: Policy,
    facts: Facts,
    entries: Vec<Entry>,
    unwritten: Vec<Entry>,
    condition: Option<Condition>,
    verdict: Vec<Blocker>,
    world: World,
    journal_dropped: bool,
    kept_at: Option<Timestamp>,
    woken_at: Option<Timestamp>,
    /// WAL of the active side that was not confirmed when that was last seen, in bytes.
    unconfirmed: Option<(u64, Timestamp)>,
    /// How long the last appends took.
    appends: VecDeque<Duration>,
    /// When the present step's fence or PAUSE was sent, or its opening or RESUME answered.
    effect_at: Option<Timestamp>,
}

impl<C: Cluster, T: Traffic, J: Journal> Engine<C, T, J> {
    /// An engine over what the journal holds, under a leadership that was just taken.
    ///
    /// # Errors
    /// When the take-over cannot be journaled.
    pub async fn take_over(
        cluster: C,
        traffic: T,
        journal: J,
        policy: Policy,
        facts: Facts,
        entries: Vec<Entry>,
        epoch: i64,
    ) -> Result<Self, LeadershipLost> {
        let mut engine = Self {
            cluster,
            traffic,
            journal,
            policy,
            facts,
            entries,
            unwritten: Vec::new(),
            condition: None,
            verdict: Vec::new(),
            world: World::default(),
            journal_dropped: false,
            kept_at: None,
            woken_at: None,
            unconfirmed: None,
            appends: VecDeque::new(),
            effect_at: None,
        };
        engine.note(epoch, Event::TookOver)?;
        // However long writes are held already: without it nothing goes on at all.
        engine.append(None).await?;
        engine.entries.append(&mut engine.unwritten);
        Ok(engine)
    }

    /// What the journal adds up to.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Every entry, oldest first.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// What the migration waits for.
    pub fn condition(&self) -> Option<&Condition> {
        self.condition.as_ref()
    }

    /// What stood against a switchover at the last look at rest.
    pub fn verdict(&self) -> &[Blocker] {
        &self.verdict
    }

    /// The last look.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Whether the journal has been removed, as the last act: no lease is needed any more.
    pub fn journal_is_dropped(&self) -> bool {
        self.journal_dropped
    }

    /// The cluster that this engine acts on.
    pub fn cluster(&self) -> &C {
        &self.cluster
    }

    /// Gives the journal back, to be released.
    pub fn into_journal(self) -> J {
        self.journal
    }

    /// One turn: look, decide, and either conclude, act once, or wait.
    ///
    /// # Errors
    /// When this daemon may not act any more.
    pub async fn tick(&mut self) -> Result<Turn, LeadershipLost> {
        if let Course::Ended(_) = self.facts.course {
            self.condition = None;
            return Ok(Turn::Ended);
        }
        // Found out at rest, and not by the first append of a switchover.
        if self.journal.is_lost() && !self.journal_dropped {
            return Err(LeadershipLost("the journal's session has ended".to_owned()));
        }
        self.world = self.look().await;
        self.remember_unconfirmed();
        self.keep_up().await?;
        self.keep_strays().await?;
        self.keep_repairing().await?;
        if self.keep_verifying().await? || self.verify_in_background().await? {
            return Ok(Turn::Progressed);
        }
        if matches!(self.facts.course, Course::AtRest | Course::Planned) {
            self.verdict = verdict(&self.facts, &self.world, &self.policy);
            match pgferry_plan::decide::ailing(&self.facts, &self.world) {
                _ if self.facts.paused => self.say_paused(),
                Some(blocker) => self.say(ConditionKind::Waiting, vec![blocker]),
                None => self.condition = None,
            }
            return Ok(Turn::AtRest);
        }
        if self.facts.paused && self.facts.switchover().is_none() {
            self.flush().await?;
            self.say_paused();
            return Ok(Turn::Waiting);
        }
        if let Some(blocker) =
            pgferry_plan::decide::out_of_time(&self.facts, &self.world, &self.policy)
        {
            return self.unwind(vec![blocker]).await;
        }
        match decide(&self.facts, &self.world, &self.policy) {
            Decision::Done(evidence) => {
                self.conclude(evidence).await?;
                self.go_on_from_this_look().await
            }
            Decision::Act(action) => self.act(&action).await,
            Decision::Wait(why) => {
                self.flush().await?;
                self.say(ConditionKind::Waiting, vec![Blocker::new("waiting", why, "")]);
                Ok(Turn::Waiting)
            }
            Decision::Blocked(blockers) if self.can_be_taken_back() => self.unwind(blockers).await,
            Decision::Blocked(blockers) => {
                self.flush().await?;
                self.say(ConditionKind::Blocked, blockers);
                Ok(Turn::Waiting)
            }
            Decision::LineCrossed => {
                self.note(self.facts.epoch, Event::LineCrossed)?;
                if let Some(abort) = self.facts.running(Verb::Abort).map(|abort| abort.id) {
                    self.note(self.facts.epoch, failed(abort, pgferry_plan::request::too_late()))?;
                }
                self.flush().await?;
                Ok(Turn::Progressed)
            }
        }
    }

    async fn look(&self) -> World {
        let (mut world, traffic) =
            tokio::join!(self.cluster.observe(&self.facts), self.traffic.observe(&self.facts));
        world.traffic = traffic;
        world
    }

    async fn carry_out(&self, action: &Action) -> Result<(), Fault> {
        if action.concerns_traffic() {
            self.traffic.apply(action, &self.facts).await
        } else {
            self.cluster.apply(action, &self.facts).await
        }
    }

    /// Not journaled: it belongs to no step, and a later look shows by itself what it did.
    async fn keep_up(&mut self) -> Result<(), LeadershipLost> {
        let every = if self.facts.switchover().is_some() { UPKEEP_IN_SWITCHOVER } else { UPKEEP };
        let due = self.kept_at.is_none_or(|at| self.world.now.duration_since(at) >= every);
        // A side that somebody can write to is never left for later.
        // Nor are clients that are held, or led to the side that refuses them.
        let urgent =
            |action: &Action| matches!(action, Action::Fence { .. } | Action::ResumeTraffic { .. });
        let mut upkeep = pgferry_plan::decide::upkeep(&self.facts, &self.world);
        let wakes = |action: &Action| matches!(action, Action::WakeSubscription { .. });
        let may_wake = self.may_wake();
        upkeep.retain(|action| (due || urgent(action)) && (may_wake || !wakes(action)));
        for action in upkeep {
            self.kept_at = Some(self.world.now);
            match &action {
                Action::SetSequences { values, .. } => {
                    tracing::debug!(
                        sequences = values.len(),
                        "keeping the passive side's sequences up"
                    );
                }
                other => tracing::warn!(action = ?other, "upkeep"),
            }
            match self.carry_out(&action).await {
                Ok(()) => {}
                Err(Fault::EpochRaised) => {
                    return Err(LeadershipLost(
                        "another daemon has raised the epoch on a node".to_owned(),
                    ));
                }
                Err(Fault::Failed(blocker)) => {
                    tracing::warn!(message = blocker.message, "upkeep failed");
                }
            }
            if wakes(&action) {
                self.woken_at = Some(Timestamp::now());
            }
        }
        Ok(())
    }

    /// pglogical ends a worker that runs when its subscription is woken: not again before the monitor may
    /// have seen that worker, and where one is there, not before it may have reached its slot.
    fn may_wake(&self) -> bool {
        let Some(woken) = self.woken_at else { return true };
        let seen_at = self.world.lag.present().and_then(|lag| lag.observed_at);
        let works = Direction::BOTH.into_iter().any(|direction| {
            let subscription = self.world.stream(direction).subscription.present();
            rests(direction, &self.world) && subscription.is_some_and(|seen| seen.worker)
        });
        let pause = if works { TO_REACH_ITS_SLOT } else { SignedDuration::ZERO };
        seen_at > Some(woken) && self.world.now.duration_since(woken) >= pause
    }

    /// Accepts a person's request, after a fresh look, or refuses it with every reason.
    ///
    /// # Errors
    /// When this daemon may not act any more.
    pub async fn request(&mut self, order: Order) -> Result<Result<Uuid, Refusal>, LeadershipLost> {
        let switches = matches!(order.verb, Verb::Cutover | Verb::Rollback);
        // By the last look at rest: the one at both records alone sees no verification.
        let verified_before =
            verifying::verifies(&self.world) || self.facts.running(Verb::Verify).is_some();
        if switches && order.force {
            self.world = self.cluster.observe_records().await;
        } else if switches && self.facts.course == Course::AtRest {
            self.world = self.look().await;
        }
        let operation = Uuid::now_v7();
        let admitted = admit(&self.facts, &self.world, &self.policy, order, operation);
        match admitted {
            Err(refusal) => Ok(Err(self.with_condition(refusal))),
            Ok(events) => {
                for event in events {
                    self.note(self.facts.epoch, event)?;
                }
                self.flush().await?;
                self.condition = None;
                self.give_way(verified_before || verifying::verifies(&self.world)).await;
                Ok(Ok(operation))
            }
        }
    }

    /// A switchover that comes too early is refused with what keeps the migration from being ready, too.
    fn with_condition(&self, mut refusal: Refusal) -> Refusal {
        let blocked = self.condition.iter().filter(|c| c.kind == ConditionKind::Blocked);
        if refusal.reason.code == "not_ready" {
            refusal.blockers.extend(blocked.flat_map(|condition| condition.all.clone()));
        }
        refusal
    }

    /// Looks afresh and tells everything that stands against a switchover.
    pub async fn fresh_verdict(&mut self) -> &[Blocker] {
        if self.facts.course == Course::AtRest {
            self.world = self.look().await;
        }
        self.verdict = verdict(&self.facts, &self.world, &self.policy);
        &self.verdict
    }

    /// Begins an empty journal with what the surviving side's record says: the one before was lost with
    /// the active side.
    ///
    /// # Errors
    /// When this daemon may not act any more.
    pub async fn adopt(&mut self, lost: Side, node_id: Uuid) -> Result<(), LeadershipLost> {
        self.note(self.facts.epoch, Event::Adopted { lost, node_id })?;
        self.flush().await
    }

    async fn conclude(&mut self, evidence: Evidence) -> Result<(), LeadershipLost> {
        let Some(step) = self.facts.step() else { return Ok(()) };
        failpoint::reach(self.place("seen_done", "seen_undone"), Some(step)).await;
        self.condition = None;
        if self.facts.switchover().is_some_and(|switchover| switchover.unwinding.is_some()) {
            self.note(self.facts.epoch, Event::Undone { step: step.min(Step::FenceActive) })?;
            for event in taken_back(&self.facts, self.world.now) {
                self.note(self.facts.epoch, event)?;
            }
            return self.flush().await;
        }
        tracing::info!(%step, "step is done");
        // Without it, after a restart in between, the journal's own times stand.
        let evidence = match (step, self.effect_at.take()) {
            (Step::PauseTraffic | Step::FenceActive, Some(from)) => Evidence::Held { from },
            (Step::OpenOther | Step::OpenSurvivor | Step::ResumeTraffic, Some(at)) => {
                Evidence::Opened { at }
            }
            (_, _) => evidence,
        };
        let operation = self.operation_of_course();
        self.note(self.facts.epoch, Event::Completed { step, evidence })?;
        if step.next().is_none() {
            if let Some(operation) = operation {
                self.note(self.facts.epoch, succeeded(operation))?;
            }
            self.flush().await?;
        }
        // Otherwise it shares an append with the next intent: a look that saw the step done will
        // see it again after a crash.
        Ok(())
    }

    /// The steps behind the one that was concluded, as far as what was seen is enough for them. What
    /// it does not show is Unknown, and so neither done nor a reason to act: then another look comes.
    async fn go_on_from_this_look(&mut self) -> Result<Turn, LeadershipLost> {
        while let Course::Switchover(switchover) = &self.facts.course
            && switchover.unwinding.is_none()
            && switchover.step.goes_on_from_the_last_look()
        {
            match decide(&self.facts, &self.world, &self.policy) {
                Decision::Done(evidence) => self.conclude(evidence).await?,
                Decision::Act(action) => return self.act(&action).await,
                Decision::Wait(_) | Decision::Blocked(_) | Decision::LineCrossed => break,
            };
        }
        Ok(Turn::Progressed)
    }

    fn operation_of_course(&self) -> Option<Uuid> {
        match &self.facts.course {
            Course::SetUp(_) => self.facts.running(Verb::Start).map(|start| start.id),
            Course::Switchover(switchover) => Some(switchover.operation),
            Course::End { verb, .. } => self.facts.running(*verb).map(|end| end.id),
            Course::Planned | Course::AtRest | Course::Ended(_) => None,
        }
    }

    async fn act(&mut self, action: &Action) -> Result<Turn, LeadershipLost> {
        let Some(step) = self.facts.step() else { return Ok(Turn::AtRest) };
        let intent = action.intent();
        let repeated = intent.as_ref().is_none_or(|intent| self.facts.intents.contains(intent));
        if let Some(intent) = intent.filter(|_| !repeated) {
            tracing::info!(%step, ?intent, "acting");
            self.note(self.facts.epoch, Event::Intended { step, intent })?;
        }
        self.flush().await?;
        failpoint::reach(self.place("before_effect", "before_undo"), Some(step)).await;
        let began = Timestamp::now();
        let result = self.carry_out(action).await;
        match action {
            // The first fence sent is what holds writes, the last opening answered what ends it.
            Action::Fence { .. } | Action::PauseTraffic { holds: true, .. } => {
                self.effect_at = self.effect_at.or(Some(began));
            }
            Action::Open { .. } | Action::ResumeTraffic { .. } => {
                self.effect_at = Some(Timestamp::now());
            }
            _ => {}
        }
        failpoint::reach(self.place("after_effect", "after_undo"), Some(step)).await;
        match result {
            Ok(()) => {
                if *action == Action::DropJournal {
                    self.journal_dropped = true;
                }
                // The same action over and over is a loop that a person should see and a server
                // should not feel; held writes come first.
                let urgent = step.within_stall() || self.facts.switchover().is_some();
                Ok(if repeated && !urgent { Turn::Waiting } else { Turn::Progressed })
            }
            Err(Fault::EpochRaised) => {
                Err(LeadershipLost("another daemon has raised the epoch on a node".to_owned()))
            }
            Err(Fault::Failed(blocker)) => {
                tracing::warn!(%step, code = blocker.code, message = blocker.message, "action failed");
                self.say(ConditionKind::Waiting, vec![blocker]);
                Ok(Turn::Waiting)
            }
        }
    }

    /// The name of a failpoint's place, by whether the step goes forward or is taken back.
    fn place(&self, forward: &'static str, back: &'static str) -> &'static str {
        let back_now = self.facts.switchover().is_some_and(|s| s.unwinding.is_some());
        if back_now { back } else { forward }
    }

    fn can_be_taken_back(&self) -> bool {
        self.facts.switchover().is_some_and(|switchover| {
            switchover.unwinding.is_none() && switchover.step.before_line()
        })
    }

    async fn unwind(&mut self, blockers: Vec<Blocker>) -> Result<Turn, LeadershipLost> {
        if let Some(blocker) = blockers.first() {
            tracing::warn!(
                code = blocker.code,
                message = blocker.message,
                "taking the switchover back"
            );
        }
        self.note(self.facts.epoch, Event::Unwinding { blockers })?;
        self.flush().await?;
        Ok(Turn::Progressed)
    }

    fn say_paused(&mut self) {
        let paused =
            Blocker::new("paused", "the migration is paused", "`pgferry resume` lets it go on");
        self.say(ConditionKind::Paused, vec![paused]);
    }

    fn say(&mut self, kind: ConditionKind, blockers: Vec<Blocker>) {
        let Some(blocker) = blockers.first().cloned() else { return };
        let since = match &self.condition {
            Some(old) if old.kind == kind && old.blocker.code == blocker.code => old.since,
            Some(_) | None => self.world.now,
        };
        self.condition = Some(Condition { kind, blocker, all: blockers, since });
    }
}

fn failed(operation: Uuid, problem: Blocker) -> Event {
    Event::OperationEnded {
        operation,
        state: OperationState::Failed,
        blockers: vec![problem.clone()],
        problem: Some(problem),
    }
}
