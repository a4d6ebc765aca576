//! The rows: every table of a migration, copied in parallel under one exported snapshot, with each
//! table's indexes built as soon as its last row is there.
//!
//! Nothing here decides that the copy is complete: the engine does, by looking at `pgferry.copied`.
//! Rows and their number there are one transaction, so whatever dies leaves a row either there and
//! counted, or not there at all; and a transaction states how many it has seen there before it, which
//! keeps a row from arriving twice.

mod error;
mod files;
mod indexes;
pub(crate) mod pace;
mod progress;
mod queue;
pub(crate) mod snapshot;
mod sql;
mod stream;
mod tally;
mod worker;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use pgferry_plan::pieces::BlockRange;
use pgferry_plan::{Lsn, TableName};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::node::Node;
use indexes::Index;
use pace::Pace;
use progress::TableCounters;
use queue::{Queue, Seats};
use worker::Worker;

pub use error::CopyError;
pub use progress::{CopyProgress, CopyTotals, TableProgress, TableState};

/// Whole tables travel together up to this size: a transaction costs more than such rows do.
const BATCH_BYTES: u64 = 8 << 20;

/// What to copy, from which snapshot, and under whose authority.
#[derive(Clone, Debug)]
pub(crate) struct CopyPlan {
    /// Where the rows come from; None when every row is there and only indexes are missing.
    pub(crate) snapshot: Option<Snapshot>,
    /// The tables, in any order.
    pub(crate) tables: Vec<CopyTable>,
    /// How many things are done at a time; each on a session of its own on either side.
    pub(crate) jobs: usize,
    /// The subscription's replication origin, which is its slot's name. `None` when the role may
    /// not use origins: rows then count as written here, and a stream back would return them.
    pub(crate) origin: Option<String>,
    /// The leadership that this copy belongs to.
    pub(crate) epoch: i64,
    /// Bytes per second that all workers together may read; None for as many as there are.
    pub(crate) max_bytes_per_second: Option<u64>,
    /// `maintenance_work_mem` of each session that builds an index, in bytes.
    pub(crate) maintenance_work_mem: u64,
    /// Bytes of a piece, in COPY's form, that one transaction brings.
    pub(crate) part_bytes: u64,
}

/// The snapshot that the rows are read under.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    /// For `SET TRANSACTION SNAPSHOT`.
    pub(crate) name: String,
    /// Where the stream takes over; recorded with each piece.
    pub(crate) lsn: Lsn,
    /// When it was taken, by the source's clock: the rows' commit time, so that a change made
    /// after the snapshot is newer than the copied row whatever the hour of its commit.
    pub(crate) taken_at: Timestamp,
}

/// One table to copy.
#[derive(Clone, Debug, Default)]
pub(crate) struct CopyTable {
    /// Its name, the same on both sides.
    pub(crate) name: TableName,
    /// Its columns without generated ones; empty for a table that has no other.
    pub(crate) columns: Vec<String>,
    /// Text instead of binary: for `reg*` types, whose binary form is the other server's OID, and
    /// for types that have none.
    pub(crate) text: bool,
    /// `pg_class.oid` and `relfilenode` on the source, under the snapshot.
    pub(crate) file: (u32, u32),
    /// Its size on the source, with what is stored apart (TOAST).
    pub(crate) bytes: u64,
    /// Blocks of its main file.
    pub(crate) blocks: u64,
    /// What is missing on the destination, each with the rows and bytes of it that are there; empty
    /// when every row is there.
    pub(crate) pieces: Vec<(BlockRange, (u64, u64))>,
    /// Whether its pieces arrive in several transactions; otherwise it has one piece, all of it, and
    /// arrives in one transaction that empties it first.
    pub(crate) in_parts: bool,
    /// Whether some of its rows are there.
    pub(crate) begun: bool,
    /// Rows, bytes, and share of its size, that are there.
    pub(crate) there: (u64, u64, u64),
    /// Its indexes that are missing on the destination.
    pub(crate) indexes: Vec<Index>,
}

impl CopyTable {
    /// A range's share of the table's size.
    pub(crate) fn share(&self, range: BlockRange) -> u64 {
        if range == BlockRange::WHOLE || self.blocks == 0 {
            return self.bytes;
        }
        let share = u128::from(self.bytes) * u128::from(range.length(self.blocks))
            / u128::from(self.blocks);
        u64::try_from(share).unwrap_or(self.bytes)
    }
}

/// What the workers of one copy share.
struct Shared {
    plan: CopyPlan,
    tables: Arc<[CopyTable]>,
    counters: Arc<[Arc<TableCounters>]>,
    queue: Queue,
    pace: Pace,
    source: Node,
    destination: Node,
    /// Told when the last row of all has arrived.
    rows_arrived: Arc<Notify>,
}

/// Copies everything of the plan, or stops at the first error that a new try would not mend.
///
/// `rows_arrived` is told when the last row of all is committed: the snapshot may go, although
/// indexes are still being built. Dropping the future ends its sessions.
pub(crate) async fn copy_tables(
    source: &Node,
    destination: &Node,
    mut plan: CopyPlan,
    progress: &CopyProgress,
    rows_arrived: Arc<Notify>,
    cancel: CancellationToken,
) -> Result<(), CopyError> {
    let mut tables = std::mem::take(&mut plan.tables);
    queue::in_order(&mut tables);
    let tables: Arc<[CopyTable]> = tables.into();
    let counters: Vec<Arc<TableCounters>> = tables.iter().map(counters_of).collect();
    progress.begin(counters.clone());
    let counters: Arc<[Arc<TableCounters>]> = counters.into();
    let seats = Seats::of(plan.jobs, plan.maintenance_work_mem);
    let shared = Arc::new(Shared {
        queue: Queue::new(Arc::clone(&tables), seats, BATCH_BYTES),
        pace: Pace::new(plan.max_bytes_per_second),
        source: source.clone(),
        destination: destination.clone(),
        rows_arrived,
        tables,
        counters,
        plan,
    });
    let stop = cancel.child_token();
    let mut workers = JoinSet::new();
    for _ in 0..shared.plan.jobs.max(1) {
        let worker = Worker::new(Arc::clone(&shared));
        let stop = stop.clone();
        workers.spawn(async move { worker.run(&stop).await });
    }
    let mut outcome = Ok(());
    while let Some(ended) = workers.join_next().await {
        let ended = ended.unwrap_or_else(|panic| Err(CopyError::Worker(panic.to_string())));
        if let Err(error) = ended {
            stop.cancel();
            // Those that stop because of the first error have nothing to add to it.
            if outcome.is_ok() {
                outcome = Err(error);
            }
        }
    }
    outcome
}

fn counters_of(table: &CopyTable) -> Arc<TableCounters> {
    let pieces = u32::try_from(table.pieces.len()).unwrap_or(u32::MAX);
    let counters = TableCounters::new(table.name.clone(), table.bytes, pieces);
    let (rows, bytes, read) = table.there;
    counters.add(rows, bytes, read);
    let missing = table.indexes.iter().filter(|index| index.create.is_some()).count();
    counters.expect_indexes(u32::try_from(missing).unwrap_or(u32::MAX));
    Arc::new(counters)
}

/// Puts the indexes that are missing on the destination to the plan's tables.
///
/// # Errors
/// When a catalog cannot be read.
pub(crate) async fn plan_indexes(
    source: &tokio_postgres::Client,
    destination: &tokio_postgres::Client,
    tables: &mut [CopyTable],
) -> Result<(), CopyError> {
    let names: Vec<TableName> = tables.iter().map(|table| table.name.clone()).collect();
    let mut missing: BTreeMap<TableName, Vec<Index>> =
        indexes::missing_indexes(source, destination, &names).await?;
    for table in tables {
        table.indexes = missing.remove(&table.name).unwrap_or_default();
    }
    Ok(())
}

/// Ends the copy's sessions of an earlier try on a server, and returns once they are gone.
pub(crate) async fn end_sessions(node: &Node) -> Result<(), CopyError> {
    worker::end_sessions(node, None).await
}

/// `application_name` of the copy's sessions on a server.
pub(crate) fn session_name(node: &Node) -> String {
    worker::copy_session(node)
}

/// The statement that lets a session read a snapshot.
pub(crate) fn import(snapshot: &Snapshot) -> String {
    sql::import(snapshot)
}
