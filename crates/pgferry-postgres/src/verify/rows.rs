//! Rows that differ at the first look: watched until it is known what they are, told, and mended.
//!
//! What a row is, is judged by `plan/verify/rounds.rs`; how one is copied again is [`super::mend`].

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use pgferry_plan::Side;
use pgferry_plan::scope::ColumnView;
use pgferry_plan::verify::parts::Identity;
use pgferry_plan::verify::rounds::{MOST_ROUNDS, Round, RowState, Standing, Watched, Wrong};
use pgferry_plan::verify::{Difference, DifferenceKind, KeyPart, ValuePair};

use super::VerifyError;
use super::compare::{Compared, ROWS_OF_A_ROUND, Worker, by_column, parameters};
use super::mend::Damaged;
use super::shown::Shown;
use super::sql::{TableSql, WITH_INDEX, WITHOUT_INDEX};

/// Between two rounds of rows that changed in each: the longer it takes, the more often they have.
const PAUSE: Duration = Duration::from_millis(10);

type Rows = HashMap<Vec<String>, RowState>;

/// What rows came to that were looked at for some rounds; the rest of them is equal.
#[derive(Debug, Default)]
pub(super) struct Watch {
    pub(super) proven: Vec<Damaged>,
    pub(super) open: HashSet<Vec<String>>,
}

impl Worker<'_> {
    /// Looks at some rows again and again, until each is equal, proven damage, or left alone.
    pub(super) async fn watch(
        &self,
        table: &TableSql,
        keys: &[Vec<String>],
    ) -> Result<Watch, VerifyError> {
        let mut open: HashMap<Vec<String>, Watched> =
            keys.iter().map(|key| (key.clone(), Watched::default())).collect();
        let mut watch = Watch::default();
        let mut shown = Shown::default();
        for round in 0..MOST_ROUNDS {
            if open.is_empty() {
                break;
            }
            if round > 2 {
                let times = u32::try_from(round).unwrap_or(u32::MAX);
                tokio::time::sleep(PAUSE.saturating_mul(times)).await;
            }
            // A proof takes three looks, of which the last must be no older than what was seen before.
            if round >= 2 {
                let active = self.session(self.active_side);
                let all_shown =
                    shown.wait(active).await.map_err(VerifyError::on(self.active_side))?;
                if !all_shown {
                    open.values_mut().for_each(Watched::begin_again);
                }
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
    pub(super) async fn take_down(
        &self,
        table: &TableSql,
        name: &str,
        proven: Vec<Damaged>,
        compared: &mut Compared,
    ) -> Result<(), VerifyError> {
        let (proven, mut unseen) = self.without_unseen(table, name, proven, compared).await?;
        let mut found = self.describe(table, name, &proven).await?;
        if self.wish.repair && !proven.is_empty() {
            let refused = self.repair(table, name, &proven).await?;
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

    /// Takes out what is an index's fault: rows that seem to be one side's alone, because an index of
    /// the other side does not find them. They are told, and never taken away or written again.
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
        let mut told = Vec::new();
        for (one_sided, side) in
            [(Wrong::Extra, self.active_side), (Wrong::Missing, self.active_side.other())]
        {
            let keys: Vec<Vec<String>> = proven
                .iter()
                .filter(|(_, wrong, _)| *wrong == one_sided)
                .map(|(key, ..)| key.clone())
                .collect();
            if keys.is_empty() {
                continue;
            }
            let looked = self.with_and_without_index(table, side, &keys).await;
            if looked.is_err() {
                // The session is used again for the next table.
                let _ = self.session(side).batch_execute("ROLLBACK").await;
            }
            let (without, with) = looked.map_err(VerifyError::on(side))?;
            proven.retain(|(key, wrong, _)| *wrong != one_sided || !without.contains(key));
            let (came, unseen): (Vec<_>, Vec<_>) =
                without.into_iter().partition(|key| with.contains(key));
            // It is on that side by now.
            compared.unsettled += came.len() as u64;
            told.extend(unseen.iter().map(|key| hidden_by_index(name, columns, key, side)));
        }
        Ok((proven, told))
    }

    /// Which of these rows a side has, by reading the whole table, and by whatever index
    /// there is, in one snapshot.
    async fn with_and_without_index(
        &self,
        table: &TableSql,
        side: Side,
        keys: &[Vec<String>],
    ) -> Result<(HashSet<Vec<String>>, HashSet<Vec<String>>), tokio_postgres::Error> {
        let session = self.session(side);
        let arrays = by_column(keys);
        let sql = table.lookup();
        let look = async || {
            let rows = session.query(&sql, &parameters(&arrays)).await?;
            rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()
        };
        session.batch_execute(WITHOUT_INDEX).await?;
        let without = look().await?;
        session.batch_execute(WITH_INDEX).await?;
        let with = look().await?;
        session.batch_execute("COMMIT").await?;
        Ok((without, with))
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

fn hidden_by_index(name: &str, columns: &[ColumnView], key: &[String], side: Side) -> Difference {
    let key = key_parts(columns, key);
    let words: Vec<String> =
        key.iter().map(|part| format!("{}={}", part.column, part.value)).collect();
    Difference {
        kind: DifferenceKind::Index,
        message: format!(
            "an index does not find the row {}, which is there: REINDEX TABLE on the {side}",
            words.join(", ")
        ),
        ..row_difference(name, Some(key), Wrong::Different, 1)
    }
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
