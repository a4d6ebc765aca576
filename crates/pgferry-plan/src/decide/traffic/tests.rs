//! Poolers and hooks in every state that decides whether a client is held, or led astray.

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::*;
use crate::decide::tests::{at, policy};
use crate::decide::{decide, done, out_of_time};
use crate::facts::Facts;
use crate::journal::{Entry, Event, Evidence};
use crate::steps::Step;
use crate::traffic::{HooksView, TrafficFailure};
use crate::verdict::verdict;
use crate::world::{FenceView, NodeRecord, NodeState};

const FROM: Side = Side::Source;
const TO: Side = Side::Destination;

fn now() -> Timestamp {
    Timestamp::UNIX_EPOCH
}

fn write(facts: &mut Facts, at: Timestamp, event: Event) {
    facts.fold(&Entry { seq: facts.next_seq, at, epoch: 1, event }).unwrap();
}

fn intend(facts: &mut Facts, at: Timestamp, action: &Action) {
    let (step, intent) = (facts.step().unwrap(), action.intent().unwrap());
    write(facts, at, Event::Intended { step, intent });
}

fn complete(facts: &mut Facts, at: Timestamp, evidence: Evidence) {
    let step = facts.step().unwrap();
    write(facts, at, Event::Completed { step, evidence });
}

fn pooler(points_at: Side, paused: bool, connections: u64) -> PoolerView {
    PoolerView {
        name: "one".to_owned(),
        state: Seen::Present(PoolerState {
            points_at: Some(points_at),
            address: "a:1/b".to_owned(),
            paused,
            connections,
            blockers: Vec::new(),
        }),
        working: None,
        failed: None,
    }
}

fn away() -> PoolerView {
    PoolerView { state: Seen::Unknown("refused".to_owned()), ..pooler(FROM, false, 0) }
}

fn failing(view: PoolerView, goal: TrafficGoal, in_ms: i64) -> PoolerView {
    let failed = TrafficFailure {
        goal,
        blocker: Blocker::new("pgbouncer_rewrite_failed", "", ""),
        retry_at: now() + SignedDuration::from_millis(in_ms),
    };
    PoolerView { failed: Some(failed), ..view }
}

fn seeing(poolers: Vec<PoolerView>) -> World {
    let traffic = Seen::Present(TrafficView::Poolers(poolers));
    World { now: now(), traffic, ..World::default() }
}

fn hooks(hooks: HooksView) -> World {
    let traffic = Seen::Present(TrafficView::Hooks(Box::new(hooks)));
    World { now: now(), traffic, ..World::default() }
}

const NO_HOOKS: HooksView = HooksView {
    before_line: HookState::None,
    after_line: HookState::None,
    aborted: HookState::None,
};

fn failed_hook(in_ms: i64) -> HookState {
    HookState::Failed {
        blocker: Blocker::new("hook_failed", "", ""),
        retry_at: now() + SignedDuration::from_millis(in_ms),
    }
}

fn code(decision: &Decision) -> &str {
    match decision {
        Decision::Blocked(blockers) => &blockers[0].code,
        other => panic!("{other:?}"),
    }
}

/// A switchover in which a pooler was told to hold, at the time zero.
fn held(step: Step) -> Facts {
    let mut facts = at(Step::PauseTraffic);
    intend(&mut facts, now(), &Action::PauseTraffic { side: FROM, holds: true });
    while facts.step() != Some(step) {
        complete(&mut facts, now(), Evidence::Nothing);
    }
    facts
}

#[test]
fn poolers_are_held_then_led_over_while_nobody_passes() {
    let facts = at(Step::PauseTraffic);
    let decided = |poolers| decide(&facts, &seeing(poolers), &policy());
    let pause = Decision::Act(Action::PauseTraffic { side: FROM, holds: true });
    let point = Decision::Act(Action::PointTraffic { side: TO });
    assert_eq!(decided(vec![pooler(FROM, true, 0), pooler(FROM, false, 3)]), pause);
    let holding = |view| PoolerView { working: Some(TrafficGoal::HoldFor(TO)), ..view };
    assert!(matches!(decided(vec![holding(pooler(FROM, false, 3))]), Decision::Wait(_)));
    assert!(matches!(decided(vec![pooler(FROM, true, 3)]), Decision::Wait(_)));
    // That it leads over is a part of its holding, as long as somebody is at it.
    assert!(matches!(decided(vec![holding(pooler(FROM, true, 0))]), Decision::Wait(_)));
    assert_eq!(decided(vec![pooler(TO, true, 0), pooler(FROM, true, 0)]), point);
    let pointing = PoolerView { working: Some(TrafficGoal::PointAt(TO)), ..pooler(FROM, true, 0) };
    assert!(matches!(decided(vec![pointing]), Decision::Wait(_)));
    assert_eq!(decided(vec![pooler(TO, true, 0)]), done());
    // One that was restarted has forgotten its PAUSE, and is paused again.
    assert_eq!(decided(vec![pooler(TO, false, 0)]), pause);
}

#[test]
fn a_pooler_that_is_away_or_that_failed_aborts_before_the_line() {
    let facts = at(Step::PauseTraffic);
    let decided = |poolers| decide(&facts, &seeing(poolers), &policy());
    assert_eq!(code(&decided(vec![pooler(FROM, true, 0), away()])), "pgbouncer_unreachable");
    let missing = PoolerView { state: Seen::Absent, ..away() };
    assert_eq!(code(&decided(vec![missing])), "pgbouncer_entry_missing");
    for goal in [TrafficGoal::HoldFor(TO), TrafficGoal::PointAt(TO)] {
        let failed = failing(pooler(FROM, true, 0), goal, 0);
        assert_eq!(code(&decided(vec![failed])), "pgbouncer_rewrite_failed");
    }
    // What failed when it was let go has nothing to say here.
    let other = failing(pooler(TO, true, 0), TrafficGoal::LetGo(FROM), 0);
    assert_eq!(decided(vec![other]), done());
}

#[test]
fn a_transaction_that_outlasts_the_pause_deadline_aborts_or_is_left_to_the_fence() {
    let facts = held(Step::PauseTraffic);
    let mut policy = policy();
    let mut world = seeing(vec![pooler(FROM, true, 1)]);
    world.now = now() + SignedDuration::from_millis(1999);
    assert!(matches!(decide(&facts, &world, &policy), Decision::Wait(_)));
    world.now = now() + SignedDuration::from_millis(2000);
    assert_eq!(code(&decide(&facts, &world, &policy)), "pause_deadline_passed");
    policy.traffic.on_pause_deadline = OnPauseDeadline::Fence;
    let point = Decision::Act(Action::PointTraffic { side: TO });
    assert_eq!(decide(&facts, &world, &policy), point);
    // The PAUSE that still waits for it would not lead it over in time.
    let waiting = PoolerView { working: Some(TrafficGoal::HoldFor(TO)), ..pooler(FROM, true, 1) };
    world.traffic = seeing(vec![waiting]).traffic;
    assert_eq!(decide(&facts, &world, &policy), point);
}

#[test]
fn the_stall_begins_at_the_pause_and_ends_at_the_resume() {
    let later = |ms| now() + SignedDuration::from_millis(ms);
    let mut facts = held(Step::PauseTraffic);
    let mut world = seeing(vec![pooler(FROM, true, 1)]);
    world.now = later(5001);
    let blocker = out_of_time(&facts, &world, &policy()).unwrap();
    assert_eq!(blocker.code, "stall_budget_used_up");

    complete(&mut facts, later(10), Evidence::Held { from: later(3) });
    intend(
        &mut facts,
        later(11),
        &Action::Fence { side: FROM, revision: 1, roles: Vec::new(), lock_out: Vec::new() },
    );
    complete(&mut facts, later(20), Evidence::Held { from: later(12) });
    while facts.step() != Some(Step::ResumeTraffic) {
        complete(&mut facts, later(30), Evidence::Opened { at: later(30) });
    }
    complete(&mut facts, later(50), Evidence::Opened { at: later(43) });
    complete(&mut facts, later(60), Evidence::Nothing);
    assert_eq!(facts.last_switchover.unwrap().write_stall_ms, Some(40.0));
}

#[test]
fn a_hook_holds_nothing_back_that_is_counted() {
    let mut facts = at(Step::PauseTraffic);
    intend(&mut facts, now(), &Action::PauseTraffic { side: FROM, holds: false });
    assert_eq!(facts.switchover().unwrap().fenced_at, None);
    assert_eq!(facts.switchover().unwrap().traffic, TrafficTouched::Told);
}

#[test]
fn behind_the_line_every_pooler_is_let_go_and_one_that_is_away_keeps_nobody_waiting() {
    let facts = at(Step::ResumeTraffic);
    let decided = |poolers| decide(&facts, &seeing(poolers), &policy());
    let resume = Decision::Act(Action::ResumeTraffic { side: TO });
    assert_eq!(decided(vec![pooler(TO, true, 0), away()]), resume);
    assert_eq!(decided(vec![pooler(FROM, false, 0)]), resume, "it came back with the old entry");
    assert_eq!(code(&decided(vec![pooler(TO, false, 2), away()])), "pgbouncer_unreachable");
    let goal = TrafficGoal::LetGo(TO);
    let failed = |in_ms| failing(pooler(FROM, true, 0), goal, in_ms);
    assert_eq!(code(&decided(vec![failed(1)])), "pgbouncer_rewrite_failed");
    assert_eq!(decided(vec![failed(0)]), resume);
    let working = PoolerView { working: Some(goal), ..pooler(TO, true, 0) };
    assert!(matches!(decided(vec![working]), Decision::Wait(_)));
    assert_eq!(decided(vec![pooler(TO, false, 2)]), done());
}

#[test]
fn taking_back_opens_first_and_then_lets_the_traffic_go_to_the_active_side() {
    let resume = Decision::Act(Action::ResumeTraffic { side: FROM });
    for step in [Step::PauseTraffic, Step::FenceActive, Step::Drain] {
        let mut facts = held(step);
        write(&mut facts, now(), Event::Unwinding { blockers: Vec::new() });
        let mut world = seeing(vec![pooler(TO, true, 0)]);
        let record = |state, revision| {
            Seen::Present(NodeRecord { side: FROM, id: Uuid::nil(), epoch: 1, state, revision })
        };
        if step > Step::PauseTraffic {
            world.source.record = record(NodeState::Fenced, 3);
            let open = Action::Open { side: FROM, revision: 3, after_marker: None };
            assert_eq!(decide(&facts, &world, &policy()), Decision::Act(open.clone()), "{step}");
            intend(&mut facts, now(), &open);
            world.source.record = record(NodeState::Open, 4);
            world.source.fence = Seen::Present(FenceView::default());
        }
        assert_eq!(decide(&facts, &world, &policy()), resume, "{step}");
        for not_done in [pooler(FROM, true, 0), pooler(TO, false, 0)] {
            world.traffic = Seen::Present(TrafficView::Poolers(vec![not_done]));
            assert_eq!(decide(&facts, &world, &policy()), resume, "{step}");
        }
        world.traffic = Seen::Present(TrafficView::Poolers(vec![pooler(FROM, false, 0)]));
        assert_eq!(decide(&facts, &world, &policy()), done(), "{step}");
        world.traffic = Seen::Unknown("not looked at".to_owned());
        assert!(matches!(decide(&facts, &world, &policy()), Decision::Wait(_)), "{step}");
    }
    // What was never begun is not looked at.
    let mut facts = at(Step::PauseTraffic);
    write(&mut facts, now(), Event::Unwinding { blockers: Vec::new() });
    assert_eq!(decide(&facts, &World::default(), &policy()), done());
}

#[test]
fn a_hook_vetoes_before_the_line_and_is_repeated_behind_it() {
    let before = |state| hooks(HooksView { before_line: state, ..NO_HOOKS });
    let facts = at(Step::PauseTraffic);
    let decided = |world: &World| decide(&facts, world, &policy());
    assert_eq!(decided(&before(HookState::None)), done());
    let run = Decision::Act(Action::PauseTraffic { side: FROM, holds: false });
    assert_eq!(decided(&before(HookState::NotRun)), run);
    assert!(matches!(decided(&before(HookState::Running)), Decision::Wait(_)));
    assert_eq!(decided(&before(HookState::Succeeded)), done());
    assert_eq!(code(&decided(&before(failed_hook(0)))), "hook_failed");

    let after = |state| hooks(HooksView { after_line: state, ..NO_HOOKS });
    let facts = at(Step::ResumeTraffic);
    let decided = |world: &World| decide(&facts, world, &policy());
    let run = Decision::Act(Action::ResumeTraffic { side: TO });
    assert_eq!(decided(&after(HookState::None)), done());
    assert_eq!(decided(&after(HookState::NotRun)), run);
    assert_eq!(code(&decided(&after(failed_hook(1)))), "hook_failed");
    assert_eq!(decided(&after(failed_hook(0))), run);
    assert_eq!(decided(&after(HookState::Succeeded)), done());

    let mut facts = at(Step::PauseTraffic);
    intend(&mut facts, now(), &Action::PauseTraffic { side: FROM, holds: false });
    write(&mut facts, now(), Event::Unwinding { blockers: Vec::new() });
    let world = hooks(HooksView { aborted: HookState::NotRun, ..NO_HOOKS });
    let run = Decision::Act(Action::ResumeTraffic { side: FROM });
    assert_eq!(decide(&facts, &world, &policy()), run);
}

#[test]
fn at_rest_a_pooler_that_holds_or_leads_astray_is_put_right_and_stands_against_a_switchover() {
    let mut facts = at(Step::PauseTraffic);
    facts.course = Course::AtRest;
    let put_right = Some(Action::ResumeTraffic { side: FROM });
    for wrong in [pooler(FROM, true, 0), pooler(TO, false, 0)] {
        assert_eq!(upkeep(&facts, &seeing(vec![wrong.clone()])), put_right);
        let blockers = verdict(&facts, &seeing(vec![wrong]), &policy());
        assert!(blockers.iter().any(|b| b.code.starts_with("pgbouncer_")), "{blockers:?}");
    }
    let mut elsewhere = pooler(FROM, false, 0);
    elsewhere.state = Seen::Present(PoolerState::default());
    let goal = TrafficGoal::LetGo(FROM);
    let backing_off = failing(pooler(FROM, true, 0), goal, 1);
    for left_alone in [pooler(FROM, false, 5), away(), elsewhere.clone(), backing_off] {
        assert_eq!(upkeep(&facts, &seeing(vec![left_alone])), None);
    }
    for against in [elsewhere, away()] {
        let mut blockers = Vec::new();
        traffic_blockers(FROM, &seeing(vec![against]), &mut blockers);
        assert_eq!(blockers.len(), 1, "{blockers:?}");
    }
    let mut blockers = Vec::new();
    traffic_blockers(FROM, &seeing(vec![pooler(FROM, false, 5)]), &mut blockers);
    traffic_blockers(FROM, &hooks(NO_HOOKS), &mut blockers);
    assert_eq!(blockers, []);
    traffic_blockers(FROM, &World::default(), &mut blockers);
    assert_eq!(blockers[0].code, "not_seen");
}

#[test]
fn behind_the_line_too_a_pooler_that_holds_or_leads_astray_is_put_right() {
    let put_right = Some(Action::ResumeTraffic { side: TO });
    for step in [Step::Confirm, Step::DropStreams] {
        for wrong in [pooler(TO, true, 0), pooler(FROM, false, 0)] {
            assert_eq!(upkeep(&at(step), &seeing(vec![wrong])), put_right, "{step}");
        }
        assert_eq!(upkeep(&at(step), &seeing(vec![pooler(TO, false, 5), away()])), None, "{step}");
    }
    // Held for the switchover, and let go by its own steps.
    for step in [Step::PauseTraffic, Step::FenceActive, Step::OpenOther, Step::ResumeTraffic] {
        assert_eq!(upkeep(&at(step), &seeing(vec![pooler(TO, true, 0)])), None, "{step}");
    }
}

#[test]
fn a_forced_switchover_leads_over_whom_it_can_and_names_the_rest() {
    let facts = at(Step::LeadTraffic);
    let with = |poolers| {
        let traffic = Seen::Present(TrafficView::Poolers(poolers));
        decide(&facts, &World { now: now(), traffic, ..World::default() }, &policy())
    };
    let act = Decision::Act(Action::ResumeTraffic { side: TO });
    assert_eq!(with(vec![away(), pooler(FROM, false, 1)]), act);
    assert_eq!(with(vec![pooler(TO, false, 1)]), done());
    let Decision::Done(Evidence::Leftovers { left }) = with(vec![away(), pooler(TO, false, 1)])
    else {
        panic!("nothing waits for what is lost");
    };
    assert_eq!(left[0].code, "pgbouncer_unreachable");
    assert!(matches!(
        decide(&facts, &World { now: now(), ..World::default() }, &policy()),
        Decision::Wait(_)
    ));
}

#[test]
fn a_hook_is_told_of_a_forced_switchover_until_it_succeeds() {
    let facts = at(Step::LeadTraffic);
    let with = |after_line| {
        let hooks =
            HooksView { before_line: HookState::NotRun, after_line, aborted: HookState::NotRun };
        let traffic = Seen::Present(TrafficView::Hooks(Box::new(hooks)));
        decide(&facts, &World { now: now(), traffic, ..World::default() }, &policy())
    };
    assert_eq!(with(HookState::NotRun), Decision::Act(Action::ResumeTraffic { side: TO }));
    let retry_at = now() + SignedDuration::from_secs(1);
    let blocker = Blocker::new("hook_failed", "", "");
    assert!(matches!(with(HookState::Failed { blocker, retry_at }), Decision::Blocked(_)));
    assert_eq!(with(HookState::Succeeded), done());
}

#[test]
fn a_journal_of_before_forced_switchovers_led_the_traffic_is_read() {
    let mut facts = at(Step::LeadTraffic);
    let event = Event::Completed { step: Step::DropStreams, evidence: Evidence::Nothing };
    write(&mut facts, now(), event);
    assert_eq!((facts.step(), facts.active), (None, TO));
}
