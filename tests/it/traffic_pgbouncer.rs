//! Clients that know nothing but PgBouncer: held, led over and let go, whatever dies meanwhile.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::time::Instant;

use pgferry_plan::Side;
use pgferry_tests::config::migration;
use pgferry_tests::pgbouncer::in_front;
use pgferry_tests::tempdir::TempDir;
use pgferry_tests::{Daemon, Ledger, LedgerOptions, Pair, PgBouncer, eventually};
use toml::Value;

use crate::settled::{
    SOON, assert_whole, hold_at, order_and_die, rest, wait_for_go, wait_for_verdict,
};

fn ledger(pgbouncers: &[&PgBouncer], options: LedgerOptions) -> Ledger {
    let configs: Vec<_> = pgbouncers.iter().map(|one| one.app_config()).collect();
    Ledger::with_configs(&configs, options)
}

/// Every PgBouncer leads to this side and holds nobody.
fn assert_led(pair: &Pair, pgbouncers: &[&PgBouncer], side: Side) {
    for one in pgbouncers {
        assert_eq!(one.leads_to(), (pair.cluster(side).port(), false), "to the {side}");
    }
}

fn wait_until_led(pair: &Pair, one: &PgBouncer, side: Side) {
    eventually(&format!("the PgBouncer to lead to the {side}"), SOON, || {
        let seen = one.leads_to();
        if seen == (pair.cluster(side).port(), false) { Ok(()) } else { Err(format!("{seen:?}")) }
    });
}

#[test]
fn three_switchovers_behind_two_pgbouncers_show_no_client_an_error() {
    let pair = Pair::with_bank();
    let (one, two) = (PgBouncer::start(&pair), PgBouncer::start(&pair));
    let daemon = Daemon::start(&in_front(&pair, &[&one, &two]));
    let mut ledger = ledger(&[&one, &two], LedgerOptions::default());
    daemon.bring_to_ready();
    for (verb, active) in
        [("cutover", Side::Destination), ("rollback", Side::Source), ("cutover", Side::Destination)]
    {
        wait_for_go(&daemon);
        let from = Instant::now();
        daemon.succeed(verb);
        ledger.wait_for_writes(5, SOON);
        let gap = ledger.worst_gap(from, Instant::now());
        let switchover = &daemon.migration()["last_switchover"];
        println!(
            "{verb}: write stall {} ms, worst gap {gap:?}, {}",
            switchover["write_stall_ms"], switchover["steps"]
        );
        assert_led(&pair, &[&one, &two], active);
        assert_whole(&pair, &ledger, active);
    }
    ledger.stop();
    assert_eq!(ledger.errors().len(), 0, "{:?}", ledger.errors());
    ledger.check(&pair.destination).assert_clean();
}

#[test]
fn a_long_transaction_keeps_nobody_held_for_longer_than_the_pause_deadline() {
    let pair = Pair::with_bank();
    let one = PgBouncer::start(&pair);
    let config = in_front(&pair, &[&one]).with(&migration("traffic.pause_deadline"), "300ms");
    let mut daemon = Daemon::start(&config);
    let ledger = ledger(&[&one], LedgerOptions::SLOW);
    daemon.bring_to_ready();
    let long = one.app();
    long.run("BEGIN; SELECT pg_current_xact_id()");
    let operation = daemon.carry_out("cutover");
    assert_eq!(operation["state"], "aborted", "{operation}");
    assert_eq!(operation["problem"]["code"], "pause_deadline_passed", "{operation}");
    let stall = daemon.migration()["last_switchover"]["write_stall_ms"].as_f64().unwrap();
    println!("an abort at the pause: write stall {stall:.0} ms");
    assert!(stall >= 300.0, "it is counted from the pause: {stall} ms");
    assert_led(&pair, &[&one], Side::Source);
    ledger.wait_for_writes(5, SOON);
    assert_eq!(ledger.errors().len(), 0, "{:?}", ledger.errors());
    long.run("ROLLBACK");

    // The other policy ends that transaction, and nobody else sees an error.
    daemon.kill();
    let config = config.with(&migration("traffic.on_pause_deadline"), "fence");
    let daemon = Daemon::start(&config);
    wait_for_go(&daemon);
    long.run("BEGIN; SELECT pg_current_xact_id()");
    daemon.succeed("cutover");
    assert!(long.try_rows("COMMIT").is_err(), "the fence ends it");
    assert_led(&pair, &[&one], Side::Destination);
    assert_whole(&pair, &ledger, Side::Destination);
    assert_eq!(ledger.errors().len(), 0, "{:?}", ledger.errors());
}

#[test]
fn a_switchover_that_is_taken_back_lets_the_clients_go_where_they_were() {
    let pair = Pair::with_bank();
    let (one, two) = (PgBouncer::start(&pair), PgBouncer::start(&pair));
    // Enough for the pause and for no drain.
    let config = in_front(&pair, &[&one, &two])
        .with(&migration("cutover.stall_budget"), "20ms")
        .with(&migration("traffic.pause_deadline"), "19ms");
    let daemon = Daemon::start(&config);
    let ledger = ledger(&[&one, &two], LedgerOptions::SLOW);
    daemon.bring_to_ready();
    // The subscriber's worker stands still, so that no marker arrives.
    let blocked = pair.admin(Side::Destination);
    blocked.run("BEGIN; LOCK TABLE pgferry.marker IN EXCLUSIVE MODE");
    let operation = daemon.carry_out("cutover");
    blocked.run("ROLLBACK");
    assert_eq!(operation["state"], "aborted", "{operation}");
    assert_led(&pair, &[&one, &two], Side::Source);
    assert_whole(&pair, &ledger, Side::Source);
    assert_eq!(rest(&daemon), Side::Source);
    for one in [&one, &two] {
        eventually("what was written beforehand to be removed", SOON, || {
            let beside = prepared_beside(one);
            if beside.is_empty() { Ok(()) } else { Err(format!("{beside:?}")) }
        });
    }
}

/// Files of pgferry's beside the included one.
fn prepared_beside(one: &PgBouncer) -> Vec<PathBuf> {
    let file = one.include_file();
    let entries = std::fs::read_dir(file.parent().unwrap()).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.to_string_lossy().contains(".pgferry-")).collect()
}

#[test]
fn the_file_is_written_before_clients_are_held_and_anew_when_it_is_gone_by_then() {
    let pair = Pair::with_bank();
    let one = PgBouncer::start(&pair);
    let daemon = Daemon::start(&in_front(&pair, &[&one]));
    daemon.bring_to_ready();
    for (verb, active, goes) in
        [("cutover", Side::Destination, false), ("rollback", Side::Source, true)]
    {
        wait_for_go(&daemon);
        let order = hold_at(&daemon, verb, "before_effect:pause_traffic");
        let beside = prepared_beside(&one);
        let [prepared] = beside.as_slice() else { panic!("{beside:?}") };
        let inode = std::fs::metadata(prepared).unwrap().ino();
        if goes {
            std::fs::remove_file(prepared).unwrap();
        }
        daemon.failpoint().release();
        let operation = daemon.wait_for_operation(&order);
        assert_eq!(operation["state"], "succeeded", "{operation}");
        assert_led(&pair, &[&one], active);
        let stands = std::fs::metadata(one.include_file()).unwrap().ino();
        assert!(goes || stands == inode, "another file was put in place");
        assert!(prepared_beside(&one).is_empty());
    }
}

#[test]
fn a_daemon_killed_between_pause_and_fence_ends_it_when_it_is_back() {
    let pair = Pair::with_bank();
    let one = PgBouncer::start(&pair);
    let config = in_front(&pair, &[&one]);
    let mut daemon = Daemon::start(&config);
    let ledger = ledger(&[&one], LedgerOptions::SLOW);
    daemon.bring_to_ready();
    for point in [
        "before_effect:pause_traffic",
        "after_effect:pause_traffic",
        "before_effect:fence_active",
        "before_effect:resume_traffic",
        "after_effect:resume_traffic",
    ] {
        daemon.kill();
        daemon.serve_until(point);
        let from = rest(&daemon);
        wait_for_go(&daemon);
        order_and_die(&daemon, if from == Side::Source { "cutover" } else { "rollback" });
        daemon.wait_for_end(SOON);
        daemon.serve();
        let active = rest(&daemon);
        assert_led(&pair, &[&one], active);
        assert_whole(&pair, &ledger, active);
        println!("{point}: from the {from}, now the {active} is active");
    }
}

#[test]
fn a_pgbouncer_that_dies_meanwhile_is_found_and_put_right() {
    let pair = Pair::with_bank();
    let (mut one, two) = (PgBouncer::start(&pair), PgBouncer::start(&pair));
    let config = in_front(&pair, &[&one, &two]);
    let mut daemon = Daemon::start(&config);
    let ledger = ledger(&[&two], LedgerOptions::SLOW);
    daemon.bring_to_ready();

    // Away: nothing is stopped for it.
    one.kill();
    eventually("the verdict to name it", SOON, || {
        let verdict = daemon.try_get("/v1/migrations/shop/verdict")?.body.to_string();
        if verdict.contains("pgbouncer_unreachable") { Ok(()) } else { Err(verdict) }
    });
    assert_eq!(daemon.order("cutover").status, 409);
    one.start_again();
    wait_for_verdict(&daemon);

    // Killed while it holds, and back without knowing of it.
    daemon.kill();
    daemon.serve_until("after_effect:pause_traffic");
    wait_for_go(&daemon);
    order_and_die(&daemon, "cutover");
    daemon.wait_for_end(SOON);
    one.kill();
    one.start_again();
    daemon.serve();
    let active = rest(&daemon);
    assert_led(&pair, &[&one, &two], active);
    assert_whole(&pair, &ledger, active);

    // Killed behind the line, and away for a while: the others go on, and it is told which.
    daemon.kill();
    daemon.serve_until("before_effect:resume_traffic");
    wait_for_go(&daemon);
    order_and_die(&daemon, if active == Side::Source { "cutover" } else { "rollback" });
    daemon.wait_for_end(SOON);
    one.kill();
    daemon.serve();
    daemon.wait_until("the condition to name it", |migration| {
        migration["condition"]["code"] == "pgbouncer_unreachable"
    });
    let now = active.other();
    wait_until_led(&pair, &two, now);
    ledger.wait_for_writes(5, SOON);
    one.start_again();
    assert_eq!(rest(&daemon), now);
    assert_led(&pair, &[&one, &two], now);
    assert_eq!(daemon.migration()["last_switchover"]["outcome"], "succeeded");
    assert_whole(&pair, &ledger, now);
}

#[test]
fn at_rest_a_pause_and_an_entry_of_the_other_side_are_put_right() {
    let pair = Pair::with_bank();
    let one = PgBouncer::start(&pair);
    let daemon = Daemon::start(&in_front(&pair, &[&one]));
    let ledger = ledger(&[&one], LedgerOptions::SLOW);
    daemon.bring_to_ready();
    wait_for_go(&daemon);
    let _ = one.say("PAUSE shop");
    wait_until_led(&pair, &one, Side::Source);
    ledger.wait_for_writes(5, SOON);
    one.point_by_hand(&pair, Side::Destination);
    let _ = one.say("RELOAD");
    wait_until_led(&pair, &one, Side::Source);
    wait_for_go(&daemon);
    ledger.wait_for_writes(5, SOON);
}

#[test]
fn what_would_keep_a_pgbouncer_from_being_led_is_told_before_anything_is_stopped() {
    let pair = Pair::with_bank();
    let (one, two) = (PgBouncer::start(&pair), PgBouncer::start(&pair));
    let mut looker = one.section_of("looker", Some("LOOKER_PASSWORD"));
    // Another file than the one that it reads.
    looker.insert(
        "include_file".to_owned(),
        two.include_file().to_string_lossy().into_owned().into(),
    );
    let mut missing = two.section();
    missing.insert("database".to_owned(), "nosuch".into());
    let sections = Value::Array(vec![Value::Table(looker), Value::Table(missing)]);
    let config = in_front(&pair, &[&one]).with(&migration("traffic.pgbouncers"), sections);
    let mut daemon = Daemon::prepare(&config, pgferry_tests::Profile::Test);
    daemon.set_env("LOOKER_PASSWORD", "looker");
    daemon.serve();
    daemon.bring_to_ready();
    two.point_by_hand(&pair, Side::Destination);
    let codes = ["pgbouncer_not_admin", "pgbouncer_file_not_read", "pgbouncer_entry_missing"];
    let told = eventually("the verdict to name all of it", SOON, || {
        let verdict = daemon.try_get("/v1/migrations/shop/verdict")?.body.to_string();
        if codes.iter().all(|code| verdict.contains(code)) { Ok(verdict) } else { Err(verdict) }
    });
    println!("{told}");
    assert_eq!(daemon.command(&["cutover", "--dry-run"]).code, Some(2));
    std::fs::write(two.include_file(), "[pgbouncer]\nverbose = 1\n").unwrap();
    eventually("the verdict to name what is not pgferry's", SOON, || {
        let verdict = daemon.try_get("/v1/migrations/shop/verdict")?.body.to_string();
        if verdict.contains("pgbouncer_file_foreign") { Ok(()) } else { Err(verdict) }
    });
}

#[test]
fn a_program_changes_the_entry_and_one_that_fails_or_does_nothing_aborts() {
    let pair = Pair::with_bank();
    let one = PgBouncer::start(&pair);
    let dir = TempDir::new("rewrite");
    let program = dir.path().join("rewrite");
    // As over ssh: the file's place is the program's business. What it does besides is the test's.
    let text = format!(
        "#!/bin/sh\n. {}/first\nprintf '[databases]\\n%s = %s\\n' \"$PGFERRY_DATABASE\" \"$PGFERRY_ENTRY\" > {}\n",
        dir.path().display(),
        one.include_file().display()
    );
    std::fs::write(&program, text).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let first = |script: &str| std::fs::write(dir.path().join("first"), script).unwrap();
    first("");
    let mut section = one.section();
    section.remove("include_file");
    let argv = vec![Value::from(program.to_string_lossy().into_owned())];
    section.insert("rewrite_command".to_owned(), Value::Array(argv));
    let sections = Value::Array(vec![Value::Table(section)]);
    let config = in_front(&pair, &[&one]).with(&migration("traffic.pgbouncers"), sections);
    let daemon = Daemon::start(&config);
    let ledger = ledger(&[&one], LedgerOptions::SLOW);
    daemon.bring_to_ready();
    let to_the_destination = "[ \"$PGFERRY_SIDE\" = source ] ||";
    for (script, code) in [
        ("{ echo no route to the host >&2; exit 7; }", "pgbouncer_rewrite_failed"),
        ("exit 0", "pgbouncer_not_led"),
    ] {
        first(&format!("{to_the_destination} {script}\n"));
        wait_for_go(&daemon);
        let operation = daemon.carry_out("cutover");
        assert_eq!(operation["state"], "aborted", "{operation}");
        assert_eq!(operation["problem"]["code"], code, "{operation}");
        assert_led(&pair, &[&one], Side::Source);
        ledger.wait_for_writes(5, SOON);
    }
    first("");
    wait_for_go(&daemon);
    daemon.succeed("cutover");
    assert_led(&pair, &[&one], Side::Destination);
    assert_whole(&pair, &ledger, Side::Destination);
    assert_eq!(ledger.errors().len(), 0, "{:?}", ledger.errors());
}
