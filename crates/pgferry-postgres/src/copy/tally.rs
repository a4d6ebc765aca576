//! Counts what passes on its way to a table, and holds it to the pace.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Shared;
use super::pace::Pace;
use super::progress::TableCounters;
use super::queue::Piece;
use crate::wire::Gate;

/// Counts a piece on its way, and holds it to the pace.
pub(super) struct Tally<'a> {
    counters: &'a TableCounters,
    counted: &'a Counted,
    /// What is left of the piece's share of the table's size.
    share: u64,
    pace: &'a Pace,
}

impl<'a> Tally<'a> {
    pub(super) fn new(shared: &'a Shared, piece: &Piece, counted: &'a Counted) -> Self {
        let share = piece.bytes - piece.read(piece.there.1);
        Self { counters: &shared.counters[piece.table], counted, share, pace: &shared.pace }
    }
}

impl Gate for Tally<'_> {
    async fn pass(&self, rows: u64, bytes: u64) {
        // How much of the table was read is not known before the end: as much as was sent.
        let read = bytes.min(self.share.saturating_sub(self.counted.get()[2]));
        self.counters.add(rows, bytes, read);
        self.counted.add([rows, bytes, read]);
        self.pace.keep(bytes).await;
    }
}

/// What was counted of a transaction that is under way: rows, bytes, and share of the table's size.
#[derive(Default)]
pub(super) struct Counted([AtomicU64; 3]);

impl Counted {
    fn add(&self, figures: [u64; 3]) {
        for (counter, figure) in self.0.iter().zip(figures) {
            counter.fetch_add(figure, Ordering::Relaxed);
        }
    }

    pub(super) fn get(&self) -> [u64; 3] {
        [0, 1, 2].map(|at: usize| self.0[at].load(Ordering::Relaxed))
    }
}
