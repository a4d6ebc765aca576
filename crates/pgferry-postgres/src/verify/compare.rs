//! Comparing one range of one table, down to its rows.
//!
//! First by one digest on each side; then, behind a marker, by a few hundred or thousand buckets;
//! then the rows of the buckets that still differ, merged as they stream in; then each row that
//! differs by itself, for as many rounds as it takes to tell damage from a change under way. What is
//! kept in memory is what differs, and no more of it than [`MOST_AT_ONCE`].

use std::collections::{BTreeMap, HashMap, HashSet};
use std::pin::{Pin, pin};
use std::time::Duration;

use futures_util::TryStreamExt;
use pgferry_plan::Side;
use pgferry_plan::scope::ColumnView;
use pgferry_plan::verify::parts::{Digest, Identity, buckets};
use pgferry_plan::verify::rounds::{MOST_ROUNDS, Round, RowState, Standing, Watched, Wrong};
use pgferry_plan::verify::{Difference, DifferenceKind, KeyPart, ValuePair};
use tokio_postgres::RowStream;
use tokio_postgres::types::ToSql;

use super::marker;
use super::mend::Damaged;
use super::sql::{Bounds, PREPARE, Place, TableSql, WITH_INDEX, WITHOUT_INDEX};
use super::{VerifyError, Wish};
use crate::cluster::PgCluster;
use crate::connect::Session;
use crate::node::LookError;

/// Rows that differ at the first look and are looked at again together.
const MOST_AT_ONCE: usize = 5_000;
/// Rows of one round: few enough that a round takes milliseconds, and most rows hold still for it.
const ROWS_OF_A_ROUND: usize = 500;
/// Between two rounds of rows that changed in each: the longer it takes, the more often they have.
const PAUSE: Duration = Duration::from_millis(10);
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
    wish: Wish,
    active: Session,
    passive: Session,
}

type Rows = HashMap<Vec<String>, RowState>;

/// What rows came to that were looked at for some rounds; the rest of them is equal.
#[derive(Debug, Default)]
struct Watch {
    proven: Vec<Damaged>,
    open: HashSet<Vec<String>>,
}

impl<'a> Worker<'a> {
    pub(super) async fn open(
        cluster: &'a PgCluster,
        active_side: Side,
        epoch: i64,
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
        Ok(Self { cluster, active_side, epoch, wish, active, passive })
    }

    /// The session on the active side, to plan with.
    pub(super) fn active(&self) -> &Session {
        &self.active
    }

    /// Asks both servers to give up what they are at.
    pub(super) async fn cancel_statements(&self) {
        tokio::join!(self.active.cancel_statement(), self.passive.cancel_statement());
    }

    fn session(&self, side: Side) -> &Session {
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

    /// Looks at some rows again and again, until each is equal, proven damage, or left alone.
    async fn watch(&self, table: &TableSql, keys: &[Vec<String>]) -> Result<Watch, VerifyError> {
        let mut open: HashMap<Vec<String>, Watched> =
            keys.iter().map(|key| (key.clone(), Watched::default())).collect();
        let mut watch = Watch::default();
        for round in 0..MOST_ROUNDS {
            if open.is_empty() {
                break;
            }
            if round > 2 {
                let times = u32::try_from(round).unwrap_or(u32::MAX);
                tokio::time::sleep(PAUSE.saturating_mul(times)).await;
            }
            let asked: Vec<Vec<String>> = open.keys().cloned().collect();
            let here = self.lookup(table, self.active_side, &asked).await?;
            self.marker().await?;
            let there = self.lookup(table, self.active_side.other(), &asked).await?;
            open.retain(|key, watched| {
                let now =
                    Round { active: here.get(key).cloned(), passive: there.get(key).cloned() };
                match watched.look(now.clone()) {
                    Standing::Equal => false,
                    Standing::Proven(wrong) => {
                        watch.proven.push((key.clone(), wrong, now));
                        false
                    }
                    Standing::Open => true,
                }
            });
        }
        for (key, watched) in open {
            match (watched.at_the_end(), watched.last()) {
                (Standing::Proven(wrong), Some(last)) => {
                    watch.proven.push((key, wrong, last.clone()));
                }
                (Standing::Proven(_) | Standing::Open | Standing::Equal, _) => {
                    watch.open.insert(key);
                }
            }
        }
        Ok(watch)
    }

    /// Tells of rows that are proven to differ, and copies them again where that was asked for.
    async fn take_down(
        &self,
        table: &TableSql,
        name: &str,
        proven: Vec<Damaged>,
        compared: &mut Compared,
    ) -> Result<(), VerifyError> {
        let (proven, mut unseen) = self.without_unseen(table, name, proven, compared).await?;
        let mut found = self.describe(table, name, &proven).await?;
        if self.wish.repair && !proven.is_empty() {
            let refused = self.mend(table, &proven).await?;
            let keys: Vec<Vec<String>> = proven.iter().map(|(key, ..)| key.clone()).collect();
            let (mut left, mut open) = (HashSet::new(), HashSet::new());
            for some in keys.chunks(ROWS_OF_A_ROUND) {
                let watch = self.watch(table, some).await?;
                left.extend(watch.proven.into_iter().map(|(key, ..)| key));
                open.extend(watch.open);
            }
            for (key, told) in keys.iter().zip(&mut found) {
                // Replaced under a lock, and changed since at every look: not what was proven.
                told.mended = !left.contains(key) && (refused.is_none() || !open.contains(key));
                if !told.mended {
                    told.message = refused.clone().unwrap_or_default();
                }
            }
        }
        found.append(&mut unseen);
        for difference in &found {
            let mended = if difference.mended { difference.rows } else { 0 };
            compared.mended += mended;
            compared.mismatched += difference.rows - mended;
        }
        compared.differences.append(&mut found);
        Ok(())
    }

    /// Takes out what is an index's fault: rows that seem to be the passive side's alone, because an
    /// index of the active side does not find them. They are told, and never taken away.
    async fn without_unseen(
        &self,
        table: &TableSql,
        name: &str,
        mut proven: Vec<Damaged>,
        compared: &mut Compared,
    ) -> Result<(Vec<Damaged>, Vec<Difference>), VerifyError> {
        let Identity::Key { columns, .. } = &table.identity else {
            return Ok((proven, Vec::new()));
        };
        let extra: Vec<Vec<String>> = proven
            .iter()
            .filter(|(_, wrong, _)| *wrong == Wrong::Extra)
            .map(|(key, ..)| key.clone())
            .collect();
        if extra.is_empty() {
            return Ok((proven, Vec::new()));
        }
        let looked = self.with_and_without_index(table, &extra).await;
        if looked.is_err() {
            // The session is used again for the next table.
            let _ = self.active.batch_execute("ROLLBACK").await;
        }
        let (without, with) = looked.map_err(VerifyError::on(self.active_side))?;
        proven.retain(|(key, wrong, _)| *wrong != Wrong::Extra || !without.contains(key));
        let (came, unseen): (Vec<_>, Vec<_>) =
            without.into_iter().partition(|key| with.contains(key));
        // It is on the active side by now.
        compared.unsettled += came.len() as u64;
        let told = unseen.iter().map(|key| Difference {
            kind: DifferenceKind::Index,
            message: format!(
                "an index does not find the row {}, which is there: REINDEX TABLE on the {}",
                key_parts(columns, key)
                    .iter()
                    .map(|part| format!("{}={}", part.column, part.value))
                    .collect::<Vec<_>>()
                    .join(", "),
                self.active_side
            ),
            ..row_difference(name, Some(key_parts(columns, key)), Wrong::Different, 1)
        });
        let told = told.collect();
        Ok((proven, told))
    }

    /// Which of these rows the active side has, by reading the whole table, and by whatever index
    /// there is, in one snapshot.
    async fn with_and_without_index(
        &self,
        table: &TableSql,
        keys: &[Vec<String>],
    ) -> Result<(HashSet<Vec<String>>, HashSet<Vec<String>>), tokio_postgres::Error> {
        let arrays = by_column(keys);
        let sql = table.lookup();
        let look = async || {
            let rows = self.active.query(&sql, &parameters(&arrays)).await?;
            rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()
        };
        self.active.batch_execute(WITHOUT_INDEX).await?;
        let without = look().await?;
        self.active.batch_execute(WITH_INDEX).await?;
        let with = look().await?;
        self.active.batch_execute("COMMIT").await?;
        Ok((without, with))
    }

    /// A session that may write, for a repair.
    pub(super) async fn writer(&self, side: Side) -> Result<Session, VerifyError> {
        let node = self.cluster.node(side);
        let session = node.connector().session(&node.application_name()).await;
        let session = session.map_err(|error| node.fault(&LookError::Connect(error)))?;
        session.batch_execute("SET lc_monetary = 'C'").await.map_err(VerifyError::on(side))?;
        Ok(session)
    }

    async fn lookup(
        &self,
        table: &TableSql,
        side: Side,
        keys: &[Vec<String>],
    ) -> Result<Rows, VerifyError> {
        let on = VerifyError::on(side);
        let arrays = by_column(keys);
        let parameters = parameters(&arrays);
        let rows = self.session(side).query(&table.lookup(), &parameters).await.map_err(&on)?;
        rows.iter()
            .map(|row| {
                let state = RowState { content: row.try_get(1)?, version: row.try_get(2)? };
                Ok((row.try_get::<_, Vec<String>>(0)?, state))
            })
            .collect::<Result<_, tokio_postgres::Error>>()
            .map_err(on)
    }

    /// What a person is told of rows that differ.
    async fn describe(
        &self,
        table: &TableSql,
        name: &str,
        proven: &[Damaged],
    ) -> Result<Vec<Difference>, VerifyError> {
        let Identity::Key { columns, .. } = &table.identity else {
            return Ok(proven
                .iter()
                .map(|(_, wrong, round)| without_key(name, *wrong, round))
                .collect());
        };
        let differing: Vec<Vec<String>> = proven
            .iter()
            .filter(|(_, wrong, _)| *wrong == Wrong::Different)
            .map(|(key, _, _)| key.clone())
            .collect();
        let details = if differing.is_empty() {
            HashMap::new()
        } else {
            let (here, there) = tokio::try_join!(
                self.details(table, self.active_side, &differing),
                self.details(table, self.active_side.other(), &differing)
            )?;
            differing
                .into_iter()
                .filter_map(|key| {
                    let pair = (here.get(&key)?, there.get(&key)?);
                    let told = told(table, pair.0, pair.1);
                    Some((key, told))
                })
                .collect()
        };
        Ok(proven
            .iter()
            .map(|(key, wrong, _)| {
                let (columns_differ, values) = details.get(key).cloned().unwrap_or_default();
                let key = Some(key_parts(columns, key));
                Difference {
                    columns: columns_differ,
                    values,
                    ..row_difference(name, key, *wrong, 1)
                }
            })
            .collect())
    }

    async fn details(
        &self,
        table: &TableSql,
        side: Side,
        keys: &[Vec<String>],
    ) -> Result<HashMap<Vec<String>, Details>, VerifyError> {
        let on = VerifyError::on(side);
        let arrays = by_column(keys);
        let sql = table.details(self.wish.show_values);
        let rows = self.session(side).query(&sql, &parameters(&arrays)).await.map_err(&on)?;
        rows.iter()
            .map(|row| Ok((row.try_get(0)?, (row.try_get(1)?, row.try_get(2)?))))
            .collect::<Result<_, tokio_postgres::Error>>()
            .map_err(on)
    }
}

/// The hash of each column, and its text where a person asked for it.
type Details = (Vec<Option<i64>>, Vec<Option<String>>);

fn told(table: &TableSql, here: &Details, there: &Details) -> (Vec<String>, Vec<ValuePair>) {
    let mut columns = Vec::new();
    let mut values = Vec::new();
    for (at, name) in table.column_names().enumerate() {
        if here.0.get(at) == there.0.get(at) {
            continue;
        }
        columns.push(name.clone());
        if let (Some(active), Some(passive)) = (here.1.get(at), there.1.get(at)) {
            values.push(ValuePair {
                column: name.clone(),
                active: active.clone(),
                passive: passive.clone(),
            });
        }
    }
    (columns, values)
}

/// Rows that hold the same are told once, with how many more or fewer of them there are.
fn without_key(name: &str, wrong: Wrong, round: &Round) -> Difference {
    let of = |state: &Option<RowState>| state.as_ref().map_or(0, |state| state.content);
    let (here, there) = (of(&round.active), of(&round.passive));
    let wrong = match wrong {
        Wrong::Different if here > there => Wrong::Missing,
        Wrong::Different => Wrong::Extra,
        Wrong::Missing | Wrong::Extra => wrong,
    };
    row_difference(name, None, wrong, here.abs_diff(there))
}

fn key_parts(columns: &[ColumnView], key: &[String]) -> Vec<KeyPart> {
    let parts = columns.iter().zip(key);
    parts
        .map(|(column, value)| KeyPart { column: column.name.clone(), value: value.clone() })
        .collect()
}

fn row_difference(name: &str, key: Option<Vec<KeyPart>>, wrong: Wrong, rows: u64) -> Difference {
    Difference {
        kind: DifferenceKind::Row,
        object: name.to_owned(),
        key,
        wrong,
        rows,
        columns: Vec::new(),
        values: Vec::new(),
        mended: false,
        message: String::new(),
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
