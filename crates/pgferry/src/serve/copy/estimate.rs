//! How much a copy will move: from the size of files to bytes in COPY's form.
//!
//! Files hold page headers, dead rows and room to grow, and large values compressed: COPY's form of
//! a table may be half of its files or three times as much. What was read so far tells which.

use pgferry_postgres::copy::{CopyTotals, TableProgress, TableState};

/// From here on what was read stands for the rest, however large the table is.
const ENOUGH_READ: u64 = 64 << 20;

/// Before that, this part of the files.
const ENOUGH_PART: u64 = 20;

/// Bytes that come to be sent of all tables. Each is judged by itself as far as that goes: a table
/// of large compressed values that is through says little about the others.
pub(super) fn all(tables: &[TableProgress], totals: &CopyTotals) -> u64 {
    tables.iter().fold(0, |sum, one| sum.saturating_add(table(one, totals)))
}

/// Bytes that come to be sent of one table; one of which nothing was read is judged by all others.
pub(super) fn table(table: &TableProgress, totals: &CopyTotals) -> u64 {
    let size = table.size_bytes;
    match table.state {
        TableState::Waiting => {
            expected_like(size, totals.bytes, totals.size_bytes, totals.read_bytes)
        }
        TableState::Copying => expected(table.bytes, size, table.read_bytes),
        TableState::Indexing | TableState::Done => table.bytes,
    }
}

/// Bytes that come to be sent in all, when `bytes` were sent for `read` of `size` bytes of files.
/// Never below `bytes`; the size of the files until enough was read to know better.
fn expected(bytes: u64, size: u64, read: u64) -> u64 {
    let all = if is_enough(size, read) { scaled(size, bytes, read) } else { size };
    all.max(bytes)
}

/// The same for files of which nothing was read, judged by others of which `bytes` were sent for
/// `read` of `size`.
fn expected_like(files: u64, bytes: u64, size: u64, read: u64) -> u64 {
    if is_enough(size, read) { scaled(files, bytes, read) } else { files }
}

fn is_enough(size: u64, read: u64) -> bool {
    read > 0 && (read >= ENOUGH_READ || read >= size / ENOUGH_PART)
}

fn scaled(files: u64, bytes: u64, read: u64) -> u64 {
    let all = u128::from(files) * u128::from(bytes) / u128::from(read.max(1));
    u64::try_from(all).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_the_files_stands_until_enough_was_read() {
        assert_eq!(expected(0, 1000, 0), 1000);
        assert_eq!(expected(30, 1000, 49), 1000);
        assert_eq!(expected(30, 1000, 50), 600);
        assert_eq!(expected(150, 1000, 50), 3000);
    }

    #[test]
    fn a_huge_table_needs_no_twentieth() {
        let (size, read) = (1 << 40, ENOUGH_READ);
        assert_eq!(expected(read / 2, size, read - 1), size);
        assert_eq!(expected(read / 2, size, read), size / 2);
    }

    #[test]
    fn it_is_never_below_what_was_sent() {
        assert_eq!(expected(5000, 1000, 0), 5000);
        assert_eq!(expected(5000, 0, 0), 5000);
        assert_eq!(expected(700, 1000, 1000), 700);
        assert_eq!(expected(700, 1000, 1200), 700);
        assert_eq!(expected(u64::MAX, u64::MAX, 1), u64::MAX);
    }

    #[test]
    fn at_the_end_it_is_what_was_sent() {
        assert_eq!(expected(640, 1000, 1000), 640);
    }

    fn one(state: TableState, size_bytes: u64, read_bytes: u64, bytes: u64) -> TableProgress {
        TableProgress {
            name: pgferry_plan::TableName::new("public", "orders"),
            state,
            rows: 0,
            bytes,
            size_bytes,
            read_bytes,
            indexes: 0,
            indexes_done: 0,
        }
    }

    #[test]
    fn a_compressed_table_that_is_through_does_not_swell_the_others() {
        let tables =
            [one(TableState::Done, 100, 100, 5000), one(TableState::Copying, 10_000, 1000, 900)];
        let totals = CopyTotals {
            bytes: 5900,
            size_bytes: 10_100,
            read_bytes: 1100,
            ..CopyTotals::default()
        };
        assert_eq!(all(&tables, &totals), 5000 + 9000);
    }

    #[test]
    fn a_table_that_waits_is_judged_by_those_before_it() {
        assert_eq!(expected_like(100, 600, 2000, 1000), 60);
        assert_eq!(expected_like(100, 6, 2000, 10), 100);
        assert_eq!(expected_like(0, 6, 2000, 1000), 0);
    }
}
