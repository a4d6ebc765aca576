//! Looking at what a migration carries: the tables in scope, and which of them are replicated.
//!
//! One statement each, however many tables there are, and no lock on any of them, so that the
//! look can be repeated every second beside a copy or a switchover. Nothing here writes.

use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row};

use pgferry_plan::TableName;
use pgferry_plan::scope::{
    ColumnView, Generated, Identity, Key, RowSecurity, ScopeRules, SetMembership, SetNames,
    TableView,
};

use crate::row_by_row;

const TABLES: &str = include_str!("scope/tables.sql");
const MEMBERSHIP: &str = include_str!("scope/membership.sql");

/// How the size of a table is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sizes {
    /// From the page count that the last VACUUM or ANALYZE left: no lock, zero for a new table.
    Estimated,
    /// From the files: waits behind an ACCESS EXCLUSIVE lock, so only for a look made once.
    Measured,
}

/// The tables that `rules` puts in scope on this server, ordered by schema and name.
pub async fn tables_in_scope(
    client: &Client,
    rules: &ScopeRules,
    sizes: Sizes,
) -> Result<Vec<TableView>, tokio_postgres::Error> {
    let excluded_schemas: Vec<&str> =
        rules.exclude_tables.iter().map(|table| table.schema.as_str()).collect();
    let excluded_names: Vec<&str> =
        rules.exclude_tables.iter().map(|table| table.name.as_str()).collect();
    let measure = sizes == Sizes::Measured;
    let parameters: [&(dyn ToSql + Sync); 4] =
        [&rules.schemas, &excluded_schemas, &excluded_names, &measure];
    row_by_row::all(client, TABLES, &parameters, table_from).await
}

/// Which tables the local pglogical node has in the migration's two replication sets.
pub async fn set_membership(
    client: &Client,
    sets: &SetNames,
) -> Result<SetMembership, tokio_postgres::Error> {
    let names = [sets.keyed.as_str(), sets.insert_only.as_str()];
    let mut membership = SetMembership::new();
    row_by_row::each(client, MEMBERSHIP, &[&names.as_slice()], |row| {
        let table = TableName::new(
            row.try_get::<_, String>("table_schema")?,
            row.try_get::<_, String>("table_name")?,
        );
        membership.entry(table).or_default().insert(row.try_get("set_name")?);
        Ok(())
    })
    .await?;
    Ok(membership)
}

fn table_from(row: &Row) -> Result<TableView, tokio_postgres::Error> {
    let ancestor_schemas: Vec<String> = row.try_get("ancestor_schemas")?;
    let ancestor_names: Vec<String> = row.try_get("ancestor_names")?;
    Ok(TableView {
        oid: row.try_get("oid")?,
        name: TableName { schema: row.try_get("table_schema")?, name: row.try_get("table_name")? },
        owner: row.try_get("owner")?,
        columns: columns_from(row)?,
        key: key_from(row)?,
        relfilenode: row.try_get::<_, Option<u32>>("relfilenode")?.unwrap_or_default(),
        bytes: unsigned(row.try_get("bytes")?),
        rows: row.try_get::<_, Option<i64>>("rows")?.map(unsigned),
        row_security: match (
            row.try_get("row_security_enabled")?,
            row.try_get("row_security_forced")?,
        ) {
            (false, _) => RowSecurity::Off,
            (true, false) => RowSecurity::Enabled,
            (true, true) => RowSecurity::Forced,
        },
        row_security_active: row.try_get("row_security_active")?,
        ancestors: ancestor_schemas
            .into_iter()
            .zip(ancestor_names)
            .map(|(schema, name)| TableName { schema, name })
            .collect(),
        unlogged: row.try_get("unlogged")?,
    })
}

fn columns_from(row: &Row) -> Result<Vec<ColumnView>, tokio_postgres::Error> {
    let names: Vec<String> = row.try_get("names")?;
    let types: Vec<String> = row.try_get("types")?;
    let collations: Vec<Option<String>> = row.try_get("collations")?;
    let not_null: Vec<bool> = row.try_get("not_null")?;
    let generated: Vec<String> = row.try_get("generated")?;
    let identity: Vec<String> = row.try_get("identity")?;
    let positions: Vec<i16> = row.try_get("positions")?;
    let mut columns: Vec<ColumnView> = names
        .into_iter()
        .zip(types)
        .zip(collations)
        .zip(not_null)
        .zip(generated)
        .zip(identity)
        .zip(positions)
        .map(|((((((name, type_name), collation), not_null), generated), identity), position)| {
            ColumnView {
                name,
                type_name,
                collation,
                not_null,
                generated: match generated.as_str() {
                    "" => None,
                    "v" => Some(Generated::Virtual),
                    // Only 's' and 'v' exist; a later kind is still one that takes no value.
                    _ => Some(Generated::Stored),
                },
                identity: match identity.as_str() {
                    "a" => Some(Identity::Always),
                    "d" => Some(Identity::ByDefault),
                    _ => None,
                },
                position,
            }
        })
        .collect();
    columns.sort_unstable_by_key(|column| column.position);
    Ok(columns)
}

fn key_from(row: &Row) -> Result<Key, tokio_postgres::Error> {
    let index: Option<String> = row.try_get("index_name")?;
    let Some(index) = index else {
        return Ok(Key::Missing { candidate: row.try_get("candidate_index")? });
    };
    let columns: Vec<String> = row.try_get("key_columns")?;
    let replica_identity: String = row.try_get("replica_identity")?;
    let immediate: bool = row.try_get("key_immediate")?;
    let usable: bool = row.try_get("key_usable")?;
    Ok(if replica_identity == "f" || replica_identity == "n" {
        Key::Ignored { index }
    } else if !immediate {
        Key::Deferrable { index, columns }
    } else if !usable {
        Key::Invalid { index }
    } else {
        Key::Usable { index, columns }
    })
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or_default()
}
