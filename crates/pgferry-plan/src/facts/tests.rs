//! Any walk through the journal's words: what is refused changes nothing, what is accepted is
//! read back as the same facts.

use proptest::prelude::*;

use super::*;
use crate::lsn::Lsn;
use crate::side::Direction;
use crate::steps::{LINE, STEPS};
use crate::verify::Verified;

/// Events that may or may not be legal at some point; most are, at one.
fn candidates(facts: &Facts, salt: u8) -> Vec<Event> {
    let id = Uuid::from_u128(u128::from(facts.next_seq));
    let step = facts.step().unwrap_or(STEPS[usize::from(salt) % STEPS.len()].step);
    let running = facts.operations.iter().rev().find(|o| o.state == OperationState::Running);
    let verbs = [
        Verb::Start,
        Verb::Cutover,
        Verb::Rollback,
        Verb::Abort,
        Verb::Pause,
        Verb::Resume,
        Verb::Finish,
        Verb::Abandon,
    ];
    let mut events: Vec<Event> = verbs
        .into_iter()
        .map(|verb| Event::Requested {
            operation: id,
            verb,
            open_passive: salt.is_multiple_of(2),
            force: false,
        })
        .collect();
    events.extend([
        Event::TookOver,
        Event::Intended { step, intent: Intent::Fence { side: facts.kind().from() } },
        Event::Intended { step, intent: Intent::CopyRows { snapshot_lsn: Lsn(u64::from(salt)) } },
        Event::Intended {
            step,
            intent: Intent::StartStream { direction: Direction::Forward, at_lsn: Lsn(1) },
        },
        Event::Completed { step, evidence: Evidence::Nothing },
        Event::Completed { step, evidence: Evidence::Subscription { slot: "slot".to_owned() } },
        Event::Unwinding { blockers: vec![Blocker::new("aborted", "a person", "")] },
        Event::Undone { step: step.min(Step::FenceActive) },
        Event::LineCrossed,
        Event::OperationEnded {
            operation: running.map_or(id, |operation| operation.id),
            state: OperationState::Aborted,
            problem: None,
            blockers: Vec::new(),
        },
        forced(id, Verb::Cutover),
        forced(id, Verb::Rollback),
        Event::Adopted { lost: Side::Destination, node_id: id },
        Event::Intended {
            step,
            intent: Intent::PauseTraffic {
                side: facts.kind().from(),
                holds: salt.is_multiple_of(2),
            },
        },
        Event::Requested { operation: id, verb: Verb::Verify, open_passive: false, force: false },
        Event::Verified { verified: verified(running.map_or(id, |operation| operation.id)) },
        Event::RepairRequested { operation: running.map_or(id, |operation| operation.id) },
        Event::RepairIntended {
            operation: running.map_or(id, |operation| operation.id),
            repair: Uuid::from_u128(u128::from(salt % 2)),
            table: "public.t".to_owned(),
            rows: 2,
        },
        Event::Repaired {
            operation: running.map_or(id, |operation| operation.id),
            repair: Uuid::from_u128(u128::from(salt % 2)),
            table: "public.t".to_owned(),
            rows: 1,
            refused: None,
        },
    ]);
    events
}

fn forced(operation: Uuid, verb: Verb) -> Event {
    Event::Requested { operation, verb, open_passive: false, force: true }
}

#[test]
fn a_repair_is_told_in_order_and_ends_with_its_verification() {
    let mut facts = Facts { course: Course::AtRest, ..Facts::default() };
    let (operation, repair) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let mut fold = |event: Event| {
        let at = Timestamp::UNIX_EPOCH;
        let epoch = facts.epoch + i64::from(event == Event::TookOver);
        let folded = facts.fold(&Entry { seq: facts.next_seq, at, epoch, event });
        (folded.is_ok(), facts.repair.clone().map(|repair| repair.open.len()))
    };
    let table = || "public.t".to_owned();
    let intended = || Event::RepairIntended { operation, repair, table: table(), rows: 2 };
    let ended = || Event::Repaired { operation, repair, table: table(), rows: 2, refused: None };
    fold(Event::TookOver);
    let requested =
        Event::Requested { operation, verb: Verb::Verify, open_passive: false, force: false };
    assert_eq!(fold(Event::RepairRequested { operation }), (false, None), "nothing verifies");
    fold(requested);
    assert_eq!(fold(intended()), (false, None), "no repair was asked for");
    assert_eq!(fold(Event::RepairRequested { operation }), (true, Some(0)));
    assert_eq!(fold(ended()), (false, Some(0)), "it was not intended");
    assert_eq!(fold(intended()), (true, Some(1)));
    assert_eq!(fold(intended()), (false, Some(1)), "twice");
    assert_eq!(fold(ended()), (true, Some(0)));
    fold(Event::RepairIntended { operation, repair: operation, table: table(), rows: 1 });
    let end = Event::OperationEnded {
        operation,
        state: OperationState::Failed,
        problem: None,
        blockers: Vec::new(),
    };
    assert_eq!(fold(end), (true, None), "what was open ends with it");
}

fn verified(run: Uuid) -> Verified {
    Verified {
        run,
        background: false,
        active: Side::Source,
        began_at: Timestamp::UNIX_EPOCH,
        finished_at: Timestamp::UNIX_EPOCH,
        tables: 1,
        rows: 2,
        mismatched_rows: 0,
        at_least: false,
        unsettled_rows: 0,
        mended_rows: 0,
        other_differences: 0,
        differing: Vec::new(),
    }
}

/// Folds what is accepted of a walk, and returns it with the facts.
fn walk(choices: &[(u8, u8)]) -> (Vec<Entry>, Facts) {
    let mut facts = Facts::default();
    let mut entries = Vec::new();
    for (at, (choice, salt)) in choices.iter().enumerate() {
        let mut events = candidates(&facts, *salt);
        let event = events.swap_remove(usize::from(*choice) % events.len());
        let epoch = facts.epoch + i64::from(event == Event::TookOver);
        let at = Timestamp::from_second(at as i64).unwrap();
        let entry = Entry { seq: facts.next_seq, at, epoch, event };
        let before = facts.clone();
        match facts.fold(&entry) {
            Ok(()) => entries.push(entry),
            Err(_) => assert_eq!(facts, before, "a refused entry changes nothing"),
        }
    }
    (entries, facts)
}

/// Walks that mostly go forward, so that they reach the later phases too.
fn choices() -> impl Strategy<Value = Vec<(u8, u8)>> {
    // 0, 1 and 2 ask for start, cutover and rollback; 8 takes over, 12 completes the step.
    let choice =
        prop_oneof![3 => 0..24u8, 1 => Just(0u8), 1 => Just(1), 1 => Just(2), 12 => Just(12)];
    prop::collection::vec((choice, any::<u8>()), 1..160)
}

proptest! {
    #[test]
    fn a_journal_that_was_written_is_read_back_as_the_same_facts(choices in choices()) {
        let (entries, facts) = walk(&choices);
        let text: Vec<String> =
            entries.iter().map(|entry| serde_json::to_string(entry).unwrap()).collect();
        let read: Vec<Entry> = text.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        prop_assert_eq!(&read, &entries);
        prop_assert_eq!(Facts::replay(&read).unwrap(), facts);
    }

    #[test]
    fn a_journal_with_an_entry_lost_or_doubled_is_refused(choices in choices(), at in any::<prop::sample::Index>()) {
        let (entries, _) = walk(&choices);
        prop_assume!(entries.len() > 1);
        let index = at.index(entries.len() - 1);
        let mut lost = entries.clone();
        lost.remove(index);
        prop_assert!(Facts::replay(&lost).is_err());
        let mut doubled = entries;
        doubled.insert(index, doubled[index].clone());
        prop_assert!(Facts::replay(&doubled).is_err());
    }

    #[test]
    fn the_active_side_changes_only_with_a_switchover_that_was_confirmed(choices in choices()) {
        let (entries, _) = walk(&choices);
        let mut facts = Facts::default();
        for entry in &entries {
            let before = facts.active;
            facts.fold(entry).unwrap();
            let last = matches!(
                entry.event,
                Event::Completed { step: Step::Confirm | Step::DropStreams, .. }
            );
            let adopted = matches!(entry.event, Event::Adopted { .. });
            prop_assert_eq!(before != facts.active, last || adopted);
        }
    }

    #[test]
    fn nothing_is_taken_back_behind_the_line(choices in choices()) {
        let (entries, _) = walk(&choices);
        let mut facts = Facts::default();
        for entry in &entries {
            let behind = facts.switchover().is_some_and(|s| s.unwinding.is_none() && s.step > LINE);
            facts.fold(entry).unwrap();
            if behind {
                prop_assert!(facts.switchover().is_none_or(|s| s.unwinding.is_none()));
            }
        }
    }
}

#[test]
fn the_walks_reach_every_phase_of_a_switchover() {
    let forward = |verb: u8| [vec![(verb, 0)], vec![(12, 0); 10]].concat();
    let mut path = vec![(8, 0), (0, 0)];
    path.extend(vec![(12, 0); 17]);
    path.extend(forward(1));
    path.extend(forward(2));
    let (_, facts) = walk(&path);
    assert_eq!(facts.phase(), Phase::Ready);
    assert_eq!(facts.operations.len(), 3);
}

#[test]
fn a_forced_switchover_ends_one_that_waits_for_the_lost_side_and_is_the_last() {
    let mut path = vec![(8, 0), (0, 0)];
    path.extend(vec![(12, 0); 17]);
    // A cutover up to its fence, then forced: 18 is the forced cutover.
    path.extend([(1, 0), (12, 0), (12, 0), (12, 0), (9, 0), (18, 0)]);
    let (_, facts) = walk(&path);
    assert_eq!((facts.step(), facts.lost), (Some(Step::CutStream), Some(Side::Source)));
    assert_eq!(facts.operations[1].state, OperationState::Failed, "the one that was overtaken");
    path.extend(vec![(12, 0); 5]);
    let (_, facts) = walk(&path);
    assert_eq!((facts.phase(), facts.active), (Phase::CutOver, Side::Destination));
    assert_eq!(facts.operations.len(), 3);
    // Behind the line too, as long as the other side is not open.
    let mut behind: Vec<(u8, u8)> = vec![(8, 0), (0, 0)];
    behind.extend(vec![(12, 0); 17]);
    behind.extend([(1, 0)]);
    behind.extend(vec![(12, 0); 7]);
    let (_, facts) = walk(&behind);
    assert_eq!(facts.step(), Some(Step::OpenOther));
    let (_, facts) = walk(&[behind, vec![(18, 0)]].concat());
    assert_eq!((facts.step(), facts.lost), (Some(Step::CutStream), Some(Side::Source)));
    // Neither an ordinary rollback nor a forced one is possible without the lost side.
    path.extend([(2, 0), (19, 0)]);
    let (_, facts) = walk(&path);
    assert_eq!((facts.phase(), facts.operations.len()), (Phase::CutOver, 3));
}
