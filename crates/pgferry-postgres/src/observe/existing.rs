//! Looks at a schema that the destination brought: against the source's, and at what the copy of
//! rows would meet in it.

use std::collections::BTreeMap;

use pgferry_config::SchemaMode;
use pgferry_plan::existing::{AsideKind, ExistingLook, ExistingView, Loud, SetAside, judge};
use pgferry_plan::scope::TableView;
use pgferry_plan::{Side, TableName};
use tokio_postgres::{Client, Row};

use super::Look;
use super::sequences::sequences_by;
use crate::cluster::PgCluster;
use crate::node::{LookError, is_missing};
use crate::quote::{literal, table};
use crate::schema::{PostData, SchemaScope, compare_post_data, gist};

const LOUD: &str = include_str!("existing/loud.sql");
const PROPERTIES: &str = include_str!("existing/properties.sql");
const FROM_OUTSIDE: &str = include_str!("existing/from_outside.sql");
const STILL_ASIDE: &str = include_str!("existing/still_aside.sql");
const SET_ASIDE: &str =
    "SELECT kind, schema_name, table_name, name, definition FROM pgferry.set_aside";

/// Tables asked for rows in one statement.
const BATCH: usize = 200;

impl PgCluster {
    /// The destination has its schema already, by the configuration.
    pub(crate) fn takes_existing_schema(&self) -> bool {
        match self.config.schema.mode {
            SchemaMode::Existing => true,
            SchemaMode::Copy => false,
        }
    }

    /// Compares both schemas, and says what is to be set aside.
    pub(crate) async fn existing(&self) -> Look<ExistingView> {
        let source = self.node(Side::Source).client().await?;
        let destination = self.node(Side::Destination).client().await?;
        let (on_source, on_destination) =
            tokio::try_join!(self.tables(Side::Source), self.tables(Side::Destination))?;
        let names = Names::of(&on_source, &on_destination);
        let scope = SchemaScope { schemas: self.rules.schemas.clone() };
        let PostData { differing, mut extra, same_words, .. } =
            compare_post_data(&source, &destination, &scope)
                .await
                .map_err(|error| LookError::Said(crate::node::scrub(&error.to_string())))?;
        extra.retain(|object| names.contains(&object.table));
        let (here, there) = tokio::try_join!(
            properties(&source, &names, true),
            properties(&destination, &names, true)
        )?;
        let mut look = ExistingLook {
            with_rows: with_rows(&destination, &on_destination).await?,
            differing,
            extra,
            from_outside: from_outside(&destination, &names).await?,
            loud_on_source: loud(&source, &names, &scope).await?,
            loud: loud(&destination, &names, &scope).await?,
            set_aside: set_aside(&destination, SET_ASIDE).await?.unwrap_or_default(),
            sequences: [
                sequences_by(&source, &self.rules).await?,
                sequences_by(&destination, &self.rules).await?,
            ],
            ..ExistingLook::default()
        };
        if same_words {
            // Other versions print the same expression, and know other privileges.
            look.defaults = differences(&here.defaults, &there.defaults);
            look.grants = differences(&here.grants, &there.grants);
        }
        // Only what the source has filled is filled again after the rows.
        let filled = |view: &Loud| look.loud_on_source.iter().any(|l| l.object == view.object);
        look.loud.retain(|loud| loud.object.kind != AsideKind::Content || filled(loud));
        look.source = on_source;
        look.destination = on_destination;
        Ok(Some(judge(&look, &self.sets, &self.rules)))
    }

    /// What was set aside and is not there again.
    pub(crate) async fn still_aside(&self) -> Look<Vec<SetAside>> {
        let client = self.node(Side::Destination).client().await?;
        let left = set_aside(&client, STILL_ASIDE).await?;
        Ok(left.filter(|left| !left.is_empty()))
    }
}

/// The tables in scope and the partitioned ones above them, as two arrays.
pub(super) struct Names {
    pub(super) schemas: Vec<String>,
    pub(super) names: Vec<String>,
}

impl Names {
    pub(super) fn of(source: &[TableView], destination: &[TableView]) -> Self {
        let mut tables: Vec<&TableName> = source
            .iter()
            .chain(destination)
            .flat_map(|view| std::iter::once(&view.name).chain(&view.ancestors))
            .collect();
        tables.sort_unstable();
        tables.dedup();
        Self {
            schemas: tables.iter().map(|table| table.schema.clone()).collect(),
            names: tables.iter().map(|table| table.name.clone()).collect(),
        }
    }

    pub(super) fn contains(&self, table: &TableName) -> bool {
        self.schemas.iter().zip(&self.names).any(|(s, n)| *s == table.schema && *n == table.name)
    }
}

/// Read for real: statistics are of another moment, and a file that holds pages may hold no row.
async fn with_rows(client: &Client, tables: &[TableView]) -> Result<Vec<TableName>, LookError> {
    let mut found = Vec::new();
    for batch in tables.chunks(BATCH) {
        let reads: Vec<String> = batch
            .iter()
            .map(|view| {
                format!(
                    "SELECT {}, {} WHERE EXISTS (SELECT FROM ONLY {})",
                    literal(&view.name.schema),
                    literal(&view.name.name),
                    table(&view.name)
                )
            })
            .collect();
        for row in client.query(&reads.join(" UNION ALL "), &[]).await? {
            found.push(TableName::new(row.try_get::<_, String>(0)?, row.try_get::<_, String>(1)?));
        }
    }
    Ok(found)
}

async fn loud(client: &Client, names: &Names, scope: &SchemaScope) -> Result<Vec<Loud>, LookError> {
    let mut found = Vec::new();
    for row in client.query(LOUD, &[&names.schemas, &names.names, &scope.schemas]).await? {
        let definition: Option<String> = row.try_get("definition")?;
        found.push(Loud {
            gist: gist(definition.as_deref().unwrap_or_default()),
            own_state: row.try_get("own_state")?,
            object: SetAside {
                kind: kind(&row)?,
                table: table_of(&row, "table_schema", "table_name")?,
                name: row.try_get("object_name")?,
                definition,
            },
        });
    }
    Ok(found)
}

async fn from_outside(
    client: &Client,
    names: &Names,
) -> Result<Vec<(TableName, String)>, LookError> {
    let mut found = Vec::new();
    for row in client.query(FROM_OUTSIDE, &[&names.schemas, &names.names]).await? {
        found.push((table_of(&row, "table_schema", "table_name")?, row.try_get("object_name")?));
    }
    Ok(found)
}

/// None while there is no such table: pgferry is not installed yet, or not any more.
async fn set_aside(client: &Client, query: &str) -> Look<Vec<SetAside>> {
    let rows = match client.query(query, &[]).await {
        Ok(rows) => rows,
        Err(error) if is_missing(&error) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut found = Vec::new();
    for row in rows {
        found.push(SetAside {
            kind: kind(&row)?,
            table: table_of(&row, "schema_name", "table_name")?,
            name: row.try_get("name")?,
            definition: row.try_get("definition")?,
        });
    }
    Ok(Some(found))
}

fn kind(row: &Row) -> Result<AsideKind, LookError> {
    let word: String = row.try_get("kind")?;
    AsideKind::from_word(&word).ok_or_else(|| LookError::Said(format!("unknown kind {word}")))
}

fn table_of(row: &Row, schema: &str, name: &str) -> Result<TableName, tokio_postgres::Error> {
    Ok(TableName::new(row.try_get::<_, String>(schema)?, row.try_get::<_, String>(name)?))
}

/// What is said of a table or column, under the words that name it.
#[derive(Default)]
pub(super) struct Properties {
    pub(super) defaults: BTreeMap<String, String>,
    pub(super) grants: BTreeMap<String, String>,
}

/// `maintain`: with the privilege of that name, which not every major version has.
pub(super) async fn properties(
    client: &Client,
    names: &Names,
    maintain: bool,
) -> Result<Properties, LookError> {
    let mut properties = Properties::default();
    for row in client.query(PROPERTIES, &[&names.schemas, &names.names, &maintain]).await? {
        let table = table_of(&row, "table_schema", "table_name")?;
        let value: Option<String> = row.try_get("value")?;
        let value = value.unwrap_or_default();
        if row.try_get::<_, String>("what")? == "default" {
            let column: String = row.try_get("column_name")?;
            properties.defaults.insert(format!("the default of {table}.{column}"), value);
        } else {
            properties.grants.insert(table.to_string(), value);
        }
    }
    Ok(properties)
}

fn differences(
    source: &BTreeMap<String, String>,
    destination: &BTreeMap<String, String>,
) -> Vec<String> {
    let none = "none".to_owned();
    let mut names: Vec<&String> = source.keys().chain(destination.keys()).collect();
    names.sort_unstable();
    names.dedup();
    names
        .into_iter()
        .filter_map(|name| {
            let (here, there) =
                (source.get(name).unwrap_or(&none), destination.get(name).unwrap_or(&none));
            (gist(here) != gist(there))
                .then(|| format!("{name} is {here} on the source and {there} on the destination"))
        })
        .collect()
}
