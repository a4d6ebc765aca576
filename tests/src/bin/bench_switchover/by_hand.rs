//! What scripts and peers do: the application's role made read-only, its sessions ended, a wait until
//! the positions are equal, the sequences one by one, and the other side opened.
//!
//! Written as well as such a script can be: no polling slower than 20 ms, one session per server kept
//! open. Nobody looks for a writer that slipped through, and nothing survives a crash in the middle.

use std::time::{Duration, Instant};

use pgferry_plan::Side;
use pgferry_tests::pair::PGFERRY_PASSWORD;
use pgferry_tests::{DATABASE, Pair, Session, eventually};

use crate::arguments::Arguments;
use crate::stage::{Measured, Stage};

/// How often a script asks whether everything has arrived.
const POLL: Duration = Duration::from_millis(20);

const ARRIVE_DEADLINE: Duration = Duration::from_secs(120);

const END_SESSIONS: &str = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
     WHERE usename = 'app' AND datname = current_database()";

/// Over pglogical's two streams, which pgferry has set up and then let go of.
pub(crate) fn read_only_role(stage: &mut Stage, arguments: &Arguments) -> Measured {
    if let Some(mut daemon) = stage.daemon.take() {
        assert!(daemon.terminate().success(), "the daemon did not stop in order");
    }
    let mut switched = Vec::new();
    for _ in 0..arguments.by_hand {
        switched.push(stage.switch(|stage| {
            let (from, to) = sessions(&stage.pair, stage.active);
            let began = close(&from);
            arrived(&from);
            sequences(&from, &to);
            open(&to);
            (milliseconds(began), Vec::new())
        }));
    }
    stage.conclude(switched)
}

/// Over PostgreSQL's own streams: one way at a time, because both at once would go round for ever
/// before 16, so the stream is turned while nobody writes.
pub(crate) fn native(stage: &mut Stage, arguments: &Arguments) -> Measured {
    prepare_native(stage);
    let mut switched = Vec::new();
    for _ in 0..arguments.by_hand {
        switched.push(stage.switch(|stage| {
            let (from, to) = sessions(&stage.pair, stage.active);
            let began = close(&from);
            arrived(&from);
            sequences(&from, &to);
            to.run("DROP SUBSCRIPTION moved");
            from.run("DROP PUBLICATION moved");
            to.run("CREATE PUBLICATION moved FOR ALL TABLES");
            from.run(&subscribe(&stage.pair, stage.active.other(), false));
            open(&to);
            (milliseconds(began), Vec::new())
        }));
    }
    stage.conclude(switched)
}

fn prepare_native(stage: &Stage) {
    let (source, destination) = sessions(&stage.pair, Side::Source);
    let mut dump = stage.pair.source.program("pg_dump");
    dump.args(["--schema-only", DATABASE]);
    let dump = pgferry_tests::CommandOutput::of(dump);
    assert_eq!(dump.code, Some(0), "{}", dump.stderr);
    // psql's own commands are no SQL, and a session of ours takes nothing else.
    let sql: Vec<&str> = dump.stdout.lines().filter(|line| !line.starts_with('\\')).collect();
    destination.run(&sql.join("\n"));
    destination.run("SET search_path = public");
    // Inserts only, so that a table without a key can go along.
    source.run("ALTER TABLE bank.ledger_keyless REPLICA IDENTITY FULL");
    destination.run("ALTER TABLE bank.ledger_keyless REPLICA IDENTITY FULL");
    source.run("CREATE PUBLICATION moved FOR ALL TABLES");
    read_only(&destination);
    destination.run(&subscribe(&stage.pair, Side::Source, true));
    eventually("every table to be copied", ARRIVE_DEADLINE, || {
        let left =
            destination.number("SELECT count(*) FROM pg_subscription_rel WHERE srsubstate <> 'r'");
        if left == 0 { Ok(()) } else { Err(format!("{left} tables left")) }
    });
}

fn subscribe(pair: &Pair, from: Side, copy: bool) -> String {
    format!(
        "CREATE SUBSCRIPTION moved CONNECTION 'host=127.0.0.1 port={} dbname={DATABASE} user=pgferry \
         password={PGFERRY_PASSWORD}' PUBLICATION moved WITH (copy_data = {copy})",
        pair.cluster(from).port()
    )
}

fn sessions(pair: &Pair, active: Side) -> (Session, Session) {
    (pair.admin(active), pair.admin(active.other()))
}

fn read_only(session: &Session) {
    session.run(&format!(
        "ALTER ROLE app IN DATABASE {DATABASE} SET default_transaction_read_only = on"
    ));
}

fn close(from: &Session) -> Instant {
    let began = Instant::now();
    read_only(from);
    // Once more for those that were logging in.
    for _ in 0..2 {
        from.run(END_SESSIONS);
    }
    began
}

/// Waits until every slot has confirmed what the server had written when nobody wrote any more.
fn arrived(from: &Session) {
    let position = from.value("SELECT pg_current_wal_lsn()").unwrap_or_default();
    let behind = format!(
        "SELECT count(*) FROM pg_replication_slots WHERE confirmed_flush_lsn < '{position}'"
    );
    let began = Instant::now();
    while from.number(&behind) > 0 {
        assert!(began.elapsed() < ARRIVE_DEADLINE, "the slots do not reach {position}");
        std::thread::sleep(POLL);
    }
}

fn sequences(from: &Session, to: &Session) {
    let values = "SELECT format('%I.%I', schemaname, sequencename), last_value::text FROM pg_sequences \
         WHERE last_value IS NOT NULL AND schemaname NOT IN ('pglogical', 'pgferry')";
    for row in from.rows(values) {
        if let [Some(name), Some(value)] = row.as_slice() {
            to.run(&format!("SELECT setval('{name}', {value})"));
        }
    }
}

fn open(to: &Session) {
    to.run(&format!("ALTER ROLE app IN DATABASE {DATABASE} RESET default_transaction_read_only"));
    to.run(END_SESSIONS);
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}
