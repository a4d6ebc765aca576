//! The statements of a copy, as text: they go over sessions that know simple queries only.

use std::time::Duration;

use pgferry_plan::Side;
use pgferry_plan::pieces::BlockRange;

use super::queue::Piece;
use super::{CopyPlan, CopyTable, Snapshot};
use crate::quote::{self, literal};
use crate::statements::{Guard, guarded};

/// Waiting for an `AccessShareLock` holds nobody up, so a worker on the source waits for ever. JIT
/// compiles the plan of a range again for each piece.
pub(super) const PREPARE_SOURCE: &str =
    "SET lock_timeout = 0; SET jit = off; SET client_min_messages = error";
/// Here it may stand behind a reader or autovacuum. A trigger's notice for each row would fill the
/// socket that nobody reads while rows are sent.
pub(super) const PREPARE_DESTINATION: &str =
    "SET lock_timeout = '60s'; SET client_min_messages = error";

/// Reads the snapshot, and marks where each piece begins: see [`LEAVE_PIECE`].
pub(super) fn import(snapshot: &Snapshot) -> String {
    format!(
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT {}; \
         SAVEPOINT pgferry_piece",
        literal(&snapshot.name)
    )
}

/// Gives back a table's lock the moment that its piece is read. A worker that waited for its next
/// one with the lock in its hands would keep a TRUNCATE of the application waiting, and behind that
/// the other workers' pieces of the same table: nobody would ever move (seen).
const LEAVE_PIECE: &str = "ROLLBACK TO SAVEPOINT pgferry_piece";

/// The pieces of one transaction, as the source sends them.
pub(super) fn copy_out(tables: &[CopyTable], pieces: &[Piece]) -> String {
    let copies: Vec<String> = pieces
        .iter()
        .map(|piece| {
            let table = &tables[piece.table];
            format!(
                "COPY {} TO STDOUT (FORMAT {}); {LEAVE_PIECE}",
                what_to_read(table, piece.range),
                format_of(table)
            )
        })
        .collect();
    copies.join("; ")
}

fn what_to_read(table: &CopyTable, range: BlockRange) -> String {
    if range == BlockRange::WHOLE {
        return with_columns(table);
    }
    let columns = quote::columns(&table.columns);
    let from = quote::table(&table.name);
    let BlockRange { first, end } = range;
    let below = end.map_or_else(String::new, |end| format!(" AND ctid < '({end},0)'::tid"));
    format!("(SELECT {columns} FROM ONLY {from} WHERE ctid >= '({first},0)'::tid{below})")
}

/// The same pieces as the destination takes them: the epoch is checked, the pieces are entered, so
/// that none is taken twice, and whole tables are emptied, so that COPY may write rows that never
/// need to be frozen.
pub(super) fn copy_in(
    plan: &CopyPlan,
    lsn: &str,
    tables: &[CopyTable],
    pieces: &[Piece],
) -> String {
    let entries: Vec<String> = pieces
        .iter()
        .map(|piece| {
            let name = &tables[piece.table].name;
            format!(
                "({}, {}, {lsn}, {}, {}, 0, 0)",
                literal(&name.schema),
                literal(&name.name),
                piece.range.first,
                piece.range.end.map_or_else(|| "NULL".to_owned(), |end| end.to_string())
            )
        })
        .collect();
    let mut body = format!(
        "INSERT INTO pgferry.copied (schema_name, table_name, snapshot_lsn, first_block, \
         end_block, row_count, byte_count) VALUES {}",
        entries.join(", ")
    );
    let whole: Vec<String> = pieces
        .iter()
        .filter(|piece| piece.range == BlockRange::WHOLE)
        .map(|piece| quote::table(&tables[piece.table].name))
        .collect();
    if !whole.is_empty() {
        body.push_str(&format!("; TRUNCATE ONLY {}", whole.join(", ONLY ")));
    }
    for piece in pieces {
        let table = &tables[piece.table];
        let freeze = if piece.range == BlockRange::WHOLE { ", FREEZE" } else { "" };
        body.push_str(&format!(
            "; COPY {} FROM STDIN (FORMAT {}{freeze})",
            with_columns(table),
            format_of(table)
        ));
    }
    let guard = Guard { epoch: plan.epoch, revision: None };
    format!("BEGIN; {}", guarded(Side::Destination, guard, &body))
}

/// A position as SQL.
pub(super) fn lsn(snapshot: &Snapshot) -> String {
    format!("'{}'::pg_lsn", snapshot.lsn)
}

/// Without a list COPY leaves generated columns out by itself, and an empty list is not SQL.
fn with_columns(table: &CopyTable) -> String {
    if table.columns.is_empty() {
        quote::table(&table.name)
    } else {
        format!("{} ({})", quote::table(&table.name), quote::columns(&table.columns))
    }
}

fn format_of(table: &CopyTable) -> &'static str {
    if table.text { "text" } else { "binary" }
}

/// What the pieces came to, and the commit: under the subscription's origin, taken for the instant
/// of the commit only, because a stream back goes by the commit's origin, and only one session may
/// have it at a time. One message, so that it is taken for one round trip.
///
/// `durable` waits for the flush to disk, and with it for everything committed before, by whatever
/// session: enough for the last piece of each table, where waiting for each costs what it copies.
pub(super) fn commit(
    plan: &CopyPlan,
    snapshot: &Snapshot,
    tables: &[CopyTable],
    pieces: &[(&Piece, u64, u64)],
    durable: bool,
) -> String {
    let values: Vec<String> = pieces
        .iter()
        .map(|(piece, rows, bytes)| {
            let name = &tables[piece.table].name;
            format!(
                "({}, {}, {}::bigint, {rows}::bigint, {bytes}::bigint)",
                literal(&name.schema),
                literal(&name.name),
                piece.range.first
            )
        })
        .collect();
    let mut sql = format!(
        "UPDATE pgferry.copied AS c SET row_count = v.row_count, byte_count = v.byte_count, \
         copied_at = clock_timestamp() \
         FROM (VALUES {}) AS v (schema_name, table_name, first_block, row_count, byte_count) \
         WHERE c.schema_name = v.schema_name AND c.table_name = v.table_name \
         AND c.first_block = v.first_block; ",
        values.join(", ")
    );
    if !durable {
        sql.push_str("SET LOCAL synchronous_commit = off; ");
    }
    match &plan.origin {
        Some(origin) => sql.push_str(&format!(
            "SELECT pg_catalog.pg_replication_origin_session_setup({}); \
             SELECT pg_catalog.pg_replication_origin_xact_setup('0/0', {}); COMMIT; \
             SELECT pg_catalog.pg_replication_origin_session_reset()",
            literal(origin),
            literal(&snapshot.taken_at.to_string())
        )),
        None => sql.push_str("COMMIT"),
    }
    sql
}

/// How a session builds its next index. Memory and parallel workers hold for the session, because
/// `SET LOCAL` is gone with the transaction of a statement before.
pub(super) fn before_index(memory_bytes: u64, parallel_workers: usize) -> String {
    format!(
        "SET maintenance_work_mem = '{}kB'; SET max_parallel_maintenance_workers = {}",
        (memory_bytes / 1024).clamp(1024, 2_147_483_647),
        parallel_workers.min(1024)
    )
}

/// How long a session of an earlier try may take to end once it was told to.
pub(super) const END_PATIENCE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;
    use pgferry_plan::{Lsn, TableName};

    fn table(columns: &[&str], text: bool) -> CopyTable {
        CopyTable {
            name: TableName::new("public", "Odd name"),
            columns: columns.iter().map(|&column| column.to_owned()).collect(),
            text,
            ..CopyTable::default()
        }
    }

    fn plan(origin: Option<&str>) -> CopyPlan {
        CopyPlan {
            snapshot: None,
            tables: Vec::new(),
            jobs: 1,
            origin: origin.map(str::to_owned),
            epoch: 7,
            max_bytes_per_second: None,
            maintenance_work_mem: 1 << 20,
        }
    }

    fn snapshot() -> Snapshot {
        Snapshot {
            name: "s".to_owned(),
            lsn: Lsn(16),
            taken_at: "2026-11-21T06:00:00.5Z".parse().unwrap(),
        }
    }

    #[test]
    fn both_ends_name_the_same_columns() {
        let tables = [table(&["id", "to"], false)];
        let whole = [Piece { table: 0, range: BlockRange::WHOLE, bytes: 0 }];
        assert_eq!(
            copy_out(&tables, &whole),
            "COPY \"public\".\"Odd name\" (\"id\", \"to\") TO STDOUT (FORMAT binary); \
             ROLLBACK TO SAVEPOINT pgferry_piece"
        );
        let sql = copy_in(&plan(None), "'0/10'::pg_lsn", &tables, &whole);
        assert!(sql.starts_with("BEGIN; DO $guard$") && sql.contains("epoch = 7"), "{sql}");
        assert!(
            sql.ends_with(
                "VALUES ('public', 'Odd name', '0/10'::pg_lsn, 0, NULL, 0, 0); \
                 TRUNCATE ONLY \"public\".\"Odd name\"; \
                 COPY \"public\".\"Odd name\" (\"id\", \"to\") FROM STDIN (FORMAT binary, FREEZE)"
            ),
            "{sql}"
        );
    }

    #[test]
    fn a_range_is_neither_truncated_nor_frozen() {
        let tables = [table(&["id"], false)];
        let range = BlockRange { first: 8, end: Some(16) };
        let pieces = [Piece { table: 0, range, bytes: 0 }];
        assert!(copy_out(&tables, &pieces).starts_with(
            "COPY (SELECT \"id\" FROM ONLY \"public\".\"Odd name\" WHERE ctid >= '(8,0)'::tid \
             AND ctid < '(16,0)'::tid) TO STDOUT (FORMAT binary)"
        ));
        let sql = copy_in(&plan(None), "'0/10'::pg_lsn", &tables, &pieces);
        assert!(!sql.contains("TRUNCATE") && !sql.contains("FREEZE"), "{sql}");
    }

    #[test]
    fn a_table_without_columns_is_copied_without_a_list() {
        let tables = [table(&[], true)];
        let pieces = [Piece { table: 0, range: BlockRange::WHOLE, bytes: 0 }];
        assert!(
            copy_out(&tables, &pieces)
                .starts_with("COPY \"public\".\"Odd name\" TO STDOUT (FORMAT text);")
        );
    }

    #[test]
    fn the_origin_is_taken_for_the_commit_only() {
        let tables = [table(&[], false)];
        let piece = Piece { table: 0, range: BlockRange::WHOLE, bytes: 0 };
        let pieces = [(&piece, 5, 60)];
        let sql = commit(&plan(Some("pgl_a_b")), &snapshot(), &tables, &pieces, true);
        assert!(
            sql.ends_with(
                "SELECT pg_catalog.pg_replication_origin_session_setup('pgl_a_b'); \
                 SELECT pg_catalog.pg_replication_origin_xact_setup('0/0', '2026-11-21T06:00:00.5Z'); \
                 COMMIT; SELECT pg_catalog.pg_replication_origin_session_reset()"
            ),
            "{sql}"
        );
        assert!(!sql.contains("synchronous_commit"), "{sql}");
        let sql = commit(&plan(None), &snapshot(), &tables, &pieces, false);
        assert!(sql.ends_with("SET LOCAL synchronous_commit = off; COMMIT"), "{sql}");
    }
}
