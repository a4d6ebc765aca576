//! Looks at transactions that write on a closed side, and at what became of those that did.
//!
//! A transaction is seen while it holds its id; one that begins and commits between two looks is not.

use std::collections::{BTreeMap, BTreeSet};

use deadpool_postgres::Object;
use pgferry_plan::strays::{Fate, Writer, open};
use pgferry_plan::{Facts, Seen, Side, TableName, World};
use tokio_postgres::Row;

use super::node::prepared;
use super::{Look, NODE_LOOK_TIME};
use crate::cluster::PgCluster;

/// When a closed side is watched for writers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Watched {
    /// Whoever has a transaction id stands in the way of the end of a switchover.
    BehindTheLine,
    /// Only who changes rows.
    AtRest,
}

impl PgCluster {
    /// What became of the strays that are written down and of which that is not known.
    pub(super) async fn see_fates(&self, facts: &Facts, world: &mut World) {
        for side in Side::BOTH {
            let xids: Vec<u64> = open(facts, side).map(|writer| writer.xid).collect();
            if xids.is_empty() {
                continue;
            }
            let look = async { fates_by(&self.node(side).client().await?, &xids).await };
            world.node_mut(side).fates = match tokio::time::timeout(NODE_LOOK_TIME, look).await {
                Ok(look) => Seen::from_look(look),
                Err(_) => {
                    self.node(side).forget_connections();
                    Seen::Unknown("it does not answer".to_owned())
                }
            };
        }
    }
}

/// Every transaction of a fenced role that has an id, with the tables that it holds a lock for writing on.
///
/// At rest those alone that change rows: VACUUM, REINDEX and the like have an id in a read-only session
/// too, and an owner changes definitions on both sides by hand.
pub(super) async fn writers_by(side: Side, client: &Object, watched: Watched) -> Look<Vec<Writer>> {
    let Some(rows) = prepared(client, WRITERS, &[]).await? else { return Ok(None) };
    let mut change_rows: BTreeSet<i32> = BTreeSet::new();
    for row in &rows {
        if row.try_get("rows")? {
            change_rows.insert(row.try_get("pid")?);
        }
    }
    let mut writers: BTreeMap<(i32, u64), Writer> = BTreeMap::new();
    for row in &rows {
        let writer = writer(side, row)?;
        if watched == Watched::AtRest && !change_rows.contains(&writer.pid) {
            continue;
        }
        let tables = writers.entry((writer.pid, writer.xid)).or_insert(writer);
        if let (Some(schema), Some(name)) =
            (row.try_get::<_, Option<String>>("schema")?, row.try_get::<_, Option<String>>("name")?)
        {
            tables.tables.push(TableName { schema, name });
        }
    }
    Ok(Some(writers.into_values().collect()))
}

fn writer(side: Side, row: &Row) -> Result<Writer, tokio_postgres::Error> {
    let (low, near): (i64, i64) = (row.try_get("xid")?, row.try_get("near")?);
    Ok(Writer {
        side,
        role: row.try_get("role")?,
        pid: row.try_get("pid")?,
        started_us: row.try_get("started_us")?,
        xid: widened(low, near),
        tables: Vec::new(),
    })
}

/// The whole id of a transaction that goes on, from its lower half and a whole one of about now.
fn widened(low: i64, near: i64) -> u64 {
    const SPAN: i64 = 1 << 32;
    let ahead = (low - near).rem_euclid(SPAN);
    // Two that go on at one time are never further apart than half of the span.
    let distance = if ahead >= SPAN / 2 { ahead - SPAN } else { ahead };
    u64::try_from(near + distance).unwrap_or(0)
}

async fn fates_by(client: &Object, xids: &[u64]) -> Look<Vec<(u64, Fate)>> {
    let asked: Vec<i64> = xids.iter().filter_map(|xid| i64::try_from(*xid).ok()).collect();
    let Some(rows) = prepared(client, FATES, &[&asked]).await? else { return Ok(None) };
    let mut fates = Vec::new();
    for row in rows {
        let xid = u64::try_from(row.try_get::<_, i64>(0)?).unwrap_or(0);
        let fate = match row.try_get::<_, Option<String>>(1)?.as_deref() {
            Some("committed") => Fate::Committed,
            Some("aborted") => Fate::RolledBack,
            None => Fate::Forgotten,
            // It goes on, or is prepared.
            Some(_) => continue,
        };
        fates.push((xid, fate));
    }
    Ok(Some(fates))
}

/// One statement, so that the locks are those of the same instant, nearly. A lock for writing is held to
/// the transaction's end; what SELECT FOR UPDATE holds is none.
pub(super) const WRITERS: &str = "\
    SELECT a.pid, (extract(epoch FROM a.backend_start) * 1000000)::bigint AS started_us, \
    a.usename::text AS role, a.backend_xid::text::bigint AS xid, \
    pg_catalog.txid_snapshot_xmax(pg_catalog.txid_current_snapshot()) AS near, \
    t.schema, t.name, coalesce(t.rows, false) AS rows \
    FROM pg_catalog.pg_stat_activity a \
    JOIN pgferry.fenced_role f ON f.role = a.usename AND f.lifted_at IS NULL \
    LEFT JOIN (SELECT l.pid, n.nspname::text AS schema, c.relname::text AS name, \
        bool_or(l.mode = 'RowExclusiveLock') AS rows \
        FROM pg_catalog.pg_locks l \
        JOIN pg_catalog.pg_class c ON c.oid = l.relation AND c.relkind = 'r' \
            AND c.relpersistence <> 't' \
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
        WHERE l.locktype = 'relation' AND l.granted \
        AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()) \
        AND l.mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock') \
        AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast', 'pglogical', 'pgferry') \
        GROUP BY l.pid, n.nspname, c.relname \
    ) t ON t.pid = a.pid \
    WHERE a.datname = current_database() AND a.backend_type = 'client backend' \
    AND a.backend_xid IS NOT NULL \
    ORDER BY a.pid, t.schema, t.name";

/// The server refuses ids of its future, where the youngest that go on may be.
const FATES: &str = "\
    SELECT x.xid, CASE \
        WHEN x.xid < pg_catalog.txid_snapshot_xmax(pg_catalog.txid_current_snapshot()) \
        THEN pg_catalog.txid_status(x.xid) ELSE 'in progress' END \
    FROM unnest($1::bigint[]) AS x(xid)";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_widened_to_the_nearest_whole_one() {
        const SPAN: i64 = 1 << 32;
        let whole = |low, near| i64::try_from(widened(low, near)).unwrap();
        assert_eq!(whole(700, 701), 700);
        assert_eq!(whole(705, 701), 705, "younger than what the snapshot has seen");
        assert_eq!(whole(700, 3 * SPAN + 701), 3 * SPAN + 700);
        assert_eq!(whole(SPAN - 5, 3 * SPAN + 2), 3 * SPAN - 5, "begun before the wraparound");
        assert_eq!(whole(4, 3 * SPAN - 2), 3 * SPAN + 4, "begun right behind it");
    }
}
