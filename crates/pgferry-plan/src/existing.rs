//! A destination that brought its own schema: whether it is the source's, and what has to be out
//! of the way while the rows are copied.
//!
//! What is set aside comes back from the source's dump. So nothing is set aside that the source
//! does not have in the same words and in the same state.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::finding::Finding;
use crate::name::TableName;
use crate::quote::{first_ten, ident, table};
use crate::scope::{Key, ScopeRules, SetNames, TableView, drift};
use crate::sequences;
use crate::world::SequenceView;

/// What can be set aside; the words are those of the comparison and of `pgferry.set_aside`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum AsideKind {
    /// A foreign key, or a check that was never validated and so may refuse the source's rows.
    Constraint,
    /// A trigger that COPY would fire.
    Trigger,
    /// The rows of a materialized view: they were computed from empty tables.
    Content,
}

impl AsideKind {
    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            AsideKind::Constraint => "constraint",
            AsideKind::Trigger => "trigger",
            AsideKind::Content => "content of materialized view",
        }
    }

    /// The kind of a word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [AsideKind::Constraint, AsideKind::Trigger, AsideKind::Content]
            .into_iter()
            .find(|kind| kind.as_str() == word)
    }
}

/// One object that is out of the way while rows are copied, or is to be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SetAside {
    /// What it is.
    pub kind: AsideKind,
    /// Its table, or the materialized view.
    pub table: TableName,
    /// Its name; empty for a content.
    pub name: String,
    /// The statements that make it again; None when it goes and comes with the one of a table
    /// above.
    pub definition: Option<String>,
}

impl fmt::Display for SetAside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        named(f, self.kind.as_str(), &self.name, &self.table)
    }
}

/// One object after the rows (index, constraint, trigger, …) that is not the same on both sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// `index`, `constraint`, `trigger` and so on.
    pub kind: String,
    /// Its table; for what has none, its schema and an empty name.
    pub table: TableName,
    /// Its name; empty for what has none.
    pub name: String,
    /// The difference in words, the object named.
    pub text: String,
    /// It is an index that refuses rows.
    pub unique: bool,
}

/// An object that the copy of rows would fire or be refused by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loud {
    /// The object.
    pub object: SetAside,
    /// Its definition, state and comment, in a form that can be compared.
    pub gist: String,
    /// It is enabled otherwise than the trigger of the partitioned table that it comes from: a
    /// restore would not bring that back.
    pub own_state: bool,
}

/// What was seen of both schemas.
#[derive(Clone, Debug, Default)]
pub struct ExistingLook {
    /// Tables in scope on the source.
    pub source: Vec<TableView>,
    /// Tables in scope on the destination.
    pub destination: Vec<TableView>,
    /// Tables in scope on the destination that hold rows.
    pub with_rows: Vec<TableName>,
    /// What of the source's objects the destination lacks or has otherwise.
    pub differing: Vec<Difference>,
    /// Objects of tables in scope that only the destination has.
    pub extra: Vec<Difference>,
    /// Defaults and generated columns that differ, one sentence each.
    pub defaults: Vec<String>,
    /// Tables whose privileges differ, one sentence each.
    pub grants: Vec<String>,
    /// Foreign keys of tables out of scope to tables in scope, on the destination: table and name.
    pub from_outside: Vec<(TableName, String)>,
    /// What the source has of the kinds that are set aside.
    pub loud_on_source: Vec<Loud>,
    /// What the copy would meet on the destination.
    pub loud: Vec<Loud>,
    /// What has been set aside already.
    pub set_aside: Vec<SetAside>,
    /// Sequences in scope, source first.
    pub sequences: [Vec<SequenceView>; 2],
}

/// What follows from it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExistingView {
    /// Whatever differs, those that stand in the way among them.
    pub findings: Vec<Finding>,
    /// What is still to be set aside; nothing while a finding stands in the way.
    pub to_set_aside: Vec<SetAside>,
}

const SUBJECT: &str = "destination: existing schema";

/// Compares both schemas, keys first.
#[must_use]
pub fn judge(look: &ExistingLook, names: &SetNames, rules: &ScopeRules) -> ExistingView {
    let mut findings: Vec<Finding> =
        drift(&look.source, &look.destination, None, None, names, rules)
            .into_iter()
            .map(|b| Finding::block(&b.code, SUBJECT, b.message, b.hint))
            .collect();
    findings.extend(keys_differ(look));
    findings.extend(unlogged(look));
    findings.extend(not_empty(look));
    findings.extend(schema_differs(look));
    findings.extend(from_outside(look));
    findings.extend(sequences_differ(look));
    let blocked = !findings.is_empty();
    findings.extend(extra_indexes(look));
    findings.extend(grants_differ(look));
    let to_set_aside = if blocked {
        Vec::new()
    } else {
        look.loud.iter().map(|loud| loud.object.clone()).collect()
    };
    ExistingView { findings, to_set_aside }
}

fn keys_differ(look: &ExistingLook) -> Option<Finding> {
    let there: BTreeMap<&TableName, &TableView> =
        look.destination.iter().map(|view| (&view.name, view)).collect();
    let mut differing = Vec::new();
    for here in &look.source {
        let (Key::Usable { columns, .. }, Some(view)) = (&here.key, there.get(&here.name)) else {
            continue;
        };
        match &view.key {
            Key::Usable { columns: on_destination, .. } if on_destination == columns => {}
            Key::Usable { columns: on_destination, .. } => differing.push(format!(
                "{} ({} on the source, {} on the destination)",
                here.name,
                columns.join(", "),
                on_destination.join(", ")
            )),
            Key::Deferrable { .. }
            | Key::Invalid { .. }
            | Key::Ignored { .. }
            | Key::Missing { .. } => {
                differing.push(format!("{} has no usable key on the destination", here.name));
            }
        }
    }
    (!differing.is_empty()).then(|| {
        Finding::block(
            "keys_differ",
            SUBJECT,
            format!("keys are not the same on both sides: {}", first_ten(&differing)),
            "give each table on the destination the primary key or REPLICA IDENTITY of the source: \
             without it updates and deletes cannot be applied",
        )
    })
}

fn unlogged(look: &ExistingLook) -> Option<Finding> {
    let unlogged: Vec<&TableName> =
        look.destination.iter().filter(|view| view.unlogged).map(|view| &view.name).collect();
    let statements: Vec<String> =
        unlogged.iter().map(|name| format!("ALTER TABLE {} SET LOGGED;", table(name))).collect();
    (!unlogged.is_empty()).then(|| {
        Finding::block(
            "unlogged_tables",
            SUBJECT,
            format!(
                "unlogged on the destination, and not replicated back: {}",
                first_ten(&unlogged)
            ),
            statements.join(" "),
        )
    })
}

/// No statement that removes rows is ever printed: the two servers may be exchanged.
fn not_empty(look: &ExistingLook) -> Option<Finding> {
    (!look.with_rows.is_empty()).then(|| {
        Finding::block(
            "destination_not_empty",
            SUBJECT,
            format!("these tables of the destination hold rows: {}", first_ten(&look.with_rows)),
            "check that source and destination are not exchanged; then empty these tables yourself, \
             or use an empty database and schema.mode = \"copy\"",
        )
    })
}

/// Everything of which the two sides do not agree word by word, but for indexes that only add.
fn schema_differs(look: &ExistingLook) -> Option<Finding> {
    let away: BTreeSet<(&str, &TableName, &str)> = look.set_aside.iter().map(key_of).collect();
    let mut known = BTreeSet::new();
    let mut differing = Vec::new();
    for difference in &look.differing {
        let key = (difference.kind.as_str(), &difference.table, difference.name.as_str());
        if !away.contains(&key) {
            known.insert(key);
            differing.push(difference.text.clone());
        }
    }
    for extra in look.extra.iter().filter(|extra| stands_in_the_way(extra)) {
        known.insert((extra.kind.as_str(), &extra.table, extra.name.as_str()));
        differing.push(format!("{} is only on the destination", object(extra)));
    }
    differing.extend(look.defaults.iter().cloned());
    let on_source: BTreeMap<_, &str> =
        look.loud_on_source.iter().map(|loud| (key_of(&loud.object), loud.gist.as_str())).collect();
    for loud in &look.loud {
        let key = key_of(&loud.object);
        if known.contains(&key) {
            continue;
        }
        if loud.own_state {
            differing.push(format!(
                "{} is enabled otherwise than on the table above, which a restore would lose",
                loud.object
            ));
        } else if on_source.get(&key) != Some(&loud.gist.as_str()) {
            differing.push(format!(
                "{} is not the source's in definition, state and comment",
                loud.object
            ));
        }
    }
    (!differing.is_empty()).then(|| {
        Finding::block(
            "schema_differs",
            SUBJECT,
            format!("the destination's schema is not the source's: {}", first_ten(&differing)),
            "make each on the destination as `pg_dump --schema-only` of the source prints it, and drop \
             there what only the destination has; or use an empty database and schema.mode = \"copy\"",
        )
    })
}

fn key_of(object: &SetAside) -> (&str, &TableName, &str) {
    (object.kind.as_str(), &object.table, object.name.as_str())
}

/// What refuses rows, changes them, or hides them; an index or a statistics object only costs.
#[must_use]
pub fn stands_in_the_way(extra: &Difference) -> bool {
    match extra.kind.as_str() {
        "index" => extra.unique,
        "constraint" | "trigger" | "rule" | "policy" | "row security" => true,
        _ => false,
    }
}

fn extra_indexes(look: &ExistingLook) -> Option<Finding> {
    let indexes: Vec<&Difference> =
        look.extra.iter().filter(|extra| extra.kind == "index" && !extra.unique).collect();
    let named: Vec<String> = indexes.iter().map(|index| object(index)).collect();
    let statements: Vec<String> = indexes
        .iter()
        .map(|index| format!("DROP INDEX {}.{};", ident(&index.table.schema), ident(&index.name)))
        .collect();
    (!indexes.is_empty()).then(|| {
        Finding::warn(
            "extra_indexes",
            SUBJECT,
            format!("only on the destination, and kept: {}", first_ten(&named)),
            format!("where they are not wanted: {}", statements.join(" ")),
        )
    })
}

fn from_outside(look: &ExistingLook) -> Option<Finding> {
    let named: Vec<String> =
        look.from_outside.iter().map(|(table, name)| format!("{name} of {table}")).collect();
    let statements: Vec<String> = look
        .from_outside
        .iter()
        .map(|(from, name)| format!("ALTER TABLE {} DROP CONSTRAINT {};", table(from), ident(name)))
        .collect();
    (!named.is_empty()).then(|| {
        Finding::block(
            "foreign_keys_from_outside",
            SUBJECT,
            format!(
                "foreign keys of tables out of scope point to tables that are filled: {}",
                first_ten(&named)
            ),
            format!(
                "on the destination, and add them again after the migration: {}",
                statements.join(" ")
            ),
        )
    })
}

fn sequences_differ(look: &ExistingLook) -> Option<Finding> {
    let [source, destination] = &look.sequences;
    let blocker = sequences::missing(source, destination)
        .or_else(|| sequences::differing(source, destination))?;
    Some(Finding::block(&blocker.code, SUBJECT, blocker.message, blocker.hint))
}

fn grants_differ(look: &ExistingLook) -> Option<Finding> {
    (!look.grants.is_empty()).then(|| {
        Finding::warn(
            "grants_differ",
            SUBJECT,
            format!("owner or privileges differ: {}", first_ten(&look.grants)),
            "grant on the destination what the application needs there before a cutover",
        )
    })
}

fn object(difference: &Difference) -> String {
    struct Named<'a>(&'a Difference);
    impl fmt::Display for Named<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            named(f, &self.0.kind, &self.0.name, &self.0.table)
        }
    }
    Named(difference).to_string()
}

fn named(f: &mut fmt::Formatter<'_>, kind: &str, name: &str, table: &TableName) -> fmt::Result {
    if name.is_empty() {
        write!(f, "{kind} {table}")
    } else {
        write!(f, "{kind} {name} of {table}")
    }
}

#[cfg(test)]
mod tests;
