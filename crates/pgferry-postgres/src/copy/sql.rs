//! The statements of a copy, as text: they go over sessions that know simple queries only.

use std::time::Duration;

use pgferry_plan::Side;
use pgferry_plan::pieces::BlockRange;

use super::queue::Piece;
use super::{CopyPlan, CopyTable, Snapshot};
use crate::quote::{self, literal};
use crate::statements::{Guard, guarded};

/// Waiting for an `AccessShareLock` holds nobody up, so a worker on the source waits for ever. What
/// is left of a table is found by the number of its rows that are there, so each read of it has to
/// have the order of its file: no other plan than that, in one process, from its beginning.
pub(super) const PREPARE_SOURCE: &str = "SET lock_timeout = 0; SET jit = off; \
    SET client_min_messages = error; SET synchronize_seqscans = off; \
    SET max_parallel_workers_per_gather = 0; SET enable_seqscan = on; SET enable_tidscan = on; \
    SET enable_indexscan = off; SET enable_indexonlyscan = off; SET enable_bitmapscan = off";
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
        .map(|piece| copy_out_after(&tables[piece.table], BlockRange::WHOLE, 0))
        .collect();
    copies.join("; ")
}

/// What is left of a range behind its first `rows` rows.
pub(super) fn copy_out_after(table: &CopyTable, range: BlockRange, rows: u64) -> String {
    let format = format_of(table);
    format!("COPY {} TO STDOUT (FORMAT {format}); {LEAVE_PIECE}", what_to_read(table, range, rows))
}

fn what_to_read(table: &CopyTable, range: BlockRange, rows: u64) -> String {
    if range == BlockRange::WHOLE && rows == 0 {
        return with_columns(table);
    }
    let columns = quote::columns(&table.columns);
    let from = quote::table(&table.name);
    let BlockRange { first, end } = range;
    let mut conditions = Vec::new();
    if first > 0 {
        conditions.push(format!("ctid >= '({first},0)'::tid"));
    }
    if let Some(end) = end {
        conditions.push(format!("ctid < '({end},0)'::tid"));
    }
    let mut sql = format!("(SELECT {columns} FROM ONLY {from}");
    if !conditions.is_empty() {
        sql.push_str(&format!(" WHERE {}", conditions.join(" AND ")));
    }
    if rows > 0 {
        sql.push_str(&format!(" OFFSET {rows}"));
    }
    sql.push(')');
    sql
}

/// The next part of a piece as the destination takes it: the epoch is checked, and that exactly
/// `rows` rows of the piece are there. Who claims the same rows waits for what becomes of this one.
pub(super) fn copy_in_after(
    plan: &CopyPlan,
    lsn: &str,
    table: &CopyTable,
    piece: &Piece,
    rows: u64,
) -> String {
    let claim = if rows == 0 {
        insert_lines(&[line(lsn, table, piece)])
    } else {
        let (schema, name) = (literal(&table.name.schema), literal(&table.name.name));
        let first_block = piece.range.first;
        format!(
            "DO $claim$ BEGIN PERFORM 1 FROM pgferry.copied WHERE schema_name = {schema} \
             AND table_name = {name} AND first_block = {first_block} AND snapshot_lsn = {lsn} \
             AND row_count = {rows} AND NOT is_complete FOR UPDATE; \
             IF NOT FOUND THEN RAISE EXCEPTION 'not just {rows} rows of the piece are here' \
             USING ERRCODE = 'unique_violation'; END IF; END $claim$"
        )
    };
    let body =
        format!("{claim}; COPY {} FROM STDIN (FORMAT {})", with_columns(table), format_of(table));
    begin_guarded(plan, &body)
}

/// Whole tables as the destination takes them: the epoch is checked, they are entered, so that none
/// is taken twice, and emptied, so that COPY may write rows that never need to be frozen.
pub(super) fn copy_in(
    plan: &CopyPlan,
    lsn: &str,
    tables: &[CopyTable],
    pieces: &[Piece],
) -> String {
    let lines: Vec<String> =
        pieces.iter().map(|piece| line(lsn, &tables[piece.table], piece)).collect();
    let names: Vec<String> =
        pieces.iter().map(|piece| quote::table(&tables[piece.table].name)).collect();
    let mut body = format!("{}; TRUNCATE ONLY {}", insert_lines(&lines), names.join(", ONLY "));
    for piece in pieces {
        let table = &tables[piece.table];
        body.push_str(&format!(
            "; COPY {} FROM STDIN (FORMAT {}, FREEZE)",
            with_columns(table),
            format_of(table)
        ));
    }
    begin_guarded(plan, &body)
}

fn begin_guarded(plan: &CopyPlan, body: &str) -> String {
    let guard = Guard::of_epoch(plan.epoch);
    format!("BEGIN; {}", guarded(Side::Destination, guard, body))
}

/// A piece of which nothing is there yet, as a line of `pgferry.copied`.
fn line(lsn: &str, table: &CopyTable, piece: &Piece) -> String {
    format!(
        "({}, {}, {lsn}, {}, {}, 0, 0, false)",
        literal(&table.name.schema),
        literal(&table.name.name),
        piece.range.first,
        piece.range.end.map_or_else(|| "NULL".to_owned(), |end| end.to_string())
    )
}

fn insert_lines(lines: &[String]) -> String {
    format!(
        "INSERT INTO pgferry.copied (schema_name, table_name, snapshot_lsn, first_block, \
         end_block, row_count, byte_count, is_complete) VALUES {}",
        lines.join(", ")
    )
}

/// What a transaction has brought of a piece.
#[derive(Clone, Copy, Debug)]
pub(super) struct Brought<'a> {
    pub(super) piece: &'a Piece,
    pub(super) rows: u64,
    pub(super) bytes: u64,
    /// Whether nothing of the piece is left.
    pub(super) completes: bool,
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

/// What was brought of the pieces, and the commit: under the subscription's origin, taken for the instant
/// of the commit only, because a stream back goes by the commit's origin, and only one session may
/// have it at a time. One message, so that it is taken for one round trip.
///
/// `durable` waits for the flush to disk, and with it for everything committed before, by whatever
/// session: enough for the last piece of each table, where waiting for each costs what it copies.
pub(super) fn commit(
    plan: &CopyPlan,
    snapshot: &Snapshot,
    tables: &[CopyTable],
    brought: &[Brought<'_>],
    durable: bool,
) -> String {
    let values: Vec<String> = brought
        .iter()
        .map(|Brought { piece, rows, bytes, completes }| {
            let name = &tables[piece.table].name;
            format!(
                "({}, {}, {}::bigint, {rows}::bigint, {bytes}::bigint, {completes})",
                literal(&name.schema),
                literal(&name.name),
                piece.range.first
            )
        })
        .collect();
    let mut sql = format!(
        "UPDATE pgferry.copied AS c SET row_count = c.row_count + v.row_count, \
         byte_count = c.byte_count + v.byte_count, is_complete = v.is_complete, \
         copied_at = clock_timestamp() FROM (VALUES {}) AS v \
         (schema_name, table_name, first_block, row_count, byte_count, is_complete) \
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
            part_bytes: 1 << 20,
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
        let whole = [Piece { table: 0, range: BlockRange::WHOLE, ..Piece::default() }];
        assert_eq!(
            copy_out(&tables, &whole),
            "COPY \"public\".\"Odd name\" (\"id\", \"to\") TO STDOUT (FORMAT binary); \
             ROLLBACK TO SAVEPOINT pgferry_piece"
        );
        let sql = copy_in(&plan(None), "'0/10'::pg_lsn", &tables, &whole);
        assert!(sql.starts_with("BEGIN; DO $guard$") && sql.contains("epoch = 7"), "{sql}");
        assert!(
            sql.ends_with(
                "VALUES ('public', 'Odd name', '0/10'::pg_lsn, 0, NULL, 0, 0, false); \
                 TRUNCATE ONLY \"public\".\"Odd name\"; \
                 COPY \"public\".\"Odd name\" (\"id\", \"to\") FROM STDIN (FORMAT binary, FREEZE)"
            ),
            "{sql}"
        );
    }

    #[test]
    fn what_is_left_of_a_range_is_neither_truncated_nor_frozen() {
        let table = table(&["id"], false);
        let range = BlockRange { first: 8, end: Some(16) };
        assert!(copy_out_after(&table, range, 0).starts_with(
            "COPY (SELECT \"id\" FROM ONLY \"public\".\"Odd name\" WHERE ctid >= '(8,0)'::tid \
             AND ctid < '(16,0)'::tid) TO STDOUT (FORMAT binary);"
        ));
        assert!(copy_out_after(&table, BlockRange::WHOLE, 70).starts_with(
            "COPY (SELECT \"id\" FROM ONLY \"public\".\"Odd name\" OFFSET 70) TO STDOUT"
        ));
        let piece = Piece { range, ..Piece::default() };
        for rows in [0, 70] {
            let sql = copy_in_after(&plan(None), "'0/10'::pg_lsn", &table, &piece, rows);
            assert!(sql.starts_with("BEGIN; DO $guard$") && sql.contains("epoch = 7"), "{sql}");
            assert!(sql.ends_with("(\"id\") FROM STDIN (FORMAT binary)"), "{sql}");
            assert!(!sql.contains("TRUNCATE"), "{sql}");
            assert_eq!(sql.contains("AND row_count = 70 AND NOT is_complete"), rows == 70, "{sql}");
        }
    }

    #[test]
    fn a_table_without_columns_is_copied_without_a_list() {
        let tables = [table(&[], true)];
        let pieces = [Piece { table: 0, range: BlockRange::WHOLE, ..Piece::default() }];
        assert!(
            copy_out(&tables, &pieces)
                .starts_with("COPY \"public\".\"Odd name\" TO STDOUT (FORMAT text);")
        );
    }

    #[test]
    fn the_origin_is_taken_for_the_commit_only() {
        let tables = [table(&[], false)];
        let piece = Piece { table: 0, range: BlockRange::WHOLE, ..Piece::default() };
        let pieces = [Brought { piece: &piece, rows: 5, bytes: 60, completes: true }];
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
