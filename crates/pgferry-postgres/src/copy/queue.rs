//! What the workers of a copy do next: one queue of pieces to copy and indexes to build.
//!
//! The longest work first, so that nothing large is left over at the end for one worker alone. A
//! table is copied by one worker as long as there are others to begin, which keeps its rows in
//! their order; then by as many as are free. Nothing here waits but for work, or touches a server.

use std::cmp::Reverse;
use std::collections::VecDeque;
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
    /// Build an index: positions of the table in the plan, and of the index in the table.
    Index(usize, usize),
    /// Turn a table's unique indexes into its constraints.
    Complete(usize),
}

/// The work of one copy, shared by its workers.
pub(super) struct Queue {
    tables: Arc<[CopyTable]>,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    /// Large tables with what is left of them, the largest first.
    split: Vec<Split>,
    /// Batches of whole tables, the largest first.
    whole: VecDeque<Vec<Piece>>,
    /// Indexes whose table has arrived, the heaviest last.
    indexes: Vec<(u64, usize, usize)>,
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
}

struct Split {
    table: usize,
    pieces: VecDeque<Piece>,
    workers: usize,
}

impl Queue {
    /// Everything that is to be done for these tables, which are in descending order of size.
    pub(super) fn new(tables: Arc<[CopyTable]>, batch_bytes: u64) -> Self {
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
        Self { tables, state: Mutex::new(state), changed: Notify::new() }
    }

    /// The next work for a worker that has just worked on `last`; None when everything is done.
    pub(super) async fn next(&self, last: Option<usize>) -> Option<Work> {
        loop {
            let changed = self.changed.notified();
            {
                let mut state = self.lock();
                if let Some(work) = state.take(&self.tables, last) {
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
            Work::Index(table, _) => {
                state.unbuilt[*table] -= 1;
                if state.unbuilt[*table] == 0 {
                    state.built(*table, &self.tables[*table]);
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
            Work::Index(table, index) => state.indexes.push((u64::MAX, table, index)),
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

    /// Workers that have nothing to do, of so many, once whatever waits for one has been taken.
    pub(super) fn idle(&self, jobs: usize) -> usize {
        let state = self.lock();
        let pieces: usize = state.split.iter().map(|split| split.pieces.len()).sum();
        let waiting = state.indexes.len() + state.whole.len() + pieces;
        jobs.saturating_sub(state.busy + waiting)
    }

    /// Whether this piece's table gets its indexes in the transaction of its rows.
    pub(super) fn builds_with(&self, piece: &Piece) -> bool {
        !self.tables[piece.table].in_parts && piece.bytes <= WITH_INDEXES_BYTES
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take(&mut self, tables: &[CopyTable], last: Option<usize>) -> Option<Work> {
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
        let heaviest = self.indexes.last().map(|(weight, ..)| *weight);
        if heaviest.is_some() && heaviest >= largest_split.max(largest_whole) {
            return self.indexes.pop().map(|(_, table, index)| Work::Index(table, index));
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
        self.indexes.sort_unstable();
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
mod tests {
    use super::*;
    use pgferry_plan::TableName;

    const MB: u64 = 1 << 20;

    fn table(name: &str, megabytes: u64, pieces: &[BlockRange], indexes: usize) -> CopyTable {
        let index = Index {
            name: "i".into(),
            bytes: megabytes * MB / 10,
            create: Some("CREATE INDEX".into()),
            complete: vec!["ALTER TABLE".into()],
        };
        CopyTable {
            name: TableName::new("public", name),
            bytes: megabytes * MB,
            blocks: megabytes * 128,
            in_parts: pieces != [BlockRange::WHOLE],
            pieces: pieces.iter().map(|range| (*range, (0, 0))).collect(),
            indexes: vec![index; indexes],
            ..CopyTable::default()
        }
    }

    fn queue(tables: Vec<CopyTable>) -> Queue {
        Queue::new(tables.into(), 16 * MB)
    }

    fn halves(blocks: u64) -> [BlockRange; 2] {
        [
            BlockRange { first: 0, end: Some(blocks / 2) },
            BlockRange { first: blocks / 2, end: None },
        ]
    }

    #[tokio::test]
    async fn a_table_is_one_workers_until_none_is_left_to_begin() {
        let queue = queue(vec![
            table("large", 100, &halves(12800), 0),
            table("second", 50, &halves(6400), 0),
        ]);
        let tables = async |last| match queue.next(last).await {
            Some(Work::Copy(pieces)) => pieces[0].table,
            other => panic!("{other:?}"),
        };
        assert_eq!(tables(None).await, 0);
        assert_eq!(tables(None).await, 1);
        assert_eq!(tables(None).await, 0, "nothing is left to begin: it helps");
    }

    #[tokio::test]
    async fn indexes_follow_their_tables_last_row_and_constraints_the_last_index() {
        let queue = queue(vec![table("orders", 100, &halves(12800), 2)]);
        let first = queue.next(None).await.unwrap();
        let second = queue.next(None).await.unwrap();
        assert!(!queue.done(&first));
        assert!(queue.done(&second), "the last row of all");
        let one = queue.next(None).await.unwrap();
        assert_eq!(queue.idle(4), 2, "one builds, and one is about to");
        let two = queue.next(None).await.unwrap();
        assert_eq!(queue.idle(4), 2);
        assert!(matches!((&one, &two), (Work::Index(0, _), Work::Index(0, _))), "{one:?} {two:?}");
        queue.done(&one);
        queue.done(&two);
        let last = queue.next(None).await.unwrap();
        assert_eq!(last, Work::Complete(0));
        queue.done(&last);
        assert_eq!(queue.next(None).await, None);
    }

    #[tokio::test]
    async fn small_tables_bring_their_indexes_along() {
        let queue = queue(vec![
            table("a", 1, &[BlockRange::WHOLE], 1),
            table("b", 1, &[BlockRange::WHOLE], 1),
        ]);
        let work = queue.next(None).await.unwrap();
        assert!(matches!(&work, Work::Copy(pieces) if pieces.len() == 2), "{work:?}");
        assert!(queue.done(&work));
        assert_eq!(queue.next(None).await, None);
    }

    #[tokio::test]
    async fn what_is_there_already_goes_straight_to_its_indexes() {
        let queue = queue(vec![table("orders", 100, &[], 1)]);
        assert_eq!(queue.next(None).await, Some(Work::Index(0, 0)));
    }

    #[tokio::test]
    async fn what_is_given_back_is_taken_again() {
        let queue = queue(vec![
            table("large", 100, &halves(12800), 0),
            table("small", 1, &[BlockRange::WHOLE], 0),
        ]);
        let (one, two) = (queue.next(None).await.unwrap(), queue.next(None).await.unwrap());
        queue.give_back(one.clone());
        queue.give_back(two.clone());
        let mut left = 0;
        while let Some(work) = queue.next(None).await {
            left += 1;
            queue.done(&work);
        }
        assert_eq!(left, 3);
    }
}
