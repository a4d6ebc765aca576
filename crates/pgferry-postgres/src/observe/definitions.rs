//! Looks at the definitions of both sides, for a verification: what differs, object by object.
//!
//! Catalogs only. Between servers of different major versions a text that differs is told apart: they
//! print the same definition in other words.

use pgferry_plan::Side;
use pgferry_plan::existing::{Difference, stands_in_the_way};
use pgferry_plan::verify::definitions::{Definition, Printed, of_printed, of_tables};
use tokio_postgres::Client;

use super::existing::{Names, properties};
use crate::cluster::PgCluster;
use crate::node::LookError;
use crate::row_by_row;
use crate::schema::{PostData, SchemaScope, compare_post_data, gist};

const BESIDE_TABLES: &str = include_str!("definitions/beside_tables.sql");

/// What of the definitions is not the same on both sides.
#[derive(Debug, Default)]
pub(crate) struct Definitions {
    /// What stands against a switchover.
    pub(crate) differing: Vec<Definition>,
    /// Owners and privileges.
    pub(crate) privileges: Vec<Definition>,
    /// What two major versions print in different words.
    pub(crate) reworded: Vec<Definition>,
}

impl PgCluster {
    /// Compares the definitions of both sides.
    pub(crate) async fn definitions(&self) -> Result<Definitions, LookError> {
        let source = self.node(Side::Source).client().await?;
        let destination = self.node(Side::Destination).client().await?;
        let (on_source, on_destination) =
            tokio::try_join!(self.tables(Side::Source), self.tables(Side::Destination))?;
        let names = Names::of(&on_source, &on_destination);
        let scope = SchemaScope { schemas: self.rules.schemas.clone() };
        let PostData { differing, mut extra, reworded, same_words } =
            compare_post_data(&source, &destination, &scope)
                .await
                .map_err(|error| LookError::Said(crate::node::scrub(&error.to_string())))?;
        extra.retain(|object| names.contains(&object.table) && stands_in_the_way(object));
        let mut found = Definitions {
            differing: of_tables(&on_source, &on_destination),
            reworded: reworded.into_iter().map(definition).collect(),
            privileges: Vec::new(),
        };
        found.differing.extend(differing.into_iter().chain(extra).map(definition));
        let (here, there) = tokio::try_join!(
            properties(&source, &names, same_words),
            properties(&destination, &names, same_words)
        )?;
        let defaults = of_printed(&here.defaults, &there.defaults, alike);
        // Of what one side has alone no words are compared.
        let (worded, alone): (Vec<_>, Vec<_>) = defaults.into_iter().partition(|found| {
            here.defaults.contains_key(&found.object) && there.defaults.contains_key(&found.object)
        });
        found.differing.extend(alone);
        if same_words { &mut found.differing } else { &mut found.reworded }.extend(worded);
        let of_tables = of_printed(&here.grants, &there.grants, |here, there| here == there);
        found.privileges.extend(of_tables.into_iter().map(|table| privileges(table.object)));
        if same_words {
            let (beside, beside_there) = tokio::try_join!(
                beside_tables(&source, &scope),
                beside_tables(&destination, &scope)
            )?;
            // What only the destination has beside tables is in nobody's way.
            let beside_tables = of_printed(&beside.printed, &beside_there.printed, alike);
            let on_source = |found: &Definition| beside.printed.contains_key(&found.object);
            found.differing.extend(beside_tables.into_iter().filter(on_source));
            let of_others =
                of_printed(&beside.grants, &beside_there.grants, |here, there| here == there);
            // What is on one side alone was named above; a column is here only with privileges of its own.
            let on_both = |object: &String| {
                beside.grants.contains_key(object) && beside_there.grants.contains_key(object)
            };
            found.privileges.extend(
                of_others
                    .into_iter()
                    .filter(|other| other.object.starts_with("column ") || on_both(&other.object))
                    .map(|other| privileges(other.object)),
            );
        }
        Ok(found)
    }
}

fn definition(difference: Difference) -> Definition {
    let table = difference.table;
    let object = if table.name.is_empty() { table.schema } else { table.to_string() };
    Definition { object, text: difference.text }
}

fn alike(here: &str, there: &str) -> bool {
    gist(here) == gist(there)
}

fn privileges(object: String) -> Definition {
    let text = "owner or privileges are not the same on both sides".to_owned();
    Definition { object, text }
}

/// What is defined beside tables, and who may use it.
#[derive(Default)]
struct Beside {
    printed: Printed,
    grants: Printed,
}

async fn beside_tables(client: &Client, scope: &SchemaScope) -> Result<Beside, LookError> {
    let mut beside = Beside::default();
    row_by_row::each(client, BESIDE_TABLES, &[&scope.schemas], |row| {
        let object: String = row.try_get("object")?;
        if let Some(definition) = row.try_get("definition")? {
            beside.printed.insert(object.clone(), definition);
        }
        if let Some(grants) = row.try_get("grants")? {
            beside.grants.insert(object, grants);
        }
        Ok(())
    })
    .await?;
    Ok(beside)
}
