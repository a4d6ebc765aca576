//! A side that is lost for good: the other one is opened by force, what may be lost is said first,
//! and nothing of the lost side arrives afterwards.

use std::os::unix::fs::PermissionsExt;

use pgferry_plan::Side;
use pgferry_tests::config::{PASSWORD_VARIABLE, migration};
use pgferry_tests::daemon::PHASE_DEADLINE;
use pgferry_tests::pgbouncer::in_front;
use pgferry_tests::process;
use pgferry_tests::tempdir::TempDir;
use pgferry_tests::{
    ConfigFile, DATABASE, Daemon, Ledger, LedgerOptions, Pair, PgBouncer, Proxy, Shutdown, Wire,
    content, eventually, leftovers,
};
use serde_json::{Value, json};

use crate::settled::{SOON, wait_for_verdict};

/// Written on the side that is then lost, and never seen again.
const BACKLOG: &str = "INSERT INTO bank.ledger (client, seq) VALUES (900, 1); \
     UPDATE bank.balances SET amount = 1000000 WHERE account = 64";

fn backlog_rows(pair: &Pair, side: Side) -> i64 {
    pair.admin(side).number("SELECT count(*) FROM bank.ledger WHERE client = 900")
}

/// Leaves `lost` with acknowledged writes that never reached the other side, and stops its server.
fn lose(pair: &mut Pair, ledger: &Ledger, lost: Side) {
    ledger.hold();
    content::wait_until_settled(pair, SOON);
    let lost_side = pair.admin(lost);
    // Nothing leaves it any more: what only waits to be applied would still be.
    for sender in lost_side.column("SELECT pid::text FROM pg_stat_replication") {
        process::signal(sender.parse().unwrap(), "STOP");
    }
    lost_side.run(BACKLOG);
    drop(lost_side);
    pair.cluster_mut(lost).stop(Shutdown::Immediate);
}

fn force(daemon: &Daemon, verb: &str) -> Value {
    let accepted = daemon.post(&format!("/v1/migrations/shop/{verb}"), &json!({"force": true}));
    assert_eq!(accepted.status, 202, "{verb} was refused: {}", accepted.body);
    let operation = daemon.wait_for_operation(&accepted);
    assert_eq!(operation["state"], "succeeded", "{operation}");
    operation
}

/// What was promised before the loss may be gone; what is promised afterwards is not, and no number
/// is handed out twice.
fn assert_lives_on(pair: &Pair, ledger: &Ledger, survivor: Side) {
    ledger.resume();
    ledger.wait_for_writes(10, SOON);
    ledger.hold();
    let report = ledger.check(pair.cluster(survivor));
    assert_eq!((report.lost, report.duplicated, report.torn), (0, 0, 0), "{report:?}");
    assert!(report.impossible.is_empty(), "{report:?}");
    ledger.resume();
}

#[test]
fn a_source_that_is_lost_is_left_by_force_and_nothing_of_it_arrives_later() {
    let mut pair = Pair::with_bank();
    let mut daemon = Daemon::for_bank(&pair);
    let ledger = Ledger::start(&pair, LedgerOptions::SLOW);
    daemon.bring_to_ready();
    wait_for_verdict(&daemon);

    let refused = daemon.post("/v1/migrations/shop/cutover", &json!({"force": true}));
    assert_eq!((refused.status, &refused.body["code"]), (409, &json!("side_not_lost")));
    let wrong = daemon.post("/v1/migrations/shop/rollback", &json!({"force": true}));
    assert_eq!((wrong.status, &wrong.body["code"]), (409, &json!("not_ready")));

    lose(&mut pair, &ledger, Side::Source);
    assert_eq!(daemon.order("cutover").status, 409, "an ordinary cutover needs both sides");
    // A daemon that is started now cannot raise the epoch on both sides, and takes the order.
    daemon.kill();
    daemon.serve();
    let mut told = String::new();
    eventually("the dry run to go", SOON, || {
        let output = daemon.command(&["cutover", "--force", "--dry-run"]);
        told = output.stdout.clone() + &output.stderr;
        if output.code == Some(0) { Ok(()) } else { Err(told.clone()) }
    });
    assert!(told.contains("may be lost"), "{told}");
    let unconfirmed = daemon.command(&["cutover", "--force"]);
    assert_eq!(unconfirmed.code, Some(2), "{unconfirmed:?}");
    assert!(!pair.is_open(Side::Destination), "opened without --yes");

    let forced = daemon.command(&["cutover", "--force", "--yes"]);
    assert_eq!(forced.code, Some(0), "{forced:?}");
    assert!(forced.stderr.contains("may be lost"), "{forced:?}");
    assert_eq!(daemon.migration()["phase"], "cut_over");
    assert_eq!(daemon.migration()["condition"]["code"], "side_lost");
    assert_lives_on(&pair, &ledger, Side::Destination);

    // It comes back: closed at once, and what it held back stays where it is.
    ledger.hold();
    pair.source.start_again();
    eventually("the side that came back to be closed", SOON, || {
        if pair.is_open(Side::Source) { Err("it takes writes".to_owned()) } else { Ok(()) }
    });
    assert_eq!(backlog_rows(&pair, Side::Source), 1);
    ledger.resume();
    ledger.wait_for_writes(5, SOON);
    let slots = "SELECT count(*) FROM pg_replication_slots";
    assert_eq!(pair.admin(Side::Destination).number(slots), 0, "WAL is kept for the lost side");
    let subscriptions = "SELECT count(*) FROM pglogical.subscription";
    assert_eq!(pair.admin(Side::Destination).number(subscriptions), 0);
    assert_eq!(backlog_rows(&pair, Side::Destination), 0);
    assert_eq!(daemon.order("rollback").status, 409);

    daemon.succeed("finish");
    assert_eq!(daemon.migration()["phase"], "finished");
    assert_eq!(pair.admin(Side::Destination).value("SELECT to_regnamespace('pgferry')"), None);
    assert!(!pair.is_open(Side::Source));
}

#[test]
fn a_destination_that_is_lost_with_the_journal_is_left_by_force_from_the_sources_record() {
    let mut pair = Pair::with_bank();
    let before = leftovers::inventory(&pair.source);
    let config = ConfigFile::for_pair(&pair).insert_only(&["bank.ledger_keyless"]);
    let mut daemon = Daemon::start(&config);
    let ledger = Ledger::start(&pair, LedgerOptions::SLOW);
    daemon.bring_to_ready();
    daemon.succeed("cutover");
    ledger.wait_for_writes(5, SOON);
    // Values that the destination used up, and that only rows of it tell the source about.
    pair.admin(Side::Destination).run(
        "SELECT setval('bank.ledger_number_seq', last_value + 500000) FROM bank.ledger_number_seq",
    );
    ledger.wait_for_writes(5, SOON);

    lose(&mut pair, &ledger, Side::Destination);
    let mut refused = Value::Null;
    eventually("the journal to be missed", SOON, || {
        let answer = daemon.try_post("/v1/migrations/shop/rollback", &json!({"force": true}))?;
        refused = answer.body.clone();
        if answer.status == 409 && answer.body["code"] == "journal_lost" {
            Ok(())
        } else {
            Err(answer.body.to_string())
        }
    });
    assert!(refused["hint"].as_str().unwrap().contains("[journal]"), "{refused}");
    assert!(daemon.terminate().success());

    let moved = config
        .with("journal.dsn", pair.dsn(Side::Source))
        .with("journal.password_env", PASSWORD_VARIABLE)
        .with(&migration("autostart"), false);
    let daemon = Daemon::start(&moved);
    assert_ne!(daemon.order("start").status, 202, "the record of the source is in the way");
    let dry = daemon.post("/v1/migrations/shop/rollback?dry_run=true", &json!({"force": true}));
    assert_eq!((dry.status, &dry.body["go"]), (200, &json!(true)), "{}", dry.body);
    force(&daemon, "rollback");
    assert_eq!(daemon.migration()["phase"], "ready");
    assert_eq!(daemon.migration()["active"], "source");
    assert_lives_on(&pair, &ledger, Side::Source);

    let operation = daemon.carry_out("abandon");
    assert_eq!(operation["state"], "succeeded", "{operation}");
    assert!(operation["remains"].to_string().contains("side_lost"), "{operation}");
    assert_eq!(leftovers::since(&before, &pair.source), Vec::<String>::new());
    assert!(pair.is_open(Side::Source));
    assert_eq!(
        pair.source.sql(DATABASE, "SELECT 1 FROM bank.ledger WHERE client = 900").len(),
        0,
        "what the destination had not sent is lost, as was said"
    );
}

#[test]
fn pgbouncers_are_led_to_the_survivor_and_one_that_is_gone_is_named_and_led_over_later() {
    let mut pair = Pair::with_bank();
    let (one, mut two) = (PgBouncer::start(&pair), PgBouncer::start(&pair));
    let daemon = Daemon::start(&in_front(&pair, &[&one, &two]));
    let ledger = Ledger::with_configs(&[one.app_config()], LedgerOptions::SLOW);
    daemon.bring_to_ready();
    wait_for_verdict(&daemon);
    lose(&mut pair, &ledger, Side::Source);
    two.kill();
    let operation = force(&daemon, "cutover");
    let survivor = (pair.destination.port(), false);
    assert_eq!(one.leads_to(), survivor);
    assert_eq!(operation["remains"][0]["code"], "pgbouncer_unreachable", "{operation}");
    assert_lives_on(&pair, &ledger, Side::Destination);
    two.start_again();
    eventually("the one that came back to be led over", SOON, || {
        if two.leads_to() == survivor { Ok(()) } else { Err(format!("{:?}", two.leads_to())) }
    });
    let operation = daemon.carry_out("finish");
    assert_eq!(operation["state"], "succeeded", "{operation}");
    assert!(!operation["remains"].to_string().contains("pgbouncer"), "{operation}");
}

#[test]
fn a_source_that_swallows_packets_is_left_by_force_though_a_switchover_is_being_taken_back() {
    let pair = Pair::with_bank();
    let wire = Proxy::to(pair.source.port());
    let direct = pair.dsn(Side::Source);
    let near = format!("port={}", pair.source.port());
    let dir = TempDir::new("hook");
    let hook = dir.path().join("hook");
    std::fs::write(
        &hook,
        format!(
            "#!/bin/sh\necho \"$PGFERRY_EVENT $PGFERRY_TO\" >> {}/calls\n",
            dir.path().display()
        ),
    )
    .unwrap();
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).unwrap();
    let argv = toml::Value::Array(vec![hook.to_string_lossy().into_owned().into()]);
    let config = ConfigFile::for_pair(&pair)
        .insert_only(&["bank.ledger_keyless"])
        .with(&migration("traffic.method"), "command")
        .with(&migration("traffic.after_line"), argv)
        .with(&migration("source.dsn"), direct.replace(&near, &format!("port={}", wire.port())))
        .with(&migration("source.peer_dsn"), direct.clone())
        .with(&migration("source.self_dsn"), direct)
        .with(&migration("cutover.stall_budget"), "2s");
    let daemon = Daemon::start(&config);
    let ledger = Ledger::start(&pair, LedgerOptions::SLOW);
    daemon.bring_to_ready();
    wait_for_verdict(&daemon);

    let unapplied = pair.admin(Side::Destination);
    unapplied.run("BEGIN; LOCK TABLE pgferry.marker IN EXCLUSIVE MODE");
    let cutover = daemon.order("cutover");
    assert_eq!(cutover.status, 202, "{}", cutover.body);
    daemon.wait_until("the drain to wait", |m| m["step"] == "drain");
    wire.set(Wire::Silent);
    // Used up, it is taken back, and that waits for a side that does not answer any more.
    eventually("the order to be taken", PHASE_DEADLINE, || {
        let body = json!({"force": true});
        let answer = daemon.try_post("/v1/migrations/shop/cutover", &body)?;
        if answer.status == 202 { Ok(()) } else { Err(answer.body.to_string()) }
    });
    unapplied.run("ROLLBACK");
    daemon.wait_for_phase("cut_over");
    assert!(pair.is_open(Side::Destination));
    assert_eq!(daemon.wait_for_operation(&cutover)["state"], "failed", "it was overtaken");
    let calls = std::fs::read_to_string(dir.path().join("calls")).unwrap_or_default();
    assert_eq!(calls, "after_line destination\n", "what the hook was told");
    assert_lives_on(&pair, &ledger, Side::Destination);
    daemon.succeed("finish");
    assert_eq!(pair.admin(Side::Destination).value("SELECT to_regnamespace('pgferry')"), None);
}
