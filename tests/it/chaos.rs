//! A spread of the fault matrix: what is most likely to break, on real servers, under clients that
//! remember. `make chaos` tries all of it.
#![expect(clippy::print_stdout, reason = "how a case ended is told where the test fails")]

use std::time::{Duration, Instant};

use pgferry_plan::{Kind, Side};
use pgferry_tests::chaos::{Case, JournalIn, Outcome, Reach, World, WorldOptions};
use pgferry_tests::{Shutdown, Wire, eventually};

use crate::settled::SOON;

/// Longer than the stall budget of these worlds and than the lease.
const A_WHILE: Duration = Duration::from_millis(4_500);

#[test]
fn a_daemon_frozen_through_a_take_over_cannot_fence_set_sequences_yield_open_or_append() {
    let mut world = World::new(WorldOptions::default());
    for point in [
        "cutover:fence_active:before",
        "rollback:set_sequences:before",
        "cutover:yield:before",
        "rollback:open_other:before",
        "cutover:drain:append",
        "rollback:open_other:append",
    ] {
        let told = world.first.log().matches("not leading any more").count();
        try_whole(&mut world, &[&format!("{point}:freeze-taken-over")], Duration::ZERO);
        // Its late statement was refused, or its session was gone; either way it has heard.
        eventually("the thawed daemon to hear that it leads no more", SOON, || {
            let now = world.first.log().matches("not leading any more").count();
            if now > told { Ok(()) } else { Err(world.first.migration().to_string()) }
        });
    }
}

#[test]
fn another_daemon_takes_over_from_one_that_is_killed() {
    let cases = ["cutover:yield:before:kill-taken-over", "rollback:drain:after:kill-taken-over"];
    tried(WorldOptions::default(), &cases, Duration::ZERO);
}

#[test]
fn a_server_that_crashes_in_the_middle_holds_nothing_up_for_good() {
    let cases = [
        "cutover:drain:before:restart-source",
        "cutover:yield:before:restart-destination",
        "rollback:set_sequences:before:restart-source",
        // What was set there must not be forgotten before it is opened; no journal flushes its log.
        "rollback:yield:before:restart-source",
        "rollback:open_other:before:restart-destination",
    ];
    tried(WorldOptions::default(), &cases, Duration::ZERO);
}

/// Nothing is left to be set within the stall, so no commit there makes what was drained outlast the
/// crash.
fn ready_to_forget() -> WorldOptions {
    WorldOptions { headroom: 10_000, ..budget_of_two_seconds() }
}

/// Holds a switchover at a point behind its drain, and takes back what has arrived last on the side that
/// writes move to. Tried again where something had flushed it: a WAL writer does now and then.
fn drained_and_taken_back(
    world: &mut World,
    kind: Kind,
    point: &str,
    cut: impl Fn(&World),
) -> pgferry_tests::chaos::Ordered {
    const TRIES: usize = 5;
    let to = kind.to();
    for _ in 0..TRIES {
        let held = world.hold_without_beats(kind, point);
        let (order, no_beats) = held.unwrap_or_else(|| panic!("never came to {point}"));
        let drained = arrived_on(world, to);
        cut(world);
        world.pair.cluster_mut(to).stop(Shutdown::Immediate);
        drop(no_beats);
        world.pair.cluster_mut(to).start_again();
        if arrived_on(world, to) < drained {
            return order;
        }
        for reach in [Reach::Servers, Reach::Journal] {
            world.set_wires(reach, Wire::Whole);
        }
        world.let_go();
        world.wait_for_end(&order);
    }
    panic!("{TRIES} crashes took nothing back");
}

#[test]
fn a_side_that_a_crash_takes_the_last_writes_from_is_opened_only_once_they_are_back() {
    let mut world = World::new(ready_to_forget());
    for point in ["seen_done:drain", "before_effect:yield", "before_effect:open_other"] {
        let order = drained_and_taken_back(&mut world, Kind::Rollback, point, |world| {
            world.set_wires(Reach::Servers, Wire::Reset);
        });
        world.let_go();
        let told = "the last writes of the destination are on their way to the source again";
        world.first.wait_until("the daemon to say what it waits for", |m| {
            m["condition"]["message"].as_str().is_some_and(|message| message.contains(told))
        });
        assert!(!world.pair.is_open(Side::Source), "{point}: opened without its last writes");
        world.set_wires(Reach::Servers, Wire::Whole);
        // pglogical's manager may sleep, and is woken.
        world.wait_for_end(&order);
        let outcome = whole(world.outcome(&order, Instant::now(), None));
        println!("{point}: {outcome}");
        assert!(outcome.finished, "{point}: the line was crossed with a look of before the crash");
    }
}

/// The destination is not told that the source's host died, and would keep its walsender for minutes.
#[test]
fn a_stream_that_a_dead_host_has_forsaken_brings_the_last_writes_again_at_once() {
    let mut world = World::new(ready_to_forget());
    let point = "before_effect:open_other";
    let order = drained_and_taken_back(&mut world, Kind::Rollback, point, World::forsake_streams);
    world.let_go();
    eventually("the source to be opened", SOON, || {
        if world.pair.is_open(Side::Source) { Ok(()) } else { Err("closed".to_owned()) }
    });
    world.ledger.wait_for_writes(5, SOON);
    // The destination's own worker has not been told either: it counts as stalled after 30 s.
    world.first.wait_until("the stream back to carry again", |m| m["step"].is_null());
    let outcome = whole(world.outcome(&order, Instant::now(), None));
    println!("{outcome}");
    assert!(outcome.finished);
}

/// Neither the daemon that led nor one that goes by both records alone: right behind the line of the first
/// cutover the destination is closed as it was before.
#[test]
fn nor_is_it_opened_without_the_journal() {
    let mut world =
        World::new(WorldOptions { journal: JournalIn::ThirdPlace, ..ready_to_forget() });
    let point = "before_effect:open_other";
    let order = drained_and_taken_back(&mut world, Kind::Cutover, point, |world| {
        world.set_wires(Reach::Servers, Wire::Reset);
        world.set_wires(Reach::Journal, Wire::Reset);
    });
    world.let_go();
    for refused in [
        "the destination: the last writes of the source are not here",
        "what a switchover had left fenced could not be opened yet",
    ] {
        eventually("both ways of opening it to be refused", SOON, || {
            assert!(!world.pair.is_open(Side::Destination), "opened without the last writes");
            if world.first.log().contains(refused) { Ok(()) } else { Err(refused.to_owned()) }
        });
    }
    world.set_wires(Reach::Servers, Wire::Whole);
    eventually("the destination to be opened", SOON, || {
        if world.pair.is_open(Side::Destination) { Ok(()) } else { Err("closed".to_owned()) }
    });
    world.ledger.wait_for_writes(5, SOON);
    world.set_wires(Reach::Journal, Wire::Whole);
    world.wait_for_end(&order);
    assert!(whole(world.outcome(&order, Instant::now(), None)).finished);
}

/// The token of the other side's marker that a side has.
fn arrived_on(world: &World, side: Side) -> i64 {
    let of = side.other();
    world.pair.admin(side).number(&format!("SELECT token FROM pgferry.marker WHERE side = '{of}'"))
}

#[test]
fn a_network_that_swallows_everything_ends_in_one_open_side() {
    let cases = [
        "cutover:drain:before:cut-servers",
        "cutover:fence_active:before:cut-both",
        "cutover:yield:before:cut-destination",
        "rollback:yield:before:cut-both",
    ];
    tried(budget_of_two_seconds(), &cases, A_WHILE);
}

#[test]
fn answers_that_are_lost_and_an_abort_at_any_moment_change_nothing_of_it() {
    let cases = [
        "cutover:fence_active:before:answers-lost-source",
        "cutover:yield:before:answers-lost-source",
        "rollback:open_other:before:answers-lost-source",
        "cutover:drain:before:abort",
        "cutover:set_sequences:before:abort",
        "cutover:pause_traffic:done:abort",
        "cutover:yield:before:abort",
    ];
    tried(WorldOptions::default(), &cases, Duration::ZERO);
}

#[test]
fn a_pgbouncer_that_is_killed_on_the_way_takes_nobody_astray() {
    let through_pgbouncer = WorldOptions { pgbouncer: true, ..budget_of_two_seconds() };
    let cases = [
        "cutover:pause_traffic:before:pgbouncer-killed",
        "cutover:pause_traffic:done:pgbouncer-killed",
        "cutover:drain:before:pgbouncer-killed",
        "cutover:open_other:before:pgbouncer-killed",
        "rollback:yield:before:pgbouncer-killed",
        "cutover:resume_traffic:after:pgbouncer-killed",
        "rollback:confirm:before:pgbouncer-killed",
    ];
    tried(through_pgbouncer, &cases, Duration::from_secs(1));
}

#[test]
fn commits_that_are_held_while_the_daemon_dies_lose_nothing() {
    let cases = [
        "cutover:fence_active:before:commits-held-source-kill",
        "cutover:yield:before:commits-held-source-kill",
        "rollback:open_other:before:commits-held-source-kill",
    ];
    tried(WorldOptions::default(), &cases, Duration::from_secs(2));
}

#[test]
fn a_journal_in_a_third_place_that_does_not_answer_holds_no_writes() {
    let mut world =
        World::new(WorldOptions { journal: JournalIn::ThirdPlace, ..budget_of_two_seconds() });
    for point in ["cutover:drain:before", "cutover:yield:before"] {
        let order_lasts = Duration::from_secs(9);
        let outcome = try_one(&mut world, &format!("{point}:cut-journal"), order_lasts);
        // Before the line it is taken back without the journal, behind it it goes on without it.
        assert!(outcome.worst_gap < order_lasts, "{point}: {outcome}");
    }
}

#[test]
fn a_daemon_started_without_the_journal_opens_what_both_records_call_left_fenced() {
    let mut world =
        World::new(WorldOptions { journal: JournalIn::ThirdPlace, ..budget_of_two_seconds() });
    for kind in Kind::BOTH {
        let order = held(&mut world, kind, "before_effect:drain");
        world.set_wires(Reach::Journal, Wire::Reset);
        world.first.kill();
        assert!(!world.pair.is_open(kind.from()), "the fence is not there");
        world.first.serve();
        eventually("the fenced side to be opened", SOON, || {
            if world.pair.is_open(kind.from()) { Ok(()) } else { Err("closed".to_owned()) }
        });
        assert!(!world.pair.is_open(kind.to()));
        world.set_wires(Reach::Journal, Wire::Whole);
        let outcome = whole(world.outcome(&order, Instant::now(), None));
        assert!(!outcome.finished);
        // The other way round is tried from the other side.
        world.bring_to(kind.to());
    }
}

#[test]
fn a_daemon_restarted_behind_the_line_opens_the_other_side_of_one_that_died() {
    let mut world = World::new(WorldOptions::default());
    let order = held(&mut world, Kind::Cutover, "before_effect:open_other");
    world.pair.source.stop(Shutdown::Immediate);
    world.first.kill();
    world.first.serve();
    eventually("the destination to be opened", SOON, || {
        if world.pair.is_open(Side::Destination) { Ok(()) } else { Err("closed".to_owned()) }
    });
    world.ledger.wait_for_writes(5, SOON);
    world.pair.source.start_again();
    let outcome = whole(world.outcome(&order, Instant::now(), None));
    assert!(outcome.finished);
}

#[test]
fn a_destination_that_dies_with_the_journal_right_behind_the_line_of_a_rollback_is_left() {
    let mut world = World::new(WorldOptions::default());
    // The daemon has seen the destination yielded, and has not written that down.
    let order = held(&mut world, Kind::Rollback, "before_append:open_other");
    world.pair.destination.stop(Shutdown::Immediate);
    world.let_go();
    eventually("the source to be opened", SOON, || {
        if world.pair.is_open(Side::Source) { Ok(()) } else { Err("closed".to_owned()) }
    });
    world.ledger.wait_for_writes(5, SOON);
    world.pair.destination.start_again();
    let outcome = whole(world.outcome(&order, Instant::now(), None));
    assert!(outcome.finished);
}

#[test]
fn a_standby_is_not_ready_and_leads_soon_after_the_leader_is_gone() {
    // The lease, and what a busy machine adds; a person is told of five seconds.
    const LEASE_AND_MORE: Duration = Duration::from_secs(12);
    let mut world = World::new(WorldOptions::default());
    for loss in ["kill", "freeze", "cut"] {
        world.bring_to(Side::Source);
        world.stand_by();
        let answer = world.second.get("/readyz");
        assert_eq!(answer.status, 503, "{}", answer.body);
        assert_eq!(world.second.order("cutover").status, 503);
        assert_eq!(world.second.migration()["phase"], "ready", "a standby answers reads");
        let lost = Instant::now();
        match loss {
            "kill" => world.first.kill(),
            "freeze" => world.first.freeze(),
            _ => world.set_wires(Reach::Both, Wire::Silent),
        }
        world.wait_for_lead_of_second();
        let took = lost.elapsed();
        println!("take-over after {loss}: {:.2} s", took.as_secs_f64());
        assert!(took < LEASE_AND_MORE, "{loss}: {took:?}");
        if loss == "freeze" {
            world.first.thaw();
            // Until then it still calls itself the leader, and the next round would believe it.
            world.first.wait_until("the one that was frozen to know", |m| m["leader"] == false);
        }
    }
}

#[test]
fn a_transaction_held_open_uses_up_the_stall_budget_and_writers_go_on() {
    let mut world =
        World::new(WorldOptions { stall_budget: "200ms", grace: "30s", ..WorldOptions::default() });
    world.bring_to(Side::Source);
    let held = world.pair.app_on(Side::Source).unwrap();
    held.run("BEGIN; UPDATE bank.balances SET amount = amount WHERE account = 64");
    let ordered = Instant::now();
    let operation = world.first.carry_out("cutover");
    assert_eq!(operation["state"], "aborted", "{operation}");
    assert_eq!(operation["problem"]["code"], "stall_budget_used_up", "{operation}");
    let stall = world.first.migration()["last_switchover"]["write_stall_ms"].clone();
    println!("the abort's own stall: {stall} ms, of a budget of 200 ms");
    assert!(stall.as_f64().is_some_and(|ms| ms >= 200.0), "{stall}");
    // Nobody but whoever waits for the row it holds is held up by it.
    drop(held);
    world.ledger.wait_for_writes(10, SOON);
    assert!(world.ledger.worst_gap(ordered, Instant::now()) < SOON);
    assert!(world.pair.is_open(Side::Source) && !world.pair.is_open(Side::Destination));
}

fn budget_of_two_seconds() -> WorldOptions {
    WorldOptions { stall_budget: "2s", ..WorldOptions::default() }
}

fn tried(options: WorldOptions, cases: &[&str], lasting: Duration) {
    try_whole(&mut World::new(options), cases, lasting);
}

fn try_whole(world: &mut World, cases: &[&str], lasting: Duration) {
    for case in cases {
        try_one(world, case, lasting);
    }
}

fn try_one(world: &mut World, case: &str, lasting: Duration) -> Outcome {
    let parsed: Case = case.parse().unwrap_or_else(|e| panic!("{e}"));
    let outcome = world
        .try_case(&parsed, lasting)
        .unwrap_or_else(|| panic!("{case}: the point was not reached"));
    println!("{case}: {outcome}");
    assert!(outcome.is_whole(), "{case}: {outcome}");
    outcome
}

fn held(world: &mut World, kind: Kind, point: &str) -> pgferry_tests::chaos::Ordered {
    world.hold_at(kind, point).unwrap_or_else(|| panic!("{} never came to {point}", kind.as_str()))
}

fn whole(outcome: Outcome) -> Outcome {
    assert!(outcome.is_whole(), "{outcome}");
    outcome
}
