//! Looks at what is copied once and never streamed: unlogged tables and large objects.

use std::collections::HashSet;

use pgferry_plan::{Blocker, Side, TableName};

use super::node::prepared;
use crate::cluster::PgCluster;
use crate::node::LookError;

/// The name under which large objects stand in `pgferry.copied`.
pub(crate) fn large_objects() -> TableName {
    TableName::new("pg_catalog", "pg_largeobject")
}

impl PgCluster {
    /// Tables in scope that write no WAL on the source: their rows come with the snapshot or not at
    /// all. One that the destination lacks was made after the schema was copied: it must not send the
    /// rows back, and is named as missing by whoever compares the sides.
    pub(crate) async fn unlogged_in_scope(&self) -> Result<Vec<TableName>, LookError> {
        let (source, destination) =
            tokio::try_join!(self.tables(Side::Source), self.tables(Side::Destination))?;
        let there: HashSet<TableName> = destination.into_iter().map(|table| table.name).collect();
        Ok(source
            .into_iter()
            .filter(|table| table.unlogged && there.contains(&table.name))
            .map(|table| table.name)
            .collect())
    }

    /// [`large_objects`], while the source has any.
    pub(crate) async fn large_objects_to_copy(&self) -> Result<Option<TableName>, LookError> {
        let client = self.node(Side::Source).client().await?;
        let any = prepared(&client, ANY_LARGE_OBJECT, &[]).await?;
        Ok(any.is_some_and(|rows| !rows.is_empty()).then(large_objects))
    }

    /// Large objects that were made or removed on one side after the copy. What changed in one that
    /// both have cannot be seen without reading all of them.
    pub(super) async fn large_objects_differ(&self) -> Result<Option<Blocker>, LookError> {
        let of = async |side: Side| {
            let client = self.node(side).client().await?;
            Ok::<_, LookError>(match prepared(&client, LARGE_OBJECTS, &[]).await?.as_deref() {
                Some([row]) => Some((row.try_get::<_, i64>(0)?, row.try_get::<_, String>(1)?)),
                Some(_) | None => None,
            })
        };
        let (source, destination) = tokio::try_join!(of(Side::Source), of(Side::Destination))?;
        Ok((source != destination).then(|| {
            let count = |seen: Option<(i64, String)>| seen.map_or(0, |(count, _)| count);
            Blocker::new(
                "large_objects",
                format!(
                    "the two sides do not have the same large objects, which are not streamed: the \
                     source has {}, the destination {}",
                    count(source),
                    count(destination)
                ),
                "SELECT oid FROM pg_largeobject_metadata ORDER BY 1 on both sides shows which; carry \
                 each over by hand (SELECT lo_from_bytea(oid, content) takes what lo_get gives), or \
                 lo_unlink it where it is not needed",
            )
        }))
    }
}

const ANY_LARGE_OBJECT: &str = "SELECT 1 FROM pg_catalog.pg_largeobject_metadata LIMIT 1";

/// How many, and a hash of which, in any order.
const LARGE_OBJECTS: &str = "SELECT count(*), \
    coalesce(sum(pg_catalog.hashoidextended(oid, 0)::numeric), 0)::text \
    FROM pg_catalog.pg_largeobject_metadata";
