//! Each command against a daemon that follows a script: what it prints where, and its exit code.

use std::sync::Arc;

use pgferry_api::{Blocker, Event, Finding, OperationState, Phase, Problem, Side, Verb, Verdict};
use pgferry_server::{Accepted, Command, MigrationState, NotReady, Refusal, RefusalStatus};
use serde_json::{Map, Value, json};

use super::Exit;
use super::testing::{Daemon, run_at};
use crate::render::sample;

/// Takes every request, as an operation that has already ended in `state`.
fn ended(
    command: &Command,
    shown: &mut MigrationState,
    state: OperationState,
) -> Result<Accepted, Refusal> {
    let mut operation = sample::operation(command.verb, state);
    if state != OperationState::Succeeded {
        operation.problem = Some(Problem::new(409, "stall_budget_used", "too slow", "again"));
    }
    shown.operations = vec![operation];
    // What a daemon answers is the operation as it was accepted: running.
    Ok(Accepted::Operation(sample::operation(command.verb, OperationState::Running)))
}

fn succeed(command: &Command, shown: &mut MigrationState) -> Result<Accepted, Refusal> {
    ended(command, shown, OperationState::Succeeded)
}

fn refuse(_: &Command, _: &mut MigrationState) -> Result<Accepted, Refusal> {
    Err(Refusal {
        status: RefusalStatus::Conflict,
        code: "not_ready".to_owned(),
        detail: "the migration is not ready".to_owned(),
        hint: "pgferry watch".to_owned(),
        blockers: vec![
            Blocker::new("phase", "the copy runs", "wait"),
            Blocker::new("lag_too_high", "2 s behind", "wait longer"),
        ],
    })
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn an_operation_s_end_is_the_exit_code() {
    for (react, exit) in [
        (succeed as fn(&Command, &mut MigrationState) -> _, Exit::Done),
        (|c, s| ended(c, s, OperationState::Failed), Exit::Failed),
        (|c, s| ended(c, s, OperationState::Aborted), Exit::Failed),
        (|c, s| ended(c, s, OperationState::Blocked), Exit::Blocked),
    ] {
        let daemon = Daemon::of(vec![sample::ready()], react);
        for verb in ["cutover", "rollback", "abort", "pause", "resume", "finish", "abandon"] {
            let ran = daemon.run(verb);
            assert_eq!(ran.exit, exit, "{verb}: {ran:?}");
            assert!(ran.err.contains("accepted"), "{ran:?}");
            assert_eq!(ran.err.contains("too slow [stall_budget_used]"), exit != Exit::Done);
        }
    }
}

#[test]
fn a_switchover_tells_its_steps_while_it_waits_and_its_times_at_the_end() {
    let daemon = Daemon::of(vec![sample::ready()], |command, shown| {
        let operation = sample::operation(command.verb, OperationState::Running);
        shown.operations = vec![operation.clone()];
        shown.migration.phase = Phase::RollingBack;
        shown.migration.step = Some("drain".to_owned());
        shown.migration.condition = None;
        shown.migration.last_switchover = None;
        Ok(Accepted::Operation(operation))
    });
    let ran = daemon.run_and("rollback", |said| {
        if said.contains("drain") {
            daemon.change(|shown| {
                shown.migration = sample::ready();
                shown.operations[0].state = OperationState::Succeeded;
            });
        }
    });
    assert!(ran.err.contains("rolling_back\n  drain\n"), "{ran:?}");
    assert_eq!(ran.exit, Exit::Done, "{ran:?}");
    assert!(ran.out.contains("write stall 31.2 ms"), "{ran:?}");
    assert!(ran.out.contains("fence_active"), "{ran:?}");
}

#[test]
fn a_daemon_that_is_started_again_is_waited_for() {
    let daemon = Daemon::of(vec![sample::ready()], |command, shown| {
        shown.migration.step = Some("drain".to_owned());
        shown.operations = vec![sample::operation(command.verb, OperationState::Running)];
        Ok(Accepted::Operation(shown.operations[0].clone()))
    });
    let ran = daemon.run_and("cutover", |said| {
        if said.contains("drain") {
            daemon.stop();
        } else if said.contains("still trying") {
            daemon.change(|shown| shown.operations[0].state = OperationState::Succeeded);
            daemon.start();
        }
    });
    assert_eq!(ran.exit, Exit::Done, "{ran:?}");
    assert!(ran.err.contains("the daemon answers again"), "{ran:?}");
}

#[test]
fn json_is_one_document_on_stdout_and_talk_stays_on_stderr() {
    let daemon = Daemon::of(vec![sample::ready()], succeed);
    let ran = daemon.run("cutover --output json");
    assert_eq!(
        ran.out.trim_end(),
        serde_json::to_string(&sample::operation(Verb::Cutover, OperationState::Succeeded))
            .unwrap()
    );
    let status = daemon.run("status --output json");
    assert_eq!(json_lines(&status.out), [serde_json::to_value(sample::ready()).unwrap()]);
    let all = daemon.run("status --all --output json");
    assert_eq!(json_lines(&all.out)[0]["migrations"].as_array().unwrap().len(), 1);
}

#[test]
fn start_and_no_wait_return_when_accepted() {
    let daemon = Daemon::of(vec![sample::planned()], |command, _| {
        Ok(Accepted::Operation(sample::operation(command.verb, OperationState::Running)))
    });
    for line in ["start", "start orders", "cutover --no-wait", "preflight --no-wait"] {
        let ran = daemon.run(line);
        assert_eq!((ran.exit, ran.err.as_str()), (Exit::Done, ""), "{line}");
        assert!(ran.out.contains("accepted (operation 01936b2a-"), "{ran:?}");
    }
}

#[test]
fn a_refusal_prints_all_blockers_and_ends_with_2() {
    let daemon = Daemon::of(vec![sample::ready()], refuse);
    for line in ["cutover", "start", "cutover --dry-run", "preflight"] {
        let ran = daemon.run(line);
        assert_eq!((ran.exit, ran.out.as_str()), (Exit::Blocked, ""), "{line}");
        assert_eq!(
            ran.err,
            "Conflict: the migration is not ready [not_ready]\n  pgferry watch\n\
             - the copy runs [phase]\n  wait\n- 2 s behind [lag_too_high]\n  wait longer\n"
        );
    }
    let ran = daemon.run("cutover --output json");
    assert_eq!(json_lines(&ran.out)[0]["code"], "not_ready");
}

#[test]
fn what_is_no_conflict_ends_with_1() {
    let daemon = Daemon::of(vec![sample::ready()], |_, shown| {
        shown.readiness = vec![NotReady::new(NotReady::NOT_LEADER, "another daemon leads")];
        Err(Refusal {
            status: RefusalStatus::Unavailable,
            code: "stopping".to_owned(),
            detail: "the daemon stops".to_owned(),
            hint: String::new(),
            blockers: vec![],
        })
    });
    for (line, word) in [
        ("cutover", "stopping"),
        ("cutover", "not_leader"),
        ("verify", "not_leader"),
        ("status unknown", "configured: orders"),
    ] {
        let ran = daemon.run(line);
        assert_eq!(ran.exit, Exit::Failed, "{line}");
        assert!(ran.err.contains(word), "{line}: {ran:?}");
    }
}

#[test]
fn nobody_there_is_1_with_a_hint() {
    let ran = run_at("http://127.0.0.1:1", "status", |_| {});
    assert_eq!(ran.exit, Exit::Failed);
    assert!(ran.err.contains("pgferry serve --config"), "{ran:?}");
}

#[test]
fn a_name_may_be_left_out_only_when_there_is_one() {
    let mut second = sample::planned();
    second.name = "stock".parse().unwrap();
    let daemon = Daemon::of(vec![sample::ready(), second], succeed);
    for line in ["status", "cutover", "watch", "events"] {
        let ran = daemon.run(line);
        assert_eq!(ran.exit, Exit::Usage, "{line}");
        assert!(ran.err.contains("name one of: orders, stock"), "{ran:?}");
    }
    assert_eq!(daemon.run("status stock").exit, Exit::Done);
    assert_eq!(daemon.run("status --all").exit, Exit::Done);
    assert_eq!(Daemon::of(vec![], succeed).run("status").exit, Exit::Usage);
}

#[test]
fn a_dry_run_prints_the_verdict_and_ends_with_it() {
    let go = Daemon::of(vec![sample::ready()], |command, shown| {
        assert!(command.dry_run);
        Ok(Accepted::Verdict(shown.verdict.clone()))
    });
    let ran = go.run("cutover --dry-run");
    assert_eq!((ran.exit, ran.err.as_str()), (Exit::Done, ""));
    assert_eq!(ran.out, "orders: cutover can begin: nothing stands in the way\n");

    let blocked = Daemon::of(vec![sample::ready()], |_, shown| {
        let blockers = vec![Blocker::new("lag_too_high", "2 s behind", "wait")];
        Ok(Accepted::Verdict(Verdict::of(shown.verdict.kind, blockers)))
    });
    let ran = blocked.run("cutover --dry-run");
    assert_eq!(ran.exit, Exit::Blocked);
    assert!(ran.out.contains("- 2 s behind [lag_too_high]\n  wait"), "{ran:?}");
    let ran = blocked.run("cutover --dry-run --output json");
    assert_eq!((ran.exit, &json_lines(&ran.out)[0]["go"]), (Exit::Blocked, &json!(false)));
}

#[test]
fn open_passive_reaches_the_daemon() {
    let daemon = Daemon::of(vec![sample::ready()], |command, shown| {
        let state = if command.open_passive { "succeeded" } else { "failed" };
        ended(command, shown, state.parse().unwrap())
    });
    assert_eq!(daemon.run("finish --open-passive").exit, Exit::Done);
    assert_eq!(daemon.run("abandon --open-passive").exit, Exit::Done);
    assert_eq!(daemon.run("finish").exit, Exit::Failed);
}

#[test]
fn preflight_waits_and_prints_the_findings() {
    let with = |react| Daemon::of(vec![sample::planned()], react).run("preflight");
    let clean = with(|command, shown| {
        shown.findings = Some(vec![Finding::warn("large_objects", "source", "m", "h")]);
        succeed(command, shown)
    });
    assert_eq!(clean.exit, Exit::Done, "{clean:?}");
    assert!(clean.out.contains("orders: 0 in the way, 1 to know"), "{clean:?}");

    let blocked = with(|command, shown| {
        shown.findings = Some(vec![Finding::block("wal_level", "source", "m", "ALTER SYSTEM …")]);
        ended(command, shown, OperationState::Blocked)
    });
    assert_eq!(blocked.exit, Exit::Blocked);
    assert!(blocked.out.contains("ALTER SYSTEM …"), "{blocked:?}");

    let failed = with(|command, shown| ended(command, shown, OperationState::Failed));
    assert_eq!(failed.exit, Exit::Failed);
    assert!(failed.err.contains("too slow"), "{failed:?}");
}

#[test]
fn watch_ends_where_the_migration_rests() {
    let daemon = Daemon::of(vec![sample::copying()], succeed);
    let ran = daemon.run_and("watch --output json", |said| {
        if said.contains("copying") {
            daemon.change(|shown| shown.migration = sample::ready());
        }
    });
    assert_eq!((ran.exit, ran.err.as_str()), (Exit::Done, ""));
    let documents = json_lines(&ran.out);
    let phases: Vec<_> = documents.iter().map(|document| &document["phase"]).collect();
    assert_eq!(phases, ["copying", "ready"]);

    let text = daemon.run("watch");
    assert!(text.err.starts_with("orders: ready"), "{text:?}");
    assert!(text.out.starts_with("orders: ready"), "{text:?}");

    let mut over = sample::ready();
    over.phase = Phase::Finished;
    over.active = Side::Destination;
    let daemon = Daemon::of(vec![over], succeed);
    assert_eq!(daemon.run("watch").exit, Exit::Done);
    assert_eq!(daemon.run("watch --until finished").exit, Exit::Done);
    assert_eq!(daemon.run("watch --until ready").exit, Exit::Failed);
}

#[test]
fn watch_until_a_phase_that_was_passed_ends_at_once() {
    let daemon = Daemon::of(vec![sample::ready()], succeed);
    let ran = daemon.run("watch --until following");
    assert_eq!(ran.exit, Exit::Done);
    assert!(ran.err.contains("following was passed already"), "{ran:?}");
    daemon.change(|shown| shown.migration.phase = Phase::Abandoning);
    let ran = daemon.run("watch --until ready");
    assert_eq!(ran.exit, Exit::Failed);
    assert!(ran.err.contains("ready can no longer come"), "{ran:?}");
}

#[test]
fn the_copy_is_shown_with_its_tables_at_work() {
    let daemon = Daemon::of(vec![sample::copying()], succeed);
    daemon.set_copy(sample::copy_report());
    let shown = daemon.run("status").out;
    assert!(shown.contains("1.4 s left, 7 of 40 indexes"), "{shown}");
    assert!(shown.contains("public.orders") && shown.contains("public.items"), "{shown}");
    assert!(!shown.contains("public.events"), "a table that waits is not at work: {shown}");

    let shown = daemon.run("status --tables").out;
    for table in ["public.orders", "public.items", "public.events", "public.countries"] {
        assert!(shown.contains(table), "{shown}");
    }
    let document = daemon.run("status --tables --output json");
    assert_eq!(json_lines(&document.out), [serde_json::to_value(sample::copy_report()).unwrap()]);
    let status = daemon.run("status --output json");
    assert_eq!(json_lines(&status.out), [serde_json::to_value(sample::copying()).unwrap()]);

    let watched = daemon.run_and("watch", |said| {
        if said.contains("left") {
            daemon.change(|shown| shown.migration = sample::ready());
        }
    });
    assert_eq!(watched.exit, Exit::Done);
    assert!(watched.err.contains("500.0 KiB/s, 10,000 rows/s, 1.4 s left"), "{watched:?}");
}

#[test]
fn before_the_copy_there_is_no_table_to_list() {
    let daemon = Daemon::of(vec![sample::planned()], succeed);
    let ran = daemon.run("status --tables");
    assert_eq!(ran.exit, Exit::Done);
    assert!(ran.out.contains("no table is being copied now"), "{ran:?}");
}

#[test]
fn events_are_printed_after_the_given_one() {
    let daemon = Daemon::of(vec![sample::ready()], |command, shown| {
        let event = |seq| Event {
            seq,
            at: "2026-11-21T06:00:00Z".parse().unwrap(),
            epoch: 1,
            event: "completed".to_owned(),
            fields: Map::new(),
        };
        shown.events = Arc::new(vec![event(1), event(2)]);
        succeed(command, shown)
    });
    daemon.run("pause");
    assert_eq!(daemon.run("events").out.lines().count(), 2);
    let ran = daemon.run("events orders --after 1");
    assert_eq!(ran.out, "    2  2026-11-21T06:00:00.000Z  epoch 1  completed\n");
    let ran = daemon.run("events --after 1 --output json");
    assert_eq!(json_lines(&ran.out)[0]["events"][0]["seq"], 2);
}
