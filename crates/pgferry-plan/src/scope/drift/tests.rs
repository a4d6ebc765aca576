//! Drift as data in and data out.

use std::collections::BTreeSet;

use super::*;
use crate::scope::{Key, RowSecurity};

fn view(name: &str) -> TableView {
    TableView {
        oid: 1,
        name: TableName::new("public", name),
        owner: "app".to_owned(),
        columns: vec![column("id", "integer"), column("note", "text")],
        key: Key::Usable { index: format!("{name}_pkey"), columns: vec!["id".to_owned()] },
        relfilenode: 1,
        bytes: 0,
        rows: None,
        row_security: RowSecurity::Off,
        row_security_active: false,
        ancestors: Vec::new(),
        unlogged: false,
    }
}

fn column(name: &str, type_name: &str) -> ColumnView {
    ColumnView {
        name: name.to_owned(),
        type_name: type_name.to_owned(),
        collation: None,
        not_null: name == "id",
        generated: None,
        identity: None,
        position: 1,
    }
}

fn in_set(set: &str, tables: &[&str]) -> SetMembership {
    tables
        .iter()
        .map(|name| (TableName::new("public", *name), BTreeSet::from([set.to_owned()])))
        .collect()
}

fn check(
    source: &[TableView],
    destination: &[TableView],
    sets: Option<&SetMembership>,
    rules: &ScopeRules,
    expected: &[&str],
) -> Vec<Blocker> {
    let names = SetNames::of(&"orders".parse().unwrap());
    let blockers = drift(source, destination, sets, sets, &names, rules);
    let codes: Vec<&str> = blockers.iter().map(|blocker| blocker.code.as_str()).collect();
    assert_eq!(codes, expected, "{blockers:#?}");
    blockers
}

#[test]
fn equal_sides_have_no_drift() {
    let tables = [view("a"), view("b")];
    let sets = in_set("pgferry_orders", &["a", "b"]);
    check(&tables, &tables, Some(&sets), &ScopeRules::default(), &[]);
    check(&tables, &tables, None, &ScopeRules::default(), &[]);
}

#[test]
fn a_table_of_one_side_only_is_named_with_its_side() {
    let found = check(&[view("a")], &[], None, &ScopeRules::default(), &["tables_missing"]);
    assert!(found[0].message.contains("missing on the destination: public.a"), "{found:?}");
    assert!(found[0].hint.contains("scope.exclude_tables = [\"public.a\"]"), "{found:?}");
    let found = check(&[], &[view("a")], None, &ScopeRules::default(), &["tables_missing"]);
    assert!(found[0].message.contains("missing on the source: public.a"), "{found:?}");
}

#[test]
fn columns_are_compared_by_name_and_not_by_place() {
    let mut swapped = view("a");
    swapped.columns.reverse();
    check(&[view("a")], &[swapped], None, &ScopeRules::default(), &[]);

    let mut wider = view("a");
    wider.columns[0].type_name = "bigint".to_owned();
    wider.columns.push(column("extra", "text"));
    let found = check(&[view("a")], &[wider], None, &ScopeRules::default(), &["columns_differ"]);
    assert_eq!(
        found[0].message,
        "columns differ between the sides: public.a (id is integer NOT NULL on the source and \
         bigint NOT NULL on the destination, extra is only on the destination)"
    );
}

#[test]
fn a_table_outside_its_set_comes_with_the_statement_that_adds_it() {
    let tables = [view("a"), view("it's")];
    let sets = in_set("pgferry_orders", &["a"]);
    let found =
        check(&tables, &tables, Some(&sets), &ScopeRules::default(), &["tables_not_replicated"]);
    assert!(
        found[0].hint.contains(
            "SELECT pglogical.replication_set_add_table('pgferry_orders', '\"public\".\"it''s\"');"
        ),
        "{found:?}"
    );
}

#[test]
fn an_insert_only_partition_belongs_in_the_other_set() {
    let mut leaf = view("events_2026");
    leaf.key = Key::Missing { candidate: None };
    leaf.ancestors = vec![TableName::new("public", "events")];
    let rules = ScopeRules {
        insert_only: [TableName::new("public", "events")].into(),
        ..ScopeRules::default()
    };
    let tables = [leaf];
    check(&tables, &tables, Some(&in_set("pgferry_orders_io", &["events_2026"])), &rules, &[]);
    let wrong = in_set("pgferry_orders", &["events_2026"]);
    check(&tables, &tables, Some(&wrong), &rules, &["tables_not_replicated"]);
}

#[test]
fn a_table_that_no_set_takes_as_it_is_is_told_what_it_needs_first() {
    let mut keyless = view("k");
    keyless.key = Key::Missing { candidate: None };
    let tables = [keyless];
    let found = check(
        &tables,
        &tables,
        Some(&SetMembership::new()),
        &ScopeRules::default(),
        &["tables_not_replicated"],
    );
    assert!(!found[0].hint.contains("replication_set_add_table"), "{found:?}");
    assert!(found[0].hint.contains("primary key"), "{found:?}");
}

#[test]
fn an_unlogged_table_belongs_in_no_set_until_it_is_logged() {
    let mut table = view("u");
    table.unlogged = true;
    let none = SetMembership::new();
    let sides = [table.clone()];
    check(&sides, &sides, Some(&none), &ScopeRules::default(), &[]);
    table.unlogged = false;
    let source = [table];
    check(&source, &sides, Some(&none), &ScopeRules::default(), &["tables_not_replicated"]);
}
