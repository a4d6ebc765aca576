//! Looks at the copy: what is committed on the destination, and under which snapshot.

use std::collections::{BTreeMap, HashSet};

use pgferry_plan::pieces::{BlockRange, is_whole};
use pgferry_plan::world::CopyView;
use pgferry_plan::{Lsn, Side, TableName};

use super::Look;
use super::streams::lsn;
use crate::cluster::PgCluster;
use crate::node::LookError;
use crate::schema::{SchemaScope, missing_post_data};

/// A line of `pgferry.copied`.
pub(crate) struct Copied {
    pub(crate) table: TableName,
    pub(crate) snapshot: Lsn,
    pub(crate) range: BlockRange,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    /// Whether every row of the range is there.
    pub(crate) is_complete: bool,
}

impl PgCluster {
    pub(crate) async fn copy_view(&self, under: Option<Lsn>) -> Look<CopyView> {
        let wanted = self.tables_to_copy().await?;
        let held: Vec<Lsn> = self.held_snapshots().await?.iter().map(|held| held.lsn).collect();
        let mut view = CopyView {
            // What has been begun goes on, as long as it can.
            held: under.filter(|lsn| held.contains(lsn)).or(held.last().copied()),
            tables: wanted.len() as u64,
            ..CopyView::default()
        };
        let mut pieces: BTreeMap<(Lsn, TableName), Vec<BlockRange>> = BTreeMap::new();
        for copied in self.copied().await?.into_iter().filter(|c| wanted.contains(&c.table)) {
            if Some(copied.snapshot) == under {
                view.rows += copied.rows;
                view.bytes += copied.bytes;
            }
            if copied.is_complete {
                pieces.entry((copied.snapshot, copied.table)).or_default().push(copied.range);
            }
        }
        for ((snapshot, _), there) in pieces {
            *view.copied.entry(snapshot).or_default() += u64::from(is_whole(&there));
        }
        Ok(Some(view))
    }

    /// The tables of the source's sets, and those that no set takes: what else is in none would not be
    /// followed, and drift names it.
    pub(crate) async fn tables_to_copy(&self) -> Result<HashSet<TableName>, LookError> {
        let sets = self.membership(Side::Source).await?.unwrap_or_default();
        let mut copied_only = self.unlogged_in_scope().await?;
        copied_only.extend(self.large_objects_to_copy().await?);
        Ok(sets.into_keys().filter(|t| t.schema != "pgferry").chain(copied_only).collect())
    }

    pub(crate) async fn copied(&self) -> Result<Vec<Copied>, LookError> {
        let client = self.node(Side::Destination).client().await?;
        let mut copied = Vec::new();
        for row in client.query(COPIED, &[]).await? {
            copied.push(Copied {
                table: TableName::new(row.try_get::<_, String>(0)?, row.try_get::<_, String>(1)?),
                snapshot: lsn(&row.try_get::<_, String>(2)?)?,
                rows: u64::try_from(row.try_get::<_, i64>(3)?).unwrap_or(0),
                bytes: u64::try_from(row.try_get::<_, i64>(4)?).unwrap_or(0),
                range: BlockRange {
                    first: u64::try_from(row.try_get::<_, i64>(5)?).unwrap_or(0),
                    end: row
                        .try_get::<_, Option<i64>>(6)?
                        .map(|end| u64::try_from(end).unwrap_or(0)),
                },
                is_complete: row.try_get(7)?,
            });
        }
        Ok(copied)
    }

    pub(crate) async fn missing_indexes(&self) -> Look<Vec<String>> {
        let source = self.node(Side::Source).client().await?;
        let destination = self.node(Side::Destination).client().await?;
        let scope = SchemaScope { schemas: self.rules.schemas.clone() };
        missing_post_data(&source, &destination, &scope)
            .await
            .map(Some)
            .map_err(|error| LookError::Said(crate::node::scrub(&error.to_string())))
    }
}

const COPIED: &str = "\
    SELECT schema_name, table_name, snapshot_lsn::text, row_count, byte_count, \
    first_block, end_block, is_complete FROM pgferry.copied";
