//! What keeps a migration in order beside its steps, and what a person is told where that is not enough.
//!
//! Nothing here is journaled: a later look shows by itself what it did.

use super::{fence, traffic};
use crate::action::Action;
use crate::facts::{Course, Facts};
use crate::finding::Blocker;
use crate::journal::Verb;
use crate::lag::StreamStatus;
use crate::sequences;
use crate::side::{Direction, Side};
use crate::steps::Step;
use crate::strays;
use crate::world::{NodeState, World};

/// What a person should know of while a migration rests: a side that is lost, clients that are held or
/// led astray and cannot be put right, a stream that does not run, writes that stand on the closed side.
#[must_use]
pub fn ailing(facts: &Facts, world: &World) -> Option<Blocker> {
    traffic::ailing(world).or_else(|| left_closed(facts, world)).or_else(|| match facts.lost {
        Some(lost) => Some(crate::verdict::side_lost(facts, lost)),
        None => stream_down(world).or_else(|| strays::ailing(facts, world)),
    })
}

/// Roles that the active side is closed to although it is open.
fn left_closed(facts: &Facts, world: &World) -> Option<Blocker> {
    let node = world.node(facts.active);
    let (record, fence) = (node.record.present()?, node.fence.present()?);
    (record.state == NodeState::Open && !fence.fenced.is_empty())
        .then(|| fence::not_lifted(facts.active, fence))
}

fn stream_down(world: &World) -> Option<Blocker> {
    let lag = world.lag.present()?;
    let direction = Direction::BOTH
        .into_iter()
        .find(|direction| lag.stream(*direction).status == StreamStatus::Down)?;
    Some(Blocker::new(
        "stream_down",
        format!("the {direction} stream is down; it is woken again and again"),
        format!(
            "look into the log of the {} server: a change that cannot be applied there is repeated until it can",
            direction.to()
        ),
    ))
}

/// What keeps a migration in order beside its steps: nothing that a step depends on, and nothing
/// that has to be remembered.
///
/// A subscription without a worker is woken, because pglogical's manager may sleep for minutes after
/// either server was restarted, and what a dead host has left connected is ended. Only where the plan
/// wants that stream to run; the forward one must stay at rest until the rows are copied. A role that may write since the passive side was closed
/// is closed out too, and its sessions are ended. Its sequences follow the active side's, so that
/// nothing is far behind should that one be lost. A pooler that holds its clients, or leads them to
/// the passive side, is put right. A role that an opening could not lift is lifted.
#[must_use]
pub fn upkeep(facts: &Facts, world: &World) -> Vec<Action> {
    let runs = |direction| match (&facts.course, direction) {
        (Course::AtRest, _) => true,
        (Course::SetUp(step), Direction::Forward) => *step > Step::StartForwardStream,
        (Course::SetUp(step), Direction::Reverse) => *step > Step::CreateReverseSubscription,
        (Course::Switchover(switchover), _) => {
            matches!(switchover.step, Step::OpenOther | Step::Confirm)
        }
        (Course::End { step, verb, .. }, _) => *step == Step::DrainBoth && *verb == Verb::Finish,
        (Course::Planned | Course::Ended(_), _) => false,
    };
    if let Some(lost) = facts.lost {
        return returned(facts, world, lost)
            .into_iter()
            .chain(traffic::upkeep(facts, world))
            .chain(lifted_late(facts, world))
            .collect();
    }
    let mut actions: Vec<Action> =
        traffic::upkeep(facts, world).into_iter().chain(lifted_late(facts, world)).collect();
    if let Some(action) = closed_out(facts, world) {
        actions.push(action);
        return actions;
    }
    // Both at once: one that cannot come up must not keep the other asleep.
    let resting = || Direction::BOTH.into_iter().filter(|of| runs(*of) && rests(*of, world));
    actions.extend(resting().filter_map(|direction| end_forsaken_reader(direction, world)));
    actions.extend(resting().filter_map(|direction| wake(direction, world)));
    if actions.is_empty() { followed(facts, world).into_iter().collect() } else { actions }
}

/// Whether a stream carries nothing, and does not begin to by itself.
#[must_use]
pub fn rests(direction: Direction, world: &World) -> bool {
    let report = world.lag.present().map(|lag| lag.stream(direction));
    report.is_some_and(|stream| match stream.status {
        StreamStatus::Down => true,
        // The worker waits at a connection whose other end died without a word.
        StreamStatus::Stalled => stream.slot_active == Some(false),
        StreamStatus::Absent
        | StreamStatus::Starting
        | StreamStatus::Streaming
        | StreamStatus::Disabled
        | StreamStatus::Unknown => false,
    })
}

/// A walsender whose subscriber has no worker any more: the host that it ran on died without a word. Until
/// the provider gives it up, which takes minutes (`wal_sender_timeout`), no other worker gets its slot.
fn end_forsaken_reader(direction: Direction, world: &World) -> Option<Action> {
    let stream = world.stream(direction);
    let (subscription, slot) = (stream.subscription.present()?, stream.slot.present()?);
    let forsaken = subscription.enabled && !subscription.worker;
    Some(Action::EndReader {
        side: direction.from(),
        slot: subscription.slot.clone(),
        pid: Some(slot.active_pid.filter(|_| forsaken)?),
    })
}

/// Waking ends a worker that runs. One that is there now, although the monitor saw none a moment ago, is on
/// its way to its slot.
fn wake(direction: Direction, world: &World) -> Option<Action> {
    let down =
        world.lag.present().is_some_and(|lag| lag.stream(direction).status == StreamStatus::Down);
    let works = world.stream(direction).subscription.present().is_some_and(|seen| seen.worker);
    (!(down && works)).then_some(Action::WakeSubscription { direction })
}

/// A side that is open, and closed to a role that can be altered again; then the sessions that it has
/// from before.
fn lifted_late(facts: &Facts, world: &World) -> Option<Action> {
    let side = match &facts.course {
        Course::AtRest => facts.active,
        Course::Switchover(switchover) if switchover.unwinding.is_some() => switchover.kind.from(),
        Course::Switchover(switchover) if switchover.step == Step::Confirm => switchover.kind.to(),
        Course::Planned
        | Course::SetUp(_)
        | Course::Switchover(_)
        | Course::End { .. }
        | Course::Ended(_) => return None,
    };
    let node = world.node(side);
    fence::lift_late(side, node).or_else(|| fence::end_late_sessions(side, node))
}

/// A lost side that is back, and open: the writes that its clients would find acknowledged there are on
/// no other side.
fn returned(facts: &Facts, world: &World, lost: Side) -> Option<Action> {
    let record = world.node(lost).record.present()?;
    let fence = world.node(lost).fence.present()?;
    (facts.course == Course::AtRest
        && (record.state == NodeState::Open || !fence.unfenced.is_empty()))
    .then(|| Action::fence(lost, record, fence))
}

/// A passive side that a role may write to again.
fn closed_out(facts: &Facts, world: &World) -> Option<Action> {
    let side = facts.active.other();
    (facts.course == Course::AtRest).then(|| fence::close_out(side, world.node(side)))?
}

/// A passive side whose sequences have fallen behind.
fn followed(facts: &Facts, world: &World) -> Option<Action> {
    let side = facts.active.other();
    let record = world.node(side).record.present()?;
    let active = world.node(facts.active).sequences.present()?;
    let passive = world.node(side).sequences.present()?;
    if facts.course != Course::AtRest || record.state == NodeState::Open {
        return None;
    }
    // Without headroom: at rest the passive side follows, and never runs ahead.
    let values = sequences::behind(active, passive, 0);
    let revision = record.revision;
    (!values.is_empty() && sequences::differing(active, passive).is_none())
        .then_some(Action::SetSequences { side, revision, values })
}

#[cfg(test)]
mod tests;
