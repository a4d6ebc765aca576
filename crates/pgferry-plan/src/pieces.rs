//! How a table is cut into pieces that are copied, and committed, one by one.
//!
//! A piece is a range of blocks of the table's file (`ctid`), or, mostly, the whole of it: a plain read
//! of a table is cheaper than one of its ranges. Which pieces are there decides whether a table is
//! copied, so both questions are answered here and nowhere else.

/// Blocks from `first` on and below `end`; without an end, to wherever the file ends. Rows that a
/// snapshot sees never move, so that ranges without a gap hold each of them exactly once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockRange {
    /// The first block.
    pub first: u64,
    /// The first block that is not in it any more.
    pub end: Option<u64>,
}

impl BlockRange {
    /// A whole table, however long it is.
    pub const WHOLE: Self = Self { first: 0, end: None };

    /// How many of a file's `blocks` are in it.
    #[must_use]
    pub fn length(&self, blocks: u64) -> u64 {
        self.end.unwrap_or(blocks).min(blocks).saturating_sub(self.first)
    }
}

/// What is missing to the whole, given the ranges that are there.
#[must_use]
pub fn missing(there: &[BlockRange]) -> Vec<BlockRange> {
    let mut there = there.to_vec();
    there.sort_unstable();
    let mut gaps = Vec::new();
    let mut reached = 0;
    for range in there {
        if range.first > reached {
            gaps.push(BlockRange { first: reached, end: Some(range.first) });
        }
        match range.end {
            None => return gaps,
            Some(end) => reached = reached.max(end),
        }
    }
    gaps.push(BlockRange { first: reached, end: None });
    gaps
}

/// Whether the ranges hold every row of a table.
#[must_use]
pub fn is_whole(there: &[BlockRange]) -> bool {
    missing(there).is_empty()
}

/// Cuts what is missing of a file of `blocks` into pieces of `per_piece` blocks. The last piece of
/// an open range stays open: the file may have grown since it was measured.
#[must_use]
pub fn cut(missing: &[BlockRange], blocks: u64, per_piece: u64) -> Vec<BlockRange> {
    let per_piece = per_piece.max(1);
    let mut pieces = Vec::new();
    for range in missing {
        let mut first = range.first;
        let stop = range.end.unwrap_or(blocks);
        // A rest of less than half a piece goes with the piece before it.
        while stop.saturating_sub(first) > per_piece + per_piece / 2 {
            pieces.push(BlockRange { first, end: Some(first + per_piece) });
            first += per_piece;
        }
        pieces.push(BlockRange { first, end: range.end });
    }
    pieces
}

/// Whole tables up to this size are worth a transaction together, and no more of them than this:
/// each holds locks until the commit.
const BATCH_TABLES: usize = 64;

/// Gathers tables that are copied whole, given by their sizes in bytes in descending order, into
/// batches of at most `batch_bytes`; each is the range of positions that it takes.
#[must_use]
pub fn batches(sizes: &[u64], batch_bytes: u64) -> Vec<std::ops::Range<usize>> {
    let mut batches = Vec::new();
    let mut start = 0;
    let mut sum = 0_u64;
    for (index, size) in sizes.iter().enumerate() {
        let full = index > start
            && (sum.saturating_add(*size) > batch_bytes || index - start >= BATCH_TABLES);
        if full {
            batches.push(start..index);
            (start, sum) = (index, 0);
        }
        sum = sum.saturating_add(*size);
    }
    if start < sizes.len() {
        batches.push(start..sizes.len());
    }
    batches
}

/// Into how much the tables of one copy are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cuts {
    /// Bytes that one transaction brings: small enough that what is under way on all sessions is a
    /// small part of all, so that little is copied twice after a crash; large enough that a commit,
    /// and the buffers that a server takes anew for each COPY, cost little beside it.
    pub part_bytes: u64,
    all_bytes: u64,
    jobs: u64,
    writers: u64,
}

impl Cuts {
    /// For tables of these sizes in bytes, copied by so many `jobs` at a time, of which so many may
    /// write into one table.
    #[must_use]
    pub fn of(sizes: &[u64], jobs: usize, writers: u64) -> Self {
        const SMALLEST: u64 = 8 << 20;
        const LARGEST: u64 = 1 << 30;
        let all_bytes: u64 = sizes.iter().sum();
        let jobs = u64::try_from(jobs.max(1)).unwrap_or(1);
        let part = |at_a_time: u64| (all_bytes / (at_a_time * 32)).clamp(SMALLEST, LARGEST);
        let mut cuts = Self { part_bytes: part(jobs), all_bytes, jobs, writers: writers.max(1) };
        let large = sizes.iter().filter(|bytes| cuts.is_large(**bytes));
        let at_a_time = large.map(|bytes| cuts.ranges(*bytes)).sum::<u64>();
        cuts.part_bytes = part(at_a_time.clamp(1, jobs));
        cuts
    }

    /// Whether a table of this size arrives in several transactions.
    #[must_use]
    pub fn is_large(&self, bytes: u64) -> bool {
        bytes > self.part_bytes + self.part_bytes / 2
    }

    /// In how many ranges a table of this size is read at a time: as many as half of the jobs can
    /// take of it, when they share all tables by size. The other half builds indexes meanwhile, and
    /// each is at work on two servers.
    #[must_use]
    pub fn ranges(&self, bytes: u64) -> u64 {
        let share =
            u128::from(self.jobs) * u128::from(bytes) / (2 * u128::from(self.all_bytes.max(1)));
        u64::try_from(share).unwrap_or(u64::MAX).clamp(1, self.writers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(first: u64, end: u64) -> BlockRange {
        BlockRange { first, end: Some(end) }
    }

    #[test]
    fn nothing_there_is_everything_missing() {
        assert_eq!(missing(&[]), [BlockRange::WHOLE]);
        assert!(is_whole(&[BlockRange::WHOLE]));
    }

    #[test]
    fn a_gap_is_missing_and_so_is_the_open_end() {
        let open = BlockRange { first: 30, end: None };
        assert_eq!(missing(&[open, range(0, 10)]), [range(10, 30)]);
        assert_eq!(missing(&[range(0, 30)]), [open]);
    }

    #[test]
    fn a_short_rest_goes_with_the_piece_before_it() {
        assert_eq!(
            cut(&[BlockRange::WHOLE], 25, 10),
            [range(0, 10), BlockRange { first: 10, end: None }]
        );
        assert_eq!(cut(&[BlockRange::WHOLE], 0, 10), [BlockRange::WHOLE]);
        assert_eq!(cut(&[range(5, 7)], 100, 10), [range(5, 7)]);
    }

    #[test]
    fn small_tables_travel_together_and_large_ones_alone() {
        assert_eq!(batches(&[90, 40, 30, 20, 10], 95), [0..1, 1..4, 4..5]);
        assert_eq!(batches(&[500, 0], 100), [0..1, 1..2]);
        assert_eq!(batches(&vec![0; 130], 100), [0..64, 64..128, 128..130]);
        assert!(batches(&[], 100).is_empty());
    }

    #[test]
    fn what_is_under_way_is_a_small_part_of_all() {
        let gigabyte = 1_u64 << 30;
        let cuts = Cuts::of(&[gigabyte, gigabyte, 1 << 20], 4, 2);
        assert!(cuts.part_bytes * 2 <= 2 * gigabyte / 32 + (1 << 20), "two tables at a time");
        assert!(cuts.is_large(gigabyte) && !cuts.is_large(1 << 20));
        let cuts = Cuts::of(&[gigabyte; 16], 4, 2);
        assert!(cuts.part_bytes * 4 <= 16 * gigabyte / 32, "four tables at a time");
        assert_eq!(Cuts::of(&[], 4, 2).part_bytes, 8 << 20);
        assert_eq!(Cuts::of(&[1 << 50], 4, 2).part_bytes, 1 << 30);
    }

    #[test]
    fn a_table_is_read_in_ranges_where_workers_would_idle() {
        let ranges = |sizes: &[u64], jobs, writers| Cuts::of(sizes, jobs, writers).ranges(sizes[0]);
        assert_eq!(ranges(&[200, 100], 4, 8), 1, "two tables for two of four");
        assert_eq!(ranges(&[300], 4, 8), 2);
        assert_eq!(ranges(&[200, 100], 16, 8), 5);
        assert_eq!(ranges(&[200, 100], 16, 2), 2, "no more than may write");
        assert_eq!(ranges(&[300], 1, 8), 1);
        assert_eq!(ranges(&[0], 4, 8), 1);
    }

    proptest! {
        /// Whatever is there already, the pieces that are cut complete it without an overlap.
        #[test]
        fn pieces_complete_what_is_there(
            cuts in proptest::collection::btree_set(1_u64..200, 0..8),
            taken in proptest::collection::vec(any::<bool>(), 9),
            blocks in 0_u64..250,
            per_piece in 1_u64..40,
        ) {
            let mut bounds: Vec<u64> = vec![0];
            bounds.extend(cuts);
            let ranges: Vec<BlockRange> = bounds.iter().enumerate()
                .map(|(i, first)| BlockRange { first: *first, end: bounds.get(i + 1).copied() })
                .collect();
            let there: Vec<BlockRange> = ranges.iter().zip(&taken)
                .filter(|(_, taken)| **taken).map(|(range, _)| *range).collect();
            let mut all = there.clone();
            all.extend(cut(&missing(&there), blocks, per_piece));
            prop_assert!(is_whole(&all));
            all.sort_unstable();
            for pair in all.windows(2) {
                prop_assert_eq!(pair[0].end, Some(pair[1].first));
            }
        }
    }
}
