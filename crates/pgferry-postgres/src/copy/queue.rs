//! What the workers of a copy do next: one queue of pieces to copy and indexes to build.
//!
//! The longest work first, so that nothing large is left over at the end for one worker alone. A
//! table is copied by one worker as long as there are others to begin, which keeps its rows in
//! their order; then by as many as are free. An index that outweighs what else is left is built by the
//! server's parallel workers too: each has the seat of one of ours, so that the budget stays what it is.
//! Nothing here waits but for work, or touches a server.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pgferry_plan::pieces::{self, BlockRange};
use tokio::sync::Notify;

use super::{CopyTable, Index};

/// Tables up to this size have their indexes built in the transaction that brings their rows.
const WITH_INDEXES_BYTES: u64 = 8 << 20;

/// A piece of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Piece {
    /// The table's position in the plan.
    pub(super) table: usize,
    /// Which of its blocks.
    pub(super) range: BlockRange,
    /// Its share of the table's size.
    pub(super) bytes: u64,
    /// Rows and bytes of it that are there, as far as its last worker knew.
    pub(super) there: (u64, u64),
}

impl Piece {
    /// How much of its share that many bytes stand for: what was read is not known before the end.
    pub(super) fn read(&self, bytes: u64) -> u64 {
        bytes.min(self.bytes)
    }
}

/// Something for one worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// Copy these: one piece of a large table, in as many transactions as it takes, or some whole
    /// small ones in one.
    Copy(Vec<Piece>),
    /// Build an index.
    Index(Building),
    /// Turn a table's unique indexes into its constraints.
    Complete(usize),
}

/// An index in a worker's hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Building {
    /// The table's position in the plan.
    pub(super) table: usize,
    /// The index's position in the table.
    pub(super) index: usize,
    /// Parallel workers of the server that help; as many of ours wait meanwhile.
    pub(super) helpers: usize,
}

/// How much may be done at a time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seats {
    /// Of our workers and the server's parallel ones together.
    jobs: usize,
    /// Parallel workers of the server for one index.
    helpers: usize,
}

impl Seats {
    /// For so many jobs, each of which builds an index with so many bytes of memory.
    pub(super) fn of(jobs: usize, memory_bytes: u64) -> Self {
        // PostgreSQL starts no parallel worker that would leave anybody with less than this of it.
        const LEAST_MEMORY: u64 = 32 << 20;
        let builders = usize::try_from(memory_bytes / LEAST_MEMORY).unwrap_or(usize::MAX);
        Self { jobs: jobs.max(1), helpers: builders.saturating_sub(1) }
    }
}

/// The work of one copy, shared by its workers.
pub(super) struct Queue {
    tables: Arc<[CopyTable]>,
    seats: Seats,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    /// Large tables with what is left of them, the largest first.
    split: Vec<Split>,
    /// Batches of whole tables, the largest first.
    whole: VecDeque<Vec<Piece>>,
    /// Indexes whose table has arrived. A heap, because when a build is taken up again every table's
    /// come at once: to sort them for each of ten thousand tables takes seconds.
    indexes: BinaryHeap<(u64, usize, usize)>,
    /// Pieces of each table that are not committed yet. Counted here, under the lock, and not by the
    /// counters that are shown: two workers could both see the last one gone.
    left: Vec<usize>,
    /// Indexes of each table that are not built yet.
    unbuilt: Vec<usize>,
    complete: Vec<usize>,
    /// Pieces that are not committed yet, in a worker's hands or not.
    pieces: usize,
    /// Workers with work in their hands.
    busy: usize,
    /// Parallel workers of the server that help them.
    helpers: usize,
    /// What is not done yet, in bytes of copying, in a worker's hands or not.
    weight: u64,
}

struct Split {
    table: usize,
    pieces: VecDeque<Piece>,
    workers: usize,
}

impl Queue {
    /// Everything that is to be done for these tables, which are in descending order of size.
    pub(super) fn new(tables: Arc<[CopyTable]>, seats: Seats, batch_bytes: u64) -> Self {
        let mut state = State {
            left: tables.iter().map(|table| table.pieces.len()).collect(),
            unbuilt: vec![0; tables.len()],
            ..State::default()
        };
        let mut whole: Vec<Piece> = Vec::new();
        for (table, copied) in tables.iter().enumerate() {
            state.unbuilt[table] =
                copied.indexes.iter().filter(|index| index.create.is_some()).count();
            let pieces: VecDeque<Piece> = copied
                .pieces
                .iter()
                .map(|(range, there)| Piece {
                    table,
                    range: *range,
                    bytes: copied.share(*range),
                    there: *there,
                })
                .collect();
            state.pieces += pieces.len();
            state.weight += pieces.iter().map(|piece| piece.bytes).sum::<u64>();
            if !pieces.front().is_some_and(|piece| builds_with(copied, piece)) {
                let missing = copied.indexes.iter().filter(|index| index.create.is_some());
                state.weight += missing.map(|index| weight(copied, index)).sum::<u64>();
            }
            match pieces.front() {
                None => state.arrived(table, copied),
                Some(_) if copied.in_parts => state.split.push(Split { table, pieces, workers: 0 }),
                Some(_) => whole.extend(pieces),
            }
        }
        let sizes: Vec<u64> = whole.iter().map(|piece| piece.bytes).collect();
        for batch in pieces::batches(&sizes, batch_bytes) {
            state.whole.push_back(whole[batch].to_vec());
        }
        Self { tables, seats, state: Mutex::new(state), changed: Notify::new() }
    }

    /// The next work for a worker that has just worked on `last`; None when everything is done.
    pub(super) async fn next(&self, last: Option<usize>) -> Option<Work> {
        loop {
            let changed = self.changed.notified();
            {
                let mut state = self.lock();
                // A seat that a parallel worker has is nobody else's.
                if state.busy + state.helpers < self.seats.jobs
                    && let Some(work) = state.take(&self.tables, self.seats, last)
                {
                    state.busy += 1;
                    return Some(work);
                }
                if state.busy == 0 {
                    return None;
                }
            }
            changed.await;
        }
    }

    /// Work is done. Returns whether it brought the last row of all.
    pub(super) fn done(&self, work: &Work) -> bool {
        let mut state = self.lock();
        state.busy -= 1;
        let mut was_last = false;
        match work {
            Work::Copy(pieces) => {
                state.leave(pieces);
                state.pieces -= pieces.len();
                was_last = state.pieces == 0;
                for piece in pieces {
                    let table = piece.table;
                    state.weight = state.weight.saturating_sub(piece.bytes);
                    state.left[table] = state.left[table].saturating_sub(1);
                    if state.left[table] > 0 {
                        continue;
                    }
                    if self.builds_with(piece) {
                        state.unbuilt[table] = 0;
                    } else {
                        state.arrived(table, &self.tables[table]);
                    }
                }
            }
            Work::Index(Building { table, index, helpers }) => {
                let copied = &self.tables[*table];
                state.helpers -= helpers;
                state.weight = state.weight.saturating_sub(weight(copied, &copied.indexes[*index]));
                state.unbuilt[*table] -= 1;
                if state.unbuilt[*table] == 0 {
                    state.built(*table, copied);
                }
            }
            Work::Complete(_) => {}
        }
        drop(state);
        self.changed.notify_waiters();
        was_last
    }

    /// Work was not done, and may be taken by anybody.
    pub(super) fn give_back(&self, work: Work) {
        let mut state = self.lock();
        state.busy -= 1;
        match work {
            Work::Copy(pieces) => {
                state.leave(&pieces);
                let split = pieces
                    .first()
                    .map(|piece| piece.table)
                    .and_then(|table| state.split.iter_mut().find(|split| split.table == table));
                match split {
                    Some(split) => split.pieces.extend(pieces),
                    None => state.whole.push_front(pieces),
                }
            }
            Work::Index(Building { table, index, helpers }) => {
                state.helpers -= helpers;
                state.indexes.push((u64::MAX, table, index));
            }
            Work::Complete(table) => state.complete.push(table),
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Whether some pieces are in nobody's hands: a worker without one may need the source again.
    pub(super) fn has_pieces(&self) -> bool {
        let state = self.lock();
        !state.whole.is_empty() || state.split.iter().any(|split| !split.pieces.is_empty())
    }

    /// Whether this piece's table gets its indexes in the transaction of its rows.
    pub(super) fn builds_with(&self, piece: &Piece) -> bool {
        builds_with(&self.tables[piece.table], piece)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take(&mut self, tables: &[CopyTable], seats: Seats, last: Option<usize>) -> Option<Work> {
        if let Some(table) = self.complete.pop() {
            return Some(Work::Complete(table));
        }
        // On with the same table: its rows stay in order, and its blocks are read in order.
        if let Some(at) = self.split.iter().position(|split| Some(split.table) == last)
            && let Some(work) = self.take_piece(at)
        {
            return Some(work);
        }
        let fresh =
            self.split.iter().position(|split| split.workers == 0 && !split.pieces.is_empty());
        let size = |at: usize| tables[self.split[at].table].bytes;
        let largest_split = fresh.map(size);
        let largest_whole = self.whole.front().map(|batch| batch.iter().map(|p| p.bytes).sum());
        let heaviest = self.indexes.peek().map(|(weight, ..)| *weight);
        if heaviest.is_some() && heaviest >= largest_split.max(largest_whole) {
            let (_, table, index) = self.indexes.pop()?;
            let copied = &tables[table];
            let helpers = self.helpers_for(copied, &copied.indexes[index], seats);
            self.helpers += helpers;
            return Some(Work::Index(Building { table, index, helpers }));
        }
        match fresh {
            Some(at) if largest_split >= largest_whole => return self.take_piece(at),
            Some(_) | None => {}
        }
        if let Some(batch) = self.whole.pop_front() {
            return Some(Work::Copy(batch));
        }
        let left = |at: &usize| self.split[*at].pieces.iter().map(|piece| piece.bytes).sum::<u64>();
        let most = (0..self.split.len()).max_by_key(left)?;
        self.take_piece(most)
    }

    /// Parallel workers for an index: with them it has that share of all seats that it has of what is
    /// left, so that it does not end long after everything else. Decided once, because a build that has
    /// begun takes no more of them; so the last one gets every seat that is free.
    fn helpers_for(&self, table: &CopyTable, index: &Index, seats: Seats) -> usize {
        let free = seats.jobs.saturating_sub(self.busy + self.helpers + 1);
        let wanted = if self.pieces == 0 && self.indexes.is_empty() {
            free
        } else {
            let all = u128::from(self.weight.max(1));
            // Rounded to the nearest: with less than one and a half it builds alone.
            let share = 2 * u128::from(weight(table, index)) * seats.jobs as u128 + all;
            usize::try_from(share / (2 * all)).unwrap_or(seats.jobs).saturating_sub(1)
        };
        wanted.min(free).min(seats.helpers).min(helpers_of_server(table, index))
    }

    fn take_piece(&mut self, at: usize) -> Option<Work> {
        let split = self.split.get_mut(at)?;
        let piece = split.pieces.pop_front()?;
        split.workers += 1;
        Some(Work::Copy(vec![piece]))
    }

    fn leave(&mut self, pieces: &[Piece]) {
        let table = pieces.first().map(|piece| piece.table);
        if let Some(split) = self.split.iter_mut().find(|split| Some(split.table) == table) {
            split.workers = split.workers.saturating_sub(1);
        }
    }

    /// Every row of a table is there.
    fn arrived(&mut self, table: usize, copied: &CopyTable) {
        for (position, _) in
            copied.indexes.iter().enumerate().filter(|(_, index)| index.create.is_some())
        {
            self.indexes.push((weight(copied, &copied.indexes[position]), table, position));
        }
        if self.unbuilt[table] == 0 {
            self.built(table, copied);
        }
    }

    /// Every index of a table is there.
    fn built(&mut self, table: usize, copied: &CopyTable) {
        if copied.indexes.iter().any(|index| !index.complete.is_empty()) {
            self.complete.push(table);
        }
    }
}

/// Whether a piece's table gets its indexes in the transaction of its rows.
fn builds_with(table: &CopyTable, piece: &Piece) -> bool {
    !table.in_parts && piece.bytes <= WITH_INDEXES_BYTES
}

/// Parallel workers that PostgreSQL gives to such an index at the most: a seat that is kept for one that
/// never comes would be lost.
fn helpers_of_server(table: &CopyTable, index: &Index) -> usize {
    const ONE_FROM: u64 = 8 << 20;
    if !index.is_btree {
        return 0;
    }
    // One at `min_parallel_table_scan_size`, and one more each time that the table is three times as large.
    (table.bytes / ONE_FROM).checked_ilog(3).map_or(0, |tripled| tripled as usize + 1)
}

/// What building an index costs, in bytes of copying: it reads the table and writes itself.
fn weight(table: &CopyTable, index: &Index) -> u64 {
    table.bytes / 4 + index.bytes
}

/// The order in which tables are begun.
pub(super) fn in_order(tables: &mut [CopyTable]) {
    tables.sort_by(|one, other| {
        (Reverse(one.bytes), &one.name).cmp(&(Reverse(other.bytes), &other.name))
    });
}

#[cfg(test)]
mod tests;
