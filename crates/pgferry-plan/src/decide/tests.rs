//! Every step against nothing known, and the cases that decide whether a write is lost.

mod copies;
mod lifting;

use jiff::Timestamp;

use super::*;
use crate::SessionId;
use crate::existing::{AsideKind, ExistingView, SetAside};
use crate::finding::Finding;
use crate::journal::{Entry, Event, Intent, Verb};
use crate::lag::{LagReport, StreamStatus};
use crate::lsn::Lsn;
use crate::name::TableName;
use crate::seen::Seen;
use crate::side::{Kind, Side};
use crate::steps::STEPS;
use crate::strays::Writer;
use crate::world::{
    CopyView, FenceView, MarkerView, NativeCopyView, NodeRecord, NodeState, SchemaView,
    SessionView, SlotView, SubscriptionView,
};
use uuid::Uuid;

pub(super) fn policy() -> Policy {
    Policy {
        migration: "orders".parse().unwrap(),
        max_lag: Duration::from_secs(1),
        stall_budget: Duration::from_secs(5),
        grace: Duration::from_millis(200),
        headroom: 1000,
        max_retained_wal: None,
        native_copy: false,
        traffic: TrafficPolicy::default(),
        require_verification: false,
        verification_max_age: Duration::from_secs(86_400),
        background_pause: None,
    }
}

/// Facts with `step` at hand, reached through a legal journal.
pub(super) fn at(step: Step) -> Facts {
    let mut facts = Facts::default();
    let write = |facts: &mut Facts, event| {
        let seq = facts.next_seq;
        let entry = Entry { seq, at: Timestamp::UNIX_EPOCH, epoch: 1, event };
        facts.fold(&entry).unwrap();
    };
    let operation = Uuid::from_u128(7);
    let request = |verb| Event::Requested {
        operation,
        verb,
        open_passive: false,
        force: step.is_forced() && verb == Verb::Cutover,
    };
    write(&mut facts, Event::TookOver);
    write(&mut facts, request(Verb::Start));
    for spec in STEPS {
        if facts.step().is_none() && spec.part == crate::steps::Part::Switchover {
            if step >= Step::DrainBoth {
                write(&mut facts, request(Verb::Abandon));
            } else {
                write(&mut facts, request(Verb::Cutover));
            }
        }
        let Some(at_hand) = facts.step() else { continue };
        if at_hand == step {
            return facts;
        }
        if at_hand == spec.step {
            if at_hand == Step::Drain {
                let intent = Intent::WriteMarker { side: Side::Source, token: DRAINED };
                write(&mut facts, Event::Intended { step: Step::Drain, intent });
            }
            write(&mut facts, Event::Completed { step: spec.step, evidence: Evidence::Nothing });
        }
    }
    facts
}

/// The marker that ended the drain of [`at`].
pub(super) const DRAINED: u64 = 7;

/// What the other side has of a marker.
pub(super) fn arrived(token: u64) -> Seen<MarkerView> {
    Seen::Present(MarkerView { other: token, ..MarkerView::default() })
}

/// A subscription that is enabled, and served by nobody.
pub(super) fn without_worker() -> SubscriptionView {
    SubscriptionView {
        enabled: true,
        initialized: true,
        worker: false,
        real_sets: true,
        forwards_nothing: true,
        slot: "pgl".to_owned(),
    }
}

/// An opening that waits for nothing.
pub(super) fn open(side: Side) -> Action {
    Action::Open { side, revision: 3, after_marker: None }
}

pub(super) fn record(side: Side, state: NodeState) -> Seen<NodeRecord> {
    Seen::Present(NodeRecord { side, id: Uuid::nil(), epoch: 1, state, revision: 3 })
}

/// Both sides as they are in the middle of a cutover, fenced and drained.
pub(super) fn fenced_world() -> World {
    let mut world = World::default();
    world.source.record = record(Side::Source, NodeState::Fenced);
    world.source.fence = Seen::Present(FenceView::default());
    world.destination.record = record(Side::Destination, NodeState::Fenced);
    world.destination.fence = Seen::Present(FenceView::default());
    world.destination.marker = arrived(DRAINED);
    world.drift = Seen::Present(Vec::new());
    world.job = Seen::Absent;
    world.traffic = Seen::Absent;
    world
}

fn session(idle: bool) -> SessionView {
    SessionView { id: SessionId { pid: 42, started_us: 1 }, role: "app".to_owned(), idle }
}

#[test]
fn nothing_follows_from_a_look_that_saw_nothing() {
    for spec in STEPS {
        let facts = at(spec.step);
        assert_eq!(facts.step(), Some(spec.step), "the test reaches every step");
        let policy = Policy { require_verification: true, ..policy() };
        match decide(&facts, &World::default(), &policy) {
            Decision::Wait(_) => {}
            // The verdict lists what it could not see; start_forward_stream misses the journal's
            // position before it looks at anything.
            Decision::Blocked(_)
                if matches!(spec.step, Step::CheckVerdict | Step::StartForwardStream) => {}
            other => panic!("{}: {other:?}", spec.step),
        }
    }
}

#[test]
fn the_fence_ends_idle_sessions_at_once_and_working_ones_after_their_grace() {
    let facts = at(Step::FenceActive);
    let mut world = fenced_world();
    let mut fence = FenceView {
        older_sessions: vec![session(false)],
        since_change_ms: 10,
        ..FenceView::default()
    };
    world.source.fence = Seen::Present(fence.clone());
    assert!(matches!(decide(&facts, &world, &policy()), Decision::Wait(_)));
    fence.since_change_ms = 200;
    world.source.fence = Seen::Present(fence.clone());
    assert!(matches!(decide(&facts, &world, &policy()), Decision::Act(Action::EndSessions { .. })));
    fence.since_change_ms = 0;
    fence.older_sessions = vec![session(true)];
    world.source.fence = Seen::Present(fence);
    assert!(matches!(decide(&facts, &world, &policy()), Decision::Act(Action::EndSessions { .. })));
}

#[test]
fn a_side_is_not_confirmed_while_a_role_may_not_log_in_there() {
    let facts = at(Step::Confirm);
    let mut world = fenced_world();
    world.destination.fence = Seen::Present(FenceView {
        still_locked_out: vec!["app".to_owned()],
        ..FenceView::default()
    });
    let Decision::Blocked(blockers) = decide(&facts, &world, &policy()) else {
        panic!("nobody can use it");
    };
    assert_eq!(blockers[0].code, "opened_without_login");
}

#[test]
fn a_switchover_is_not_confirmed_while_somebody_writes_or_has_prepared_behind_the_line() {
    let mut facts = at(Step::Confirm);
    let mut world = fenced_world();
    world.source.record = record(Side::Source, NodeState::Yielded);
    world.destination.record = record(Side::Destination, NodeState::Open);
    let marker = MarkerView { own: 5, other: 5, own_came_back: false };
    (world.source.marker, world.destination.marker) =
        (Seen::Present(marker.clone()), Seen::Present(marker));
    facts.intents = vec![Intent::WriteMarker { side: Side::Destination, token: 5 }];
    let confirmed = |facts: &Facts, world: &World| match decide(facts, world, &policy()) {
        Decision::Done(_) => true,
        Decision::Wait(_) => false,
        other => panic!("{other:?}"),
    };
    assert!(!confirmed(&facts, &world), "who writes was not seen");
    let writer = Writer {
        side: Side::Source,
        role: "app".to_owned(),
        pid: 42,
        started_us: 1,
        xid: 7,
        tables: Vec::new(),
    };
    world.source.strays = Seen::Present(vec![writer.clone()]);
    assert!(!confirmed(&facts, &world), "somebody writes");
    world.source.strays = Seen::Present(Vec::new());
    assert!(confirmed(&facts, &world));
    let seq = facts.next_seq;
    let event = Event::StrayFound { writer };
    facts.fold(&Entry { seq, at: Timestamp::UNIX_EPOCH, epoch: 1, event }).unwrap();
    assert!(!confirmed(&facts, &world), "how it ended is not known");
    world.source.fence = Seen::Present(FenceView { prepared: 1, ..FenceView::default() });
    let Decision::Blocked(blockers) = decide(&facts, &world, &policy()) else {
        panic!("its COMMIT would write on the closed side");
    };
    assert_eq!(blockers[0].code, "prepared_on_yielded");
}

#[test]
fn who_is_to_be_locked_out_is_what_the_look_says() {
    let mut world = fenced_world();
    world.source.fence = Seen::Present(FenceView {
        unfenced: vec!["app".to_owned(), "shared".to_owned()],
        to_lock_out: vec!["app".to_owned()],
        ..FenceView::default()
    });
    let decision = decide(&at(Step::FenceActive), &world, &policy());
    let Decision::Act(Action::Fence { roles, lock_out, .. }) = decision else {
        panic!("{decision:?}");
    };
    assert_eq!((roles.len(), lock_out), (2, vec!["app".to_owned()]));
}

#[test]
fn nothing_is_fenced_while_a_stream_does_not_run() {
    let facts = at(Step::FenceActive);
    for status in StreamStatus::ALL {
        let mut world = fenced_world();
        world.source.record = record(Side::Source, NodeState::Open);
        let mut lag = LagReport::default();
        (lag.forward.status, lag.reverse.status) = (StreamStatus::Streaming, status);
        world.lag = Seen::Present(lag);
        let decision = decide(&facts, &world, &policy());
        let as_wanted = match status {
            StreamStatus::Streaming => matches!(decision, Decision::Act(Action::Fence { .. })),
            StreamStatus::Unknown | StreamStatus::Starting => matches!(decision, Decision::Wait(_)),
            StreamStatus::Absent
            | StreamStatus::Stalled
            | StreamStatus::Disabled
            | StreamStatus::Down => matches!(decision, Decision::Blocked(_)),
        };
        assert!(as_wanted, "{status}: {decision:?}");
        // Once it is fenced, the drain alone says what has arrived.
        world.source.record = record(Side::Source, NodeState::Fenced);
        assert!(matches!(decide(&facts, &world, &policy()), Decision::Done(_)), "{status}");
    }
}

#[test]
fn the_end_says_how_to_give_up_what_a_stream_does_not_bring() {
    let course = Course::End { verb: Verb::Finish, step: Step::DrainBoth, open_passive: false };
    let mut facts = Facts { course, ..at(Step::DrainBoth) };
    facts.intents = vec![
        Intent::WriteMarker { side: Side::Source, token: 7 },
        Intent::WriteMarker { side: Side::Destination, token: 8 },
    ];
    let mut world = World { job: Seen::Absent, ..World::default() };
    world.source.marker = Seen::Present(MarkerView { own: 7, other: 0, ..MarkerView::default() });
    world.destination.marker =
        Seen::Present(MarkerView { own: 8, other: 7, ..MarkerView::default() });
    let subscription = without_worker();
    for direction in Direction::BOTH {
        let stream = world.stream_mut(direction);
        stream.subscription = Seen::Present(subscription.clone());
        stream.slot =
            Seen::Present(SlotView { active_pid: None, confirmed_flush: Lsn(8), lost: false });
    }
    for status in StreamStatus::ALL {
        let mut lag = LagReport::default();
        (lag.forward.status, lag.reverse.status) = (StreamStatus::Down, status);
        world.lag = Seen::Present(lag);
        match (decide(&facts, &world, &policy()), status) {
            (
                Decision::Blocked(blockers),
                StreamStatus::Stalled | StreamStatus::Disabled | StreamStatus::Down,
            ) => {
                let hint = &blockers[0].hint;
                let drop = "on the source: SELECT pglogical.drop_subscription('pgferry_orders_reverse', true);";
                assert!(hint.ends_with(drop), "{hint}");
            }
            (
                Decision::Wait(_),
                StreamStatus::Absent
                | StreamStatus::Starting
                | StreamStatus::Streaming
                | StreamStatus::Unknown,
            ) => {}
            (other, _) => panic!("{status}: {other:?}"),
        }
    }
    // A server that is away takes its walsender with it, and comes back with everything.
    for side in Side::BOTH {
        let mut away = world.clone();
        let mut lag = LagReport::default();
        lag.reverse.status = StreamStatus::Down;
        away.lag = Seen::Present(lag);
        away.node_mut(side).marker = Seen::Unknown("connection refused".to_owned());
        assert!(matches!(decide(&facts, &away, &policy()), Decision::Wait(_)), "{side}");
    }
    // Which is then seen.
    world.stream_mut(Direction::Reverse).subscription = Seen::Absent;
    assert!(matches!(decide(&facts, &world, &policy()), Decision::Done(_)));
}

#[test]
fn what_is_left_of_the_stall_budget_is_told_between_fence_and_line_only() {
    let budget = Duration::from_secs(5);
    let later = Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_secs(2);
    let mut facts = at(Step::FenceActive);
    assert_eq!(stall_left(&facts, later, budget), None, "nothing is held yet");
    let event =
        Event::Intended { step: Step::FenceActive, intent: Intent::Fence { side: Side::Source } };
    let entry = Entry { seq: facts.next_seq, at: Timestamp::UNIX_EPOCH, epoch: 1, event };
    facts.fold(&entry).unwrap();
    assert_eq!(stall_left(&facts, later, budget), Some(Duration::from_secs(3)));
    let over = later + jiff::SignedDuration::from_secs(9);
    assert_eq!(stall_left(&facts, over, budget), Some(Duration::ZERO));
    assert_eq!(stall_left(&at(Step::OpenOther), later, budget), None);
}

#[test]
fn a_backend_that_is_starting_up_keeps_the_fence_from_counting() {
    let mut world = fenced_world();
    world.source.fence = Seen::Present(FenceView { starting: 1, ..FenceView::default() });
    assert!(matches!(decide(&at(Step::FenceActive), &world, &policy()), Decision::Wait(_)));
}

#[test]
fn a_writer_or_a_prepared_transaction_stops_every_step_up_to_the_line() {
    for step in [Step::FenceActive, Step::Drain, Step::SetSequences, Step::Yield] {
        for fence in [
            FenceView { writers: vec![session(false)], ..FenceView::default() },
            FenceView { prepared: 1, ..FenceView::default() },
        ] {
            let mut world = fenced_world();
            world.source.fence = Seen::Present(fence);
            let decision = decide(&at(step), &world, &policy());
            assert!(matches!(decision, Decision::Blocked(_)), "{step}: {decision:?}");
        }
    }
}

#[test]
fn the_drain_waits_for_the_marker_of_this_very_attempt() {
    let mut facts = at(Step::Drain);
    let mut world = fenced_world();
    world.source.marker = Seen::Present(MarkerView { own: 3, ..MarkerView::default() });
    world.destination.marker = Seen::Present(MarkerView { other: 3, ..MarkerView::default() });
    let Decision::Act(Action::WriteMarker { side: Side::Source, token }) =
        decide(&facts, &world, &policy())
    else {
        panic!("an older marker proves nothing");
    };
    assert!(token > 3);
    // A journal that was taken up after the loss of another counts from the beginning.
    let mut of_another = world.clone();
    let (own, other) = (900, 900);
    of_another.source.marker = Seen::Present(MarkerView { own, ..MarkerView::default() });
    of_another.destination.marker = Seen::Present(MarkerView { other, ..MarkerView::default() });
    assert_eq!(
        decide(&facts, &of_another, &policy()),
        Decision::Act(Action::WriteMarker { side: Side::Source, token: 901 })
    );
    let intended = Event::Intended {
        step: Step::Drain,
        intent: Action::WriteMarker { side: Side::Source, token }.intent().unwrap(),
    };
    let seq = facts.next_seq;
    facts.fold(&Entry { seq, at: Timestamp::UNIX_EPOCH, epoch: 1, event: intended }).unwrap();
    world.source.marker = Seen::Present(MarkerView { own: token, ..MarkerView::default() });
    assert!(matches!(decide(&facts, &world, &policy()), Decision::Wait(_)));
    world.destination.marker = Seen::Present(MarkerView { other: token, ..MarkerView::default() });
    assert_eq!(decide(&facts, &world, &policy()), done());
}

#[test]
fn the_other_side_is_opened_only_behind_the_line() {
    let mut world = fenced_world();
    assert!(matches!(decide(&at(Step::OpenOther), &world, &policy()), Decision::Blocked(_)));
    world.source.record = record(Side::Source, NodeState::Yielded);
    assert!(matches!(
        decide(&at(Step::OpenOther), &world, &policy()),
        Decision::Act(Action::Open { side: Side::Destination, .. })
    ));
    // The journal says that the line was crossed: a fenced side that dies then holds nothing up.
    world.source.record = Seen::Unknown("gone".to_owned());
    assert!(matches!(
        decide(&at(Step::OpenOther), &world, &policy()),
        Decision::Act(Action::Open { side: Side::Destination, .. })
    ));
}

#[test]
fn a_side_that_was_never_seen_fenced_is_opened_all_the_same_when_taken_back() {
    let mut facts = at(Step::FenceActive);
    for event in [
        Event::Intended {
            step: Step::FenceActive,
            intent: crate::Intent::Fence { side: Side::Source },
        },
        Event::Unwinding { blockers: vec![Blocker::new("aborted", "asked for", "")] },
    ] {
        let seq = facts.next_seq;
        facts.fold(&Entry { seq, at: Timestamp::UNIX_EPOCH, epoch: 1, event }).unwrap();
    }
    let mut world = fenced_world();
    world.source.record = record(Side::Source, NodeState::Open);
    let Decision::Act(open) = decide(&facts, &world, &policy()) else {
        panic!("a fence that still hangs in its commit would land later");
    };
    let event = Event::Intended { step: Step::FenceActive, intent: open.intent().unwrap() };
    let seq = facts.next_seq;
    facts.fold(&Entry { seq, at: Timestamp::UNIX_EPOCH, epoch: 1, event }).unwrap();
    assert_eq!(decide(&facts, &world, &policy()), Decision::Act(open), "it has not landed yet");
    let landed = NodeRecord {
        side: Side::Source,
        id: Uuid::nil(),
        epoch: 1,
        state: NodeState::Open,
        revision: 4,
    };
    world.source.record = Seen::Present(landed);
    assert_eq!(decide(&facts, &world, &policy()), done());
}

#[test]
fn taking_back_opens_a_fenced_side_and_goes_on_from_a_yielded_one() {
    let mut facts = at(Step::Drain);
    let seq = facts.next_seq;
    let event = Event::Unwinding { blockers: vec![Blocker::new("aborted", "asked for", "")] };
    facts.fold(&Entry { seq, at: Timestamp::UNIX_EPOCH, epoch: 1, event }).unwrap();
    let mut world = fenced_world();
    assert!(matches!(
        decide(&facts, &world, &policy()),
        Decision::Act(Action::Open { side: Side::Source, .. })
    ));
    world.source.record = record(Side::Source, NodeState::Yielded);
    assert_eq!(decide(&facts, &world, &policy()), Decision::LineCrossed);
    world.source.record = Seen::Unknown("gone".to_owned());
    assert!(matches!(decide(&facts, &world, &policy()), Decision::Wait(_)));
    assert_eq!(facts.kind(), Kind::Cutover);
}
