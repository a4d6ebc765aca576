//! What may be done when the journal, or one of the two servers, is away in the middle of a
//! switchover: by what is known of this leadership, or by both records alone.
//!
//! Each of these rests on one rule. A side is opened only when it is fenced and has not yielded,
//! or when the other one was seen to have yielded; whether it has is in its record, every change
//! of a record states the revision that it was decided on, and nothing opens a side that has
//! yielded but the switchover back.

use jiff::Timestamp;

use crate::facts::{Facts, TrafficTouched};
use crate::seen::Seen;
use crate::side::Side;
use crate::steps::Step;
use crate::world::{NodeRecord, NodeState};

/// What a leadership leaves behind that lost its journal in the middle of a switchover.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Stranded {
    /// This side is fenced since then, and has not been seen to yield: it is opened again once the
    /// stall budget is used up.
    Fenced {
        /// The side.
        side: Side,
        /// Since when writes are held.
        since: Timestamp,
        /// The marker behind everything that was written there.
        last_marker: Option<u64>,
    },
    /// The other side was seen to have yielded: this one is opened at once.
    BehindLine {
        /// The side.
        side: Side,
        /// The other side's marker that it must have by then.
        last_marker: Option<u64>,
    },
}

/// What would be left behind if nobody led from here on.
#[must_use]
pub fn stranded(facts: &Facts) -> Option<Stranded> {
    let switchover = facts.switchover()?;
    let last_marker = switchover.last_marker;
    if switchover.step.before_line() {
        let (side, since) = (switchover.kind.from(), switchover.fenced_at?);
        return Some(Stranded::Fenced { side, since, last_marker });
    }
    // Open already, and its clients held by a pooler: who is stranded then are they.
    let held = switchover.step == Step::ResumeTraffic && switchover.traffic == TrafficTouched::Held;
    (switchover.step == Step::OpenOther || held)
        .then(|| Stranded::BehindLine { side: switchover.kind.to(), last_marker })
}

/// The side on which a new leadership may go on although the other one is away.
///
/// Only right behind the line: the side that has yielded is closed whoever comes, because no older
/// leadership opens one that has yielded, and whatever else it had decided there states an older
/// revision. Nothing is done there before its epoch is raised as well.
#[must_use]
pub fn goes_on_with(facts: &Facts) -> Option<Side> {
    let switchover = facts.switchover().filter(|s| s.unwinding.is_none())?;
    matches!(switchover.step, Step::OpenOther | Step::ResumeTraffic).then(|| switchover.kind.to())
}

/// A side that a switchover has left closed, told by both records alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeftFenced {
    /// The side.
    pub side: Side,
    /// Its record's revision.
    pub revision: i64,
    /// The other side has yielded: this one must have its marker.
    pub other_yielded: bool,
}

/// The side that is to be opened when nobody leads. Not to be acted on before it has stayed so for longer
/// than any switchover.
///
/// Both must be seen. With the other one away it may be that a person has forced it open.
#[must_use]
pub fn left_fenced(
    source: &Seen<NodeRecord>,
    destination: &Seen<NodeRecord>,
) -> Option<LeftFenced> {
    let (source, destination) = (source.present()?, destination.present()?);
    let left = |record: &NodeRecord, other_yielded| LeftFenced {
        side: record.side,
        revision: record.revision,
        other_yielded,
    };
    match (source.state, destination.state) {
        // Nothing but a switchover fences the source, and this one is before its line. Whether the
        // destination yielded to it once, or was never open, it has had everything since.
        (NodeState::Fenced, NodeState::Fenced | NodeState::Yielded) => Some(left(source, false)),
        // The destination is fenced from the beginning on. Beside a source that has yielded it was open
        // meanwhile, and a rollback is before its line; or the first cutover is right behind it.
        (NodeState::Yielded, NodeState::Fenced) => Some(left(destination, true)),
        (NodeState::Open, NodeState::Open | NodeState::Fenced | NodeState::Yielded)
        | (NodeState::Fenced | NodeState::Yielded, NodeState::Open)
        | (NodeState::Yielded, NodeState::Yielded) => None,
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::decide::tests::{DRAINED, at};
    use crate::journal::{Entry, Event, Intent};
    use crate::steps::STEPS;

    #[test]
    fn one_side_is_enough_right_behind_the_line_and_nowhere_else() {
        for spec in STEPS {
            let behind = matches!(spec.step, Step::OpenOther | Step::ResumeTraffic);
            let wanted = behind.then_some(Side::Destination);
            assert_eq!(goes_on_with(&at(spec.step)), wanted, "{}", spec.step);
        }
    }

    #[test]
    fn a_fence_is_stranded_up_to_the_line_and_the_other_side_behind_it() {
        let since = Timestamp::UNIX_EPOCH;
        for spec in STEPS {
            let mut facts = at(spec.step);
            let before_fence = stranded(&facts);
            match spec.step {
                Step::FenceActive => {
                    assert_eq!(before_fence, None, "nothing was fenced yet");
                    let event = Event::Intended {
                        step: spec.step,
                        intent: Intent::Fence { side: Side::Source },
                    };
                    let entry = Entry { seq: facts.next_seq, at: since, epoch: 1, event };
                    facts.fold(&entry).unwrap();
                    let fenced = Stranded::Fenced { side: Side::Source, since, last_marker: None };
                    assert_eq!(stranded(&facts), Some(fenced));
                }
                Step::OpenOther => {
                    let behind = Stranded::BehindLine {
                        side: Side::Destination,
                        last_marker: Some(DRAINED),
                    };
                    assert_eq!(before_fence, Some(behind));
                }
                _ => assert_eq!(before_fence, None, "{}", spec.step),
            }
        }
    }

    #[test]
    fn only_a_side_that_has_not_yielded_beside_one_that_is_closed_was_left_fenced() {
        use NodeState::{Fenced, Open, Yielded};
        let wanted = |source, destination| match (source, destination) {
            (Fenced, Fenced | Yielded) => Some((Side::Source, false)),
            (Yielded, Fenced) => Some((Side::Destination, true)),
            _ => None,
        };
        for source in [Open, Fenced, Yielded] {
            for destination in [Open, Fenced, Yielded] {
                let found = left_fenced(
                    &Seen::Present(record(Side::Source, source)),
                    &Seen::Present(record(Side::Destination, destination)),
                );
                let wanted = wanted(source, destination).map(|(side, other_yielded)| LeftFenced {
                    side,
                    revision: 7,
                    other_yielded,
                });
                assert_eq!(found, wanted, "{source:?} {destination:?}");
            }
        }
    }

    #[test]
    fn a_side_that_was_not_seen_leads_to_nothing() {
        for state in [NodeState::Open, NodeState::Fenced, NodeState::Yielded] {
            for unseen in [Seen::Absent, Seen::Unknown("away".to_owned())] {
                let seen = Seen::Present(record(Side::Source, state));
                assert_eq!(left_fenced(&seen, &unseen), None);
                assert_eq!(left_fenced(&unseen, &seen), None);
            }
        }
    }

    fn record(side: Side, state: NodeState) -> NodeRecord {
        NodeRecord { side, id: Uuid::nil(), epoch: 3, state, revision: 7 }
    }
}
