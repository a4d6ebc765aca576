//! The indexes of copied tables, built as soon as a table's last row has arrived.
//!
//! A unique index comes first and its constraint takes it over afterwards: building the index
//! leaves the table free for its other indexes, where `ADD CONSTRAINT … PRIMARY KEY` would lock it
//! for as long as it builds. What is built here is what pg_dump would have written, so that the
//! step after it finds it made.

use std::collections::{BTreeMap, HashMap};

use pgferry_plan::TableName;
use tokio_postgres::{Client, Row};

use crate::{quote, row_by_row};

const INDEXES: &str = include_str!("indexes.sql");

/// Indexes that are there, with what a crash between their building and their completion would
/// leave undone.
const PRESENT: &str = "SELECT n.nspname::text, ic.relname::text, k.conname IS NOT NULL,
    i.indisclustered, i.indisreplident,
    (SELECT count(*) FROM pg_catalog.pg_attribute AS a
     WHERE a.attrelid = i.indexrelid AND a.attstattarget >= 0)
FROM pg_catalog.pg_index AS i
JOIN pg_catalog.pg_class AS c ON c.oid = i.indrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_class AS ic ON ic.oid = i.indexrelid
LEFT JOIN pg_catalog.pg_constraint AS k
       ON k.conindid = i.indexrelid AND k.conrelid = c.oid AND k.contype IN ('p', 'u', 'x')
WHERE i.indisvalid AND n.nspname = ANY ($1)";

/// An index of a table, and what makes it complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Index {
    pub(super) name: String,
    /// Its size on the source, in bytes.
    pub(super) bytes: u64,
    /// Whether PostgreSQL builds its kind with parallel workers, in every version.
    pub(super) is_btree: bool,
    /// None when the index is there already.
    pub(super) create: Option<String>,
    /// What follows once no index of the table is being built any more; quick, but under a lock.
    pub(super) complete: Vec<String>,
}

/// What is missing of the indexes of these tables, by table.
pub(super) async fn missing_indexes(
    source: &Client,
    destination: &Client,
    tables: &[TableName],
) -> Result<BTreeMap<TableName, Vec<Index>>, (bool, tokio_postgres::Error)> {
    let schemas: Vec<&str> = tables.iter().map(|table| table.schema.as_str()).collect();
    let names: Vec<&str> = tables.iter().map(|table| table.name.as_str()).collect();
    let there = present(destination, &schemas).await.map_err(|error| (false, error))?;
    let mut missing: BTreeMap<TableName, Vec<Index>> = BTreeMap::new();
    row_by_row::each(source, INDEXES, &[&schemas, &names], |row| {
        let (table, index) = read(row, &there)?;
        if index.create.is_some() || !index.complete.is_empty() {
            missing.entry(table).or_default().push(index);
        }
        Ok(())
    })
    .await
    .map_err(|error| (true, error))?;
    Ok(missing)
}

/// What is known of an index that is there, by schema and name.
type Present = HashMap<(String, String), State>;

#[derive(Clone, Copy, Default)]
struct State {
    is_constraint: bool,
    is_clustered: bool,
    is_replica_identity: bool,
    statistics_targets: i64,
}

async fn present(destination: &Client, schemas: &[&str]) -> Result<Present, tokio_postgres::Error> {
    let read = |row: &Row| {
        let state = State {
            is_constraint: row.try_get(2)?,
            is_clustered: row.try_get(3)?,
            is_replica_identity: row.try_get(4)?,
            statistics_targets: row.try_get(5)?,
        };
        Ok(((row.try_get(0)?, row.try_get(1)?), state))
    };
    let there = row_by_row::all(destination, PRESENT, &[&schemas], read).await?;
    Ok(there.into_iter().collect())
}

fn read(row: &Row, present: &Present) -> Result<(TableName, Index), tokio_postgres::Error> {
    let table = TableName::new(
        row.try_get::<_, String>("table_schema")?,
        row.try_get::<_, String>("table_name")?,
    );
    let name: String = row.try_get("index_name")?;
    let definition: String = row.try_get("definition")?;
    let constraint: Option<String> = row.try_get("constraint_type")?;
    let there = present.get(&(table.schema.clone(), name.clone())).copied();
    let state = there.unwrap_or_default();
    let mut complete = Vec::new();
    if let Some(kind) = constraint.as_deref().filter(|_| !state.is_constraint) {
        complete.push(add_constraint(
            &table,
            &name,
            kind == "p",
            row.try_get::<_, Option<bool>>("is_deferrable")?.unwrap_or_default(),
            row.try_get::<_, Option<bool>>("is_deferred")?.unwrap_or_default(),
        ));
    }
    let alter = format!("ALTER TABLE ONLY {}", quote::table(&table));
    let index = quote::ident(&name);
    if row.try_get("is_clustered")? && !state.is_clustered {
        complete.push(format!("{alter} CLUSTER ON {index}"));
    }
    if row.try_get("is_replica_identity")? && !state.is_replica_identity {
        complete.push(format!("{alter} REPLICA IDENTITY USING INDEX {index}"));
    }
    let columns: Vec<i16> = row.try_get("statistics_columns")?;
    let targets: Vec<i32> = row.try_get("statistics_targets")?;
    if columns.len() as i64 != state.statistics_targets {
        let qualified = quote::table(&TableName::new(&table.schema, &name));
        complete.extend(columns.iter().zip(&targets).map(|(column, target)| {
            format!("ALTER INDEX {qualified} ALTER COLUMN {column} SET STATISTICS {target}")
        }));
    }
    let bytes = u64::try_from(row.try_get::<_, i64>("bytes")?).unwrap_or_default();
    let is_btree = row.try_get("is_btree")?;
    let create = there.is_none().then_some(definition);
    Ok((table, Index { name, bytes, is_btree, create, complete }))
}

fn add_constraint(
    table: &TableName,
    index: &str,
    is_primary: bool,
    is_deferrable: bool,
    is_deferred: bool,
) -> String {
    let kind = if is_primary { "PRIMARY KEY" } else { "UNIQUE" };
    let mut statement = format!(
        "ALTER TABLE ONLY {} ADD CONSTRAINT {index} {kind} USING INDEX {index}",
        quote::table(table),
        index = quote::ident(index)
    );
    if is_deferrable {
        statement.push_str(" DEFERRABLE");
    }
    if is_deferred {
        statement.push_str(" INITIALLY DEFERRED");
    }
    statement
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_constraint_takes_its_index_over() {
        let table = TableName::new("public", "Odd name");
        assert_eq!(
            add_constraint(&table, "pk", true, false, false),
            "ALTER TABLE ONLY \"public\".\"Odd name\" ADD CONSTRAINT \"pk\" PRIMARY KEY USING INDEX \"pk\""
        );
        assert!(
            add_constraint(&table, "u", false, true, true)
                .ends_with("UNIQUE USING INDEX \"u\" DEFERRABLE INITIALLY DEFERRED")
        );
    }
}
