//! Looks at the tables in scope: on both sides, in the replication sets, analyzed or not.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use deadpool_postgres::Object;
use pgferry_plan::scope::{SetMembership, TableView, drift};
use pgferry_plan::world::SchemaView;
use pgferry_plan::{Blocker, Seen, SetAddition, Side, TableName, World};

use super::Look;
use super::node::prepared;
use crate::cluster::PgCluster;
use crate::node::{LookError, is_missing};
use crate::scope::{Sizes, set_membership, tables_in_scope};

/// What stands for everything that the comparison reads.
pub(super) async fn fingerprint_by(client: &Object) -> Look<i64> {
    match prepared(client, FINGERPRINT, &[]).await?.as_deref() {
        Some([row]) => Ok(row.try_get(0)?),
        Some(_) | None => Ok(None),
    }
}

/// A full comparison of both sides that found nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Undrifted {
    /// Of both catalogs, read before the comparison.
    fingerprints: [i64; 2],
    compared_at: Instant,
}

/// How long an unchanged fingerprint stands for the comparison at rest. It covers all that the
/// comparison is known to read; this bounds what it may be found not to.
const FINGERPRINT_STANDS: Duration = Duration::from_secs(60);

impl PgCluster {
    pub(crate) async fn tables(&self, side: Side) -> Result<Vec<TableView>, LookError> {
        let client = self.node(side).client().await?;
        Ok(tables_in_scope(&client, &self.rules, Sizes::Estimated).await?)
    }

    /// Which set each table is in; None while pglogical is not there.
    pub(crate) async fn membership(&self, side: Side) -> Look<SetMembership> {
        let client = self.node(side).client().await?;
        match set_membership(&client, &self.sets).await {
            Ok(membership) => Ok(Some(membership)),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) async fn schema(&self) -> Look<SchemaView> {
        let (source, destination) =
            tokio::try_join!(self.tables(Side::Source), self.tables(Side::Destination))?;
        let there: std::collections::HashSet<&TableName> =
            destination.iter().map(|table| &table.name).collect();
        let missing = source
            .iter()
            .filter(|table| !there.contains(&table.name))
            .map(|table| table.name.clone())
            .collect();
        let differing = drift(&source, &destination, None, None, &self.sets, &self.rules)
            .into_iter()
            .filter(|blocker| blocker.code == "columns_differ")
            .collect();
        Ok(Some(SchemaView { tables: source.len() as u64, missing, differing }))
    }

    /// Within the stall: nothing drifted when both catalogs still carry the fingerprint under which
    /// the last full comparison found nothing; otherwise they are compared again.
    pub(crate) async fn drift_since_verdict(&self, now: [Option<i64>; 2]) -> Look<Vec<Blocker>> {
        let known = self.undrifted().map(|undrifted| undrifted.fingerprints.map(Some));
        if known == Some(now) { Ok(Some(Vec::new())) } else { self.drift().await }
    }

    /// At rest, look after look: comparing thousands of tables would keep a core of each server
    /// busy. Large objects are in no fingerprint.
    pub(crate) async fn drift_at_rest(&self) -> Look<Vec<Blocker>> {
        let known = self
            .undrifted()
            .filter(|undrifted| undrifted.compared_at.elapsed() < FINGERPRINT_STANDS)
            .map(|undrifted| undrifted.fingerprints);
        if known.is_some() && known == self.fingerprints().await? {
            return Ok(Some(self.large_objects_differ().await?.into_iter().collect()));
        }
        self.drift().await
    }

    fn undrifted(&self) -> Option<Undrifted> {
        *self.undrifted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What differs between what is in scope now and what is replicated.
    pub(crate) async fn drift(&self) -> Look<Vec<Blocker>> {
        // Taken first: what changes during the comparison changes the next fingerprint.
        let before = self.fingerprints().await?;
        let drift = self.compare_tables().await?;
        let undrifted = before
            .filter(|_| drift.as_ref().is_some_and(Vec::is_empty))
            .map(|fingerprints| Undrifted { fingerprints, compared_at: Instant::now() });
        *self.undrifted.lock().unwrap_or_else(PoisonError::into_inner) = undrifted;
        Ok(drift)
    }

    async fn fingerprints(&self) -> Look<[i64; 2]> {
        let of = async |side: Side| {
            let client = self.node(side).client().await?;
            fingerprint_by(&client).await
        };
        let (source, destination) = tokio::try_join!(of(Side::Source), of(Side::Destination))?;
        Ok(source.zip(destination).map(|(source, destination)| [source, destination]))
    }

    async fn compare_tables(&self) -> Look<Vec<Blocker>> {
        let (source, destination, source_sets, destination_sets) = tokio::try_join!(
            self.tables(Side::Source),
            self.tables(Side::Destination),
            self.membership(Side::Source),
            self.membership(Side::Destination)
        )?;
        let mut found = drift(
            &source,
            &destination,
            Some(&source_sets.unwrap_or_default()),
            Some(&destination_sets.unwrap_or_default()),
            &self.sets,
            &self.rules,
        );
        found.extend(self.large_objects_differ().await?);
        Ok(Some(found))
    }

    /// Present while a set or a table in a set lacks.
    pub(crate) async fn see_to_replicate(&self, world: &mut World, side: Side) {
        if self.jobs.is_idle() {
            world.node_mut(side).to_replicate = Seen::from_look(self.to_replicate(side).await);
        }
    }

    async fn to_replicate(&self, side: Side) -> Look<Vec<SetAddition>> {
        let client = self.node(side).client().await?;
        let names = [
            self.config.name.set(),
            self.config.name.insert_only_set(),
            self.config.name.empty_set(),
        ];
        let sets: i64 = client.query_one(OUR_SETS, &[&names.as_slice()]).await?.try_get(0)?;
        let membership = set_membership(&client, &self.sets).await?;
        let tables = tables_in_scope(&client, &self.rules, Sizes::Estimated).await?;
        let ours = ["heartbeat", "marker"].map(|name| TableName::new("pgferry", name));
        let mut missing: Vec<SetAddition> = ours
            .into_iter()
            .filter(|table| !membership.contains_key(table))
            .map(|table| SetAddition { table, insert_only: false })
            .collect();
        for table in tables.iter().filter(|table| !table.unlogged) {
            let wanted = self.sets.for_table(table, &self.rules);
            if !membership.get(&table.name).is_some_and(|sets| sets.contains(wanted)) {
                missing.push(SetAddition {
                    table: table.name.clone(),
                    insert_only: self.rules.is_insert_only(table),
                });
            }
        }
        let complete = missing.is_empty() && sets == names.len() as i64;
        Ok((!complete).then_some(missing))
    }

    pub(crate) async fn tables_to_analyze(&self) -> Look<u64> {
        let client = self.node(Side::Destination).client().await?;
        let left: i64 = client.query_one(TO_ANALYZE, &[]).await?.try_get(0)?;
        Ok(Some(u64::try_from(left).unwrap_or(0)))
    }
}

/// Every row version of the catalogs that define a table, its columns with their types, its schema,
/// its place in a set. Any DDL writes a new version; that of temporary tables does too, and costs a
/// full comparison. Sums over numbers where there are many rows: within the stall this is what
/// grows with the tables, and hashing a text of each takes twice as long.
const FINGERPRINT: &str = "\
    SELECT hashtextextended(((SELECT coalesce(sum(hashint8extended( \
                c.oid::bigint, hashtext(c.xmin::text))::numeric), 0) \
            FROM pg_catalog.pg_class c WHERE c.oid >= 16384 AND c.relkind IN ('r', 'p', 'c')) \
        + (SELECT coalesce(sum(hashint8extended( \
                a.attrelid::bigint << 16 | a.attnum, hashtext(a.xmin::text))::numeric), 0) \
            FROM pg_catalog.pg_attribute a WHERE a.attrelid >= 16384 AND a.attnum > 0) \
        + (SELECT coalesce(sum(hashint8extended( \
                i.indexrelid::bigint, hashtext(i.xmin::text)::bigint + 1)::numeric), 0) \
            FROM pg_catalog.pg_index i WHERE i.indrelid >= 16384) \
        + (SELECT coalesce(sum(hashtextextended(y.oid::text || '.' || y.xmin::text, 2)::numeric), 0) \
            FROM pg_catalog.pg_type y WHERE y.oid >= 16384 AND y.typrelid = 0 AND y.typelem = 0) \
        + (SELECT coalesce(sum(hashtextextended(n.oid::text || '.' || n.xmin::text, 3)::numeric), 0) \
            FROM pg_catalog.pg_namespace n) \
        + (SELECT coalesce(sum(hashtextextended(l.oid::text || '.' || l.xmin::text, 4)::numeric), 0) \
            FROM pg_catalog.pg_collation l WHERE l.oid >= 16384) \
        + (SELECT coalesce(sum(hashint8extended( \
                t.set_reloid::oid::bigint, hashtext(t.xmin::text)::bigint + 2)::numeric), 0) \
            FROM pglogical.replication_set_table t))::text, 5)";

const OUR_SETS: &str =
    "SELECT count(*) FROM pglogical.replication_set WHERE set_name = ANY ($1::text[]::name[])";

const TO_ANALYZE: &str = "SELECT count(DISTINCT (schema_name, table_name)) FROM pgferry.copied WHERE analyzed_at IS NULL";
