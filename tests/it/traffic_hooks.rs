//! Commands and webhooks: a veto before the line, patience behind it, and what each is told.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use pgferry_plan::Side;
use pgferry_tests::config::migration;
use pgferry_tests::pair::PGFERRY_PASSWORD;
use pgferry_tests::tempdir::TempDir;
use pgferry_tests::webhook::Receiver;
use pgferry_tests::{ConfigFile, Daemon, Ledger, LedgerOptions, Pair, Profile, eventually};
use toml::Value;

use crate::settled::{SOON, assert_whole, order_and_die, rest, wait_for_go};

const KEY: &str = "a key that both know";

fn base(pair: &Pair) -> ConfigFile {
    ConfigFile::for_pair(pair).insert_only(&["bank.ledger_keyless"])
}

/// A script that writes its environment into a file of its event's name, and then does as it is told.
fn script(dir: &Path, name: &str, then: &str) -> PathBuf {
    let path = dir.join(name);
    let text = format!(
        "#!/bin/sh\nenv > {}/$PGFERRY_EVENT.$$\nprintf '%s\\n' \"$PGFERRY_EVENT $1\" >> {}/calls\n{then}\n",
        dir.display(),
        dir.display()
    );
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn calls(dir: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(dir.join("calls")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn argv(path: &Path) -> Value {
    Value::Array(vec![path.to_string_lossy().into_owned().into(), "orders".into()])
}

#[test]
fn a_command_vetoes_before_the_line_is_repeated_behind_it_and_is_told_no_password() {
    let pair = Pair::with_bank();
    let dir = TempDir::new("hooks");
    let dir = dir.path();
    let veto = dir.join("veto");
    std::fs::write(&veto, "").unwrap();
    let before =
        format!("test -e {} || exit 0; echo the deployment is locked >&2; exit 3", veto.display());
    // Fails twice, by a count of its own.
    let after = format!("test $(grep -c '^after_line' {}/calls) -gt 2", dir.display());
    let config = base(&pair)
        .with(&migration("traffic.method"), "command")
        .with(&migration("traffic.before_line"), argv(&script(dir, "before", &before)))
        .with(&migration("traffic.after_line"), argv(&script(dir, "after", &after)))
        .with(&migration("traffic.aborted"), argv(&script(dir, "aborted", "")));
    let daemon = Daemon::start(&config);
    let ledger = Ledger::start(&pair, LedgerOptions::SLOW);
    daemon.bring_to_ready();

    let operation = daemon.carry_out("cutover");
    assert_eq!(operation["state"], "aborted", "{operation}");
    assert_eq!(operation["problem"]["code"], "hook_failed", "{operation}");
    let message = operation["problem"]["detail"].as_str().unwrap();
    assert!(message.contains("exit code 3: the deployment is locked"), "{message}");
    assert_eq!(daemon.migration()["last_switchover"]["write_stall_ms"], serde_json::Value::Null);
    assert_eq!(calls(dir), ["before_line orders", "aborted orders"]);
    assert_whole(&pair, &ledger, Side::Source);

    std::fs::remove_file(&veto).unwrap();
    std::fs::remove_file(dir.join("calls")).unwrap();
    daemon.succeed("cutover");
    let told =
        ["before_line orders", "after_line orders", "after_line orders", "after_line orders"];
    assert_eq!(calls(dir), told);
    assert_whole(&pair, &ledger, Side::Destination);

    let mut environments = 0;
    for file in std::fs::read_dir(dir).unwrap().flatten() {
        if file.file_name().to_string_lossy().starts_with("after_line.") {
            let environment = std::fs::read_to_string(file.path()).unwrap();
            assert!(!environment.contains(PGFERRY_PASSWORD), "{environment}");
            let port = pair.destination.port();
            for wanted in [
                "PGFERRY_MIGRATION=shop",
                "PGFERRY_KIND=cutover",
                "PGFERRY_FROM=source",
                "PGFERRY_TO=destination",
                "PGFERRY_SOURCE_HOST=127.0.0.1",
                &format!("PGFERRY_DESTINATION_PORT={port}"),
                "PGFERRY_DESTINATION_DBNAME=shop",
                "PGFERRY_OPERATION=",
                "PGFERRY_EPOCH=",
            ] {
                assert!(environment.contains(wanted), "{wanted} is not in\n{environment}");
            }
            environments += 1;
        }
    }
    assert_eq!(environments, 3);
}

#[test]
fn an_abort_is_heard_while_a_command_runs_and_ends_it() {
    let pair = Pair::with_bank();
    let dir = TempDir::new("hooks");
    let dir = dir.path();
    let config = base(&pair)
        .with(&migration("traffic.method"), "command")
        .with(&migration("traffic.deadline"), "50s")
        .with(&migration("traffic.before_line"), argv(&script(dir, "before", "sleep 45")))
        .with(&migration("traffic.aborted"), argv(&script(dir, "aborted", "")));
    let daemon = Daemon::start(&config);
    daemon.bring_to_ready();
    let cutover = daemon.order("cutover");
    assert_eq!(cutover.status, 202);
    eventually("the hook to run", SOON, || {
        if calls(dir).is_empty() { Err("not yet".to_owned()) } else { Ok(()) }
    });
    daemon.succeed("abort");
    assert_eq!(daemon.wait_for_operation(&cutover)["state"], "aborted");
    assert_eq!(calls(dir), ["before_line orders", "aborted orders"]);
    assert_eq!(rest(&daemon), Side::Source);
}

#[test]
fn a_webhook_is_signed_repeated_behind_the_line_and_told_again_by_a_daemon_that_came_back() {
    let pair = Pair::with_bank();
    let receiver = Receiver::start(KEY);
    let config = base(&pair)
        .with(&migration("traffic.method"), "webhook")
        .with(&migration("traffic.url"), receiver.url())
        .with(&migration("traffic.secret_env"), "HOOK_KEY");
    let mut daemon = Daemon::prepare(&config, Profile::Test);
    daemon.set_env("HOOK_KEY", KEY);
    daemon.serve();
    let ledger = Ledger::start(&pair, LedgerOptions::SLOW);
    daemon.bring_to_ready();

    receiver.refuse("before_line", 1);
    let operation = daemon.carry_out("cutover");
    assert_eq!(operation["state"], "aborted", "{operation}");
    let message = operation["problem"]["detail"].as_str().unwrap();
    assert!(message.contains("503") && message.contains("the deployment is locked"), "{message}");
    assert_eq!(receiver.events(), ["before_line", "aborted"]);
    assert_whole(&pair, &ledger, Side::Source);

    receiver.refuse("after_line", 2);
    daemon.succeed("cutover");
    let events = receiver.events();
    assert_eq!(events[2..], ["before_line", "after_line", "after_line", "after_line"]);
    assert_whole(&pair, &ledger, Side::Destination);

    // Killed right behind the line: the daemon that is back tells it, under the same operation.
    daemon.kill();
    daemon.serve_until("after_effect:resume_traffic");
    wait_for_go(&daemon);
    order_and_die(&daemon, "rollback");
    daemon.wait_for_end(SOON);
    daemon.serve();
    assert_eq!(rest(&daemon), Side::Source);
    assert_whole(&pair, &ledger, Side::Source);
    let calls = receiver.calls();
    let last = &calls[calls.len() - 1];
    assert_eq!(
        (&last.body["event"], &last.body["kind"]),
        (&"after_line".into(), &"rollback".into())
    );
    assert_eq!((&last.body["from"], &last.body["to"]), (&"destination".into(), &"source".into()));
    assert_eq!(last.body["source"]["port"], pair.source.port());
    assert!(last.body["sent_at"].as_str().is_some_and(|at| at.starts_with("20")), "{last:?}");
    let begun = calls.iter().rev().find(|call| call.body["event"] == "before_line").unwrap();
    assert_eq!(begun.body["operation"], last.body["operation"]);
    assert!(calls.iter().all(|call| call.signed), "{calls:?}");
    assert!(!daemon.log().contains(KEY));
}
