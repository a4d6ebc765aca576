use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::*;
use crate::facts::{Course, Operation};
use crate::side::Side;

const RUN: Uuid = Uuid::from_u128(7);

pub(super) fn now() -> Timestamp {
    "2026-11-21T06:00:00Z".parse().unwrap()
}

pub(super) fn policy() -> Policy {
    Policy {
        migration: "shop".parse().unwrap(),
        max_lag: Duration::from_secs(1),
        stall_budget: Duration::from_secs(5),
        grace: Duration::from_millis(200),
        headroom: 1000,
        max_retained_wal: None,
        native_copy: false,
        require_verification: true,
        verification_max_age: Duration::from_secs(3600),
        background_pause: None,
        traffic: crate::traffic::TrafficPolicy::default(),
    }
}

pub(crate) fn verified(mismatched_rows: u64) -> Verified {
    Verified {
        run: RUN,
        background: false,
        active: Side::Source,
        began_at: now() - SignedDuration::from_secs(60),
        finished_at: now() - SignedDuration::from_secs(30),
        tables: 2,
        rows: 100,
        mismatched_rows,
        at_least: false,
        unsettled_rows: 0,
        mended_rows: 0,
        other_differences: 0,
        differing: (mismatched_rows > 0)
            .then(|| Differing { name: "public.orders".to_owned(), rows: mismatched_rows })
            .into_iter()
            .collect(),
    }
}

pub(super) fn operation(verb: Verb) -> Operation {
    Operation {
        id: RUN,
        verb,
        state: OperationState::Running,
        requested_at: now(),
        finished_at: None,
        problem: None,
        blockers: Vec::new(),
    }
}

pub(super) fn resting(verification: Option<Verified>) -> Facts {
    Facts { course: Course::AtRest, verification, ..Facts::default() }
}

fn code(blocker: Option<Blocker>) -> Option<String> {
    blocker.map(|blocker| blocker.code)
}

#[test]
fn a_cutover_needs_a_clean_and_recent_verification() {
    let of = |facts: &Facts, now| code(gate(facts, &World { now, ..World::default() }, &policy()));
    assert_eq!(of(&resting(None), now()).as_deref(), Some("not_verified"));
    assert_eq!(of(&resting(Some(verified(0))), now()), None);
    assert_eq!(of(&resting(Some(verified(3))), now()).as_deref(), Some("verification_mismatched"));
    let unsettled = Verified { unsettled_rows: 1, ..verified(0) };
    assert_eq!((unsettled.is_clean(), unsettled.state()), (true, "clean"));
    assert_eq!(unsettled.problem(), None, "it is no proof of damage");
    assert_eq!(of(&resting(Some(unsettled)), now()), None, "a busy counter blocks no cutover");
    let both = Verified { unsettled_rows: 1, ..verified(3) };
    assert_eq!(both.state(), "mismatched");
    assert_eq!(of(&resting(Some(both)), now()).as_deref(), Some("verification_mismatched"));
    // What was compared first is what is old, however lately the rest was.
    let resumed = Verified { began_at: now() - SignedDuration::from_hours(2), ..verified(0) };
    assert_eq!(of(&resting(Some(resumed)), now()).as_deref(), Some("verification_too_old"));
    let later = now() + SignedDuration::from_hours(2);
    assert_eq!(of(&resting(Some(verified(0))), later).as_deref(), Some("verification_too_old"));
    let without = Policy { require_verification: false, ..policy() };
    assert_eq!(gate(&resting(None), &World::default(), &without), None);
}

#[test]
fn a_rollback_needs_none() {
    let facts = Facts { active: Side::Destination, ..resting(Some(verified(3))) };
    assert_eq!(gate(&facts, &World::default(), &policy()), None);
}

#[test]
fn the_refusal_names_the_tables_and_how_many_rows() {
    let problem = verified(3).problem().unwrap();
    assert!(problem.message.contains("3 rows differ: public.orders (3)"), "{}", problem.message);
    let damaged = Verified { at_least: true, other_differences: 2, ..verified(9) };
    let message = damaged.problem().unwrap().message;
    assert!(message.contains("at least 9 rows and 2 other things differ"), "{message}");
}

#[test]
fn the_verdict_says_how_old_it_is_and_what_changed_since() {
    let mut facts = resting(Some(verified(0)));
    let crossing = |at| Operation {
        state: OperationState::Succeeded,
        finished_at: Some(at),
        ..operation(Verb::Cutover)
    };
    facts.operations = vec![crossing(now() - SignedDuration::from_secs(90)), crossing(now())];
    let later = World { now: now() + SignedDuration::from_hours(3), ..World::default() };
    let blocker = gate(&facts, &later, &policy()).unwrap();
    assert!(blocker.message.contains("began 3 h ago"), "{}", blocker.message);
    assert!(blocker.message.contains("moved once since"), "{}", blocker.message);
}

#[test]
fn at_rest_it_begins_goes_on_after_a_restart_and_ends_as_it_came_out() {
    let mut facts = resting(None);
    let mut world = World { now: now(), verification: Seen::Absent, ..World::default() };
    assert_eq!(at_rest(&facts, &world), AtRest::Nothing);
    facts.operations = vec![operation(Verb::Verify)];
    let begin = AtRest::Begin(Action::Verify { run: RUN, active: Side::Source });
    assert_eq!(at_rest(&facts, &world), begin);
    // What an earlier operation came to is not this one's result.
    let other = Verified { run: Uuid::nil(), ..verified(0) };
    world.verification = Seen::Present(VerifyView::Ended { run: Uuid::nil(), verified: other });
    assert_eq!(at_rest(&facts, &world), begin);
    world.verification = Seen::Present(VerifyView::Running { run: RUN, what: String::new() });
    assert_eq!(at_rest(&facts, &world), AtRest::Nothing);
    for (result, state) in
        [(verified(0), OperationState::Succeeded), (verified(1), OperationState::Failed)]
    {
        world.verification =
            Seen::Present(VerifyView::Ended { run: RUN, verified: result.clone() });
        let AtRest::End(events) = at_rest(&facts, &world) else { panic!("it has ended") };
        assert_eq!(events[0], Event::Verified { verified: result });
        assert!(
            matches!(&events[1], Event::OperationEnded { state: ended, .. } if *ended == state)
        );
    }
    world.verification = Seen::Unknown("not seen".to_owned());
    assert_eq!(at_rest(&facts, &world), AtRest::Nothing, "Unknown never leads to anything");
}

#[test]
fn the_step_completes_with_whatever_was_found_and_not_at_all_when_it_is_not_wanted() {
    let facts = Facts {
        course: Course::SetUp(crate::steps::Step::VerifyRows),
        operations: vec![operation(Verb::Start)],
        ..Facts::default()
    };
    let mut world = World { now: now(), ..World::default() };
    assert!(matches!(verify_rows(&facts, &world, &policy()), Decision::Wait(_)), "not seen");
    let without = Policy { require_verification: false, ..policy() };
    assert_eq!(verify_rows(&facts, &world, &without), Decision::Done(Evidence::Nothing));
    world.verification = Seen::Absent;
    let begin = Decision::Act(Action::Verify { run: RUN, active: Side::Source });
    assert_eq!(verify_rows(&facts, &world, &policy()), begin);
    world.verification = Seen::Present(VerifyView::Ended { run: RUN, verified: verified(2) });
    let done = Decision::Done(Evidence::Verified { verified: Box::new(verified(2)) });
    assert_eq!(verify_rows(&facts, &world, &policy()), done);
    let failed = |retry_at| VerifyView::Failed {
        run: RUN,
        blocker: Blocker::new("statement_failed", "m", "h"),
        retry_at,
    };
    world.verification = Seen::Present(failed(now() + SignedDuration::from_secs(1)));
    assert!(matches!(verify_rows(&facts, &world, &policy()), Decision::Blocked(_)));
    world.verification = Seen::Present(failed(now()));
    assert_eq!(verify_rows(&facts, &world, &policy()), begin);
}

#[test]
fn a_journal_of_before_the_step_is_still_read() {
    let mut facts = Facts::default();
    let mut next = |event| {
        let entry = crate::journal::Entry { seq: facts.next_seq, at: now(), epoch: 1, event };
        facts.fold(&entry).unwrap();
        facts.step()
    };
    next(Event::TookOver);
    next(Event::Requested { operation: RUN, verb: Verb::Start, open_passive: false, force: false });
    let mut done = |step| next(Event::Completed { step, evidence: Evidence::Nothing });
    for spec in crate::steps::STEPS {
        if spec.step == crate::steps::Step::VerifyRows {
            break;
        }
        done(spec.step);
    }
    assert_eq!(
        done(crate::steps::Step::CreateDestinationSets),
        Some(crate::steps::Step::CreateReverseSubscription)
    );
}
