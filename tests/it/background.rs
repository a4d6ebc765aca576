//! Verification in the background: it finds damage by itself, gives way, goes on after a crash, reads
//! first what was written lately, and leaves no line in the journal while nothing changes.

use pgferry_plan::Side;
use pgferry_tests::config::migration;
use pgferry_tests::daemon::PHASE_DEADLINE;
use pgferry_tests::{ConfigFile, Daemon, Pair, PairOptions, eventually};
use serde_json::{Value, json};

use crate::settled::{SOON, wait_for_go};
use crate::verify::saboteur;

/// Twelve tables of a few rows: each counts for 256 kB of the rate.
const MANY: &str = "CREATE SCHEMA many;
    DO $$ BEGIN FOR n IN 10..21 LOOP
        EXECUTE format('CREATE TABLE many.t%s (id int PRIMARY KEY, v text)', n);
        EXECUTE format('INSERT INTO many.t%s SELECT g, $1 FROM generate_series(1, 50) AS g', n) USING 'v';
    END LOOP; END $$;
    GRANT USAGE ON SCHEMA many TO app;
    GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA many TO app";

fn config(pair: &Pair, rate: &str, pause: &str) -> ConfigFile {
    ConfigFile::for_pair(pair)
        .insert_only(&["bank.ledger_keyless"])
        .with(&migration("verify.background_bytes_per_second"), rate)
        .with(&migration("verify.background_pause"), pause)
}

fn many_pair(rate: &str, pause: &str) -> (Pair, Daemon) {
    let pair = Pair::start(PairOptions::default());
    pair.load(MANY);
    let config = ConfigFile::for_pair(&pair)
        .with(&migration("verify.background_bytes_per_second"), rate)
        .with(&migration("verify.background_pause"), pause);
    let daemon = Daemon::start(&config);
    daemon.bring_to_ready();
    (pair, daemon)
}

/// Waits until the last verification satisfies this, and returns it.
fn verification(daemon: &Daemon, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let seen = daemon.wait_until(what, |migration| wanted(&migration["verification"]));
    seen["verification"].clone()
}

/// Waits until so many rounds more have ended.
fn rounds(daemon: &Daemon, times: usize) {
    for _ in 0..times {
        let before = daemon.migration()["verification"]["finished_at"].clone();
        verification(daemon, "another round", |now| {
            now["finished_at"].is_string() && now["finished_at"] != before
        });
    }
}

/// What the journal was told of verifications, as states.
fn told(daemon: &Daemon) -> Vec<(u64, bool)> {
    let events = daemon.get("/v1/migrations/shop/events").body["events"].clone();
    let verified = events.as_array().into_iter().flatten().filter(|e| e["event"] == "verified");
    verified
        .map(|event| {
            let mismatched = event["verified"]["mismatched_rows"].as_u64().unwrap_or_default();
            (mismatched, event["verified"]["background"] == true)
        })
        .collect()
}

fn begun(pair: &Pair) -> Option<String> {
    pair.admin(Side::Destination)
        .value("SELECT run::text FROM pgferry.background WHERE verified IS NULL")
}

#[test]
fn damage_is_found_by_itself_told_once_and_keeps_a_cutover_away() {
    let pair = Pair::with_bank();
    let daemon = Daemon::start(&config(&pair, "1GB", "1s"));
    daemon.bring_to_ready();
    rounds(&daemon, 2);
    assert_eq!(told(&daemon), [], "nothing has changed");
    let events = daemon.get("/v1/migrations/shop/events").body;

    let bad = saboteur(&pair, Side::Destination);
    bad.run("DELETE FROM bank.balances WHERE account = 7");
    verification(&daemon, "the damage to be found", |now| now["state"] == "mismatched");
    let refused = daemon.order("cutover");
    assert_eq!(refused.status, 409, "{}", refused.body);
    let blocker = &refused.body["blockers"][0];
    assert_eq!(blocker["code"], "verification_mismatched", "{}", refused.body);
    assert!(blocker["message"].as_str().unwrap().contains("bank.balances (1)"), "{blocker}");
    let report = daemon.get("/v1/migrations/shop/verification").body;
    assert_eq!(
        report["differences"][0]["key"],
        json!([{"column": "account", "value": "7"}]),
        "{report}"
    );
    eventually("the damage to be measured", SOON, || {
        let metrics = daemon.try_get("/metrics")?.body;
        let line = "pgferry_verify_mismatched_rows{migration=\"shop\"} 1";
        let text = metrics.as_str().unwrap_or_default();
        if text.contains(line) { Ok(()) } else { Err("not there yet".to_owned()) }
    });
    rounds(&daemon, 3);
    assert_eq!(told(&daemon), [(1, true)], "told once");

    // Set right by a person, it is seen to be right by itself.
    let row = pair.admin(Side::Source).value(
        "SELECT format('INSERT INTO bank.balances SELECT (%L::bank.balances).*', b) \
         FROM bank.balances AS b WHERE account = 7",
    );
    bad.run(&row.unwrap());
    verification(&daemon, "the other outcome", |now| now["state"] == "clean");
    eventually("it to be told", SOON, || match told(&daemon).as_slice() {
        [(1, true), (0, true)] => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let later = daemon.get("/v1/migrations/shop/events").body;
    let number = |events: &Value| events["events"].as_array().map_or(0, Vec::len);
    assert_eq!(number(&later), number(&events) + 2, "nothing else: {later}");

    // The other direction is compared as well.
    wait_for_go(&daemon);
    daemon.succeed("cutover");
    verification(&daemon, "the reverse direction", |now| {
        now["active"] == "destination" && now["state"] == "clean"
    });
    let bad = saboteur(&pair, Side::Source);
    bad.run("DELETE FROM bank.balances WHERE account = 8");
    verification(&daemon, "the damage to be found", |now| {
        now["active"] == "destination" && now["state"] == "mismatched"
    });
    // Whoever needs the way back is not kept from it.
    wait_for_go(&daemon);
}

#[test]
fn a_cutover_does_not_wait_for_a_round() {
    let (pair, daemon) = many_pair("256kB", "1s");
    verification(&daemon, "a round to be at work", |now| {
        now["background"].as_str().is_some_and(|words| words.contains("has compared"))
    });
    // The round comes to a statement that does not end by itself.
    let holder = pair.admin(Side::Destination);
    holder.run("BEGIN; LOCK TABLE many.t20, many.t21");
    const WAITING: &str = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
        AND application_name LIKE 'pgferry/shop/%'";
    let looker = pair.admin(Side::Destination);
    eventually("the round to wait", PHASE_DEADLINE, || match looker.value(WAITING).as_deref() {
        Some("0") | None => Err("it does not wait".to_owned()),
        Some(_) => Ok(()),
    });
    let run = begun(&pair);
    assert!(run.is_some(), "a round is under way");
    let accepted = daemon.order("cutover");
    assert_eq!(accepted.status, 202, "{}", accepted.body);
    let ended = daemon.wait_for_operation(&accepted);
    assert_eq!(ended["state"], "succeeded", "{ended}");
    assert_eq!(looker.value(WAITING).as_deref(), Some("0"), "nothing of the round is left");
    assert_eq!(begun(&pair), run, "it was given up, and not brought to its end");
    holder.run("COMMIT");
    // Afterwards the other way round is compared, in a round of its own.
    let last = verification(&daemon, "the reverse direction", |now| now["active"] == "destination");
    assert_eq!(last["state"], "clean", "{last}");
}

#[test]
fn a_pause_stops_it_and_a_verification_that_is_asked_for_goes_before_it() {
    let (pair, daemon) = many_pair("256kB", "1s");
    let at_work = |now: &Value| {
        now["background"].as_str().is_some_and(|words| words.contains("has compared"))
    };
    verification(&daemon, "a round to be at work", at_work);
    let run = begun(&pair);
    daemon.succeed("pause");
    verification(&daemon, "the round to be given up", |now| !at_work(now));
    assert!(run.is_some());
    assert_eq!(begun(&pair), run, "it was given up, and did not end by itself");
    daemon.succeed("resume");
    verification(&daemon, "it to go on", at_work);
    assert_eq!(begun(&pair), run, "the same round");
    // Faster than the round: it is not held to the pace of the background.
    daemon.succeed("verify");
    let last = verification(&daemon, "the result", |now| now["state"] == "clean");
    assert_eq!(last["tables"], 12, "{last}");
    assert_eq!(told(&daemon), [(0, false)]);
}

#[test]
fn a_round_outlives_the_daemon() {
    let (pair, mut daemon) = many_pair("256kB", "1s");
    rounds(&daemon, 1);
    let first = daemon.migration()["verification"].clone();
    let looker = pair.admin(Side::Destination);
    // Of the second round some tables are compared, and written down.
    const COMPARED: &str = "SELECT count(*) FROM pgferry.verified JOIN pgferry.background USING (run) \
        WHERE outcome IS NOT NULL AND background.verified IS NULL";
    eventually("some of a round to be written", PHASE_DEADLINE, || {
        match looker.value(COMPARED).as_deref() {
            Some("0") | None => Err("nothing yet".to_owned()),
            Some(_) => Ok(()),
        }
    });
    let run = begun(&pair).unwrap();
    daemon.kill();
    let killed_at = looker.value("SELECT clock_timestamp()").unwrap();
    daemon.serve();
    // What the first one came to is not forgotten, although the journal has not heard of it.
    let known = verification(&daemon, "the last result", |now| now["state"] == "clean");
    assert!(known["finished_at"].as_str() >= first["finished_at"].as_str(), "{known} {first}");
    assert_eq!(told(&daemon), []);
    let ended = format!(
        "SELECT ((verified ->> 'began_at')::timestamptz < '{killed_at}')::text || \
         (verified ->> 'tables') FROM pgferry.background WHERE run = '{run}'"
    );
    eventually("the same round to end", PHASE_DEADLINE, || match looker.value(&ended) {
        Some(seen) if seen == "true12" => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

#[test]
fn what_was_written_lately_is_said_and_read_first() {
    let (pair, daemon) = many_pair("256kB", "25s");
    pair.app_on(Side::Source).unwrap().run("UPDATE many.t17 SET v = 'new' WHERE id IN (1, 2, 3)");
    verification(&daemon, "what was written to be said", |now| {
        now["since"].as_str().is_some_and(|since| since.ends_with("3 rows in 1 table were written"))
    });
    let looker = pair.admin(Side::Destination);
    const FIRST: &str = "SELECT table_name FROM pgferry.verified JOIN pgferry.background USING (run) \
        WHERE outcome IS NOT NULL ORDER BY verified_at LIMIT 1";
    let first = eventually("a round", PHASE_DEADLINE, || {
        looker.value(FIRST).ok_or_else(|| "nothing is compared yet".to_owned())
    });
    assert_eq!(first, "t17");
    let dry = daemon.post("/v1/migrations/shop/cutover?dry_run=true", &json!({}));
    assert_eq!(dry.body["go"], true, "{}", dry.body);
    let said = dry.body["verification"].as_str().unwrap_or_default().to_owned();
    assert!(
        said.starts_with("the last verification began ") && said.contains("was clean;"),
        "{said}"
    );
}
