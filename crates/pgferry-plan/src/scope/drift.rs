//! Drift: the tables in scope, their columns and their replication sets, compared between the
//! sides.
//!
//! Pure, and told what was seen. A side that could not be looked at is not compared here at all:
//! the caller has an Unknown to judge then, and an empty list is not one.

use std::collections::BTreeMap;

use super::{ColumnView, ScopeRules, SetMembership, SetNames, TableView};
use crate::finding::Blocker;
use crate::name::TableName;
use crate::quote::{first_ten, ident, literal, table, toml_list};
use crate::side::Side;

/// What differs between the sides, at most one blocker per kind of difference.
///
/// The sets of a side are `None` while that side's sets are not made yet.
#[must_use]
pub fn drift(
    source: &[TableView],
    destination: &[TableView],
    source_sets: Option<&SetMembership>,
    destination_sets: Option<&SetMembership>,
    names: &SetNames,
    rules: &ScopeRules,
) -> Vec<Blocker> {
    let source_by_name = by_name(source);
    let destination_by_name = by_name(destination);
    let mut blockers = Vec::new();
    blockers.extend(tables_missing(&source_by_name, &destination_by_name));
    blockers.extend(columns_differ(&source_by_name, &destination_by_name));
    // On the destination keys are built after the rows: they are asked for once its sets exist.
    if let (Some(on_source), Some(on_destination)) = (source_sets, destination_sets) {
        let mut keyless = without_key(Side::Source, source, on_source, names, rules);
        keyless.extend(without_key(Side::Destination, destination, on_destination, names, rules));
        blockers.extend(key_missing(&keyless));
    }
    let mut outside = not_in_set(Side::Source, source, source_sets, names, rules);
    outside.extend(not_in_set(Side::Destination, destination, destination_sets, names, rules));
    blockers.extend(tables_not_replicated(&outside));
    blockers
}

/// Tables in the set of keyed ones that have no key any more.
fn without_key(
    side: Side,
    tables: &[TableView],
    sets: &SetMembership,
    names: &SetNames,
    rules: &ScopeRules,
) -> Vec<String> {
    let keyed = |name| sets.get(name).is_some_and(|sets| sets.contains(&names.keyed));
    tables
        .iter()
        .filter(|table| !table.has_key() && !rules.is_insert_only(table) && keyed(&table.name))
        .map(|table| format!("{} on the {side}", table.name))
        .collect()
}

/// pglogical drops the updates and deletes of a table without a key, and says nothing.
fn key_missing(keyless: &[String]) -> Option<Blocker> {
    let first = keyless.iter().take(10).cloned().collect::<Vec<_>>().join(", ");
    (!keyless.is_empty()).then(|| {
        Blocker::new(
            "key_missing",
            format!("{} tables have lost their key, and with it their updates and deletes: {first}", keyless.len()),
            "add the primary key again, then compare both sides of the table: what was updated or deleted meanwhile did not arrive",
        )
    })
}

type ByName<'a> = BTreeMap<&'a TableName, &'a TableView>;

fn by_name(tables: &[TableView]) -> ByName<'_> {
    tables.iter().map(|table| (&table.name, table)).collect()
}

fn missing(there: &ByName<'_>, here: &ByName<'_>) -> Vec<TableName> {
    there.keys().filter(|name| !here.contains_key(*name)).map(|name| (*name).clone()).collect()
}

/// The tables that a side lacks and the other one has, and what the columns of a table that both have
/// differ in: one sentence for each table.
#[must_use]
pub fn table_differences(
    source: &[TableView],
    destination: &[TableView],
) -> Vec<(TableName, String)> {
    let (source, destination) = (by_name(source), by_name(destination));
    let mut found = Vec::new();
    for (side, lacking) in [
        (Side::Destination, missing(&source, &destination)),
        (Side::Source, missing(&destination, &source)),
    ] {
        found.extend(lacking.into_iter().map(|name| (name, format!("it is not on the {side}"))));
    }
    found.extend(
        columns_by_table(&source, &destination).map(|(name, columns)| {
            (name.clone(), format!("columns differ: {}", columns.join(", ")))
        }),
    );
    found
}

fn tables_missing(source: &ByName<'_>, destination: &ByName<'_>) -> Option<Blocker> {
    let on_destination = missing(source, destination);
    let on_source = missing(destination, source);
    let mut sentences = Vec::new();
    for (side, tables) in [(Side::Destination, &on_destination), (Side::Source, &on_source)] {
        if !tables.is_empty() {
            sentences.push(format!("missing on the {side}: {}", first_ten(tables)));
        }
    }
    if sentences.is_empty() {
        return None;
    }
    let all = on_destination.iter().chain(&on_source);
    Some(Blocker::new(
        "tables_missing",
        format!("the two sides do not have the same tables; {}", sentences.join("; ")),
        format!(
            "create each on the side that lacks it, with the same definition (pg_dump --schema-only \
             --table prints it), while it is still empty; or leave it out: \
             scope.exclude_tables = {} beside what is excluded already",
            toml_list(all)
        ),
    ))
}

fn columns_by_table<'a>(
    source: &'a ByName<'_>,
    destination: &'a ByName<'_>,
) -> impl Iterator<Item = (&'a TableName, Vec<String>)> {
    source.iter().filter_map(|(name, here)| {
        let there = destination.get(*name)?;
        let columns = column_differences(&here.columns, &there.columns);
        (!columns.is_empty()).then_some((*name, columns))
    })
}

fn columns_differ(source: &ByName<'_>, destination: &ByName<'_>) -> Option<Blocker> {
    let differences: Vec<String> = columns_by_table(source, destination)
        .map(|(name, columns)| format!("{name} ({})", columns.join(", ")))
        .collect();
    if differences.is_empty() {
        return None;
    }
    Some(Blocker::new(
        "columns_differ",
        format!("columns differ between the sides: {}", first_ten(&differences)),
        "run the ALTER TABLE that one side already had on the other side too, so that name, type, \
         collation, NOT NULL, generated and identity are equal; their order may differ",
    ))
}

/// Compared by name, as pglogical and the copy map them.
fn column_differences(source: &[ColumnView], destination: &[ColumnView]) -> Vec<String> {
    let there: BTreeMap<&str, &ColumnView> =
        destination.iter().map(|column| (column.name.as_str(), column)).collect();
    let mut differences = Vec::new();
    for here in source {
        match there.get(here.name.as_str()) {
            None => differences.push(format!("{} is only on the source", here.name)),
            Some(there) if described(here) != described(there) => differences.push(format!(
                "{} is {} on the source and {} on the destination",
                here.name,
                described(here),
                described(there)
            )),
            Some(_) => {}
        }
    }
    for column in destination {
        if !source.iter().any(|here| here.name == column.name) {
            differences.push(format!("{} is only on the destination", column.name));
        }
    }
    differences
}

fn described(column: &ColumnView) -> String {
    use super::{Generated, Identity};
    let mut text = column.type_name.clone();
    if let Some(collation) = &column.collation {
        text.push_str(&format!(" COLLATE {collation}"));
    }
    if column.not_null {
        text.push_str(" NOT NULL");
    }
    match column.generated {
        Some(Generated::Stored) => text.push_str(" GENERATED STORED"),
        Some(Generated::Virtual) => text.push_str(" GENERATED VIRTUAL"),
        None => {}
    }
    match column.identity {
        Some(Identity::Always) => text.push_str(" GENERATED ALWAYS AS IDENTITY"),
        Some(Identity::ByDefault) => text.push_str(" GENERATED BY DEFAULT AS IDENTITY"),
        None => {}
    }
    text
}

/// A table that is not in the set it belongs in.
struct Outside<'a> {
    side: Side,
    table: &'a TableView,
    set: String,
    /// A set takes it as it is.
    takable: bool,
}

fn not_in_set<'a>(
    side: Side,
    tables: &'a [TableView],
    sets: Option<&SetMembership>,
    names: &SetNames,
    rules: &ScopeRules,
) -> Vec<Outside<'a>> {
    let Some(sets) = sets else { return Vec::new() };
    tables
        .iter()
        // No set takes an unlogged table: that it is copied only is a finding of preflight.
        .filter(|table| !table.unlogged)
        .filter_map(|table| {
            let set = names.for_table(table, rules);
            let replicated = sets.get(&table.name).is_some_and(|of_table| of_table.contains(set));
            (!replicated).then(|| Outside {
                side,
                table,
                set: set.to_owned(),
                takable: table.has_key() || rules.is_insert_only(table),
            })
        })
        .collect()
}

fn tables_not_replicated(outside: &[Outside<'_>]) -> Option<Blocker> {
    if outside.is_empty() {
        return None;
    }
    let named: Vec<String> =
        outside.iter().map(|o| format!("{} on the {}", o.table.name, o.side)).collect();
    let mut names: Vec<&TableName> = outside.iter().map(|o| &o.table.name).collect();
    names.sort_unstable();
    names.dedup();
    let mut hint = String::new();
    for side in Side::BOTH {
        let statements: Vec<String> = outside
            .iter()
            .filter(|o| o.side == side && o.takable)
            .map(|o| {
                format!(
                    "SELECT pglogical.replication_set_add_table({}, {});",
                    literal(&o.set),
                    literal(&table(&o.table.name))
                )
            })
            .collect();
        if !statements.is_empty() {
            hint.push_str(&format!(
                "while they are still empty on both sides, run on the {side}: {} ",
                statements.join(" ")
            ));
        }
    }
    let keyless: Vec<String> = outside
        .iter()
        .filter(|o| !o.takable)
        .map(|o| format!("{}.{}", ident(&o.table.name.schema), ident(&o.table.name.name)))
        .collect();
    if !keyless.is_empty() {
        hint.push_str(&format!(
            "these need a primary key that is not deferrable first: {}; ",
            keyless.join(", ")
        ));
    }
    hint.push_str(&format!(
        "or leave them out: scope.exclude_tables = {} beside what is excluded already",
        toml_list(names)
    ));
    Some(Blocker::new(
        "tables_not_replicated",
        format!("not in their replication set: {}", first_ten(&named)),
        hint,
    ))
}

#[cfg(test)]
mod tests;
