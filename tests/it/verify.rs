//! Verification: every planted fault is found and placed, equal data is equal, writes under way are
//! no fault, and a cutover is refused while something differs.

use pgferry_plan::Side;
use pgferry_tests::{
    ConfigFile, Daemon, Ledger, LedgerOptions, Pair, PairOptions, Session, eventually,
};
use serde_json::{Value, json};
use std::time::Duration;

use crate::settled::{SOON, wait_for_go};

const WIDE: &str = include_str!("../src/sql/wide.sql");

/// A session that damages the passive side: what it writes carries an origin, so that it is not
/// streamed back to the active side.
fn saboteur(pair: &Pair, side: Side) -> Session {
    let session = pair.admin(side);
    session.run(
        "SELECT pg_replication_origin_create('sabotage')
          WHERE NOT EXISTS (SELECT FROM pg_replication_origin WHERE roname = 'sabotage')",
    );
    session.run("SELECT pg_replication_origin_session_setup('sabotage')");
    session.run("SET session_replication_role = replica");
    session
}

/// Verifies, and returns the operation's state with what was found.
fn verify(daemon: &Daemon) -> (String, Value) {
    let operation = daemon.carry_out("verify");
    let report = daemon.get("/v1/migrations/shop/verification").body;
    (operation["state"].as_str().unwrap_or_default().to_owned(), report)
}

fn differences(report: &Value) -> Vec<Value> {
    report["differences"].as_array().cloned().unwrap_or_default()
}

fn wide_pair() -> (Pair, Daemon) {
    let pair = Pair::start(PairOptions::default());
    pair.load(WIDE);
    let config = ConfigFile::for_pair(&pair).insert_only(&["wide.nothing", "wide.loose"]);
    let daemon = Daemon::start(&config);
    daemon.bring_to_ready();
    (pair, daemon)
}

#[test]
fn equal_data_is_equal_whatever_its_types() {
    let (_pair, daemon) = wide_pair();
    // On the way to ready it was compared already.
    let first = daemon.migration()["verification"].clone();
    assert_eq!(first["state"], "clean", "{first}");
    assert_eq!(
        (first["tables"].as_u64(), first["rows"].as_u64()),
        (Some(5), Some(6507)),
        "{first}"
    );
    assert_eq!(first["mismatched_rows"], 0);
    wait_for_go(&daemon);
    let (state, report) = verify(&daemon);
    assert_eq!((state.as_str(), differences(&report)), ("succeeded", vec![]), "{report}");
    assert_eq!(report["verification"]["state"], "clean");
    assert!(report["verification"]["finished_at"].is_string(), "{report}");
}

#[test]
fn every_kind_of_fault_is_found_and_placed() {
    let (pair, daemon) = wide_pair();
    let bad = saboteur(&pair, Side::Destination);
    // What is done, to which table, with which key, as what, in which columns.
    let faults: &[(&str, &str, &[&str], &str, &[&str])] = &[
        (
            "UPDATE wide.types SET word = 'other' WHERE id = 1",
            "wide.types",
            &["1"],
            "different",
            &["word"],
        ),
        ("DELETE FROM wide.types WHERE id = 2", "wide.types", &["2"], "missing", &[]),
        ("INSERT INTO wide.types (id) VALUES (-5)", "wide.types", &["-5"], "extra", &[]),
        (
            "UPDATE wide.types SET word = '' WHERE id = 100002",
            "wide.types",
            &["100002"],
            "different",
            &["word"],
        ),
        (
            "UPDATE wide.types SET short = (SELECT short FROM wide.types WHERE id = 13 - types.id)
           WHERE id IN (6, 7)",
            "wide.types",
            &["6"],
            "different",
            &["short"],
        ),
        ("", "wide.types", &["7"], "different", &["short"]),
        (
            "UPDATE wide.types SET exact = 1.00 WHERE id = 100001",
            "wide.types",
            &["100001"],
            "different",
            &["exact", "doubled"],
        ),
        (
            "UPDATE wide.types SET word = word || ' ' WHERE id = 8",
            "wide.types",
            &["8"],
            "different",
            &["word"],
        ),
        (
            "UPDATE wide.types SET docb = jsonb_set(docb, '{deep,1,x}', '\"else\"') WHERE id = 9",
            "wide.types",
            &["9"],
            "different",
            &["docb"],
        ),
        (
            "UPDATE wide.types SET docb = '{\"n\": 10.0, \"deep\": [10, {\"x\": \"value 10\"}]}' WHERE id = 10",
            "wide.types",
            &["10"],
            "different",
            &["docb"],
        ),
        (
            "UPDATE wide.types SET double = double + 5e-16 WHERE id = 3",
            "wide.types",
            &["3"],
            "different",
            &["double"],
        ),
        (
            "UPDATE wide.types SET double = 0 WHERE id = 100001",
            "wide.types",
            &["100001"],
            "different",
            &["double", "exact", "doubled"],
        ),
        ("UPDATE wide.types SET span = '24:00:00' WHERE id = 24", "wide.types", &[], "", &[]),
        (
            "UPDATE wide.types SET span = '1 day' WHERE id = 24",
            "wide.types",
            &["24"],
            "different",
            &["span"],
        ),
        (
            "UPDATE wide.types SET list = '[0:2]={25,26,NULL}' WHERE id = 25",
            "wide.types",
            &["25"],
            "different",
            &["list"],
        ),
        (
            "UPDATE wide.types SET large = large # ((1::bigint << 40) | (1 << 8)) WHERE id = 26",
            "wide.types",
            &["26"],
            "different",
            &["large"],
        ),
        (
            "UPDATE wide.types SET instant = instant + '4294967297 microseconds' WHERE id = 27",
            "wide.types",
            &["27"],
            "different",
            &["instant"],
        ),
        (
            "UPDATE wide.types SET sightless = upper(sightless) WHERE id = 28",
            "wide.types",
            &["28"],
            "different",
            &["sightless"],
        ),
        (
            "UPDATE wide.types SET bytes = set_byte(bytes, 3, 255 - get_byte(bytes, 3)) WHERE id = 29",
            "wide.types",
            &["29"],
            "different",
            &["bytes"],
        ),
        (
            "UPDATE wide.types SET feeling = 'calm' WHERE id = 31",
            "wide.types",
            &["31"],
            "different",
            &["feeling"],
        ),
        (
            "UPDATE wide.types SET price = price + 0.01::numeric::money WHERE id = 32",
            "wide.types",
            &["32"],
            "different",
            &["price"],
        ),
        (
            "UPDATE wide.types SET mark = '<a>0</a>' WHERE id = 33",
            "wide.types",
            &["33"],
            "different",
            &["mark"],
        ),
        (
            "UPDATE wide.by_text SET n = 0 WHERE name = 'name 77'",
            "wide.by_text",
            &["name 77"],
            "different",
            &["n"],
        ),
        (
            "UPDATE wide.by_text SET name = 'NAME 78' WHERE name = 'name 78'",
            "wide.by_text",
            &["name 78"],
            "missing",
            &[],
        ),
        ("", "wide.by_text", &["NAME 78"], "extra", &[]),
        (
            "DELETE FROM wide.by_mood WHERE code = 'code 9'",
            "wide.by_mood",
            &["cross", "code 9"],
            "missing",
            &[],
        ),
    ];
    for (sql, ..) in faults {
        if !sql.is_empty() {
            bad.run(sql);
        }
    }
    let (state, report) = verify(&daemon);
    assert_eq!(state, "failed", "{report}");
    let found = differences(&report);
    for (sql, table, key, wrong, columns) in faults.iter().filter(|fault| !fault.2.is_empty()) {
        let of_key = |difference: &&Value| {
            let parts = difference["key"].as_array().cloned().unwrap_or_default();
            let values: Vec<&str> =
                parts.iter().filter_map(|part| part["value"].as_str()).collect();
            difference["object"] == *table && values == *key
        };
        let Some(row) = found.iter().find(of_key) else {
            panic!("not found: {table} {key:?} {sql}")
        };
        assert_eq!(row["wrong"], *wrong, "{sql}: {row}");
        for column in *columns {
            let told = row["columns"].as_array().cloned().unwrap_or_default();
            assert!(told.contains(&json!(column)), "{sql}: {row}");
        }
    }
    // Nothing else is accused: two faults share the row of 100001.
    let rows = faults.iter().filter(|fault| !fault.2.is_empty()).count() - 1;
    assert_eq!(found.len(), rows, "{report}");
    assert_eq!(report["verification"]["mismatched_rows"], rows);
    assert!(!report.to_string().contains("value 10"), "no value is told unless asked for");

    // The gate names the tables; a person who cannot wait may look, and nothing is changed by it.
    let refused = daemon.order("cutover");
    assert_eq!(refused.status, 409, "{}", refused.body);
    let blocker = &refused.body["blockers"][0];
    assert_eq!(blocker["code"], "rows_differ");
    assert!(blocker["message"].as_str().unwrap().contains("wide.types ("), "{blocker}");
    // On the command line it is exit code 1, with one line for each.
    let ran = daemon.command(&["verify", "--show-values"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stdout.contains("wide.by_mood (feeling=cross, code=code 9): missing"), "{ran:?}");
    assert!(
        ran.stdout.contains("word: \"word 1\" on the active side, \"other\" on the passive"),
        "{ran:?}"
    );
}

#[test]
fn rows_without_a_key_are_found_by_their_number() {
    let (pair, daemon) = wide_pair();
    let bad = saboteur(&pair, Side::Destination);
    bad.run(
        "DELETE FROM wide.loose WHERE ctid IN (SELECT ctid FROM wide.loose WHERE a = 3 LIMIT 2)",
    );
    bad.run("INSERT INTO wide.loose VALUES (99, 'new'), (4, 'same')");
    bad.run("INSERT INTO wide.nothing DEFAULT VALUES");
    let (state, report) = verify(&daemon);
    assert_eq!(state, "failed", "{report}");
    let mut told: Vec<(String, String, u64)> = differences(&report)
        .iter()
        .map(|d| {
            let text = |key: &str| d[key].as_str().unwrap_or_default().to_owned();
            (text("object"), text("wrong"), d["rows"].as_u64().unwrap_or(0))
        })
        .collect();
    told.sort();
    let wanted = [
        ("wide.loose", "extra", 1),
        ("wide.loose", "extra", 1),
        ("wide.loose", "missing", 2),
        ("wide.nothing", "extra", 1),
    ];
    assert_eq!(told, wanted.map(|(o, w, n)| (o.to_owned(), w.to_owned(), n)));
}

#[test]
fn writes_under_way_are_no_fault() {
    let pair = Pair::with_bank();
    pair.load(
        "CREATE TABLE bank.churn (id int PRIMARY KEY, v text);
        INSERT INTO bank.churn SELECT n, 'v' FROM generate_series(1, 2000) AS n;
        GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON bank.churn TO app",
    );
    let daemon = Daemon::for_bank(&pair);
    let ledger =
        Ledger::start(&pair, LedgerOptions { writers: 2, pause: Duration::from_millis(20) });
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
