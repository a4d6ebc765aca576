//! An application that writes to the source while it is being copied, at a fixed rate.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use pgferry_tests::pair::APP_PASSWORD;
use pgferry_tests::{Cluster, DATABASE, Session, session};
use tokio_postgres::Config;

/// Clients that write; each waits for its answer before it writes again.
const CLIENTS: u32 = 8;

/// Clients that write until they are stopped.
#[derive(Debug)]
pub(crate) struct Writer {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Result<u64, String>>>,
    began: Instant,
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Written {
    /// Transactions that the source has acknowledged.
    pub(crate) acknowledged: u64,
    /// Acknowledged transactions per second, over the whole time.
    pub(crate) per_second: f64,
}

impl Writer {
    /// Begins to write at this rate, or as fast as the source answers when that is slower.
    pub(crate) fn start(source: &Cluster, per_second: u32) -> Self {
        let admin = source.admin(DATABASE);
        let accounts = admin.number("SELECT max(aid) FROM pgbench_accounts");
        let docs = admin.number("SELECT max(id) FROM docs");
        let stop = Arc::new(AtomicBool::new(false));
        let began = Instant::now();
        let clients = (0..CLIENTS).map(|number| {
            let client = Client {
                number: i64::from(number),
                pause: Duration::from_secs_f64(f64::from(CLIENTS) / f64::from(per_second)),
                accounts,
                docs,
            };
            let (stop, session) = (Arc::clone(&stop), app(source));
            thread::spawn(move || client.write(&session, began, &stop))
        });
        let clients = clients.collect();
        Self { stop, clients, began }
    }

    /// Stops after what is in flight, and tells what was written; a refused write is an error.
    pub(crate) fn stop(mut self) -> Result<Written, String> {
        self.stop.store(true, Ordering::Relaxed);
        let mut acknowledged = 0;
        for client in self.clients.drain(..) {
            acknowledged += client.join().unwrap_or_else(|e| std::panic::resume_unwind(e))?;
        }
        let seconds = self.began.elapsed().as_secs_f64();
        Ok(Written { acknowledged, per_second: acknowledged as f64 / seconds })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// One client, and what there is to write to.
struct Client {
    number: i64,
    pause: Duration,
    accounts: i64,
    docs: i64,
}

impl Client {
    fn write(&self, session: &Session, began: Instant, stop: &AtomicBool) -> Result<u64, String> {
        let mut done = 0_u32;
        while !stop.load(Ordering::Relaxed) {
            let due = began + self.pause * done;
            if let Some(wait) = due.checked_duration_since(Instant::now()) {
                thread::sleep(wait.min(Duration::from_millis(100)));
                if Instant::now() < due {
                    continue;
                }
            }
            session
                .try_rows(&self.transaction(i64::from(done)))
                .map_err(|e| format!("a write was refused: {}", session::words_of(&e)))?;
            done += 1;
        }
        Ok(u64::from(done))
    }

    /// pgbench's account and history, and one of: a new row of `docs`, a changed one, one gone.
    fn transaction(&self, turn: i64) -> String {
        let account = 1 + self.draw(turn, 1) % self.accounts;
        let doc = 1 + self.draw(turn, 2) % self.docs;
        let amount = self.draw(turn, 3) % 10_000 - 5_000;
        let on_docs = match turn % 8 {
            0 => format!("DELETE FROM docs WHERE id = {doc}"),
            1..=3 => format!(
                "UPDATE docs SET customer_id = {account}, doc = doc || '{{\"state\": \"moved\"}}'
                  WHERE id = {doc}"
            ),
            _ => format!(
                "INSERT INTO docs VALUES ({}, {account}, now(), '{{\"number\": {turn}}}')",
                self.docs + 1 + self.number + turn * i64::from(CLIENTS)
            ),
        };
        // One message of several statements is one transaction.
        format!(
            "UPDATE pgbench_accounts SET abalance = abalance + {amount} WHERE aid = {account};
             INSERT INTO pgbench_history (tid, bid, aid, delta, mtime)
             VALUES (1, 1, {account}, {amount}, now());
             {on_docs}"
        )
    }

    /// A number from 0 that looks drawn by lot and is the same for the same arguments.
    fn draw(&self, turn: i64, what: i64) -> i64 {
        let seed = (self.number * 1_000_003 + turn) * 31 + what;
        let mut z = (seed as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        (z ^ (z >> 27)) as i64 & i64::from(i32::MAX)
    }
}

fn app(source: &Cluster) -> Session {
    let mut config = Config::new();
    config.host("127.0.0.1").port(source.port());
    config.dbname(DATABASE).user("app").password(APP_PASSWORD);
    Session::connect(&config).unwrap_or_else(|e| panic!("the application cannot connect: {e}"))
}
