//! The copy that pglogical makes: waited for, counted, and never believed when a table is short.

use pgferry_plan::Side;
use pgferry_tests::config::migration;
use pgferry_tests::{
    ConfigFile, DATABASE, Daemon, Ledger, Pair, PairOptions, Profile, content, leftovers,
};

use crate::settled::{SOON, assert_whole, order_and_die};

/// With foreign keys, a trigger, a partitioned table and a check that older rows break: none of
/// them may keep a row from arriving.
const SCHEMA: &str = "
    CREATE SCHEMA shelf;
    CREATE TABLE shelf.parent (id int PRIMARY KEY, above int REFERENCES shelf.parent, UNIQUE (id, above));
    INSERT INTO shelf.parent SELECT n, nullif(n / 2, 0) FROM generate_series(1, 3000) AS n;
    CREATE TABLE shelf.split (id int, at date, parent int REFERENCES shelf.parent, PRIMARY KEY (id, at))
        PARTITION BY RANGE (at);
    CREATE TABLE shelf.split_2025 PARTITION OF shelf.split
        FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
    CREATE INDEX ON shelf.split (parent);
    INSERT INTO shelf.split SELECT n, date '2025-03-01' + n % 200, n FROM generate_series(1, 3000) AS n;
    CREATE TABLE shelf.late (id int PRIMARY KEY, amount int);
    INSERT INTO shelf.late SELECT n, -n FROM generate_series(1, 1000) AS n;
    ALTER TABLE shelf.late ADD CONSTRAINT late_amount CHECK (amount > 0) NOT VALID;
    CREATE FUNCTION shelf.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'fired'; END $$;
    CREATE TRIGGER refusing BEFORE INSERT ON shelf.late FOR EACH ROW EXECUTE FUNCTION shelf.refuse();
    CREATE MATERIALIZED VIEW shelf.counted AS SELECT count(*) AS n FROM shelf.late";

/// By an administrator: pglogical's copy sets this as the role that the server logs in to itself as.
const GRANT: &str = "GRANT SET ON PARAMETER session_replication_role TO pgferry";

fn config(pair: &Pair) -> ConfigFile {
    ConfigFile::for_pair(pair)
        .insert_only(&["bank.ledger_keyless"])
        .with(&migration("copy.method"), "pglogical")
}

#[test]
fn a_copy_of_pglogicals_under_writers_is_whole_and_goes_there_and_back() {
    let pair = Pair::with_bank();
    pair.load(SCHEMA);
    let before = leftovers::inventory(&pair.source);
    let daemon = Daemon::start(&config(&pair));
    let refused = daemon.order("start");
    assert_eq!(refused.status, 409, "{}", refused.body);
    assert!(
        refused.body.to_string().contains(GRANT.trim_end_matches("pgferry")),
        "{}",
        refused.body
    );
    pair.destination.sql(DATABASE, GRANT);
    let mut ledger = Ledger::over(&pair);
    daemon.bring_to_ready();
    assert_whole(&pair, &ledger, Side::Source);
    let counted = pair.admin(Side::Destination).number("SELECT n FROM shelf.counted");
    assert_eq!(counted, 1000);
    let [here, there] = [&pair.source, &pair.destination]
        .map(|cluster| content::structure(cluster, &pair.destination));
    assert_eq!(here, there);

    daemon.succeed("cutover");
    assert_whole(&pair, &ledger, Side::Destination);
    daemon.succeed("rollback");
    assert_whole(&pair, &ledger, Side::Source);
    daemon.succeed("abandon");
    ledger.stop();
    ledger.check(&pair.source).assert_clean();
    assert_eq!(leftovers::since(&before, &pair.source), Vec::<String>::new());
}

/// pglogical does not read the answer to the last COPY of its transaction: with one row in the way
/// it calls the copy finished, and nothing of it is there (seen with 2.4.2).
#[test]
fn rows_that_pglogical_lost_in_silence_are_found_and_named() {
    let pair = Pair::start(PairOptions::default());
    pair.destination.sql(DATABASE, GRANT);
    let mut daemon = Daemon::prepare(&config(&pair).insert_only(&[]), Profile::Test);
    daemon.serve_until("before_effect:create_nodes");
    assert_eq!(daemon.order("start").status, 202);
    let _ = daemon.wait_for_end(SOON);
    // Made after pgferry's own tables, it is copied after them, and so as the last.
    pair.load(
        "CREATE TABLE public.items (id int PRIMARY KEY, note text);
         INSERT INTO items SELECT n, 'item ' || n FROM generate_series(1, 20000) AS n",
    );
    daemon.serve_until("before_effect:create_forward_subscription");
    let _ = daemon.wait_for_end(SOON);
    pair.destination.sql(DATABASE, "INSERT INTO public.items VALUES (7, 'in the way')");
    daemon.serve();
    let blocked = daemon.wait_until("the loss to be found", |m| {
        assert_ne!(m["phase"], "ready", "a table is short: {m}");
        m["condition"]["kind"] == "blocked"
    });
    let condition = blocked["condition"].to_string();
    assert!(condition.contains("rows_missing"), "{condition}");
    assert!(
        condition.contains("public.items (20000 on the source, 1 on the destination)"),
        "{condition}"
    );
    // Whoever asks for the cutover all the same is told the table.
    let refused = daemon.order("cutover");
    assert_eq!((refused.status, &refused.body["code"]), (409, &"not_ready".into()));
    let told = refused.body["blockers"].to_string();
    assert!(told.contains("rows_missing") && told.contains("public.items (20000"), "{told}");
    let status = "SELECT sync_status FROM pglogical.local_sync_status WHERE sync_relname IS NULL";
    assert_eq!(pair.admin(Side::Destination).value(status).as_deref(), Some("r"), "not silent");
    daemon.succeed("abandon");
    assert_eq!(pair.admin(Side::Source).number("SELECT count(*) FROM items"), 20000);
}

#[test]
fn a_table_that_is_one_row_short_is_found_under_writers() {
    let pair = Pair::with_bank();
    pair.destination.sql(DATABASE, GRANT);
    let mut daemon = Daemon::prepare(&config(&pair), Profile::Test);
    let mut ledger = Ledger::over(&pair);
    // What is about to be done there is the counting: pglogical has called its copy finished.
    daemon.serve_until("before_effect:copy_rows");
    assert_eq!(daemon.order("start").status, 202);
    let _ = daemon.wait_for_end(SOON);
    pair.destination.sql(DATABASE, "DELETE FROM bank.balances WHERE account = 64");
    daemon.serve();
    let blocked = daemon.wait_until("the loss to be found", |m| {
        assert_ne!(m["phase"], "ready", "a table is short: {m}");
        m["condition"]["kind"] == "blocked"
    });
    let condition = blocked["condition"].to_string();
    let named =
        "do not have the same rows: bank.balances (64 on the source, 63 on the destination)";
    assert!(condition.contains("rows_missing") && condition.contains(named), "{condition}");
    // Nothing is believed that was found once: it is counted again, and found again.
    ledger.wait_for_writes(20, SOON);
    assert_eq!(daemon.migration()["step"], "copy_rows");
    pair.destination.sql(DATABASE, "INSERT INTO bank.balances VALUES (64, 0)");
    daemon.wait_until("the step to be done", |m| m["step"] != "copy_rows");
    ledger.stop();
    ledger.check(&pair.source).assert_clean();
}

#[test]
fn a_daemon_that_is_killed_along_pglogicals_copy_goes_on() {
    let pair = Pair::with_bank();
    pair.destination.sql(DATABASE, GRANT);
    let mut daemon = Daemon::prepare(&config(&pair), Profile::Test);
    let ledger = Ledger::over(&pair);
    let points = ["copy_schema", "create_forward_subscription", "copy_rows"];
    for (index, step) in points.into_iter().enumerate() {
        daemon.serve_until(&format!("after_effect:{step}"));
        if index == 0 {
            order_and_die(&daemon, "start");
        }
        let _ = daemon.wait_for_end(SOON);
    }
    daemon.serve();
    daemon.wait_for_phase("ready");
    assert_whole(&pair, &ledger, Side::Source);
}
