//! A switchover away from a side that is lost for good: nothing to drain, nobody to fence, no way back.
//!
//! Never looks at the lost side, and never goes by itself: a person has forced it. Its stream is cut
//! before the surviving side is opened, so that a backlog that comes back with it overwrites nothing.

use super::{Decision, Policy, done, fence, look, not_seen};
use crate::action::Action;
use crate::facts::Facts;
use crate::journal::Intent;
use crate::seen::Seen;
use crate::sequences;
use crate::side::Direction;
use crate::world::World;

/// Disabled, and its worker seen gone: what it had received and not applied yet is applied or not,
/// but nothing follows.
pub(super) fn cut_stream(facts: &Facts, world: &World) -> Decision {
    let direction = Direction::leaving(facts.kind().from());
    match &world.stream(direction).subscription {
        Seen::Unknown(reason) => not_seen("a subscription", reason),
        Seen::Absent => done(),
        Seen::Present(subscription) if subscription.enabled => {
            Decision::Act(Action::DisableSubscription { direction })
        }
        Seen::Present(subscription) if subscription.worker => {
            Decision::Wait(format!("the {direction} stream comes to rest"))
        }
        Seen::Present(_) => done(),
    }
}

/// What the lost side handed out last is not known. Its rows that arrived tell a part of it, upkeep has
/// told another, and the headroom stands for the rest.
pub(super) fn raise_sequences(facts: &Facts, world: &World, policy: &Policy) -> Decision {
    let side = facts.kind().to();
    let record = look!(world.node(side).record, "the node's record");
    let intended = facts.intents.iter().filter_map(|intent| {
        let Intent::RaiseSequences { side: of, revision } = intent else { return None };
        (*of == side).then_some(*revision)
    });
    // Values are seen before their commit, or without it; the revision raised with them is not.
    let raised = intended.max().map(|revision| revision < record.revision);
    if raised == Some(true) {
        return done();
    }
    let here = look!(world.node(side).sequences, "the sequences");
    let columns = look!(world.node(side).column_values, "the values in the tables");
    let values = sequences::past_columns(here, columns, policy.headroom);
    if values.is_empty() && raised.is_none() {
        return done();
    }
    Decision::Act(Action::RaiseSequences { side, revision: record.revision, values })
}

/// Opened whatever its record says: the person has taken the place of the other side's word.
pub(super) fn open_survivor(facts: &Facts, world: &World) -> Decision {
    let side = facts.kind().to();
    fence::open(side, world.node(side))
}

/// Behind the opening, because dropping a subscription asks its provider first, for as long as a
/// connection to a dead host takes. A slot that nobody reads would keep WAL until the disk is full.
pub(super) fn drop_streams(facts: &Facts, world: &World) -> Decision {
    let side = facts.kind().to();
    let arriving = Direction::leaving(side.other());
    match &world.stream(arriving).subscription {
        Seen::Unknown(reason) => return not_seen("a subscription", reason),
        Seen::Absent => {}
        Seen::Present(_) => return Decision::Act(Action::DropSubscription { direction: arriving }),
    }
    let orphans = match &world.node(side).orphans {
        Seen::Unknown(reason) => return not_seen("slots and origins", reason),
        Seen::Absent => return done(),
        Seen::Present(orphans) => orphans,
    };
    match orphans.slots.first_key_value() {
        // The lost side may be cut off from us alone, or its connection not be known to be dead yet.
        Some((slot, true)) => Decision::Act(Action::EndReader { side, slot: slot.clone() }),
        Some((slot, false)) => Decision::Act(Action::DropSlot { side, slot: slot.clone() }),
        None => done(),
    }
}
