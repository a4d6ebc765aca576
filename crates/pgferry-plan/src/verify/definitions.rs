//! What of the definitions is not the same on both sides, object by object.
//!
//! Compared from the source to the destination, because one was made from the other. Indexes,
//! constraints and triggers are compared where they are read: their words depend on the server.

use std::collections::BTreeMap;

use crate::name::TableName;
use crate::scope::{TableView, table_differences};

/// One definition that differs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Definition {
    /// The table, or what it is that has none.
    pub object: String,
    /// In words.
    pub text: String,
}

/// Definitions of any kind by what they define, as one side prints them.
pub type Printed = BTreeMap<String, String>;

/// What tables differ in, what they are kept and found under included: rows of an unlogged one never
/// arrive, and one that has left its partitioned table is not written to any more.
#[must_use]
pub fn of_tables(source: &[TableView], destination: &[TableView]) -> Vec<Definition> {
    let mut found: Vec<Definition> = table_differences(source, destination)
        .into_iter()
        .map(|(name, text)| Definition { object: name.to_string(), text })
        .collect();
    let there: BTreeMap<&TableName, &TableView> =
        destination.iter().map(|view| (&view.name, view)).collect();
    for here in source {
        let Some(there) = there.get(&here.name) else { continue };
        if here.unlogged != there.unlogged {
            let side = if here.unlogged { "source" } else { "destination" };
            let text = format!("it is unlogged on the {side} alone");
            found.push(Definition { object: here.name.to_string(), text });
        }
        if here.ancestors != there.ancestors {
            let text = format!(
                "it belongs to {} on the source and to {} on the destination",
                named(&here.ancestors),
                named(&there.ancestors)
            );
            found.push(Definition { object: here.name.to_string(), text });
        }
    }
    found
}

fn named(ancestors: &[TableName]) -> String {
    let names: Vec<String> = ancestors.iter().map(ToString::to_string).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// What one side has otherwise than the other, or alone; `alike` says whether two texts mean the same.
pub fn of_printed(
    source: &Printed,
    destination: &Printed,
    alike: impl Fn(&str, &str) -> bool,
) -> Vec<Definition> {
    let mut found = Vec::new();
    for (object, here) in source {
        let text = match destination.get(object) {
            None => "it is not on the destination",
            Some(there) if alike(here, there) => continue,
            Some(_) => "it is defined otherwise on the destination",
        };
        found.push(Definition { object: object.clone(), text: text.to_owned() });
    }
    for object in destination.keys().filter(|object| !source.contains_key(*object)) {
        let text = "it is not on the source".to_owned();
        found.push(Definition { object: object.clone(), text });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scope::{Key, RowSecurity};

    fn table(name: &str) -> TableView {
        TableView {
            oid: 1,
            name: TableName::new("public", name),
            owner: "owner".to_owned(),
            columns: Vec::new(),
            key: Key::Missing { candidate: None },
            relfilenode: 1,
            bytes: 0,
            rows: None,
            row_security: RowSecurity::Off,
            row_security_active: false,
            ancestors: vec![TableName::new("public", "whole")],
            unlogged: false,
        }
    }

    #[test]
    fn each_table_is_named_by_itself() {
        let names: Vec<String> = (10..30).map(|n| format!("t{n}")).collect();
        let source: Vec<TableView> = names.iter().map(|name| table(name)).collect();
        assert!(of_tables(&source, &source).is_empty());
        let found = of_tables(&source, &[]);
        let objects: Vec<String> = found.into_iter().map(|found| found.object).collect();
        assert_eq!(objects, names.iter().map(|n| format!("public.{n}")).collect::<Vec<_>>());
    }

    #[test]
    fn a_table_that_is_kept_otherwise_is_named() {
        let here = [table("t")];
        let there = [TableView { unlogged: true, ancestors: Vec::new(), ..table("t") }];
        let texts: Vec<String> =
            of_tables(&here, &there).into_iter().map(|found| found.text).collect();
        assert_eq!(
            texts,
            [
                "it is unlogged on the destination alone",
                "it belongs to public.whole on the source and to none on the destination"
            ]
        );
    }

    #[test]
    fn what_one_side_has_alone_or_otherwise_is_named() {
        let of = |pairs: &[(&str, &str)]| -> Printed {
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        let source = of(&[("function f()", "1"), ("type t", "a"), ("type u", "b")]);
        let destination = of(&[("function f()", "2"), ("type u", "b"), ("type v", "c")]);
        let found: Vec<(String, String)> = of_printed(&source, &destination, |a, b| a == b)
            .into_iter()
            .map(|found| (found.object, found.text))
            .collect();
        let wanted = [
            ("function f()", "it is defined otherwise on the destination"),
            ("type t", "it is not on the destination"),
            ("type v", "it is not on the source"),
        ];
        assert_eq!(found, wanted.map(|(o, t)| (o.to_owned(), t.to_owned())));
    }
}
