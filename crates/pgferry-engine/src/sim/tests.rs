//! Every trouble at every index of cutover and of rollback; the invariants are asserted inside
//! the model at every look and every mutation.

use std::time::Duration;

use jiff::Timestamp;
use pgferry_plan::journal::Intent;
use pgferry_plan::steps::{Part, STEPS};
use pgferry_plan::traffic::TrafficPolicy;
use pgferry_plan::{
    Course, Entry, Event, Evidence, Facts, Kind, OperationState, Policy, Side, Step, Verb,
};
use uuid::Uuid;

use super::faults::{Stage, Trouble};
use crate::engine::{Engine, Turn};
use crate::ports::{Journal, LeadershipLost};

/// More turns than any switchover takes; reaching it means that one never ends.
const MANY: usize = 2_000;

fn policy() -> Policy {
    Policy {
        migration: "orders".parse().unwrap(),
        max_lag: Duration::from_secs(1),
        stall_budget: Duration::from_secs(60),
        grace: Duration::ZERO,
        native_copy: false,
        traffic: TrafficPolicy::default(),
        require_verification: false,
        verification_max_age: Duration::from_secs(86_400),
        background_pause: None,
        headroom: 10,
        max_retained_wal: None,
    }
}

/// A journal whose set-up is done.
fn set_up() -> Vec<Entry> {
    let operation = Uuid::from_u128(1);
    let mut events = vec![
        Event::TookOver,
        Event::Requested { operation, verb: Verb::Start, open_passive: false, force: false },
    ];
    events.extend(
        STEPS
            .iter()
            .filter(|spec| !matches!(spec.part, Part::Switchover | Part::Forced | Part::End))
            .map(|spec| Event::Completed { step: spec.step, evidence: Evidence::Nothing }),
    );
    events
        .into_iter()
        .zip(1..)
        .map(|(event, seq)| Entry { seq, at: Timestamp::now(), epoch: 1, event })
        .collect()
}

/// A daemon that is started again whenever it dies.
struct Daemon {
    stage: Stage,
    epoch: i64,
    engine: Engine<Stage, Stage, Stage>,
    policy: Policy,
    deaths: usize,
}

impl Daemon {
    async fn start(stage: Stage, policy: Policy) -> Self {
        let mut epoch = 1;
        let engine = Self::lead(&stage, &mut epoch, &policy).await;
        Self { stage, epoch, engine, policy, deaths: 0 }
    }

    async fn lead(stage: &Stage, epoch: &mut i64, policy: &Policy) -> Engine<Stage, Stage, Stage> {
        loop {
            *epoch += 1;
            let entries = {
                let mut scene = stage.scene();
                scene.lease = *epoch;
                scene.model.raise(*epoch);
                if scene.journal.is_empty() {
                    scene.journal = set_up();
                }
                scene.journal.clone()
            };
            let facts = Facts::replay(&entries).expect("a journal that was written can be read");
            let engine = Engine::take_over(
                stage.clone(),
                stage.clone(),
                stage.clone(),
                policy.clone(),
                facts,
                entries,
                *epoch,
            );
            if let Ok(engine) = engine.await {
                return engine;
            }
        }
    }

    async fn survive<T>(&mut self, result: Result<T, LeadershipLost>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(_) => {
                self.deaths += 1;
                self.engine = Self::lead(&self.stage, &mut self.epoch, &self.policy).await;
                None
            }
        }
    }

    /// Asks until the request is in the journal, as a person would after a crash.
    async fn ask(&mut self, verb: Verb) {
        for _ in 0..MANY {
            let known = self.engine.facts().operations.len();
            let result = self.engine.request(verb.into()).await;
            let answer = self.survive(result).await;
            if self.engine.facts().operations.len() > known || matches!(answer, Some(Ok(_))) {
                return;
            }
            let result = self.engine.tick().await;
            self.survive(result).await;
        }
        panic!("the request was never accepted: {:?}", self.engine.verdict());
    }

    async fn run_to_rest(&mut self) {
        for _ in 0..MANY {
            let result = self.engine.tick().await;
            if self.survive(result).await == Some(Turn::AtRest) {
                return;
            }
        }
        panic!("the switchover never ends: {:?}", self.engine.condition());
    }

    /// Lets what is late land, and looks whether everything still stands.
    async fn settle(&mut self) {
        for _ in 0..80 {
            let result = self.engine.tick().await;
            self.survive(result).await;
        }
        let active = self.engine.facts().active;
        self.stage.scene().model.check_at_rest(active);
        self.stage.scene().model.check_traffic(active);
    }

    /// Whoever passed the fence was written down once, ended, and is known to have come to nothing.
    fn check_strays(&self) {
        let strays = self.stage.scene().model.strays.clone();
        assert!(strays.iter().all(|stray| !stray.goes_on), "somebody writes on: {strays:?}");
        let told = |is: fn(&Event) -> bool| {
            self.engine.entries().iter().filter(|entry| is(&entry.event)).count()
        };
        let found = told(|event| matches!(event, Event::StrayFound { .. }));
        let ended = told(|event| matches!(event, Event::StrayEnded { .. }));
        assert_eq!([found, ended], [strays.len(); 2]);
    }

    async fn switch(&mut self, kind: Kind) -> OperationState {
        self.ask(Verb::of_switchover(kind)).await;
        self.run_to_rest().await;
        let report = self.engine.facts().last_switchover.clone().unwrap();
        assert_eq!(report.kind, kind);
        let active = self.engine.facts().active;
        assert_eq!(active == kind.to(), report.outcome == OperationState::Succeeded);
        self.stage.scene().model.check_at_rest(active);
        self.check_strays();
        report.outcome
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

#[test]
fn a_migration_goes_there_and_back_again_and_again() {
    block_on(async {
        let mut daemon = Daemon::start(Stage::new(Trouble::Nothing, 0), policy()).await;
        for _ in 0..5 {
            assert_eq!(daemon.switch(Kind::Cutover).await, OperationState::Succeeded);
            assert_eq!(daemon.switch(Kind::Rollback).await, OperationState::Succeeded);
        }
        assert!(daemon.stage.scene().model.acknowledged.len() > 100);
    });
}

#[test]
fn any_trouble_at_any_index_of_cutover_and_rollback_ends_well() {
    block_on(async {
        for trouble in Trouble::ALL {
            let mut index = 0;
            loop {
                let stage = Stage::new(trouble, index);
                let mut daemon = Daemon::start(stage.clone(), policy()).await;
                for kind in [Kind::Cutover, Kind::Rollback] {
                    while daemon.switch(kind).await != OperationState::Succeeded {}
                }
                daemon.settle().await;
                if stage.scene().countdown.is_some() {
                    // The index lies behind the last occasion: every one has been tried.
                    assert!(index > 10, "{trouble:?} found only {index} occasions");
                    break;
                }
                index += 1;
            }
        }
    });
}

/// A journal on a machine that is busy, or far away.
struct Slow;

impl Journal for Slow {
    async fn append(&mut self, _: &[Entry]) -> Result<(), LeadershipLost> {
        tokio::time::sleep(Duration::from_millis(200)).await;
        Ok(())
    }

    fn is_lost(&self) -> bool {
        false
    }
}

#[test]
fn a_slow_journal_is_taken_over_also_when_the_stall_budget_is_used_up() {
    block_on(async {
        let mut entries = set_up();
        let operation = Uuid::from_u128(2);
        let done = |step| Event::Completed { step, evidence: Evidence::Nothing };
        let fence = Intent::Fence { side: Side::Source };
        for event in [
            Event::Requested { operation, verb: Verb::Cutover, open_passive: false, force: false },
            done(Step::CheckVerdict),
            done(Step::WarmSequences),
            done(Step::PauseTraffic),
            Event::Intended { step: Step::FenceActive, intent: fence },
        ] {
            let seq = entries.len() as u64 + 1;
            entries.push(Entry { seq, at: Timestamp::now(), epoch: 1, event });
        }
        let facts = Facts::replay(&entries).unwrap();
        let strict = Policy { stall_budget: Duration::ZERO, ..policy() };
        let stage = Stage::new(Trouble::Nothing, 0);
        let traffic = stage.clone();
        let engine = Engine::take_over(stage, traffic, Slow, strict, facts, entries, 2);
        let mut engine = engine.await.unwrap();
        engine.tick().await.unwrap();
        assert!(engine.facts().switchover().unwrap().unwinding.is_some());
    });
}

#[test]
fn a_switchover_out_of_budget_is_taken_back_and_writers_go_on() {
    block_on(async {
        let strict = Policy { stall_budget: Duration::ZERO, ..policy() };
        let mut daemon = Daemon::start(Stage::new(Trouble::Nothing, 0), strict).await;
        assert_eq!(daemon.switch(Kind::Cutover).await, OperationState::Aborted);
        let written = daemon.stage.scene().model.acknowledged.len();
        daemon.engine.tick().await.unwrap();
        daemon.engine.tick().await.unwrap();
        assert!(daemon.stage.scene().model.acknowledged.len() > written);
        assert_eq!(daemon.engine.facts().active, Side::Source);
    });
}

#[test]
fn any_trouble_with_an_abort_at_any_turn_after_it_ends_on_one_open_side() {
    block_on(async {
        for trouble in Trouble::ALL {
            for index in 0..14 {
                for turns in 0..12 {
                    let stage = Stage::new(trouble, index);
                    let mut daemon = Daemon::start(stage.clone(), policy()).await;
                    daemon.ask(Verb::Cutover).await;
                    // First the trouble, then some turns, then the abort.
                    let mut left = turns;
                    for _ in 0..MANY {
                        let struck = stage.scene().countdown.is_none();
                        if daemon.engine.facts().switchover().is_none() || struck && left == 0 {
                            break;
                        }
                        left -= usize::from(struck);
                        let result = daemon.engine.tick().await;
                        daemon.survive(result).await;
                    }
                    let result = daemon.engine.request(Verb::Abort.into()).await;
                    daemon.survive(result).await;
                    daemon.run_to_rest().await;
                    daemon.settle().await;
                    // And the road is still open, both ways.
                    for _ in 0..2 {
                        let kind = daemon.engine.facts().kind();
                        while daemon.switch(kind).await != OperationState::Succeeded {}
                    }
                    daemon.settle().await;
                }
            }
        }
    });
}

#[test]
fn a_daemon_that_was_frozen_through_a_take_over_changes_nothing_when_it_wakes() {
    block_on(async {
        for turns in 0..50 {
            for head_start in [0, 3, 30] {
                let stage = Stage::new(Trouble::Nothing, 0);
                let mut old = Daemon::start(stage.clone(), policy()).await;
                old.ask(Verb::Cutover).await;
                for _ in 0..turns {
                    old.engine.tick().await.unwrap();
                }
                let mut epoch = old.epoch;
                let engine = Daemon::lead(&stage, &mut epoch, &policy()).await;
                let mut new =
                    Daemon { stage: stage.clone(), epoch, engine, policy: policy(), deaths: 0 };
                for _ in 0..head_start {
                    new.engine.tick().await.unwrap();
                }
                let mut awake = true;
                for _ in 0..200 {
                    awake = awake && old.engine.tick().await.is_ok();
                    new.engine.tick().await.unwrap();
                }
                new.run_to_rest().await;
                assert_eq!(new.deaths, 0, "the old daemon disturbed the new one");
                let active = new.engine.facts().active;
                stage.scene().model.check_at_rest(active);
            }
        }
    });
}

#[test]
fn an_abort_at_any_turn_ends_on_one_open_side() {
    block_on(async {
        let (mut aborted, mut too_late) = (0, 0);
        for turns in 0..60 {
            let mut daemon = Daemon::start(Stage::new(Trouble::Nothing, 0), policy()).await;
            daemon.ask(Verb::Cutover).await;
            for _ in 0..turns {
                daemon.engine.tick().await.unwrap();
            }
            let accepted = daemon.engine.request(Verb::Abort.into()).await.unwrap();
            daemon.run_to_rest().await;
            let facts = daemon.engine.facts().clone();
            assert_eq!(facts.course, Course::AtRest);
            let outcome = facts.last_switchover.unwrap().outcome;
            match (accepted, outcome) {
                (Ok(_), OperationState::Aborted) => aborted += 1,
                (Ok(abort), OperationState::Succeeded) => {
                    let told = facts.operations.iter().find(|operation| operation.id == abort);
                    let problem = told.and_then(|operation| operation.problem.as_ref());
                    assert_eq!(problem.map(|problem| problem.code.as_str()), Some("too_late"));
                }
                (Err(refusal), OperationState::Succeeded) => match refusal.reason.code.as_str() {
                    "too_late" => too_late += 1,
                    other => assert_eq!(other, "nothing_to_abort", "after {turns} turns"),
                },
                (answer, outcome) => panic!("{answer:?}, {outcome:?}"),
            }
            daemon.stage.scene().model.check_at_rest(facts.active);
        }
        assert!(aborted > 5, "the abort came too late every time but {aborted}");
        assert!(too_late > 0, "no abort came behind the line");
    });
}
