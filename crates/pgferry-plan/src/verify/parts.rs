//! Cutting a table into ranges of its key, and comparing what was read of each.
//!
//! Only by columns whose order is the same on every server: a collation's is not, and an enum's is
//! what each server was told. A table without such a key is one part.

use crate::scope::{ColumnView, Key, TableView};
use crate::verify::hashing::{base_name, is_alike};

/// What was read of a range on one side.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    /// Rows.
    pub rows: u64,
    /// A sum over the rows' hashes.
    pub sum: String,
    /// Another combination of them: the sum alone does not see two rows with values exchanged.
    pub mixed: String,
}

/// How rows of a table are told from each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// By the columns of its key, in their order.
    Key {
        /// All of them.
        columns: Vec<ColumnView>,
        /// How many of the first can be cut by.
        ordered: usize,
    },
    /// By all that they hold: equal ones are counted.
    Content,
}

/// How rows of a table are told from each other, the key being the same on both sides.
#[must_use]
pub fn identity(here: &TableView, there: &TableView) -> Identity {
    let (Key::Usable { columns, .. }, Key::Usable { columns: other, .. }) = (&here.key, &there.key)
    else {
        return Identity::Content;
    };
    let found: Vec<ColumnView> = columns
        .iter()
        .filter_map(|name| here.columns.iter().find(|column| column.name == *name))
        .cloned()
        .collect();
    let alike = |column: &ColumnView| {
        there.columns.iter().any(|other| other.name == column.name && is_alike(column, other))
    };
    if columns != other || found.len() != columns.len() || found.is_empty() {
        return Identity::Content;
    }
    // A key of another type or order would be looked up, and cut, in another way.
    if !found.iter().all(alike) {
        return Identity::Content;
    }
    let ordered = found.iter().take_while(|column| has_one_order(column)).count();
    Identity::Key { columns: found, ordered }
}

fn has_one_order(column: &ColumnView) -> bool {
    match base_name(&column.type_name).as_str() {
        "smallint"
        | "integer"
        | "bigint"
        | "oid"
        | "uuid"
        | "date"
        | "timestamp without time zone"
        | "timestamp with time zone" => true,
        "text" | "character varying" => column.collation.as_deref() == Some("pg_catalog.\"C\""),
        _ => false,
    }
}

/// Bytes of a table's file that one range is to hold: read in a fraction of a second, so that no
/// statement holds back vacuum or a TRUNCATE for long.
pub const RANGE_BYTES: u64 = 64 << 20;

/// More ranges than this make no statement shorter that matters, and each is a line in a table.
const MOST_RANGES: u64 = 16_384;

/// Into how many ranges a table is cut.
#[must_use]
pub fn ranges(bytes: u64, identity: &Identity) -> u64 {
    match identity {
        Identity::Key { ordered: 1.., .. } => bytes.div_ceil(RANGE_BYTES).clamp(1, MOST_RANGES),
        Identity::Key { .. } | Identity::Content => 1,
    }
}

/// Whether ranges are all that a table was cut into: numbered from zero, open at both ends, each
/// going on where the one before ends. Each is its number, its first key, and the first behind it.
pub fn is_whole<K: PartialEq>(
    ranges: impl IntoIterator<Item = (i32, Option<K>, Option<K>)>,
) -> bool {
    let mut end: Option<Option<K>> = None;
    for (number, (found, from, to)) in (0..).zip(ranges) {
        let joined = match &end {
            None => from.is_none(),
            // Only the last one is open at its end.
            Some(end) => end.is_some() && *end == from,
        };
        if found != number || !joined {
            return false;
        }
        end = Some(to);
    }
    matches!(end, Some(None))
}

/// Into how many buckets a range is cut that differs: a power of two, so that a bucket holds a few
/// hundred rows.
#[must_use]
pub fn buckets(rows: u64) -> u64 {
    (rows / 256).next_power_of_two().clamp(1, 16_384)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::TableName;
    use crate::scope::RowSecurity;

    fn table(columns: &[(&str, &str, Option<&str>)], key: &[&str]) -> TableView {
        let columns =
            columns.iter().enumerate().map(|(at, (name, type_name, collation))| ColumnView {
                name: (*name).to_owned(),
                type_name: (*type_name).to_owned(),
                collation: collation.map(str::to_owned),
                not_null: true,
                generated: None,
                identity: None,
                position: i16::try_from(at + 1).unwrap(),
            });
        TableView {
            oid: 1,
            name: TableName::new("public", "t"),
            owner: "owner".to_owned(),
            columns: columns.collect(),
            key: Key::Usable {
                index: "t_pkey".to_owned(),
                columns: key.iter().map(|name| (*name).to_owned()).collect(),
            },
            relfilenode: 1,
            bytes: 0,
            rows: None,
            row_security: RowSecurity::Off,
            row_security_active: false,
            ancestors: Vec::new(),
            unlogged: false,
        }
    }

    fn ordered(columns: &[(&str, &str, Option<&str>)], key: &[&str]) -> Option<usize> {
        let view = table(columns, key);
        match identity(&view, &view) {
            Identity::Key { ordered, .. } => Some(ordered),
            Identity::Content => None,
        }
    }

    #[test]
    fn a_table_is_cut_by_what_has_one_order_everywhere() {
        assert_eq!(ordered(&[("a", "bigint", None), ("b", "text", None)], &["a", "b"]), Some(1));
        assert_eq!(ordered(&[("a", "text", None)], &["a"]), Some(0));
        assert_eq!(ordered(&[("a", "text", Some("pg_catalog.\"C\""))], &["a"]), Some(1));
        assert_eq!(ordered(&[("a", "public.mood", None)], &["a"]), Some(0));
        assert_eq!(ordered(&[("a", "numeric(10,2)", None)], &["a"]), Some(0));
        assert_eq!(ordered(&[("a", "integer", None)], &["gone"]), None);
    }

    #[test]
    fn keys_that_are_not_the_same_tell_no_rows_apart() {
        let here = table(&[("a", "integer", None), ("b", "integer", None)], &["a"]);
        let there = table(&[("a", "integer", None), ("b", "integer", None)], &["b"]);
        assert_eq!(identity(&here, &there), Identity::Content);
        let otherwise = table(&[("a", "text", None), ("b", "integer", None)], &["a"]);
        assert_eq!(identity(&here, &otherwise), Identity::Content);
        let without = TableView { key: Key::Missing { candidate: None }, ..here.clone() };
        assert_eq!(identity(&here, &without), Identity::Content);
    }

    #[test]
    fn a_plan_of_which_a_piece_is_missing_is_none() {
        let whole = [(0, None, Some(3)), (1, Some(3), Some(7)), (2, Some(7), None)];
        assert!(is_whole(whole));
        assert!(is_whole([(0, None::<i32>, None)]));
        for left in [&whole[..2], &whole[1..], &whole[..0], &[whole[0], whole[2]]] {
            assert!(!is_whole(left.iter().copied()), "{left:?}");
        }
        assert!(!is_whole([(0, None, Some(3)), (1, Some(4), None)]), "a gap");
        assert!(!is_whole([(0, None, None), (1, None, None::<i32>)]), "two plans");
        assert!(!is_whole([(1, None, None::<i32>)]), "the first is not there");
    }

    #[test]
    fn ranges_follow_the_size_and_buckets_the_rows() {
        let key = |ordered| Identity::Key { columns: Vec::new(), ordered };
        assert_eq!(ranges(0, &key(1)), 1);
        assert_eq!(ranges(RANGE_BYTES * 3 + 1, &key(2)), 4);
        assert_eq!(ranges(u64::MAX, &key(1)), MOST_RANGES);
        assert_eq!(ranges(u64::MAX, &key(0)), 1);
        assert_eq!(ranges(u64::MAX, &Identity::Content), 1);
        assert_eq!([buckets(0), buckets(1000), buckets(u64::MAX / 2)], [1, 4, 16_384]);
    }
}
