//! Counting every table on both sides at one and the same moment, while the application writes on.
//!
//! For the time that a marker takes to the other side, the writers of one table wait: it is locked
//! in SHARE mode, as adding it to a replication set locked it. Under the lock each side gets a
//! snapshot; the marker was written after the lock was had, so when it has arrived the destination
//! has every change of the table that the source's snapshot sees, and no other. The lock is given
//! back before anything is counted.

use std::time::{Duration, Instant};

use pgferry_engine::Fault;
use pgferry_plan::{Blocker, Side, TableName};
use tokio_util::sync::CancellationToken;

use super::jobs::{fault_blocker, look_blocker, stopped};
use crate::cluster::PgCluster;
use crate::connect::Session;
use crate::node::LookError;
use crate::quote::{literal, table};
use crate::statements::{self, Guard};

/// Writers queue behind a lock that is waited for, so it is given up soon.
const LOCK: &str = "SET LOCAL lock_timeout = '200ms'";
/// For how long writers of one table wait at most for the marker.
const MARKER_TIME: Duration = Duration::from_millis(500);
const MARKER_POLL: Duration = Duration::from_millis(3);
const PAUSE: Duration = Duration::from_millis(500);
/// After this long a person is told what it waits for.
const PATIENCE: Duration = Duration::from_secs(300);
const FAR_BEHIND: &str = "the stream has not caught up";

const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ WRITE";
const EXPORT: &str = "SELECT pg_catalog.pg_export_snapshot()";
const WRITTEN: &str = "SELECT written_at::text FROM pgferry.marker WHERE side = 'source'";
const MARKERS: &str = "SELECT count(*) = 2 FROM pgferry.marker";
const ARRIVED: &str =
    "SELECT written_at >= $1::text::timestamptz FROM pgferry.marker WHERE side = 'source'";

impl PgCluster {
    /// Counts what has not been counted yet; equal tables are recorded, others are the error.
    pub(super) async fn count_rows(
        &self,
        epoch: i64,
        cancel: CancellationToken,
    ) -> Result<(), Blocker> {
        let (source, destination) = (self.node(Side::Source), self.node(Side::Destination));
        let on_source = |error: LookError| look_blocker(source, &error);
        let on_destination = |error: LookError| look_blocker(destination, &error);
        let counted = self.counted().await.map_err(on_destination)?;
        let mut tables: Vec<TableName> =
            self.tables_to_copy().await.map_err(on_source)?.into_iter().collect();
        tables.retain(|table| !counted.contains_key(table));
        tables.sort_unstable();
        let mut differing = Vec::new();
        if !self.has_markers().await.map_err(on_destination)? {
            // It came with the copy, or rather did not: no table is believed, and none is counted.
            return Err(rows_missing(&self.compared_roughly(&tables).await?));
        }
        for table in &tables {
            let [here, there] = tokio::select! {
                counts = self.count(table, epoch) => counts?,
                () = cancel.cancelled() => return Err(stopped()),
            };
            if here == there {
                let record = statements::record_counted(table, here);
                let guard = Guard::of_epoch(epoch);
                destination.mutate(guard, &record).await.map_err(fault_blocker)?;
                tracing::info!(%table, rows = here, "counted the same on both sides");
            } else {
                differing
                    .push(format!("{table} ({here} on the source, {there} on the destination)"));
            }
        }
        if differing.is_empty() { Ok(()) } else { Err(rows_missing(&differing)) }
    }

    /// pgferry's own rows on the destination come with pglogical's copy.
    async fn has_markers(&self) -> Result<bool, LookError> {
        let client = self.node(Side::Destination).client().await?;
        Ok(client.query_one(MARKERS, &[]).await?.try_get(0)?)
    }

    /// Counts at two moments, for a person to read and for nothing else.
    async fn compared_roughly(&self, tables: &[TableName]) -> Result<Vec<String>, Blocker> {
        let mut differing =
            vec!["pgferry.marker (2 on the source, 0 on the destination)".to_owned()];
        for name in tables {
            let count = format!("SELECT count(*) FROM ONLY {}", table(name));
            let of = async |side: Side| {
                let node = self.node(side);
                let look = async {
                    let client = node.client().await?;
                    Ok::<i64, LookError>(client.query_one(&count, &[]).await?.try_get(0)?)
                };
                look.await.map_err(|error| look_blocker(node, &error))
            };
            let (here, there) = tokio::try_join!(of(Side::Source), of(Side::Destination))?;
            if here != there {
                differing
                    .push(format!("{name} ({here} on the source, {there} on the destination)"));
            }
        }
        // Tables first: the person knows those.
        differing.rotate_left(1);
        Ok(differing)
    }

    async fn count(&self, name: &TableName, epoch: i64) -> Result<[i64; 2], Blocker> {
        let began = Instant::now();
        loop {
            let because = match self.count_once(name, epoch).await {
                Ok(counts) => return Ok(counts),
                Err(NotCounted::Blocked(blocker)) => return Err(blocker),
                Err(NotCounted::Later(why)) => why,
            };
            if began.elapsed() > PATIENCE {
                return Err(Blocker::new(
                    "not_counted",
                    format!("table {name} could not be counted yet: {because}"),
                    "it is tried again: the count waits until the stream has caught up, and for a moment \
                     without a long transaction on the table",
                ));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Whether what is committed on the source now is on the destination within [`MARKER_TIME`].
    async fn marker_arrives(&self, there: &Session, epoch: i64) -> Result<bool, NotCounted> {
        let (source, destination) = (self.node(Side::Source), self.node(Side::Destination));
        source
            .mutate(Guard::of_epoch(epoch), &statements::touch_marker(Side::Source))
            .await
            .map_err(|fault| NotCounted::Blocked(fault_blocker(fault)))?;
        // Not by a session that counts: its snapshot is of before.
        let look = source.client().await.map_err(|error| NotCounted::of(source, &error))?;
        let written: String = look
            .query_one(WRITTEN, &[])
            .await
            .and_then(|row| row.try_get(0))
            .map_err(|error| not_counted(source, error))?;
        let began = Instant::now();
        loop {
            let arrived: Option<bool> = there
                .query_one(ARRIVED, &[&written])
                .await
                .and_then(|row| row.try_get(0))
                .map_err(|error| not_counted(destination, error))?;
            if arrived == Some(true) {
                return Ok(true);
            }
            if began.elapsed() > MARKER_TIME {
                return Ok(false);
            }
            tokio::time::sleep(MARKER_POLL).await;
        }
    }

    async fn count_once(&self, name: &TableName, epoch: i64) -> Result<[i64; 2], NotCounted> {
        let (source, destination) = (self.node(Side::Source), self.node(Side::Destination));
        let application = source.application_name();
        let locking = session(source, &application).await?;
        let counting = session(source, &application).await?;
        let there = session(destination, &application).await?;
        let on_source = |error: tokio_postgres::Error| not_counted(source, error);
        let on_destination = |error: tokio_postgres::Error| not_counted(destination, error);

        // Nobody is made to wait for a stream that has hours of changes before it.
        if !self.marker_arrives(&there, epoch).await? {
            return Err(NotCounted::Later(FAR_BEHIND.to_owned()));
        }
        let lock = format!("{BEGIN}; {LOCK}; LOCK TABLE ONLY {} IN SHARE MODE", table(name));
        locking.batch_execute(&lock).await.map_err(on_source)?;
        let locked = Instant::now();
        let snapshot: String = locking
            .query_one(EXPORT, &[])
            .await
            .and_then(|row| row.try_get(0))
            .map_err(on_source)?;
        let import = format!("{BEGIN}; SET TRANSACTION SNAPSHOT {}", literal(&snapshot));
        counting.batch_execute(&import).await.map_err(on_source)?;

        if !self.marker_arrives(&there, epoch).await? {
            return Err(NotCounted::Later(FAR_BEHIND.to_owned()));
        }
        there.batch_execute(&format!("{BEGIN}; SELECT 1")).await.map_err(on_destination)?;
        locking.batch_execute("COMMIT").await.map_err(on_source)?;
        tracing::debug!(table = %name, held = ?locked.elapsed(), "writers waited for a count");

        let count = format!("SELECT count(*) FROM ONLY {}", table(name));
        let (here, there) =
            tokio::join!(counting.query_one(&count, &[]), there.query_one(&count, &[]));
        let here = here.and_then(|row| row.try_get(0)).map_err(on_source)?;
        let there = there.and_then(|row| row.try_get(0)).map_err(on_destination)?;
        Ok([here, there])
    }
}

/// Why a table has not been counted.
enum NotCounted {
    /// It may be in a moment.
    Later(String),
    /// It will not be by trying again at once.
    Blocked(Blocker),
}

impl NotCounted {
    fn of(node: &crate::node::Node, error: &LookError) -> Self {
        match node.fault(error) {
            Fault::Failed(blocker) if blocker.code == "lock_not_available" => {
                Self::Later(blocker.message)
            }
            fault @ (Fault::Failed(_) | Fault::EpochRaised) => Self::Blocked(fault_blocker(fault)),
        }
    }
}

fn not_counted(node: &crate::node::Node, error: tokio_postgres::Error) -> NotCounted {
    NotCounted::of(node, &LookError::Postgres(error))
}

/// A session of its own: dropped with whatever transaction is open, it lets go of every lock.
async fn session(node: &crate::node::Node, application: &str) -> Result<Session, NotCounted> {
    node.connector()
        .session(application)
        .await
        .map_err(|error| NotCounted::of(node, &LookError::Connect(error)))
}

fn rows_missing(differing: &[String]) -> Blocker {
    let named = differing.iter().take(10).cloned().collect::<Vec<_>>().join(", ");
    Blocker::new(
        "rows_missing",
        format!(
            "pglogical called its copy finished, and these of its tables ({}) do not have the same rows: \
             {named}",
            differing.len()
        ),
        "`pgferry abandon`, empty the destination, and start again; the destination server's log has the \
         error that pglogical passed over. copy.method = \"parallel\" loses no rows",
    )
}
