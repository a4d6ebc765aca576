//! The traffic of one migration, as the engine's port [`Traffic`]: which method, and when it is
//! looked at.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use pgferry_config::{MigrationConfig, TrafficConfig};
use pgferry_engine::{Fault, Traffic};
use pgferry_plan::facts::TrafficTouched;
use pgferry_plan::journal::Intent;
use pgferry_plan::traffic::{TrafficGoal, TrafficPolicy, TrafficView};
use pgferry_plan::{Action, Course, Facts, Seen, Step};
use pgferry_postgres::connect::ConnectError;

use crate::hooks::Hooks;
use crate::leadership::Leadership;
use crate::pgbouncer::{Errand, Pgbouncer};

/// For how long an action waits for what it began: long enough for a PAUSE, or a RESUME, that nothing
/// stands in the way of. What takes longer goes on in the background and is looked at.
const FIRST_WAIT: Duration = Duration::from_millis(50);

/// The traffic of one migration. Clones share everything.
#[derive(Clone, Debug)]
pub struct MigrationTraffic<L>(Arc<Method<L>>);

#[derive(Debug)]
enum Method<L> {
    MultiHost,
    Pgbouncers(Vec<Pgbouncer<L>>),
    Hooks(Hooks<L>),
}

impl<L: Leadership> MigrationTraffic<L> {
    /// Prepares what the configuration names; connects to nothing.
    ///
    /// # Errors
    /// When a login cannot be used at all.
    pub fn new(config: &MigrationConfig, leadership: L) -> Result<Self, ConnectError> {
        let method = match &config.traffic {
            TrafficConfig::MultiHost => Method::MultiHost,
            TrafficConfig::Pgbouncer(list) => {
                let one = |one| Pgbouncer::new(&config.name, one, leadership.clone());
                Method::Pgbouncers(list.pgbouncers.iter().map(one).collect::<Result<_, _>>()?)
            }
            TrafficConfig::Command(_) | TrafficConfig::Webhook(_) => {
                Method::Hooks(Hooks::new(config, leadership)?)
            }
        };
        Ok(Self(Arc::new(method)))
    }

    /// What the configuration wants of the pause.
    #[must_use]
    pub fn policy(config: &MigrationConfig) -> TrafficPolicy {
        match &config.traffic {
            TrafficConfig::Pgbouncer(list) => TrafficPolicy {
                pause_deadline: list.pause_deadline,
                on_pause_deadline: list.on_pause_deadline,
            },
            TrafficConfig::MultiHost | TrafficConfig::Command(_) | TrafficConfig::Webhook(_) => {
                TrafficPolicy::default()
            }
        }
    }

    /// Lets what failed be tried again at once, because a person said so.
    pub fn forget_failure(&self) {
        match &*self.0 {
            Method::MultiHost => {}
            Method::Pgbouncers(pgbouncers) => {
                pgbouncers.iter().for_each(Pgbouncer::forget_failure);
            }
            Method::Hooks(hooks) => hooks.forget_failure(),
        }
    }

    /// Ends what runs in the background: this daemon leads no more.
    pub fn shut_down(&self) {
        match &*self.0 {
            Method::MultiHost => {}
            Method::Pgbouncers(pgbouncers) => pgbouncers.iter().for_each(Pgbouncer::stop),
            Method::Hooks(hooks) => hooks.stop(),
        }
    }

    /// Leads clients that are held back to a side and lets them go, without a journal to ask; a
    /// node still has to carry the epoch. True once every one has answered that it is done.
    pub async fn release(&self, side: pgferry_plan::Side, epoch: i64) -> bool {
        let Method::Pgbouncers(pgbouncers) = &*self.0 else { return true };
        let errand = Errand { operation: None, epoch, goal: TrafficGoal::LetGo(side) };
        let mut released = true;
        for result in join_all(pgbouncers.iter().map(|one| one.pursue(errand, FIRST_WAIT))).await {
            if let Err(fault) = result {
                tracing::warn!(%fault, "a PgBouncer could not be let go yet");
                released = false;
            }
        }
        released
    }
}

/// What the step at hand, or rest, needs to see.
enum Look {
    Nothing,
    /// Whether they hold, and where they lead.
    State,
    /// What stands against a switchover too.
    Readiness,
}

fn look_for(facts: &Facts) -> Look {
    match &facts.course {
        Course::AtRest => Look::Readiness,
        Course::Switchover(switchover) if switchover.unwinding.is_some() => {
            if switchover.traffic == TrafficTouched::Not { Look::Nothing } else { Look::State }
        }
        Course::Switchover(switchover) if switchover.step == Step::CheckVerdict => Look::Readiness,
        Course::Switchover(switchover) => {
            // The step behind the opening goes on from the look that sees it. Before it was sent,
            // no pooler that hangs is waited for.
            let opening = facts.intents.iter().any(|i| matches!(i, Intent::Open { .. }));
            let concerned = matches!(
                switchover.step,
                Step::PauseTraffic
                    | Step::ResumeTraffic
                    | Step::Confirm
                    | Step::LeadTraffic
                    | Step::DropStreams
            ) || (switchover.step == Step::OpenOther && opening);
            if concerned { Look::State } else { Look::Nothing }
        }
        Course::Planned | Course::SetUp(_) | Course::End { .. } | Course::Ended(_) => Look::Nothing,
    }
}

impl<L: Leadership> Traffic for MigrationTraffic<L> {
    async fn observe(&self, facts: &Facts) -> Seen<TrafficView> {
        let look = look_for(facts);
        let operation = facts.switchover().map(|switchover| switchover.operation);
        match (&*self.0, look) {
            (Method::MultiHost, _) => Seen::Absent,
            (_, Look::Nothing) => Seen::default(),
            (Method::Pgbouncers(pgbouncers), look) => {
                let thorough = matches!(look, Look::Readiness);
                let views = join_all(pgbouncers.iter().map(|one| async move {
                    match operation {
                        Some(_) if thorough => one.warm_up(facts.kind().to()).await,
                        Some(_) => {}
                        None => one.cool_down(),
                    }
                    let state = one.look(thorough).await;
                    one.view(state, operation)
                }));
                Seen::Present(TrafficView::Poolers(views.await))
            }
            (Method::Hooks(hooks), _) => {
                Seen::Present(TrafficView::Hooks(Box::new(hooks.view(operation))))
            }
        }
    }

    async fn apply(&self, action: &Action, facts: &Facts) -> Result<(), Fault> {
        let operation = facts.switchover().map(|switchover| switchover.operation);
        let goal = if let Action::PauseTraffic { side, .. } = action {
            TrafficGoal::HoldFor(side.other())
        } else if let Action::PointTraffic { side } = action {
            TrafficGoal::PointAt(*side)
        } else if let Action::ResumeTraffic { side } = action {
            TrafficGoal::LetGo(*side)
        } else {
            // The servers' actions; the engine brings none of them here.
            return Ok(());
        };
        match &*self.0 {
            Method::MultiHost => Ok(()),
            Method::Pgbouncers(pgbouncers) => {
                let errand = Errand { operation, epoch: facts.epoch, goal };
                let done = pgbouncers.iter().map(|one| one.pursue(errand, FIRST_WAIT));
                join_all(done).await.into_iter().collect()
            }
            Method::Hooks(hooks) => hooks.tell(facts, FIRST_WAIT).await,
        }
    }
}
