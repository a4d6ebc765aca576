//! Figures in, the decision out; what was not seen stops nothing.

use std::collections::BTreeMap;

use super::*;
use crate::decide::{decide, done};
use crate::lag::LagReport;
use crate::lsn::Lsn;
use crate::steps::Step;
use crate::world::CopyView;

const GB: u64 = 1 << 30;

fn policy(max_retained_wal: Option<u64>) -> Policy {
    Policy { max_retained_wal, ..crate::decide::tests::policy() }
}

fn world(retained: Option<u64>, safe: Option<i64>, wal_status: &str) -> World {
    let forward = StreamReport {
        retained_wal_bytes: retained,
        safe_wal_bytes: safe,
        wal_status: Some(wal_status.to_owned()),
        ..StreamReport::default()
    };
    World {
        lag: Seen::Present(LagReport {
            forward,
            observed_at: Some(jiff::Timestamp::UNIX_EPOCH),
            ..LagReport::default()
        }),
        job: Seen::Absent,
        ..World::default()
    }
}

fn code(decision: &Decision) -> &str {
    match decision {
        Decision::Blocked(blockers) => &blockers[0].code,
        other => panic!("not blocked: {other:?}"),
    }
}

fn act() -> Decision {
    Decision::Act(Action::TakeSnapshot)
}

#[test]
fn a_bound_of_the_configuration_stops_the_copy_past_it() {
    let bounded = policy(Some(100 * GB));
    let at_the_bound = world(Some(100 * GB), None, "extended");
    assert_eq!(or_stopped(&at_the_bound, &bounded, act), act());
    let past_it = world(Some(100 * GB + 1), None, "extended");
    assert_eq!(code(&or_stopped(&past_it, &bounded, act)), "wal_retention");
    assert_eq!(or_stopped(&past_it, &policy(None), act), act(), "no bound, no guard");
}

#[test]
fn a_bound_of_the_server_stops_the_copy_before_the_slot_is_lost() {
    let bounded_by = |retained: u64, safe: i64, status: &str| {
        or_stopped(&world(Some(retained), Some(safe), status), &policy(None), act)
    };
    assert_eq!(bounded_by(8 * GB, 2 * GB as i64, "extended"), act(), "a fifth is left");
    assert_eq!(code(&bounded_by(8 * GB, 2 * GB as i64 - 1, "extended")), "wal_retention");
    assert_eq!(code(&bounded_by(11 * GB, -1, "unreserved")), "wal_retention");
    assert_eq!(code(&bounded_by(8 * GB, 4 * GB as i64, "unreserved")), "wal_retention");
    // Right after the start nothing is kept: a small bound is not a reached one.
    assert_eq!(bounded_by(0, 1, "reserved"), act());
}

#[test]
fn a_lost_slot_is_told_at_once() {
    let decision = or_stopped(&world(None, None, "lost"), &policy(None), act);
    assert_eq!(code(&decision), "slot_lost");
}

#[test]
fn what_runs_is_ended_once_and_nothing_begins_again() {
    let bounded = policy(Some(GB));
    let mut world = world(Some(2 * GB), None, "extended");
    let running = || Decision::Wait("copying rows".to_owned());
    world.job = Seen::Present(JobView::Running("copying rows".to_owned()));
    assert_eq!(or_stopped(&world, &bounded, running), Decision::Act(Action::StopJob));
    // A snapshot that no job uses holds back vacuum all the same.
    world.job = Seen::Absent;
    let held = CopyView { held: Some(Lsn(1)), copied: BTreeMap::new(), ..CopyView::default() };
    world.copy = Seen::Present(held);
    assert_eq!(or_stopped(&world, &bounded, act), Decision::Act(Action::StopJob));
    world.copy = Seen::Present(CopyView::default());
    for _ in 0..2 {
        assert_eq!(code(&or_stopped(&world, &bounded, act)), "wal_retention");
    }
}

#[test]
fn a_copy_that_is_complete_goes_on_to_what_lets_go_of_the_wal() {
    let bounded = policy(Some(GB));
    let world = world(Some(2 * GB), None, "extended");
    assert_eq!(or_stopped(&world, &bounded, done), done());
    assert_eq!(or_told(&world, &bounded, done), done());
    assert_eq!(or_told(&world, &bounded, act), act());
    let building = or_told(&world, &bounded, || Decision::Wait("building indexes".to_owned()));
    assert_eq!(code(&building), "wal_retention");
}

#[test]
fn what_was_not_seen_stops_nothing_and_begins_nothing() {
    let mut blind = world(None, None, "reserved");
    let waits = || Decision::Wait("copying rows".to_owned());
    assert_eq!(or_stopped(&blind, &policy(Some(GB)), waits), waits());
    assert!(matches!(or_stopped(&blind, &policy(Some(GB)), act), Decision::Wait(_)));
    assert_eq!(or_stopped(&blind, &policy(None), act), act(), "there is nothing to keep to");
    blind.lag = Seen::Unknown("the monitor is not there yet".to_owned());
    assert!(matches!(or_stopped(&blind, &policy(Some(GB)), act), Decision::Wait(_)));
    blind.lag = Seen::Present(LagReport::default());
    assert!(matches!(or_stopped(&blind, &policy(None), act), Decision::Wait(_)), "a restart");
}

#[test]
fn both_steps_of_the_copy_ask_the_guard_and_later_ones_do_not() {
    let mut world = world(Some(2 * GB), None, "extended");
    world.job = Seen::Present(JobView::Running("a job".to_owned()));
    let decided = |step| decide(&crate::decide::tests::at(step), &world, &policy(Some(GB)));
    assert_eq!(decided(Step::CopyRows), Decision::Act(Action::StopJob));
    assert_eq!(code(&decided(Step::BuildIndexes)), "wal_retention");
    assert!(matches!(decided(Step::AnalyzeDestination), Decision::Wait(_)));
}
