//! What a verification has to compare: the tables of both sides, cut into ranges, less what was
//! compared before.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use pgferry_plan::scope::TableView;
use pgferry_plan::verify::hashing::{Hashing, ServerTraits, hashing};
use pgferry_plan::verify::parts::ranges;
use pgferry_plan::{Side, TableName};
use tokio_postgres::Client;

use super::{Run, Shared, Totals, add};
use crate::node::LookError;
use crate::scope::{Sizes, tables_in_scope};
use crate::verify::compare::Worker;
use crate::verify::record::{self, Known, Part};
use crate::verify::sql::{Bounds, TRAITS, TableSql};
use crate::verify::{VerifyError, VerifyFigures, lock};

/// Ranges of all tables that are planned in one statement.
const PLANNED_TOGETHER: usize = 500;

impl Run {
    /// The tables in scope of the active and of the passive side, and how both hash a row.
    pub(super) async fn both(
        &self,
    ) -> Result<(Vec<TableView>, Vec<TableView>, Hashing), VerifyError> {
        let of = async |side: Side| {
            let node = self.cluster.node(side);
            let look = async {
                let client = node.client().await?;
                let measured = tables_in_scope(&client, &self.cluster.rules, Sizes::Measured);
                let tables = match measured.await {
                    Ok(tables) => tables,
                    // Somebody rewrites a table; its size is no reason to wait.
                    Err(_) => {
                        tables_in_scope(&client, &self.cluster.rules, Sizes::Estimated).await?
                    }
                };
                Ok::<_, LookError>((tables, traits(&client).await?))
            };
            look.await.map_err(|error| VerifyError::Fault(node.fault(&error)))
        };
        let ((here, ours), (there, theirs)) =
            tokio::try_join!(of(self.active), of(self.active.other()))?;
        Ok((here, there, hashing(&ours, &theirs)))
    }

    /// Cuts every table, less what was compared before.
    pub(super) async fn plan(
        &self,
        here: &[TableView],
        tables: &BTreeMap<TableName, TableSql>,
        known: Known,
    ) -> Result<Shared, VerifyError> {
        let worker = self.worker().await?;
        let mut parts: Vec<Part> = Vec::new();
        let mut new: Vec<Part> = Vec::new();
        let (mut bytes_total, mut bytes_done) = (0, 0);
        for view in here {
            let Some(table) = tables.get(&view.name) else { continue };
            bytes_total += view.bytes;
            let mut cut = match known.parts.get(&view.name) {
                Some(cut) => cut.clone(),
                None => self.cut(&worker, view, table).await?,
            };
            let share = view.bytes / cut.len().max(1) as u64;
            cut.iter_mut().for_each(|part| part.bytes = share);
            if cut.len() > 1 && !known.parts.contains_key(&view.name) {
                new.extend(cut.iter().cloned());
            }
            parts.append(&mut cut);
        }
        for some in new.chunks(PLANNED_TOGETHER) {
            record::plan(&self.cluster, self.run, self.epoch, some).await?;
        }
        let mut totals: HashMap<TableName, Totals> = HashMap::new();
        let mut figures =
            VerifyFigures { tables_total: Some(tables.len() as u64), ..VerifyFigures::default() };
        let mut queue: Vec<Part> = Vec::new();
        for part in parts {
            let table = totals.entry(part.name.clone()).or_default();
            match known.compared.get(&(part.name.clone(), part.number)) {
                Some(compared) => {
                    bytes_done += part.bytes;
                    table.mismatched += compared.mismatched;
                    table.at_least |= compared.at_least;
                    add(&mut figures, compared);
                }
                None => {
                    table.parts_left += 1;
                    queue.push(part);
                }
            }
        }
        figures.tables_done = totals.values().filter(|table| table.parts_left == 0).count() as u64;
        queue.sort_by_key(|part| std::cmp::Reverse(part.bytes));
        {
            let mut shown = lock(&self.figures);
            figures.run = shown.run;
            figures.running = shown.running;
            figures.began_at = shown.began_at;
            (figures.bytes_total, figures.bytes_done) = (bytes_total, bytes_done);
            *shown = figures;
        }
        Ok(Shared {
            queue: queue.into(),
            totals,
            unwritten: Vec::new(),
            written_at: Instant::now(),
        })
    }

    pub(super) async fn cut(
        &self,
        worker: &Worker<'_>,
        view: &TableView,
        table: &TableSql,
    ) -> Result<Vec<Part>, VerifyError> {
        let wanted = ranges(view.bytes, &table.identity);
        let mut keys: Vec<Vec<String>> = Vec::new();
        if wanted > 1 {
            let on = VerifyError::on(self.active);
            let rows = worker.active().query(&table.boundaries(wanted, view.bytes), &[]).await;
            for row in rows.map_err(on)? {
                keys.push(row.try_get(0).map_err(on)?);
            }
            keys.dedup();
        }
        let from = std::iter::once(None).chain(keys.iter().cloned().map(Some));
        let to = keys.iter().cloned().map(Some).chain(std::iter::once(None));
        Ok(from
            .zip(to)
            .zip(0..)
            .map(|((from, to), number)| Part {
                name: view.name.clone(),
                number,
                bounds: Bounds { from, to },
                bytes: 0,
            })
            .collect())
    }
}

/// Tables that both sides have. One that only one side has is the look at scope's to tell; an
/// unlogged one is copied once and never streamed.
pub(super) fn pairs(
    here: &[TableView],
    there: &[TableView],
    hashing: Hashing,
) -> BTreeMap<TableName, TableSql> {
    let there: HashMap<&TableName, &TableView> =
        there.iter().map(|view| (&view.name, view)).collect();
    here.iter()
        .filter(|view| !view.unlogged)
        .filter_map(|view| {
            let other = there.get(&view.name).filter(|other| !other.unlogged)?;
            Some((view.name.clone(), TableSql::new(view, other, hashing)))
        })
        .collect()
}

async fn traits(client: &Client) -> Result<ServerTraits, tokio_postgres::Error> {
    let row = client.query_one(TRAITS, &[]).await?;
    Ok(ServerTraits {
        major: u32::try_from(row.try_get::<_, i32>(0)?).unwrap_or(0),
        encoding: row.try_get(1)?,
        probe: row.try_get(2)?,
    })
}
