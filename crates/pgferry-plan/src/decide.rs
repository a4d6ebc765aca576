//! What to do about what was seen: one pure function, one line per step.
//!
//! No clock, no I/O, no memory but [`Facts`]. `Unknown` never leads to an action or a conclusion,
//! and a wait that ran out of time never means go.

mod copying;
mod end;
mod fence;
mod following;
mod forced;
mod gate;
mod native;
mod preparing;
mod stranded;
mod switchover;
mod traffic;
mod upkeep;
mod wal_guard;

use std::time::Duration;

use jiff::Timestamp;

pub(crate) use fence::cannot_lift;
pub(crate) use gate::{fence_blockers, stream_blockers};
pub use stranded::{LeftFenced, Stranded, goes_on_with, left_fenced, stranded};
pub(crate) use traffic::traffic_blockers;
pub use upkeep::{ailing, rests, upkeep};

use crate::action::Action;
use crate::facts::{Course, Facts, milliseconds};
use crate::finding::Blocker;
use crate::journal::Evidence;
use crate::name::MigrationName;
use crate::seen::Seen;
use crate::side::{Direction, Side};
use crate::steps::Step;
use crate::traffic::TrafficPolicy;
use crate::world::{JobView, World};

/// What follows from a look.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// The step is done; this is the only way forward.
    Done(Evidence),
    /// This is missing.
    Act(Action),
    /// Nothing to do but look again.
    Wait(String),
    /// A person has to do something; before the line of a switchover: it is taken back.
    Blocked(Vec<Blocker>),
    /// The switchover that is being taken back has crossed the line: it goes on.
    LineCrossed,
}

/// What the operator wants.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Whose names the objects carry.
    pub migration: MigrationName,
    /// The lag below which both sides count as in step.
    pub max_lag: Duration,
    /// For how long writes may be held before the line.
    pub stall_budget: Duration,
    /// For how long a transaction may go on after the fence.
    pub grace: Duration,
    /// How far sequences are set past what was handed out.
    pub headroom: i64,
    /// Bytes of WAL that the forward slot may hold back until the rows and indexes are there.
    pub max_retained_wal: Option<u64>,
    /// pglogical copies the rows (`copy.method = "pglogical"`).
    pub native_copy: bool,
    /// How a pooler is held.
    pub traffic: TrafficPolicy,
    /// A cutover needs a clean verification.
    pub require_verification: bool,
    /// For how long one counts.
    pub verification_max_age: Duration,
    /// From the end of a verification to the next round in the background; none means no rounds.
    pub background_pause: Option<Duration>,
}

/// Longest time from the request of a switchover to its fence. Nothing is held meanwhile, but a
/// person who asked for a switchover must not be surprised by it an hour later.
pub const MAX_BEFORE_FENCE: Duration = Duration::from_secs(60);

/// Decides about the step at hand; while unwinding, about the step that is taken back.
#[must_use]
pub fn decide(facts: &Facts, world: &World, policy: &Policy) -> Decision {
    match &facts.course {
        Course::SetUp(step) => decide_step(*step, facts, world, policy),
        Course::End { step, .. } => match facts.lost {
            Some(lost) => decide_step(*step, facts, &without(world, lost), policy),
            None => decide_step(*step, facts, world, policy),
        },
        Course::Switchover(switchover) if switchover.unwinding.is_some() => {
            switchover::undo(facts, switchover, world)
        }
        Course::Switchover(switchover) => decide_step(switchover.step, facts, world, policy),
        Course::Planned | Course::AtRest | Course::Ended(_) => {
            Decision::Wait("nothing is asked for".to_owned())
        }
    }
}

/// The look with what was not seen of a lost side taken for gone: the end does not wait for it. What is
/// seen of one that has come back is cleaned up like any other.
fn without(world: &World, lost: Side) -> World {
    fn gone<T>(seen: &mut Seen<T>) {
        if matches!(seen, Seen::Unknown(_)) {
            *seen = Seen::Absent;
        }
    }
    let mut world = world.clone();
    let node = world.node_mut(lost);
    gone(&mut node.record);
    gone(&mut node.pglogical_node);
    gone(&mut node.fence);
    gone(&mut node.marker);
    gone(&mut node.orphans);
    gone(&mut node.removable);
    gone(&mut world.stream_mut(Direction::leaving(lost.other())).subscription);
    gone(&mut world.stream_mut(Direction::leaving(lost)).slot);
    world
}

fn decide_step(step: Step, facts: &Facts, world: &World, policy: &Policy) -> Decision {
    match step {
        Step::CheckPrerequisites => preparing::check_prerequisites(world),
        Step::InstallPglogical => preparing::install_pglogical(facts, world),
        Step::FenceDestination => preparing::fence_destination(world, policy),
        Step::CreateNodes => preparing::create_nodes(world, policy),
        Step::CheckPeers => preparing::check_peers(world),
        Step::CopySchema if policy.native_copy => {
            native::keys(facts, world, preparing::copy_schema(world))
        }
        Step::CopySchema => preparing::copy_schema(world),
        Step::CreateSourceSets => preparing::create_source_sets(world),
        Step::CreateForwardSubscription if policy.native_copy => {
            native::create_forward_subscription(world)
        }
        Step::CopyRows if policy.native_copy => native::copy_rows(facts, world),
        Step::StartForwardStream if policy.native_copy => native::start_forward_stream(world),
        Step::CreateForwardSubscription => copying::create_forward_subscription(world),
        Step::CopyRows => wal_guard::or_stopped(world, policy, || copying::copy_rows(facts, world)),
        Step::BuildIndexes => {
            wal_guard::or_told(world, policy, || copying::build_indexes(facts, world))
        }
        Step::StartForwardStream => copying::start_forward_stream(facts, world),
        Step::AwaitCatchUp => following::await_catch_up(world, policy),
        Step::AnalyzeDestination => following::analyze_destination(world),
        Step::VerifyRows => crate::verify::verify_rows(facts, world, policy),
        Step::CreateDestinationSets => following::create_destination_sets(world),
        Step::CreateReverseSubscription => following::create_reverse_subscription(world),
        Step::ProveBothDirections => following::prove_both_directions(facts, world, policy),
        Step::CheckVerdict => switchover::check_verdict(facts, world, policy),
        Step::WarmSequences => switchover::warm_sequences(facts, world, policy),
        Step::PauseTraffic => traffic::pause(facts, world, policy),
        Step::ResumeTraffic => traffic::resume(facts, world),
        Step::FenceActive => switchover::fence_active(facts, world, policy),
        Step::Drain => switchover::drain(facts, world),
        Step::SetSequences => switchover::set_sequences(facts, world, policy),
        Step::Yield => switchover::yield_fenced(facts, world),
        Step::OpenOther => switchover::open_other(facts, world),
        Step::Confirm => switchover::confirm(facts, world),
        Step::CutStream => forced::cut_stream(facts, world),
        Step::RaiseSequences => forced::raise_sequences(facts, world, policy),
        Step::OpenSurvivor => forced::open_survivor(facts, world),
        Step::LeadTraffic => traffic::lead(facts, world),
        Step::DropStreams => forced::drop_streams(facts, world),
        Step::DrainBoth => end::drain_both(facts, world, policy),
        Step::DisableSubscriptions => end::disable_subscriptions(world),
        Step::DropSubscriptions => end::drop_subscriptions(world),
        Step::CheckSlotsAndOrigins => end::check_slots_and_origins(world),
        Step::DropNodes => end::drop_nodes(facts, world, policy),
        Step::RemovePglogical => end::remove_pglogical(facts, world),
        Step::LeftoverScan => end::leftover_scan(facts, world),
        Step::ArchiveJournal => end::archive_journal(world),
        Step::DropJournal => end::drop_journal(world),
    }
}

/// For how much longer writes may be held before the line; None where nothing is held, where it is
/// being taken back, and behind the line.
#[must_use]
pub fn stall_left(facts: &Facts, now: Timestamp, budget: Duration) -> Option<Duration> {
    let switchover =
        facts.switchover().filter(|s| s.unwinding.is_none() && s.step.before_line())?;
    let held = milliseconds(switchover.fenced_at?, now).max(0.0);
    Some(budget.saturating_sub(Duration::from_secs_f64(held / 1000.0)))
}

/// Whether the running switchover has used up its time before the line, and why it is taken back.
#[must_use]
pub fn out_of_time(facts: &Facts, world: &World, policy: &Policy) -> Option<Blocker> {
    let switchover =
        facts.switchover().filter(|s| s.unwinding.is_none() && s.step.before_line())?;
    match switchover.fenced_at {
        Some(fenced) => {
            let held = milliseconds(fenced, world.now);
            (held > policy.stall_budget.as_secs_f64() * 1000.0).then(|| {
                Blocker::new(
                    "stall_budget_used_up",
                    format!(
                        "writes were held for {held:.0} ms before the line, more than the stall budget of {} ms",
                        policy.stall_budget.as_millis()
                    ),
                    "look at the slowest step under `last_switchover` in the status, then try again or raise cutover.stall_budget",
                )
            })
        }
        None => (milliseconds(switchover.started_at, world.now)
            > MAX_BEFORE_FENCE.as_secs_f64() * 1000.0)
            .then(|| {
                Blocker::new(
                    "not_fenced_in_time",
                    format!(
                        "the switchover did not reach its fence within {} seconds",
                        MAX_BEFORE_FENCE.as_secs()
                    ),
                    "look at the condition in the status, then try again",
                )
            }),
    }
}

/// Looks at the background job first: a step that works through one waits while it runs.
fn unless_job(world: &World, otherwise: impl FnOnce() -> Decision) -> Decision {
    match &world.job {
        Seen::Unknown(reason) => {
            Decision::Wait(format!("the background job was not seen: {reason}"))
        }
        Seen::Present(JobView::Running(what)) => Decision::Wait(what.clone()),
        Seen::Present(JobView::Failed { blocker, retry_at }) if world.now < *retry_at => {
            Decision::Blocked(vec![blocker.clone()])
        }
        Seen::Absent | Seen::Present(JobView::Done(_) | JobView::Failed { .. }) => otherwise(),
    }
}

/// The job of this step ended well, and a look still finds something missing: doing it again
/// would find the same.
fn was_in_vain(world: &World) -> bool {
    matches!(world.job, Seen::Present(JobView::Done(_)))
}

fn done() -> Decision {
    Decision::Done(Evidence::Nothing)
}

fn blocked(blocker: Blocker) -> Decision {
    Decision::Blocked(vec![blocker])
}

fn not_seen(what: &str, reason: &str) -> Decision {
    Decision::Wait(format!("{what} was not seen: {reason}"))
}

/// Takes what must be there, or returns the decision to wait from the enclosing function.
macro_rules! look {
    ($seen:expr, $what:expr) => {
        match &$seen {
            $crate::seen::Seen::Present(value) => value,
            $crate::seen::Seen::Absent => {
                return $crate::decide::Decision::Wait(format!("{} is not there yet", $what));
            }
            $crate::seen::Seen::Unknown(reason) => {
                return $crate::decide::not_seen($what, reason);
            }
        }
    };
}
pub(crate) use look;

#[cfg(test)]
mod tests;
