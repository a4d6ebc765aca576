//! The copy under whatever can happen to it meanwhile: kills, broken connections, restarts, TRUNCATE
//! and ALTER TABLE, rows and indexes that the destination refuses. It arrives, and both sides hold
//! the same; what needs a person is one condition with a hint, and `resume` goes on.

use std::time::Duration;

use pgferry_plan::Side;
use pgferry_tests::config::migration;
use pgferry_tests::{
    ConfigFile, DATABASE, Daemon, Ledger, LedgerOptions, Pair, Session, Shutdown, content,
    eventually,
};
use serde_json::Value;

use crate::settled::{SOON, assert_whole};

/// Tables of several sizes: some in pieces, some whole, with values that are stored apart.
const TABLES: &str = "
    CREATE TABLE public.large (
        id bigint PRIMARY KEY, account int NOT NULL, note text NOT NULL, amount numeric(12, 2));
    INSERT INTO public.large
        SELECT i, i % 1000, repeat(md5(i::text), 4), i / 7.0 FROM generate_series(1, 150000) AS i;
    CREATE INDEX large_account ON public.large (account);
    CREATE UNIQUE INDEX large_note ON public.large (note, id);
    CREATE TABLE public.documents (id int PRIMARY KEY, body text NOT NULL);
    ALTER TABLE public.documents ALTER COLUMN body SET STORAGE EXTERNAL;
    INSERT INTO public.documents
        SELECT i, repeat(md5(i::text), 300) FROM generate_series(1, 1500) AS i;
    CREATE TABLE public.medium (id int PRIMARY KEY, code text UNIQUE DEFERRABLE INITIALLY DEFERRED);
    INSERT INTO public.medium SELECT i, md5(i::text) FROM generate_series(1, 20000) AS i;
    CREATE TABLE public.empty (id int PRIMARY KEY);
    GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON ALL TABLES IN SCHEMA public TO app";

/// The application's work on a table that is being copied: updates of key and other columns,
/// aborted subtransactions, deletes.
const TRAFFIC: &str = "
    BEGIN;
    UPDATE public.large SET note = note || 'x', amount = amount + 1 WHERE id % 997 = 3;
    SAVEPOINT s;
    DELETE FROM public.large WHERE id % 991 = 5;
    ROLLBACK TO SAVEPOINT s;
    DELETE FROM public.large WHERE id % 9973 = 7;
    INSERT INTO public.large SELECT i + 1000000, 1, 'new ' || i, NULL
        FROM generate_series(1, 50) AS i ON CONFLICT DO NOTHING;
    UPDATE public.medium SET code = code || 'y' WHERE id % 501 = 1;
    COMMIT";

fn loaded() -> Pair {
    let pair = Pair::with_bank();
    pair.load(TABLES);
    pair
}

/// A few writers: the tests' servers share a machine, and the stream has to catch up with them.
fn writers(pair: &Pair) -> Ledger {
    Ledger::start(pair, LedgerOptions::SLOW)
}

fn config(pair: &Pair) -> ConfigFile {
    ConfigFile::for_pair(pair)
        .insert_only(&["bank.ledger_keyless"])
        .with(&migration("poll_interval"), "100ms")
}

/// Slow enough that something can happen meanwhile.
fn slowly(pair: &Pair) -> ConfigFile {
    config(pair).with(&migration("copy.max_bytes_per_second"), "10MB")
}

fn start(daemon: &Daemon) {
    assert_eq!(daemon.order("start").status, 202);
}

/// Waits until some rows have been sent, and not all.
fn wait_until_copying(daemon: &Daemon) {
    daemon.wait_until("rows on their way", |migration| {
        assert_ne!(migration["phase"], "ready", "it was over too soon");
        migration["copy"]["bytes"].as_u64() > Some(1_000_000)
    });
}

fn events(daemon: &Daemon) -> Vec<Value> {
    let answer = daemon.get("/v1/migrations/shop/events?after=0");
    answer.body["events"].as_array().cloned().unwrap_or_default()
}

/// Snapshots that the copy was begun under.
fn snapshots(daemon: &Daemon) -> usize {
    let mut copied_under: Vec<String> = events(daemon)
        .iter()
        .filter(|event| event["action"] == "copy_rows")
        .map(|event| event["snapshot_lsn"].to_string())
        .collect();
    copied_under.sort();
    copied_under.dedup();
    copied_under.len()
}

/// Both sides hold the same, nothing was echoed, and nothing is held on the source.
fn assert_arrived(pair: &Pair, daemon: &Daemon, ledger: &Ledger) {
    daemon.wait_for_phase("ready");
    assert_whole(pair, ledger, Side::Source);
    ledger.hold();
    content::wait_until_equal(&pair.source, &pair.destination, SOON);
    ledger.resume();
    wait_until_let_go(pair);
}

/// Waits until no session holds a snapshot on the source.
fn wait_until_let_go(pair: &Pair) {
    let holders = "SELECT count(*) FROM pg_stat_activity \
                   WHERE application_name LIKE 'pgferry-snapshot/%'";
    eventually("the snapshot to be let go", SOON, || {
        match pair.admin(Side::Source).number(holders) {
            0 => Ok(()),
            held => Err(format!("{held} are held")),
        }
    });
}

fn wait_for_condition(daemon: &Daemon, code: &str) -> Value {
    let blocked = daemon.wait_until(code, |migration| migration["condition"]["code"] == code);
    assert_eq!(blocked["condition"]["kind"], "blocked", "{blocked}");
    let hint = blocked["condition"]["hint"].as_str().unwrap_or_default();
    assert!(!hint.is_empty(), "{blocked}");
    blocked
}

#[test]
fn killed_fifty_times_it_arrives_and_every_row_once() {
    let pair = loaded();
    let ledger = writers(&pair);
    let mut daemon =
        Daemon::start(&config(&pair).with(&migration("copy.max_bytes_per_second"), "4MB"));
    start(&daemon);
    daemon.wait_until("the copy", |migration| migration["step"] == "copy_rows");
    let seed = std::env::var("PGFERRY_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let mut random = seed.unwrap_or_else(|| u64::from(std::process::id()));
    eprintln!("PGFERRY_TEST_SEED={random}");
    let mut application = pair.app_on(Side::Source).unwrap();
    for kill in 0..50 {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // Anywhere between its first breath and well into the copy.
        std::thread::sleep(Duration::from_millis((random >> 33) % 500));
        daemon.kill();
        if kill % 10 == 0 {
            application.run(TRAFFIC);
        }
        daemon.serve();
    }
    assert_arrived(&pair, &daemon, &ledger);
    assert_eq!(snapshots(&daemon), 1, "it went on where it was");
    application = pair.app_on(Side::Source).unwrap();
    application.run(TRAFFIC);
    assert_arrived(&pair, &daemon, &ledger);
}

#[test]
fn killed_in_the_middle_of_a_table_it_goes_on_behind_the_rows_that_are_there() {
    let pair = loaded();
    // Rows of one block in another order than they were made in, and some that nobody sees.
    pair.app_on(Side::Source).unwrap().run(TRAFFIC);
    let ledger = writers(&pair);
    let mut daemon = Daemon::start(&slowly(&pair));
    start(&daemon);
    let there = "SELECT row_count FROM pgferry.copied \
                 WHERE table_name = 'large' AND row_count > 0 AND NOT is_complete";
    let destination = pair.admin(Side::Destination);
    daemon.wait_until("some rows of the table", |migration| {
        assert_ne!(migration["phase"], "ready", "it was over too soon");
        migration["step"] == "copy_rows" && destination.value(there).is_some()
    });
    daemon.kill();
    let sessions =
        "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'pgferry/%/copy'";
    eventually("the copy's sessions to end", SOON, || match destination.number(sessions) {
        0 => Ok(()),
        some => Err(format!("{some} are left")),
    });
    let before = destination.number(there);
    assert_eq!(destination.number("SELECT count(*) FROM public.large"), before);
    let by =
        destination.value("SELECT string_agg(DISTINCT xmin::text, ',') FROM public.large").unwrap();
    daemon.serve();
    assert_arrived(&pair, &daemon, &ledger);
    assert_eq!(snapshots(&daemon), 1, "it went on where it was");
    let kept = format!(
        "SELECT count(*) FROM public.large WHERE xmin::text = ANY (string_to_array('{by}', ','))"
    );
    assert_eq!(destination.number(&kept), before, "of the rows that were there");
}

#[test]
fn under_load_nothing_conflicts_and_nothing_comes_back() {
    let pair = loaded();
    let ledger = writers(&pair);
    let daemon = Daemon::start(&slowly(&pair));
    // A transaction that began before the snapshot and ends after it.
    let long = pair.app_on(Side::Source).unwrap();
    start(&daemon);
    wait_until_copying(&daemon);
    long.run("BEGIN; UPDATE public.medium SET code = code || 'long' WHERE id BETWEEN 2 AND 99");
    let application = pair.app_on(Side::Source).unwrap();
    application.run(TRAFFIC);
    long.run(
        "SAVEPOINT s; DELETE FROM public.medium WHERE id = 5; ROLLBACK TO SAVEPOINT s; COMMIT",
    );
    assert_arrived(&pair, &daemon, &ledger);
    // The test's servers keep commit timestamps: a row that was not stamped would be told.
    for side in Side::BOTH {
        // Heartbeat and marker are made on both sides and meet once.
        let log = pair.cluster(side).log();
        let told: Vec<&str> = log
            .lines()
            .filter(|line| line.contains("CONFLICT") && !line.contains("relation pgferry."))
            .collect();
        assert_eq!(told, Vec::<&str>::new(), "on the {side}");
    }
}

#[test]
fn a_truncated_table_travels_with_the_stream() {
    let pair = loaded();
    let ledger = writers(&pair);
    let daemon = Daemon::start(&slowly(&pair));
    start(&daemon);
    wait_until_copying(&daemon);
    let application = pair.app_on(Side::Source).unwrap();
    application.run(
        "TRUNCATE public.large; INSERT INTO public.large VALUES (1, 1, 'after', 1);
         TRUNCATE public.medium; INSERT INTO public.medium VALUES (7, 'after')",
    );
    assert_arrived(&pair, &daemon, &ledger);
    assert_eq!(snapshots(&daemon), 1, "{}", daemon.log());
    assert_eq!(pair.admin(Side::Destination).number("SELECT count(*) FROM public.large"), 1);
    assert!(daemon.log().contains("giving way"), "TRUNCATE waited for a whole table");
}

#[test]
fn a_table_that_is_rewritten_is_told_and_copied_from_a_new_snapshot() {
    let pair = loaded();
    let ledger = writers(&pair);
    let daemon = Daemon::start(&slowly(&pair));
    start(&daemon);
    wait_until_copying(&daemon);
    // It waits for the table that is being read, and comes in between.
    pair.load("ALTER TABLE public.large ALTER COLUMN note TYPE text USING note || ' rewritten'");
    let blocked = wait_for_condition(&daemon, "source_rewritten");
    assert!(blocked.to_string().contains("public.large"), "{blocked}");
    daemon.succeed("resume");
    assert_arrived(&pair, &daemon, &ledger);
    assert_eq!(snapshots(&daemon), 2);
}

#[test]
fn a_table_that_is_rewritten_while_the_daemon_is_away_is_not_taken_for_what_it_was() {
    let pair = loaded();
    let ledger = writers(&pair);
    let mut daemon = Daemon::start(&slowly(&pair));
    start(&daemon);
    wait_until_copying(&daemon);
    daemon.kill();
    // Under the old snapshot the new file holds nothing, and COPY says so without an error.
    pair.load(
        "ALTER TABLE public.large ALTER COLUMN account TYPE int USING account + 1;
         ALTER TABLE public.documents ALTER COLUMN body TYPE text USING body || '.'",
    );
    daemon.serve();
    wait_for_condition(&daemon, "source_rewritten");
    daemon.succeed("resume");
    assert_arrived(&pair, &daemon, &ledger);
    assert_eq!(snapshots(&daemon), 2);
}

#[test]
fn a_table_dropped_meanwhile_does_not_hold_the_others_up() {
    let pair = loaded();
    let daemon = Daemon::start(&slowly(&pair));
    start(&daemon);
    wait_until_copying(&daemon);
    pair.load("DROP TABLE public.empty CASCADE; DROP TABLE public.medium CASCADE");
    daemon.wait_until("the copy's end", |migration| {
        // Tried again at once, as a person would.
        if migration["condition"]["kind"] == "blocked" {
            let _ = daemon.order("resume");
        }
        migration["phase"] == "following" || migration["phase"] == "ready"
    });
    assert_eq!(snapshots(&daemon), 1);
}

#[test]
fn broken_connections_cost_a_piece_and_no_more() {
    let pair = loaded();
    let ledger = writers(&pair);
    let daemon = Daemon::start(&slowly(&pair));
    start(&daemon);
    for side in [Side::Source, Side::Destination, Side::Source] {
        wait_until_copying(&daemon);
        pair.admin(side).run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE application_name LIKE 'pgferry/%/copy'",
        );
    }
    assert_arrived(&pair, &daemon, &ledger);
    assert_eq!(snapshots(&daemon), 1);
    let log = daemon.log();
    assert!(log.contains("on with a new one"), "{log}");
    assert!(!log.contains("background job failed"), "{log}");
}

#[test]
fn a_destination_that_crashes_loses_no_piece_that_counts() {
    let mut pair = loaded();
    let ledger = writers(&pair);
    let daemon = Daemon::start(&slowly(&pair));
    start(&daemon);
    wait_until_copying(&daemon);
    pair.destination.restart(Shutdown::Immediate);
    assert_arrived(&pair, &daemon, &ledger);
}

#[test]
fn a_source_that_restarts_takes_its_snapshot_along() {
    let mut pair = loaded();
    let daemon = Daemon::start(&slowly(&pair));
    start(&daemon);
    wait_until_copying(&daemon);
    pair.source.restart(Shutdown::Immediate);
    let ledger = writers(&pair);
    daemon.wait_until("ready, with a new snapshot", |migration| {
        if migration["condition"]["kind"] == "blocked" {
            let _ = daemon.order("resume");
        }
        migration["phase"] == "ready"
    });
    assert_arrived(&pair, &daemon, &ledger);
    assert_eq!(snapshots(&daemon), 2);
}

/// Holds the copy up before its first row by a lock on the destination.
fn start_and_hold(pair: &Pair, daemon: &Daemon) -> Session {
    let holder = pair.admin(Side::Destination);
    start(daemon);
    eventually("the destination's tables", SOON, || {
        holder
            .try_rows("BEGIN; LOCK TABLE public.large, public.medium IN EXCLUSIVE MODE")
            .map(drop)
            .map_err(|error| {
                holder.run("ROLLBACK");
                error.to_string()
            })
    });
    eventually("the copy to wait for the lock", SOON, || {
        let waiting = pair.admin(Side::Destination).number(
            "SELECT count(*) FROM pg_stat_activity
              WHERE application_name LIKE 'pgferry/%' AND wait_event_type = 'Lock'",
        );
        if waiting > 0 { Ok(()) } else { Err(daemon.migration().to_string()) }
    });
    holder
}

#[test]
fn rows_that_the_destination_refuses_are_told_and_resume_goes_on() {
    let pair = loaded();
    let ledger = writers(&pair);
    let daemon = Daemon::start(&config(&pair));
    let holder = start_and_hold(&pair, &daemon);
    for (state, code) in
        [("23514", "copy_failed_on_destination"), ("53100", "destination_disk_full")]
    {
        holder.run(&format!(
            "CREATE OR REPLACE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN RAISE EXCEPTION 'no room for %', NEW.id USING ERRCODE = '{state}'; END $$;
             CREATE TRIGGER refuse BEFORE INSERT ON public.medium FOR EACH ROW
             EXECUTE FUNCTION public.refuse();
             COMMIT"
        ));
        daemon.succeed("resume");
        let blocked = wait_for_condition(&daemon, code);
        assert!(blocked.to_string().contains("no room for"), "{blocked}");
        holder.run("DROP FUNCTION public.refuse() CASCADE; BEGIN");
    }
    holder.run("COMMIT");
    daemon.succeed("resume");
    assert_arrived(&pair, &daemon, &ledger);
    assert_eq!(snapshots(&daemon), 1);
}

#[test]
fn an_index_that_cannot_be_built_is_told_and_resume_goes_on() {
    let pair = loaded();
    pair.load(
        "CREATE FUNCTION public.same(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1';
         CREATE UNIQUE INDEX large_same ON public.large (public.same(id::int));
         CREATE UNIQUE INDEX medium_same ON public.medium (public.same(id))",
    );
    let ledger = writers(&pair);
    let daemon = Daemon::start(&config(&pair));
    let holder = start_and_hold(&pair, &daemon);
    let function = |body: &str| {
        holder.run(&format!(
            "CREATE OR REPLACE FUNCTION public.same(int) RETURNS int LANGUAGE sql IMMUTABLE AS '{body}'"
        ));
    };
    function("SELECT 1");
    holder.run("COMMIT");
    let blocked = wait_for_condition(&daemon, "index_not_built");
    assert!(blocked.to_string().contains("_same"), "{blocked}");
    function("SELECT $1");
    daemon.succeed("resume");
    assert_arrived(&pair, &daemon, &ledger);
    let valid = "SELECT count(*) FROM pg_index WHERE indisvalid AND \
                 indexrelid::regclass::text LIKE '%\\_same'";
    assert_eq!(pair.admin(Side::Destination).number(valid), 2);
}

#[test]
fn the_snapshot_is_let_go_with_the_last_row_and_not_with_the_last_index() {
    let pair = loaded();
    pair.load(
        "CREATE FUNCTION public.held(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1';
         CREATE INDEX large_held ON public.large (public.held(id::int)) WHERE id <= 10",
    );
    let ledger = writers(&pair);
    let daemon = Daemon::start(&config(&pair));
    let holder = start_and_hold(&pair, &daemon);
    holder.run(
        "SELECT pg_advisory_lock(7);
         CREATE OR REPLACE FUNCTION public.held(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
         'BEGIN PERFORM pg_advisory_xact_lock_shared(7); RETURN $1; END';
         COMMIT",
    );
    let building = || {
        pair.admin(Side::Destination).number(
            "SELECT count(*) FROM pg_stat_activity
              WHERE application_name LIKE 'pgferry/%/copy' AND wait_event = 'advisory'",
        )
    };
    eventually("the index to wait for the lock", SOON, || match building() {
        0 => Err(daemon.migration().to_string()),
        _ => Ok(()),
    });
    wait_until_let_go(&pair);
    assert_eq!(building(), 1, "the index is still being built");
    holder.run(
        "CREATE OR REPLACE FUNCTION public.held(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1';
         SELECT pg_advisory_unlock(7)",
    );
    assert_arrived(&pair, &daemon, &ledger);
}

#[test]
fn a_type_without_a_binary_form_is_copied_as_text() {
    let pair = loaded();
    pair.load(
        "CREATE TABLE public.rights (id int PRIMARY KEY, one aclitem NOT NULL, list aclitem[]);
         INSERT INTO public.rights
             SELECT i, 'app=r/owner', ARRAY['owner=arw/owner', NULL]::aclitem[]
             FROM generate_series(1, 1000) AS i;
         GRANT SELECT ON public.rights TO app",
    );
    let ledger = writers(&pair);
    let daemon = Daemon::start(&config(&pair));
    start(&daemon);
    assert_arrived(&pair, &daemon, &ledger);
    let arrived = "SELECT count(*) FROM public.rights WHERE one::text = 'app=r/owner' \
                   AND list::text = '{owner=arw/owner,NULL}'";
    assert_eq!(pair.admin(Side::Destination).number(arrived), 1000);
}

#[test]
fn a_pace_is_kept() {
    let pair = loaded();
    let daemon = Daemon::start(&slowly(&pair));
    start(&daemon);
    let ready = daemon.wait_until("ready", |migration| migration["phase"] == "ready");
    let (bytes, seconds) = (ready["copy"]["bytes"].as_f64(), ready["copy"]["seconds"].as_f64());
    // Never faster than told, whatever the machine; a tenth of a second may be caught up.
    assert!(
        seconds.unwrap_or_default() + 0.1 >= bytes.unwrap_or_default() / (10.0 * 1024.0 * 1024.0),
        "{ready}"
    );
    assert_eq!(pair.destination.sql(DATABASE, "SELECT count(*)::text FROM public.large").len(), 1);
}
