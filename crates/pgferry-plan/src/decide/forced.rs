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
use crate::world::{NodeState, World};

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
///
/// The revision is raised twice, at first alone. Whatever was decided before this step, as upkeep's
/// setting that still hangs, states a revision of before: it is refused from then on, and that the
/// revision was raised again says that these values were set, and no others.
pub(super) fn raise_sequences(facts: &Facts, world: &World, policy: &Policy) -> Decision {
    let side = facts.kind().to();
    let record = look!(world.node(side).record, "the node's record");
    // Opened after all by the switchover that this one has overtaken, which had set them: what clients have
    // drawn since must not be set back. What lands later finds another revision.
    if record.state == NodeState::Open {
        return done();
    }
    let intended: Vec<i64> = facts
        .intents
        .iter()
        .filter_map(|intent| {
            let Intent::RaiseSequences { side: of, revision } = intent else { return None };
            (*of == side).then_some(*revision)
        })
        .collect();
    let (first, last) = (intended.iter().min(), intended.iter().max());
    let revision = record.revision;
    let alone = first.is_some_and(|first| *first < revision);
    // Values are seen before their commit, or without it; the revision raised with them is not.
    if alone && last > first && last.is_some_and(|last| *last < revision) {
        return done();
    }
    let here = look!(world.node(side).sequences, "the sequences");
    let columns = look!(world.node(side).column_values, "the values in the tables");
    let values = sequences::past_columns(here, columns, policy.headroom);
    if values.is_empty() && intended.is_empty() {
        return done();
    }
    let values = if alone { values } else { Vec::new() };
    Decision::Act(Action::RaiseSequences { side, revision, values })
}

/// Opened whatever its record says: the person has taken the place of the other side's word.
pub(super) fn open_survivor(facts: &Facts, world: &World) -> Decision {
    let side = facts.kind().to();
    fence::open(side, world.node(side), None)
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
        Some((slot, true)) => {
            Decision::Act(Action::EndReader { side, slot: slot.clone(), pid: None })
        }
        Some((slot, false)) => Decision::Act(Action::DropSlot { side, slot: slot.clone() }),
        None => done(),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use uuid::Uuid;

    use super::*;
    use crate::decide::decide;
    use crate::decide::tests::{at, policy};
    use crate::journal::{Entry, Event};
    use crate::name::SequenceName;
    use crate::side::Side;
    use crate::steps::Step;
    use crate::world::{NodeRecord, NodeState, SequenceView};

    /// The surviving destination, whose sequence stands at 10.
    fn seeing(revision: i64) -> World {
        let mut world = World::default();
        let survivor = world.node_mut(Side::Destination);
        survivor.record = Seen::Present(NodeRecord {
            side: Side::Destination,
            id: Uuid::nil(),
            epoch: 1,
            state: NodeState::Fenced,
            revision,
        });
        survivor.column_values = Seen::Present(Vec::new());
        survivor.sequences = Seen::Present(vec![SequenceView {
            name: SequenceName::new("s", "numbers"),
            last: Some(10),
            increment: 1,
            min: 1,
            max: i64::MAX,
            cycle: false,
        }]);
        world
    }

    #[test]
    fn what_was_opened_after_all_is_not_set_back() {
        let mut world = seeing(3);
        let opened = world
            .destination
            .record
            .present()
            .map(|record| NodeRecord { state: NodeState::Open, ..record.clone() });
        world.destination.record = opened.map_or(Seen::Absent, Seen::Present);
        world.destination.column_values =
            Seen::Present(vec![(SequenceName::new("s", "numbers"), 500)]);
        assert_eq!(decide(&at(Step::RaiseSequences), &world, &policy()), done());
    }

    /// What is decided at a revision, and then intended: how many values are to be set.
    fn act(facts: &mut Facts, at_revision: i64) -> usize {
        let decision = decide(facts, &seeing(at_revision), &policy());
        let Decision::Act(action) = &decision else { panic!("{decision:?}") };
        let Action::RaiseSequences { revision, values, .. } = action else { panic!("{action:?}") };
        assert_eq!(*revision, at_revision);
        if let Some(intent) = action.intent().filter(|intent| !facts.intents.contains(intent)) {
            let event = Event::Intended { step: Step::RaiseSequences, intent };
            let seq = facts.next_seq;
            facts.fold(&Entry { seq, at: Timestamp::UNIX_EPOCH, epoch: 1, event }).unwrap();
        }
        values.len()
    }

    #[test]
    fn a_setting_of_before_that_lands_late_does_not_stand_for_the_raise() {
        let mut facts = at(Step::RaiseSequences);
        assert_eq!(act(&mut facts, 3), 0, "the revision is raised alone");
        // That was refused, because upkeep's own landed; or it was not. At 4 nobody else acts.
        assert_eq!(act(&mut facts, 4), 1);
        assert_eq!(act(&mut facts, 4), 1, "the answer was lost");
        assert_eq!(decide(&facts, &seeing(5), &policy()), done());
    }

    #[test]
    fn what_nobody_has_used_is_not_raised() {
        let facts = at(Step::RaiseSequences);
        let mut world = seeing(3);
        world.destination.sequences = Seen::Present(Vec::new());
        assert_eq!(decide(&facts, &world, &policy()), done());
    }
}
