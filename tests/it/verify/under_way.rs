//! Writes under way are no fault, and a verification outlives its daemon.

use pgferry_plan::Side;
use pgferry_tests::{
    ConfigFile, Daemon, Ledger, LedgerOptions, Pair, PairOptions, eventually, process,
};
use serde_json::json;

use super::{differences, saboteur, verify};
use crate::settled::SOON;

#[test]
fn writes_under_way_are_no_fault() {
    let pair = Pair::with_bank();
    pair.load(
        "CREATE TABLE bank.churn (id int PRIMARY KEY, v text);
        INSERT INTO bank.churn SELECT n, 'v' FROM generate_series(1, 2000) AS n;
        GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON bank.churn TO app",
    );
    let daemon = Daemon::for_bank(&pair);
    let ledger = Ledger::start(&pair, LedgerOptions::SLOW);
    daemon.bring_to_ready();
    ledger.wait_for_writes(50, SOON);
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Keys that move, rows that come and go, a table that is emptied and filled again.
        scope.spawn(|| {
            let app = pair.app_on(Side::Source).unwrap();
            let mut turn = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                turn += 1;
                if turn % 40 == 0 {
                    app.run("TRUNCATE bank.churn");
                    app.run(
                        "INSERT INTO bank.churn SELECT n, 'v' FROM generate_series(1, 2000) AS n",
                    );
                }
                let low = turn % 1900;
                app.run(&format!(
                    "UPDATE bank.churn SET id = -id WHERE id BETWEEN {low} AND {low} + 20;
                     UPDATE bank.churn SET v = v || 'x' WHERE id % 97 = {turn} % 97;
                     DELETE FROM bank.churn WHERE id = {low} + 30;
                     UPDATE bank.churn SET v = 'hot {turn}' WHERE id = 1999"
                ));
            }
        });
        for round in 0..8 {
            let (state, report) = verify(&daemon);
            if state != "succeeded" {
                stop.store(true, std::sync::atomic::Ordering::Relaxed);
            }
            assert_eq!(state, "succeeded", "round {round}: {report}");
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    // A fault is found among them all the same.
    let bad = saboteur(&pair, Side::Destination);
    bad.run("DELETE FROM bank.balances WHERE account = 7");
    let (state, report) = verify(&daemon);
    assert_eq!(state, "failed", "{report}");
    let found = differences(&report);
    assert_eq!(found.len(), 1, "{report}");
    assert_eq!(found[0]["key"], json!([{"column": "account", "value": "7"}]));
    drop(ledger);
    eventually("the verification to be told", SOON, || {
        let metrics = daemon.try_get("/metrics")?.body;
        let line = "pgferry_verify_mismatched_rows{migration=\"shop\"} 1";
        let text = metrics.as_str().unwrap_or_default();
        if text.contains(line) { Ok(()) } else { Err("not there yet".to_owned()) }
    });
}

#[test]
fn a_commit_that_is_logged_and_not_shown_is_no_fault() {
    let pair = Pair::with_bank();
    let daemon = Daemon::for_bank(&pair);
    daemon.bring_to_ready();
    // A standby that confirms what it has written, and never that it has applied it: the commit of
    // who asks for that is on the other side, and shown to nobody.
    let admin = pair.admin(Side::Source);
    let mut standby = pair.source.program("pg_receivewal");
    standby.args(["--synchronous", "--no-loop", "-D"]).arg(pair.source.dir());
    let standby = process::spawn(standby).unwrap();
    admin.run("ALTER SYSTEM SET synchronous_standby_names = 'pg_receivewal'");
    admin.run("SELECT pg_reload_conf()");
    eventually("the standby to be waited for", SOON, || {
        let synchronous = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
        if admin.number(synchronous) == 1 { Ok(()) } else { Err("not yet".to_owned()) }
    });
    let app = pair.app_on(Side::Source).unwrap();
    app.run("SET synchronous_commit = remote_apply");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            app.run("INSERT INTO bank.ledger (client, seq) VALUES (9, 1)");
        });
        let there = pair.admin(Side::Destination);
        let arrived = "SELECT count(*) FROM bank.ledger WHERE client = 9";
        eventually("the row to be on the other side", SOON, || {
            if there.number(arrived) == 1 { Ok(()) } else { Err("not yet".to_owned()) }
        });
        assert_eq!(admin.number(arrived), 0, "the source shows it");
        let (state, report) = verify(&daemon);
        admin.run("ALTER SYSTEM RESET synchronous_standby_names");
        admin.run("SELECT pg_reload_conf()");
        assert_eq!(state, "succeeded", "{report}");
        assert_eq!(report["verification"]["unsettled_rows"], 1, "{report}");
    });
    process::put_down(standby, "KILL");
    let (state, report) = verify(&daemon);
    assert_eq!(state, "succeeded", "{report}");
    assert!(report["verification"]["unsettled_rows"].is_null(), "{report}");
}

#[test]
fn a_verification_goes_on_where_a_killed_daemon_left_it() {
    let pair = Pair::start(PairOptions::default());
    pair.load(
        "CREATE TABLE big (id bigint PRIMARY KEY, v text);
         INSERT INTO big SELECT n, repeat('v', 300) FROM generate_series(1, 400000) AS n;
         CREATE TABLE small (id int PRIMARY KEY);
         GRANT SELECT, INSERT, UPDATE, DELETE ON big, small TO app",
    );
    // A pace at which it takes some seconds.
    let config = ConfigFile::for_pair(&pair)
        .with(&pgferry_tests::config::migration("verify.max_bytes_per_second"), "20MB")
        .with(&pgferry_tests::config::migration("verify.jobs"), 1)
        .with(&pgferry_tests::config::migration("cutover.require_verification"), false);
    let mut daemon = Daemon::start(&config);
    daemon.bring_to_ready();
    assert!(daemon.migration()["verification"].is_null(), "none is asked for");
    let bad = saboteur(&pair, Side::Destination);
    bad.run("UPDATE big SET v = 'damaged' WHERE id = 399999");
    let accepted = daemon.order("verify");
    assert_eq!(accepted.status, 202, "{}", accepted.body);
    assert_eq!(daemon.order("verify").body["code"], "already_verifying");
    let admin = pair.admin(Side::Destination);
    eventually("a range to be written down", SOON, || {
        let done = admin.number("SELECT count(*) FROM pgferry.verified WHERE outcome IS NOT NULL");
        if done > 0 { Ok(()) } else { Err(done.to_string()) }
    });
    is_seen_while_it_runs(&daemon);
    daemon.kill();
    let verified = "SELECT string_agg(range_no || ' ' || verified_at, ',' ORDER BY range_no)
        FROM pgferry.verified WHERE outcome IS NOT NULL AND table_name = 'big'";
    let before = admin.value(verified).unwrap();
    daemon.serve();
    let operation = daemon.wait_for_operation(&accepted);
    assert_eq!(operation["state"], "failed", "{operation}");
    let after = admin.value(verified).unwrap();
    let first = before.split(',').next().unwrap();
    assert!(after.contains(first), "{first} was compared again: {after}");
    let report = daemon.get("/v1/migrations/shop/verification").body;
    assert_eq!(report["verification"]["rows"], 400_000, "{report}");
    assert_eq!(differences(&report)[0]["key"][0]["value"], "399999");
    // What was found outlives the process, too.
    daemon.kill();
    daemon.serve();
    eventually("the report to be there again", SOON, || {
        let again = daemon.try_get("/v1/migrations/shop/verification")?.body;
        if differences(&again).len() == 1 { Ok(()) } else { Err(again.to_string()) }
    });
}

/// How far it is and how long it still takes, for a program and for a person.
fn is_seen_while_it_runs(daemon: &Daemon) {
    let running = daemon.wait_until("a time that is left", |migration| {
        migration["verification"]["seconds_left"].is_number()
    });
    let seen = &running["verification"];
    assert_eq!((&seen["state"], &seen["tables_total"]), (&json!("running"), &json!(2)), "{seen}");
    assert!(seen["finished_at"].is_null() && seen["tables"].as_u64() <= Some(2), "{seen}");
    assert!(seen["rows"].as_u64().is_some_and(|rows| rows > 0 && rows < 400_000), "{seen}");
    daemon.wait_until("more rows", |migration| {
        migration["verification"]["rows"].as_u64() > seen["rows"].as_u64()
    });
    for command in ["watch", "status"] {
        let shown = daemon.command(&[command]);
        assert!(shown.stdout.contains("running: "), "{shown:?}");
        assert!(shown.stdout.contains("of 2 tables, "), "{shown:?}");
        assert!(shown.stdout.contains(" left"), "{shown:?}");
    }
}
