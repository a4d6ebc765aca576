//! The ports over the model, with one fault at a chosen index.

use std::sync::{Arc, Mutex, MutexGuard};

use pgferry_plan::traffic::TrafficView;
use pgferry_plan::{Action, Blocker, Entry, Facts, Seen, Side, World};

use super::model::{Model, Refused};
use crate::ports::{Cluster, Fault, Journal, LeadershipLost, Traffic};

/// What goes wrong, each at the n-th occasion.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Trouble {
    Nothing,
    DiesBeforeEffect,
    DiesAfterEffect,
    /// The daemon dies, and what it sent lands this many looks later, while the next is at work.
    DiesAndEffectLandsLate(u64),
    /// The reply is lost; the effect was there.
    LosesReply,
    /// The reply is lost; the effect lands this many looks later, in the same leadership.
    EffectLandsLate(u64),
    RepeatsAction,
    /// This server crashes right before the action, which is carried out all the same: over a new
    /// connection.
    ServerRestarts(Side),
    /// One pooler forgets what it was told right behind the action.
    PoolerRestarts,
    DiesBeforeAppend,
    DiesAfterAppend,
}

impl Trouble {
    /// Late means: within the step, within the switchover, and after it.
    pub(super) const ALL: [Trouble; 15] = [
        Trouble::DiesBeforeEffect,
        Trouble::DiesAfterEffect,
        Trouble::DiesAndEffectLandsLate(2),
        Trouble::DiesAndEffectLandsLate(15),
        Trouble::DiesAndEffectLandsLate(60),
        Trouble::LosesReply,
        Trouble::EffectLandsLate(1),
        Trouble::EffectLandsLate(15),
        Trouble::EffectLandsLate(60),
        Trouble::RepeatsAction,
        Trouble::ServerRestarts(Side::Source),
        Trouble::ServerRestarts(Side::Destination),
        Trouble::PoolerRestarts,
        Trouble::DiesBeforeAppend,
        Trouble::DiesAfterAppend,
    ];

    fn is_of_journal(self) -> bool {
        matches!(self, Trouble::DiesBeforeAppend | Trouble::DiesAfterAppend)
    }
}

/// The world of one simulated migration.
#[derive(Debug)]
pub(super) struct Scene {
    pub(super) model: Model,
    pub(super) journal: Vec<Entry>,
    trouble: Trouble,
    /// Occasions left until it strikes; None when it has struck.
    pub(super) countdown: Option<usize>,
    late: Vec<(u64, Action, i64)>,
    /// The leadership that may append.
    pub(super) lease: i64,
}

/// A handle that both ports share.
#[derive(Clone, Debug)]
pub(super) struct Stage(Arc<Mutex<Scene>>);

impl Stage {
    pub(super) fn new(trouble: Trouble, index: usize) -> Self {
        Self(Arc::new(Mutex::new(Scene {
            model: Model::at_rest(),
            journal: Vec::new(),
            trouble,
            countdown: (trouble != Trouble::Nothing).then_some(index),
            late: Vec::new(),
            lease: 0,
        })))
    }

    pub(super) fn scene(&self) -> MutexGuard<'_, Scene> {
        self.0.lock().unwrap()
    }
}

impl Scene {
    fn strikes(&mut self, of_journal: bool) -> bool {
        if self.trouble.is_of_journal() != of_journal {
            return false;
        }
        match self.countdown {
            Some(0) => {
                self.countdown = None;
                true
            }
            Some(left) => {
                self.countdown = Some(left - 1);
                false
            }
            None => false,
        }
    }

    fn land_what_is_late(&mut self) {
        let looks = self.model.looks;
        let (due, later) = std::mem::take(&mut self.late).into_iter().partition(|l| l.0 <= looks);
        self.late = later;
        let due: Vec<(u64, Action, i64)> = due;
        for (_, action, epoch) in due {
            if action.concerns_traffic() {
                // The epoch was asked for before it was frozen.
                self.model.direct(&action);
                continue;
            }
            // Refused or not: nobody hears of it.
            let _ = self.model.mutate(&action, epoch);
        }
    }
}

impl Cluster for Stage {
    async fn observe(&self, _facts: &Facts) -> World {
        let mut scene = self.scene();
        scene.model.pass();
        scene.land_what_is_late();
        scene.model.look()
    }

    async fn observe_records(&self) -> World {
        self.scene().model.look()
    }

    async fn apply(&self, action: &Action, facts: &Facts) -> Result<(), Fault> {
        let epoch = facts.epoch;
        self.carry_out(action, epoch, |model| answer(model.mutate(action, epoch)))
    }
}

impl Traffic for Stage {
    async fn observe(&self, _facts: &Facts) -> Seen<TrafficView> {
        Seen::Present(self.scene().model.look_at_traffic())
    }

    async fn apply(&self, action: &Action, facts: &Facts) -> Result<(), Fault> {
        let epoch = facts.epoch;
        self.carry_out(action, epoch, |model| {
            let side = match action {
                Action::PauseTraffic { side, .. } | Action::ResumeTraffic { side } => *side,
                // Before the line the side that the clients come from is the open one.
                Action::PointTraffic { side } => side.other(),
                other => panic!("poolers know no action {other:?}"),
            };
            if !model.holds_epoch(side, epoch) {
                return Err(Fault::EpochRaised);
            }
            model.direct(action);
            Ok(())
        })
    }
}

impl Stage {
    fn carry_out(
        &self,
        action: &Action,
        epoch: i64,
        effect: impl Fn(&mut Model) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let mut scene = self.scene();
        let lost = || Err(Fault::Failed(Blocker::new("reply_lost", "the reply was lost", "")));
        let late = |scene: &Scene, looks| (scene.model.looks + looks, action.clone(), epoch);
        if !scene.strikes(false) {
            return effect(&mut scene.model);
        }
        match scene.trouble {
            Trouble::DiesBeforeEffect => Err(Fault::EpochRaised),
            Trouble::DiesAfterEffect => {
                effect(&mut scene.model)?;
                Err(Fault::EpochRaised)
            }
            Trouble::DiesAndEffectLandsLate(looks) => {
                let late = late(&scene, looks);
                scene.late.push(late);
                Err(Fault::EpochRaised)
            }
            Trouble::LosesReply => {
                effect(&mut scene.model)?;
                lost()
            }
            Trouble::EffectLandsLate(looks) => {
                let late = late(&scene, looks);
                scene.late.push(late);
                lost()
            }
            Trouble::RepeatsAction => {
                effect(&mut scene.model)?;
                let _ = effect(&mut scene.model);
                Ok(())
            }
            Trouble::ServerRestarts(side) => {
                scene.model.restart(side);
                effect(&mut scene.model)
            }
            Trouble::PoolerRestarts => {
                effect(&mut scene.model)?;
                scene.model.restart_pooler();
                Ok(())
            }
            Trouble::Nothing | Trouble::DiesBeforeAppend | Trouble::DiesAfterAppend => {
                effect(&mut scene.model)
            }
        }
    }
}

fn answer(result: Result<(), Refused>) -> Result<(), Fault> {
    result.map_err(|refused| match refused {
        Refused::Epoch => Fault::EpochRaised,
        Refused::Revision => Fault::Failed(Blocker::new("changed", "the record changed", "")),
        Refused::Marker => Fault::Failed(Blocker::new("missing", "the marker is not there", "")),
    })
}

impl Journal for Stage {
    async fn append(&mut self, entries: &[Entry]) -> Result<(), LeadershipLost> {
        let mut scene = self.scene();
        if entries.iter().any(|entry| entry.epoch != scene.lease) {
            return Err(LeadershipLost("another daemon took the lease".to_owned()));
        }
        if !scene.strikes(true) {
            scene.journal.extend_from_slice(entries);
            return Ok(());
        }
        if scene.trouble == Trouble::DiesAfterAppend {
            scene.journal.extend_from_slice(entries);
        }
        Err(LeadershipLost("the daemon died".to_owned()))
    }

    fn is_lost(&self) -> bool {
        false
    }
}
