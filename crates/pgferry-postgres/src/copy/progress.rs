//! How far a copy is, table by table: counters that workers raise and anybody may read.
//!
//! Shown to people only; no decision follows from it. What is committed is in `pgferry.copied`.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use pgferry_plan::TableName;

/// How far a copy is; clones share the same counters.
#[derive(Clone, Debug, Default)]
pub struct CopyProgress(Arc<RwLock<Run>>);

#[derive(Debug, Default)]
struct Run {
    tables: Arc<[Arc<TableCounters>]>,
    began: Option<Instant>,
    /// What earlier runs had committed when this one began.
    before: u64,
}

/// What is done with a table at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TableState {
    /// Its first row has not been sent.
    Waiting,
    /// Its rows are on their way.
    Copying,
    /// Its rows have arrived, and its indexes are being built or wait for it.
    Indexing,
    /// Rows and indexes are there.
    Done,
}

/// One table's figures at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct TableProgress {
    /// The table.
    pub name: TableName,
    /// What is done with it.
    pub state: TableState,
    /// Rows sent, committed or not.
    pub rows: u64,
    /// Bytes sent in COPY's form, committed or not.
    pub bytes: u64,
    /// Its size on the source, in files: COPY's form of it may be smaller or larger.
    pub size_bytes: u64,
    /// How much of `size_bytes` has been read; equal to it once every row has arrived.
    pub read_bytes: u64,
    /// Indexes that the copy builds.
    pub indexes: u32,
    /// Those that are there.
    pub indexes_done: u32,
}

/// The sums over all tables at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CopyTotals {
    /// Tables to copy.
    pub tables: u64,
    /// Tables whose every row has arrived.
    pub tables_done: u64,
    /// Rows sent, by earlier runs under the same snapshot too.
    pub rows: u64,
    /// Bytes sent in COPY's form, likewise.
    pub bytes: u64,
    /// Size of all tables on the source, in files.
    pub size_bytes: u64,
    /// How much of `size_bytes` has been read.
    pub read_bytes: u64,
    /// Indexes that the copy builds.
    pub indexes: u64,
    /// Those that are there.
    pub indexes_done: u64,
    /// Bytes of `size_bytes` read per second since this run began; None before it is known.
    pub read_bytes_per_second: Option<f64>,
    /// Seconds until the last row at that rate; None while it is not known. Indexes come on top.
    pub seconds_left: Option<f64>,
}

/// One table's counters.
#[derive(Debug)]
pub(super) struct TableCounters {
    pub(super) name: TableName,
    size: u64,
    rows: AtomicU64,
    bytes: AtomicU64,
    read: AtomicU64,
    /// Pieces that have not been committed yet.
    pieces_left: AtomicU32,
    indexes: AtomicU32,
    indexes_done: AtomicU32,
}

/// Under a second a rate says nothing.
const RATE_AFTER: Duration = Duration::from_secs(1);

impl CopyProgress {
    /// Begins a run over these tables.
    pub(super) fn begin(&self, tables: Vec<Arc<TableCounters>>) {
        let before = tables.iter().map(|table| table.read.load(Ordering::Relaxed)).sum();
        let mut run = self.0.write().unwrap_or_else(PoisonError::into_inner);
        *run = Run { tables: tables.into(), began: Some(Instant::now()), before };
    }

    /// Every table, in the order in which they were begun to be copied.
    #[must_use]
    pub fn tables(&self) -> Vec<TableProgress> {
        self.counters().iter().map(|table| table.progress()).collect()
    }

    /// The sums; all zero before the first run.
    #[must_use]
    pub fn totals(&self) -> CopyTotals {
        let (tables, began, before) = {
            let run = self.0.read().unwrap_or_else(PoisonError::into_inner);
            (Arc::clone(&run.tables), run.began, run.before)
        };
        let mut totals = CopyTotals { tables: tables.len() as u64, ..CopyTotals::default() };
        for table in tables.iter().map(|table| table.progress()) {
            totals.tables_done += u64::from(table.state >= TableState::Indexing);
            totals.rows += table.rows;
            totals.bytes += table.bytes;
            totals.size_bytes += table.size_bytes;
            totals.read_bytes += table.read_bytes;
            totals.indexes += u64::from(table.indexes);
            totals.indexes_done += u64::from(table.indexes_done);
        }
        let elapsed = began.map(|began| began.elapsed()).filter(|elapsed| *elapsed >= RATE_AFTER);
        if let Some(elapsed) = elapsed {
            let rate = totals.read_bytes.saturating_sub(before) as f64 / elapsed.as_secs_f64();
            totals.read_bytes_per_second = Some(rate);
            let left = totals.size_bytes.saturating_sub(totals.read_bytes) as f64;
            totals.seconds_left = (rate > 0.0).then(|| left / rate);
        }
        totals
    }

    fn counters(&self) -> Arc<[Arc<TableCounters>]> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner).tables)
    }
}

impl TableCounters {
    /// Counters of a table of `size` bytes on the source, copied in so many pieces.
    pub(super) fn new(name: TableName, size: u64, pieces: u32) -> Self {
        Self {
            name,
            size,
            rows: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            read: AtomicU64::new(0),
            pieces_left: AtomicU32::new(pieces),
            indexes: AtomicU32::new(0),
            indexes_done: AtomicU32::new(0),
        }
    }

    /// Counts rows and bytes sent, and how much of the table's size they stand for.
    pub(super) fn add(&self, rows: u64, bytes: u64, read: u64) {
        self.rows.fetch_add(rows, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.read.fetch_add(read, Ordering::Relaxed);
    }

    /// Takes back what was counted of a piece that was not committed.
    pub(super) fn take_back(&self, rows: u64, bytes: u64, read: u64) {
        self.rows.fetch_sub(rows, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.read.fetch_sub(read, Ordering::Relaxed);
    }

    /// A piece was committed; whether it was the last one.
    pub(super) fn piece_done(&self) -> bool {
        self.pieces_left.fetch_sub(1, Ordering::Relaxed) == 1
    }

    /// Pieces that have not been committed yet.
    pub(super) fn pieces_left(&self) -> u32 {
        self.pieces_left.load(Ordering::Relaxed)
    }

    /// How many indexes the copy builds for it.
    pub(super) fn expect_indexes(&self, indexes: u32) {
        self.indexes.store(indexes, Ordering::Relaxed);
    }

    /// An index is there.
    pub(super) fn index_done(&self) {
        self.indexes_done.fetch_add(1, Ordering::Relaxed);
    }

    fn progress(&self) -> TableProgress {
        let rows = self.rows.load(Ordering::Relaxed);
        let bytes = self.bytes.load(Ordering::Relaxed);
        let indexes = self.indexes.load(Ordering::Relaxed);
        let indexes_done = self.indexes_done.load(Ordering::Relaxed);
        let (state, read) = match self.pieces_left() {
            0 if indexes_done < indexes => (TableState::Indexing, self.size),
            0 => (TableState::Done, self.size),
            _ if bytes == 0 => (TableState::Waiting, 0),
            _ => (TableState::Copying, self.read.load(Ordering::Relaxed).min(self.size)),
        };
        TableProgress {
            name: self.name.clone(),
            state,
            rows,
            bytes,
            size_bytes: self.size,
            read_bytes: read,
            indexes,
            indexes_done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_done_when_its_pieces_and_its_indexes_are() {
        let table = TableCounters::new(TableName::new("public", "orders"), 1000, 2);
        table.expect_indexes(1);
        assert_eq!(table.progress().state, TableState::Waiting);
        table.add(5, 300, 400);
        assert_eq!(
            (table.progress().state, table.progress().read_bytes),
            (TableState::Copying, 400)
        );
        assert!(!table.piece_done());
        assert!(table.piece_done());
        assert_eq!(
            (table.progress().state, table.progress().read_bytes),
            (TableState::Indexing, 1000)
        );
        table.index_done();
        assert_eq!(table.progress().state, TableState::Done);
    }

    #[test]
    fn a_piece_that_was_given_up_is_not_counted() {
        let table = TableCounters::new(TableName::new("public", "orders"), 1000, 1);
        table.add(5, 300, 400);
        table.take_back(5, 300, 400);
        assert_eq!(table.progress().rows, 0);
        assert_eq!(table.progress().state, TableState::Waiting);
    }

    #[test]
    fn the_sums_are_over_all_tables() {
        let progress = CopyProgress::default();
        assert_eq!(progress.totals(), CopyTotals::default());
        let table = |pieces| Arc::new(TableCounters::new(TableName::new("a", "b"), 100, pieces));
        progress.begin(vec![table(0), table(1)]);
        let totals = progress.totals();
        assert_eq!((totals.tables, totals.tables_done, totals.size_bytes), (2, 1, 200));
        assert_eq!(totals.read_bytes_per_second, None);
    }
}
