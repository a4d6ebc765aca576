//! One verification from its plan to its result.
//!
//! Tables are cut, the ranges compared by a few workers, largest first, and what each came to is
//! written down on the way. An error that may pass is tried again from there.

mod alone;
mod planning;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use pgferry_engine::Fault;
use pgferry_plan::verify::activity::place;
use pgferry_plan::verify::{Difference, Differing, NAMED, Verified};
use pgferry_plan::{Blocker, Side, TableName};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub(super) use self::alone::Alone;
use self::planning::pairs;
use super::background::{self, Gently};
use super::compare::{Compared, MOST_LOCATED, Worker};
use super::mend;
use super::record::{self, Part};
use super::sql::TableSql;
use super::{MOST_TOLD, VerifyError, VerifyFigures, Wish, lock};
use crate::cluster::PgCluster;
use crate::copy::pace::Pace;

/// Tries of a run, each from where the one before ended.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_secs(2);

/// Ranges that are written down together, and for how long they wait.
const WRITTEN_TOGETHER: usize = 200;
const WRITTEN_EVERY: Duration = Duration::from_secs(1);
const WRITTEN_GENTLY: Duration = Duration::from_secs(5);

const IS_GONE: &str = "SELECT pg_catalog.to_regclass($1::text) IS NULL";

/// What one verification is about.
pub(super) struct Run {
    pub(super) cluster: PgCluster,
    pub(super) run: Uuid,
    pub(super) active: Side,
    pub(super) epoch: i64,
    /// The passive side's sequences are kept up.
    pub(super) at_rest: bool,
    pub(super) wish: Wish,
    /// A round in the background.
    pub(super) gently: Option<Gently>,
    pub(super) figures: Arc<Mutex<VerifyFigures>>,
    pub(super) cancel: CancellationToken,
}

/// What is known of a table so far.
#[derive(Clone, Debug, Default)]
struct Totals {
    parts_left: usize,
    mismatched: u64,
    at_least: bool,
}

type Prepared = (BTreeMap<TableName, TableSql>, Mutex<Shared>, Option<Timestamp>);

/// What the workers share.
struct Shared {
    queue: VecDeque<Part>,
    totals: HashMap<TableName, Totals>,
    unwritten: Vec<(Part, Compared)>,
    written_at: Instant,
}

impl Run {
    /// Compares everything, and tells how it came out.
    pub(super) async fn carry_through(self) -> Result<Verified, Blocker> {
        let began_at = Timestamp::now();
        let mut tries = 0;
        loop {
            tries += 1;
            let error = match self.once(began_at).await {
                Ok(verified) => {
                    tracing::info!(
                        rows = verified.rows,
                        mismatched = verified.mismatched_rows,
                        others = verified.other_differences,
                        "both sides were compared"
                    );
                    return Ok(verified);
                }
                Err(error) => error,
            };
            let passes = match &error {
                VerifyError::Fault(Fault::Failed(_)) | VerifyError::Statement { .. } => true,
                VerifyError::Fault(Fault::EpochRaised)
                | VerifyError::Blocked(_)
                | VerifyError::Stopped => false,
            };
            if !passes || tries >= TRIES {
                return Err(error.into_blocker());
            }
            tracing::warn!(%error, "the verification begins again where it was");
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = self.cancel.cancelled() => return Err(VerifyError::Stopped.into_blocker()),
            }
        }
    }

    async fn once(&self, began_at: Timestamp) -> Result<Verified, VerifyError> {
        let (tables, shared, oldest) = self.unless_stopped(self.prepare()).await?;
        let pace = Pace::new(self.bytes_per_second());
        let stop = self.cancel.child_token();
        let jobs = if self.gently.is_some() { 1 } else { self.cluster.config.verify.jobs.max(1) };
        let workers = (0..jobs).map(|_| {
            Box::pin(async {
                let result = self.work(&tables, &shared, &pace, &stop).await;
                if result.is_err() {
                    stop.cancel();
                }
                result
            })
        });
        // Until the last of them has taken its statements back: dropped, those would go on on the
        // servers while writes are held.
        let results = futures_util::future::join_all(workers).await;
        let errors: Vec<VerifyError> = results.into_iter().filter_map(Result::err).collect();
        let stopped = |error: &VerifyError| matches!(error, VerifyError::Stopped);
        if let Some(error) = errors.into_iter().min_by_key(stopped) {
            return Err(error);
        }
        let others = async {
            self.write(&shared, true).await?;
            if self.wish.repair {
                mend::clean_up(&self.cluster, self.active.other()).await;
            }
            let pace = self.bytes_per_second();
            self.cluster.compare_others(self.active, self.at_rest, pace).await
        };
        let others = self.unless_stopped(others).await?;
        let began_at = oldest.map_or(began_at, |oldest| oldest.min(began_at));
        let verified = self.conclude(began_at, &tables, &lock(&shared), others);
        if self.gently.is_some() {
            let noted = background::note_ended(&self.cluster, self.epoch, &verified);
            self.unless_stopped(noted).await?;
        }
        Ok(verified)
    }

    fn bytes_per_second(&self) -> Option<u64> {
        let limit = self.cluster.config.verify.max_bytes_per_second;
        limit.into_iter().chain(self.gently.map(|gently| gently.bytes_per_second)).min()
    }

    pub(super) async fn unless_stopped<T>(
        &self,
        work: impl Future<Output = Result<T, VerifyError>>,
    ) -> Result<T, VerifyError> {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => {
                // What comes next must not queue behind a statement that was left in the middle.
                self.cluster.forget_connections();
                Err(VerifyError::Stopped)
            }
            result = work => result,
        }
    }

    /// What there is to compare, and when the first of what was compared before was.
    async fn prepare(&self) -> Result<Prepared, VerifyError> {
        if self.wish.repair {
            tracing::warn!(run = %self.run, "rows that differ are copied again");
            mend::prepare(&self.cluster, self.active.other()).await?;
        }
        if self.gently.is_some() {
            background::note_begun(&self.cluster, self.run, self.active, self.epoch).await?;
        }
        let keep = self.gently.and_then(|gently| gently.keep);
        let known = record::begin(&self.cluster, self.run, keep, self.epoch).await?;
        let oldest = known.oldest;
        let (here, there, hashing) = self.both().await?;
        let tables = pairs(&here, &there, hashing);
        let fresh = self.cluster.mark_writes(self.run, self.active, &here, oldest.is_none()).await;
        let mut shared = self.plan(&here, &tables, known).await?;
        if self.gently.is_some() {
            shared.queue.make_contiguous().sort_by_cached_key(|part| {
                let fresh = fresh.get(&part.name).copied().unwrap_or_default();
                place(fresh, part.name.clone(), part.number)
            });
        }
        let shared = Mutex::new(shared);
        Ok((tables, shared, oldest))
    }

    async fn worker(&self) -> Result<Worker<'_>, VerifyError> {
        Worker::open(&self.cluster, self.active, self.epoch, self.run, self.wish).await
    }

    async fn work(
        &self,
        tables: &BTreeMap<TableName, TableSql>,
        shared: &Mutex<Shared>,
        pace: &Pace,
        stop: &CancellationToken,
    ) -> Result<(), VerifyError> {
        let worker = self.unless_stopped(self.worker()).await?;
        loop {
            let Some(part) = lock(shared).next() else { return Ok(()) };
            let Some(table) = tables.get(&part.name) else { continue };
            let bytes = self.gently.map_or(part.bytes, |_| Gently::charge(part.bytes));
            tokio::select! {
                biased;
                () = stop.cancelled() => return Err(VerifyError::Stopped),
                () = pace.keep(bytes) => {}
            }
            let compared = self.compared(&worker, table, &part, stop).await?;
            let done = lock(shared).take_in(&part, &compared);
            {
                let mut figures = lock(&self.figures);
                figures.bytes_done += part.bytes;
                figures.tables_done += u64::from(done);
                add(&mut figures, &compared);
            }
            lock(shared).unwritten.push((part, compared));
            self.write(shared, false).await?;
        }
    }

    async fn compared(
        &self,
        worker: &Worker<'_>,
        table: &TableSql,
        part: &Part,
        stop: &CancellationToken,
    ) -> Result<Compared, VerifyError> {
        let name = part.name.to_string();
        let compared = tokio::select! {
            biased;
            // Its statement would otherwise go on on the server, while writes are held.
            () = stop.cancelled() => {
                worker.cancel_statements().await;
                return Err(VerifyError::Stopped);
            }
            compared = worker.compare(table, &name, &part.bounds) => compared,
        };
        match compared {
            Err(error) if self.is_gone(&error, table).await? => {
                tracing::info!(table = name, "the table is gone, and not compared");
                Ok(Compared::default())
            }
            compared => compared,
        }
    }

    /// Whether an error says that the table is not there, and it is not. A function or a type that is
    /// missing has the same class of errors, and says nothing of the table.
    pub(super) async fn is_gone(
        &self,
        error: &VerifyError,
        table: &TableSql,
    ) -> Result<bool, VerifyError> {
        let Some(side) = error.not_found_on() else { return Ok(false) };
        let node = self.cluster.node(side);
        let client = node.client().await.map_err(|error| node.fault(&error))?;
        let row = client.query_one(IS_GONE, &[&table.table]).await;
        row.and_then(|row| row.try_get(0)).map_err(VerifyError::on(side))
    }

    /// Writes down what was compared, when it is due.
    async fn write(&self, shared: &Mutex<Shared>, all: bool) -> Result<(), VerifyError> {
        let every = if self.gently.is_some() { WRITTEN_GENTLY } else { WRITTEN_EVERY };
        let due = {
            let mut shared = lock(shared);
            let due = all
                || shared.unwritten.len() >= WRITTEN_TOGETHER
                || shared.written_at.elapsed() >= every;
            if due {
                shared.written_at = Instant::now();
                std::mem::take(&mut shared.unwritten)
            } else {
                Vec::new()
            }
        };
        record::compared(&self.cluster, self.run, self.epoch, &due).await
    }

    fn conclude(
        &self,
        began_at: Timestamp,
        tables: &BTreeMap<TableName, TableSql>,
        shared: &Shared,
        others: Vec<Difference>,
    ) -> Verified {
        let mut differing: Vec<Differing> = shared
            .totals
            .iter()
            .filter(|(_, table)| table.mismatched > 0)
            .map(|(name, table)| Differing { name: name.to_string(), rows: table.mismatched })
            .collect();
        differing.sort_by(|a, b| b.rows.cmp(&a.rows).then_with(|| a.name.cmp(&b.name)));
        let counted = others.iter().filter(|other| other.kind.counts());
        let other_differences = counted.clone().count() as u64;
        differing.extend(counted.map(|other| {
            let name = if other.message.is_empty() {
                other.object.clone()
            } else {
                format!("{}: {}", other.object, other.message)
            };
            Differing { name, rows: 0 }
        }));
        differing.truncate(NAMED);
        let mut figures = lock(&self.figures);
        let room = MOST_TOLD.saturating_sub(figures.differences.len());
        figures.differences.extend(others.into_iter().take(room));
        Verified {
            run: self.run,
            background: self.gently.is_some(),
            active: self.active,
            began_at,
            finished_at: Timestamp::now(),
            tables: tables.len() as u64,
            rows: figures.rows,
            mismatched_rows: figures.mismatched_rows,
            at_least: shared.totals.values().any(|table| table.at_least),
            unsettled_rows: figures.unsettled_rows,
            mended_rows: figures.mended_rows,
            other_differences,
            differing,
        }
    }
}

impl Shared {
    /// The next range; those of a table that is damaged beyond use are passed over.
    fn next(&mut self) -> Option<Part> {
        loop {
            let part = self.queue.pop_front()?;
            let Some(table) = self.totals.get_mut(&part.name) else { return Some(part) };
            if table.mismatched < MOST_LOCATED as u64 {
                return Some(part);
            }
            table.at_least = true;
        }
    }

    /// Whether this was the table's last range.
    fn take_in(&mut self, part: &Part, compared: &Compared) -> bool {
        let Some(table) = self.totals.get_mut(&part.name) else { return false };
        table.mismatched += compared.mismatched;
        table.at_least |= compared.at_least;
        table.parts_left = table.parts_left.saturating_sub(1);
        table.parts_left == 0
    }
}

fn add(figures: &mut VerifyFigures, compared: &Compared) {
    figures.rows += compared.rows;
    figures.mismatched_rows += compared.mismatched;
    figures.unsettled_rows += compared.unsettled;
    figures.mended_rows += compared.mended;
    let room = MOST_TOLD.saturating_sub(figures.differences.len());
    figures.differences.extend(compared.differences.iter().take(room).cloned());
}
