//! What a verification has compared, on the destination: a restarted one goes on from there.
//!
//! Written some ranges at a time, because each write is a commit on a live server. What was compared
//! and not written yet is compared again.

use std::collections::HashMap;

use jiff::Timestamp;
use pgferry_plan::verify::parts::is_whole;
use pgferry_plan::{Side, TableName};
use serde::{Deserialize, Serialize};
use tokio_postgres::Client;
use uuid::Uuid;

use super::VerifyError;
use super::compare::Compared;
use super::sql::Bounds;
use crate::cluster::PgCluster;
use crate::migrate::migrate_node;
use crate::node::{LookError, is_missing};
use crate::quote::literal;
use crate::statements::Guard;

/// One range of one table.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) name: TableName,
    pub(super) number: i32,
    pub(super) bounds: Bounds,
    /// How much is read for it, about.
    pub(super) bytes: u64,
}

/// What is written of a range that was compared.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Outcome {
    rows: u64,
    mismatched: u64,
    at_least: bool,
    unsettled: u64,
    #[serde(default)]
    mended: u64,
    differences: Vec<pgferry_plan::verify::Difference>,
}

/// What is known of a run from before: the ranges of each table that was cut, and what was compared.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) parts: HashMap<TableName, Vec<Part>>,
    pub(super) compared: HashMap<(TableName, i32), Compared>,
    /// When the first of them was compared, by the destination's clock.
    pub(super) oldest: Option<Timestamp>,
}

impl Known {
    /// Forgets tables of which only some ranges are here, and names them: the process that wrote them
    /// died before it had written all, and what is not here would be compared by nobody.
    fn forget_unfinished(&mut self) -> Vec<TableName> {
        let unfinished: Vec<TableName> =
            self.parts
                .iter()
                .filter(|(_, parts)| {
                    !is_whole(parts.iter().map(|part| {
                        (part.number, part.bounds.from.as_ref(), part.bounds.to.as_ref())
                    }))
                })
                .map(|(name, _)| name.clone())
                .collect();
        for name in &unfinished {
            for part in self.parts.remove(name).unwrap_or_default() {
                self.compared.remove(&(part.name, part.number));
            }
        }
        unfinished
    }
}

const LOAD: &str = "SELECT schema_name, table_name, range_no, from_key, to_key, outcome::text, verified_at \
    FROM pgferry.verified WHERE run = $1 ORDER BY schema_name, table_name, range_no";

/// What a run has compared before; what other runs have is taken away, but for one that is to be kept.
pub(super) async fn begin(
    cluster: &PgCluster,
    run: Uuid,
    keep: Option<Uuid>,
    epoch: i64,
) -> Result<Known, VerifyError> {
    let node = cluster.node(Side::Destination);
    let rows = {
        let mut client = node.client().await.map_err(|error| node.fault(&error))?;
        match client.query(LOAD, &[&run]).await {
            Ok(rows) => rows,
            // Installed by an older pgferry: as at the installation, the lease alone guards this.
            Err(error) if is_missing(&error) => {
                migrate_node(&mut client).await.map_err(|error| {
                    node.fault(&LookError::Said(format!("pgferry's own tables: {error}")))
                })?;
                Vec::new()
            }
            Err(error) => return Err(VerifyError::on(Side::Destination)(error)),
        }
    };
    let mut known = Known::default();
    for row in rows {
        let take = || {
            let name = TableName::new(row.try_get::<_, String>(0)?, row.try_get::<_, String>(1)?);
            let bounds = Bounds { from: row.try_get(3)?, to: row.try_get(4)? };
            let outcome: Option<String> = row.try_get(5)?;
            let at: Option<Timestamp> = row.try_get(6)?;
            Ok::<_, tokio_postgres::Error>((name, row.try_get::<_, i32>(2)?, bounds, outcome, at))
        };
        let (name, number, bounds, outcome, at) =
            take().map_err(VerifyError::on(Side::Destination))?;
        // What cannot be read is compared again.
        let outcome = outcome.and_then(|text| serde_json::from_str::<Outcome>(&text).ok());
        if let Some(outcome) = outcome {
            known.compared.insert((name.clone(), number), outcome.into());
            known.oldest = known.oldest.into_iter().chain(at).min();
        }
        let part = Part { name: name.clone(), number, bounds, bytes: 0 };
        known.parts.entry(name).or_default().push(part);
    }
    let unfinished = known.forget_unfinished();
    node.mutate(Guard::of_epoch(epoch), &forget(run, keep, &unfinished)).await?;
    Ok(known)
}

fn forget(run: Uuid, keep: Option<Uuid>, unfinished: &[TableName]) -> String {
    let kept: Vec<String> = std::iter::once(run).chain(keep).map(uuid).collect();
    let mut sql = format!("DELETE FROM pgferry.verified WHERE run NOT IN ({})", kept.join(", "));
    if !unfinished.is_empty() {
        let names: Vec<String> = unfinished
            .iter()
            .map(|name| format!("({}, {})", literal(&name.schema), literal(&name.name)))
            .collect();
        let names = names.join(", ");
        sql.push_str(&format!(
            " OR (run = {} AND (schema_name, table_name) IN ({names}))",
            uuid(run)
        ));
    }
    sql
}

/// Writes into how many ranges a table was cut, before the first of them is compared.
pub(super) async fn plan(
    cluster: &PgCluster,
    run: Uuid,
    epoch: i64,
    parts: &[Part],
) -> Result<(), VerifyError> {
    write(cluster, epoch, parts.iter().map(|part| (part, None)), run).await
}

/// Writes what some ranges came to.
pub(super) async fn compared(
    cluster: &PgCluster,
    run: Uuid,
    epoch: i64,
    parts: &[(Part, Compared)],
) -> Result<(), VerifyError> {
    write(cluster, epoch, parts.iter().map(|(part, compared)| (part, Some(compared))), run).await
}

async fn write<'a>(
    cluster: &PgCluster,
    epoch: i64,
    parts: impl Iterator<Item = (&'a Part, Option<&'a Compared>)>,
    run: Uuid,
) -> Result<(), VerifyError> {
    let rows: Vec<String> = parts
        .map(|(part, compared)| {
            let outcome = compared
                .and_then(|compared| serde_json::to_string(&Outcome::from(compared.clone())).ok());
            format!(
                "({}, {}, {}, {}, {}, {}, {}, {})",
                uuid(run),
                literal(&part.name.schema),
                literal(&part.name.name),
                part.number,
                key(part.bounds.from.as_deref()),
                key(part.bounds.to.as_deref()),
                outcome
                    .as_deref()
                    .map_or("NULL::jsonb".to_owned(), |text| literal(text) + "::jsonb"),
                if compared.is_some() { "clock_timestamp()" } else { "NULL::timestamptz" }
            )
        })
        .collect();
    if rows.is_empty() {
        return Ok(());
    }
    let sql = format!(
        "INSERT INTO pgferry.verified \
         (run, schema_name, table_name, range_no, from_key, to_key, outcome, verified_at) \
         VALUES {} ON CONFLICT (run, schema_name, table_name, range_no) \
         DO UPDATE SET outcome = excluded.outcome, verified_at = excluded.verified_at \
         WHERE excluded.outcome IS NOT NULL",
        rows.join(", ")
    );
    // A run that is forgotten by a crash of the server is compared again, and nothing is lost.
    let sql = format!("SET LOCAL synchronous_commit = off; {sql}");
    Ok(cluster.node(Side::Destination).mutate(Guard::of_epoch(epoch), &sql).await?)
}

fn uuid(run: Uuid) -> String {
    format!("{}::uuid", literal(&run.to_string()))
}

fn key(values: Option<&[String]>) -> String {
    values.map_or("NULL::text[]".to_owned(), |values| {
        let values: Vec<String> = values.iter().map(|value| literal(value)).collect();
        format!("ARRAY[{}]::text[]", values.join(", "))
    })
}

/// The differences of the last run, for a daemon that did not make it.
pub(super) async fn differences(
    client: &Client,
    run: Uuid,
) -> Result<Vec<pgferry_plan::verify::Difference>, tokio_postgres::Error> {
    let mut all = Vec::new();
    for row in client.query(LOAD, &[&run]).await? {
        let outcome: Option<String> = row.try_get(5)?;
        if let Some(outcome) = outcome.and_then(|text| serde_json::from_str::<Outcome>(&text).ok())
        {
            all.extend(outcome.differences);
        }
    }
    Ok(all)
}

impl From<Compared> for Outcome {
    fn from(compared: Compared) -> Self {
        let Compared { rows, mismatched, at_least, unsettled, mended, mut differences } = compared;
        for difference in &mut differences {
            // Shown to whoever asked, and kept nowhere.
            difference.values.clear();
        }
        Self { rows, mismatched, at_least, unsettled, mended, differences }
    }
}

impl From<Outcome> for Compared {
    fn from(outcome: Outcome) -> Self {
        let Outcome { rows, mismatched, at_least, unsettled, mended, differences } = outcome;
        Self { rows, mismatched, at_least, unsettled, mended, differences }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_whose_ranges_are_not_all_there_is_cut_again() {
        let key = |n: i32| Some(vec![n.to_string()]);
        let mut known = Known::default();
        for (table, number, from, to) in [
            ("whole", 0, None, key(5)),
            ("whole", 1, key(5), None),
            ("half", 0, None, key(5)),
            ("half", 1, key(5), key(9)),
            ("single", 0, None, None),
        ] {
            let name = TableName::new("public", table);
            known.compared.insert((name.clone(), number), Compared::default());
            let part = Part { name: name.clone(), number, bounds: Bounds { from, to }, bytes: 0 };
            known.parts.entry(name).or_default().push(part);
        }
        let half = TableName::new("public", "half");
        let unfinished = known.forget_unfinished();
        assert_eq!(unfinished, [half]);
        assert_eq!((known.parts.len(), known.compared.len()), (2, 3));
        let sql = forget(Uuid::nil(), None, &unfinished);
        assert!(sql.ends_with("IN (('public', 'half')))"), "{sql}");
        let kept = forget(Uuid::nil(), Some(Uuid::max()), &[]);
        assert!(!kept.contains(" OR ") && kept.contains(&Uuid::max().to_string()), "{kept}");
    }
}
