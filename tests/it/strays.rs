//! Sessions that switch the read-only default off, and so pass the fence: before the line they take the
//! switchover back; behind it they are ended, and what they wrote is named and compared.

use pgferry_plan::Side;
use pgferry_tests::daemon::AtFailpoint;
use pgferry_tests::{Answer, Daemon, Ledger, LedgerOptions, Pair, Session, eventually};
use serde_json::Value;

use crate::settled::{SOON, assert_whole, wait_for_go};

/// An application's session that does not care for its role's setting, in an open transaction.
fn stray(pair: &Pair, side: Side, sql: &str) -> Session {
    let session = pair.app_on(side).unwrap();
    session.run("SET default_transaction_read_only = off");
    session.run("BEGIN");
    session.run(sql);
    session
}

fn hold_at(daemon: &Daemon, point: &str) {
    daemon.failpoint().arm(point, AtFailpoint::Hold);
}

fn cut_over_to(daemon: &Daemon, point: &str) -> Answer {
    wait_for_go(daemon);
    hold_at(daemon, point);
    let order = daemon.order("cutover");
    assert_eq!(order.status, 202, "{order:?}");
    daemon.failpoint().wait_until_reached(SOON);
    order
}

/// The events of one name, once there are so many.
fn events(daemon: &Daemon, name: &str, number: usize) -> Vec<Value> {
    eventually(&format!("{number} events {name}"), SOON, || {
        let all = daemon.try_get("/v1/migrations/shop/events")?.body;
        let named = all["events"].as_array().into_iter().flatten();
        let named: Vec<Value> = named.filter(|event| event["event"] == name).cloned().collect();
        if named.len() >= number { Ok(named) } else { Err(all.to_string()) }
    })
}

/// The migration's condition, once it has this code and its message these words.
fn condition(daemon: &Daemon, code: &str, words: &str) -> Value {
    let says = |migration: &Value| {
        let condition = &migration["condition"];
        condition["code"] == code
            && condition["message"].as_str().is_some_and(|message| message.contains(words))
    };
    daemon.wait_until(&format!("{code}: {words}"), says)["condition"].clone()
}

fn account(pair: &Pair, side: Side, account: i64) -> Option<String> {
    pair.admin(side).value(&format!("SELECT amount FROM bank.balances WHERE account = {account}"))
}

#[test]
fn a_writer_before_the_line_takes_the_switchover_back() {
    let pair = Pair::with_bank();
    let daemon = Daemon::for_bank(&pair);
    let ledger = Ledger::start(&pair, LedgerOptions::SLOW);
    daemon.bring_to_ready();
    let order = cut_over_to(&daemon, "before_effect:drain");
    let writer = stray(&pair, Side::Source, "INSERT INTO bank.balances VALUES (900, 1)");
    daemon.failpoint().release();
    let operation = daemon.wait_for_operation(&order);
    assert_eq!(operation["state"], "aborted", "{operation}");
    assert_eq!(operation["problem"]["code"], "writer_found", "{operation}");
    let detail = operation["problem"]["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("of role app"), "{operation}");
    drop(writer);
    assert_whole(&pair, &ledger, Side::Source);
    wait_for_go(&daemon);
    daemon.succeed("cutover");
    assert_whole(&pair, &ledger, Side::Destination);
}

#[test]
fn a_writer_behind_the_line_or_at_rest_is_ended_and_told_also_by_a_daemon_that_was_killed() {
    let pair = Pair::with_bank();
    let mut daemon = Daemon::for_bank(&pair);
    daemon.bring_to_ready();
    let order = cut_over_to(&daemon, "after_effect:yield");
    let writer = stray(&pair, Side::Source, "INSERT INTO bank.balances VALUES (900, 1)");
    daemon.failpoint().release();
    let operation = daemon.wait_for_operation(&order);
    assert_eq!(operation["state"], "succeeded", "{operation}");
    assert_eq!(operation["remains"][0]["code"], "writer_ended", "{operation}");
    let said = operation["remains"][0]["message"].as_str().unwrap_or_default();
    for words in ["role app", "bank.balances", "nothing of it is left"] {
        assert!(said.contains(words), "{said}");
    }
    assert!(writer.try_rows("COMMIT").is_err(), "its session goes on");
    assert_eq!(events(&daemon, "stray_ended", 1)[0]["fate"], "rolled_back");
    assert!(daemon.migration()["condition"].is_null(), "{}", daemon.migration());

    // At rest: written down, and the daemon dies before it has done anything about it.
    daemon.failpoint().arm("before_strays", AtFailpoint::Die);
    let writer =
        stray(&pair, Side::Source, "UPDATE bank.balances SET amount = 5 WHERE account = 9");
    daemon.wait_for_end(SOON);
    writer.run("COMMIT");
    daemon.serve();
    let told = condition(&daemon, "wrote_on_closed_side", "both sides hold the same");
    let message = told["message"].as_str().unwrap_or_default();
    assert!(message.contains("1 row still as it wrote them (account=9)"), "{message}");
    assert!(writer.try_rows("SELECT 1").is_err(), "it may write again");
    assert_eq!(events(&daemon, "stray_found", 2).len(), 2);
    for side in Side::BOTH {
        assert_eq!(account(&pair, side, 9).as_deref(), Some("5"), "{side}");
        assert_eq!(account(&pair, side, 900), None, "{side}");
    }
    daemon.succeed("verify");
    daemon.wait_until("the notice to end", |migration| migration["condition"].is_null());
}

#[test]
fn what_was_committed_behind_the_line_is_named_and_compared() {
    let pair = Pair::with_bank();
    let daemon = Daemon::for_bank(&pair);
    daemon.bring_to_ready();
    let order = cut_over_to(&daemon, "after_effect:yield");
    let writer = stray(
        &pair,
        Side::Source,
        "INSERT INTO bank.ledger (client, seq) VALUES (900, 1);
         SAVEPOINT half; INSERT INTO bank.ledger (client, seq) VALUES (900, 2); RELEASE half;
         UPDATE bank.balances SET amount = 1 WHERE account = 1",
    );
    hold_at(&daemon, "before_strays:confirm");
    daemon.failpoint().wait_until_reached(SOON);
    // The same row on the side that is open by now: the two changes cross, and each lands last.
    pair.app_on(Side::Destination)
        .unwrap()
        .run("UPDATE bank.balances SET amount = 2 WHERE account = 1");
    writer.run("COMMIT");
    daemon.failpoint().release();
    let operation = daemon.wait_for_operation(&order);
    assert_eq!(operation["state"], "succeeded", "{operation}");
    assert_eq!(operation["remains"][0]["code"], "wrote_on_closed_side", "{operation}");
    assert!(writer.try_rows("SELECT 1").is_err(), "it may write again");

    let told = condition(&daemon, "wrote_on_closed_side", "not the same on both sides");
    let message = told["message"].as_str().unwrap_or_default();
    for words in [
        "role app",
        "bank.ledger: 2 rows still as it wrote them (client=900, seq=1; client=900, seq=2), both sides hold the same",
        "bank.balances: 0 rows still as it wrote them, 1 row of the table not the same on both sides",
    ] {
        assert!(message.contains(words), "{words} is not in {message}");
    }
    assert_eq!(account(&pair, Side::Source, 1).as_deref(), Some("2"));
    assert_eq!(account(&pair, Side::Destination, 1).as_deref(), Some("1"));
    let journal = daemon.get("/v1/migrations/shop/events").body.to_string();
    assert!(!journal.contains("client=900"), "a key in the journal: {journal}");
    let shown = daemon.command(&["status"]).stdout;
    assert!(shown.contains("wrote_on_closed_side") && shown.contains("xmin = '"), "{shown}");
}

#[test]
fn a_client_that_comes_again_and_again_is_ended_each_time_and_fills_no_journal() {
    let pair = Pair::with_bank();
    let daemon = Daemon::for_bank(&pair);
    daemon.bring_to_ready();
    wait_for_go(&daemon);
    daemon.succeed("cutover");
    for round in 0..3 {
        let write = |n| format!("INSERT INTO bank.balances VALUES ({}, 1)", 900 + n);
        let writers: Vec<Session> = (0..8).map(|n| stray(&pair, Side::Source, &write(n))).collect();
        for writer in writers {
            eventually(&format!("its session to end, round {round}"), SOON, || {
                match writer.try_rows("SELECT 1") {
                    Ok(_) => Err("it goes on".to_owned()),
                    Err(_) => Ok(()),
                }
            });
        }
    }
    assert_eq!(events(&daemon, "stray_ended", 10).len(), 10, "of 24 within a minute");
    assert_eq!(events(&daemon, "stray_found", 10).len(), 10);
    assert_eq!(account(&pair, Side::Source, 900), None);
    // And the rest goes on meanwhile.
    wait_for_go(&daemon);
    daemon.succeed("rollback");
}
