//! The copy stops before the source keeps more WAL than it may, and goes on when it may keep more.

use std::time::Duration;

use pgferry_plan::Side;
use pgferry_tests::config::migration;
use pgferry_tests::{ConfigFile, DATABASE, Daemon, Pair, Session, content, eventually};
use serde_json::Value;

/// A job that is told to stop is given seconds to do so in order.
const SOON: Duration = Duration::from_secs(60);

/// A table that the copy must write, and cannot while this is held.
const HOLD: &str = "BEGIN; LOCK TABLE bank.balances IN EXCLUSIVE MODE";

/// Sessions on the source that hold the copy's snapshot, and with it vacuum.
const HOLDERS: &str = "SELECT count(*) FROM pg_stat_activity
    WHERE application_name LIKE 'pgferry-snapshot/%'";

/// Rows of the application's tables that have come over.
const COPIED: &str = "SELECT count(*) FROM bank.balances";

fn config(pair: &Pair) -> ConfigFile {
    ConfigFile::for_pair(pair)
        .insert_only(&["bank.ledger_keyless"])
        .with(&migration("poll_interval"), "100ms")
}

/// Starts the migration and holds its copy up on the destination.
fn start_and_hold(pair: &Pair, daemon: &Daemon) -> Session {
    assert_eq!(daemon.order("start").status, 202);
    let holder = pair.admin(Side::Destination);
    eventually("the destination's tables", SOON, || {
        holder.try_rows(HOLD).map(drop).map_err(|error| {
            holder.run("ROLLBACK");
            error.to_string()
        })
    });
    eventually("the copy to wait for the lock", SOON, || {
        let waiting = pair.admin(Side::Destination).rows(
            "SELECT pid, mode FROM pg_locks
              WHERE NOT granted AND relation = 'bank.balances'::regclass",
        );
        let held = pair.admin(Side::Source).number(HOLDERS);
        if !waiting.is_empty() && held > 0 {
            Ok(())
        } else {
            Err(format!("{waiting:?}, {held} holders; {}", daemon.migration()))
        }
    });
    holder
}

/// Writes this many megabytes of WAL on the source that no table keeps.
fn write_wal(pair: &Pair, megabytes: u32) {
    pair.source.sql(
        DATABASE,
        &format!(
            "SELECT count(pg_logical_emit_message(false, 'filler', repeat('x', 1024 * 1024)))
               FROM generate_series(1, {megabytes})"
        ),
    );
}

fn wait_until_stopped(pair: &Pair, daemon: &Daemon) -> Value {
    let stopped = daemon.wait_until("the copy to be stopped", |migration| {
        assert_ne!(migration["phase"], "ready");
        migration["condition"]["code"] == "wal_retention"
    });
    assert_eq!(stopped["condition"]["kind"], "blocked", "{stopped}");
    eventually("the snapshot to be let go", SOON, || {
        match pair.admin(Side::Source).number(HOLDERS) {
            0 => Ok(()),
            held => Err(format!("{held} hold it")),
        }
    });
    stopped
}

/// The journal's intents to copy: one more would be a copy that began again.
fn attempts(daemon: &Daemon) -> usize {
    let events = daemon.get("/v1/migrations/shop/events").body.to_string();
    assert!(events.contains("stop_job"), "{events}");
    events.matches("take_snapshot").count()
}

fn wait_for_ready(pair: &Pair, daemon: &Daemon) {
    daemon.wait_until("ready", |migration| migration["phase"] == "ready");
    assert_eq!(pair.admin(Side::Destination).number(COPIED), 64);
    assert_eq!(content::differences(&pair.source, &pair.destination), Vec::<String>::new());
}

#[test]
fn the_copy_stops_past_the_bound_of_the_configuration() {
    let pair = Pair::with_bank();
    let mut daemon =
        Daemon::start(&config(&pair).with(&migration("copy.max_retained_wal"), "16MB"));
    let holder = start_and_hold(&pair, &daemon);
    write_wal(&pair, 24);
    let stopped = wait_until_stopped(&pair, &daemon);
    assert!(stopped["condition"]["message"].to_string().contains("16 MB"), "{stopped}");

    // It stays stopped, also when it is told to go on and nothing has changed.
    let before = attempts(&daemon);
    holder.run("ROLLBACK");
    daemon.succeed("resume");
    write_wal(&pair, 1);
    daemon.wait_until("another look", |migration| {
        migration["forward"]["retained_wal_bytes"].as_u64() > Some(25 << 20)
    });
    let still = daemon.migration();
    assert_eq!(still["condition"]["code"], "wal_retention", "{still}");
    assert_eq!(attempts(&daemon), before);

    assert!(daemon.terminate().success());
    daemon.set_env("PGFERRY__MIGRATIONS__SHOP__COPY__MAX_RETAINED_WAL", "1GB");
    daemon.serve();
    wait_for_ready(&pair, &daemon);
}

#[test]
fn the_copy_stops_before_the_server_gives_the_slot_up() {
    let pair = Pair::with_bank();
    let bound = |size: &str| {
        pair.source.sql(DATABASE, &format!("ALTER SYSTEM SET max_slot_wal_keep_size = '{size}'"));
        pair.source.sql(DATABASE, "SELECT pg_reload_conf()");
    };
    bound("128MB");
    let mut daemon = Daemon::start(&config(&pair));
    let holder = start_and_hold(&pair, &daemon);
    // More than four fifths, and within the bound.
    write_wal(&pair, 118);
    let stopped = wait_until_stopped(&pair, &daemon);
    assert!(stopped["condition"]["hint"].to_string().contains("max_slot_wal_keep_size"));
    let kept = "SELECT count(*) FROM pg_replication_slots WHERE wal_status <> 'lost'";
    assert_eq!(pair.admin(Side::Source).number(kept), 1);

    // A restart looks before it begins anything.
    let before = attempts(&daemon);
    holder.run("ROLLBACK");
    daemon.kill();
    daemon.serve();
    wait_until_stopped(&pair, &daemon);
    assert_eq!(attempts(&daemon), before);

    bound("1GB");
    daemon.succeed("resume");
    wait_for_ready(&pair, &daemon);
}
