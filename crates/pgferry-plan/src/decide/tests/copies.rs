//! A schema that is there already, what is set aside for the copy, and the copies themselves.

use super::*;

fn aside() -> SetAside {
    SetAside {
        kind: AsideKind::Constraint,
        table: TableName::new("public", "orders"),
        name: "orders_fk".to_owned(),
        definition: Some("ALTER TABLE …".to_owned()),
    }
}

#[test]
fn a_schema_that_is_there_is_made_quiet_once_nothing_differs() {
    let facts = at(Step::CopySchema);
    let mut world = World { job: Seen::Absent, ..World::default() };
    world.schema = Seen::Present(SchemaView { tables: 1, ..SchemaView::default() });
    assert!(matches!(decide(&facts, &world, &policy()), Decision::Wait(_)), "not compared yet");
    let mut view = ExistingView { findings: Vec::new(), to_set_aside: vec![aside()] };
    world.existing = Seen::Present(view.clone());
    let act = decide(&facts, &world, &policy());
    assert_eq!(act, Decision::Act(Action::SetAside { objects: vec![aside()] }));
    world.job = Seen::Present(JobView::Done("setting aside".to_owned()));
    assert!(matches!(decide(&facts, &world, &policy()), Decision::Blocked(_)), "in vain");
    world.job = Seen::Absent;
    view.findings = vec![Finding::block("schema_differs", "", "", "")];
    world.existing = Seen::Present(view.clone());
    assert!(matches!(decide(&facts, &world, &policy()), Decision::Blocked(_)));
    view = ExistingView { findings: vec![Finding::warn("extra_indexes", "", "", "")], ..view };
    view.to_set_aside.clear();
    world.existing = Seen::Present(view);
    assert_eq!(decide(&facts, &world, &policy()), done());
}

/// Facts at the end of a migration that was abandoned with this intent in its `copy_schema`.
fn dropping_nodes_after(set_aside: bool) -> Facts {
    let mut facts = at(Step::CopySchema);
    let mut write = |event| {
        let entry = Entry { seq: facts.next_seq, at: Timestamp::UNIX_EPOCH, epoch: 1, event };
        facts.fold(&entry).unwrap();
    };
    if set_aside {
        write(Event::Intended { step: Step::CopySchema, intent: Intent::SetAside });
    }
    let operation = Uuid::from_u128(8);
    write(Event::Requested { operation, verb: Verb::Abandon, open_passive: false, force: false });
    for step in [
        Step::DrainBoth,
        Step::DisableSubscriptions,
        Step::DropSubscriptions,
        Step::CheckSlotsAndOrigins,
    ] {
        write(Event::Completed { step, evidence: Evidence::Nothing });
    }
    facts
}

#[test]
fn what_was_set_aside_is_put_back_once_and_named_when_it_cannot() {
    let mut world = World { job: Seen::Absent, ..World::default() };
    for side in Side::BOTH {
        world.node_mut(side).pglogical_node = Seen::Absent;
        world.node_mut(side).record = Seen::Absent;
    }
    assert_eq!(decide(&dropping_nodes_after(false), &world, &policy()), done());
    let mut facts = dropping_nodes_after(true);
    assert!(matches!(decide(&facts, &world, &policy()), Decision::Wait(_)), "not seen");
    world.still_aside = Seen::Absent;
    assert_eq!(decide(&facts, &world, &policy()), done());
    world.still_aside = Seen::Present(vec![aside()]);
    assert_eq!(decide(&facts, &world, &policy()), Decision::Act(Action::PutBack));
    let event = Event::Intended { step: Step::DropNodes, intent: Intent::PutBack };
    let seq = facts.next_seq;
    facts.fold(&Entry { seq, at: Timestamp::UNIX_EPOCH, epoch: 1, event }).unwrap();
    world.job = Seen::Present(JobView::Running("putting back".to_owned()));
    assert!(matches!(decide(&facts, &world, &policy()), Decision::Wait(_)));
    world.job = Seen::Present(JobView::Done("putting back".to_owned()));
    let Decision::Done(Evidence::Leftovers { left }) = decide(&facts, &world, &policy()) else {
        panic!("what is missing has to be named");
    };
    assert_eq!((left[0].code.as_str(), left[0].hint.as_str()), ("set_aside", "ALTER TABLE …"));
    world.still_aside = Seen::Absent;
    assert_eq!(decide(&facts, &world, &policy()), done());
}

#[test]
fn what_the_build_of_indexes_has_restored_is_set_aside_no_more() {
    let mut facts = at(Step::BuildIndexes);
    facts.set_aside = true;
    let event = Event::Completed { step: Step::BuildIndexes, evidence: Evidence::Nothing };
    let seq = facts.next_seq;
    facts.fold(&Entry { seq, at: Timestamp::UNIX_EPOCH, epoch: 1, event }).unwrap();
    assert!(!facts.set_aside);
}

#[test]
fn a_copy_that_ended_and_leaves_tables_out_is_told_and_not_repeated() {
    let snapshot = Lsn(16);
    let mut facts = at(Step::CopyRows);
    let mut world = World { job: Seen::Absent, ..World::default() };
    world.copy = Seen::Present(CopyView { held: Some(snapshot), tables: 2, ..CopyView::default() });
    world.schema = Seen::Present(SchemaView::default());
    world.forward.subscription = Seen::Present(SubscriptionView {
        enabled: false,
        initialized: true,
        worker: false,
        real_sets: true,
        forwards_nothing: true,
        slot: "pgl".to_owned(),
    });
    world.forward.slot =
        Seen::Present(SlotView { active_pid: None, confirmed_flush: Lsn(8), lost: false });
    world.lag = Seen::Present(crate::lag::LagReport::default());
    let copy = Decision::Act(Action::CopyRows { snapshot_lsn: snapshot });
    assert_eq!(copying::copy_rows(&facts, &world), copy);
    facts.intents.push(Intent::CopyRows { snapshot_lsn: snapshot });
    assert_eq!(copying::copy_rows(&facts, &world), copy, "a daemon that came back goes on");
    world.job = Seen::Present(JobView::Done("copying rows".to_owned()));
    let Decision::Blocked(blockers) = copying::copy_rows(&facts, &world) else {
        panic!("it would loop without a word")
    };
    assert_eq!(blockers[0].code, "copy_incomplete");
}

fn native_policy() -> Policy {
    Policy { native_copy: true, ..policy() }
}

#[test]
fn a_copy_of_pglogicals_is_counted_before_it_is_believed() {
    let facts = at(Step::CopyRows);
    let mut world = World { job: Seen::Absent, ..World::default() };
    let mut see = |view: NativeCopyView| {
        world.native = Seen::Present(view);
        decide(&facts, &world, &native_policy())
    };
    let view = NativeCopyView { tables: 2, worker: true, ..NativeCopyView::default() };
    for status in [None, Some('i'), Some('s'), Some('d'), Some('c'), Some('u'), Some('w')] {
        let decision = see(NativeCopyView { status, ..view.clone() });
        assert!(matches!(decision, Decision::Wait(_)), "{status:?}: {decision:?}");
        let decision = see(NativeCopyView { status, worker: false, ..view.clone() });
        let broken = matches!(status, Some('s' | 'd' | 'c' | 'w'));
        assert_eq!(matches!(decision, Decision::Blocked(_)), broken, "{status:?}: {decision:?}");
    }
    let ready = NativeCopyView { status: Some('r'), ..view };
    let counting = Decision::Act(Action::CountRows);
    assert_eq!(see(ready.clone()), counting);
    assert_eq!(see(NativeCopyView { counted: 1, ..ready.clone() }), counting);
    assert!(matches!(see(NativeCopyView { counted: 2, ..ready.clone() }), Decision::Done(_)));

    let blocker = Blocker::new("rows_missing", "one is short", "");
    let retry_at = Timestamp::UNIX_EPOCH + Duration::from_secs(60);
    world.now = Timestamp::UNIX_EPOCH;
    world.native = Seen::Present(ready);
    world.job = Seen::Present(JobView::Failed { blocker: blocker.clone(), retry_at });
    assert_eq!(decide(&facts, &world, &native_policy()), Decision::Blocked(vec![blocker]));
}

#[test]
fn nothing_follows_for_a_copy_of_pglogicals_from_a_look_that_saw_nothing() {
    for step in [
        Step::CopySchema,
        Step::CreateForwardSubscription,
        Step::CopyRows,
        Step::BuildIndexes,
        Step::StartForwardStream,
    ] {
        for job in [Seen::default(), Seen::Absent] {
            let world = World { job, ..World::default() };
            let decision = decide(&at(step), &world, &native_policy());
            assert!(matches!(decision, Decision::Wait(_)), "{step}: {decision:?}");
        }
        let absent = World {
            job: Seen::Absent,
            schema: Seen::Absent,
            existing: Seen::Absent,
            native: Seen::Absent,
            missing_indexes: Seen::Absent,
            ..World::default()
        };
        let decision = decide(&at(step), &absent, &native_policy());
        assert!(!matches!(decision, Decision::Act(_)), "{step}: {decision:?}");
    }
}

#[test]
fn keys_are_there_before_pglogical_copies() {
    let mut facts = at(Step::CopySchema);
    let mut world = World { existing: Seen::Absent, ..World::default() };
    world.schema = Seen::Present(SchemaView { tables: 1, ..SchemaView::default() });
    // The tables' own job has ended well, and that says nothing about the keys.
    world.job = Seen::Present(JobView::Done("copying the schema".to_owned()));
    assert!(matches!(decide(&facts, &world, &native_policy()), Decision::Wait(_)));
    world.missing_indexes = Seen::Present(vec!["index orders_pkey is missing".to_owned()]);
    assert_eq!(decide(&facts, &world, &native_policy()), Decision::Act(Action::BuildKeys));
    assert_eq!(decide(&facts, &world, &policy()), done(), "a copy of ours builds them afterwards");
    let event = Event::Intended { step: Step::CopySchema, intent: Intent::BuildKeys };
    let seq = facts.next_seq;
    facts.fold(&Entry { seq, at: Timestamp::UNIX_EPOCH, epoch: 1, event }).unwrap();
    assert!(matches!(decide(&facts, &world, &native_policy()), Decision::Blocked(_)), "in vain");
    world.missing_indexes = Seen::Present(Vec::new());
    assert_eq!(decide(&facts, &world, &native_policy()), done());
}
