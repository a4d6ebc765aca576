//! The jobs of phase copying: the snapshot, the rows with their indexes, and what is made after them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use pgferry_plan::pieces::{self, BlockRange, Cuts};
use pgferry_plan::scope::TableView;
use pgferry_plan::{Blocker, Direction, Lsn, Side, TableName};
use tokio::sync::Notify;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use super::jobs::{fault_blocker, look_blocker};
use crate::cluster::PgCluster;
use crate::copy::snapshot::HeldSnapshot;
use crate::copy::{self, CopyError, CopyPlan, CopyTable, Snapshot};
use crate::node::{LookError, scrub};
use crate::observe::copy::Copied;
use crate::quote::table;
use crate::scope::{Sizes, tables_in_scope};
use crate::statements::Guard;

/// Servers from this version on read a range of blocks without reading the table.
const READS_RANGES: i32 = 140_000;

impl PgCluster {
    pub(super) async fn take_snapshot(&self, cancel: CancellationToken) -> Result<(), Blocker> {
        let node = self.node(Side::Source);
        let (migration, leadership) = (&self.config.name, node.application_name());
        let grace = self.config.copy.snapshot_grace;
        HeldSnapshot::take(node.connector(), migration, &leadership, grace, &cancel).await.map_err(
            |error| {
                let message = scrub(&format!("the source: {error}"));
                Blocker::new(error.code(), message, error.hint())
            },
        )
    }

    /// Copies what is missing under the snapshot of `lsn`.
    pub(super) async fn copy_rows(
        &self,
        lsn: Lsn,
        epoch: i64,
        cancel: CancellationToken,
    ) -> Result<(), Blocker> {
        let source = self.node(Side::Source);
        let held = self.held_snapshots().await.map_err(|error| look_blocker(source, &error))?;
        // The snapshot died between look and action: the next look says so.
        let Some(held) = held.into_iter().find(|held| held.lsn == lsn) else { return Ok(()) };
        self.release_snapshots(Some(&held)).await?;
        self.end_earlier_copies().await?;
        let plan = self.copy_plan(&held, epoch).await?;
        self.prepare_destination(&plan, lsn, epoch).await?;
        self.carry_large_objects(&held.name, lsn, epoch, &cancel).await?;
        let outcome = self.run_copy(plan, cancel).await;
        if outcome.as_ref().is_err_and(CopyError::outdates_snapshot) {
            self.release_snapshots(None).await?;
        }
        outcome.map_err(copy_blocker)?;
        // The copy's end may have come before its last row's message was acted upon.
        self.release_snapshots(None).await
    }

    /// Builds what indexes are missing, when every row is there.
    pub(super) async fn build_table_indexes(
        &self,
        epoch: i64,
        cancel: CancellationToken,
    ) -> Result<(), Blocker> {
        self.release_snapshots(None).await?;
        self.end_earlier_copies().await?;
        let source = self.node(Side::Source);
        let tables = async {
            let client = source.client().await?;
            let wanted = self.tables_to_copy().await?;
            let views = tables_in_scope(&client, &self.rules, Sizes::Measured).await?;
            let views = views.into_iter().filter(|view| wanted.contains(&view.name));
            Ok::<_, LookError>(
                views
                    .map(|view| CopyTable {
                        bytes: view.bytes,
                        name: view.name,
                        ..CopyTable::default()
                    })
                    .collect(),
            )
        };
        let tables = tables.await.map_err(|error| look_blocker(source, &error))?;
        let plan = self.plan_of(None, tables, epoch).await?;
        self.run_copy(plan, cancel).await.map_err(copy_blocker)
    }

    /// Runs a plan, and lets the snapshot go the moment that every row is there.
    async fn run_copy(&self, plan: CopyPlan, cancel: CancellationToken) -> Result<(), CopyError> {
        let (source, destination) = (self.node(Side::Source), self.node(Side::Destination));
        let rows_arrived = Arc::new(Notify::new());
        let progress = self.copy_progress();
        let copying = copy::copy_tables(
            source,
            destination,
            plan,
            &progress,
            Arc::clone(&rows_arrived),
            cancel,
        );
        let releasing = async {
            rows_arrived.notified().await;
            if let Err(blocker) = self.release_snapshots(None).await {
                // The step after this one releases it too, and does not go on without.
                tracing::warn!(message = blocker.message, "could not release the snapshot");
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            outcome = copying => outcome,
            () = releasing => Ok(()),
        }
    }

    /// Snapshots of this migration that some session holds on the source.
    pub(crate) async fn held_snapshots(&self) -> Result<Vec<HeldSnapshot>, LookError> {
        let client = self.node(Side::Source).client().await?;
        HeldSnapshot::look(&client, &self.config.name).await
    }

    /// Lets go of every snapshot but one.
    pub(crate) async fn release_snapshots(
        &self,
        but: Option<&HeldSnapshot>,
    ) -> Result<(), Blocker> {
        let node = self.node(Side::Source);
        let releasing = async {
            let client = node.client().await?;
            HeldSnapshot::release(&client, &self.config.name, but).await
        };
        releasing.await.map_err(|error| look_blocker(node, &error))
    }

    /// Ends the sessions of an earlier try of this leadership, and sees them gone: what they have
    /// copied could still be committed.
    async fn end_earlier_copies(&self) -> Result<(), Blocker> {
        for side in Side::BOTH {
            let node = self.node(side);
            let ended = copy::end_sessions(node).await;
            ended.map_err(|error| Blocker::new(error.code(), error.to_string(), error.hint()))?;
        }
        Ok(())
    }

    async fn copy_plan(&self, held: &HeldSnapshot, epoch: i64) -> Result<CopyPlan, Blocker> {
        let (source, destination) = (self.node(Side::Source), self.node(Side::Destination));
        let snapshot = Snapshot { name: held.name.clone(), lsn: held.lsn, taken_at: held.taken_at };
        let there = self.copied().await.map_err(|error| look_blocker(destination, &error))?;
        let writers = async {
            let client = destination.client().await?;
            Ok::<_, LookError>(client.query_one(WRITERS, &[]).await?.try_get::<_, i64>(0)?)
        };
        let writers = writers.await.map_err(|error| look_blocker(destination, &error))?;
        let writers = u64::try_from(writers).unwrap_or(1);
        let (tables, part_bytes) = self
            .tables_under(&snapshot, there, writers)
            .await
            .map_err(|error| look_blocker(source, &error))?;
        let mut plan = self.plan_of(Some(snapshot), tables, epoch).await?;
        plan.part_bytes = part_bytes;
        Ok(plan)
    }

    async fn plan_of(
        &self,
        snapshot: Option<Snapshot>,
        mut tables: Vec<CopyTable>,
        epoch: i64,
    ) -> Result<CopyPlan, Blocker> {
        let (source, destination) = (self.node(Side::Source), self.node(Side::Destination));
        let with_origin = self.may_use_origins(Side::Destination).await.map_err(fault_blocker)?;
        let subscription = self
            .subscription(Direction::Forward)
            .await
            .map_err(|error| look_blocker(destination, &error))?;
        let origin = subscription.filter(|_| with_origin).map(|subscription| subscription.slot);
        let jobs = self.config.copy.jobs;
        let on_source = source.client().await.map_err(|error| look_blocker(source, &error))?;
        let on_destination =
            destination.client().await.map_err(|error| look_blocker(destination, &error))?;
        copy::plan_indexes(&on_source, &on_destination, &mut tables).await.map_err(copy_blocker)?;
        let maintenance_work_mem = match self.config.copy.maintenance_work_mem {
            Some(bytes) => bytes,
            None => memory_for_indexes(&on_destination, jobs)
                .await
                .map_err(|error| look_blocker(destination, &error.into()))?,
        };
        Ok(CopyPlan {
            snapshot,
            tables,
            jobs,
            origin,
            epoch,
            max_bytes_per_second: self.config.copy.max_bytes_per_second,
            maintenance_work_mem,
            part_bytes: 0,
        })
    }

    /// The tables as the snapshot has them, with what is missing of each, and how much of it one
    /// transaction is to bring. As many `writers` may write into one table at a time.
    async fn tables_under(
        &self,
        snapshot: &Snapshot,
        there: Vec<Copied>,
        writers: u64,
    ) -> Result<(Vec<CopyTable>, u64), LookError> {
        let node = self.node(Side::Source);
        let wanted = self.tables_to_copy().await?;
        let name = copy::session_name(node);
        let session = node.connector().session(&name).await.map_err(LookError::Connect)?;
        session.batch_execute(&copy::import(snapshot)).await?;
        let as_text = tables_without_binary_form(&session).await?;
        let views = tables_in_scope(&session, &self.rules, Sizes::Measured).await?;
        let views: Vec<TableView> =
            views.into_iter().filter(|view| wanted.contains(&view.name)).collect();
        let sizes: Vec<u64> = views.iter().map(|view| view.bytes).collect();
        let cuts = Cuts::of(&sizes, self.config.copy.jobs, writers);
        let blocks = blocks_of(&session, &views, cuts).await?;
        let mut done: BTreeMap<TableName, Vec<Copied>> = BTreeMap::new();
        for copied in there.into_iter().filter(|copied| copied.snapshot == snapshot.lsn) {
            done.entry(copied.table.clone()).or_default().push(copied);
        }
        let tables = views.into_iter().map(|view| {
            let done = done.remove(&view.name).unwrap_or_default();
            let text = as_text.contains(&view.name);
            copy_table(view, &blocks, cuts, &done, text)
        });
        Ok((tables.collect(), cuts.part_bytes))
    }

    /// What was copied under another snapshot is forgotten, and tables that arrive in pieces are
    /// emptied before the first one. One transaction: no piece is ever listed without its rows.
    async fn prepare_destination(
        &self,
        plan: &CopyPlan,
        lsn: Lsn,
        epoch: i64,
    ) -> Result<(), Blocker> {
        let mut sql = format!("DELETE FROM pgferry.copied WHERE snapshot_lsn <> '{lsn}'::pg_lsn");
        let begun_in_pieces: Vec<String> = plan
            .tables
            .iter()
            .filter(|copied| copied.in_parts && !copied.begun)
            .map(|copied| format!("ONLY {}", table(&copied.name)))
            .collect();
        if !begun_in_pieces.is_empty() {
            sql.push_str(&format!("; TRUNCATE {}", begun_in_pieces.join(", ")));
        }
        let guard = Guard::of_epoch(epoch);
        self.node(Side::Destination).mutate(guard, &sql).await.map_err(fault_blocker)
    }

    /// Tables that the copy carries, and the bytes of their files: an estimate of what it moves.
    pub async fn copy_expected(&self) -> Option<(u64, Option<u64>)> {
        let wanted = self.tables_to_copy().await.ok()?;
        let client = self.node(Side::Source).client().await.ok()?;
        let tables = tables_in_scope(&client, &self.rules, Sizes::Measured).await.ok()?;
        let carried = tables.iter().filter(|table| wanted.contains(&table.name));
        Some((wanted.len() as u64, Some(carried.map(|table| table.bytes).sum())))
    }
}

fn copy_table(
    view: TableView,
    blocks: &HashMap<u32, u64>,
    cuts: Cuts,
    done: &[Copied],
    text: bool,
) -> CopyTable {
    let begun: Vec<BlockRange> = done.iter().map(|copied| copied.range).collect();
    let blocks = blocks.get(&view.oid).copied().unwrap_or_default();
    let per_range = match blocks {
        // Not to be cut: what an earlier plan has left of it is one piece each.
        0 => u64::from(u32::MAX),
        blocks => blocks.div_ceil(cuts.ranges(view.bytes)),
    };
    let fresh = pieces::cut(&pieces::missing(&begun), blocks, per_range);
    let incomplete = done.iter().filter(|copied| !copied.is_complete);
    let mut copied = CopyTable {
        columns: view
            .columns
            .iter()
            .filter(|column| column.generated.is_none())
            .map(|column| column.name.clone())
            .collect(),
        text,
        file: (view.oid, view.relfilenode),
        bytes: view.bytes,
        blocks,
        pieces: incomplete
            .map(|copied| (copied.range, (copied.rows, copied.bytes)))
            .chain(fresh.into_iter().map(|range| (range, (0, 0))))
            .collect(),
        // What was begun in parts goes on so, however small a part is by now.
        in_parts: cuts.is_large(view.bytes) || !done.is_empty(),
        begun: !done.is_empty(),
        name: view.name,
        ..CopyTable::default()
    };
    let share = |done: &Copied| match copied.share(done.range) {
        share if done.is_complete => share,
        share => share.min(done.bytes),
    };
    let read = done.iter().map(share).sum();
    copied.there =
        (done.iter().map(|done| done.rows).sum(), done.iter().map(|done| done.bytes).sum(), read);
    copied
}

/// Blocks of the main files of tables that are read in several ranges, by oid; none where the server
/// would read the whole table for each range.
async fn blocks_of(
    source: &Client,
    views: &[TableView],
    cuts: Cuts,
) -> Result<HashMap<u32, u64>, LookError> {
    let large: Vec<u32> =
        views.iter().filter(|view| cuts.ranges(view.bytes) > 1).map(|view| view.oid).collect();
    let mut blocks = HashMap::new();
    for row in source.query(BLOCKS, &[&large, &READS_RANGES]).await? {
        let count: i64 = row.try_get(1)?;
        blocks.insert(row.try_get(0)?, u64::try_from(count).unwrap_or_default());
    }
    Ok(blocks)
}

async fn tables_without_binary_form(source: &Client) -> Result<HashSet<TableName>, LookError> {
    let mut tables = HashSet::new();
    for row in source.query(TABLES_WITHOUT_BINARY_FORM, &[]).await? {
        tables.insert(TableName::new(row.try_get::<_, String>(0)?, row.try_get::<_, String>(1)?));
    }
    Ok(tables)
}

/// What each session may use to build an index, in bytes. A server's memory cannot be asked for;
/// at the usual settings its shared buffers are a quarter of it, and all builds together get as
/// much again. Never less than the server itself would take.
async fn memory_for_indexes(
    destination: &Client,
    jobs: usize,
) -> Result<u64, tokio_postgres::Error> {
    const MOST: u64 = 2 << 30;
    let row = destination.query_one(MEMORY, &[]).await?;
    let bytes = |at: usize| row.try_get::<_, i64>(at).map(|b| u64::try_from(b).unwrap_or_default());
    let (own, shared_buffers) = (bytes(0)?, bytes(1)?);
    let share = shared_buffers / u64::try_from(jobs.max(1)).unwrap_or(1);
    Ok(share.min(MOST).max(own))
}

fn copy_blocker(error: CopyError) -> Blocker {
    Blocker::new(error.code(), scrub(&error.to_string()), error.hint())
}

/// How many may write into one table at a time: before PostgreSQL 16 it grows under one lock, a few
/// blocks at a time, and more than two mostly wait for it.
const WRITERS: &str = "SELECT CASE
    WHEN pg_catalog.current_setting('server_version_num')::int < 160000 THEN 2 ELSE 8 END::bigint";

const BLOCKS: &str = "SELECT c.oid, pg_catalog.pg_relation_size(c.oid)
    / pg_catalog.current_setting('block_size')::bigint
FROM pg_catalog.pg_class AS c
WHERE c.oid = ANY ($1) AND pg_catalog.current_setting('server_version_num')::int >= $2";

const MEMORY: &str = "SELECT
    (SELECT setting::bigint * 1024 FROM pg_catalog.pg_settings WHERE name = 'maintenance_work_mem'),
    (SELECT setting::bigint * pg_catalog.current_setting('block_size')::bigint
     FROM pg_catalog.pg_settings WHERE name = 'shared_buffers')";

/// Binary COPY carries OIDs for `reg*` types, for composite types and for arrays of types that
/// are not built in; OIDs of another server mean something else, or nothing.
const TABLES_WITHOUT_BINARY_FORM: &str = "\
    WITH RECURSIVE used(relid, typid) AS ( \
        SELECT a.attrelid, a.atttypid FROM pg_catalog.pg_attribute a \
        JOIN pg_catalog.pg_class c ON c.oid = a.attrelid AND c.relkind IN ('r', 'p') \
        WHERE a.attnum > 0 AND NOT a.attisdropped AND c.oid >= 16384 \
        UNION \
        SELECT u.relid, i.typid FROM used u JOIN pg_catalog.pg_type t ON t.oid = u.typid \
        CROSS JOIN LATERAL (VALUES (t.typbasetype), (t.typelem)) AS i(typid) WHERE i.typid <> 0) \
    SELECT DISTINCT n.nspname::text, c.relname::text FROM used u \
    JOIN pg_catalog.pg_type t ON t.oid = u.typid \
    JOIN pg_catalog.pg_class c ON c.oid = u.relid \
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    WHERE t.typsend = 0 OR t.typreceive = 0 OR t.typtype = 'c' \
    OR (t.typcategory = 'A' AND t.typelem >= 16384) \
    OR (t.typnamespace = 'pg_catalog'::regnamespace AND t.typname LIKE 'reg%')";
