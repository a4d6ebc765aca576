//! Phase following: caught up, the way back in place, both directions proven.

use super::copying::forwards_something;
use super::preparing::add_to_sets;
use super::{Decision, Policy, blocked, done, look, not_seen, unless_job};
use crate::action::Action;
use crate::facts::Facts;
use crate::finding::Blocker;
use crate::journal::Evidence;
use crate::lag::StreamStatus;
use crate::seen::Seen;
use crate::side::{Direction, Side};
use crate::world::World;

pub(super) fn await_catch_up(world: &World, policy: &Policy) -> Decision {
    behind(Direction::Forward, world, policy).unwrap_or_else(done)
}

/// None when the monitor sees the stream carry changes within `max_lag`.
fn behind(direction: Direction, world: &World, policy: &Policy) -> Option<Decision> {
    let lag = match &world.lag {
        Seen::Present(lag) => lag.stream(direction),
        Seen::Absent => return Some(Decision::Wait("no lag was sampled yet".to_owned())),
        Seen::Unknown(reason) => return Some(not_seen("the lag", reason)),
    };
    match (lag.status, lag.lag_seconds) {
        (StreamStatus::Streaming, Some(seconds)) if seconds <= policy.max_lag.as_secs_f64() => None,
        (StreamStatus::Streaming, Some(seconds)) => {
            Some(Decision::Wait(format!("the {direction} stream is {seconds:.1} s behind")))
        }
        (StreamStatus::Streaming, None) => {
            Some(Decision::Wait(format!("the {direction} stream has brought no heartbeat yet")))
        }
        (status, _) => {
            Some(Decision::Wait(format!("the {direction} stream is {}", status.as_str())))
        }
    }
}

pub(super) fn analyze_destination(world: &World) -> Decision {
    unless_job(world, || match &world.tables_to_analyze {
        Seen::Unknown(reason) => not_seen("the planner statistics", reason),
        Seen::Absent | Seen::Present(0) => done(),
        Seen::Present(_) => Decision::Act(Action::Analyze),
    })
}

pub(super) fn create_destination_sets(world: &World) -> Decision {
    add_to_sets(Side::Destination, world)
}

pub(super) fn create_reverse_subscription(world: &World) -> Decision {
    let direction = Direction::Reverse;
    match &world.reverse.subscription {
        Seen::Unknown(reason) => not_seen("the reverse subscription", reason),
        Seen::Absent => {
            Decision::Act(Action::CreateSubscription { direction, on_empty_set: false })
        }
        Seen::Present(subscription) if !subscription.forwards_nothing => {
            blocked(forwards_something(direction))
        }
        Seen::Present(subscription) if !subscription.enabled => {
            Decision::Act(Action::EnableSubscription { direction })
        }
        Seen::Present(subscription) if subscription.initialized && subscription.worker => {
            Decision::Done(Evidence::Subscription { slot: subscription.slot.clone() })
        }
        Seen::Present(_) => Decision::Wait("the reverse subscription initialises".to_owned()),
    }
}

/// A marker each way; an echo of either would have arrived before the other side's marker did.
/// Ready is said only when a switchover could begin: the monitor too sees both streams carry.
pub(super) fn prove_both_directions(facts: &Facts, world: &World, policy: &Policy) -> Decision {
    for direction in Direction::BOTH {
        let subscription = look!(world.stream(direction).subscription, "a subscription");
        if !subscription.forwards_nothing {
            return blocked(forwards_something(direction));
        }
    }
    for side in Side::BOTH {
        if let Some(decision) = await_marker(facts, world, side) {
            return decision;
        }
    }
    for direction in Direction::BOTH {
        if let Some(decision) = behind(direction, world, policy) {
            return decision;
        }
    }
    for side in Side::BOTH {
        let marker = look!(world.node(side).marker, "the marker");
        if marker.own_came_back {
            return blocked(Blocker::new(
                "echo",
                format!("a change of the {side} came back to it"),
                "abandon the migration: both subscriptions must have been created with forward_origins := '{}'",
            ));
        }
    }
    done()
}

/// None when the marker of `side` that this step intended has arrived on the other side.
///
/// The token is the number of the journal entry that intends it: greater than every token before,
/// so a marker of an earlier attempt that lands late is never taken for this one. Those of a journal that
/// was lost may be greater than this one's numbers: it goes past what is there, too.
pub(super) fn await_marker(facts: &Facts, world: &World, side: Side) -> Option<Decision> {
    let own = match &world.node(side).marker {
        Seen::Present(marker) => marker.own,
        Seen::Absent => return Some(Decision::Wait(format!("the {side} has no marker"))),
        Seen::Unknown(reason) => return Some(not_seen("the marker", reason)),
    };
    let intended = facts.intended_marker(side);
    let token = intended.unwrap_or(facts.next_seq.max(own + 1));
    if intended.is_none() || own < token {
        return Some(Decision::Act(Action::WriteMarker { side, token }));
    }
    match &world.node(side.other()).marker {
        Seen::Present(marker) if marker.other >= token => None,
        Seen::Present(_) | Seen::Absent => {
            Some(Decision::Wait(format!("the {side}'s marker is under way")))
        }
        Seen::Unknown(reason) => Some(not_seen("the other side's marker", reason)),
    }
}
