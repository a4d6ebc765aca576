//! Streams that rest: woken, and what keeps them from it ended.

use crate::action::Action;
use crate::decide::tests::{at, without_worker};
use crate::decide::upkeep;
use crate::facts::{Course, Facts};
use crate::lag::{LagReport, StreamStatus};
use crate::lsn::Lsn;
use crate::seen::Seen;
use crate::side::{Direction, Side};
use crate::steps::Step;
use crate::world::{SlotView, SubscriptionView, World};

#[test]
fn streams_that_rest_are_woken_both_at_once() {
    let mut world = World::default();
    let mut lag = LagReport::default();
    (lag.forward.status, lag.reverse.status) = (StreamStatus::Down, StreamStatus::Down);
    world.lag = Seen::Present(lag);
    let wakes: Vec<Action> = Direction::BOTH
        .into_iter()
        .map(|direction| Action::WakeSubscription { direction })
        .collect();
    assert_eq!(upkeep(&at(Step::Confirm), &world), wakes);
    // A worker that waits for a walsender which is gone is started anew; one that has it is left alone.
    for (slot_active, woken) in [(Some(false), true), (Some(true), false), (None, false)] {
        let mut lag = LagReport::default();
        (lag.forward.status, lag.forward.slot_active) = (StreamStatus::Stalled, slot_active);
        let stalled = World { lag: Seen::Present(lag), ..World::default() };
        assert_eq!(upkeep(&at(Step::Confirm), &stalled).is_empty(), !woken, "{slot_active:?}");
    }
    assert_eq!(upkeep(&at(Step::Drain), &world), Vec::new());
}

#[test]
fn a_walsender_without_its_worker_is_ended_before_the_stream_is_woken() {
    let mut world = World::default();
    let mut lag = LagReport::default();
    lag.reverse.status = StreamStatus::Down;
    world.lag = Seen::Present(lag);
    let end = Action::EndReader { side: Side::Destination, slot: "pgl".to_owned(), pid: Some(9) };
    let wake = Action::WakeSubscription { direction: Direction::Reverse };
    let facts = Facts { course: Course::AtRest, ..at(Step::Confirm) };
    for (enabled, worker, active, ended) in [
        (true, false, true, true),
        (true, true, true, false),
        (true, false, false, false),
        (false, false, true, false),
    ] {
        let stream = world.stream_mut(Direction::Reverse);
        stream.subscription =
            Seen::Present(SubscriptionView { enabled, worker, ..without_worker() });
        stream.slot = Seen::Present(SlotView {
            active_pid: active.then_some(9),
            confirmed_flush: Lsn(8),
            lost: false,
        });
        let mut wanted = if ended { vec![end.clone()] } else { Vec::new() };
        // One that has come since the monitor looked is on its way, and waking would end it.
        wanted.extend((!worker).then(|| wake.clone()));
        assert_eq!(upkeep(&facts, &world), wanted);
    }
}
