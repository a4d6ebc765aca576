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
    "FK CONSTRAINT",
    "INDEX",
    "INDEX ATTACH",
    "POLICY",
    "ROW SECURITY",
    "RULE",
    "STATISTICS",
    "TRIGGER",
];

/// What pg_dump puts behind a constraint that it needs, a primary key that it groups by above all.
/// An ordinary view stays where it was, as a dummy, and gets its query as a rule.
const POSTPONABLE: &[&str] = &["DEFAULT", "FUNCTION", "MATERIALIZED VIEW", "PROCEDURE", "VIEW"];

/// What has no place of its own in a listing: it stands behind what it is about.
const FOLLOWERS: &[&str] = &["ACL", "COMMENT", "SECURITY LABEL"];

/// What is never carried: only a superuser may make event triggers and subscriptions, and all
/// three would act on the destination while it follows. pg_dump is told to leave the last two
/// out, but not every version leaves their comments out too.
const LEFT_KINDS: &[&str] = &[
    "EVENT TRIGGER",
    "PUBLICATION",
    "PUBLICATION TABLE",
    "PUBLICATION TABLES IN SCHEMA",
    "SUBSCRIPTION",
    "SUBSCRIPTION TABLE",
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

/// When an entry is restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Before the rows, in one transaction.
    BeforeRows,
    /// After the constraints that it needs, in one transaction with all of its stage.
    Postponed,
    /// After the rows, each by itself.
    AfterRows,
}

/// One line of `pg_restore --list`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    line: String,
    pub(super) object: ObjectId,
    kind: String,
    /// Schema, tag and owner as the listing has them: with blanks between, `-` for no schema.
    rest: String,
    pub(super) stage: Stage,
}

/// The entries of a listing, in its order, which is one that a restore could follow. Lines that
/// begin with `;` are comments.
pub(super) fn parse(listing: &str) -> Vec<Entry> {
    let mut entries: Vec<Entry> = listing.lines().filter_map(Entry::parse).collect();
    set_stages(&mut entries);
    entries
}

fn set_stages(entries: &mut [Entry]) {
    let mut rows_are_behind = false;
    let mut stage = Stage::BeforeRows;
    for entry in entries.iter_mut() {
        let kind = entry.kind.as_str();
        if !FOLLOWERS.contains(&kind) {
            stage = if AFTER_ROWS.contains(&kind) {
                rows_are_behind = true;
                Stage::AfterRows
            } else if rows_are_behind && POSTPONABLE.contains(&kind) {
                Stage::Postponed
            } else {
                Stage::BeforeRows
            };
        }
        entry.stage = stage;
    }
    // Default privileges would add to the grants of whatever is made after them.
    if entries.iter().any(|entry| entry.stage == Stage::Postponed) {
        for entry in entries.iter_mut().filter(|entry| entry.kind == "DEFAULT ACL") {
            entry.stage = Stage::Postponed;
        }
    }
}

/// What must be there before the postponed are made: every entry after the rows that stands before
/// the last of them. Empty in most dumps.
pub(super) fn before_postponed(entries: &[Entry]) -> &[Entry] {
    let last = entries.iter().rposition(|entry| entry.is_postponed_object()).unwrap_or(0);
    &entries[..last]
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
        let stage = Stage::BeforeRows;
        Some(Self { line: line.to_owned(), object, kind: kind.to_owned(), rest, stage })
    }

    /// Is of a kind that is never carried, belongs to pgferry, pglogical or the system, or is one
    /// of pglogical's triggers on a user's table.
    pub(super) fn stays_behind(&self) -> bool {
        let within = |text: &str| LEFT_SCHEMAS.iter().any(|name| is_or_begins(text, name));
        if within(&self.rest) || LEFT_KINDS.contains(&self.kind.as_str()) {
            return true;
        }
        if self.kind == "TRIGGER" && self.rest.contains(" queue_truncate_trigger_") {
            return true;
        }
        let Some(tag) = self.rest.strip_prefix("- ") else { return false };
        match self.kind.as_str() {
            "SCHEMA" | "EXTENSION" => within(tag),
            kind => {
                let about = |what: &str| tag.strip_prefix(what).and_then(|t| t.strip_prefix(' '));
                ["SCHEMA", "EXTENSION"].iter().any(|what| about(what).is_some_and(within))
                    || (FOLLOWERS.contains(&kind)
                        && LEFT_KINDS.iter().any(|what| about(what).is_some()))
            }
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

    /// Makes a postponed object that [`super::look`] can find: when all of these are there, so is
    /// all of the stage.
    pub(super) fn is_postponed_object(&self) -> bool {
        self.stage == Stage::Postponed
            && POSTPONABLE.contains(&self.kind.as_str())
            && self.kind != "DEFAULT"
    }

    /// Makes an index part of a partitioned one. It has no object of its own, and may be repeated.
    pub(super) fn attaches_an_index(&self) -> bool {
        self.kind == "INDEX ATTACH"
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
3506; 0 0 COMMENT shop TABLE orders app
216; 1259 16601 TABLE FK oddly app
3300; 2606 16700 CONSTRAINT shop orders orders_pkey app
3505; 0 0 COMMENT shop INDEX orders_pkey app
3301; 2606 16701 FK CONSTRAINT shop items items_order_fkey app
3302; 2620 16702 TRIGGER shop orders queue_truncate_trigger_16600 postgres
3303; 0 16600 ROW SECURITY shop orders app
2096; 826 16480 DEFAULT ACL - DEFAULT PRIVILEGES FOR TABLES app
3259; 3466 16452 EVENT TRIGGER - guard postgres
3452; 0 0 COMMENT - EVENT TRIGGER guard postgres
3453; 0 0 COMMENT - PUBLICATION feed postgres
";

    /// As pg_dump 15 lists a materialized view and a function that group by a primary key.
    const POSTPONED: &str = "\
217; 1259 16409 VIEW public v app
3437; 0 0 COMMENT public VIEW v app
3260; 2604 16428 DEFAULT public v id app
3264; 2606 16392 CONSTRAINT public c c_pkey app
243; 1255 16441 FUNCTION public f(integer, text) app
3444; 0 0 ACL public FUNCTION f(a integer, b text) app
219; 1259 16417 MATERIALIZED VIEW public m app
3445; 0 0 COMMENT public MATERIALIZED VIEW m app
227; 1259 16474 TABLE public odd app
3266; 2606 16399 CONSTRAINT public o o_pkey app
3267; 1259 16423 INDEX public m_id app
3450; 0 0 COMMENT public INDEX m_id app
3419; 2618 16412 RULE public v _RETURN app
2096; 826 16480 DEFAULT ACL - DEFAULT PRIVILEGES FOR TABLES app
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
        assert_eq!(ours, ["7", "2", "3503", "3504", "3302", "3259", "3452", "3453"]);
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
        assert_eq!(entry("FK CONSTRAINT").stage, Stage::AfterRows);
        assert_eq!(entry("COMMENT shop INDEX").stage, Stage::AfterRows);
        assert_eq!(entry("COMMENT shop TABLE").stage, Stage::BeforeRows);
        assert_eq!(entry("TABLE FK oddly").stage, Stage::BeforeRows);
        assert_eq!(entry("DEFAULT ACL").stage, Stage::BeforeRows);
    }

    #[test]
    fn what_pg_dump_postpones_is_made_after_the_keys() {
        let entries = parse(POSTPONED);
        let ids = |wanted: Stage| -> Vec<&str> {
            entries
                .iter()
                .filter(|entry| entry.stage == wanted)
                .filter_map(|entry| entry.line.split(';').next())
                .collect()
        };
        assert_eq!(ids(Stage::BeforeRows), ["217", "3437", "3260", "227"]);
        assert_eq!(ids(Stage::Postponed), ["243", "3444", "219", "3445", "2096"]);
        assert_eq!(ids(Stage::AfterRows), ["3264", "3266", "3267", "3450", "3419"]);
        assert_eq!(before_postponed(&entries).len(), 6);
        assert!(before_postponed(&parse(LISTING)).is_empty());
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
