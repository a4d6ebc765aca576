//! A role that pgferry may not alter any more when its side is opened: told beforehand; behind the line
//! the others write on, and it is lifted as soon as it can be, to what it had before.

use pgferry_plan::Side;
use pgferry_tests::config::migration;
use pgferry_tests::{
    ConfigFile, DATABASE, Daemon, Ledger, LedgerOptions, Pair, Session, eventually, install,
};
use serde_json::Value;

use crate::settled::{
    SOON, assert_whole, hold_at, is_read_only, rest, wait_for_blocker, wait_for_go,
};

const BY_HAND: &str =
    "ALTER ROLE \"app\" IN DATABASE \"shop\" SET default_transaction_read_only = 'off';";

/// The application's own setting in this database.
const SETTING: &str = "SELECT array_to_string(setconfig, ' ') FROM pg_db_role_setting
    WHERE setrole = 'app'::regrole AND setdatabase <> 0";

fn clerk_on(pair: &Pair, side: Side) -> Session {
    pair.login_on(side, "clerk", "clerk-password").unwrap()
}

fn clerk_may_write(pair: &Pair, side: Side) -> bool {
    let touch = "UPDATE bank.balances SET amount = amount WHERE account = 64";
    clerk_on(pair, side).try_rows(touch).is_ok()
}

fn wait_until_told(daemon: &Daemon) -> Value {
    let told = daemon.wait_until("the role to be told", |migration| {
        migration["condition"]["code"] == "fence_not_lifted"
    });
    let (message, hint) = (told["condition"]["message"].to_string(), &told["condition"]["hint"]);
    assert!(message.contains("app") && !message.contains("clerk"), "{message}");
    let hint = hint.as_str().unwrap_or_default();
    assert!(hint.contains("ALTER ROLE app NOSUPERUSER;") && hint.contains(BY_HAND), "{hint}");
    told
}

#[test]
fn a_role_that_cannot_be_lifted_keeps_nobody_else_closed_out_and_is_lifted_once_it_can_be() {
    let pair = Pair::with_bank();
    for side in Side::BOTH {
        pair.cluster(side).sql(DATABASE, "CREATE ROLE clerk LOGIN PASSWORD 'clerk-password'");
        if install::major_version(pair.cluster(side).bin()) >= 16 {
            pair.cluster(side)
                .sql(DATABASE, "GRANT clerk TO pgferry WITH ADMIN TRUE, INHERIT FALSE");
        }
    }
    pair.load(
        "GRANT USAGE ON SCHEMA bank TO clerk; GRANT SELECT, UPDATE ON bank.balances TO clerk",
    );
    let there = pair.admin(Side::Destination);
    there.run(BY_HAND);
    let before = there.value(SETTING);
    let config = ConfigFile::for_pair(&pair)
        .insert_only(&["bank.ledger_keyless"])
        .with(&migration("cutover.stall_budget"), "60s");
    let daemon = Daemon::start(&config);
    let ledger = Ledger::start(&pair, LedgerOptions::SLOW);
    daemon.bring_to_ready();
    wait_for_go(&daemon);
    let to_superuser = || there.run("ALTER ROLE app SUPERUSER");

    to_superuser();
    let told = wait_for_blocker(&daemon, "cannot_lift_fence");
    assert_eq!(told["hint"], "ALTER ROLE app NOSUPERUSER;", "{told}");
    assert_eq!(daemon.order("cutover").status, 409);
    assert_eq!(daemon.command(&["cutover", "--dry-run"]).code, Some(2));
    there.run(told["hint"].as_str().unwrap());
    wait_for_go(&daemon);

    // Behind the verdict.
    let order = hold_at(&daemon, "cutover", "before_effect:yield");
    to_superuser();
    daemon.failpoint().release();
    let operation = daemon.wait_for_operation(&order);
    assert_eq!(operation["state"], "succeeded", "it waits for nobody: {operation}");
    assert_eq!(operation["remains"][0]["code"], "fence_not_lifted", "{operation}");
    wait_until_told(&daemon);
    assert!(clerk_may_write(&pair, Side::Destination), "it waits for another role");
    assert!(is_read_only(&pair, Side::Destination, "app"));
    let stale = pair.app_on(Side::Destination).unwrap();
    there.run("ALTER ROLE app NOSUPERUSER");
    eventually("the role to have what it had", SOON, || match there.value(SETTING) {
        now if now == before => Ok(()),
        now => Err(format!("{now:?}")),
    });
    eventually("its session of before to be ended", SOON, || match stale.try_rows("SELECT 1") {
        Err(_) => Ok(()),
        Ok(_) => Err("it would stay read-only".to_owned()),
    });
    assert_whole(&pair, &ledger, Side::Destination);

    // What it had is kept through a switchover that is taken back, and through the next ones.
    wait_for_go(&daemon);
    let held = pair.admin(Side::Source);
    held.run("BEGIN; LOCK TABLE pgferry.marker IN EXCLUSIVE MODE");
    let order = daemon.order("rollback");
    daemon.wait_until("the drain to wait", |migration| migration["step"] == "drain");
    to_superuser();
    let abort = daemon.order("abort");
    assert_eq!(daemon.wait_for_operation(&order)["state"], "aborted");
    assert_eq!(daemon.wait_for_operation(&abort)["state"], "succeeded");
    wait_until_told(&daemon);
    held.run("ROLLBACK");
    assert!(clerk_may_write(&pair, Side::Destination), "it waits for another role");
    there.run(BY_HAND);
    there.run("ALTER ROLE app NOSUPERUSER");
    assert_eq!(rest(&daemon), Side::Destination);
    assert_whole(&pair, &ledger, Side::Destination);
    for (verb, active) in [("rollback", Side::Source), ("cutover", Side::Destination)] {
        wait_for_go(&daemon);
        daemon.succeed(verb);
        assert_whole(&pair, &ledger, active);
    }
    assert_eq!(there.value(SETTING), before);
    let left = "SELECT count(*) FROM pgferry.fenced_role WHERE lifted_at IS NULL";
    eventually("nothing to be left", SOON, || match there.number(left) {
        0 => Ok(()),
        left => Err(left.to_string()),
    });
}
