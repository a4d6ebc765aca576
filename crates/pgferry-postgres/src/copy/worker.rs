//! One copy worker: a session on each side, one table after another.
//!
//! Never holds more of a table in memory than one batch, and never lets a table be committed
//! whose file is not the one that the snapshot saw.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, TryStreamExt};
use pgferry_plan::TableName;
use tokio::sync::Mutex;
use tokio_postgres::types::PgLsn;
use tokio_postgres::{Client, CopyInSink, Statement};
use tokio_util::sync::CancellationToken;

use super::progress::TableCounters;
use super::rows::RowCounter;
use super::{CopyError, CopyTable, Shared};
use crate::connect::{Connector, Session};
use crate::quote;

/// Rows are gathered into pieces of this size: each piece costs a message and a wake-up.
const BATCH: usize = 64 * 1024;

/// How often a worker asks whether the destination is still taking its rows. tokio-postgres tells
/// of a failed COPY only at its end, which for a large table is hours later.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// A session of one origin at a time: PostgreSQL refuses a second one.
static COMMIT: Mutex<()> = Mutex::const_new(());

/// Waiting for an `AccessShareLock` holds nobody up, so a worker on the source waits for ever.
const PREPARE_SOURCE: &str = "SET lock_timeout = 0";
/// Here it may stand behind a reader or autovacuum.
const PREPARE_DESTINATION: &str = "SET lock_timeout = '60s'";
/// The side too: were this the source by a name that moved, the TRUNCATE would be a disaster.
const CHECK_EPOCH: &str =
    "SELECT 1 FROM pgferry.node WHERE epoch = $1 AND side = 'destination' FOR SHARE";
const OWN_PID: &str = "SELECT pg_backend_pid()";
/// Read under the snapshot, the catalog tells which file the name meant then.
const TABLE_FILE: &str = "SELECT c.oid, c.relfilenode
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relname = $2";
const HOLDS_ITS_TABLE: &str = "SELECT EXISTS (
    SELECT FROM pg_locks WHERE pid = $1 AND mode = 'AccessExclusiveLock' AND granted)";
const RECORD: &str = "INSERT INTO pgferry.copied
    (schema_name, table_name, snapshot_lsn, row_count, byte_count)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (schema_name, table_name) DO UPDATE SET
    snapshot_lsn = excluded.snapshot_lsn, row_count = excluded.row_count,
    byte_count = excluded.byte_count, copied_at = now(), analyzed_at = NULL";

/// One worker's two sessions.
pub(super) struct Worker {
    source: Session,
    destination: Session,
    destination_pid: i32,
    file_under_snapshot: Statement,
    check_epoch: Statement,
    record: Statement,
    shared: Arc<Shared>,
}

impl Worker {
    /// Opens both sessions and imports the snapshot on the source.
    pub(super) async fn open(
        source: &Connector,
        destination: &Connector,
        shared: Arc<Shared>,
        stop: &CancellationToken,
    ) -> Result<Self, CopyError> {
        let opening = async {
            let name = &shared.plan.application_name;
            let (source, destination) =
                tokio::join!(source.session(name), destination.session(name));
            let source = source.map_err(CopyError::source)?;
            let destination = destination.map_err(CopyError::destination)?;
            import_snapshot(&source, &shared.plan.snapshot).await?;
            let on_source = |error| CopyError::on_source("preparing", &error);
            let file_under_snapshot = source.prepare(TABLE_FILE).await.map_err(on_source)?;
            let on_destination = |error| CopyError::on_destination("preparing", &error);
            destination.batch_execute(PREPARE_DESTINATION).await.map_err(on_destination)?;
            let destination_pid =
                destination.query_one(OWN_PID, &[]).await.map_err(on_destination)?.get(0);
            let check_epoch = destination.prepare(CHECK_EPOCH).await.map_err(on_destination)?;
            let record = destination.prepare(RECORD).await.map_err(on_destination)?;
            Ok((source, destination, destination_pid, file_under_snapshot, check_epoch, record))
        };
        let (source, destination, destination_pid, file_under_snapshot, check_epoch, record) = tokio::select! {
            opened = opening => opened?,
            () = stop.cancelled() => return Err(CopyError::Cancelled),
        };
        Ok(Self {
            source,
            destination,
            destination_pid,
            file_under_snapshot,
            check_epoch,
            record,
            shared,
        })
    }

    /// Copies tables until none is left. At an error, or when told to stop, gives up the
    /// statements in flight on both servers before it hangs up.
    pub(super) async fn run(&mut self, stop: &CancellationToken) -> Result<(), CopyError> {
        let shared = Arc::clone(&self.shared);
        while let Some((table, counters)) = shared.take() {
            let done = tokio::select! {
                biased;
                () = stop.cancelled() => Err(CopyError::Cancelled),
                done = self.copy(table, counters) => done,
            };
            if let Err(error) = done {
                tokio::join!(self.source.cancel_statement(), self.destination.cancel_statement());
                return Err(error);
            }
            counters.piece_done();
        }
        Ok(())
    }

    /// One table, one transaction on the destination.
    async fn copy(&self, table: &CopyTable, counters: &TableCounters) -> Result<(), CopyError> {
        let name = &table.name;
        // A subtransaction, so that the table's lock is given back when its copy is done and an
        // ALTER TABLE of the application does not wait for the other tables.
        self.on_source(name, "SAVEPOINT pgferry_table").await?;
        let file = file_of(&self.source, &self.file_under_snapshot, name)
            .await
            .map_err(|error| CopyError::on_source(format!("reading {name}"), &error))?;
        self.begin(table).await?;
        let (rows, bytes) = self.stream(table, counters).await?;
        self.check_same_file(name, file).await?;
        self.on_source(
            name,
            "ROLLBACK TO SAVEPOINT pgferry_table; RELEASE SAVEPOINT pgferry_table",
        )
        .await?;
        self.record(name, rows, bytes).await?;
        self.commit(name).await?;
        tracing::info!(table = %name, rows, bytes, "table copied");
        Ok(())
    }

    /// Opens the transaction under the epoch, and empties the table: a repeated copy is exact,
    /// and COPY may write rows that never need to be frozen.
    async fn begin(&self, table: &CopyTable) -> Result<(), CopyError> {
        let name = &table.name;
        let failed = |error| CopyError::on_destination(format!("emptying {name}"), &error);
        self.destination.batch_execute("BEGIN").await.map_err(failed)?;
        let epoch = self.shared.plan.epoch;
        let led = self.destination.query_opt(&self.check_epoch, &[&epoch]).await.map_err(failed)?;
        if led.is_none() {
            return Err(CopyError::EpochRaised(epoch));
        }
        let truncate = format!("TRUNCATE ONLY {}", quote::table(name));
        self.destination.batch_execute(&truncate).await.map_err(failed)
    }

    /// Streams the rows across; how many, and how many bytes.
    async fn stream(
        &self,
        table: &CopyTable,
        counters: &TableCounters,
    ) -> Result<(u64, u64), CopyError> {
        let name = &table.name;
        let reading = |error| CopyError::on_source(format!("COPY of {name}"), &error);
        let writing = |error| CopyError::on_destination(format!("COPY of {name}"), &error);
        let broken = |error: super::rows::BadStream| CopyError::Stream {
            table: name.clone(),
            reason: error.to_string(),
        };
        let (copy_out, copy_in) = copy_statements(table);
        let out = self.source.copy_out(&copy_out).await.map_err(reading)?;
        let sink: CopyInSink<Bytes> = self.destination.copy_in(&copy_in).await.map_err(writing)?;
        let mut out = pin!(out);
        let mut sink = pin!(sink);
        let mut counter = RowCounter::new(table.text);
        let mut batch = BytesMut::with_capacity(BATCH);
        let (mut told_rows, mut bytes) = (0, 0);
        let mut looked = Instant::now();
        loop {
            let piece = out.try_next().await.map_err(reading)?;
            let ended = piece.is_none();
            if let Some(piece) = piece {
                counter.feed(&piece).map_err(broken)?;
                batch.extend_from_slice(&piece);
            }
            if batch.len() < BATCH && !ended {
                continue;
            }
            let full = std::mem::replace(&mut batch, BytesMut::with_capacity(BATCH)).freeze();
            let size = full.len() as u64;
            if sink.send(full).await.is_err() {
                // The answer says more than "closed".
                break;
            }
            bytes += size;
            let rows = (counter.rows() - told_rows) as i64;
            counters.add(rows, size as i64, size as i64);
            told_rows = counter.rows();
            if ended {
                break;
            }
            if looked.elapsed() >= LOOK_EVERY {
                looked = Instant::now();
                if !self.destination_holds_its_table().await? {
                    break;
                }
            }
        }
        // A COPY TO that was not read to its end fails here as truncated, whatever the answer.
        let written = sink.finish().await.map_err(writing)?;
        let read = counter.finish().map_err(broken)?;
        if read == written {
            Ok((read, bytes))
        } else {
            Err(CopyError::RowsDiffer { table: name.clone(), read, written })
        }
    }

    /// A rewriting ALTER TABLE that committed between the snapshot and COPY's lock makes COPY
    /// read nothing, without an error: its rows are newer than the snapshot.
    ///
    /// From the lock on, which is still held, nothing can rewrite the table; so what a fresh
    /// statement sees now is what COPY read. TRUNCATE changes the file too. Its rows would
    /// come to the same end through the stream, but it cannot be told from a rewrite that
    /// keeps every type (`ALTER COLUMN … USING`), which the stream does not carry. Refused.
    async fn check_same_file(
        &self,
        name: &TableName,
        under_snapshot: Option<(u32, u32)>,
    ) -> Result<(), CopyError> {
        let now: Option<(u32, u32)> = self
            .shared
            .watch_source
            .query_opt(TABLE_FILE, &[&name.schema, &name.name])
            .await
            .map_err(|error| CopyError::on_source(format!("looking at {name}"), &error))?
            .map(|row| (row.get(0), row.get(1)));
        if now.is_some() && now == under_snapshot {
            Ok(())
        } else {
            Err(CopyError::SourceRewritten { table: name.clone() })
        }
    }

    async fn destination_holds_its_table(&self) -> Result<bool, CopyError> {
        self.shared
            .watch_destination
            .query_one(HOLDS_ITS_TABLE, &[&self.destination_pid])
            .await
            .map(|row| row.get(0))
            .map_err(|error| CopyError::on_destination("looking at the copy", &error))
    }

    async fn record(&self, name: &TableName, rows: u64, bytes: u64) -> Result<(), CopyError> {
        let lsn = PgLsn::from(self.shared.plan.snapshot_lsn.0);
        // A table of more rows than i64 holds does not exist.
        let rows = i64::try_from(rows).unwrap_or(i64::MAX);
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.destination
            .execute(&self.record, &[&name.schema, &name.name, &lsn, &rows, &bytes])
            .await
            .map_err(|error| CopyError::on_destination(format!("recording {name}"), &error))?;
        Ok(())
    }

    /// Commits under the subscription's origin, for the instant of the commit only: the commit's
    /// origin decides what a stream back skips, and only one session may have it at a time.
    async fn commit(&self, name: &TableName) -> Result<(), CopyError> {
        let failed = |error| CopyError::on_destination(format!("committing {name}"), &error);
        match commit_statements(&self.shared.plan) {
            Some(statements) => {
                let _one_at_a_time = COMMIT.lock().await;
                self.destination.batch_execute(&statements).await.map_err(failed)
            }
            None => self.destination.batch_execute("COMMIT").await.map_err(failed),
        }
    }

    async fn on_source(&self, name: &TableName, statements: &str) -> Result<(), CopyError> {
        self.source
            .batch_execute(statements)
            .await
            .map_err(|error| CopyError::on_source(format!("copying {name}"), &error))
    }
}

async fn import_snapshot(source: &Client, snapshot: &str) -> Result<(), CopyError> {
    let statements = format!(
        "{PREPARE_SOURCE}; BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; \
         SET TRANSACTION SNAPSHOT {}",
        quote::literal(snapshot)
    );
    match source.batch_execute(&statements).await {
        Ok(()) => Ok(()),
        // Every way in which the server refuses the name means that its exporter has ended.
        Err(error) => match error.as_db_error() {
            Some(answer) => Err(CopyError::SnapshotLost(answer.message().to_owned())),
            None => Err(CopyError::on_source("importing the snapshot", &error)),
        },
    }
}

async fn file_of(
    client: &Client,
    statement: &Statement,
    name: &TableName,
) -> Result<Option<(u32, u32)>, tokio_postgres::Error> {
    let row = client.query_opt(statement, &[&name.schema, &name.name]).await?;
    Ok(row.map(|row| (row.get(0), row.get(1))))
}

/// Both ends of one table's copy. Without a list COPY leaves generated columns out by itself,
/// and an empty list is not SQL.
fn copy_statements(table: &CopyTable) -> (String, String) {
    let what = if table.columns.is_empty() {
        quote::table(&table.name)
    } else {
        format!("{} ({})", quote::table(&table.name), quote::columns(&table.columns))
    };
    let format = if table.text { "text" } else { "binary" };
    (
        format!("COPY {what} TO STDOUT (FORMAT {format})"),
        format!("COPY {what} FROM STDIN (FORMAT {format}, FREEZE)"),
    )
}

/// One message, so that the origin is taken for one round trip and not for four.
fn commit_statements(plan: &super::CopyPlan) -> Option<String> {
    let origin = quote::literal(plan.origin.as_ref()?);
    let stamp = plan.snapshot_time.map_or_else(String::new, |time| {
        format!(
            "SELECT pg_replication_origin_xact_setup('0/0', {}); ",
            quote::literal(&time.to_string())
        )
    });
    Some(format!(
        "SELECT pg_replication_origin_session_setup({origin}); {stamp}COMMIT; \
         SELECT pg_replication_origin_session_reset()"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(columns: &[&str], text: bool) -> CopyTable {
        CopyTable {
            name: TableName::new("public", "Odd name"),
            columns: columns.iter().map(|&column| column.to_owned()).collect(),
            text,
            bytes_estimate: 0,
        }
    }

    #[test]
    fn both_ends_name_the_same_columns() {
        let (copy_out, copy_in) = copy_statements(&table(&["id", "to"], false));
        assert_eq!(copy_out, r#"COPY "public"."Odd name" ("id", "to") TO STDOUT (FORMAT binary)"#);
        assert_eq!(
            copy_in,
            r#"COPY "public"."Odd name" ("id", "to") FROM STDIN (FORMAT binary, FREEZE)"#
        );
    }

    #[test]
    fn a_table_without_columns_is_copied_without_a_list() {
        let (copy_out, _) = copy_statements(&table(&[], true));
        assert_eq!(copy_out, r#"COPY "public"."Odd name" TO STDOUT (FORMAT text)"#);
    }

    #[test]
    fn the_origin_is_taken_for_the_commit_only() {
        let mut plan = super::super::CopyPlan {
            snapshot: String::new(),
            snapshot_lsn: pgferry_plan::Lsn(0),
            snapshot_time: Some("2026-11-21T06:00:00.5Z".parse().unwrap()),
            tables: Vec::new(),
            jobs: 1,
            origin: Some("pgl_a_b".to_owned()),
            epoch: 1,
            application_name: String::new(),
        };
        assert_eq!(
            commit_statements(&plan).unwrap(),
            "SELECT pg_replication_origin_session_setup('pgl_a_b'); \
             SELECT pg_replication_origin_xact_setup('0/0', '2026-11-21T06:00:00.5Z'); COMMIT; \
             SELECT pg_replication_origin_session_reset()"
        );
        plan.origin = None;
        assert_eq!(commit_statements(&plan), None);
    }
}
