//! The reference set on the source, and the check that all of it has arrived somewhere.

use std::collections::BTreeMap;

use pgferry_tests::{Cluster, DATABASE, Session};

use crate::say;
use crate::servers::{self, as_owner};

/// What a finished copy must show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Expected {
    /// Rows by table.
    rows: BTreeMap<String, i64>,
    /// Definitions of valid indexes by name.
    indexes: BTreeMap<String, String>,
}

/// Fills the source, and says how much there is now.
pub(crate) fn load(source: &Cluster, scale: u32, docs: u64) -> String {
    say!("pgbench at scale {scale}, without foreign keys");
    let mut pgbench = source.program("pgbench");
    pgbench.args(["-i", "-q", "-I", "dtgp", "-s", &scale.to_string(), DATABASE]);
    pgbench.env("PGOPTIONS", "-c role=owner");
    servers::run(pgbench);

    say!("{docs} rows of docs");
    let owner = as_owner(source);
    owner.run(DOCS_TABLE);
    owner.run(&DOCS_ROWS.replace("{rows}", &docs.to_string()));
    owner.run(DOCS_KEYS);
    owner.run("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO app");

    // Now, so that autovacuum has no reason to come while somebody is measured.
    let session = source.admin(DATABASE);
    session.run("VACUUM (FREEZE, ANALYZE)");
    session.run("CHECKPOINT");
    let size = session.value(SIZES).unwrap_or_default();
    say!("the reference set has {size}");
    size
}

impl Expected {
    /// What a database holds now.
    pub(crate) fn of(cluster: &Cluster) -> Self {
        let session = cluster.admin(DATABASE);
        let tables = session.column(TABLES);
        let rows = tables.into_iter().map(|table| {
            let rows = session.number(&format!("SELECT count(*) FROM {table}"));
            (table, rows)
        });
        Self { rows: rows.collect(), indexes: pairs(&session, VALID_INDEXES) }
    }

    /// How what has arrived differs from this; the error lists it.
    pub(crate) fn check(&self, arrived: &Self) -> Result<(), String> {
        let mut wrong = Vec::new();
        for (table, rows) in &self.rows {
            match arrived.rows.get(table) {
                Some(there) if there == rows => {}
                Some(there) => wrong.push(format!("{table}: {there} rows instead of {rows}")),
                None => wrong.push(format!("{table} is missing")),
            }
        }
        for (index, definition) in &self.indexes {
            match arrived.indexes.get(index) {
                Some(there) if there == definition => {}
                Some(there) => wrong.push(format!("{there} instead of {definition}")),
                None => wrong.push(format!("index {index} is missing or not valid")),
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
    }
}

fn pairs(session: &Session, sql: &str) -> BTreeMap<String, String> {
    session
        .rows(sql)
        .into_iter()
        .filter_map(|row| {
            let mut columns = row.into_iter();
            Some((columns.next()??, columns.next()??))
        })
        .collect()
}

const DOCS_TABLE: &str = "
CREATE TABLE docs (
    id bigint NOT NULL,
    customer_id int NOT NULL,
    created_at timestamptz NOT NULL,
    doc jsonb NOT NULL
)";

/// The same rows each time: nothing here is random, and nothing compresses to nothing.
const DOCS_ROWS: &str = "
INSERT INTO docs
SELECT id,
       1 + (hashint8(id)::bigint & 2147483647) % 200000,
       timestamptz '2024-01-01 00:00:00+00' + id * interval '11 seconds'
           + (hashint8(id + 1) % 3600) * interval '1 second',
       jsonb_build_object(
           'number', id,
           'state', (ARRAY['new', 'paid', 'sent', 'back'])[1 + id % 4],
           'total', (hashint8(id + 2)::bigint & 1048575) / 100.0,
           'lines', jsonb_build_array(id % 97, id % 89, id % 83),
           'token', md5(id::text))
  FROM generate_series(1, {rows}::bigint) AS id";

const DOCS_KEYS: &str = "
ALTER TABLE docs ADD PRIMARY KEY (id);
CREATE INDEX docs_customer_id_idx ON docs (customer_id);
CREATE INDEX docs_created_at_idx ON docs (created_at)";

const SIZES: &str = "
SELECT format('%s rows of tables with %s and %s of indexes',
              sum(c.reltuples)::bigint,
              pg_size_pretty(sum(pg_table_size(c.oid))),
              pg_size_pretty(sum(pg_indexes_size(c.oid))))
  FROM pg_class c
 WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace";

const TABLES: &str = "
SELECT c.oid::regclass::text FROM pg_class c
 WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace
 ORDER BY 1";

const VALID_INDEXES: &str = "
SELECT i.indexrelid::regclass::text,
       pg_get_indexdef(i.indexrelid)
           || CASE WHEN i.indisprimary THEN ' as the primary key' ELSE '' END
  FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
 WHERE c.relnamespace = 'public'::regnamespace AND i.indisvalid AND i.indisready";

#[cfg(test)]
mod tests {
    use super::*;

    fn expected(rows: i64, index: &str) -> Expected {
        Expected {
            rows: [("docs".to_owned(), rows)].into(),
            indexes: [(index.to_owned(), "CREATE INDEX".to_owned())].into(),
        }
    }

    #[test]
    fn a_row_or_an_index_that_is_missing_is_told() {
        let whole = expected(7, "docs_pkey");
        assert_eq!(whole.check(&expected(7, "docs_pkey")), Ok(()));
        for (arrived, word) in [
            (expected(6, "docs_pkey"), "6 rows instead of 7"),
            (expected(7, "another"), "docs_pkey is missing or not valid"),
            (Expected::default(), "docs is missing"),
        ] {
            let told = whole.check(&arrived).unwrap_err();
            assert!(told.contains(word), "{told}");
        }
    }
}
