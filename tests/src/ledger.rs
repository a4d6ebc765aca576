//! Clients that remember what they were promised.
//!
//! Each writer knows both hosts and asks for the one that takes writes, as libpq's
//! `target_session_attrs=read-write` does, and reconnects by itself. A commit counts as
//! acknowledged only when its answer arrived; after any error the outcome is unknown, so that
//! row may be there once or not at all, and its number is never used again. Nothing is judged
//! here but rows: a test asks [`Ledger::check`] and decides.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_postgres::{Client, Config, NoTls};

use crate::cluster::Cluster;
use crate::expect::{eventually, interrupted};
use crate::pair::{DATABASE, Pair, multi_host};
use crate::session::{Session, runtime, words_of};

/// How many writers there are and how hard they write.
#[derive(Clone, Copy, Debug)]
pub struct LedgerOptions {
    /// Clients, each with one connection.
    pub writers: u16,
    /// Time between two transactions of one client. It is part of every gap that is measured.
    pub pause: Duration,
    /// How soon a client that lost its connection, or was refused one, tries again.
    pub reconnect_after: Duration,
}

impl LedgerOptions {
    /// For tests that take long: writers all along, and the processors to those who are tested.
    pub const SLOW: Self = Self {
        writers: 2,
        pause: Duration::from_millis(20),
        reconnect_after: Duration::from_millis(3),
    };
}

impl Default for LedgerOptions {
    fn default() -> Self {
        Self { writers: 8, pause: Duration::from_millis(5), ..Self::SLOW }
    }
}

/// Running writers and everything they were promised.
#[derive(Debug)]
pub struct Ledger {
    order: watch::Sender<Order>,
    writers: Vec<Writer>,
    started: Instant,
}

/// What [`Ledger::check`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerReport {
    /// Commits whose answer arrived.
    pub acknowledged: u64,
    /// Acknowledged rows that are missing from either table.
    pub lost: u64,
    /// Rows that are there more than once.
    pub duplicated: u64,
    /// Transactions of which one table has its row and the other has not.
    pub torn: u64,
    /// By how much the balances do not add up.
    pub balance_off: i64,
    /// Errors that no client may ever see, such as a key used already; each with its count.
    pub impossible: BTreeMap<String, u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Run,
    Hold,
    Stop,
}

#[derive(Debug)]
struct Writer {
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

/// One client's memory.
#[derive(Debug, Default)]
struct Seen {
    acknowledged: Vec<(i64, Instant)>,
    /// The acknowledgement before a hold: the gap across it is the test's doing.
    breaks: HashSet<i64>,
    errors: HashMap<String, u64>,
    holding: bool,
}

/// Before this the servers answer; a client that waits longer takes its connection for dead.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);

/// Writers notice an order between two transactions.
const ORDER_DEADLINE: Duration = Duration::from_secs(60);

impl Ledger {
    /// Starts the usual eight writers.
    #[must_use]
    pub fn over(pair: &Pair) -> Self {
        Self::start(pair, LedgerOptions::default())
    }

    /// Starts writers that know both servers of the pair, the source first.
    #[must_use]
    pub fn start(pair: &Pair, options: LedgerOptions) -> Self {
        Self::with_configs(&[multi_host(pair.source.port(), pair.destination.port())], options)
    }

    /// Starts writers that know one address each, in turn: those of poolers.
    #[must_use]
    pub fn with_configs(configs: &[Config], options: LedgerOptions) -> Self {
        let (order, orders) = watch::channel(Order::Run);
        let writers = (0..options.writers)
            .zip(configs.iter().cycle())
            .map(|(number, config)| {
                let seen = Arc::new(Mutex::new(Seen::default()));
                let client = Writing {
                    number,
                    pause: options.pause,
                    reconnect_after: options.reconnect_after,
                    config: config.clone(),
                    orders: orders.clone(),
                    seen: Arc::clone(&seen),
                    sequence: 0,
                };
                Writer { seen, task: runtime().spawn(client.run()) }
            })
            .collect();
        Self { order, writers, started: Instant::now() }
    }

    /// Commits acknowledged so far, by all clients.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.memories().map(|seen| seen.acknowledged.len() as u64).sum()
    }

    /// Waits until every client has been acknowledged `more` further commits.
    pub fn wait_for_writes(&self, more: usize, deadline: Duration) {
        let before: Vec<usize> = self.memories().map(|seen| seen.acknowledged.len()).collect();
        eventually(&format!("{more} more commits of every client"), deadline, || {
            let behind = self
                .memories()
                .zip(&before)
                .filter(|(seen, before)| seen.acknowledged.len() < *before + more)
                .count();
            if behind == 0 {
                Ok(())
            } else {
                Err(format!("{behind} clients behind; {:?}", self.errors()))
            }
        });
    }

    /// Stops writing between two transactions; returns when every client holds.
    pub fn hold(&self) {
        self.order.send_replace(Order::Hold);
        eventually("every client to hold", ORDER_DEADLINE, || {
            let writing = self.memories().filter(|seen| !seen.holding).count();
            if writing == 0 { Ok(()) } else { Err(format!("{writing} still write")) }
        });
    }

    /// Writes on after [`Ledger::hold`].
    pub fn resume(&self) {
        self.order.send_replace(Order::Run);
    }

    /// Ends every client after its present transaction.
    pub fn stop(&mut self) {
        self.order.send_replace(Order::Stop);
        for writer in &mut self.writers {
            if let Err(error) = runtime().block_on(&mut writer.task) {
                panic!("a writer ended badly: {error}");
            }
        }
    }

    /// The longest time between two acknowledged commits of one client that overlaps the window,
    /// holds left out.
    #[must_use]
    pub fn worst_gap(&self, from: Instant, to: Instant) -> Duration {
        self.memories()
            .filter_map(|seen| {
                seen.acknowledged
                    .windows(2)
                    .filter(|pair| pair[1].1 >= from && pair[0].1 <= to)
                    .filter(|pair| !seen.breaks.contains(&pair[0].0))
                    .map(|pair| pair[1].1 - pair[0].1)
                    .max()
            })
            .max()
            .unwrap_or_default()
    }

    /// The longest such gap since the start.
    #[must_use]
    pub fn worst_gap_ever(&self) -> Duration {
        self.worst_gap(self.started, Instant::now())
    }

    /// Every error a client saw, with its count.
    #[must_use]
    pub fn errors(&self) -> BTreeMap<String, u64> {
        let mut all = BTreeMap::new();
        for seen in self.memories() {
            for (words, count) in &seen.errors {
                *all.entry(words.clone()).or_default() += count;
            }
        }
        all
    }

    /// Compares what was promised with what the active side holds. Writers must be held or
    /// stopped, or rows of the instant are taken for torn ones.
    #[must_use]
    pub fn check(&self, active: &Cluster) -> LedgerReport {
        let session = active.admin(DATABASE);
        let keyed = rows_of(&session, "SELECT client, seq FROM bank.ledger");
        let keyless = rows_of(&session, "SELECT client, seq FROM bank.ledger_keyless");
        let promised: Vec<(i64, i64)> = self
            .memories()
            .enumerate()
            .flat_map(|(client, seen)| {
                let client = i64::try_from(client).unwrap_or(i64::MAX);
                seen.acknowledged.iter().map(|(seq, _)| (client, *seq)).collect::<Vec<_>>()
            })
            .collect();
        let lost = promised
            .iter()
            .filter(|row| !keyed.contains_key(*row) || !keyless.contains_key(*row))
            .count();
        let twice = |rows: &HashMap<(i64, i64), u64>| rows.values().map(|n| n - 1).sum::<u64>();
        let torn = keyed.keys().filter(|row| !keyless.contains_key(*row)).count()
            + keyless.keys().filter(|row| !keyed.contains_key(*row)).count();
        LedgerReport {
            acknowledged: promised.len() as u64,
            lost: lost as u64,
            duplicated: twice(&keyed) + twice(&keyless),
            torn: torn as u64,
            balance_off: session.number("SELECT sum(amount - 1000)::bigint FROM bank.balances"),
            impossible: self
                .errors()
                .into_iter()
                .filter(|(words, _)| IMPOSSIBLE.iter().any(|state| words.ends_with(state)))
                .collect(),
        }
    }

    fn memories(&self) -> impl Iterator<Item = MutexGuard<'_, Seen>> {
        self.writers.iter().map(|writer| lock(&writer.seen))
    }
}

impl LedgerReport {
    /// Whether nothing was lost, doubled or torn and everything adds up.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        let Self { acknowledged: _, lost, duplicated, torn, balance_off, impossible } = self;
        (*lost, *duplicated, *torn, *balance_off) == (0, 0, 0, 0) && impossible.is_empty()
    }

    /// Panics with the whole report unless it is clean and there was something to lose.
    pub fn assert_clean(&self) {
        assert!(self.is_clean(), "the ledger is not clean: {self:?}");
        assert!(self.acknowledged > 0, "nothing was written, so nothing was proved");
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.order.send_replace(Order::Stop);
        if std::thread::panicking() && !interrupted() {
            eprintln!("--- errors the ledger's clients saw ---\n{:#?}", self.errors());
        }
        for writer in &self.writers {
            writer.task.abort();
        }
    }
}

/// SQLSTATEs that mean a broken promise: a key used already (a sequence that handed out a value
/// twice), and a missing table.
const IMPOSSIBLE: [&str; 2] = ["(23505)", "(42P01)"];

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn rows_of(session: &Session, sql: &str) -> HashMap<(i64, i64), u64> {
    let mut rows = HashMap::new();
    for row in session.rows(sql) {
        let number = |column: usize| {
            row[column].as_deref().and_then(|text| text.parse().ok()).unwrap_or(i64::MIN)
        };
        *rows.entry((number(0), number(1))).or_default() += 1;
    }
    rows
}

/// One client while it runs.
struct Writing {
    number: u16,
    pause: Duration,
    reconnect_after: Duration,
    config: Config,
    orders: watch::Receiver<Order>,
    seen: Arc<Mutex<Seen>>,
    sequence: i64,
}

impl Writing {
    async fn run(mut self) {
        while self.may_go_on().await {
            match timeout(ANSWER_DEADLINE, self.config.connect(NoTls)).await {
                Ok(Ok((client, connection))) => {
                    let driver = tokio::spawn(connection);
                    self.write_until_error(&client).await;
                    driver.abort();
                }
                Ok(Err(error)) => self.remember_error(&words_of(&error)),
                Err(_) => self.remember_error("connecting took too long"),
            }
            sleep(self.reconnect_after).await;
        }
    }

    async fn write_until_error(&mut self, client: &Client) {
        while self.may_go_on().await {
            self.sequence += 1;
            let transaction = self.transaction();
            match timeout(ANSWER_DEADLINE, client.batch_execute(&transaction)).await {
                Ok(Ok(())) => lock(&self.seen).acknowledged.push((self.sequence, Instant::now())),
                Ok(Err(error)) => return self.remember_error(&words_of(&error)),
                Err(_) => return self.remember_error("no answer"),
            }
            sleep(self.pause).await;
        }
    }

    /// One round trip: the same row into both tables, and money from one account to another.
    /// Accounts are taken in ascending order, so that two clients cannot deadlock.
    fn transaction(&self) -> String {
        let (client, seq) = (self.number, self.sequence);
        let first = 1 + (seq * 7 + i64::from(client) * 5) % 63;
        let second = first + 1 + (seq * 3) % (64 - first);
        let amount = 1 + seq % 9;
        format!(
            "BEGIN;
             INSERT INTO bank.ledger (client, seq) VALUES ({client}, {seq});
             INSERT INTO bank.ledger_keyless (client, seq) VALUES ({client}, {seq});
             UPDATE bank.balances SET amount = amount - {amount} WHERE account = {first};
             UPDATE bank.balances SET amount = amount + {amount} WHERE account = {second};
             COMMIT"
        )
    }

    /// Holds while it is told to, and says whether to write on.
    async fn may_go_on(&mut self) -> bool {
        loop {
            let order = *self.orders.borrow_and_update();
            {
                let mut seen = lock(&self.seen);
                seen.holding = order == Order::Hold;
                if let (Order::Hold, Some((last, _))) = (order, seen.acknowledged.last().copied()) {
                    seen.breaks.insert(last);
                }
            }
            match order {
                Order::Run => return true,
                Order::Stop => return false,
                Order::Hold => {
                    if self.orders.changed().await.is_err() {
                        return false;
                    }
                }
            }
        }
    }

    fn remember_error(&self, words: &str) {
        *lock(&self.seen).errors.entry(words.to_owned()).or_default() += 1;
    }
}
