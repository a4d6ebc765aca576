//! How the hash of a row is written in SQL, the same for both servers.
//!
//! Which column enters it how is judged in `pgferry-plan`.

use pgferry_plan::scope::TableView;
use pgferry_plan::verify::hashing::{Hashing, OfColumn, OfRow, compared, of_columns};
use pgferry_plan::verify::parts::{Identity, identity};

use crate::quote::ident;

/// Columns that are hashed one by one. The others of a wide table go into one record: each is a level
/// of an expression, whose depth the server bounds (`max_stack_depth`).
const MOST_ONE_BY_ONE: usize = 64;

/// Stands for the hash of a NULL, each column's plus its position.
const NULL_HASH: u64 = 7_046_029_254_386_353_087;

/// The hash of a table's rows, of the columns that both sides have.
#[derive(Debug)]
pub(super) struct RowHash {
    pub(super) hashing: Hashing,
    columns: Vec<Column>,
}

#[derive(Debug)]
struct Column {
    name: String,
    how: OfColumn,
    /// Of the key, and so never NULL. Others that are NOT NULL may still hold what was there before.
    of_key: bool,
}

impl RowHash {
    pub(super) fn new(here: &TableView, there: &TableView, hashing: Hashing) -> Self {
        let key: Vec<String> = match identity(here, there) {
            Identity::Key { columns, .. } => {
                columns.into_iter().map(|column| column.name).collect()
            }
            Identity::Content => Vec::new(),
        };
        let columns = compared(&here.columns, &there.columns)
            .map(|(column, other)| Column {
                name: column.name.clone(),
                how: of_columns(column, other, hashing),
                of_key: key.contains(&column.name),
            })
            .collect();
        Self { hashing, columns }
    }

    /// The names of the columns.
    pub(super) fn column_names(&self) -> impl Iterator<Item = &String> {
        self.columns.iter().map(|column| &column.name)
    }

    /// The hash of a row `t`. Two seeds make two hashes, where one has too few bits.
    pub(super) fn hash(&self, seed: u8) -> String {
        match self.hashing.of_row {
            OfRow::Seeded => self.seeded(),
            OfRow::Text | OfRow::Digest => {
                let columns: Vec<String> =
                    self.columns.iter().map(|column| self.in_record(column)).collect();
                self.text_hash(&format!("ROW({})::text", columns.join(", ")), seed)
            }
        }
    }

    /// The hash of each column of a row `t`, by its text.
    pub(super) fn hash_of_each(&self) -> Vec<String> {
        let hash = |column: &Column| self.text_hash(&self.as_text(column), 0);
        self.columns.iter().map(hash).collect()
    }

    /// What each column of a row `t` holds, to be shown.
    pub(super) fn texts(&self) -> impl Iterator<Item = String> {
        self.columns.iter().map(|column| match column.how {
            OfColumn::Padded | OfColumn::PaddedText => padded(&column.name),
            OfColumn::Printed => printed(&column.name),
            OfColumn::Seeded { .. }
            | OfColumn::Folded
            | OfColumn::InRecord
            | OfColumn::Sent(_)
            | OfColumn::Text => format!("{}::text", value(column)),
        })
    }

    /// The hash of a text.
    pub(super) fn text_hash(&self, text: &str, seed: u8) -> String {
        match self.hashing.of_row {
            OfRow::Digest => {
                let from = 1 + 16 * u32::from(seed.min(1));
                format!("('x' || substr(pg_catalog.md5({text}), {from}, 16))::bit(64)::bigint")
            }
            OfRow::Seeded | OfRow::Text if self.hashing.recoded => format!(
                "pg_catalog.hashtextextended(pg_catalog.encode(pg_catalog.convert_to({text}, 'UTF8'), \
                 'hex'), {seed})"
            ),
            OfRow::Seeded | OfRow::Text => {
                format!("pg_catalog.hashtextextended(({text}) COLLATE \"C\", {seed})")
            }
        }
    }

    /// Columns beside the key are hashed alone, each with a seed of its own, and put together by
    /// exclusive-or. That is the seed of the key's first column, whose hash is the seed of its next,
    /// so that two rows that have exchanged a value add up to something else. A record is one of those
    /// alone: of a record of NULLs alone the hash does not depend on the seed (seen).
    fn seeded(&self) -> String {
        let (mut alone, mut chained, mut recorded) = (Vec::new(), Vec::new(), Vec::new());
        for (position, column) in self.columns.iter().enumerate() {
            match self.seeded_column(column, &position.to_string()) {
                Some(hash) if position < MOST_ONE_BY_ONE => {
                    if column.of_key {
                        chained.push(column);
                    } else {
                        let of_null = NULL_HASH + position as u64;
                        alone.push(format!("coalesce({hash}, {of_null})"));
                    }
                }
                Some(_) | None => recorded.push(self.in_record(column)),
            }
        }
        if !recorded.is_empty() {
            let record = recorded.join(", ");
            alone.push(format!("pg_catalog.hash_record_extended(ROW({record}), 0)"));
        }
        let mut hash = if alone.is_empty() { "0".to_owned() } else { alone.join(" # ") };
        if chained.is_empty() {
            return format!("pg_catalog.hashint4extended(0, {hash})");
        }
        for column in chained {
            if let Some(next) = self.seeded_column(column, &hash) {
                hash = next;
            }
        }
        hash
    }

    /// None for a column that enters in a record only.
    fn seeded_column(&self, column: &Column, seed: &str) -> Option<String> {
        match column.how {
            OfColumn::PaddedText | OfColumn::Printed | OfColumn::Text => {
                Some(format!("pg_catalog.hashtextextended({}, {seed})", self.as_text(column)))
            }
            OfColumn::Seeded { .. }
            | OfColumn::Folded
            | OfColumn::Padded
            | OfColumn::InRecord
            | OfColumn::Sent(_) => column.how.seeded(&value(column), seed),
        }
    }

    fn in_record(&self, column: &Column) -> String {
        column.how.in_record(&value(column)).unwrap_or_else(|| self.as_text(column))
    }

    fn as_text(&self, column: &Column) -> String {
        let own = value(column);
        let text = match column.how {
            OfColumn::Padded | OfColumn::PaddedText => {
                format!("({} COLLATE \"C\")", padded(&column.name))
            }
            // Of one column, so that NULL and what prints as nothing are told apart.
            OfColumn::Printed => format!("(ROW({own})::text COLLATE \"C\")"),
            OfColumn::Seeded { .. }
            | OfColumn::Folded
            | OfColumn::InRecord
            | OfColumn::Sent(_)
            | OfColumn::Text => format!("({own}::text COLLATE \"C\")"),
        };
        if self.hashing.recoded {
            format!("pg_catalog.encode(pg_catalog.convert_to({text}, 'UTF8'), 'hex')")
        } else {
            text
        }
    }
}

/// The text of a padded column of a row `t`, with its blanks.
pub(super) fn padded(name: &str) -> String {
    format!("pg_catalog.textin(pg_catalog.bpcharout(t.{}))", ident(name))
}

/// What a column's output function prints. A composite whose fields are all NULL is itself none.
pub(super) fn printed(name: &str) -> String {
    let own = ident(name);
    format!("CASE WHEN pg_catalog.num_nulls(t.{own}) = 0 THEN pg_catalog.concat(t.{own}) END")
}

fn value(column: &Column) -> String {
    format!("t.{}", ident(&column.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const AS_THEY_ARE: Hashing =
        Hashing { of_row: OfRow::Seeded, as_they_are: true, recoded: false };

    fn hash(columns: &[(&str, OfColumn, bool)], hashing: Hashing) -> String {
        let column = |&(name, how, of_key): &(&str, OfColumn, bool)| Column {
            name: name.to_owned(),
            how,
            of_key,
        };
        RowHash { hashing, columns: columns.iter().map(column).collect() }.hash(0)
    }

    const INTEGER: OfColumn = OfColumn::Seeded { function: "hashint4extended", cast: "" };

    #[test]
    fn what_is_beside_the_key_seeds_the_key() {
        let row = hash(
            &[
                ("a", INTEGER, true),
                ("b", INTEGER, false),
                ("c", OfColumn::Padded, false),
                ("d", OfColumn::Sent("time_send"), false),
            ],
            AS_THEY_ARE,
        );
        assert_eq!(
            row,
            "pg_catalog.hashint4extended(t.\"a\", \
             coalesce(pg_catalog.hashint4extended(t.\"b\", 1), 7046029254386353088) # \
             coalesce(pg_catalog.hashbpcharextended(t.\"c\" COLLATE \"C\", \
             (2) # pg_catalog.octet_length(t.\"c\")), 7046029254386353089) # \
             pg_catalog.hash_record_extended(ROW(pg_catalog.time_send(t.\"d\")), 0))"
        );
    }

    #[test]
    fn columns_without_a_key_are_mixed_once_more() {
        let row = hash(&[("a", INTEGER, false), ("b", INTEGER, false)], AS_THEY_ARE);
        assert!(row.starts_with("pg_catalog.hashint4extended(0, coalesce("), "{row}");
        assert!(row.contains(" # coalesce("), "{row}");
    }

    #[test]
    fn a_wide_table_is_no_deep_expression() {
        let names: Vec<String> = (0..1600).map(|number| format!("c{number}")).collect();
        let columns: Vec<_> = names.iter().map(|name| (name.as_str(), INTEGER, true)).collect();
        let row = hash(&columns, AS_THEY_ARE);
        assert_eq!(row.matches("hashint4extended").count(), MOST_ONE_BY_ONE);
        assert_eq!(row.matches("t.\"c").count(), 1600);
        assert_eq!(row.matches("hash_record_extended").count(), 1);
    }

    #[test]
    fn older_servers_hash_the_whole_text() {
        let text = Hashing { of_row: OfRow::Text, as_they_are: false, recoded: false };
        let row = hash(&[("a", OfColumn::Text, true), ("b", OfColumn::PaddedText, false)], text);
        assert!(row.starts_with("pg_catalog.hashtextextended((ROW((t.\"a\"::text"), "{row}");
        assert!(!row.contains("coalesce"), "{row}");
    }
}
