//! Mending: exactly the rows that were proven to differ are copied again from the active side.
//!
//! Each row is locked on the active side first, so that nothing changes it; a marker says that
//! everything before has arrived, or the lock is given back within seconds; then it is replaced on the passive side, in one transaction under the
//! epoch and under an origin of its own, so that nothing travels back; then the lock is given back. A row
//! that only the passive side has is taken away only in the version that was proven. What cannot be
//! done exactly is refused: rows without a key, rows that somebody holds, and tables whose triggers
//! would fire, where this role may not keep them from it.

use std::time::Duration;

use pgferry_plan::verify::parts::Identity;
use pgferry_plan::verify::rounds::{Round, Wrong};
use pgferry_plan::{Blocker, Side};
use tokio::sync::Mutex;
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

use super::compare::{Worker, by_column, parameters};
use super::sql::TableSql;
use super::{VerifyError, repair_origin};
use crate::cluster::PgCluster;
use crate::quote::literal;
use crate::statements::{Guard, guarded};

/// Rows that are locked at a time on the active side: their writers wait for a few milliseconds.
const ROWS_AT_ONCE: usize = 100;

/// A session of one origin at a time: PostgreSQL refuses a second one.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// For how long locks are kept for a stream to carry a marker, or for an answer.
const LOCKED_FOR: Duration = Duration::from_secs(2);

const COMMIT: &str = "COMMIT; SELECT pg_catalog.pg_replication_origin_session_reset()";
/// The origin is the session's, not the transaction's: another session could not take it up.
const TAKE_BACK: &str = "ROLLBACK; SELECT pg_catalog.pg_replication_origin_session_reset() \
    WHERE pg_catalog.pg_replication_origin_session_is_setup()";

const MAY_SILENCE: &str = "SET session_replication_role = replica";

/// Triggers that a repair would fire, those of foreign keys among them.
const FIRED: &str = "SELECT EXISTS (SELECT FROM pg_catalog.pg_trigger t \
    WHERE t.tgrelid = $1::text::regclass AND t.tgenabled IN ('O', 'A') AND t.tgtype & 28 <> 0)";

/// A row that is to be mended, with what its last round has shown.
pub(super) type Damaged = (Vec<String>, Wrong, Round);

/// Whether this migration's rows can be mended on a side at all; makes the origin.
pub(super) async fn prepare(cluster: &PgCluster, passive: Side) -> Result<(), VerifyError> {
    let node = cluster.node(passive);
    let client = node.client().await.map_err(|error| node.fault(&error))?;
    let origin = literal(&repair_origin(&cluster.config.name));
    let create = format!(
        "SELECT pg_catalog.pg_replication_origin_create({origin}) WHERE NOT EXISTS \
         (SELECT FROM pg_catalog.pg_replication_origin WHERE roname = {origin})"
    );
    client.batch_execute(&create).await.map_err(|error| {
        VerifyError::Blocked(Blocker::new(
            "may_not_mend",
            format!("the {passive}: {}", crate::node::describe(&error)),
            format!(
                "as an administrator, on both sides: GRANT EXECUTE ON FUNCTION \
                 pg_replication_origin_create(text), pg_replication_origin_drop(text), \
                 pg_replication_origin_session_setup(text), pg_replication_origin_session_reset(), \
                 pg_replication_origin_xact_setup(pg_lsn, timestamptz) TO {}",
                cluster.config.node(passive).login.dsn.user()
            ),
        ))
    })
}

/// Takes the origin away again.
pub(super) async fn clean_up(cluster: &PgCluster, passive: Side) {
    let origin = literal(&repair_origin(&cluster.config.name));
    let drop = format!(
        "SELECT pg_catalog.pg_replication_origin_drop(roname) \
         FROM pg_catalog.pg_replication_origin WHERE roname = {origin}"
    );
    let result = match cluster.node(passive).client().await {
        Ok(client) => client.batch_execute(&drop).await.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    if let Err(error) = result {
        tracing::warn!(error, "the origin of the repair stays until the end of the migration");
    }
}

impl Worker<'_> {
    /// Copies rows again, behind their intent in the journal; returns why not, when the table's cannot be.
    pub(super) async fn repair(
        &self,
        table: &TableSql,
        name: &str,
        rows: &[Damaged],
    ) -> Result<Option<String>, VerifyError> {
        let (repairs, somebody) = (&self.cluster.verifier.repairs, self.cluster.job_ended());
        let waited = repairs.wait(self.run, name, rows.len() as u64, &somebody).await;
        let id = waited.ok_or(VerifyError::Stopped)?;
        let mut mended = 0;
        let result = self.mend(table, rows, &mut mended).await;
        let refused = match &result {
            Ok(refused) => refused.clone(),
            // Its words may hold values.
            Err(_) => Some("it failed; the daemon's log says why".to_owned()),
        };
        repairs.end(id, mended, refused, &somebody);
        result
    }

    /// Copies rows again and counts them; returns why not, when the table's cannot be.
    async fn mend(
        &self,
        table: &TableSql,
        rows: &[Damaged],
        mended: &mut u64,
    ) -> Result<Option<String>, VerifyError> {
        if !matches!(table.identity, Identity::Key { .. }) {
            return Ok(Some("it has no key, so no row of it can be told from another".to_owned()));
        }
        let (here, there) = (self.active_side, self.active_side.other());
        let (active, passive) = tokio::try_join!(self.writer(here), self.writer(there))?;
        if passive.batch_execute(MAY_SILENCE).await.is_err() {
            let fires: bool = passive
                .query_one(FIRED, &[&table.table])
                .await
                .and_then(|row| row.try_get(0))
                .map_err(VerifyError::on(there))?;
            if fires {
                return Ok(Some(
                    "its triggers would fire: GRANT SET ON PARAMETER session_replication_role \
                     (PostgreSQL 15 and later) keeps them from it"
                        .to_owned(),
                ));
            }
        }
        // What is to go, goes first: a row that is written may need its place in a unique index.
        let (extra, others): (Vec<Damaged>, Vec<Damaged>) =
            rows.iter().cloned().partition(|(_, wrong, _)| *wrong == Wrong::Extra);
        for some in extra.chunks(ROWS_AT_ONCE).chain(others.chunks(ROWS_AT_ONCE)) {
            let _one_at_a_time = ONE_AT_A_TIME.lock().await;
            let held = self.mend_some(table, some, &active, &passive).await;
            if let Ok(None) = held {
                *mended += some.len() as u64;
                continue;
            }
            // The lock first: somebody may wait for it. What fails here ends with its session.
            let _ = active.batch_execute("ROLLBACK").await;
            let _ = passive.batch_execute(TAKE_BACK).await;
            return held;
        }
        Ok(None)
    }

    /// Mends a few rows; what it left open where it did not come to its end is the caller's to close.
    async fn mend_some(
        &self,
        table: &TableSql,
        rows: &[Damaged],
        active: &Client,
        passive: &Client,
    ) -> Result<Option<String>, VerifyError> {
        let (here, there) = (self.active_side, self.active_side.other());
        let on_active = VerifyError::on(here);
        let on_passive = VerifyError::on(there);
        let keys: Vec<Vec<String>> = rows.iter().map(|(key, ..)| key.clone()).collect();
        let arrays = by_column(&keys);
        // A stream that is behind is waited for before anybody's row is locked.
        self.marker().await?;
        active.batch_execute("BEGIN; SET LOCAL lock_timeout = '1s'").await.map_err(on_active)?;
        let locked = active.query(&table.lock(), &parameters(&arrays)).await;
        let locked = match locked {
            Ok(locked) => locked,
            Err(error) if error.code().is_some_and(is_held) => {
                return Ok(Some("somebody holds one of its rows; try again".to_owned()));
            }
            Err(error) => return Err(on_active(error)),
        };
        if !self.marker_within(LOCKED_FOR).await? {
            return Ok(Some("the stream is behind; try again when it has caught up".to_owned()));
        }
        let mut columns: Vec<Vec<Option<String>>> = vec![Vec::new(); table.written().count()];
        let mut there_now: Vec<Vec<String>> = Vec::new();
        for row in &locked {
            let key: Vec<String> = row.try_get(0).map_err(on_active)?;
            let values: Vec<Option<String>> = row.try_get(1).map_err(on_active)?;
            for (column, value) in columns.iter_mut().zip(values) {
                column.push(value);
            }
            there_now.push(key);
        }
        // Only the active side's rows are locked: one that it has not may come at any moment, and is
        // taken away only as it was proven.
        let (extra, versions): (Vec<Vec<String>>, Vec<String>) = rows
            .iter()
            .filter(|(key, wrong, _)| *wrong == Wrong::Extra && !there_now.contains(key))
            .filter_map(|(key, _, round)| {
                Some((key.clone(), round.passive.as_ref()?.version.clone()))
            })
            .unzip();
        let guard = guarded(there, Guard::of_epoch(self.epoch), "SELECT 1");
        let begin = format!("BEGIN; {guard}");
        passive.batch_execute(&begin).await.map_err(on_passive)?;
        let replace = async {
            if !extra.is_empty() {
                let arrays = by_column(&extra);
                let mut values = parameters(&arrays);
                values.push(&versions);
                passive.execute(&table.delete(true), &values).await?;
            }
            if !there_now.is_empty() {
                let arrays = by_column(&there_now);
                passive.execute(&table.delete(false), &parameters(&arrays)).await?;
                let values: Vec<&(dyn ToSql + Sync)> =
                    columns.iter().map(|column| column as &(dyn ToSql + Sync)).collect();
                passive.execute(&table.insert(), &values).await?;
            }
            // What is checked at the end only is refused here, while it can be told.
            passive.batch_execute("SET CONSTRAINTS ALL IMMEDIATE").await
        };
        if let Err(error) = replace.await {
            return refused(&error).map(Some).ok_or_else(|| on_passive(error));
        }
        let origin = format!(
            "SELECT pg_catalog.pg_replication_origin_session_setup({}); \
             SELECT pg_catalog.pg_replication_origin_xact_setup('0/0', clock_timestamp())",
            literal(&repair_origin(&self.cluster.config.name))
        );
        passive.batch_execute(&origin).await.map_err(on_passive)?;
        // With the session the lock is gone, and what changed the row since is not in the copy.
        let holds = tokio::time::timeout(LOCKED_FOR, active.batch_execute("SELECT 1")).await;
        match holds {
            Ok(held) => held.map_err(on_active)?,
            Err(_) => {
                return Ok(Some("the active side does not answer; try again".to_owned()));
            }
        }
        passive.batch_execute(COMMIT).await.map_err(on_passive)?;
        active.batch_execute("COMMIT").await.map_err(on_active)?;
        Ok(None)
    }
}

/// Why a server does not take a row, without its words: they may hold values. None when it has not
/// said so at all.
fn refused(error: &tokio_postgres::Error) -> Option<String> {
    let code = error.code()?.code();
    Some(format!("refused by the server (SQLSTATE {code})"))
}

fn is_held(code: &tokio_postgres::error::SqlState) -> bool {
    *code == tokio_postgres::error::SqlState::LOCK_NOT_AVAILABLE
}
