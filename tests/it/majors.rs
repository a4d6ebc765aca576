//! What must hold between any two majors. `make majors` runs it, with much of the other tests,
//! between different ones; beside them it runs with whatever this machine has.

use pgferry_plan::Side;
use pgferry_tests::{ConfigFile, Daemon, Pair, PairOptions, content, leftovers};
use serde_json::Value;

use crate::settled::{SOON, wait_for_go};
use crate::verify::{WIDE, differences, saboteur, verify};

/// Changes and new rows over types of every kind, on the side that is open.
const WRITES: &str = "
    UPDATE wide.types SET large = large + 1, exact = exact + 0.10, span = span + '1 day',
           docb = docb || '{\"moved\": 1.00}', list = list || 7, around = int4range(1, 9),
           padded = 'moved', feeling = 'cross', both_of = ROW(1, 2.50)::wide.pair
     WHERE id % 3 = 0;
    DELETE FROM wide.types WHERE id % 17 = 0;
    INSERT INTO wide.types (id, exact, double, span, bytes, kind)
    SELECT nextval('wide.counter') + 200000, 1.000, '-0', '24:00', '\\x00ff', 'pg_proc'
      FROM generate_series(1, 50);
    UPDATE wide.by_mood SET n = n + 1 WHERE feeling = 'calm'";

#[test]
fn wide_types_cross_come_back_and_cross_again_verified_each_time() {
    let pair = Pair::start(PairOptions::default());
    let before = Side::BOTH.map(|side| leftovers::inventory(pair.cluster(side)));
    pair.load(WIDE);
    let config = ConfigFile::for_pair(&pair).insert_only(&["wide.nothing", "wide.loose"]);
    let daemon = Daemon::start(&config);
    daemon.bring_to_ready();
    assert_eq!(daemon.migration()["verification"]["state"], "clean", "{}", daemon.migration());
    for (verb, active) in
        [("cutover", Side::Destination), ("rollback", Side::Source), ("cutover", Side::Destination)]
    {
        wait_for_go(&daemon);
        daemon.succeed(verb);
        pair.app_on(active).unwrap().run(WRITES);
        assert_equal(&pair, &daemon);
    }
    // Equal to what it was, and not the same.
    saboteur(&pair, Side::Source).run("UPDATE wide.types SET span = '24:00' WHERE id = 100001");
    let (state, report) = verify(&daemon);
    assert_eq!(state, "failed", "{report}");
    let found = of_rows(&report);
    assert_eq!(found.len(), 1, "{report}");
    assert_eq!(
        (&found[0]["object"], &found[0]["columns"]),
        (&"wide.types".into(), &serde_json::json!(["span"])),
        "{report}"
    );
    daemon.succeed("finish");
    for (side, before) in Side::BOTH.into_iter().zip(&before) {
        let mut left = leftovers::since(before, pair.cluster(side));
        left.retain(|left| left != "origin sabotage");
        assert_eq!(left, Vec::<String>::new(), "{side}");
    }
}

fn assert_equal(pair: &Pair, daemon: &Daemon) {
    content::wait_until_settled(pair, SOON);
    assert_eq!(content::differences(&pair.source, &pair.destination), Vec::<String>::new());
    let (state, report) = verify(daemon);
    assert_eq!(state, "succeeded", "{report}");
    assert_eq!(counted(&report), Vec::<Value>::new());
    assert_eq!(report["verification"]["state"], "clean", "{report}");
}

/// Two majors may print the same definition in other words: that is told, and nothing more.
#[test]
fn a_definition_that_differs_is_told_whichever_the_versions_are() {
    let pair = Pair::start(PairOptions::default());
    pair.load_store();
    let daemon = Daemon::start(&ConfigFile::for_pair(&pair).insert_only(&["store.visits"]));
    daemon.bring_to_ready();
    let (state, report) = verify(&daemon);
    assert_eq!(state, "succeeded", "{report}");
    assert_eq!(counted(&report), Vec::<Value>::new());
    assert_eq!(of_kind(&report, "privilege"), Vec::<Value>::new());

    pair.admin(Side::Destination).run(
        "DROP INDEX store.orders_customer_id_idx;
         CREATE INDEX orders_customer_id_idx ON store.orders (total);
         ALTER TABLE store.orders ALTER placed_at SET DEFAULT timestamptz '2026-01-01Z';
         GRANT TRUNCATE ON store.audit TO reader",
    );
    let (kind, ends) =
        if pair.same_major() { ("definition", "failed") } else { ("wording", "succeeded") };
    let (state, report) = verify(&daemon);
    assert_eq!(state, ends, "{report}");
    let told: Vec<String> = of_kind(&report, kind).iter().map(ToString::to_string).collect();
    for name in ["orders_customer_id_idx", "placed_at"] {
        assert!(told.iter().any(|one| one.contains(name)), "{name} is not told: {report}");
    }
    assert_eq!(of_kind(&report, "privilege").len(), 1, "{report}");
}

fn of_kind(report: &Value, kind: &str) -> Vec<Value> {
    differences(report).into_iter().filter(|found| found["kind"] == kind).collect()
}

fn of_rows(report: &Value) -> Vec<Value> {
    of_kind(report, "row")
}

/// What stands against a cutover.
fn counted(report: &Value) -> Vec<Value> {
    let told_only = [&Value::from("wording"), &Value::from("privilege")];
    differences(report).into_iter().filter(|found| !told_only.contains(&&found["kind"])).collect()
}
