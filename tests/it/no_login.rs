//! A fence that takes LOGIN away as well: nobody comes back, and each role gets back what it had.

use pgferry_plan::Side;
use pgferry_tests::config::migration;
use pgferry_tests::pgbouncer::in_front;
use pgferry_tests::{ConfigFile, Daemon, Ledger, LedgerOptions, Pair, PgBouncer, eventually};

use crate::crash::killed_at_in_both_kinds;
use crate::settled::{SOON, assert_whole, rest, wait_for_go};

fn config(pair: &Pair, pgbouncer: &PgBouncer) -> ConfigFile {
    in_front(pair, &[pgbouncer]).with(&migration("fence.method"), "no_login")
}

fn may_log_in(pair: &Pair, side: Side, role: &str) -> bool {
    let found = pair
        .admin(side)
        .value(&format!("SELECT rolcanlogin FROM pg_roles WHERE rolname = '{role}'"));
    found.as_deref() == Some("t")
}

/// The application may log in to the active side alone, and who only reads to both.
fn assert_logins(pair: &Pair, active: Side) {
    for side in Side::BOTH {
        assert_eq!(may_log_in(pair, side, "app"), side == active, "app on the {side}");
        assert!(may_log_in(pair, side, "reader"), "reader on the {side}");
    }
}

#[test]
fn logins_follow_the_active_side_and_come_back_as_they_were() {
    let pair = Pair::with_bank();
    let one = PgBouncer::start(&pair);
    let daemon = Daemon::start(&config(&pair, &one));
    let mut ledger = Ledger::with_configs(&[one.app_config()], LedgerOptions::SLOW);
    daemon.bring_to_ready();
    assert_logins(&pair, Side::Source);

    // Taken back: the subscriber's worker stands still, so that no marker arrives.
    wait_for_go(&daemon);
    let blocked = pair.admin(Side::Destination);
    blocked.run("BEGIN; LOCK TABLE pgferry.marker IN EXCLUSIVE MODE");
    let cutover = daemon.order("cutover");
    assert_eq!(cutover.status, 202, "{cutover:?}");
    eventually("the source to lock its roles out", SOON, || {
        if may_log_in(&pair, Side::Source, "app") {
            Err("app may log in".to_owned())
        } else {
            Ok(())
        }
    });
    daemon.succeed("abort");
    blocked.run("ROLLBACK");
    assert_eq!(daemon.wait_for_operation(&cutover)["state"], "aborted");
    assert_logins(&pair, Side::Source);
    assert_whole(&pair, &ledger, Side::Source);

    for (verb, active) in
        [("cutover", Side::Destination), ("rollback", Side::Source), ("cutover", Side::Destination)]
    {
        wait_for_go(&daemon);
        daemon.succeed(verb);
        assert_logins(&pair, active);
        assert_whole(&pair, &ledger, active);
    }
    assert_eq!(ledger.errors().len(), 0, "{:?}", ledger.errors());

    // Whoever is let in again by hand is locked out again.
    pair.admin(Side::Source).run("ALTER ROLE app LOGIN");
    eventually("app to be locked out again", SOON, || {
        if may_log_in(&pair, Side::Source, "app") {
            Err("app may log in".to_owned())
        } else {
            Ok(())
        }
    });

    let operation = daemon.carry_out("finish");
    assert_eq!(operation["state"], "succeeded", "{operation}");
    assert_logins(&pair, Side::Destination);
    let lift = operation["remains"][0]["hint"].as_str().unwrap_or_default();
    assert!(lift.contains("ALTER ROLE \"app\" LOGIN;"), "{operation}");
    pair.admin(Side::Source).run(lift);
    assert!(pair.is_open(Side::Source), "after {lift}");
    ledger.stop();
    ledger.check(&pair.destination).assert_clean();
}

#[test]
fn a_role_of_other_databases_stands_in_the_way_before_it_is_locked_out() {
    let pair = Pair::with_bank();
    let one = PgBouncer::start(&pair);
    pair.destination.sql("postgres", "CREATE TABLE notes (n int); GRANT SELECT ON notes TO app");
    let daemon = Daemon::start(&config(&pair, &one));
    let refused = daemon.order("start");
    assert_eq!(refused.status, 409, "{refused:?}");
    assert!(refused.body.to_string().contains("role_used_elsewhere"), "{refused:?}");
    pair.destination.sql("postgres", "DROP TABLE notes");
    daemon.bring_to_ready();
    wait_for_go(&daemon);

    pair.source.sql("postgres", "ALTER ROLE app IN DATABASE postgres SET work_mem = '8MB'");
    eventually("the verdict to name it", SOON, || {
        let verdict = daemon.try_get("/v1/migrations/shop/verdict")?.body.to_string();
        if verdict.contains("role_used_elsewhere") { Ok(()) } else { Err(verdict) }
    });
    pair.source.sql("postgres", "ALTER ROLE app IN DATABASE postgres RESET work_mem");
    wait_for_go(&daemon);
    daemon.succeed("cutover");
    assert_logins(&pair, Side::Destination);
    let operation =
        daemon.post("/v1/migrations/shop/finish", &serde_json::json!({"open_passive": true}));
    assert_eq!(daemon.wait_for_operation(&operation)["state"], "succeeded");
    assert!(pair.is_open(Side::Source) && pair.is_open(Side::Destination));
}

#[test]
fn killed_between_a_lock_out_and_its_end() {
    let pair = Pair::with_bank();
    let one = PgBouncer::start(&pair);
    let mut daemon = Daemon::start(&config(&pair, &one));
    let ledger = Ledger::with_configs(&[one.app_config()], LedgerOptions::SLOW);
    daemon.bring_to_ready();
    for step in ["fence_active", "yield", "open_other"] {
        killed_at_in_both_kinds(&pair, &mut daemon, &ledger, step);
        assert_logins(&pair, rest(&daemon));
    }
}
