//! kill -9 between a journal write and its effect, on real servers, under clients that remember.
//!
//! Each time the daemon is started again, it arrives by itself: no promise is broken, and one side
//! is open.

use pgferry_plan::{Kind, Side};
use pgferry_tests::config::migration;
use pgferry_tests::{ConfigFile, Daemon, Ledger, Pair, leftovers};

use crate::settled::{SOON, assert_whole, order_and_die, rest, wait_for_go};

#[test]
fn killed_at_the_hand_over_of_the_copy() {
    for place in ["before_effect", "after_effect"] {
        killed_on_the_way_to_ready(&[&format!("{place}:start_forward_stream")]);
    }
}

#[test]
fn killed_all_along_the_way_to_ready() {
    let steps = [
        "install_pglogical",
        "fence_destination",
        "create_nodes",
        "copy_schema",
        "create_source_sets",
        "create_forward_subscription",
        "copy_rows",
        "build_indexes",
        "create_destination_sets",
        "create_reverse_subscription",
    ];
    let points: Vec<String> = steps
        .iter()
        .flat_map(|step| [format!("before_effect:{step}"), format!("after_effect:{step}")])
        .collect();
    killed_on_the_way_to_ready(&points.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn killed_at_the_fence() {
    killed_in_both_kinds("fence_active");
}

#[test]
fn killed_at_the_sequences() {
    killed_in_both_kinds("set_sequences");
}

#[test]
fn killed_at_the_line() {
    killed_in_both_kinds("yield");
}

#[test]
fn killed_at_the_opening() {
    killed_in_both_kinds("open_other");
}

#[test]
fn killed_all_along_finish() {
    let pair = Pair::with_bank();
    let before = Side::BOTH.map(|side| leftovers::inventory(pair.cluster(side)));
    let mut daemon = Daemon::for_bank(&pair);
    let mut ledger = Ledger::over(&pair);
    daemon.bring_to_ready();
    daemon.succeed("cutover");
    assert_whole(&pair, &ledger, Side::Destination);

    let steps = [
        "disable_subscriptions",
        "drop_subscriptions",
        "drop_nodes",
        "remove_pglogical",
        "archive_journal",
    ];
    let points: Vec<String> = steps
        .iter()
        .flat_map(|step| [format!("before_effect:{step}"), format!("after_effect:{step}")])
        .chain(["before_effect:drop_journal".to_owned()])
        .collect();
    restart_at(&mut daemon, &points[0]);
    rest(&daemon);
    order_and_die(&daemon, "finish");
    for next in &points[1..] {
        daemon.wait_for_end(SOON);
        daemon.serve_until(next);
    }
    daemon.wait_for_end(SOON);
    daemon.serve();
    daemon.wait_for_phase("finished");

    ledger.wait_for_writes(10, SOON);
    ledger.stop();
    ledger.check(&pair.destination).assert_clean();
    for (side, before) in Side::BOTH.into_iter().zip(&before) {
        assert_eq!(leftovers::since(before, pair.cluster(side)), Vec::<String>::new(), "{side}");
    }
    assert!(pair.is_open(Side::Destination) && !pair.is_open(Side::Source));
}

/// Kills the daemon at each point in turn while it brings the migration to ready.
fn killed_on_the_way_to_ready(points: &[&str]) {
    let pair = Pair::with_bank();
    let mut daemon = Daemon::for_bank(&pair);
    let ledger = Ledger::over(&pair);
    restart_at(&mut daemon, points[0]);
    order_and_die(&daemon, "start");
    for next in &points[1..] {
        daemon.wait_for_end(SOON);
        daemon.serve_until(next);
    }
    daemon.wait_for_end(SOON);
    daemon.serve();
    daemon.wait_for_phase("ready");
    assert_whole(&pair, &ledger, Side::Source);
    // What the crashes left must not show later either.
    daemon.succeed("cutover");
    assert_whole(&pair, &ledger, Side::Destination);
}

fn killed_in_both_kinds(step: &str) {
    let pair = Pair::with_bank();
    // With so little headroom the writers use up what is warmed ahead of the stall, and there is
    // something left to set within it.
    let config = ConfigFile::for_pair(&pair)
        .insert_only(&["bank.ledger_keyless"])
        .with(&migration("sequences.headroom"), 1);
    let mut daemon = Daemon::start(&config);
    let ledger = Ledger::over(&pair);
    daemon.bring_to_ready();
    killed_at_in_both_kinds(&pair, &mut daemon, &ledger, step);
}

/// Kills the daemon before and after the effect of a step, in a cutover and in a rollback.
pub(crate) fn killed_at_in_both_kinds(
    pair: &Pair,
    daemon: &mut Daemon,
    ledger: &Ledger,
    step: &str,
) {
    for place in ["before_effect", "after_effect"] {
        for kind in Kind::BOTH {
            restart_at(daemon, &format!("{place}:{step}"));
            assert_eq!(rest(daemon), kind.from());
            wait_for_go(daemon);
            order_and_die(daemon, kind.as_str());
            daemon.wait_for_end(SOON);

            daemon.serve();
            let active = rest(daemon);
            assert_whole(pair, ledger, active);
            if active == kind.from() {
                // It was undone, which is as good; the same order then goes through.
                wait_for_go(daemon);
                daemon.succeed(kind.as_str());
                assert_whole(pair, ledger, kind.to());
            }
        }
    }
}

fn restart_at(daemon: &mut Daemon, failpoint: &str) {
    daemon.kill();
    daemon.serve_until(failpoint);
}
