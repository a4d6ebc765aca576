//! No false alarm: both sides of a migration compared again and again while everything that could
//! look like damage goes on. pgbench, a table that is emptied and filled, keys that move, rows that
//! come and go, a row that never holds still, long transactions. Ends at the first alarm.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for a terminal")]

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pgferry_plan::Side;
use pgferry_tests::{ConfigFile, Daemon, Pair, PairOptions, Profile, expect, process};

const USAGE: &str = "usage: make soak ARGS=\"--minutes N\" (60)";

/// Of seconds at rest, on a machine that may have other work for an hour.
const VERIFY_DEADLINE: Duration = Duration::from_secs(600);

/// What troubles a comparison most: the key moves, and the table is sometimes empty.
const CHURN: &str = "
CREATE SCHEMA churn;
CREATE TABLE churn.rows (id int PRIMARY KEY, v text);
INSERT INTO churn.rows SELECT n, 'v' FROM generate_series(1, 20000) AS n;
CREATE TABLE churn.words (word text PRIMARY KEY, n bigint NOT NULL);
INSERT INTO churn.words SELECT 'word ' || n, n FROM generate_series(1, 5000) AS n;
GRANT USAGE ON SCHEMA churn TO app;
GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON ALL TABLES IN SCHEMA churn TO app";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let minutes = match words.as_slice() {
        [] => Some(60),
        [option, value] if option == "--minutes" => value.parse().ok(),
        _ => None,
    };
    let Some(minutes) = minutes else {
        eprintln!("{USAGE}");
        return ExitCode::from(64);
    };
    expect::unwind_on_interrupt();
    match soak(Duration::from_secs(60 * minutes)) {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(alarm) => {
            eprintln!("FALSE ALARM: {alarm}");
            ExitCode::FAILURE
        }
    }
}

fn soak(time: Duration) -> Result<String, String> {
    let pair = Pair::start(PairOptions::default());
    pair.load_pgbench(5);
    pair.load(CHURN);
    let config = ConfigFile::for_pair(&pair).insert_only(&["public.pgbench_history"]);
    let mut daemon = Daemon::prepare(&config, Profile::Release);
    daemon.serve();
    daemon.bring_to_ready();
    let stop = AtomicBool::new(false);
    let seconds = (time.as_secs() + 600).to_string();
    let mut pgbench = pair.source.program("pgbench");
    pgbench.args(["-n", "-c", "4", "-R", "500", "-T", &seconds, pgferry_tests::DATABASE]);
    let pgbench = process::spawn(pgbench).map_err(|e| e.to_string())?;
    let result = thread::scope(|scope| {
        scope.spawn(|| churn(&pair, &stop));
        scope.spawn(|| long_transactions(&pair, &stop));
        let _ends = Ends(&stop);
        verify_until(&daemon, Instant::now() + time)
    });
    process::put_down(pgbench, "KILL");
    result
}

/// Lets the writers end, also when a wait has come to nothing: the scope waits for them.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn verify_until(daemon: &Daemon, end: Instant) -> Result<String, String> {
    let (mut times, mut rows, mut unsettled) = (0_u64, 0, 0);
    while Instant::now() < end {
        let accepted = daemon.order("verify");
        let operation = daemon.wait_for_operation_within(&accepted, VERIFY_DEADLINE);
        let report = daemon.get("/v1/migrations/shop/verification").body;
        if operation["state"] != "succeeded" {
            return Err(format!("{operation}\n{report}"));
        }
        times += 1;
        rows += report["verification"]["rows"].as_u64().unwrap_or(0);
        unsettled += report["verification"]["unsettled_rows"].as_u64().unwrap_or(0);
    }
    Ok(format!("{times} verifications, {rows} rows, no alarm; {unsettled} rows never held still"))
}

fn churn(pair: &Pair, stop: &AtomicBool) {
    let Ok(app) = pair.app_on(Side::Source) else { return };
    let mut turn = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        turn += 1;
        if turn.is_multiple_of(400) {
            app.run("TRUNCATE churn.rows");
            app.run("INSERT INTO churn.rows SELECT n, 'v' FROM generate_series(1, 20000) AS n");
        }
        let low = turn % 19_000;
        app.run(&format!(
            "UPDATE churn.rows SET id = -id WHERE id BETWEEN {low} AND {low} + 20;
             DELETE FROM churn.rows WHERE id = {low} + 30;
             INSERT INTO churn.rows VALUES ({low} + 30, 'again') ON CONFLICT DO NOTHING;
             UPDATE churn.rows SET v = 'hot {turn}' WHERE id = 19999;
             UPDATE churn.words SET word = word || 'x' WHERE n = {turn} % 5000;
             UPDATE churn.words SET word = 'word ' || n WHERE n = ({turn} + 2500) % 5000"
        ));
    }
}

/// What is open for seconds arrives all at once.
fn long_transactions(pair: &Pair, stop: &AtomicBool) {
    let Ok(app) = pair.app_on(Side::Source) else { return };
    while !stop.load(Ordering::Relaxed) {
        app.run(
            "BEGIN; UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid % 5000 = 1;
             SELECT pg_sleep(3); UPDATE pgbench_accounts SET filler = 'f' WHERE aid % 7000 = 2; COMMIT",
        );
    }
}
