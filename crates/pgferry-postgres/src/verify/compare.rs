//! Comparing one range of one table, down to its rows.
//!
//! First by one digest on each side; then, behind a marker, by a few hundred or thousand buckets;
//! then the rows of the buckets that still differ, merged as they stream in; then each row that
//! differs by itself, for as many rounds as it takes to tell damage from a change under way. What is
//! kept in memory is what differs, and no more of it than [`MOST_AT_ONCE`].

use std::collections::{BTreeMap, HashSet};
use std::pin::{Pin, pin};
use std::time::Duration;

use futures_util::TryStreamExt;
use pgferry_plan::Side;
use pgferry_plan::verify::Difference;
use pgferry_plan::verify::parts::{Digest, buckets};
use tokio_postgres::RowStream;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::marker;
use super::sql::{Bounds, PREPARE, Place, TableSql};
use super::{VerifyError, Wish};
use crate::cluster::PgCluster;
use crate::connect::Session;
use crate::node::LookError;

/// Rows that differ at the first look and are looked at again together.
const MOST_AT_ONCE: usize = 5_000;
/// Rows of one round: few enough that a round takes milliseconds, and most rows hold still for it.
pub(super) const ROWS_OF_A_ROUND: usize = 500;
/// Located rows of one range after which the rest is not read: its table is beyond mending by row.
pub(super) const MOST_LOCATED: usize = 5_000;

/// What comparing a range came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Compared {
    /// Rows of the active side.
    pub(super) rows: u64,
    /// Rows that differ.
    pub(super) mismatched: u64,
    /// There are more of them.
    pub(super) at_least: bool,
    /// Rows that never held still.
    pub(super) unsettled: u64,
    /// Rows that differed and were copied again; not among those that differ.
    pub(super) mended: u64,
    /// Each row that differs, or did.
    pub(super) differences: Vec<Difference>,
}

/// A session on each side, and what a comparison runs under.
pub(super) struct Worker<'a> {
    pub(super) cluster: &'a PgCluster,
    pub(super) active_side: Side,
    pub(super) epoch: i64,
    pub(super) run: Uuid,
    pub(super) wish: Wish,
    active: Session,
    passive: Session,
}

impl<'a> Worker<'a> {
    pub(super) async fn open(
        cluster: &'a PgCluster,
        active_side: Side,
        epoch: i64,
        run: Uuid,
        wish: Wish,
    ) -> Result<Self, VerifyError> {
        let open = async |side: Side| {
            let node = cluster.node(side);
            let session = node.connector().session(&node.application_name()).await;
            let session = session.map_err(|error| node.fault(&LookError::Connect(error)))?;
            session.batch_execute(PREPARE).await.map_err(VerifyError::on(side))?;
            Ok::<_, VerifyError>(session)
        };
        let (active, passive) = tokio::try_join!(open(active_side), open(active_side.other()))?;
        Ok(Self { cluster, active_side, epoch, run, wish, active, passive })
    }

    /// The session on the active side, to plan with.
    pub(super) fn active(&self) -> &Session {
        &self.active
    }

    /// Asks both servers to give up what they are at.
    pub(super) async fn cancel_statements(&self) {
        tokio::join!(self.active.cancel_statement(), self.passive.cancel_statement());
    }

    pub(super) fn session(&self, side: Side) -> &Session {
        if side == self.active_side { &self.active } else { &self.passive }
    }

    /// Compares a range.
    pub(super) async fn compare(
        &self,
        table: &TableSql,
        name: &str,
        bounds: &Bounds,
    ) -> Result<Compared, VerifyError> {
        let sql = table.digest(bounds);
        let (here, there) = tokio::try_join!(
            self.digest(self.active_side, &sql),
            self.digest(self.active_side.other(), &sql)
        )?;
        let mut compared = Compared { rows: here.rows, ..Compared::default() };
        if here == there {
            return Ok(compared);
        }
        let buckets = buckets(here.rows.max(there.rows));
        let left = self.differing_buckets(table, bounds, buckets).await?;
        if left.is_empty() {
            return Ok(compared);
        }
        tracing::debug!(
            table = name,
            buckets,
            differ = left.len(),
            "rows are looked at one by one"
        );
        let mut after = None;
        let mut proven = Vec::new();
        loop {
            let sql = table.list(bounds, buckets, &left, after.as_ref());
            let (suspects, next) = self.merge(&sql).await?;
            for keys in suspects.chunks(ROWS_OF_A_ROUND) {
                let mut watch = self.watch(table, keys).await?;
                compared.unsettled += watch.open.len() as u64;
                proven.append(&mut watch.proven);
            }
            let Some(next) = next else { break };
            if proven.len() >= MOST_LOCATED {
                compared.at_least = true;
                break;
            }
            after = Some(next);
        }
        self.take_down(table, name, proven, &mut compared).await?;
        Ok(compared)
    }

    async fn digest(&self, side: Side, sql: &str) -> Result<Digest, VerifyError> {
        let row = self.session(side).query_one(sql, &[]).await;
        row.and_then(|row| digest(&row, 0)).map_err(VerifyError::on(side))
    }

    /// Buckets that differ in each of two looks: what was equal at one moment is.
    async fn differing_buckets(
        &self,
        table: &TableSql,
        bounds: &Bounds,
        buckets: u64,
    ) -> Result<Vec<i64>, VerifyError> {
        let sql = table.buckets(bounds, buckets);
        let mut left: Option<HashSet<i64>> = None;
        for _ in 0..2 {
            let here = self.by_bucket(self.active_side, &sql).await?;
            self.marker().await?;
            let there = self.by_bucket(self.active_side.other(), &sql).await?;
            let differ = |bucket: &i64| here.get(bucket) != there.get(bucket);
            let now: HashSet<i64> =
                here.keys().chain(there.keys()).copied().filter(differ).collect();
            let both = match left {
                None => now,
                Some(before) => before.intersection(&now).copied().collect(),
            };
            if both.is_empty() {
                return Ok(Vec::new());
            }
            left = Some(both);
        }
        Ok(left.into_iter().flatten().collect())
    }

    async fn by_bucket(&self, side: Side, sql: &str) -> Result<BTreeMap<i64, Digest>, VerifyError> {
        let on = VerifyError::on(side);
        let rows = self.session(side).query(sql, &[]).await.map_err(&on)?;
        rows.iter()
            .map(|row| Ok((row.try_get(0)?, digest(row, 1)?)))
            .collect::<Result<_, tokio_postgres::Error>>()
            .map_err(on)
    }

    pub(super) async fn marker(&self) -> Result<(), VerifyError> {
        marker::pass(self.cluster, self.active_side, self.epoch, &self.passive).await
    }

    /// Whether a marker arrives within so long.
    pub(super) async fn marker_within(&self, patience: Duration) -> Result<bool, VerifyError> {
        let (cluster, active) = (self.cluster, self.active_side);
        marker::pass_within(cluster, active, self.epoch, &self.passive, patience).await
    }

    /// Keys of rows that are not the same in two lists of one order, and where to go on when there
    /// are more.
    async fn merge(&self, sql: &str) -> Result<(Vec<Vec<String>>, Option<Place>), VerifyError> {
        let (here, there) = (self.active_side, self.active_side.other());
        let stream = async |side: Side| {
            let parameters: [&(dyn ToSql + Sync); 0] = [];
            self.session(side).query_raw(sql, parameters).await.map_err(VerifyError::on(side))
        };
        let (active, passive) = tokio::try_join!(stream(here), stream(there))?;
        let (mut active, mut passive) = (pin!(active), pin!(passive));
        let mut left = next(here, &mut active).await?;
        let mut right = next(there, &mut passive).await?;
        let mut suspects = Vec::new();
        loop {
            let order = match (&left, &right) {
                (None, None) => return Ok((suspects, None)),
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some(left), Some(right)) => left.place.cmp(&right.place),
            };
            let same = order.is_eq()
                && left.as_ref().map(|l| l.content) == right.as_ref().map(|r| r.content);
            let (mut from_left, mut from_right) = (None, None);
            if order.is_le() {
                from_left = left.take();
                left = next(here, &mut active).await?;
            }
            if order.is_ge() {
                from_right = right.take();
                right = next(there, &mut passive).await?;
            }
            if same {
                continue;
            }
            let Some(listed) = from_left.or(from_right) else { continue };
            suspects.push(listed.place.1.clone());
            if suspects.len() >= MOST_AT_ONCE {
                return Ok((suspects, Some(listed.place)));
            }
        }
    }

    /// A session that may write, for a repair.
    pub(super) async fn writer(&self, side: Side) -> Result<Session, VerifyError> {
        let node = self.cluster.node(side);
        let session = node.connector().session(&node.application_name()).await;
        let session = session.map_err(|error| node.fault(&LookError::Connect(error)))?;
        session.batch_execute("SET lc_monetary = 'C'").await.map_err(VerifyError::on(side))?;
        Ok(session)
    }
}

struct Listed {
    place: Place,
    content: i64,
}

async fn next(side: Side, stream: &mut Pin<&mut RowStream>) -> Result<Option<Listed>, VerifyError> {
    let on = VerifyError::on(side);
    let Some(row) = stream.try_next().await.map_err(&on)? else { return Ok(None) };
    let listed = || {
        Ok::<_, tokio_postgres::Error>(Listed {
            place: (row.try_get(3)?, row.try_get(0)?),
            content: row.try_get(1)?,
        })
    };
    listed().map(Some).map_err(on)
}

fn digest(row: &tokio_postgres::Row, at: usize) -> Result<Digest, tokio_postgres::Error> {
    Ok(Digest {
        rows: u64::try_from(row.try_get::<_, i64>(at)?).unwrap_or(0),
        sum: row.try_get(at + 1)?,
        mixed: row.try_get(at + 2)?,
    })
}

pub(super) fn by_column(keys: &[Vec<String>]) -> Vec<Vec<&str>> {
    let width = keys.first().map_or(0, Vec::len);
    (0..width)
        .map(|column| keys.iter().filter_map(|key| key.get(column)).map(String::as_str).collect())
        .collect()
}

pub(super) fn parameters<'a>(arrays: &'a [Vec<&'a str>]) -> Vec<&'a (dyn ToSql + Sync)> {
    arrays.iter().map(|array| array as &(dyn ToSql + Sync)).collect()
}
