//! Verification: every planted fault is found and placed, equal data is equal, writes under way are
//! no fault, and a cutover is refused while something differs.

use pgferry_plan::Side;
use pgferry_plan::scope::ColumnView;
use pgferry_plan::verify::hashing::{Hashing, OfColumn, OfRow, of_column};
use pgferry_tests::{
    ConfigFile, Daemon, Ledger, LedgerOptions, Pair, PairOptions, Session, eventually,
};
use serde_json::{Value, json};
use std::time::Duration;

use crate::settled::{SOON, wait_for_go};

pub(crate) const WIDE: &str = include_str!("../src/sql/wide.sql");

/// A session that damages the passive side: what it writes carries an origin, so that it is not
/// streamed back to the active side.
pub(crate) fn saboteur(pair: &Pair, side: Side) -> Session {
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
pub(crate) fn verify(daemon: &Daemon) -> (String, Value) {
    let operation = daemon.carry_out("verify");
    let report = daemon.get("/v1/migrations/shop/verification").body;
    (operation["state"].as_str().unwrap_or_default().to_owned(), report)
}

pub(crate) fn differences(report: &Value) -> Vec<Value> {
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

/// What is done, to which table, with which key, as what, in which columns.
type Fault<'a> = (&'a str, &'a str, &'a [&'a str], &'a str, &'a [&'a str]);

#[test]
fn every_kind_of_fault_is_found_and_placed() {
    let (pair, daemon) = wide_pair();
    let bad = saboteur(&pair, Side::Destination);
    let faults: &[Fault] = &[
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
    assert_eq!(blocker["code"], "verification_mismatched");
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

/// Sequences, large objects and definitions are no rows, and are named one by one all the same.
#[test]
fn what_is_no_row_is_compared_too() {
    let pair = Pair::start(PairOptions::default());
    pair.load_store();
    pair.load("CREATE TABLE store.files (id int PRIMARY KEY, content oid);
        INSERT INTO store.files SELECT n, lo_from_bytea(n + 50000, convert_to(repeat('x', 1 + 60 * n), 'UTF8'))
          FROM generate_series(1, 250) AS n;
         SELECT lo_put(50200, 2000000, 'behind a hole')");
    let config = ConfigFile::for_pair(&pair).insert_only(&["store.visits"]);
    let daemon = Daemon::start(&config);
    daemon.bring_to_ready();
    assert_eq!(daemon.migration()["verification"]["state"], "clean", "{}", daemon.migration());
    let bad = saboteur(&pair, Side::Destination);
    bad.run("SELECT lo_put(50200, 2000012, 'd'); SELECT lo_put(50003, 0, 'y')");
    bad.run("SELECT lo_unlink(50009)");
    // A definition that differs is what keeps upkeep from setting the value right meanwhile.
    bad.run("ALTER SEQUENCE store.invoice_number INCREMENT 2");
    bad.run("SELECT setval('store.orders_id_seq', 3)");
    bad.run("ALTER TABLE store.orders DISABLE TRIGGER note_status");
    bad.run("ALTER TABLE store.orders DROP CONSTRAINT orders_total_check");
    bad.run("REVOKE SELECT ON store.audit FROM reader; GRANT DELETE ON store.audit TO reader");
    let (state, report) = verify(&daemon);
    assert_eq!(state, "failed", "{report}");
    let lines = daemon.command(&["verify"]).stdout;
    for line in [
        "large object: large object 50200: different",
        "large object: large object 50003: different",
        "large object: large object 50009: missing",
        "sequence: store.orders_id_seq: it is behind the active side's 5000",
        "store.invoice_number",
        "note_status",
        "orders_total_check",
    ] {
        assert!(lines.contains(line), "{line} is not in\n{lines}");
    }
    assert_eq!(report["verification"]["mismatched_rows"], 0, "{report}");
    let privileges: Vec<Value> =
        differences(&report).into_iter().filter(|d| d["kind"] == "privilege").collect();
    assert_eq!(privileges.len(), 1, "{report}");
    let others = report["verification"]["other_differences"].as_u64();
    assert_eq!(others, Some(differences(&report).len() as u64 - 1), "{report}");
}

/// A row of the passive side is in the way of its own copy: pglogical says nothing, or stops.
#[test]
fn a_row_that_was_lost_in_silence_keeps_the_cutover_away() {
    let pair = Pair::with_bank();
    let daemon = Daemon::for_bank(&pair);
    daemon.bring_to_ready();
    // The passive side's row takes the place of the one that is about to come: pglogical's
    // conflict resolution keeps one of the two, and no error tells.
    let bad = saboteur(&pair, Side::Destination);
    bad.run("INSERT INTO bank.balances VALUES (4711, 1)");
    bad.run("DELETE FROM bank.balances WHERE account = 3");
    let app = pair.app_on(Side::Source).unwrap();
    app.run("UPDATE bank.balances SET amount = amount + 1 WHERE account = 3");
    wait_for_go(&daemon);
    assert_eq!(verify(&daemon).0, "failed");
    let refused = daemon.order("cutover");
    assert_eq!(refused.status, 409, "{}", refused.body);
    let blocker = &refused.body["blockers"][0];
    assert_eq!(blocker["code"], "verification_mismatched", "{blocker}");
    assert!(blocker["message"].as_str().unwrap().contains("bank.balances (2)"), "{blocker}");
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

/// How a column of this type enters the hash between two servers of one version.
fn proven(type_name: &str) -> OfColumn {
    let column = ColumnView {
        name: "v".to_owned(),
        type_name: type_name.to_owned(),
        collation: None,
        not_null: false,
        generated: None,
        identity: None,
        position: 1,
    };
    of_column(&column, Hashing { of_row: OfRow::Record, as_they_are: true, recoded: false })
}

/// Values that hash alike and are not written alike, among those that `values` makes.
fn alike(session: &Session, expression: &str, type_name: &str, values: &str) -> i64 {
    session.number(&format!(
        "SELECT count(*) FROM (SELECT pg_catalog.hash_record_extended(ROW({expression}), 0) AS h
           FROM (SELECT x::{type_name} AS v FROM ({values}) AS s (x)) AS t
          GROUP BY 1 HAVING count(DISTINCT coalesce(v::text, 'NULL!') COLLATE \"C\") > 1) AS c"
    ))
}

/// Each type that is hashed as it is, or in its binary form: equal hashes mean equal text, over edges,
/// neighbours and chance. And each that is not has values that show why.
#[test]
fn the_list_of_types_that_are_hashed_as_they_are_is_proven() {
    let pair = Pair::start(PairOptions::default());
    // The newer server, where they differ: those before 14 hash no record.
    let session = pair.admin(Side::Destination);
    let whole = "SELECT ((random() - 0.5) * 2 * 9e18)::int8 FROM generate_series(1, 20000)
        UNION ALL SELECT n::int8 FROM generate_series(-5000, 5000) AS n
        UNION ALL SELECT (n::int8 << 32) # m FROM generate_series(-60, 60) AS n, generate_series(-60, 60) AS m
        UNION ALL SELECT (1::int8 << n) + m FROM generate_series(0, 62) AS n, generate_series(-1, 1) AS m
        UNION ALL SELECT NULL";
    let texts = "SELECT substr(md5(random()::text), 1, (random() * 32)::int) FROM generate_series(1, 20000)
        UNION ALL SELECT repeat(c, n) FROM unnest(ARRAY['a', ' ', 'é', 'x ', E'\\t']) AS c, generate_series(0, 200) AS n
        UNION ALL SELECT NULL";
    let of_whole = |expression: &str| format!("SELECT {expression} FROM ({whole}) AS w (n)");
    let cases: &[(&str, String)] = &[
        ("boolean", "VALUES (true), (false), (NULL)".to_owned()),
        ("smallint", of_whole("(n % 32768)::int2")),
        ("integer", of_whole("(n % 2147483648)::int4")),
        ("oid", of_whole("(abs(n % 4294967296))::oid")),
        ("bigint", of_whole("n")),
        ("uuid", of_whole("md5(n::text)::uuid")),
        ("bytea", of_whole("int8send(n)")),
        ("\"char\"", of_whole("(n % 128)::int4::\"char\"")),
        ("text", texts.to_owned()),
        ("character varying", texts.to_owned()),
        ("name", texts.to_owned()),
        ("date", of_whole("date '2000-01-01' + (n % 1000000)::int")),
        (
            "time without time zone",
            of_whole("time '00:00' + (n % 86400000000) * interval '1 microsecond'"),
        ),
        (
            "timestamp without time zone",
            of_whole("timestamp '2000-01-01' + (n % 9000000000000000) * interval '1 microsecond'"),
        ),
        (
            "timestamp with time zone",
            of_whole(
                "timestamptz '2000-01-01' + (n % 9000000000000000) * interval '1 microsecond'",
            ),
        ),
    ];
    for (type_name, values) in cases {
        let expression = match proven(type_name) {
            OfColumn::AsItIs => "v".to_owned(),
            OfColumn::Sent(function) => format!("{function}(v)"),
            other => panic!("{type_name} goes by {other:?}: it is not on the list any more"),
        };
        let found = alike(&session, &expression, type_name, values);
        assert_eq!(found, 0, "{type_name}: {found} hashes stand for more than one text");
    }
    // Why the others are not on it; were this test blind, these would be zero.
    for (type_name, values) in [
        ("numeric", "VALUES ('1.0'), ('1.00')"),
        ("double precision", "VALUES ('0'), ('-0')"),
        ("interval", "VALUES ('1 day'), ('24:00:00')"),
        ("jsonb", "VALUES ('{\"a\": 1.0}'), ('{\"a\": 1.00}')"),
        ("integer[]", "VALUES ('[2:3]={1,2}'), ('{1,2}')"),
        ("numrange", "VALUES ('[1.0,2)'), ('[1.00,2)')"),
    ] {
        assert_eq!(proven(type_name), OfColumn::Text, "{type_name}");
        assert_eq!(alike(&session, "v", type_name, values), 1, "{type_name}");
    }
    // Why 64 bits are not left to their own hash.
    assert_eq!(alike(&session, "v", "bigint", "VALUES (0::int8), (4294967297)"), 1);
}

/// A row that an index of the active side does not find looks like one that only the passive side has:
/// it is not, and must not be taken away there.
#[test]
fn a_row_that_an_index_does_not_find_is_never_taken_away() {
    let pair = Pair::with_bank();
    pair.load(
        "CREATE TABLE bank.many (id int PRIMARY KEY, v text);
         INSERT INTO bank.many SELECT n, 'v' FROM generate_series(1, 50000) AS n;
         ANALYZE bank.many",
    );
    let daemon = Daemon::for_bank(&pair);
    daemon.bring_to_ready();
    // An index that takes up no rows, for one row.
    pair.admin(Side::Source).run(
        "BEGIN;
         UPDATE pg_index SET indisready = false WHERE indexrelid = 'bank.many_pkey'::regclass;
         INSERT INTO bank.many VALUES (50001, 'v');
         UPDATE pg_index SET indisready = true WHERE indexrelid = 'bank.many_pkey'::regclass;
         COMMIT",
    );
    let there = pair.admin(Side::Destination);
    let rows = "SELECT count(*) FROM bank.many WHERE id > 50000";
    eventually("the row to arrive", SOON, || match there.number(rows) {
        1 => Ok(()),
        rows => Err(format!("{rows} rows")),
    });
    let bad = saboteur(&pair, Side::Destination);
    bad.run("UPDATE bank.many SET v = 'other' WHERE id = 50001");
    bad.run("INSERT INTO bank.many VALUES (50002, 'extra')");
    let done = daemon.command(&["verify", "--repair", "--yes"]);
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.stdout.contains("index: bank.many: an index does not find"), "{done:?}");
    assert!(done.stdout.contains("id=50001"), "{done:?}");
    assert!(done.stdout.contains("bank.many (id=50002): extra; copied again"), "{done:?}");
    assert_eq!(there.number(rows), 1, "the one that the active side has stays");
}

/// Exactly the rows that differ are copied again, while the application writes on; what cannot be
/// done exactly is refused with its reason.
#[test]
fn a_repair_copies_again_what_differs_and_refuses_what_it_cannot_do_exactly() {
    let pair = Pair::with_bank();
    pair.load(WIDE);
    pair.load(
        "CREATE TABLE bank.noted (id int PRIMARY KEY, v text);
         INSERT INTO bank.noted SELECT n, 'v' FROM generate_series(1, 10) AS n;
         CREATE TABLE bank.coded (id int PRIMARY KEY, code text UNIQUE);
         INSERT INTO bank.coded SELECT n, 'code ' || n FROM generate_series(1, 10) AS n;
         CREATE FUNCTION bank.note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
         CREATE TRIGGER note BEFORE INSERT ON bank.noted FOR EACH ROW EXECUTE FUNCTION bank.note();
         GRANT SELECT, INSERT, UPDATE, DELETE ON bank.noted TO app",
    );
    let config = ConfigFile::for_pair(&pair).insert_only(&[
        "bank.ledger_keyless",
        "wide.nothing",
        "wide.loose",
    ]);
    let daemon = Daemon::start(&config);
    let ledger =
        Ledger::start(&pair, LedgerOptions { writers: 2, pause: Duration::from_millis(20) });
    daemon.bring_to_ready();
    let bad = saboteur(&pair, Side::Destination);
    bad.run("DELETE FROM bank.balances WHERE account IN (3, 4)");
    bad.run("INSERT INTO bank.balances VALUES (4711, 1)");
    bad.run("DELETE FROM wide.types WHERE id IN (1, 100001, 100003)");
    bad.run("UPDATE wide.types SET double = 0, exact = 7.0, padded = 'other' WHERE id = 100002");
    bad.run("DELETE FROM wide.by_mood WHERE code = 'code 9'");
    // What is missing finds its place taken by what is extra.
    bad.run("UPDATE bank.coded SET id = 500 WHERE id = 5");
    bad.run("UPDATE bank.noted SET v = 'other' WHERE id = 5");
    bad.run("INSERT INTO wide.loose VALUES (99, 'new')");
    // Told first, and nothing is changed by it.
    let told = daemon.command(&["verify", "--repair"]);
    assert_eq!(told.code, Some(1), "{told:?}");
    assert!(told.stderr.contains("--repair --yes"), "{told:?}");
    assert_eq!(pair.admin(Side::Destination).number("SELECT count(*) FROM bank.balances"), 63);

    let done = daemon.command(&["verify", "--repair", "--yes"]);
    assert_eq!(done.code, Some(1), "two tables cannot be mended: {done:?}");
    assert!(done.stdout.contains("bank.balances (account=4711): extra; copied again"), "{done:?}");
    assert!(
        done.stdout.contains("bank.noted (id=5): different in v; not copied again"),
        "{done:?}"
    );
    assert!(done.stdout.contains("wide.loose (1 rows): extra; not copied again"), "{done:?}");
    let last = daemon.migration()["verification"].clone();
    assert_eq!(
        (last["mended_rows"].as_u64(), last["mismatched_rows"].as_u64()),
        (Some(10), Some(2))
    );
    bad.run("DELETE FROM wide.loose WHERE a = 99; UPDATE bank.noted SET v = 'v' WHERE id = 5");
    let (state, report) = verify(&daemon);
    assert_eq!(state, "succeeded", "{report}");
    // Nothing travelled back, and no promise was broken.
    crate::settled::assert_whole(&pair, &ledger, Side::Source);
    let origins = pair.admin(Side::Destination);
    let left = "SELECT count(*) FROM pg_replication_origin WHERE roname LIKE '%repair'";
    assert_eq!(origins.number(left), 0);
}
