use super::*;
use crate::lag::SenderSeen;

const SLOT: &str = "pgl_orders_src_fwd";

#[test]
fn a_stream_that_moves_is_streaming_and_its_lag_is_milliseconds() {
    let mut window = window();
    // One heartbeat under way for 4 ms, then none missing with the newest 20 ms old.
    let report =
        window.observe(&healthy(100).own_beat(11, 1_000).received(10, 900).now(1_004), s(0));
    assert_eq!(report.status, StreamStatus::Streaming);
    assert_lag(&report, 0.004);
    let report =
        window.observe(&healthy(200).own_beat(21, 2_000).received(21, 2_000).now(2_020), s(1));
    assert_eq!(report.status, StreamStatus::Streaming);
    assert_lag(&report, 0.004);
    assert_eq!(report.lag_bytes, Some(0));
    assert_eq!(report.heartbeat_received_at, Some(ms(2_000)));
}

#[test]
fn lag_falls_as_soon_as_the_newest_heartbeat_is_younger_than_it() {
    let mut window = window();
    let behind = healthy(100).own_beat(600, 60_000).received(10, 1_000).now(60_050);
    assert_lag(&window.observe(&behind, s(0)), 58.95);
    let level = healthy(200).own_beat(610, 61_000).received(610, 61_000).now(61_030);
    assert_lag(&window.observe(&level, s(1)), 0.0);
}

#[test]
fn lag_grows_with_the_writers_clock_while_nothing_arrives() {
    let mut window = window();
    for second in 1..20_i64 {
        let now = 1_000 * second;
        let sample = healthy(100).own_beat(10 * second, now).received(0, 0).now(now);
        let report = window.observe(&sample, s(second));
        // The first missing heartbeat was written at 100 ms.
        assert_lag(&report, second as f64 - 0.1);
    }
}

#[test]
fn lag_is_unknown_when_the_writer_is_dead_and_nothing_is_missing() {
    let mut window = window();
    let sample = healthy(100).own_beat(11, 1_000).received(11, 1_000).now(60_000);
    assert_eq!(window.observe(&sample, s(0)).lag_seconds, None);
}

#[test]
fn a_missing_heartbeat_is_known_lag_whoever_stopped_writing() {
    let mut window = window();
    let sample = healthy(100).own_beat(11, 1_000).received(10, 900).now(60_000);
    assert_lag(&window.observe(&sample, s(0)), 59.0);
}

#[test]
fn lag_never_depends_on_the_other_servers_clock() {
    // The subscriber's clock appears nowhere in a sample; a heartbeat that arrived between the two
    // looks, or a writer's clock that was set back, floors at zero.
    let mut window = window();
    let sample = healthy(100).own_beat(11, 5_000).received(12, 5_100).now(4_000);
    assert_lag(&window.observe(&sample, s(0)), 0.0);
}

#[test]
fn lag_is_unknown_before_the_first_heartbeat_arrives() {
    let mut window = window();
    let mut sample = healthy(100).own_beat(11, 1_000).now(1_010);
    sample.change_subscriber(|look| look.received = None);
    let report = window.observe(&sample.done(), s(0));
    assert_eq!(report.lag_seconds, None);
    assert_eq!(report.heartbeat_received_at, None);
}

#[test]
fn a_frozen_position_is_stalled_only_after_its_time_and_only_if_there_is_wal_to_carry() {
    let frozen = |wal: u64| {
        let mut sample = healthy(100).own_beat(11, 1_000).received(10, 900).now(1_000);
        sample.change_provider(|look| look.wal_lsn = Some(Lsn(wal)));
        sample.done()
    };
    let mut busy = window();
    assert_eq!(busy.observe(&frozen(100), s(0)).status, StreamStatus::Streaming);
    assert_eq!(busy.observe(&frozen(200), s(9)).status, StreamStatus::Streaming);
    let report = busy.observe(&frozen(300), s(10));
    assert_eq!(report.status, StreamStatus::Stalled);
    assert_eq!(report.lag_bytes, Some(200));
    assert_eq!(busy.observe(&healthy(400).done(), s(11)).status, StreamStatus::Streaming);

    let mut idle = window();
    assert_eq!(idle.observe(&frozen(100), s(0)).status, StreamStatus::Streaming);
    assert_eq!(idle.observe(&frozen(100), s(60)).status, StreamStatus::Streaming);
}

#[test]
fn a_heartbeat_that_arrives_is_movement_even_if_nothing_is_confirmed() {
    let mut window = window();
    for second in 0..30_i64 {
        let now = 1_000 * second;
        let mut sample = healthy(100).own_beat(second, now).received(second, now).now(now);
        sample.change_provider(|look| look.wal_lsn = Some(Lsn(1_000 + now.unsigned_abs())));
        assert_eq!(window.observe(&sample.done(), s(second)).status, StreamStatus::Streaming);
    }
}

#[test]
fn without_a_subscription_the_stream_is_absent_and_has_no_lag() {
    let mut window = window();
    let mut sample = healthy(100).own_beat(2, 1_000).received(1, 900).now(1_000);
    sample.change_subscriber(|look| look.subscription = Seen::Absent);
    let report = window.observe(&sample.done(), s(0));
    assert_eq!(report.status, StreamStatus::Absent);
    assert_eq!((report.lag_seconds, report.lag_bytes), (None, None));
}

#[test]
fn a_disabled_stream_still_shows_what_it_holds_back() {
    let mut window = window();
    let mut sample = healthy(100).own_beat(20, 2_000).received(10, 1_000).now(2_000);
    sample.change_subscription(|seen| {
        seen.enabled = false;
        seen.worker = Seen::Absent;
    });
    sample.change_provider(|look| look.wal_lsn = Some(Lsn(500)));
    let report = window.observe(&sample.done(), s(0));
    assert_eq!(report.status, StreamStatus::Disabled);
    assert_eq!(report.lag_bytes, Some(400));
    assert_eq!(report.retained_wal_bytes, Some(450));
    assert_lag(&report, 0.9);
}

#[test]
fn enabled_and_ready_without_a_worker_is_down() {
    let mut window = window();
    let mut sample = healthy(100);
    sample.change_subscription(|seen| seen.worker = Seen::Absent);
    assert_eq!(window.observe(&sample.done(), s(0)).status, StreamStatus::Down);
}

#[test]
fn a_new_subscription_is_starting_until_its_time_is_up() {
    let new = |worker: bool| {
        let mut sample = healthy(100);
        sample.change_subscription(|seen| {
            seen.sync_status = Some('i');
            if !worker {
                seen.worker = Seen::Absent;
            }
        });
        sample.change_provider(|look| look.slots.clear());
        sample.done()
    };
    let mut served = window();
    assert_eq!(served.observe(&new(true), s(0)).status, StreamStatus::Starting);
    assert_eq!(served.observe(&new(true), s(29)).status, StreamStatus::Starting);
    assert_eq!(served.observe(&new(true), s(30)).status, StreamStatus::Stalled);
    let mut alone = window();
    assert_eq!(alone.observe(&new(false), s(0)).status, StreamStatus::Starting);
    assert_eq!(alone.observe(&new(false), s(30)).status, StreamStatus::Down);
}

#[test]
fn a_lost_slot_is_down_and_its_retention_unlimited_no_more() {
    let mut window = window();
    let mut sample = healthy(100);
    sample.change_provider(|look| {
        look.slots[0].wal_status = Some("lost".to_owned());
        look.slots[0].restart_lsn = None;
    });
    let report = window.observe(&sample.done(), s(0));
    assert_eq!(report.status, StreamStatus::Down);
    assert_eq!(report.retained_wal_bytes, None);
}

#[test]
fn a_crash_loop_is_counted_and_called_down() {
    let mut window = window();
    for restart in 0..3_i64 {
        let mut sample = healthy(100).worker(restart);
        sample.change_provider(|look| look.slots[0].active = false);
        let report = window.observe(&sample.done(), s(5 * restart));
        let expected = if restart < 2 { StreamStatus::Starting } else { StreamStatus::Down };
        assert_eq!(report.status, expected, "restart {restart}");
    }
    assert_eq!(window.restarts_total(), 2);
}

#[test]
fn a_crash_loop_seen_while_connected_is_not_streaming_for_long() {
    let mut window = window();
    let mut last = StreamStatus::Unknown;
    for restart in 0..4_i64 {
        let mut sample = healthy(100).worker(restart);
        sample.change_provider(|look| {
            look.wal_lsn = Some(Lsn(1_000 + 100 * restart.unsigned_abs()));
        });
        last = window.observe(&sample.done(), s(5 * restart)).status;
    }
    assert_eq!(last, StreamStatus::Stalled);
}

#[test]
fn restarts_leave_the_window_and_stay_in_the_total() {
    let mut window = window();
    window.observe(&healthy(100).worker(1).done(), s(0));
    assert_eq!(window.observe(&healthy(200).worker(2).done(), s(1)).worker_restarts, 1);
    assert_eq!(window.observe(&healthy(300).worker(2).done(), s(61)).worker_restarts, 0);
    assert_eq!(window.restarts_total(), 1);
}

#[test]
fn another_worker_after_disabling_is_no_restart() {
    let mut window = window();
    window.observe(&healthy(100).worker(1).done(), s(0));
    let mut disabled = healthy(100);
    disabled.change_subscription(|seen| seen.enabled = false);
    window.observe(&disabled.done(), s(1));
    let report = window.observe(&healthy(100).worker(2).done(), s(2));
    assert_eq!((report.worker_restarts, window.restarts_total()), (0, 0));
}

#[test]
fn silence_of_either_side_is_never_a_judgement() {
    let mut window = window();
    window.observe(&healthy(100).done(), s(0));

    let mut no_provider = healthy(100).done();
    no_provider.provider = gone();
    let report = window.observe(&no_provider, s(1));
    assert_eq!(report.status, StreamStatus::Unknown);
    assert_eq!((report.lag_seconds, report.lag_bytes), (None, None));

    let mut no_subscriber = healthy(100);
    no_subscriber.change_provider(|look| look.wal_lsn = Some(Lsn(900)));
    let mut no_subscriber = no_subscriber.done();
    no_subscriber.subscriber = gone();
    let report = window.observe(&no_subscriber, s(2));
    assert_eq!(report.status, StreamStatus::Unknown);
    assert_eq!(report.lag_seconds, None);
    assert_eq!(report.retained_wal_bytes, Some(850), "the guard matters most right now");
}

#[test]
fn a_worker_that_may_not_be_seen_is_not_a_missing_worker() {
    let unseen = |active: bool| {
        let mut sample = healthy(100);
        sample.change_subscription(|seen| seen.worker = Seen::Unknown("no pg_monitor".to_owned()));
        sample.change_provider(|look| look.slots[0].active = active);
        sample.done()
    };
    assert_eq!(window().observe(&unseen(true), s(0)).status, StreamStatus::Streaming);
    assert_eq!(window().observe(&unseen(false), s(0)).status, StreamStatus::Unknown);
}

#[test]
fn after_a_restart_of_the_daemon_the_only_slot_is_taken_for_ours_but_not_one_of_two() {
    let mut sample = healthy(100).done();
    sample.subscriber = gone();
    assert_eq!(window().observe(&sample, s(0)).retained_wal_bytes, Some(50));
    if let Seen::Present(look) = &mut sample.provider {
        let second = SlotSeen { name: "pgl_other".to_owned(), ..look.slots[0].clone() };
        look.slots.push(second);
    }
    assert_eq!(window().observe(&sample, s(0)).retained_wal_bytes, None);
}

fn window() -> StreamWindow {
    StreamWindow::new(StreamLimits::for_heartbeat(Duration::from_millis(100)))
}

fn s(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + seconds).unwrap()
}

fn ms(milliseconds: i64) -> Timestamp {
    Timestamp::from_millisecond(milliseconds).unwrap()
}

fn gone<T>() -> Seen<T> {
    Seen::Unknown("connection refused".to_owned())
}

#[track_caller]
fn assert_lag(report: &StreamReport, seconds: f64) {
    let lag = report.lag_seconds.unwrap();
    assert!((lag - seconds).abs() < 1e-9, "lag {lag}, expected {seconds}");
}

/// A sample under construction: streaming, everything up to `lsn` confirmed.
struct Sample(StreamSample);

fn healthy(lsn: u64) -> Sample {
    let slot = SlotSeen {
        name: SLOT.to_owned(),
        active: true,
        wal_status: Some("reserved".to_owned()),
        restart_lsn: Some(Lsn(lsn - 50)),
        confirmed_flush_lsn: Some(Lsn(lsn)),
        safe_wal_bytes: None,
    };
    let provider = ProviderLook {
        now: ms(10),
        wal_lsn: Some(Lsn(lsn)),
        slots: vec![slot],
        sender: Some(SenderSeen { pid: 7, state: Some("streaming".to_owned()) }),
        heartbeat: Some(Beat { beat: 1, at: ms(0) }),
    };
    let subscription = SubscriptionSeen {
        enabled: true,
        slot_name: SLOT.to_owned(),
        sets: vec!["orders".to_owned()],
        forward_origins: vec![],
        sync_status: Some('r'),
        worker: Seen::Present(WorkerSeen { pid: 8, started_at: ms(0) }),
    };
    let subscriber = SubscriberLook {
        subscription: Seen::Present(subscription),
        received: Some(Beat { beat: 1, at: ms(0) }),
    };
    Sample(StreamSample {
        provider: Seen::Present(provider),
        subscriber: Seen::Present(subscriber),
    })
}

impl std::ops::Deref for Sample {
    type Target = StreamSample;

    fn deref(&self) -> &StreamSample {
        &self.0
    }
}

impl Sample {
    fn done(self) -> StreamSample {
        self.0
    }

    fn change_provider(&mut self, change: impl FnOnce(&mut ProviderLook)) {
        if let Seen::Present(look) = &mut self.0.provider {
            change(look);
        }
    }

    fn change_subscriber(&mut self, change: impl FnOnce(&mut SubscriberLook)) {
        if let Seen::Present(look) = &mut self.0.subscriber {
            change(look);
        }
    }

    fn change_subscription(&mut self, change: impl FnOnce(&mut SubscriptionSeen)) {
        self.change_subscriber(|look| {
            if let Seen::Present(seen) = &mut look.subscription {
                change(seen);
            }
        });
    }

    fn own_beat(mut self, beat: i64, at: i64) -> Self {
        self.change_provider(|look| look.heartbeat = Some(Beat { beat, at: ms(at) }));
        self
    }

    fn received(mut self, beat: i64, at: i64) -> Self {
        self.change_subscriber(|look| look.received = Some(Beat { beat, at: ms(at) }));
        self
    }

    fn now(mut self, at: i64) -> Self {
        self.change_provider(|look| look.now = ms(at));
        self
    }

    fn worker(mut self, started: i64) -> Self {
        let worker = WorkerSeen { pid: 8, started_at: ms(started) };
        self.change_subscription(|seen| seen.worker = Seen::Present(worker));
        self
    }
}
