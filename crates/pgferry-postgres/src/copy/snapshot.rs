//! The snapshot that a copy reads, and what holds it open: a session on the source that outlives
//! the daemon which opened it.
//!
//! The session imports the snapshot of a fresh slot, exports it again under a name of its own, and
//! then runs a statement that ends only when no daemon of this migration has been seen on the
//! server for a while. A server notices that its client is gone when it next speaks to it, and in
//! the middle of a statement it does not speak: so a kill of the daemon, or of its host, leaves the
//! snapshot in place, and the daemon that comes next finds it by looking at `pg_stat_activity`. A
//! process that holds the session on the daemon's host would die with the host; a second
//! subscription for what is missing would need a set, a slot and a merge of its own.

use std::time::Duration;

use jiff::Timestamp;
use pgferry_plan::{Lsn, MigrationName};
use tokio_postgres::{Client, Row};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::connect::Connector;
use crate::node::LookError;
use crate::quote::literal;
use crate::walsender::{Walsender, WalsenderError};
use crate::wire::{Purpose, Wire, WireError};

/// A snapshot of the source that some session holds open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HeldSnapshot {
    /// For `SET TRANSACTION SNAPSHOT`.
    pub(crate) name: String,
    /// It holds exactly what committed before this position.
    pub(crate) lsn: Lsn,
    /// By the source's clock.
    pub(crate) taken_at: Timestamp,
    /// The session that holds it.
    pid: i32,
}

/// Whether the server's `client_connection_check_interval` (14 and later) would let it notice that
/// the daemon is gone, and `transaction_timeout` (17) end the holder: set where they exist.
const OUTLIVE: &str = "SELECT pg_catalog.set_config(name, '0', false)
FROM pg_catalog.pg_settings WHERE name IN ('client_connection_check_interval', 'transaction_timeout')";

const EXPORT: &str = "SELECT pg_catalog.pg_export_snapshot(), \
    to_char(pg_catalog.clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";

/// Taken apart by [`HeldSnapshot::read`].
const HOLDERS: &str = "SELECT pid, query FROM pg_catalog.pg_stat_activity
WHERE application_name = $1 AND datname = pg_catalog.current_database() AND state = 'active'
ORDER BY backend_start";

const RELEASE: &str = "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity
WHERE application_name = $1 AND datname = pg_catalog.current_database()
  AND pid <> pg_catalog.pg_backend_pid() AND NOT (pid = ANY ($2))";

/// `application_name` of the holders. Not one of a leadership's sessions: the next one ends those.
fn application_name(migration: &MigrationName) -> String {
    format!("pgferry-snapshot/{migration}")
}

impl HeldSnapshot {
    /// Takes a snapshot and returns once a session of its own holds it. Waits for every
    /// transaction that is open on the source.
    pub(crate) async fn take(
        source: &Connector,
        migration: &MigrationName,
        leadership: &str,
        grace: Duration,
        cancel: &CancellationToken,
    ) -> Result<(), WalsenderError> {
        let mut walsender = Walsender::connect(source, leadership).await?;
        // A name of its own each time: the session of an earlier try may not be gone yet.
        let slot = format!("pgferry_snapshot_{}", Uuid::now_v7().simple());
        let exported = walsender.create_temporary_slot_with_snapshot(&slot, cancel).await?;
        let name = application_name(migration);
        let mut holder = Wire::connect(source, &name, Purpose::Sql).await?;
        holder.query(OUTLIVE).await?;
        let import = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT {}",
            literal(&exported.snapshot_name)
        );
        holder.query(&import).await?;
        let rows = holder.query(EXPORT).await?;
        let [row] = rows.as_slice() else { return Err(nonsense().into()) };
        let [Some(snapshot), Some(taken_at)] = row.as_slice() else {
            return Err(nonsense().into());
        };
        tracing::info!(lsn = %exported.lsn, snapshot, "took the snapshot that the copy reads");
        let hold = hold_statement(migration, exported.lsn, snapshot, taken_at, grace);
        holder.begin_query(&hold).await?;
        // For as long as this process lives the socket stays open; afterwards nobody needs it.
        tokio::spawn(async move {
            let ended = holder.query_answers().await;
            tracing::info!(?ended, "the snapshot is released");
        });
        drop(walsender);
        Ok(())
    }

    /// The snapshots of this migration that are held now, oldest first.
    pub(crate) async fn look(
        source: &Client,
        migration: &MigrationName,
    ) -> Result<Vec<Self>, LookError> {
        let rows = source.query(HOLDERS, &[&application_name(migration)]).await?;
        Ok(rows.iter().filter_map(Self::read).collect())
    }

    /// Ends the sessions that hold snapshots of this migration, but for one of them.
    pub(crate) async fn release(
        source: &Client,
        migration: &MigrationName,
        but: Option<&Self>,
    ) -> Result<(), LookError> {
        let kept: Vec<i32> = but.iter().map(|held| held.pid).collect();
        source.execute(RELEASE, &[&application_name(migration), &kept]).await?;
        Ok(())
    }

    /// None for a session that does not hold yet, or is not one of ours.
    fn read(row: &Row) -> Option<Self> {
        let (pid, query): (i32, String) = (row.try_get(0).ok()?, row.try_get(1).ok()?);
        let (lsn, name, taken_at) = read_statement(&query)?;
        Some(Self { name, lsn, taken_at, pid })
    }
}

fn nonsense() -> WireError {
    WireError::Protocol("pg_export_snapshot did not name a snapshot".to_owned())
}

/// What the statement holds, in the words with which it begins: `pg_stat_activity.query` may be cut
/// short behind them.
const HOLD: &str = "DO $hold$ -- pgferry holds a snapshot:";

fn hold_statement(
    migration: &MigrationName,
    lsn: Lsn,
    snapshot: &str,
    taken_at: &str,
    grace: Duration,
) -> String {
    // A migration's name is letters, digits and underscores.
    format!(
        "{HOLD} {lsn} {snapshot} {taken_at}\n\
         DECLARE\n    seen timestamptz := pg_catalog.clock_timestamp();\n\
         BEGIN\n    LOOP\n        \
         PERFORM pg_catalog.pg_sleep(1);\n        \
         PERFORM pg_catalog.pg_stat_clear_snapshot();\n        \
         IF EXISTS (SELECT FROM pg_catalog.pg_stat_activity\n                   \
         WHERE pg_catalog.starts_with(application_name, 'pgferry/{migration}/')) THEN\n            \
         seen := pg_catalog.clock_timestamp();\n        \
         ELSIF pg_catalog.clock_timestamp() - seen > interval '{} s' THEN\n            EXIT;\n        \
         END IF;\n    END LOOP;\nEND $hold$",
        grace.as_secs()
    )
}

fn read_statement(query: &str) -> Option<(Lsn, String, Timestamp)> {
    let mut words = query.strip_prefix(HOLD)?.lines().next()?.split_whitespace();
    let (lsn, name, taken_at) = (words.next()?, words.next()?, words.next()?);
    Some((lsn.parse().ok()?, name.to_owned(), taken_at.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holding_statement_says_what_it_holds() {
        let migration = "orders".parse().unwrap();
        let taken_at = "2026-11-21T06:00:00.500000Z";
        let statement = hold_statement(
            &migration,
            Lsn(0x016B_3748),
            "00000003-0000001B-1",
            taken_at,
            Duration::from_secs(900),
        );
        // What is left of it where track_activity_query_size is at its smallest.
        assert_eq!(
            read_statement(&statement[..100]),
            Some((Lsn(0x016B_3748), "00000003-0000001B-1".to_owned(), taken_at.parse().unwrap()))
        );
        assert!(statement.contains("'pgferry/orders/'") && statement.contains("interval '900 s'"));
        assert_eq!(read_statement("SELECT 1"), None);
    }
}
