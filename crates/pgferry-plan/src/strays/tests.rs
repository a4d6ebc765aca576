use jiff::SignedDuration;

use super::*;
use crate::facts::Switchover;
use crate::journal::Entry;
use crate::side::Kind;
use crate::verify::Verified;
use crate::world::NodeRecord;

const OPERATION: Uuid = Uuid::from_u128(7);

fn now() -> Timestamp {
    "2026-11-21T06:00:00Z".parse().unwrap()
}

fn ledger() -> TableName {
    TableName::new("bank", "ledger")
}

fn writer(tables: &[TableName]) -> Writer {
    Writer {
        side: Side::Source,
        role: "app".to_owned(),
        pid: 42,
        started_us: 1,
        xid: (1 << 32) + 700,
        tables: tables.to_vec(),
    }
}

fn of_writer(writer: &Writer) -> SessionId {
    SessionId { pid: writer.pid, started_us: writer.started_us }
}

/// In `confirm` of a cutover, and at rest behind it: the source is watched.
fn both_courses() -> [Facts; 2] {
    let switchover = Switchover::begun(OPERATION, Kind::Cutover, Step::Confirm, now());
    [
        Facts { epoch: 1, course: Course::Switchover(switchover), ..Facts::default() },
        Facts { epoch: 1, course: Course::AtRest, active: Side::Destination, ..Facts::default() },
    ]
}

fn at_rest() -> Facts {
    let [_, at_rest] = both_courses();
    at_rest
}

fn world(strays: Seen<Vec<Writer>>) -> World {
    let mut world = World { now: now(), stray_comparison: Seen::Absent, ..World::default() };
    world.source.record = Seen::Present(NodeRecord {
        side: Side::Source,
        id: Uuid::nil(),
        epoch: 1,
        state: NodeState::Yielded,
        revision: 3,
    });
    world.source.strays = strays;
    world
}

fn nobody() -> World {
    world(Seen::Present(Vec::new()))
}

fn note(facts: &mut Facts, events: &[Event]) {
    for event in events {
        let entry = Entry { seq: facts.next_seq, at: now(), epoch: 1, event: event.clone() };
        facts.fold(&entry).unwrap();
    }
}

fn found(facts: &mut Facts, writer: Writer) {
    note(facts, &[Event::StrayFound { writer }]);
}

fn ended(fate: Fate) -> Event {
    Event::StrayEnded { side: Side::Source, xid: writer(&[]).xid, fate }
}

fn compared(tables: Vec<StrayTable>) -> Event {
    Event::StrayCompared { side: Side::Source, xid: writer(&[]).xid, tables }
}

fn left(rows: u64, differing: u64) -> StrayTable {
    StrayTable { table: ledger(), rows: Some(rows), differing: Some(differing), at_least: false }
}

fn ends(writer: &Writer) -> Option<Action> {
    Some(Action::EndSessions { side: Side::Source, sessions: vec![of_writer(writer)] })
}

#[test]
fn who_writes_on_the_closed_side_is_written_down_and_then_ended() {
    for mut facts in both_courses() {
        let writer = writer(&[ledger()]);
        let seen = world(Seen::Present(vec![writer.clone()]));
        let first = next(&facts, &seen).unwrap();
        assert_eq!(first.before, [Event::StrayFound { writer: writer.clone() }]);
        assert_eq!((first.action, first.after), (ends(&writer), vec![]));
        note(&mut facts, &first.before);
        // Whether the daemon died before it was ended is not known.
        let again = next(&facts, &nobody()).unwrap();
        assert_eq!((again.before, again.action, again.after), (vec![], ends(&writer), vec![]));
        // Once more in the turn that learns how it ended: it may have committed, and stayed.
        let mut over = nobody();
        over.source.fates = Seen::Present(vec![(writer.xid, Fate::RolledBack)]);
        let last = next(&facts, &over).unwrap();
        assert_eq!(
            (last.action, last.after.clone()),
            (ends(&writer), vec![ended(Fate::RolledBack)])
        );
        note(&mut facts, &last.after);
        assert_eq!(next(&facts, &nobody()), None);
    }
}

#[test]
fn a_client_that_comes_again_and_again_is_ended_and_fills_no_journal() {
    let mut facts = at_rest();
    let many: Vec<Writer> =
        (0..30).map(|n| Writer { xid: 900 + n, pid: n as i32, ..writer(&[ledger()]) }).collect();
    let first = next(&facts, &world(Seen::Present(many.clone()))).unwrap();
    assert_eq!(first.before.len(), MOST_A_MINUTE);
    let Some(Action::EndSessions { sessions, .. }) = &first.action else { panic!("{first:?}") };
    assert_eq!(sessions.len(), 30);
    note(&mut facts, &first.before);
    let then = next(&facts, &world(Seen::Present(many[20..].to_vec()))).unwrap();
    assert_eq!(then.before, []);
    let Some(Action::EndSessions { sessions, .. }) = &then.action else { panic!("{then:?}") };
    assert_eq!(sessions.len(), MOST_A_MINUTE + 10);
    let mut later = world(Seen::Present(many[20..].to_vec()));
    later.now += SignedDuration::from_mins(2);
    assert_eq!(next(&facts, &later).unwrap().before.len(), 10);
}

#[test]
fn an_id_that_a_crash_gave_to_another_is_ended_and_not_written_down_again() {
    let mut facts = at_rest();
    found(&mut facts, writer(&[ledger()]));
    let again = Writer { pid: 43, ..writer(&[ledger()]) };
    let seen = world(Seen::Present(vec![again.clone()]));
    let open = next(&facts, &seen).unwrap();
    assert_eq!(open.before, []);
    let Some(Action::EndSessions { sessions, .. }) = open.action else { panic!() };
    assert!(sessions.contains(&of_writer(&again)));
    note(&mut facts, &[ended(Fate::RolledBack)]);
    let over = next(&facts, &seen).unwrap();
    assert_eq!((over.before, over.action), (vec![], ends(&again)));
}

#[test]
fn what_it_writes_to_later_is_written_down_too() {
    let mut facts = at_rest();
    found(&mut facts, writer(&[ledger()]));
    let more = TableName::new("bank", "balances");
    let seen = |tables: &[TableName]| world(Seen::Present(vec![writer(tables)]));
    let next = |facts: &Facts, tables: &[TableName]| next(facts, &seen(tables)).unwrap().before;
    assert_eq!(next(&facts, &[ledger()]), []);
    let grown = next(&facts, std::slice::from_ref(&more));
    assert_eq!(grown.len(), 1);
    note(&mut facts, &grown);
    assert_eq!(facts.strays.len(), 1);
    assert_eq!(facts.strays[0].writer.tables, [ledger(), more]);
}

#[test]
fn nobody_is_ended_who_was_not_seen_to_write_on_a_closed_side() {
    let writes = || Seen::Present(vec![writer(&[ledger()])]);
    let [confirming, at_rest] = both_courses();
    let mut open = world(writes());
    open.source.record = open.source.record.map(|it| NodeRecord { state: NodeState::Open, ..it });
    let mut blind = world(writes());
    blind.source.record = Seen::Unknown("away".to_owned());
    for facts in [&confirming, &at_rest] {
        for world in [world(Seen::default()), world(Seen::Absent), open.clone(), blind.clone()] {
            assert_eq!(next(facts, &world), None);
        }
    }
    let active = Facts { active: Side::Source, ..at_rest.clone() };
    assert_eq!(next(&active, &world(writes())), None, "the active side's writers");
    let lost = Facts { lost: Some(Side::Source), ..at_rest };
    assert_eq!(next(&lost, &world(writes())), None);
    for step in [Step::FenceActive, Step::Yield, Step::OpenOther, Step::ResumeTraffic] {
        let facts = Facts { course: Course::imagined(Kind::Cutover, step), ..Facts::default() };
        assert_eq!(next(&facts, &world(writes())), None, "{step}");
    }
}

#[test]
fn what_was_committed_is_compared_once_and_only_at_rest() {
    let [mut confirming, mut facts] = both_courses();
    let compares = Some(Next {
        action: Some(Action::CompareStrays {
            active: Side::Destination,
            strays: vec![writer(&[ledger()])],
        }),
        ..Next::default()
    });
    for (facts, expected) in [(&mut confirming, None), (&mut facts, compares.clone())] {
        found(facts, writer(&[ledger()]));
        note(facts, &[ended(Fate::Committed)]);
        assert_eq!(next(facts, &nobody()), expected);
    }
    assert_eq!(next(&Facts { paused: true, ..facts.clone() }, &nobody()), None);
    let view = |view| World { stray_comparison: Seen::Present(view), ..nobody() };
    assert_eq!(next(&facts, &view(ComparisonView::Running)), None);
    let failed = |seconds| ComparisonView::Failed {
        blocker: Blocker::new("away", "it is away", ""),
        retry_at: now() + SignedDuration::from_secs(seconds),
    };
    assert_eq!(next(&facts, &view(failed(1))), None);
    assert_eq!(next(&facts, &view(failed(-1))), compares);
    let unseen = World { stray_comparison: Seen::Unknown(String::new()), ..nobody() };
    assert_eq!(next(&facts, &unseen), None, "Unknown never leads to anything");
    let result = |xid| Compared {
        side: Side::Source,
        xid,
        tables: vec![left(2, 0)],
        keys: vec![(ledger(), vec!["id=7".to_owned(), "id=8".to_owned()])],
    };
    let other = view(ComparisonView::Ended(vec![result(3)]));
    assert_eq!(next(&facts, &other), compares, "the result of another one");
    let done = view(ComparisonView::Ended(vec![result(writer(&[]).xid)]));
    let told = next(&facts, &done).unwrap();
    assert_eq!((&told.before, &told.action), (&vec![compared(vec![left(2, 0)])], &None));
    note(&mut facts, &told.before);
    assert_eq!(next(&facts, &done), None);
    let said = ailing(&facts, &done).unwrap();
    assert_eq!(
        said.message,
        "role app (pid 42) wrote on the closed source, and committed: bank.ledger: \
         2 rows still as it wrote them (id=7; id=8), both sides hold the same"
    );
    let statement = "SELECT * FROM ONLY \"bank\".\"ledger\" WHERE xmin = '700';";
    assert!(said.hint.contains(statement), "{}", said.hint);
}

#[test]
fn a_person_is_told_until_everything_was_compared_by_order() {
    let mut facts = at_rest();
    let told = |facts: &Facts| ailing(facts, &nobody()).map(|blocker| blocker.message);
    assert_eq!(told(&facts), None);
    found(&mut facts, writer(&[ledger()]));
    assert!(told(&facts).unwrap().contains("its session is being ended"));
    note(&mut facts, &[ended(Fate::Committed)]);
    let pending = told(&facts).unwrap();
    assert!(pending.contains("in bank.ledger; at rest its rows are counted"), "{pending}");
    note(&mut facts, &[compared(vec![left(1, 3)])]);
    let differing = told(&facts).unwrap();
    let end =
        "bank.ledger: 1 row still as it wrote them, 3 rows of the table not the same on both sides";
    assert!(differing.ends_with(end), "{differing}");
    let verified = |began_at| Verified { began_at, ..crate::verify::tests::verified(0) };
    fold::answered(&mut facts, &verified(now() - SignedDuration::from_secs(1)));
    assert!(told(&facts).is_some(), "it began before the stray was found");
    fold::answered(&mut facts, &verified(now()));
    assert_eq!(told(&facts), None);
}

#[test]
fn a_switchover_tells_of_its_own_strays_and_rest_of_none_that_was_rolled_back() {
    let [mut facts, _] = both_courses();
    found(&mut facts, writer(&[ledger()]));
    note(&mut facts, &[ended(Fate::RolledBack)]);
    facts.course = Course::AtRest;
    assert_eq!(ailing(&facts, &nobody()), None);
    let told = of_operation(&facts, OPERATION);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].code, "writer_ended");
    assert!(told[0].message.contains("nothing of it is left"), "{}", told[0].message);
    assert_eq!(of_operation(&facts, Uuid::nil()), []);
    // One that has committed without a table that was seen: nothing to compare, and told all the same.
    let mut facts = at_rest();
    found(&mut facts, writer(&[]));
    note(&mut facts, &[ended(Fate::Committed)]);
    assert_eq!(next(&facts, &nobody()), None);
    let said = ailing(&facts, &nobody()).unwrap().message;
    assert!(said.ends_with("committed: in no table of the application that was seen"), "{said}");
}

#[test]
fn events_that_cannot_follow_are_refused_and_the_oldest_are_forgotten() {
    let refused = |facts: &Facts, event: Event| {
        let entry = Entry { seq: facts.next_seq, at: now(), epoch: 1, event };
        assert!(facts.clone().fold(&entry).is_err(), "{entry:?}");
    };
    let mut facts = at_rest();
    refused(&facts, ended(Fate::Committed));
    refused(&facts, compared(vec![]));
    found(&mut facts, writer(&[ledger()]));
    refused(&facts, compared(vec![]));
    note(&mut facts, &[ended(Fate::Committed)]);
    refused(&facts, ended(Fate::RolledBack));
    refused(&facts, Event::StrayFound { writer: writer(&[]) });
    note(&mut facts, &[compared(vec![left(1, 0)])]);
    refused(&facts, compared(vec![]));
    let planned = Facts { course: Course::Planned, ..at_rest() };
    refused(&planned, Event::StrayFound { writer: writer(&[]) });
    for xid in 1..100 {
        found(&mut facts, Writer { xid, ..writer(&[]) });
        note(&mut facts, &[Event::StrayEnded { side: Side::Source, xid, fate: Fate::RolledBack }]);
    }
    assert!(facts.strays.len() <= 20);
    assert!(facts.strays.iter().any(|stray| stray.left.is_some()), "what stands is not forgotten");
}

#[test]
fn those_that_went_to_make_room_are_counted_until_a_person_has_compared_everything() {
    let mut facts = at_rest();
    for xid in 0..100 {
        found(&mut facts, Writer { xid, ..writer(&[]) });
        note(&mut facts, &[Event::StrayEnded { side: Side::Source, xid, fate: Fate::Committed }]);
    }
    assert!(facts.strays.len() <= 20);
    let said = ailing(&facts, &nobody()).unwrap().message;
    assert!(said.contains("; and 99 more before it"), "{said}");
    let verified = |began_at| Verified { began_at, ..crate::verify::tests::verified(0) };
    fold::answered(&mut facts, &verified(now() - SignedDuration::from_secs(1)));
    assert!(ailing(&facts, &nobody()).unwrap().message.contains("and 99 more"));
    // One that went had ended behind those that are left, and behind the beginning of a verification.
    facts.strays_forgotten.last_ended_at = Some(now() + SignedDuration::from_secs(1));
    fold::answered(&mut facts, &verified(now()));
    let said = ailing(&facts, &nobody()).unwrap().message;
    assert!(said.starts_with("80 transactions wrote on a closed side"), "{said}");
    fold::answered(&mut facts, &verified(now() + SignedDuration::from_secs(1)));
    assert_eq!((ailing(&facts, &nobody()), facts.strays_forgotten.number), (None, 0));
}

#[test]
fn an_event_of_the_journal_reads_as_it_was_written() {
    let events = [
        Event::StrayFound { writer: writer(&[ledger()]) },
        ended(Fate::Forgotten),
        compared(vec![left(1, 2)]),
    ];
    for event in events {
        let text = serde_json::to_string(&event).unwrap();
        assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event, "{text}");
    }
}
