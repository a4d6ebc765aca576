//! Servers that are away, wrong or restarted, and daemons that are stopped or doubled: a clear
//! word or an orderly stop, and nothing that the next start does not finish or undo.

use std::time::Duration;

use pgferry_plan::Side;
use pgferry_tests::config::migration;
use pgferry_tests::pair::PGFERRY_PASSWORD;
use pgferry_tests::tls::Authority;
use pgferry_tests::{
    ConfigFile, DATABASE, Daemon, Ledger, Pair, PairOptions, Profile, Shutdown, content, eventually,
};
use serde_json::json;

use crate::settled::{SOON, assert_whole, rest, wait_for_go, wait_for_verdict};

#[test]
fn an_unreachable_server_leaves_the_daemon_running_and_not_ready() {
    let mut pair = Pair::with_bank();
    pair.destination.stop(Shutdown::Fast);
    let daemon = Daemon::for_bank(&pair);
    not_ready(&daemon, &["destination"]);
    assert_ne!(daemon.order("start").status, 202);

    pair.destination.start_again();
    daemon.bring_to_ready();
}

#[test]
fn a_wrong_password_is_told_without_being_printed() {
    let pair = Pair::with_bank();
    let config = ConfigFile::for_pair(&pair).insert_only(&["bank.ledger_keyless"]);
    let mut daemon = Daemon::prepare(&config, Profile::Test);
    daemon.set_env(pgferry_tests::config::PASSWORD_VARIABLE, "not-the-password");
    daemon.serve();
    not_ready(&daemon, &["password authentication failed"]);
    assert!(!daemon.log().contains("not-the-password"));
}

#[test]
fn a_certificate_of_another_authority_is_refused() {
    let pair = Pair::start(PairOptions { tls: true, ..PairOptions::default() });
    let other = Authority::new("other-authority");
    let dsn = pair.dsn(Side::Source);
    let (before, _) = dsn.split_once("sslrootcert=").unwrap();
    let (_, after) = dsn.split_once("ca.crt").unwrap();
    let wrong = format!("{before}sslrootcert={}{after}", other.root_certificate().display());
    let daemon = Daemon::start(&ConfigFile::for_dsns(&wrong, &pair.dsn(Side::Destination)));
    not_ready(&daemon, &["source", "certificate"]);
    let answered = daemon.get("/readyz").body.to_string();
    assert!(!answered.contains("destination_unreachable"), "it is reachable: {answered}");
}

#[test]
fn a_destination_with_rows_is_refused_with_all_blockers() {
    let pair = Pair::with_bank();
    pair.destination
        .sql(DATABASE, "CREATE TABLE public.old (id int PRIMARY KEY); INSERT INTO old VALUES (1)");
    // The ledger's table without a key is not named, so there are two things in the way.
    let daemon = Daemon::start(&ConfigFile::for_pair(&pair));
    let refused = daemon.order("start");
    assert_eq!(refused.status, 409, "{}", refused.body);
    let text = refused.body["blockers"].to_string();
    for told in ["public.old", "bank.ledger_keyless"] {
        assert!(text.contains(told), "{told} is not in {text}");
    }
    let blockers = refused.body["blockers"].as_array().unwrap();
    assert!(blockers.iter().all(|b| b["code"] != "" && b["message"] != "" && b["hint"] != ""));

    let output = daemon.command(&["start"]);
    assert_eq!(output.code, Some(2), "{output:?}");
    assert!(output.stderr.contains("public.old"), "{output:?}");
    assert_eq!(daemon.migration()["phase"], "planned");
    // Nothing was written anywhere.
    for side in Side::BOTH {
        assert_eq!(pair.admin(side).value("SELECT to_regnamespace('pgferry')"), None);
    }
}

#[test]
fn a_role_left_read_only_by_an_earlier_migration_is_refused_with_the_statement_that_lifts_it() {
    let pair = Pair::with_bank();
    let daemon = Daemon::for_bank(&pair);
    let left =
        format!("ALTER ROLE app IN DATABASE {DATABASE} SET default_transaction_read_only = on");
    pair.admin(Side::Destination).run(&left);
    let refused = daemon.order("start");
    assert_eq!(refused.status, 409, "{}", refused.body);
    assert_eq!(refused.body["code"], "role_read_only");
    assert_eq!(daemon.migration()["phase"], "planned");
    let hint = refused.body["hint"].as_str().unwrap_or_default().to_owned();
    let statement = hint.split(';').next().unwrap_or_default();
    pair.admin(Side::Destination).run(statement);
    daemon.bring_to_ready();
    daemon.succeed("cutover");
    assert!(pair.is_open(Side::Destination));
}

#[test]
fn servers_exchanged_before_the_start_are_a_destination_that_is_not_empty() {
    let pair = Pair::with_bank();
    let daemon = Daemon::start(&exchanged(&pair));
    let refused = daemon.order("start");
    assert_eq!(refused.status, 409, "{}", refused.body);
    assert!(refused.body["blockers"].to_string().contains("bank."), "{}", refused.body);
}

#[test]
fn servers_exchanged_later_are_recognised_by_their_records() {
    let pair = Pair::with_bank();
    let mut daemon = Daemon::for_bank(&pair);
    let ledger = Ledger::over(&pair);
    daemon.bring_to_ready();
    assert!(daemon.terminate().success());

    let wrong = Daemon::start(&exchanged(&pair));
    not_ready(&wrong, &[]);
    for verb in ["start", "cutover", "abandon"] {
        assert_ne!(wrong.order(verb).status, 202, "{verb} on exchanged servers was accepted");
    }
    drop(wrong);
    daemon.serve();
    assert_eq!(rest(&daemon), Side::Source);
    assert_whole(&pair, &ledger, Side::Source);
}

#[test]
fn a_second_daemon_stays_up_and_takes_no_orders_until_the_first_ends() {
    let pair = Pair::with_bank();
    let mut first = Daemon::for_bank(&pair);
    let ledger = Ledger::over(&pair);
    first.bring_to_ready();
    let second = Daemon::for_bank(&pair);
    not_ready(&second, &["not_leader"]);
    for verb in ["cutover", "abandon", "pause"] {
        let answer = second.order(verb);
        assert_eq!(answer.status, 503, "{verb}: {}", answer.body);
    }
    assert_eq!(second.migration()["leader"], false);
    first.succeed("cutover");
    assert_whole(&pair, &ledger, Side::Destination);
    assert!(first.terminate().success());
}

#[test]
fn sigterm_during_the_copy_is_an_orderly_stop_and_the_next_start_copies_again() {
    let pair = Pair::with_bank();
    pair.load_pgbench(15);
    let config =
        ConfigFile::for_pair(&pair).insert_only(&["bank.ledger_keyless", "public.pgbench_history"]);
    let mut daemon = Daemon::start(&config);
    let ledger = Ledger::over(&pair);
    assert_eq!(daemon.order("start").status, 202);
    daemon.wait_until("the copy to run", |m| m["step"] == "copy_rows");
    assert!(daemon.terminate().success());
    ledger.wait_for_writes(10, SOON);

    daemon.serve();
    daemon.wait_for_phase("ready");
    assert_whole(&pair, &ledger, Side::Source);
}

#[test]
fn sigterm_during_a_switchover_leaves_one_side_open() {
    let pair = Pair::with_bank();
    let config = ConfigFile::for_pair(&pair)
        .insert_only(&["bank.ledger_keyless"])
        .with(&migration("cutover.stall_budget"), "60s");
    let mut daemon = Daemon::start(&config);
    let ledger = Ledger::over(&pair);
    daemon.bring_to_ready();

    let stuck = stop_markers(&pair, Side::Destination);
    let accepted = daemon.order("cutover");
    assert_eq!(accepted.status, 202, "{}", accepted.body);
    daemon.wait_until("the drain to wait", |m| m["step"] == "drain");
    assert!(daemon.terminate().success());
    drop(stuck);

    daemon.serve();
    let active = rest(&daemon);
    assert_whole(&pair, &ledger, active);
}

#[test]
fn a_stall_budget_that_is_used_up_opens_the_active_side_again() {
    let pair = Pair::with_bank();
    let config = ConfigFile::for_pair(&pair)
        .insert_only(&["bank.ledger_keyless"])
        .with(&migration("cutover.stall_budget"), "3s");
    let daemon = Daemon::start(&config);
    let ledger = Ledger::over(&pair);
    daemon.bring_to_ready();

    let stuck = stop_markers(&pair, Side::Destination);
    let operation = daemon.carry_out("cutover");
    assert_eq!(operation["state"], "aborted", "{operation}");
    assert!(pair.is_open(Side::Source), "the source was not opened again");
    ledger.wait_for_writes(10, SOON);
    drop(stuck);
    assert_whole(&pair, &ledger, Side::Source);

    wait_for_go(&daemon);
    daemon.succeed("cutover");
    assert_whole(&pair, &ledger, Side::Destination);
}

#[test]
fn abort_ends_a_switchover_before_the_line() {
    let pair = Pair::with_bank();
    let config = ConfigFile::for_pair(&pair)
        .insert_only(&["bank.ledger_keyless"])
        .with(&migration("cutover.stall_budget"), "60s");
    let daemon = Daemon::start(&config);
    let ledger = Ledger::over(&pair);
    daemon.bring_to_ready();
    let stuck = stop_markers(&pair, Side::Destination);
    let cutover = daemon.order("cutover");
    daemon.wait_until("the drain to wait", |m| m["step"] == "drain");
    daemon.succeed("abort");
    assert_eq!(daemon.wait_for_operation(&cutover)["state"], "aborted");
    drop(stuck);
    assert_eq!(rest(&daemon), Side::Source);
    assert_whole(&pair, &ledger, Side::Source);
}

#[test]
fn a_restarted_destination_is_caught_up_again() {
    restarts_while_following(Side::Destination);
}

#[test]
fn a_restarted_source_is_caught_up_again() {
    restarts_while_following(Side::Source);
}

fn restarts_while_following(side: Side) {
    let mut pair = Pair::with_bank();
    let daemon = Daemon::for_bank(&pair);
    let ledger = Ledger::over(&pair);
    daemon.bring_to_ready();
    for how in [Shutdown::Immediate, Shutdown::Fast] {
        pair.cluster_mut(side).restart(how);
        assert_eq!(daemon.get("/livez").status, 200);
        eventually("the daemon to be ready again", SOON, || {
            let answer = daemon.try_get("/readyz")?;
            if answer.status == 200 { Ok(()) } else { Err(answer.body.to_string()) }
        });
        daemon.wait_until("both streams", |m| {
            m["forward"]["status"] == "streaming" && m["reverse"]["status"] == "streaming"
        });
        assert_eq!(rest(&daemon), Side::Source);
        assert_whole(&pair, &ledger, Side::Source);
    }
    wait_for_go(&daemon);
    daemon.succeed("cutover");
    assert_whole(&pair, &ledger, Side::Destination);
}

#[test]
fn a_table_made_after_the_start_blocks_the_cutover_by_name() {
    let pair = Pair::with_bank();
    let daemon = Daemon::for_bank(&pair);
    daemon.bring_to_ready();
    pair.load("CREATE TABLE bank.late (id int PRIMARY KEY)");
    eventually("the verdict to name the table", SOON, || {
        let verdict = daemon.try_get("/v1/migrations/shop/verdict")?.body;
        let told = verdict["go"] == false && verdict["blockers"].to_string().contains("bank.late");
        if told { Ok(()) } else { Err(verdict.to_string()) }
    });
    let refused = daemon.order("cutover");
    assert_eq!(refused.status, 409, "{}", refused.body);
    let dry_run = daemon.command(&["cutover", "--dry-run"]);
    assert_eq!(dry_run.code, Some(2), "{dry_run:?}");
    assert!(pair.is_open(Side::Source));
    pair.load("DROP TABLE bank.late");
    wait_for_verdict(&daemon);
    content::wait_until_settled(&pair, SOON);
}

#[test]
fn a_verdict_that_goes_is_kept_also_right_after_a_restart() {
    let pair = Pair::with_bank();
    let mut daemon = Daemon::for_bank(&pair);
    let ledger = Ledger::over(&pair);
    daemon.bring_to_ready();
    for (verb, active) in [("cutover", Side::Destination), ("rollback", Side::Source)] {
        daemon.kill();
        daemon.serve();
        rest(&daemon);
        wait_for_verdict(&daemon);
        daemon.succeed(verb);
        assert_whole(&pair, &ledger, active);
    }
}

/// Waits until the daemon says why it is not ready, in words that contain all of `told`.
fn not_ready(daemon: &Daemon, told: &[&str]) {
    eventually("/readyz to say why not", Duration::from_secs(30), || {
        let answer = daemon.try_get("/readyz")?;
        let text = answer.body.to_string();
        let all = told.iter().all(|word| text.contains(word));
        if answer.status == 503 && all { Ok(()) } else { Err(format!("{} {text}", answer.status)) }
    });
    assert_eq!(daemon.get("/livez").status, 200);
    let said = daemon.get("/readyz").body.to_string() + &daemon.log();
    assert!(!said.contains(PGFERRY_PASSWORD), "the password was printed");
    assert_eq!(daemon.post("/v1/migrations/nobody/start", &json!({})).status, 404);
}

fn exchanged(pair: &Pair) -> ConfigFile {
    ConfigFile::for_dsns(&pair.dsn(Side::Destination), &pair.dsn(Side::Source))
        .insert_only(&["bank.ledger_keyless"])
}

/// Keeps markers from being applied on a side for as long as the session lives: a drain that
/// waits, made without slowing anything down.
fn stop_markers(pair: &Pair, side: Side) -> pgferry_tests::Session {
    let session = pair.admin(side);
    session.run("BEGIN; LOCK TABLE pgferry.marker IN EXCLUSIVE MODE");
    session
}
