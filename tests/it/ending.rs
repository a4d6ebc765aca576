//! What is left when a migration ends: nothing of pgferry, and the active side as it was.

use pgferry_plan::Side;
use pgferry_tests::{DATABASE, Daemon, Ledger, Pair, leftovers};
use serde_json::json;

use crate::settled::{SOON, assert_whole};

/// A setting the application's role had before, which must be there afterwards.
const OLD_SETTING: &str = "ALTER ROLE app IN DATABASE shop SET default_transaction_read_only = off;
     ALTER ROLE app IN DATABASE shop SET statement_timeout = '7s'";

const ROLE_SETTINGS: &str =
    "SELECT coalesce(string_agg(rolname || ': ' || setting, ', ' ORDER BY 1), '')
      FROM pg_db_role_setting s JOIN pg_roles r ON r.oid = s.setrole, unnest(setconfig) AS setting";

#[test]
fn abandon_while_following_leaves_the_source_as_it_was() {
    let pair = Pair::with_bank();
    pair.source.sql(DATABASE, OLD_SETTING);
    let before = leftovers::inventory(&pair.source);
    let settings = pair.admin(Side::Source).value(ROLE_SETTINGS);
    let mut daemon = Daemon::for_bank(&pair);
    let mut ledger = Ledger::over(&pair);
    daemon.bring_to_ready();
    assert_whole(&pair, &ledger, Side::Source);

    daemon.succeed("abandon");
    assert_eq!(daemon.migration()["phase"], "abandoned");
    ledger.wait_for_writes(10, SOON);
    ledger.stop();
    ledger.check(&pair.source).assert_clean();
    assert_eq!(leftovers::since(&before, &pair.source), Vec::<String>::new());
    assert_eq!(pair.admin(Side::Source).value(ROLE_SETTINGS), settings);
    assert!(!pair.is_open(Side::Destination), "the side left behind must not take writes");

    // The same configuration again: the copy that was left is no place to copy to.
    assert!(daemon.terminate().success());
    daemon.serve();
    let refused = daemon.order("start");
    assert_eq!(refused.status, 409, "{}", refused.body);
}

#[test]
fn finish_leaves_nothing_and_names_the_fence_of_the_side_left_behind() {
    let pair = Pair::with_bank();
    pair.source.sql(DATABASE, OLD_SETTING);
    let before = Side::BOTH.map(|side| leftovers::inventory(pair.cluster(side)));
    let daemon = Daemon::for_bank(&pair);
    let mut ledger = Ledger::over(&pair);
    daemon.bring_to_ready();
    assert_eq!(daemon.order("finish").status, 409, "finish needs the destination active");
    daemon.succeed("cutover");
    assert_eq!(daemon.order("abandon").status, 409, "abandon needs the source active");
    assert_whole(&pair, &ledger, Side::Destination);

    let operation = daemon.carry_out("finish");
    assert_eq!(operation["state"], "succeeded", "{operation}");
    assert!(operation.to_string().contains("app"), "the fenced role is not named: {operation}");
    assert_eq!(daemon.migration()["phase"], "finished");
    ledger.wait_for_writes(10, SOON);
    ledger.stop();
    ledger.check(&pair.destination).assert_clean();
    for (side, before) in Side::BOTH.into_iter().zip(&before) {
        assert_eq!(leftovers::since(before, pair.cluster(side)), Vec::<String>::new(), "{side}");
    }
    assert!(!pair.is_open(Side::Source), "no client may write to the dead copy");

    let archived = std::fs::read_dir(daemon.dir())
        .unwrap()
        .flatten()
        .filter(|file| file.path().extension().is_some_and(|e| e == "jsonl"))
        .map(|file| std::fs::read_to_string(file.path()).unwrap())
        .next()
        .expect("the journal was not archived");
    for line in archived.lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap();
    }
}

#[test]
fn finish_with_open_passive_lifts_the_fence_as_it_was() {
    let pair = Pair::with_bank();
    pair.source.sql(DATABASE, OLD_SETTING);
    let settings = pair.admin(Side::Source).value(ROLE_SETTINGS);
    let daemon = Daemon::for_bank(&pair);
    daemon.bring_to_ready();
    daemon.succeed("cutover");
    let accepted = daemon.post("/v1/migrations/shop/finish", &json!({"open_passive": true}));
    assert_eq!(accepted.status, 202, "{}", accepted.body);
    assert_eq!(daemon.wait_for_operation(&accepted)["state"], "succeeded");
    assert!(pair.is_open(Side::Source) && pair.is_open(Side::Destination));
    assert_eq!(pair.admin(Side::Source).value(ROLE_SETTINGS), settings);
}

#[test]
fn a_migration_can_be_abandoned_before_it_is_ready() {
    let pair = Pair::with_bank();
    let before = leftovers::inventory(&pair.source);
    pair.load_pgbench(15);
    let config = pgferry_tests::ConfigFile::for_pair(&pair)
        .insert_only(&["bank.ledger_keyless", "public.pgbench_history"]);
    let daemon = Daemon::start(&config);
    assert_eq!(daemon.order("start").status, 202);
    daemon.wait_until("the copy to run", |m| m["step"] == "copy_rows");
    daemon.succeed("abandon");
    assert_eq!(leftovers::since(&before, &pair.source), Vec::<String>::new());
    assert!(pair.is_open(Side::Source));
}
