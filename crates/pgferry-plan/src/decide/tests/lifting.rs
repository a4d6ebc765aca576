//! Roles that pgferry may not alter any more: found beforehand, and behind an opening nobody is
//! forgotten and nobody else waits.

use super::*;
use crate::verdict::verdict;

fn closed_to(roles: &[&str]) -> FenceView {
    FenceView {
        fenced: roles.iter().map(ToString::to_string).collect(),
        lift_statements: roles.iter().map(|role| format!("lift {role};")).collect(),
        ..FenceView::default()
    }
}

fn without_right(roles: &[&str]) -> FenceView {
    let needed = |role: &&str| (role.to_string(), format!("let alter {role};"));
    FenceView { cannot_lift: roles.iter().map(needed).collect(), ..closed_to(roles) }
}

/// The destination of a cutover that is open, and what is seen of its fence.
fn opened(fence: FenceView) -> World {
    let mut world = fenced_world();
    world.source.record = record(Side::Source, NodeState::Yielded);
    world.destination.record = record(Side::Destination, NodeState::Open);
    world.destination.fence = Seen::Present(fence);
    world
}

/// A cutover that is taken back, its source open again.
fn taken_back() -> (Facts, World) {
    let mut facts = at(Step::Drain);
    for event in [
        Event::Unwinding { blockers: vec![Blocker::new("aborted", "asked for", "")] },
        Event::Intended {
            step: Step::Drain,
            intent: Intent::Open { side: Side::Source, revision: 2 },
        },
    ] {
        let entry = Entry { seq: facts.next_seq, at: Timestamp::UNIX_EPOCH, epoch: 1, event };
        facts.fold(&entry).unwrap();
    }
    let mut world = fenced_world();
    world.source.record = record(Side::Source, NodeState::Open);
    (facts, world)
}

#[test]
fn a_role_that_could_not_be_lifted_stands_against_the_opening_of_its_side_alone() {
    let mut facts = at(Step::CheckVerdict);
    facts.course = Course::AtRest;
    let told = |side, fence: FenceView| {
        let mut world = fenced_world();
        world.node_mut(side).fence = Seen::Present(fence);
        let blockers = verdict(&facts, &world, &policy());
        blockers.into_iter().find(|blocker| blocker.code == "cannot_lift_fence")
    };
    let twice = FenceView {
        cannot_lift: vec![
            ("a".to_owned(), "same;".to_owned()),
            ("b".to_owned(), "same;".to_owned()),
        ],
        ..closed_to(&["a", "b", "c"])
    };
    let blocker = told(Side::Destination, twice.clone()).unwrap();
    assert_eq!(blocker.hint, "same;");
    assert!(blocker.message.contains("a, b"), "{}", blocker.message);
    assert_eq!(told(Side::Source, twice), None);
    assert_eq!(told(Side::Destination, closed_to(&["a"])), None);
}

#[test]
fn what_an_opening_could_not_lift_is_told_and_lifted_once_it_can_be() {
    let lift = vec![open(Side::Destination)];
    let facts = at(Step::Confirm);
    let stuck = opened(without_right(&["app"]));
    let mut confirmed = facts.clone();
    confirmed.intents = vec![Intent::WriteMarker { side: Side::Destination, token: 5 }];
    let mut there = stuck.clone();
    let marker = MarkerView { own: 5, other: 5, own_came_back: false };
    (there.source.marker, there.destination.marker) =
        (Seen::Present(marker.clone()), Seen::Present(marker));
    there.source.strays = Seen::Present(Vec::new());
    let decision = decide(&confirmed, &there, &policy());
    let Decision::Done(Evidence::Leftovers { left }) = &decision else { panic!("{decision:?}") };
    assert_eq!(left[0].code, "fence_not_lifted", "nobody waits for it");
    assert!(left[0].hint.contains("let alter app;") && left[0].hint.contains("lift app;"));
    assert_eq!(upkeep(&facts, &stuck), []);
    // The right is back, or an administrator has lifted it.
    assert_eq!(upkeep(&facts, &opened(closed_to(&["app"]))), lift);
    let by_hand =
        FenceView { unfenced: vec!["app".to_owned()], ..without_right(&["app", "other"]) };
    assert_eq!(upkeep(&facts, &opened(by_hand)), lift);
}

#[test]
fn sessions_of_a_role_that_was_lifted_late_are_ended() {
    let mut facts = at(Step::Confirm);
    let late = FenceView { late_sessions: vec![session(true)], ..without_right(&["other"]) };
    let end = Action::EndSessions { side: Side::Destination, sessions: vec![session(true).id] };
    let ended = vec![end];
    assert_eq!(upkeep(&facts, &opened(late.clone())), ended);
    (facts.course, facts.active) = (Course::AtRest, Side::Destination);
    assert_eq!(upkeep(&facts, &opened(late.clone())), ended);
    assert_eq!(ailing(&facts, &opened(late)).unwrap().code, "fence_not_lifted");
}

#[test]
fn taking_back_waits_for_no_role_that_could_not_be_lifted() {
    let (facts, mut world) = taken_back();
    world.source.fence = Seen::Present(without_right(&["app"]));
    assert_eq!(decide(&facts, &world, &policy()), done());
    assert_eq!(upkeep(&facts, &world), []);
    world.source.fence = Seen::Present(closed_to(&["app"]));
    assert_eq!(upkeep(&facts, &world), [open(Side::Source)]);
    world.source.fence = Seen::Present(FenceView::default());
    assert_eq!(decide(&facts, &world, &policy()), done());
    world.source.fence = Seen::Unknown("gone".to_owned());
    assert!(matches!(decide(&facts, &world, &policy()), Decision::Wait(_)));
}

#[test]
fn a_side_that_is_closed_is_never_opened_by_upkeep() {
    for state in [NodeState::Fenced, NodeState::Yielded] {
        let mut world = opened(closed_to(&["app"]));
        world.destination.record = record(Side::Destination, state);
        assert_eq!(upkeep(&at(Step::Confirm), &world), [], "{state:?}");
    }
    let (facts, mut world) = taken_back();
    world.source.record = record(Side::Source, NodeState::Fenced);
    world.source.fence = Seen::Present(closed_to(&["app"]));
    assert_eq!(upkeep(&facts, &world), []);
}

#[test]
fn the_end_names_the_roles_of_an_open_side_that_stay_read_only() {
    let facts = at(Step::DropNodes);
    let mut world = fenced_world();
    for side in Side::BOTH {
        world.node_mut(side).pglogical_node = Seen::Absent;
    }
    world.source.record = record(Side::Source, NodeState::Open);
    world.source.fence = Seen::Present(without_right(&["app"]));
    world.destination.fence = Seen::Present(closed_to(&["app"]));
    let Decision::Done(Evidence::Leftovers { left }) = decide(&facts, &world, &policy()) else {
        panic!("the record goes next");
    };
    let codes: Vec<&str> = left.iter().map(|blocker| blocker.code.as_str()).collect();
    assert_eq!(codes, ["fence_not_lifted", "passive_stays_fenced"]);
}

#[test]
fn a_passive_side_is_opened_while_its_record_can_be_read() {
    let mut facts = at(Step::DropNodes);
    let Course::End { open_passive, .. } = &mut facts.course else { panic!() };
    *open_passive = true;
    let mut world = fenced_world();
    for side in Side::BOTH {
        world.node_mut(side).pglogical_node = Seen::Absent;
    }
    world.source.record = record(Side::Source, NodeState::Open);
    let open = open(Side::Destination);
    assert_eq!(decide(&facts, &world, &policy()), Decision::Act(open));
    world.destination.record = record(Side::Destination, NodeState::Open);
    world.destination.fence = Seen::Present(without_right(&["app"]));
    assert!(matches!(
        decide(&facts, &world, &policy()),
        Decision::Done(Evidence::Leftovers { left }) if left[0].code == "fence_not_lifted"
    ));
}
