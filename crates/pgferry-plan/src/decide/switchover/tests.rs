//! What the other side has counts once a crash of that server cannot take it back.

use jiff::Timestamp;

use crate::action::Action;
use crate::decide::tests::{DRAINED, arrived, at, fenced_world, policy, record, without_worker};
use crate::decide::{Decision, decide, done};
use crate::facts::Facts;
use crate::journal::{Entry, Event};
use crate::lsn::Lsn;
use crate::name::SequenceName;
use crate::seen::Seen;
use crate::side::{Direction, Side};
use crate::steps::Step;
use crate::world::{NodeState, SequenceView, SlotView, SubscriptionView, World};

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

/// The destination was restarted when the drain was done: what had arrived last is not there any more.
#[test]
fn a_drain_that_a_crash_has_undone_is_taken_back_before_the_line() {
    for step in [Step::SetSequences, Step::Yield] {
        let mut world = seeing(10, 3);
        assert!(matches!(decide(&at(step), &world, &policy()), Decision::Act(_)), "{step}");
        world.destination.marker = arrived(DRAINED - 1);
        let decision = decide(&at(step), &world, &policy());
        assert!(
            matches!(&decision, Decision::Blocked(why) if why[0].code == "drain_undone"),
            "{step}: {decision:?}"
        );
        world.destination.marker = Seen::Unknown("it restarts".to_owned());
        let decision = decide(&at(step), &world, &policy());
        assert!(matches!(decision, Decision::Wait(_)), "{step}: {decision:?}");
    }
}

#[test]
fn a_drain_that_a_crash_has_undone_behind_the_line_is_waited_for_again() {
    let facts = at(Step::OpenOther);
    let mut world = fenced_world();
    for source in [record(Side::Source, NodeState::Yielded), Seen::Unknown("away".to_owned())] {
        world.source.record = source;
        for lost in [arrived(DRAINED - 1), Seen::Absent, Seen::Unknown("it restarts".to_owned())] {
            world.destination.marker = lost;
            assert!(matches!(decide(&facts, &world, &policy()), Decision::Wait(_)));
        }
        // A stream that cannot bring them is told, and not waited for.
        world.destination.marker = arrived(DRAINED - 1);
        let slot = SlotView { active_pid: None, confirmed_flush: Lsn(8), lost: false };
        for (enabled, lost) in [(true, false), (false, false), (true, true)] {
            let mut world = world.clone();
            let stream = world.stream_mut(Direction::Forward);
            let subscription = SubscriptionView { enabled, ..without_worker() };
            stream.subscription = Seen::Present(subscription);
            stream.slot = Seen::Present(SlotView { lost, ..slot.clone() });
            let told = matches!(
                decide(&facts, &world, &policy()),
                Decision::Blocked(why) if why[0].code == "last_writes_missing"
            );
            assert_eq!(told, !enabled || lost);
        }
        world.destination.marker = arrived(DRAINED);
        // Looked for once more where it is opened: it may be gone since this look.
        assert!(matches!(
            decide(&facts, &world, &policy()),
            Decision::Act(Action::Open { after_marker: Some(DRAINED), .. })
        ));
    }
    // Opened, it had everything: a restart later on is none of this step's.
    world.destination.record = record(Side::Destination, NodeState::Open);
    world.destination.marker = arrived(0);
    assert_eq!(decide(&facts, &world, &policy()), done());
}
