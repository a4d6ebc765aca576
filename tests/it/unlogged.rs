//! Unlogged tables come over once, with the copy, and stand in nobody's way afterwards.

use pgferry_plan::Side;
use pgferry_tests::{ConfigFile, Daemon, Ledger, Pair, PairOptions, content};

use crate::settled::{SOON, assert_whole, wait_for_verdict};

/// One with a key and one without, which no stream would have to find.
const CACHE: &str = "
    CREATE UNLOGGED TABLE bank.cache (id int PRIMARY KEY, note text);
    CREATE INDEX ON bank.cache (note);
    CREATE UNLOGGED TABLE bank.visits (at timestamptz, page text);
    INSERT INTO bank.cache SELECT n, 'note ' || n FROM generate_series(1, 500) AS n;
    INSERT INTO bank.visits SELECT now(), 'page ' || n FROM generate_series(1, 300) AS n";

#[test]
fn unlogged_tables_are_copied_once_and_said_so() {
    let pair = Pair::start(PairOptions::default());
    pair.load_bank();
    pair.load(CACHE);
    let daemon = Daemon::start(&ConfigFile::for_pair(&pair).insert_only(&["bank.ledger_keyless"]));
    daemon.bring_to_ready();
    let report = daemon.get("/v1/migrations/shop/preflight").body;
    let told = report["findings"]
        .as_array()
        .unwrap()
        .iter()
        .any(|finding| finding["code"] == "unlogged_tables" && finding["severity"] == "warn");
    assert!(told, "{report}");
    // Every table, theirs included.
    assert_eq!(content::differences(&pair.source, &pair.destination), Vec::<String>::new());
    let kept = "SELECT count(*) FROM pg_class WHERE relpersistence = 'u' AND relkind = 'r'";
    assert_eq!(pair.admin(Side::Destination).number(kept), 2);

    pair.load("INSERT INTO bank.cache VALUES (0, 'made after the copy')");
    wait_for_verdict(&daemon);
    daemon.succeed("cutover");
    let rows = "SELECT count(*) FROM bank.cache";
    assert_eq!(pair.admin(Side::Destination).number(rows), 500, "it was not streamed");
    pair.admin(Side::Source).run("DELETE FROM bank.cache WHERE id = 0");
    let ledger = Ledger::over(&pair);
    ledger.wait_for_writes(5, SOON);
    assert_whole(&pair, &ledger, Side::Destination);
}
