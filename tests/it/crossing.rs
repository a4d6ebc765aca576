//! The road from end to end: there, back, there again, and off.

use std::path::Path;
use std::time::Instant;

use pgferry_plan::Side;
use pgferry_tests::pair::{PGFERRY_PASSWORD, STORE_TRAFFIC};
use pgferry_tests::{
    ConfigFile, DATABASE, Daemon, Ledger, Pair, PairOptions, Session, content, leftovers,
};
use serde_json::json;

use crate::settled::{SOON, assert_sequences_ahead, assert_whole, rest, wait_for_go};

#[test]
fn chinook_moves_and_comes_back_table_by_table() {
    let pair = Pair::start(PairOptions::default());
    pair.load_file(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/data/chinook.sql")));
    pair.load(
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO app;
         GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO app",
    );
    let daemon = Daemon::start(&ConfigFile::for_pair(&pair));
    daemon.bring_to_ready();
    assert_eq!(daemon.migration()["copy"]["rows"], 15_607);
    assert_equal(&pair);
    assert_eq!(
        content::structure(&pair.source, &pair.destination),
        content::structure(&pair.destination, &pair.destination)
    );

    let here = shop_on(&pair, Side::Source);
    daemon.succeed("cutover");
    let there = shop_on(&pair, Side::Destination);
    assert!(there > here, "artist {there} after artist {here}");
    assert_equal(&pair);
    daemon.succeed("rollback");
    let back = shop_on(&pair, Side::Source);
    assert!(back > there, "artist {back} after artist {there}");
    assert_equal(&pair);
}

#[test]
fn a_schema_with_everything_survives_three_round_trips_under_writers() {
    let pair = Pair::with_bank();
    pair.load_store();
    let config = ConfigFile::for_pair(&pair).insert_only(&["bank.ledger_keyless", "store.visits"]);
    let daemon = Daemon::start(&config);
    let ledger = Ledger::over(&pair);
    daemon.bring_to_ready();
    assert_whole(&pair, &ledger, Side::Source);
    for _ in 0..3 {
        for (verb, active) in [("cutover", Side::Destination), ("rollback", Side::Source)] {
            traffic(&pair);
            daemon.succeed(verb);
            traffic(&pair);
            assert_eq!(rest(&daemon), active);
            assert_whole(&pair, &ledger, active);
            let passive = pair.cluster(active.other());
            let behind = content::sequences_behind(pair.cluster(active), passive);
            assert_eq!(behind, Vec::<String>::new());
            assert_sequences_ahead(&pair, active);
        }
    }
}

#[test]
fn a_full_run_over_tls_with_a_password_that_nobody_prints() {
    let pair = Pair::start(PairOptions { tls: true, ..PairOptions::default() });
    pair.load_bank();
    let before = Side::BOTH.map(|side| leftovers::inventory(pair.cluster(side)));
    let daemon = Daemon::for_bank(&pair);
    let mut ledger = Ledger::over(&pair);
    daemon.bring_to_ready();
    assert_walsenders_use_tls(&pair);
    for (verb, active) in
        [("cutover", Side::Destination), ("rollback", Side::Source), ("cutover", Side::Destination)]
    {
        daemon.succeed(verb);
        assert_whole(&pair, &ledger, active);
    }
    daemon.succeed("finish");
    ledger.wait_for_writes(10, SOON);
    ledger.stop();
    ledger.check(&pair.destination).assert_clean();
    for (side, before) in Side::BOTH.into_iter().zip(&before) {
        assert_eq!(leftovers::since(before, pair.cluster(side)), Vec::<String>::new(), "{side}");
    }
    assert_prints_no_password(&daemon);
}

#[test]
fn a_switchover_tells_its_stall_and_its_steps() {
    let pair = Pair::with_bank();
    let daemon = Daemon::for_bank(&pair);
    let ledger = Ledger::over(&pair);
    daemon.bring_to_ready();
    wait_for_go(&daemon);
    let dry = daemon.post("/v1/migrations/shop/cutover?dry_run=true", &json!({}));
    let predicted_ms = dry.body["predicted_stall_ms"].as_f64();
    println!("predicted: {predicted_ms:?} ms");
    assert!(predicted_ms.is_some_and(|ms| ms > 0.0), "{}", dry.body);
    let from = Instant::now();
    daemon.succeed("cutover");
    ledger.wait_for_writes(5, SOON);
    let gap_ms = ledger.worst_gap(from, Instant::now()).as_secs_f64() * 1000.0;

    let switchover = daemon.migration()["last_switchover"].clone();
    assert_eq!(
        (&switchover["kind"], &switchover["outcome"]),
        (&"cutover".into(), &"succeeded".into())
    );
    let stall_ms = switchover["write_stall_ms"].as_f64().unwrap();
    println!("measured: {stall_ms} ms");
    // Some client is in the stall for its whole length, or it is no stall.
    assert!(stall_ms > 0.0 && stall_ms <= gap_ms + 5.0, "stall {stall_ms} ms, gap {gap_ms} ms");
    let steps: Vec<&str> =
        switchover["steps"].as_array().unwrap().iter().filter_map(|s| s["step"].as_str()).collect();
    for step in ["check_verdict", "fence_active", "drain", "set_sequences", "yield", "open_other"] {
        assert!(steps.contains(&step), "{step} is not among {steps:?}");
    }
    let metrics = daemon.get("/metrics").body;
    let text = metrics.as_str().unwrap();
    for wanted in [
        "pgferry_switchovers_total{",
        "pgferry_switchover_write_stall_seconds_count{",
        "pgferry_migration_phase{",
        "pgferry_replication_lag_seconds{",
        "pgferry_leader{",
    ] {
        assert!(text.contains(wanted), "{wanted} is not in\n{text}");
    }
}

/// An application's day in the shop, on whichever side takes writes; which must be `side`.
/// Returns the new artist's number.
fn shop_on(pair: &Pair, side: Side) -> i64 {
    let session = Session::connect(&pair.app_config()).unwrap();
    assert_eq!(session.number("SHOW port"), i64::from(pair.cluster(side).port()));
    let artist = session.number("INSERT INTO artist (name) VALUES ('pgferry') RETURNING artist_id");
    session.run(&format!(
        "INSERT INTO album (title, artist_id) VALUES ('from the {side}', {artist});
         UPDATE customer SET company = 'on the {side}' WHERE customer_id % 5 = 0;
         DELETE FROM playlist_track WHERE playlist_id = 1 AND track_id % 50 = {};",
        artist % 50
    ));
    artist
}

fn traffic(pair: &Pair) {
    Session::connect(&pair.app_config()).unwrap().run(STORE_TRAFFIC);
}

fn assert_equal(pair: &Pair) {
    content::wait_until_settled(pair, SOON);
    assert_eq!(content::differences(&pair.source, &pair.destination), Vec::<String>::new());
    assert!(content::table_count(&pair.destination) > 0);
}

fn assert_walsenders_use_tls(pair: &Pair) {
    for side in Side::BOTH {
        let plain = pair.cluster(side).admin(DATABASE).number(
            "SELECT count(*) FROM pg_stat_activity JOIN pg_stat_ssl USING (pid)
              WHERE usename = 'pgferry' AND NOT ssl",
        );
        assert_eq!(plain, 0, "{side}");
    }
}

fn assert_prints_no_password(daemon: &Daemon) {
    let mut said = vec![daemon.log()];
    for path in [
        "/metrics",
        "/v1/migrations",
        "/v1/migrations/shop/events",
        "/v1/migrations/shop/preflight",
    ] {
        said.push(daemon.get(path).body.to_string());
    }
    for file in std::fs::read_dir(daemon.dir()).unwrap().flatten() {
        said.push(std::fs::read_to_string(file.path()).unwrap_or_default());
    }
    assert!(said.iter().all(|text| !text.contains(PGFERRY_PASSWORD)));
}

#[test]
fn object_names_in_columns_mean_the_same_object_on_both_sides() {
    let pair = Pair::with_bank();
    // Objects made before on one side only, so that the two servers give different OIDs.
    pair.load(
        "CREATE TABLE bank.spare (id int PRIMARY KEY);
         CREATE TABLE bank.named (id int PRIMARY KEY, what regclass, note text);
         INSERT INTO bank.named VALUES (1, 'bank.balances', 'copied');
         DROP TABLE bank.spare;
         GRANT SELECT, INSERT, UPDATE ON bank.named TO app",
    );
    let daemon = Daemon::for_bank(&pair);
    daemon.bring_to_ready();
    pair.load(
        "INSERT INTO bank.named VALUES (2, 'bank.ledger', 'streamed');
         UPDATE bank.named SET note = 'changed' WHERE id = 1",
    );
    content::wait_until_settled(&pair, SOON);
    assert_equal(&pair);
    let named = "SELECT string_agg(what::text || ' ' || note, ', ' ORDER BY id) FROM bank.named";
    let there = pair.admin(Side::Destination).value(named);
    assert_eq!(there.as_deref(), Some("bank.balances changed, bank.ledger streamed"));
}

#[test]
fn a_key_that_is_lost_a_sequence_that_changes_and_a_role_that_appears_block_the_cutover() {
    let pair = Pair::with_bank();
    let daemon = Daemon::for_bank(&pair);
    daemon.bring_to_ready();
    let blocked_by = |code: &str| {
        pgferry_tests::eventually(&format!("{code} in the verdict"), SOON, || {
            let verdict = daemon.try_get("/v1/migrations/shop/verdict")?.body;
            let told = verdict["blockers"]
                .as_array()
                .is_some_and(|blockers| blockers.iter().any(|blocker| blocker["code"] == code));
            if told { Ok(()) } else { Err(verdict.to_string()) }
        });
    };
    pair.load("ALTER TABLE bank.balances DROP CONSTRAINT balances_pkey");
    blocked_by("key_missing");
    pair.load("ALTER TABLE bank.balances ADD PRIMARY KEY (account)");
    pair.load("ALTER SEQUENCE bank.ledger_number_seq INCREMENT BY 7");
    blocked_by("sequences_differ");
    pair.load("ALTER SEQUENCE bank.ledger_number_seq INCREMENT BY 1");
    pair.admin(Side::Source).run(
        "CREATE ROLE late LOGIN; GRANT USAGE ON SCHEMA bank TO late; \
         GRANT INSERT ON bank.balances TO late",
    );
    blocked_by("roles_missing");
    pair.admin(Side::Destination).run("CREATE ROLE late LOGIN");
    crate::settled::wait_for_go(&daemon);
}
