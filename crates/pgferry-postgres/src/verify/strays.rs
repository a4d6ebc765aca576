//! What strays left: their rows counted and named where they wrote, their tables compared on both sides.
//!
//! Runs beside the loop and beside any other verification, once after another. Keys go to whoever looks
//! and to the log, and are kept nowhere.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use pgferry_plan::strays::{Compared, ComparisonView, StrayTable, Writer};
use pgferry_plan::{Blocker, Seen, Side, TableName};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::background::Gently;
use super::run::{Alone, Run};
use super::sql::TableSql;
use super::{STOPPING, VerifyError, Wish, lock, marker, retry_after};
use crate::cluster::{Inner, PgCluster};

/// The comparison of one cluster.
#[derive(Debug, Default)]
pub(super) struct Strays(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    running: Option<Running>,
    ended: Option<ComparisonView>,
    failures: u32,
}

#[derive(Debug)]
struct Running {
    handle: JoinHandle<Result<Vec<Compared>, Blocker>>,
    cancel: CancellationToken,
}

impl State {
    fn take_in(&mut self) {
        if !self.running.as_ref().is_some_and(|running| running.handle.is_finished()) {
            return;
        }
        // It is finished, so this is at hand.
        let result = self
            .running
            .take()
            .and_then(|running| futures_util::FutureExt::now_or_never(running.handle));
        self.ended = Some(match result {
            Some(Ok(Ok(compared))) => {
                self.failures = 0;
                ComparisonView::Ended(compared)
            }
            Some(Ok(Err(blocker))) => self.failed(blocker),
            Some(Err(_)) | None => self.failed(Blocker::new(
                "verification_died",
                "the comparison ended without a result",
                "look into the daemon's log; it is tried again",
            )),
        });
    }

    fn failed(&mut self, blocker: Blocker) -> ComparisonView {
        tracing::warn!(
            code = blocker.code,
            message = blocker.message,
            "what strays left was not compared"
        );
        self.failures = self.failures.saturating_add(1);
        let retry_at = Timestamp::now() + retry_after(self.failures);
        ComparisonView::Failed { blocker, retry_at }
    }
}

impl PgCluster {
    /// Begins to look at what strays left, unless that is being done.
    pub(crate) fn compare_strays(&self, active: Side, strays: &[Writer], epoch: i64) {
        let mut state = lock(&self.verifier.strays.0);
        state.take_in();
        if state.running.is_some() {
            return;
        }
        let cancel = CancellationToken::new();
        let run = Run {
            cluster: self.clone(),
            run: Uuid::now_v7(),
            active,
            epoch,
            at_rest: true,
            wish: Wish::default(),
            gently: self.config.verify.background.map(|background| Gently {
                bytes_per_second: background.bytes_per_second,
                keep: None,
            }),
            figures: Arc::default(),
            cancel: cancel.clone(),
        };
        let (strays, ended) = (strays.to_vec(), self.job_ended());
        let handle = tokio::spawn(async move {
            let result = run.examine(&strays).await;
            ended.notify_one();
            result.map_err(VerifyError::into_blocker)
        });
        state.ended = None;
        state.running = Some(Running { handle, cancel });
    }

    /// How it stands.
    pub(crate) fn stray_comparison(&self) -> Seen<ComparisonView> {
        let mut state = lock(&self.verifier.strays.0);
        state.take_in();
        match (&state.running, &state.ended) {
            (Some(_), _) => Seen::Present(ComparisonView::Running),
            (None, Some(ended)) => Seen::Present(ended.clone()),
            (None, None) => Seen::Absent,
        }
    }
}

impl Inner {
    /// Gives it up; it begins anew at rest.
    pub(super) async fn stop_comparing_strays(&self) {
        let Some(mut running) = lock(&self.verifier.strays.0).running.take() else { return };
        running.cancel.cancel();
        if tokio::time::timeout(STOPPING, &mut running.handle).await.is_err() {
            running.handle.abort();
        }
    }
}

impl Run {
    async fn examine(&self, strays: &[Writer]) -> Result<Vec<Compared>, VerifyError> {
        let names: BTreeSet<TableName> =
            strays.iter().flat_map(|stray| &stray.tables).cloned().collect();
        let alone = self.unless_stopped(self.alone(&names)).await?;
        let mut all = Vec::new();
        // Before anything else: a row that is written again loses its mark.
        for stray in strays {
            all.push(self.rows_of(&alone, stray).await?);
        }
        // What was committed on the passive side must have had the time to come over.
        let arrived = marker::pass(
            &self.cluster,
            self.active.other(),
            self.epoch,
            alone.worker.session(self.active),
        );
        self.unless_stopped(arrived).await?;
        for (name, table) in &alone.tables {
            let compared = self.compare_alone(&alone, name, table).await?;
            let of_it = all.iter_mut().flat_map(|one: &mut Compared| &mut one.tables);
            for left in of_it.filter(|left| left.table == *name) {
                left.differing = Some(compared.mismatched);
                left.at_least = compared.at_least;
            }
        }
        Ok(all)
    }

    /// Counts and names the rows that are still as a stray wrote them.
    async fn rows_of(&self, alone: &Alone<'_>, stray: &Writer) -> Result<Compared, VerifyError> {
        let mut found =
            Compared { side: stray.side, xid: stray.xid, tables: Vec::new(), keys: Vec::new() };
        for name in &stray.tables {
            let mut left =
                StrayTable { table: name.clone(), rows: None, differing: None, at_least: false };
            if let Some(table) = alone.tables.get(name) {
                let (rows, keys) = self.rows_in(alone, stray, table).await?;
                tracing::warn!(
                    side = %stray.side, role = stray.role, pid = stray.pid, xid = stray.xid,
                    table = %name, rows, ?keys, "rows that are still as a stray wrote them"
                );
                left.rows = Some(rows);
                found.keys.push((name.clone(), keys));
            }
            found.tables.push(left);
        }
        Ok(found)
    }

    async fn rows_in(
        &self,
        alone: &Alone<'_>,
        stray: &Writer,
        table: &TableSql,
    ) -> Result<(u64, Vec<String>), VerifyError> {
        let on = VerifyError::on(stray.side);
        let session = alone.worker.session(stray.side);
        // As a row holds it.
        let xid = (stray.xid & u64::from(u32::MAX)).to_string();
        let reading = async {
            let row = session.query_one(COMMITTED_AT, &[&xid]).await?;
            let committed_at: Option<String> = row.try_get(0)?;
            session.query(&table.written_by(NAMED), &[&xid, &committed_at]).await
        };
        let rows = tokio::select! {
            biased;
            () = self.cancel.cancelled() => {
                alone.worker.cancel_statements().await;
                return Err(VerifyError::Stopped);
            }
            rows = reading => rows.map_err(on),
        };
        let rows = match rows {
            Err(error) if self.is_gone(&error, table).await? => Vec::new(),
            rows => rows?,
        };
        let mut count = 0;
        let mut keys = Vec::new();
        for row in rows {
            count = u64::try_from(row.try_get::<_, i64>(0).map_err(on)?).unwrap_or(0);
            let values: Vec<String> = row.try_get(1).map_err(on)?;
            let key: Vec<String> = table
                .key_names()
                .zip(values)
                .map(|(column, value)| format!("{column}={value}"))
                .collect();
            if !key.is_empty() {
                keys.push(key.join(", "));
            }
        }
        Ok((count, keys))
    }
}

/// Rows of a table that are named.
const NAMED: u32 = 10;

/// By it the rows that a transaction wrote in savepoints are known: they carry other ids, and its time.
const COMMITTED_AT: &str = "\
    SELECT CASE WHEN current_setting('track_commit_timestamp')::bool \
    THEN pg_catalog.pg_xact_commit_timestamp($1::text::xid)::text END";
