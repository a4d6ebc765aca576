//! Both schemas as data in, findings and what is set aside out.

use super::*;
use crate::finding::Severity;
use crate::scope::RowSecurity;

fn view(name: &str) -> TableView {
    TableView {
        oid: 1,
        name: TableName::new("public", name),
        owner: "app".to_owned(),
        columns: Vec::new(),
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

fn loud(kind: AsideKind, name: &str, gist: &str) -> Loud {
    let object = SetAside {
        kind,
        table: TableName::new("public", "orders"),
        name: name.to_owned(),
        definition: Some(gist.to_owned()),
    };
    Loud { object, gist: gist.to_owned(), own_state: false }
}

fn difference(kind: &str, name: &str) -> Difference {
    Difference {
        kind: kind.to_owned(),
        table: TableName::new("public", "orders"),
        name: name.to_owned(),
        text: format!("{kind} {name} of public.orders is missing"),
        unique: false,
    }
}

/// The same on both sides, with a foreign key and a trigger.
fn equal() -> ExistingLook {
    let objects = || {
        vec![
            loud(AsideKind::Constraint, "orders_fk", "FOREIGN KEY"),
            loud(AsideKind::Trigger, "note", "CREATE TRIGGER"),
        ]
    };
    ExistingLook {
        source: vec![view("orders")],
        destination: vec![view("orders")],
        loud_on_source: objects(),
        loud: objects(),
        ..ExistingLook::default()
    }
}

fn after(change: impl FnOnce(&mut ExistingLook)) -> ExistingView {
    let mut look = equal();
    change(&mut look);
    judge(&look, &SetNames::of(&"orders".parse().unwrap()), &ScopeRules::default())
}

fn blocks(change: impl FnOnce(&mut ExistingLook), code: &str, named: &str) {
    let view = after(change);
    let [finding] = view.findings.as_slice() else { panic!("{code} alone: {view:#?}") };
    assert_eq!((finding.severity, finding.code.as_str()), (Severity::Block, code), "{finding:#?}");
    assert!(finding.message.contains(named), "{finding:#?}");
    assert_eq!(view.to_set_aside, [], "nothing is touched while something differs");
}

#[test]
fn equal_schemas_are_taken_and_what_the_copy_would_meet_is_set_aside() {
    let view = after(|_| {});
    assert_eq!(view.findings, []);
    let names: Vec<&str> = view.to_set_aside.iter().map(|object| object.name.as_str()).collect();
    assert_eq!(names, ["orders_fk", "note"]);
}

#[test]
fn what_is_set_aside_already_is_not_missing() {
    let aside = |look: &mut ExistingLook| {
        look.set_aside = look.loud.drain(..).map(|loud| loud.object).collect();
        look.differing = vec![difference("constraint", "orders_fk"), difference("trigger", "note")];
    };
    assert_eq!(after(aside), ExistingView::default());
    blocks(
        |look| {
            aside(look);
            look.differing.push(difference("index", "orders_at"));
        },
        "schema_differs",
        "index orders_at of public.orders is missing",
    );
}

#[test]
fn nothing_is_set_aside_that_the_source_could_not_give_back() {
    blocks(
        |look| look.loud[1].gist = "CREATE TRIGGER … ENABLE ALWAYS".to_owned(),
        "schema_differs",
        "trigger note of public.orders is not the source's",
    );
    blocks(
        |look| look.loud.push(loud(AsideKind::Trigger, "own", "x")),
        "schema_differs",
        "trigger own of public.orders is not the source's",
    );
    blocks(|look| look.loud[1].own_state = true, "schema_differs", "enabled otherwise");
}

#[test]
fn tables_keys_and_rows_are_looked_at() {
    blocks(|look| look.destination.push(view("more")), "tables_missing", "public.more");
    blocks(
        |look| look.destination[0].key = Key::Missing { candidate: None },
        "keys_differ",
        "public.orders",
    );
    blocks(
        |look| {
            let columns = vec!["a".to_owned()];
            look.destination[0].key = Key::Usable { index: "i".to_owned(), columns };
        },
        "keys_differ",
        "(id on the source, a on the destination)",
    );
    blocks(|look| look.destination[0].unlogged = true, "unlogged_tables", "public.orders");
    blocks(
        |look| look.with_rows.push(TableName::new("public", "orders")),
        "destination_not_empty",
        "public.orders",
    );
    blocks(
        |look| look.from_outside.push((TableName::new("other", "t"), "t_fk".to_owned())),
        "foreign_keys_from_outside",
        "t_fk of other.t",
    );
    blocks(
        |look| look.defaults.push("the default of public.orders.at is now()".to_owned()),
        "schema_differs",
        "the default of public.orders.at",
    );
}

#[test]
fn what_only_the_destination_has_blocks_where_it_can_refuse_or_change_rows() {
    for (kind, unique) in [("index", true), ("constraint", false), ("rule", false)] {
        blocks(
            |look| look.extra.push(Difference { unique, ..difference(kind, "own") }),
            "schema_differs",
            &format!("{kind} own of public.orders is only on the destination"),
        );
    }
    let view = after(|look| {
        look.extra = vec![difference("index", "own"), difference("statistics", "s")];
    });
    let [finding] = view.findings.as_slice() else { panic!("{view:#?}") };
    assert_eq!((finding.severity, finding.code.as_str()), (Severity::Warn, "extra_indexes"));
    assert!(finding.hint.contains("DROP INDEX \"public\".\"own\";"), "{finding:#?}");
    assert_eq!(view.to_set_aside.len(), 2, "a warning holds nothing up");
}
