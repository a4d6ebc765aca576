//! What is set on the other side counts once a crash of that server cannot take it back.

use jiff::Timestamp;

use crate::action::Action;
use crate::decide::tests::{at, fenced_world, policy};
use crate::decide::{Decision, decide, done};
use crate::facts::Facts;
use crate::journal::{Entry, Event};
use crate::name::SequenceName;
use crate::seen::Seen;
use crate::side::Side;
use crate::steps::Step;
use crate::world::{SequenceView, World};

fn with_last(last: i64) -> Seen<Vec<SequenceView>> {
    Seen::Present(vec![SequenceView {
        name: SequenceName::new("s", "numbers"),
        last: Some(last),
        increment: 1,
        min: 1,
        max: i64::MAX,
        cycle: false,
    }])
}

/// The source has handed out 10.
fn seeing(on_destination: i64, revision: i64) -> World {
    let mut world = fenced_world();
    world.source.sequences = with_last(10);
    world.destination.sequences = with_last(on_destination);
    if let Seen::Present(record) = &mut world.destination.record {
        record.revision = revision;
    }
    world
}

fn intend(facts: &mut Facts, step: Step, decision: &Decision) {
    let Decision::Act(action) = decision else { panic!("nothing is intended by {decision:?}") };
    let event = Event::Intended { step, intent: action.intent().unwrap() };
    let entry = Entry { seq: facts.next_seq, at: Timestamp::UNIX_EPOCH, epoch: 1, event };
    facts.fold(&entry).unwrap();
}

#[test]
fn values_that_are_seen_before_their_commit_are_not_believed() {
    for step in [Step::WarmSequences, Step::SetSequences] {
        let mut facts = at(step);
        let setting = decide(&facts, &seeing(10, 3), &policy());
        assert!(
            matches!(&setting, Decision::Act(Action::SetSequences { revision: 3, values, .. }) if !values.is_empty()),
            "{step}: {setting:?}"
        );
        intend(&mut facts, step, &setting);
        // The answer was lost. The values are there; that their commit is on disk nobody has seen.
        let again =
            Action::SetSequences { side: Side::Destination, revision: 3, values: Vec::new() };
        let far_ahead = i64::MAX / 2;
        assert_eq!(
            decide(&facts, &seeing(far_ahead, 3), &policy()),
            Decision::Act(again),
            "{step}"
        );
        assert_eq!(decide(&facts, &seeing(far_ahead, 4), &policy()), done(), "{step}");
    }
}

#[test]
fn what_is_ahead_already_is_not_set() {
    for step in [Step::WarmSequences, Step::SetSequences] {
        assert_eq!(decide(&at(step), &seeing(5000, 3), &policy()), done(), "{step}");
    }
}
