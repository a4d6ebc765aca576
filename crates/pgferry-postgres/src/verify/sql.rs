//! The statements of a comparison, as text: what is read of a table, and how its rows are hashed.
//!
//! Nothing here reads a value out of a database but keys, and whole values only where a person
//! asked to be shown them.

use pgferry_plan::scope::{ColumnView, TableView};
use pgferry_plan::verify::hashing::{
    Hashing, OfRow, base_name, cast_name, compared, is_foreign, is_padded,
};
use pgferry_plan::verify::parts::{Identity, identity};

use super::row_hash::{RowHash, padded, printed};
use crate::quote::{ident, literal, table};

/// What a session has set on top of every session's settings: text of money depends on one more, a
/// statement may wait behind a TRUNCATE, and nothing is ever written.
pub(super) const PREPARE: &str = "SET lc_monetary = 'C'; SET lock_timeout = '60s'; \
    SET default_transaction_read_only = on; SET work_mem = '32MB'; \
    SET max_parallel_workers_per_gather = 0; SET client_min_messages = error";

/// One snapshot, and no index; then the same snapshot by whatever index there is.
pub(super) const WITHOUT_INDEX: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; \
    SET LOCAL enable_indexscan = off; SET LOCAL enable_indexonlyscan = off; \
    SET LOCAL enable_bitmapscan = off";
pub(super) const WITH_INDEX: &str = "SET LOCAL enable_indexscan = on; \
    SET LOCAL enable_indexonlyscan = on; SET LOCAL enable_bitmapscan = on; \
    SET LOCAL enable_seqscan = off";

/// What of a server decides how rows are hashed.
pub(super) const TRAITS: &str = "SELECT current_setting('server_version_num')::int / 10000, \
    current_setting('server_encoding'), \
    concat_ws(' ', pg_catalog.hashtextextended('pgferry' COLLATE \"C\", 0), \
        pg_catalog.hashint4extended(815, 0), pg_catalog.hashcharextended('x', 0))";

/// Rows of a range of the key: from, and up to but without. None is open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Bounds {
    /// The first key that belongs to it.
    pub(super) from: Option<Vec<String>>,
    /// The first key that does not.
    pub(super) to: Option<Vec<String>>,
}

/// A place in the order in which rows are listed.
pub(super) type Place = (i64, Vec<String>);

/// How one table is read, the same on both sides.
#[derive(Debug)]
pub(super) struct TableSql {
    /// The table, quoted.
    pub(super) table: String,
    rows: RowHash,
    /// What a row is written with: everything that is not computed.
    written: Vec<ColumnView>,
    /// How its rows are told from each other.
    pub(super) identity: Identity,
}

impl TableSql {
    pub(super) fn new(here: &TableView, there: &TableView, hashing: Hashing) -> Self {
        let written = compared(&here.columns, &there.columns)
            .map(|(column, _)| column)
            .filter(|column| column.generated.is_none())
            .cloned()
            .collect();
        let identity = identity(here, there);
        let rows = RowHash::new(here, there, hashing);
        Self { table: table(&here.name), rows, written, identity }
    }

    /// The names of the columns that are compared.
    pub(super) fn column_names(&self) -> impl Iterator<Item = &String> {
        self.rows.column_names()
    }

    /// Count and digests of a range.
    pub(super) fn digest(&self, bounds: &Bounds) -> String {
        format!("SELECT {} FROM {}", self.aggregates(), self.hashed(bounds, None))
    }

    /// The same by bucket.
    pub(super) fn buckets(&self, bounds: &Bounds, buckets: u64) -> String {
        let place = self.place();
        let bucket = format!("({place}) & {} AS b", buckets.saturating_sub(1));
        format!(
            "SELECT b, {} FROM {} GROUP BY b",
            self.aggregates(),
            self.hashed(bounds, Some(&bucket))
        )
    }

    fn aggregates(&self) -> &'static str {
        match self.rows.hashing.of_row {
            OfRow::Seeded => {
                "count(*), coalesce(sum(h # (h >> 33)), 0)::text, coalesce(bit_xor(h), 0)::text"
            }
            OfRow::Text | OfRow::Digest => {
                "count(*), coalesce(sum(h), 0)::text, coalesce(sum(g), 0)::text"
            }
        }
    }

    /// The rows' hashes. OFFSET keeps the server from computing them once for each aggregate.
    fn hashed(&self, bounds: &Bounds, more: Option<&str>) -> String {
        let second = match self.rows.hashing.of_row {
            OfRow::Seeded => String::new(),
            OfRow::Text | OfRow::Digest => format!(", {} AS g", self.rows.hash(1)),
        };
        let more = more.map(|more| format!(", {more}")).unwrap_or_default();
        format!(
            "(SELECT {} AS h{second}{more} FROM ONLY {} AS t{} OFFSET 0) AS s",
            self.rows.hash(0),
            self.table,
            self.within(bounds)
        )
    }

    /// Rows of some buckets, in an order that both sides share: key, content, version, place.
    pub(super) fn list(
        &self,
        bounds: &Bounds,
        buckets: u64,
        wanted: &[i64],
        after: Option<&Place>,
    ) -> String {
        let mask = buckets.saturating_sub(1);
        let wanted: Vec<String> = wanted.iter().map(ToString::to_string).collect();
        let wanted = format!("'{{{}}}'::bigint[]", wanted.join(","));
        let after = after.map_or(String::new(), |(place, key)| {
            let key = text_array(key);
            format!(" AND (place > {place} OR (place = {place} AND key COLLATE \"C\" > {key}))")
        });
        match &self.identity {
            Identity::Key { .. } => format!(
                "SELECT key, content, version, place FROM (SELECT {} AS key, {} AS content, \
                 t.xmin::text AS version, {} AS place FROM ONLY {} AS t{}) AS s \
                 WHERE (place & {mask}) = ANY ({wanted}){after} ORDER BY place, key COLLATE \"C\"",
                self.key(),
                self.rows.hash(0),
                self.place(),
                self.table,
                self.within(bounds)
            ),
            Identity::Content => format!(
                "SELECT key, content, version, place FROM ({}) AS l WHERE true{after} \
                 ORDER BY place, key COLLATE \"C\"",
                self.counted(&format!("(h & {mask}) = ANY ({wanted})"))
            ),
        }
    }

    /// Rows by their keys, given as one array of text for each of its columns: key, content, version.
    pub(super) fn lookup(&self) -> String {
        match &self.identity {
            Identity::Key { .. } => {
                format!(
                    "SELECT {} AS key, {} AS content, t.xmin::text AS version FROM {}",
                    self.key(),
                    self.rows.hash(0),
                    self.wanted_rows()
                )
            }
            Identity::Content => format!(
                "SELECT key, content, version FROM ({}) AS l",
                self.counted("h = ANY ($1::text[]::bigint[])")
            ),
        }
    }

    /// The hash of each column of rows by their keys, and, where a person asked for them, the values.
    pub(super) fn details(&self, values: bool) -> String {
        let hashes = self.rows.hash_of_each();
        let texts: Vec<String> = self
            .rows
            .texts()
            .filter(|_| values)
            .map(|text| format!("left({text}, {LONGEST_VALUE})"))
            .collect();
        format!(
            "SELECT {} AS key, ARRAY[{}]::bigint[] AS hashes, ARRAY[{}]::text[] AS texts FROM {}",
            self.key(),
            hashes.join(", "),
            texts.join(", "),
            self.wanted_rows()
        )
    }

    /// The names of its key's columns.
    pub(super) fn key_names(&self) -> impl Iterator<Item = &String> {
        self.key_columns().iter().map(|column| &column.name)
    }

    /// Rows that are as one transaction wrote them: how many, and the keys of some. Its id, and the time
    /// of its commit where the server keeps that, are the parameters.
    pub(super) fn written_by(&self, named: u32) -> String {
        format!(
            "SELECT count(*) OVER (), {} FROM ONLY {} AS t WHERE t.xmin = $1::text::xid \
             OR CASE WHEN $2::text IS NOT NULL AND age(t.xmin) <= age($1::text::xid) \
                THEN pg_catalog.pg_xact_commit_timestamp(t.xmin) = $2::text::timestamptz \
                ELSE false END LIMIT {named}",
            self.key(),
            self.table
        )
    }

    /// The columns that a row is written with.
    pub(super) fn written(&self) -> impl Iterator<Item = &ColumnView> {
        self.written.iter()
    }

    /// Rows by their keys, locked against change: key, and the text of what they are written with.
    pub(super) fn lock(&self) -> String {
        let texts: Vec<String> = self
            .written
            .iter()
            .map(|column| match base_name(&column.type_name) {
                name if is_padded(&name) => padded(&column.name),
                name if is_foreign(&name) => printed(&column.name),
                _ => format!("t.{}::text", ident(&column.name)),
            })
            .collect();
        format!(
            "SELECT {} AS key, ARRAY[{}]::text[] AS texts FROM {} FOR SHARE OF t",
            self.key(),
            texts.join(", "),
            self.wanted_rows()
        )
    }

    /// Removes rows by their keys; `versioned`, only where they are still the version that is given
    /// as one more array.
    pub(super) fn delete(&self, versioned: bool) -> String {
        let (source, mut condition) = self.wanted(versioned);
        if versioned {
            condition.push_str(" AND t.xmin::text = s.version");
        }
        format!("DELETE FROM ONLY {} AS t USING {source} WHERE {condition}", self.table)
    }

    /// Writes rows, given as one array of text for each column that is written.
    pub(super) fn insert(&self) -> String {
        let names: Vec<String> = self.written.iter().map(|column| ident(&column.name)).collect();
        let numbers = 1..=self.written.len();
        let arrays: Vec<String> = numbers.clone().map(|n| format!("${n}::text[]")).collect();
        let columns: Vec<String> = numbers.map(|n| format!("c{n}")).collect();
        let values: Vec<String> = self
            .written
            .iter()
            .zip(&columns)
            .map(|(column, name)| format!("s.{name}::{}", cast_name(&column.type_name)))
            .collect();
        format!(
            "INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM unnest({}) AS s ({})",
            self.table,
            names.join(", "),
            values.join(", "),
            arrays.join(", "),
            columns.join(", ")
        )
    }

    /// Keys at which to cut, about evenly: of a sample of the table's blocks.
    pub(super) fn boundaries(&self, ranges: u64, bytes: u64) -> String {
        let columns = self.ordered();
        let names: Vec<String> = columns.iter().map(|column| ident(&column.name)).collect();
        let names = names.join(", ");
        let texts: Vec<String> =
            columns.iter().map(|column| format!("{}::text", ident(&column.name))).collect();
        let blocks = (bytes / 8192).max(1);
        let percent =
            (100.0 * (ranges * BLOCKS_OF_A_RANGE) as f64 / blocks as f64).clamp(0.001, 100.0);
        format!(
            "SELECT ARRAY[{}]::text[] FROM (SELECT {names}, row_number() OVER (ORDER BY {names}) AS n, \
             count(*) OVER () AS of FROM ONLY {} TABLESAMPLE SYSTEM ({percent})) AS s \
             WHERE n % greatest(of / {ranges}, 1) = 0 ORDER BY n",
            texts.join(", "),
            self.table
        )
    }

    fn ordered(&self) -> &[ColumnView] {
        match &self.identity {
            Identity::Key { columns, ordered } => &columns[..(*ordered).min(columns.len())],
            Identity::Content => &[],
        }
    }

    fn within(&self, bounds: &Bounds) -> String {
        let columns = self.ordered();
        let row = |values: Vec<String>| match values.as_slice() {
            [one] => one.clone(),
            several => format!("({})", several.join(", ")),
        };
        let names =
            || row(columns.iter().map(|column| format!("t.{}", ident(&column.name))).collect());
        let values = |key: &[String]| {
            row(columns
                .iter()
                .zip(key)
                .map(|(column, value)| {
                    format!("{}::{}", literal(value), cast_name(&column.type_name))
                })
                .collect())
        };
        let conditions: Vec<String> = [(">=", &bounds.from), ("<", &bounds.to)]
            .into_iter()
            .filter_map(|(operator, key)| {
                key.as_ref().map(|key| format!("{} {operator} {}", names(), values(key)))
            })
            .collect();
        if conditions.is_empty() {
            String::new()
        } else {
            format!(" WHERE {}", conditions.join(" AND "))
        }
    }

    fn key_columns(&self) -> &[ColumnView] {
        match &self.identity {
            Identity::Key { columns, .. } => columns,
            Identity::Content => &[],
        }
    }

    fn key(&self) -> String {
        let texts: Vec<String> = self
            .key_columns()
            .iter()
            .map(|column| format!("t.{}::text", ident(&column.name)))
            .collect();
        format!("ARRAY[{}]::text[]", texts.join(", "))
    }

    /// A number by which rows are dealt into buckets.
    fn place(&self) -> String {
        match &self.identity {
            Identity::Key { .. } => self.rows.text_hash(&format!("{}::text", self.key()), 0),
            Identity::Content => self.rows.hash(0),
        }
    }

    /// Rows that hold the same are one, with their number.
    fn counted(&self, condition: &str) -> String {
        format!(
            "SELECT ARRAY[h::text] AS key, count(*) AS content, \
             concat_ws(' ', min(x), max(x), sum(x)) AS version, h AS place \
             FROM (SELECT {} AS h, t.xmin::text::bigint AS x FROM ONLY {} AS t OFFSET 0) AS s \
             WHERE {condition} GROUP BY h",
            self.rows.hash(0),
            self.table
        )
    }

    fn wanted_rows(&self) -> String {
        let (source, condition) = self.wanted(false);
        format!("{source} JOIN ONLY {} AS t ON {condition}", self.table)
    }

    /// Keys as parameters, and what makes a row `t` one of them.
    fn wanted(&self, versioned: bool) -> (String, String) {
        let columns = self.key_columns();
        let arrays: Vec<String> = (1..=columns.len() + usize::from(versioned))
            .map(|number| format!("${number}::text[]"))
            .collect();
        let mut names: Vec<String> =
            (1..=columns.len()).map(|number| format!("c{number}")).collect();
        let equal: Vec<String> = columns
            .iter()
            .zip(&names)
            .map(|(column, name)| {
                let own = ident(&column.name);
                if base_name(&column.type_name).contains('.') {
                    // Where a type that is not PostgreSQL's has its operators is not known.
                    format!("t.{own}::text COLLATE \"C\" = s.{name} COLLATE \"C\"")
                } else {
                    format!("t.{own} = s.{name}::{}", cast_name(&column.type_name))
                }
            })
            .collect();
        let equal = equal.join(" AND ");
        if versioned {
            names.push("version".to_owned());
        }
        (format!("unnest({}) AS s ({})", arrays.join(", "), names.join(", ")), equal)
    }
}

/// Enough blocks that ranges are about equal, few enough that the sample costs nothing.
const BLOCKS_OF_A_RANGE: u64 = 8;

/// Characters of a value that are shown to whoever asked for values.
const LONGEST_VALUE: u32 = 200;

fn text_array(values: &[String]) -> String {
    let values: Vec<String> = values.iter().map(|value| literal(value)).collect();
    format!("ARRAY[{}]::text[]", values.join(", "))
}

#[cfg(test)]
mod tests {
    use pgferry_plan::TableName;
    use pgferry_plan::scope::{Key, RowSecurity};

    use super::*;

    const SEEDED: Hashing = Hashing { of_row: OfRow::Seeded, as_they_are: true, recoded: false };

    fn view(columns: &[(&str, &str)], key: &[&str]) -> TableView {
        let columns = columns.iter().enumerate().map(|(at, (name, type_name))| ColumnView {
            name: (*name).to_owned(),
            type_name: (*type_name).to_owned(),
            collation: None,
            not_null: true,
            generated: None,
            identity: None,
            position: i16::try_from(at).unwrap(),
        });
        let columns: Vec<ColumnView> = columns.collect();
        TableView {
            oid: 1,
            name: TableName::new("Odd \"s", "t'"),
            owner: "owner".to_owned(),
            columns,
            key: if key.is_empty() {
                Key::Missing { candidate: None }
            } else {
                Key::Usable {
                    index: "i".to_owned(),
                    columns: key.iter().map(|name| (*name).to_owned()).collect(),
                }
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

    fn sql(columns: &[(&str, &str)], key: &[&str], hashing: Hashing) -> TableSql {
        TableSql::new(&view(columns, key), &view(columns, key), hashing)
    }

    #[test]
    fn a_range_is_bounded_by_quoted_keys_of_their_type() {
        let table = sql(&[("a\"b", "integer"), ("c", "uuid")], &["a\"b", "c"], SEEDED);
        let bounds = Bounds {
            from: Some(vec!["1".to_owned(), "it's".to_owned()]),
            to: Some(vec!["2".to_owned(), "x".to_owned()]),
        };
        let digest = table.digest(&bounds);
        assert!(digest.contains("FROM ONLY \"Odd \"\"s\".\"t'\" AS t WHERE"), "{digest}");
        assert!(
            digest.contains(
                "(t.\"a\"\"b\", t.\"c\") >= ('1'::integer, 'it''s'::uuid) AND \
                 (t.\"a\"\"b\", t.\"c\") < ('2'::integer, 'x'::uuid)"
            ),
            "{digest}"
        );
        assert!(!table.digest(&Bounds::default()).contains("WHERE"));
    }

    #[test]
    fn rows_without_a_key_are_counted_by_what_they_hold() {
        let table = sql(&[("a", "integer"), ("b", "numeric(5,2)")], &[], SEEDED);
        let list = table.list(&Bounds::default(), 4, &[1, 3], Some(&(7, vec!["7".to_owned()])));
        assert!(list.contains("GROUP BY h") && list.contains("(h & 3) = ANY ('{1,3}'"), "{list}");
        assert!(list.contains("place > 7 OR (place = 7"), "{list}");
        assert!(
            list.contains("coalesce(pg_catalog.hashtextextended((t.\"b\"::text COLLATE \"C\"), 1)"),
            "{list}"
        );
    }

    #[test]
    fn older_servers_hash_the_text_of_the_row_twice() {
        let text = Hashing { of_row: OfRow::Text, as_they_are: false, recoded: false };
        let digest = sql(&[("a", "integer")], &["a"], text).digest(&Bounds::default());
        assert!(!digest.contains("bit_xor") && !digest.contains("hashint4"), "{digest}");
        assert!(digest.contains(", 0) AS h,") && digest.contains(", 1) AS g"), "{digest}");
    }
}
