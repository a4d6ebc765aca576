//! What an index hides is no difference of rows: it is the index's.

use pgferry_plan::Side;
use pgferry_tests::{Daemon, Pair, eventually};

use super::saboteur;
use crate::settled::SOON;

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

/// A row that an index of the passive side does not find is skipped by pglogical's updates in silence.
/// It is not missing, and must not be written a second time.
#[test]
fn a_row_that_the_passive_sides_index_does_not_find_is_not_called_missing() {
    let pair = Pair::with_bank();
    pair.load(
        "CREATE TABLE bank.many (id int PRIMARY KEY, v text);
         INSERT INTO bank.many SELECT n, 'v' FROM generate_series(1, 50000) AS n;
         GRANT SELECT, INSERT, UPDATE, DELETE ON bank.many TO app;
         ANALYZE bank.many",
    );
    let daemon = Daemon::for_bank(&pair);
    daemon.bring_to_ready();
    // An index that takes up no rows, for one row that is written anew.
    let bad = saboteur(&pair, Side::Destination);
    bad.run(
        "BEGIN;
         UPDATE pg_index SET indisready = false WHERE indexrelid = 'bank.many_pkey'::regclass;
         DELETE FROM bank.many WHERE id = 777;
         INSERT INTO bank.many VALUES (777, 'v');
         UPDATE pg_index SET indisready = true WHERE indexrelid = 'bank.many_pkey'::regclass;
         COMMIT",
    );
    bad.run("DELETE FROM bank.many WHERE id = 778");
    let app = pair.app_on(Side::Source).unwrap();
    app.run("UPDATE bank.many SET v = 'new' WHERE id = 777");
    let done = daemon.command(&["verify", "--repair", "--yes"]);
    assert_eq!(done.code, Some(1), "{done:?}");
    let said = "index: bank.many: an index does not find the row id=777, which is there: \
                REINDEX TABLE on the destination";
    assert!(done.stdout.contains(said), "{done:?}");
    assert!(!done.stdout.contains("(id=777): missing"), "{done:?}");
    assert!(done.stdout.contains("bank.many (id=778): missing; copied again"), "{done:?}");
    let there = pair.admin(Side::Destination);
    there.run(
        "SET enable_indexscan = off; SET enable_bitmapscan = off; SET enable_indexonlyscan = off",
    );
    assert_eq!(there.number("SELECT count(*) FROM bank.many WHERE id = 777"), 1, "not twice");
    // Mended as the message says, the lost update is an ordinary difference, and can be repaired.
    pair.admin(Side::Destination).run("REINDEX TABLE bank.many");
    let done = daemon.command(&["verify", "--repair", "--yes"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert_eq!(there.number("SELECT count(*) FROM bank.many WHERE v = 'new'"), 1);
}
