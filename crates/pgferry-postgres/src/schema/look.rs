//! Whether the destination has everything that `pg_restore` makes after the rows.
//!
//! Reads catalogs only, one statement on each side however many tables there are. What is missing
//! is judged by name and state; the text of a definition counts only between servers of the same
//! major version, because others print the same index in other words, and without its casts and
//! brackets, because a restored definition is not always printed as it was dumped.

use std::collections::{BTreeMap, BTreeSet};

use pgferry_plan::TableName;
use pgferry_plan::existing::Difference;
use tokio_postgres::Client;

use super::gist::gist;
use super::toc::ObjectId;
use super::{SchemaError, SchemaScope};
use crate::row_by_row;

const OBJECTS: &str = include_str!("objects.sql");
const MAJOR: &str = "SELECT current_setting('server_version_num')::int / 10000";

/// What an object is called: kind, schema, table, name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct ObjectName {
    kind: String,
    schema: String,
    table: Option<String>,
    name: Option<String>,
}

/// What is to be known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Object {
    id: ObjectId,
    definition: String,
    /// Enabled, validated, replica identity: whatever the definition does not say.
    state: String,
    /// Usable: an index can exist and not be valid.
    sound: bool,
}

type Objects = BTreeMap<ObjectName, Object>;

/// What the source has and the destination has not, or not in working order; empty when the
/// indexes, constraints, triggers, rules, policies, statistics objects, views with their queries and
/// filled materialized views of all tables in scope are there, and functions with parsed bodies.
pub async fn missing_post_data(
    source: &Client,
    destination: &Client,
    scope: &SchemaScope,
) -> Result<Vec<String>, SchemaError> {
    let (on_source, on_destination) = both(source, destination, scope).await?;
    let same_words = print_alike(source, destination).await?;
    Ok(missing(&on_source, &on_destination, same_words))
}

/// Objects of the source that the destination has by the same name, in whatever state.
pub(super) async fn present_objects(
    source: &Client,
    destination: &Client,
    scope: &SchemaScope,
) -> Result<BTreeSet<ObjectId>, SchemaError> {
    let (on_source, on_destination) = both(source, destination, scope).await?;
    Ok(on_source
        .into_iter()
        .filter(|(name, _)| on_destination.contains_key(name))
        .map(|(_, object)| object.id)
        .collect())
}

/// What of the objects after the rows is not the same on both sides.
pub(crate) struct PostData {
    /// The source's, as [`missing_post_data`] finds them.
    pub(crate) differing: Vec<Difference>,
    /// Those that only the destination has.
    pub(crate) extra: Vec<Difference>,
    /// Those that are printed in different words by servers that need not print alike.
    pub(crate) reworded: Vec<Difference>,
    /// Both servers print the same definition in the same words.
    pub(crate) same_words: bool,
}

/// The same comparison object by object, and the other way round as well.
pub(crate) async fn compare_post_data(
    source: &Client,
    destination: &Client,
    scope: &SchemaScope,
) -> Result<PostData, SchemaError> {
    let (on_source, on_destination) = both(source, destination, scope).await?;
    let same_words = print_alike(source, destination).await?;
    let differing = differing(&on_source, &on_destination, same_words)
        .map(|(name, object, text)| name.difference(object, text))
        .collect();
    let extra = on_destination
        .iter()
        .filter(|(name, _)| !on_source.contains_key(*name))
        .map(|(name, object)| name.difference(object, format!("{name} is extra")))
        .collect();
    let reworded = if same_words { Vec::new() } else { reworded(&on_source, &on_destination) };
    Ok(PostData { differing, extra, reworded, same_words })
}

/// Indexes of tables, keys among them, that the destination lacks or has otherwise. Those of
/// materialized views do not matter to rows.
pub(crate) async fn missing_keys(
    source: &Client,
    destination: &Client,
    scope: &SchemaScope,
) -> Result<Vec<String>, SchemaError> {
    let (on_source, on_destination) = both(source, destination, scope).await?;
    let same_words = print_alike(source, destination).await?;
    let views = materialized_views(&on_source);
    Ok(differing(&on_source, &on_destination, same_words)
        .filter(|(name, _, _)| name.kind == "index" && !views.contains(&name.relation()))
        .map(|(_, _, text)| text)
        .collect())
}

/// Indexes of tables, and the constraints that stand for some of them, that the destination has
/// not at all.
pub(super) async fn absent_keys(
    source: &Client,
    destination: &Client,
    scope: &SchemaScope,
) -> Result<BTreeSet<ObjectId>, SchemaError> {
    let (on_source, on_destination) = both(source, destination, scope).await?;
    let views = materialized_views(&on_source);
    let wanted = |name: &ObjectName, object: &Object| match name.kind.as_str() {
        "index" => !views.contains(&name.relation()),
        "constraint" => {
            ["PRIMARY KEY", "UNIQUE", "EXCLUDE"].iter().any(|w| object.definition.starts_with(w))
        }
        _ => false,
    };
    Ok(on_source
        .iter()
        .filter(|(name, object)| wanted(name, object) && !on_destination.contains_key(*name))
        .map(|(_, object)| object.id)
        .collect())
}

fn materialized_views(objects: &Objects) -> BTreeSet<(&str, Option<&str>)> {
    objects
        .keys()
        .filter(|name| name.kind == "materialized view")
        .map(ObjectName::relation)
        .collect()
}

fn missing(source: &Objects, destination: &Objects, same_words: bool) -> Vec<String> {
    differing(source, destination, same_words).map(|(_, _, text)| text).collect()
}

fn differing<'a>(
    source: &'a Objects,
    destination: &'a Objects,
    same_words: bool,
) -> impl Iterator<Item = (&'a ObjectName, &'a Object, String)> {
    source
        .iter()
        // pg_dump leaves an invalid index of the source behind.
        .filter(|(_, object)| object.sound)
        .filter_map(move |(name, object)| {
            let what = name.to_string();
            let text = match destination.get(name) {
                None => Some(format!("{what} is missing")),
                Some(there) if !there.sound => Some(format!("{what} is not valid")),
                Some(there) if there.state != object.state => Some(format!(
                    "{what} is \"{}\" and on the source \"{}\"",
                    there.state, object.state
                )),
                Some(there)
                    if same_words && gist(&there.definition) != gist(&object.definition) =>
                {
                    Some(format!("{what} is defined otherwise: {}", there.definition))
                }
                Some(_) => None,
            };
            text.map(|text| (name, object, text))
        })
}

fn reworded(source: &Objects, destination: &Objects) -> Vec<Difference> {
    source
        .iter()
        .filter_map(|(name, here)| {
            let there = destination.get(name)?;
            let text = || {
                format!(
                    "{name} is printed as {} by the source and as {} by the destination",
                    here.definition, there.definition
                )
            };
            (gist(&there.definition) != gist(&here.definition))
                .then(|| name.difference(here, text()))
        })
        .collect()
}

async fn both(
    source: &Client,
    destination: &Client,
    scope: &SchemaScope,
) -> Result<(Objects, Objects), SchemaError> {
    let (on_source, on_destination) =
        tokio::join!(objects(source, scope), objects(destination, scope));
    Ok((
        on_source.map_err(|error| SchemaError::look("source", &error))?,
        on_destination.map_err(|error| SchemaError::look("destination", &error))?,
    ))
}

async fn objects(client: &Client, scope: &SchemaScope) -> Result<Objects, tokio_postgres::Error> {
    let mut objects = Objects::new();
    row_by_row::each(client, OBJECTS, &[&scope.schemas], |row| {
        let name = ObjectName {
            kind: row.try_get("kind")?,
            schema: row.try_get("schema_name")?,
            table: row.try_get("table_name")?,
            name: row.try_get("object_name")?,
        };
        let object = Object {
            id: ObjectId { class: row.try_get("class_id")?, object: row.try_get("object_id")? },
            definition: row.try_get("definition")?,
            state: row.try_get("state")?,
            sound: row.try_get("sound")?,
        };
        objects.insert(name, object);
        Ok(())
    })
    .await?;
    Ok(objects)
}

/// Whether both servers print a definition in the same words: those of one major version do.
async fn print_alike(source: &Client, destination: &Client) -> Result<bool, SchemaError> {
    Ok(major(source, "source").await? == major(destination, "destination").await?)
}

async fn major(client: &Client, side: &'static str) -> Result<i32, SchemaError> {
    let row =
        client.query_one(MAJOR, &[]).await.map_err(|error| SchemaError::look(side, &error))?;
    row.try_get(0).map_err(|error| SchemaError::look(side, &error))
}

impl ObjectName {
    fn relation(&self) -> (&str, Option<&str>) {
        (&self.schema, self.table.as_deref())
    }

    fn difference(&self, object: &Object, text: String) -> Difference {
        Difference {
            kind: self.kind.clone(),
            table: TableName::new(self.schema.clone(), self.table.clone().unwrap_or_default()),
            name: self.name.clone().unwrap_or_default(),
            text,
            unique: object.definition.starts_with("CREATE UNIQUE INDEX"),
        }
    }
}

impl std::fmt::Display for ObjectName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.kind)?;
        if let Some(name) = &self.name {
            write!(f, " {name}")?;
        }
        match &self.table {
            Some(table) => write!(f, " of {}.{table}", self.schema),
            None if self.schema.is_empty() => Ok(()),
            None => write!(f, " in {}", self.schema),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(name: &str, definition: &str, state: &str, sound: bool) -> (ObjectName, Object) {
        (
            ObjectName {
                kind: "index".into(),
                schema: "public".into(),
                table: Some("orders".into()),
                name: Some(name.into()),
            },
            Object {
                id: ObjectId { class: 1259, object: 1 },
                definition: definition.into(),
                state: state.into(),
                sound,
            },
        )
    }

    fn check(
        source: (ObjectName, Object),
        destination: Option<(ObjectName, Object)>,
        same: bool,
    ) -> Vec<String> {
        missing(&Objects::from([source]), &destination.into_iter().collect(), same)
    }

    #[test]
    fn an_index_counts_only_when_it_can_be_used() {
        let good = || index("pk", "(id)", "", true);
        assert_eq!(check(good(), None, true), ["index pk of public.orders is missing"]);
        assert!(check(good(), Some(good()), true).is_empty());
        assert_eq!(
            check(good(), Some(index("pk", "(id)", "", false)), true),
            ["index pk of public.orders is not valid"]
        );
        assert_eq!(
            check(index("pk", "(id)", "replica identity", true), Some(good()), true),
            ["index pk of public.orders is \"\" and on the source \"replica identity\""]
        );
    }

    #[test]
    fn definitions_are_compared_between_equal_versions_only() {
        let there = || Some(index("pk", "(id, x)", "", true));
        assert_eq!(check(index("pk", "(id)", "", true), there(), true).len(), 1);
        assert!(check(index("pk", "(id)", "", true), there(), false).is_empty());
    }

    #[test]
    fn an_invalid_index_of_the_source_is_not_expected() {
        assert!(check(index("pk", "(id)", "", false), None, true).is_empty());
    }
}
