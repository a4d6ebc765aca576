//! The table of contents of a dump: which entries are restored, and which are left out.
//!
//! Pure. Entries are known by the source's object ids wherever the dump has them, because names in
//! a listing are not quoted and may hold blanks.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::OUR_SCHEMAS;

/// `pg_namespace`'s own oid, the same in every cluster.
const SCHEMA_CLASS: u32 = 2615;

/// Kinds of more than one word; a kind and a schema's name are told apart by this list.
const LONG_KINDS: &[&str] = &[
    "ACCESS METHOD",
    "BLOB COMMENTS",
    "BLOB METADATA",
    "CHECK CONSTRAINT",
    "DATABASE PROPERTIES",
    "DEFAULT ACL",
    "DUMMY TYPE",
    "EVENT TRIGGER",
    "FK CONSTRAINT",
    "FOREIGN DATA WRAPPER",
    "FOREIGN TABLE",
    "INDEX ATTACH",
    "LARGE OBJECT",
    "MATERIALIZED VIEW",
    "MATERIALIZED VIEW DATA",
    "OPERATOR CLASS",
    "OPERATOR FAMILY",
    "PROCEDURAL LANGUAGE",
    "PUBLICATION TABLE",
    "PUBLICATION TABLES IN SCHEMA",
    "ROW SECURITY",
    "SECURITY LABEL",
    "SEQUENCE OWNED BY",
    "SEQUENCE SET",
    "SHELL TYPE",
    "STATISTICS DATA",
    "SUBSCRIPTION TABLE",
    "TABLE ATTACH",
    "TABLE DATA",
    "TEXT SEARCH CONFIGURATION",
    "TEXT SEARCH DICTIONARY",
    "TEXT SEARCH PARSER",
    "TEXT SEARCH TEMPLATE",
    "USER MAPPING",
];

/// What is made after the rows. Chosen here and not by `--section`: with `--use-list` that option
/// drops comments and grants whose object is not in the list (seen).
const AFTER_ROWS: &[&str] = &[
    "CHECK CONSTRAINT",
    "CONSTRAINT",
    "EVENT TRIGGER",
    "FK CONSTRAINT",
    "INDEX",
    "INDEX ATTACH",
    "POLICY",
    "ROW SECURITY",
    "RULE",
    "STATISTICS",
    "TRIGGER",
];

/// Schemas whose objects are not carried: ours, and the system's, which a dump mentions only for
/// grants that an administrator made, and that fail for whoever is none.
const LEFT_SCHEMAS: [&str; 4] =
    [OUR_SCHEMAS[0], OUR_SCHEMAS[1], "pg_catalog", "information_schema"];

/// An object of the source: its catalog's oid, and its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ObjectId {
    pub(super) class: u32,
    pub(super) object: u32,
}

/// Schemas that the destination has already: the source's oid and name of each.
pub(super) struct SchemasThere(pub(super) BTreeMap<u32, String>);

/// One line of `pg_restore --list`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    line: String,
    pub(super) object: ObjectId,
    kind: String,
    /// Schema, tag and owner as the listing has them: with blanks between, `-` for no schema.
    rest: String,
}

/// The entries of a listing, in its order. Lines that begin with `;` are comments.
pub(super) fn parse(listing: &str) -> Vec<Entry> {
    listing.lines().filter_map(Entry::parse).collect()
}

/// A listing for `--use-list`.
pub(super) fn list<'a>(entries: impl Iterator<Item = &'a Entry>) -> String {
    let mut text = String::new();
    for entry in entries {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}", entry.line);
    }
    text
}

impl Entry {
    fn parse(line: &str) -> Option<Self> {
        let (id, after) = line.split_once("; ")?;
        id.parse::<u32>().ok()?;
        let (class, after) = after.split_once(' ')?;
        let (object, after) = after.split_once(' ')?;
        let object = ObjectId { class: class.parse().ok()?, object: object.parse().ok()? };
        let kind = LONG_KINDS
            .iter()
            .filter(|kind| after.strip_prefix(**kind).is_some_and(|rest| rest.starts_with(' ')))
            .max_by_key(|kind| kind.len())
            .copied()
            .or_else(|| after.split(' ').next())?;
        let rest = after[kind.len()..].trim_start().to_owned();
        Some(Self { line: line.to_owned(), object, kind: kind.to_owned(), rest })
    }

    /// Belongs to pgferry, pglogical or the system, or is one of pglogical's triggers on a user's
    /// table.
    pub(super) fn stays_behind(&self) -> bool {
        let within = |text: &str| LEFT_SCHEMAS.iter().any(|name| is_or_begins(text, name));
        if within(&self.rest) {
            return true;
        }
        if self.kind == "TRIGGER" && self.rest.contains(" queue_truncate_trigger_") {
            return true;
        }
        let Some(tag) = self.rest.strip_prefix("- ") else { return false };
        match self.kind.as_str() {
            "SCHEMA" | "EXTENSION" => within(tag),
            _ => ["SCHEMA ", "EXTENSION "]
                .iter()
                .any(|what| tag.strip_prefix(what).is_some_and(within)),
        }
    }

    /// Exists on the destination before anything is restored, or belongs to who made it there:
    /// schemas and their comments, and the comments of extensions, which come with these.
    pub(super) fn is_already_there(&self, schemas: &SchemasThere) -> bool {
        match self.kind.as_str() {
            "SCHEMA" => {
                self.object.class == SCHEMA_CLASS && schemas.0.contains_key(&self.object.object)
            }
            "COMMENT" => {
                let tag = |what: &str| self.rest.strip_prefix(what);
                tag("- EXTENSION ").is_some()
                    || tag("- SCHEMA ")
                        .is_some_and(|text| schemas.0.values().any(|name| is_or_begins(text, name)))
            }
            _ => false,
        }
    }

    /// Is made after the rows, or is about something that is. A comment may be taken for one of
    /// these because of its object's name; it is then written later, and as well.
    pub(super) fn is_after_rows(&self) -> bool {
        match self.kind.as_str() {
            "COMMENT" | "SECURITY LABEL" => {
                AFTER_ROWS.iter().any(|kind| self.rest.contains(&format!(" {kind} ")))
            }
            kind => AFTER_ROWS.contains(&kind),
        }
    }

    /// Makes a schema or grants on one: what an owner needs before a table can be his.
    pub(super) fn is_about_schemas(&self) -> bool {
        self.kind == "SCHEMA" || (self.kind == "ACL" && self.rest.starts_with("- SCHEMA "))
    }
}

/// `text` is `name`, or goes on with a blank after it.
fn is_or_begins(text: &str, name: &str) -> bool {
    text.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: &str = "\
;
; Archive created at 2026-11-21 06:00:00 UTC
;     dbname: orders
;
6; 2615 16400 SCHEMA - shop app
7; 2615 16401 SCHEMA - pgferry pgferry
8; 2615 2200 SCHEMA - public pg_database_owner
3500; 0 0 COMMENT - SCHEMA public pg_database_owner
3501; 0 0 ACL - SCHEMA shop app
2; 3079 16500 EXTENSION - pglogical 
3; 3079 16501 EXTENSION - pgcrypto 
3502; 0 0 COMMENT - EXTENSION pgcrypto 
3503; 0 0 ACL pglogical FUNCTION create_node(node_name name, dsn text) postgres
3504; 0 0 ACL pg_catalog FUNCTION pg_replication_origin_create(text) postgres
215; 1259 16600 TABLE shop orders app
216; 1259 16601 TABLE FK oddly app
3300; 2606 16700 CONSTRAINT shop orders orders_pkey app
3301; 2606 16701 FK CONSTRAINT shop items items_order_fkey app
3302; 2620 16702 TRIGGER shop orders queue_truncate_trigger_16600 postgres
3303; 0 16600 ROW SECURITY shop orders app
3505; 0 0 COMMENT shop INDEX orders_pkey app
3506; 0 0 COMMENT shop TABLE orders app
";

    fn entry(text: &str) -> Entry {
        let found = parse(LISTING).into_iter().find(|entry| entry.line.contains(text));
        found.unwrap_or_else(|| panic!("no entry with {text}"))
    }

    #[test]
    fn every_line_but_comments_is_an_entry() {
        let entries = parse(LISTING);
        assert_eq!(entries.len(), LISTING.lines().filter(|line| !line.starts_with(';')).count());
        let long = entry("items_order_fkey");
        assert_eq!(long.kind, "FK CONSTRAINT");
        assert_eq!(long.object, ObjectId { class: 2606, object: 16701 });
        assert_eq!(long.rest, "shop items items_order_fkey app");
        assert_eq!(entry("TABLE FK oddly").kind, "TABLE");
        assert_eq!(entry("ROW SECURITY").object, ObjectId { class: 0, object: 16600 });
    }

    #[test]
    fn what_is_ours_stays_behind() {
        let ours: Vec<String> = parse(LISTING)
            .into_iter()
            .filter(Entry::stays_behind)
            .map(|entry| entry.line.split(';').next().unwrap_or_default().to_owned())
            .collect();
        assert_eq!(ours, ["7", "2", "3503", "3504", "3302"]);
    }

    #[test]
    fn schemas_of_the_destination_are_not_made_again() {
        let there = SchemasThere(BTreeMap::from([(2200, "public".to_owned())]));
        assert!(entry("SCHEMA - public").is_already_there(&there));
        assert!(entry("COMMENT - SCHEMA public").is_already_there(&there));
        assert!(entry("COMMENT - EXTENSION").is_already_there(&there));
        assert!(!entry("SCHEMA - shop").is_already_there(&there));
        assert!(!entry("ACL - SCHEMA shop").is_already_there(&there));
    }

    #[test]
    fn comments_follow_their_objects() {
        assert!(entry("FK CONSTRAINT").is_after_rows());
        assert!(entry("COMMENT shop INDEX").is_after_rows());
        assert!(!entry("COMMENT shop TABLE").is_after_rows());
        assert!(!entry("TABLE FK oddly").is_after_rows());
    }

    #[test]
    fn grants_on_schemas_come_first() {
        assert!(entry("SCHEMA - shop").is_about_schemas());
        assert!(entry("ACL - SCHEMA shop").is_about_schemas());
        assert!(!entry("TABLE shop orders").is_about_schemas());
    }

    #[test]
    fn a_listing_is_written_as_it_was_read() {
        let entries = parse(LISTING);
        assert_eq!(parse(&list(entries.iter())), entries);
    }
}
