//! The rows: every table of a migration, copied in parallel under one exported snapshot.
//!
//! Nothing here retries and nothing decides that the copy is complete: the engine does, by looking
//! at `pgferry.copied`. A table's rows and its line there are one transaction, so whatever dies
//! leaves a table either whole and listed, or as it was.

mod progress;
mod rows;
mod worker;

use std::cmp::Reverse;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use jiff::Timestamp;
use pgferry_plan::{Lsn, TableName};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::connect::{ConnectError, Connector};
use progress::TableCounters;
use worker::Worker;

pub use progress::{CopyProgress, CopyTotals, TableProgress, TableState};

/// What to copy, from which snapshot, and under whose authority.
#[derive(Clone, Debug)]
pub struct CopyPlan {
    /// The exported snapshot's name, for `SET TRANSACTION SNAPSHOT`.
    pub snapshot: String,
    /// Where the stream takes over; recorded with each table.
    pub snapshot_lsn: Lsn,
    /// When the snapshot was taken, by the source's clock: the rows' commit time, so that a change
    /// made after the snapshot is newer than the copied row whatever the hour of its commit.
    pub snapshot_time: Option<Timestamp>,
    /// The tables, in any order.
    pub tables: Vec<CopyTable>,
    /// How many tables at a time.
    pub jobs: usize,
    /// The subscription's replication origin, which is its slot's name. `None` when the role may
    /// not use origins: rows then count as written here, and a stream back would return them.
    pub origin: Option<String>,
    /// The leadership that this copy belongs to.
    pub epoch: i64,
    /// Shown by every session of the copy on both servers, so that a successor can end them.
    pub application_name: String,
}

/// One table to copy.
#[derive(Clone, Debug)]
pub struct CopyTable {
    /// Its name, the same on both sides.
    pub name: TableName,
    /// Its columns without generated ones; empty for a table that has no other.
    pub columns: Vec<String>,
    /// Text instead of binary: for `reg*` types, whose binary form is the other server's OID, and
    /// for types that have none.
    pub text: bool,
    /// Its size on the source, for the order only.
    pub bytes_estimate: u64,
}

/// Copies every table of the plan, or stops all of them at the first error and returns it.
///
/// Empties each table first, so it may be repeated. Dropping the future ends its sessions.
pub async fn copy_tables(
    source: &Connector,
    destination: &Connector,
    plan: &CopyPlan,
    progress: &CopyProgress,
    cancel: CancellationToken,
) -> Result<(), CopyError> {
    let mut plan = plan.clone();
    // The largest first: started last, it alone would be running while the others are idle.
    plan.tables.sort_by_key(|table| Reverse(table.bytes_estimate));
    let counters: Vec<Arc<TableCounters>> = plan
        .tables
        .iter()
        .map(|table| Arc::new(TableCounters::new(table.name.clone(), table.bytes_estimate, 1)))
        .collect();
    progress.begin(counters.clone());
    let stop = cancel.child_token();
    let shared = Arc::new(Shared {
        watch_source: source.session(&plan.application_name).await.map_err(CopyError::source)?,
        watch_destination: destination
            .session(&plan.application_name)
            .await
            .map_err(CopyError::destination)?,
        next: AtomicUsize::new(0),
        counters,
        plan,
    });
    let mut workers = JoinSet::new();
    for _ in 0..shared.plan.jobs.clamp(1, shared.plan.tables.len().max(1)) {
        let (source, destination) = (source.clone(), destination.clone());
        let (shared, stop) = (Arc::clone(&shared), stop.clone());
        workers.spawn(async move {
            let mut worker = Worker::open(&source, &destination, shared, &stop).await?;
            worker.run(&stop).await
        });
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

/// What the workers of one copy share.
struct Shared {
    plan: CopyPlan,
    /// The next table to take; the list itself never changes.
    next: AtomicUsize,
    counters: Vec<Arc<TableCounters>>,
    /// Reads the source as it is now, beside the snapshot.
    watch_source: crate::connect::Session,
    /// Sees whether a worker's transaction on the destination is still alive.
    watch_destination: crate::connect::Session,
}

impl Shared {
    fn take(&self) -> Option<(&CopyTable, &Arc<TableCounters>)> {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        self.plan.tables.get(next).zip(self.counters.get(next))
    }
}

/// Why the copy stopped.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The source cannot be reached.
    #[error("source: {0}")]
    Source(#[source] ConnectError),
    /// The destination cannot be reached.
    #[error("destination: {0}")]
    Destination(#[source] ConnectError),
    /// The exported snapshot is gone: its walsender ended.
    #[error("the exported snapshot cannot be used any more: {0}")]
    SnapshotLost(String),
    /// Another daemon leads this migration now.
    #[error("the destination's record is not of epoch {0}: another daemon leads now")]
    EpochRaised(i64),
    /// The table is another one than under the snapshot, or its file was written anew.
    #[error("table {table} was truncated, rewritten or replaced on the source during the copy")]
    SourceRewritten {
        /// The table.
        table: TableName,
    },
    /// What arrived is not what was sent.
    #[error("table {table}: {read} rows left the source and {written} arrived")]
    RowsDiffer {
        /// The table.
        table: TableName,
        /// Rows in the source's stream.
        read: u64,
        /// Rows in the destination's answer.
        written: u64,
    },
    /// The stream from the source cannot be understood, or ended early.
    #[error("table {table}: {reason}")]
    Stream {
        /// The table.
        table: TableName,
        /// What is wrong with it.
        reason: String,
    },
    /// A statement failed on the source.
    #[error("source, {doing}: {message}")]
    OnSource {
        /// What was being done.
        doing: String,
        /// What the server or the driver said.
        message: String,
        /// The server's SQLSTATE, when it was the server.
        state: Option<String>,
    },
    /// A statement failed on the destination.
    #[error("destination, {doing}: {message}")]
    OnDestination {
        /// What was being done.
        doing: String,
        /// What the server or the driver said.
        message: String,
        /// The server's SQLSTATE, when it was the server.
        state: Option<String>,
    },
    /// A worker ended without saying why.
    #[error("a copy worker failed: {0}")]
    Worker(String),
    /// The caller stopped it, or another worker's error did.
    #[error("the copy was cancelled")]
    Cancelled,
}

impl CopyError {
    /// The word for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Source(error) | Self::Destination(error) => error.code(),
            Self::SnapshotLost(_) => "snapshot_lost",
            Self::EpochRaised(_) => "epoch_raised",
            Self::SourceRewritten { .. } => "source_rewritten",
            Self::RowsDiffer { .. } => "rows_differ",
            Self::Stream { .. } => "copy_stream_broken",
            Self::OnSource { .. } => "copy_failed_on_source",
            Self::OnDestination { .. } => "copy_failed_on_destination",
            Self::Worker(_) => "copy_worker_failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Source(error) | Self::Destination(error) => error.hint(),
            Self::SnapshotLost(_) => "the copy begins again with a new snapshot",
            Self::EpochRaised(_) => "leave it to the daemon that leads",
            Self::SourceRewritten { .. } => {
                "the copy begins again with a new snapshot; hold TRUNCATE, ALTER TABLE, CLUSTER and \
                 VACUUM FULL back until it is done, or name the table in scope.exclude_tables"
            }
            Self::RowsDiffer { .. } => {
                "look for a rule or a trigger on the destination's table that drops rows"
            }
            Self::Stream { .. } | Self::Worker(_) => "the copy begins again; see the servers' logs",
            Self::OnSource { .. } => {
                "check the privilege to read the table, and the source server's log"
            }
            Self::OnDestination { .. } => {
                "check that the table is as on the source, free disk space, and the destination \
                 server's log"
            }
            Self::Cancelled => "",
        }
    }

    fn source(error: ConnectError) -> Self {
        Self::Source(error)
    }

    fn destination(error: ConnectError) -> Self {
        Self::Destination(error)
    }

    fn on_source(doing: impl Into<String>, error: &tokio_postgres::Error) -> Self {
        let (message, state) = said(error);
        Self::OnSource { doing: doing.into(), message, state }
    }

    fn on_destination(doing: impl Into<String>, error: &tokio_postgres::Error) -> Self {
        let (message, state) = said(error);
        Self::OnDestination { doing: doing.into(), message, state }
    }
}

/// The message without its DETAIL and CONTEXT, which show values of rows.
fn said(error: &tokio_postgres::Error) -> (String, Option<String>) {
    match error.as_db_error() {
        Some(answer) => (answer.message().to_owned(), Some(answer.code().code().to_owned())),
        None => (error.to_string(), None),
    }
}
