//! Which columns are hashed as they are, and which through their text.
//!
//! A hash of PostgreSQL's answers for equality, and equality hides differences: 1.0 and 1.00, -0
//! and 0, `1 day` and `24:00:00`, padding, case in citext, the bounds of an array. So a column is
//! hashed as it is only when equal hashes mean equal text. A domain, an array, a composite, a range
//! and an enum go by their text: `hash_array` reads neither bounds nor dimensions, and an enum's hash
//! is that of its OID, which is another one on the other server.
//!
//! A type whose hash function can be called goes without a record: `hash_record_extended` builds and
//! takes apart a row for each of the table's, which costs more than the hashes of three numbers (seen).

use crate::scope::{ColumnView, Generated};

/// What of a server decides how rows are hashed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTraits {
    /// The major version.
    pub major: u32,
    /// `server_encoding`
    pub encoding: String,
    /// What its hash functions answer for constants.
    pub probe: String,
}

/// How both servers hash a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hashing {
    /// The function over a whole row.
    pub of_row: OfRow,
    /// Columns whose type is on the list are hashed as they are.
    pub as_they_are: bool,
    /// Text is hashed in one encoding, because the servers store it in two.
    pub recoded: bool,
}

/// The functions over a whole row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OfRow {
    /// The types' own with a seed, and `hash_record_extended`, which is from PostgreSQL 14 on.
    Seeded,
    /// `hashtextextended` of the row's text.
    Text,
    /// `md5` of the row's text: the two servers' own hash functions do not agree.
    Digest,
}

/// How one column enters the hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OfColumn {
    /// By its type's function of a value and a seed, behind a cast that loses nothing.
    Seeded {
        /// A function in `pg_catalog`.
        function: &'static str,
        /// Stands behind the value.
        cast: &'static str,
    },
    /// By its type's function, which folds 64 bits into 32 before it mixes them, and as it is.
    Folded,
    /// By its type's function, which leaves its padding out, and its length.
    Padded,
    /// In a record, as it is: no statement can call its type's function.
    InRecord,
    /// In a record, in its binary form: the type's function folds 64 bits into 32.
    Sent(&'static str),
    /// As its text; `text` of a padded type strips what its output function prints.
    PaddedText,
    /// As its output function prints it. What a cast to `text` does with a type that is not PostgreSQL's
    /// own is not known: one of a domain over a padded type strips, and a cast can be made by anybody.
    Printed,
    /// As its text.
    Text,
}

impl OfColumn {
    /// The hash of a value with a seed, both as SQL. None for what enters as text, or in a record only.
    #[must_use]
    pub fn seeded(self, value: &str, seed: &str) -> Option<String> {
        match self {
            Self::Seeded { function, cast } => {
                Some(format!("pg_catalog.{function}({value}{cast}, {seed})"))
            }
            Self::Folded => {
                Some(format!("({value} # pg_catalog.hashint8extended({value}, {seed}))"))
            }
            Self::Padded => Some(format!(
                "pg_catalog.hashbpcharextended({value} COLLATE \"C\", \
                 ({seed}) # pg_catalog.octet_length({value}))"
            )),
            Self::InRecord | Self::Sent(_) | Self::PaddedText | Self::Printed | Self::Text => None,
        }
    }

    /// What of a value, as SQL, enters a record. None for what enters as text.
    #[must_use]
    pub fn in_record(self, value: &str) -> Option<String> {
        match self {
            Self::Seeded { .. } | Self::InRecord => Some(value.to_owned()),
            Self::Folded => Some(format!("pg_catalog.int8send({value})")),
            Self::Sent(function) => Some(format!("pg_catalog.{function}({value})")),
            Self::Padded | Self::PaddedText | Self::Printed | Self::Text => None,
        }
    }
}

/// The function that both servers can compute, and agree on.
#[must_use]
pub fn hashing(source: &ServerTraits, destination: &ServerTraits) -> Hashing {
    let recoded = source.encoding != destination.encoding;
    let of_row = match (source.major.min(destination.major), source.probe == destination.probe) {
        (_, false) => OfRow::Digest,
        (14.., true) => OfRow::Seeded,
        (_, true) => OfRow::Text,
    };
    let same_major = source.major == destination.major;
    Hashing { of_row, as_they_are: of_row == OfRow::Seeded && same_major && !recoded, recoded }
}

/// How a column is hashed, as both sides have it: what is not of one type on both is printed on both.
#[must_use]
pub fn of_columns(here: &ColumnView, there: &ColumnView, hashing: Hashing) -> OfColumn {
    if is_alike(here, there) { of_column(here, hashing) } else { OfColumn::Printed }
}

/// Whether a column holds, and orders, the same values on both sides.
pub(crate) fn is_alike(here: &ColumnView, there: &ColumnView) -> bool {
    base_name(&here.type_name) == base_name(&there.type_name) && here.collation == there.collation
}

/// How a column is hashed.
#[must_use]
pub fn of_column(column: &ColumnView, hashing: Hashing) -> OfColumn {
    let name = base_name(&column.type_name);
    let padded = is_padded(&name);
    if is_foreign(&name) {
        return OfColumn::Printed;
    }
    // A collation of its own may be one under which different texts are equal.
    if !hashing.as_they_are || column.collation.is_some() {
        return if padded { OfColumn::PaddedText } else { OfColumn::Text };
    }
    let seeded = |function, cast| OfColumn::Seeded { function, cast };
    match name.as_str() {
        "character" | "bpchar" => OfColumn::Padded,
        "boolean" => seeded("hashint4extended", "::integer"),
        "smallint" => seeded("hashint2extended", ""),
        "integer" => seeded("hashint4extended", ""),
        "oid" => seeded("hashoidextended", ""),
        "\"char\"" => seeded("hashcharextended", ""),
        "uuid" => seeded("uuid_hash_extended", ""),
        "text" | "character varying" => seeded("hashtextextended", " COLLATE \"C\""),
        "name" => seeded("hashnameextended", ""),
        "bigint" => OfColumn::Folded,
        "bytea" | "date" => OfColumn::InRecord,
        "time without time zone" => OfColumn::Sent("time_send"),
        "timestamp without time zone" => OfColumn::Sent("timestamp_send"),
        "timestamp with time zone" => OfColumn::Sent("timestamptz_send"),
        _ => OfColumn::Text,
    }
}

/// `character(n)`, or what it is called without a length.
#[must_use]
pub fn is_padded(base_name: &str) -> bool {
    matches!(base_name, "character" | "bpchar")
}

/// A type that is not PostgreSQL's own: its name comes with its schema. Arrays of such are printed by
/// whatever casts them.
#[must_use]
pub fn is_foreign(base_name: &str) -> bool {
    base_name.contains('.') && !base_name.ends_with("[]")
}

/// The columns that are compared, as both sides have them: what a read computes is not stored anywhere.
pub fn compared<'a>(
    here: &'a [ColumnView],
    there: &'a [ColumnView],
) -> impl Iterator<Item = (&'a ColumnView, &'a ColumnView)> {
    here.iter()
        .filter(|column| column.generated != Some(Generated::Virtual))
        .filter_map(|column| Some((column, there.iter().find(|other| other.name == column.name)?)))
}

/// The type's name without its modifiers: `timestamp(3) without time zone` is one of a timestamp.
#[must_use]
pub fn base_name(type_name: &str) -> String {
    // An array's brackets stay, so that it is none of the plain types. Modifiers never nest.
    match (type_name.find('('), type_name.find(')')) {
        (Some(open), Some(close)) if open < close => {
            format!("{}{}", &type_name[..open], &type_name[close + 1..])
        }
        (_, _) => type_name.to_owned(),
    }
}

/// The type to which a key's text is cast: without modifiers, which would cut it.
#[must_use]
pub fn cast_name(type_name: &str) -> String {
    match base_name(type_name).as_str() {
        // By these names alone the types of length one would be meant.
        "character" => "pg_catalog.bpchar".to_owned(),
        "bit" => "pg_catalog.varbit".to_owned(),
        name => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(type_name: &str, collation: Option<&str>) -> ColumnView {
        ColumnView {
            name: "c".to_owned(),
            type_name: type_name.to_owned(),
            collation: collation.map(str::to_owned),
            not_null: false,
            generated: None,
            identity: None,
            position: 1,
        }
    }

    fn server(major: u32, encoding: &str, probe: &str) -> ServerTraits {
        ServerTraits { major, encoding: encoding.to_owned(), probe: probe.to_owned() }
    }

    #[test]
    fn only_what_is_proven_is_hashed_as_it_is() {
        let same = hashing(&server(15, "UTF8", "a"), &server(15, "UTF8", "a"));
        assert_eq!(same, Hashing { of_row: OfRow::Seeded, as_they_are: true, recoded: false });
        for (type_name, wanted) in [
            ("integer", OfColumn::Seeded { function: "hashint4extended", cast: "" }),
            (
                "character varying(20)",
                OfColumn::Seeded { function: "hashtextextended", cast: " COLLATE \"C\"" },
            ),
            ("bigint", OfColumn::Folded),
            ("date", OfColumn::InRecord),
            ("timestamp(3) without time zone", OfColumn::Sent("timestamp_send")),
            ("character(5)", OfColumn::Padded),
            ("integer[]", OfColumn::Text),
            ("character varying(20)[]", OfColumn::Text),
            ("numeric(10,2)", OfColumn::Text),
            ("double precision", OfColumn::Text),
            ("interval", OfColumn::Text),
            ("jsonb", OfColumn::Text),
            ("bpchar", OfColumn::Padded),
            ("public.citext", OfColumn::Printed),
            ("public.citext[]", OfColumn::Text),
            ("public.\"integer\"", OfColumn::Printed),
        ] {
            assert_eq!(of_column(&column(type_name, None), same), wanted, "{type_name}");
        }
        assert_eq!(of_column(&column("text", Some("public.ci")), same), OfColumn::Text);
        assert_eq!(of_column(&column("character(5)", Some("x")), same), OfColumn::PaddedText);
    }

    #[test]
    fn what_is_not_of_one_type_on_both_sides_is_printed_on_both() {
        let same = hashing(&server(15, "UTF8", "a"), &server(15, "UTF8", "a"));
        let of = |here, there| of_columns(&here, &there, same);
        assert_eq!(of(column("date", None), column("date", None)), OfColumn::InRecord);
        assert_eq!(of(column("date", None), column("text", None)), OfColumn::Printed);
        assert_eq!(of(column("text", None), column("text", Some("public.ci"))), OfColumn::Printed);
        assert_eq!(of(column("numeric(3)", None), column("numeric", None)), OfColumn::Text);
    }

    #[test]
    fn servers_that_may_not_agree_go_by_text() {
        for (source, destination, of_row, recoded) in [
            (server(15, "UTF8", "a"), server(17, "UTF8", "a"), OfRow::Seeded, false),
            (server(13, "UTF8", "a"), server(15, "UTF8", "a"), OfRow::Text, false),
            (server(15, "UTF8", "a"), server(15, "UTF8", "b"), OfRow::Digest, false),
            (server(15, "LATIN1", "a"), server(15, "UTF8", "a"), OfRow::Seeded, true),
        ] {
            let wanted = Hashing { of_row, as_they_are: false, recoded };
            let found = hashing(&source, &destination);
            assert_eq!(found, wanted);
            assert_eq!(of_column(&column("integer", None), found), OfColumn::Text);
        }
    }

    #[test]
    fn a_key_is_cast_without_being_cut() {
        for (type_name, wanted) in [
            ("character(5)", "pg_catalog.bpchar"),
            ("bit(3)", "pg_catalog.varbit"),
            ("numeric(10,2)", "numeric"),
            ("timestamp(3) without time zone", "timestamp without time zone"),
            ("public.code", "public.code"),
        ] {
            assert_eq!(cast_name(type_name), wanted);
        }
    }
}
