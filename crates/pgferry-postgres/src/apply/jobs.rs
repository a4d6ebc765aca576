//! The jobs that an action starts: schema, sets, snapshot, rows, indexes, statistics; those of
//! phase copying are in [`super::copying`].
//!
//! A job ends at its first error and says it; the loop looks, and starts it again.

use std::time::Duration;

use pgferry_engine::Fault;
use pgferry_plan::{Action, Blocker, Facts, SetAddition, Side, TableName};
use tokio_util::sync::CancellationToken;

use crate::cluster::PgCluster;
use crate::node::{LookError, Node};
use crate::quote::{literal, table};
use crate::schema::{SchemaCopy, SchemaError, SchemaScope, SchemaTools};
use crate::statements::{self, Guard};

/// `replication_set_add_table` blocks the table's writers while it waits for its lock, so it
/// gives up soon and comes again.
const ADD_TABLE_LOCK_TIMEOUT_MS: u32 = 200;
/// Thousands of commits one after the other take minutes where each is flushed. So some tables are
/// added in one transaction, which waits for no lock for long: it holds up the writers of those it
/// has, and all waits together must stay below a server's `deadlock_timeout` (a second), so that it
/// is never the application that pays for a deadlock. The tables of one that fails go one by one.
const ADD_TABLES_AT_ONCE: usize = 20;
const ADD_TABLES_LOCK_TIMEOUT_MS: u32 = 20;
const ADD_TABLE_PAUSE: Duration = Duration::from_millis(300);
const ADD_TABLE_TRIES: u32 = 200;

impl PgCluster {
    pub(super) fn start_job(&self, action: &Action, facts: &Facts) {
        let (cluster, epoch) = (self.clone(), facts.epoch);
        match action.clone() {
            Action::CopySchema => self.jobs.start("copying the schema", move |cancel| async move {
                cluster.copy_schema(epoch, cancel).await
            }),
            Action::SetAside { objects } => {
                self.jobs
                    .start("setting foreign keys and triggers aside", move |cancel| async move {
                        cluster.set_aside(objects, epoch, cancel).await
                    });
            }
            Action::PutBack => {
                self.jobs
                    .start("putting foreign keys and triggers back", move |cancel| async move {
                        cluster.put_back(epoch, cancel).await
                    });
            }
            Action::BuildKeys => self.jobs.start("building keys", move |cancel| async move {
                let jobs = cluster.config.copy.jobs;
                cluster
                    .with_schema_tools(epoch, &cancel, async |copy| copy.build_keys(jobs).await)
                    .await
            }),
            Action::CountRows => {
                self.jobs.start("counting rows on both sides", move |cancel| async move {
                    cluster.count_rows(epoch, cancel).await
                })
            }
            Action::AddToSets { side, tables } => {
                self.jobs
                    .start("adding tables to the replication sets", move |cancel| async move {
                        cluster.add_to_sets(side, tables, epoch, cancel).await
                    });
            }
            Action::TakeSnapshot => {
                self.jobs
                    .start("waiting for older transactions to end", move |cancel| async move {
                        cluster.take_snapshot(cancel).await
                    });
            }
            Action::CopyRows { snapshot_lsn } => {
                self.jobs.start("copying rows and building indexes", move |cancel| async move {
                    cluster.copy_rows(snapshot_lsn, epoch, cancel).await
                });
            }
            Action::BuildIndexes => {
                self.jobs.start("building indexes", move |cancel| async move {
                    cluster.build_indexes(epoch, cancel).await
                });
            }
            Action::Analyze => self.jobs.start("analyzing", move |cancel| async move {
                cluster.analyze(epoch, cancel).await
            }),
            other => tracing::error!(?other, "not a job"),
        }
    }

    async fn copy_schema(&self, epoch: i64, cancel: CancellationToken) -> Result<(), Blocker> {
        self.with_schema_tools(epoch, &cancel, async |copy| copy.copy_pre_data().await).await
    }

    async fn build_indexes(&self, epoch: i64, cancel: CancellationToken) -> Result<(), Blocker> {
        self.build_table_indexes(epoch, cancel.clone()).await?;
        let jobs = self.config.copy.jobs;
        self.with_schema_tools(epoch, &cancel, async |copy| copy.build_post_data(jobs).await).await
    }

    async fn with_schema_tools(
        &self,
        epoch: i64,
        cancel: &CancellationToken,
        work: impl AsyncFnOnce(&SchemaCopy<'_>) -> Result<(), SchemaError>,
    ) -> Result<(), Blocker> {
        let (source, destination) = (self.node(Side::Source), self.node(Side::Destination));
        let majors = (major(source).await?, major(destination).await?);
        let configured = self.config.schema.pg_bindir.as_deref();
        let tools =
            SchemaTools::find(configured, majors.0, majors.1).await.map_err(schema_blocker)?;
        let copy = SchemaCopy {
            tools: &tools,
            source: source.connector(),
            destination: destination.connector(),
            scope: &SchemaScope { schemas: self.rules.schemas.clone() },
            epoch,
            application_name: &source.application_name(),
            cancel,
        };
        work(&copy).await.map_err(schema_blocker)
    }

    async fn add_to_sets(
        &self,
        side: Side,
        tables: Vec<SetAddition>,
        epoch: i64,
        cancel: CancellationToken,
    ) -> Result<(), Blocker> {
        let node = self.node(side);
        let name = &self.config.name;
        let guard = Guard::of_epoch(epoch);
        let sets = [
            statements::create_set(&name.set(), false),
            statements::create_set(&name.insert_only_set(), true),
            statements::create_set(&name.empty_set(), false),
        ];
        node.mutate(guard, &sets.join("; ")).await.map_err(fault_blocker)?;
        for some in tables.chunks(ADD_TABLES_AT_ONCE) {
            if cancel.is_cancelled() {
                return Err(stopped());
            }
            let additions: Vec<String> = some
                .iter()
                .map(|addition| self.addition(addition, ADD_TABLES_LOCK_TIMEOUT_MS))
                .collect();
            match node.mutate(guard, &additions.join("; ")).await {
                Ok(()) => {}
                Err(Fault::EpochRaised) => return Err(fault_blocker(Fault::EpochRaised)),
                // A lock that somebody holds, or an error that is told with its table's name.
                Err(Fault::Failed(_)) => {
                    for addition in some {
                        self.add_to_set(node, guard, addition, &cancel).await?;
                    }
                }
            }
        }
        Ok(())
    }

    async fn add_to_set(
        &self,
        node: &Node,
        guard: Guard,
        addition: &SetAddition,
        cancel: &CancellationToken,
    ) -> Result<(), Blocker> {
        let sql = self.addition(addition, ADD_TABLE_LOCK_TIMEOUT_MS);
        let mut tries = 0;
        loop {
            match node.mutate(guard, &sql).await {
                Ok(()) => return Ok(()),
                Err(Fault::Failed(blocker))
                    if blocker.code == "lock_not_available" && tries < ADD_TABLE_TRIES =>
                {
                    tries += 1;
                    tokio::select! {
                        () = tokio::time::sleep(ADD_TABLE_PAUSE) => {}
                        () = cancel.cancelled() => return Err(stopped()),
                    }
                }
                Err(fault) => {
                    let mut blocker = fault_blocker(fault);
                    blocker.message = format!("table {}: {}", addition.table, blocker.message);
                    return Err(blocker);
                }
            }
        }
    }

    fn addition(&self, addition: &SetAddition, lock_timeout_ms: u32) -> String {
        let set = statements::set_of(&self.config.name, addition);
        statements::add_table(&set, &addition.table, lock_timeout_ms)
    }

    async fn analyze(&self, epoch: i64, cancel: CancellationToken) -> Result<(), Blocker> {
        let node = self.node(Side::Destination);
        let guard = Guard::of_epoch(epoch);
        let names = async {
            let client = node.client().await?;
            let mut parents = Vec::new();
            for row in client.query(PARTITIONED_PARENTS, &[]).await? {
                parents.push(TableName::new(
                    row.try_get::<_, String>(0)?,
                    row.try_get::<_, String>(1)?,
                ));
            }
            let mut tables = Vec::new();
            for row in client.query(NOT_ANALYZED, &[]).await? {
                let name =
                    TableName::new(row.try_get::<_, String>(0)?, row.try_get::<_, String>(1)?);
                tables.push((name, row.try_get::<_, i64>(2)?));
            }
            Ok::<_, LookError>((parents, tables))
        };
        let (parents, tables) = names.await.map_err(|error| look_blocker(node, &error))?;
        for name in &parents {
            node.mutate(guard, &format!("ANALYZE {}", table(name))).await.map_err(fault_blocker)?;
        }
        for some in small_ones_together(&tables) {
            if cancel.is_cancelled() {
                return Err(stopped());
            }
            let names: Vec<String> = some.iter().map(|(name, _)| table(name)).collect();
            let rows: Vec<String> = some
                .iter()
                .map(|(name, _)| format!("({}, {})", literal(&name.schema), literal(&name.name)))
                .collect();
            let sql = format!(
                "ANALYZE {}; UPDATE pgferry.copied SET analyzed_at = clock_timestamp() \
                 WHERE (schema_name, table_name) IN ({})",
                names.join(", "),
                rows.join(", ")
            );
            node.mutate(guard, &sql).await.map_err(fault_blocker)?;
        }
        Ok(())
    }
}

/// Tables that are analyzed in one transaction: a large one by itself, because the transaction
/// holds the node's record meanwhile, and small ones together, because each costs a commit.
fn small_ones_together(tables: &[(TableName, i64)]) -> Vec<&[(TableName, i64)]> {
    const TABLES: usize = 50;
    const BYTES: i64 = 16 << 20;
    let mut batches = Vec::new();
    let (mut from, mut bytes) = (0, 0_i64);
    for (at, (_, size)) in tables.iter().enumerate() {
        if at > from && (at - from >= TABLES || bytes.saturating_add(*size) > BYTES) {
            batches.push(&tables[from..at]);
            (from, bytes) = (at, 0);
        }
        bytes = bytes.saturating_add(*size);
    }
    if from < tables.len() {
        batches.push(&tables[from..]);
    }
    batches
}

async fn major(node: &Node) -> Result<u32, Blocker> {
    let look = async {
        let client = node.client().await?;
        let version: i32 = client
            .query_one("SELECT current_setting('server_version_num')::int", &[])
            .await?
            .try_get(0)?;
        Ok::<_, LookError>(u32::try_from(version / 10_000).unwrap_or(0))
    };
    look.await.map_err(|error| look_blocker(node, &error))
}

pub(super) fn look_blocker(node: &Node, error: &LookError) -> Blocker {
    fault_blocker(node.fault(error))
}

pub(super) fn fault_blocker(fault: Fault) -> Blocker {
    match fault {
        Fault::EpochRaised => Blocker::new("epoch_raised", fault.to_string(), ""),
        Fault::Failed(blocker) => blocker,
    }
}

fn schema_blocker(error: SchemaError) -> Blocker {
    let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
    let message = format!("{error}{}", cause.unwrap_or_default());
    Blocker::new(error.code(), crate::node::scrub(&message), error.hint())
}

pub(super) fn stopped() -> Blocker {
    Blocker::new("stopped", "the job was stopped", "")
}

const PARTITIONED_PARENTS: &str = "\
    SELECT n.nspname::text, c.relname::text FROM pg_catalog.pg_class c \
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    WHERE c.relkind = 'p' AND NOT c.relispartition \
    AND EXISTS (SELECT FROM pgferry.copied k WHERE k.schema_name = n.nspname)";

const NOT_ANALYZED: &str = "\
    SELECT schema_name, table_name, sum(byte_count)::bigint FROM pgferry.copied \
    WHERE analyzed_at IS NULL GROUP BY schema_name, table_name";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_tables_are_analyzed_together_and_a_large_one_by_itself() {
        let of = |sizes: &[i64]| -> Vec<usize> {
            let tables: Vec<(TableName, i64)> =
                sizes.iter().map(|size| (TableName::new("s", "t"), *size)).collect();
            let batches = small_ones_together(&tables);
            assert_eq!(batches.concat(), tables, "each once, in order");
            batches.iter().map(|batch| batch.len()).collect()
        };
        assert_eq!(of(&[]), [0_usize; 0]);
        assert_eq!(of(&[1; 120]), [50, 50, 20]);
        let mib = 1 << 20;
        assert_eq!(of(&[mib, 100 * mib, mib, mib]), [1, 1, 2]);
        assert_eq!(of(&[8 * mib, 8 * mib, mib]), [2, 1]);
        assert_eq!(of(&[i64::MAX, i64::MAX]), [1, 1]);
    }
}
