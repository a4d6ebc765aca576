//! How a table is cut into pieces that are copied, and committed, one by one.
//!
//! A piece is a range of blocks of the table's file (`ctid`), or the whole of it. Which pieces are
//! there decides whether a table is copied, so both questions are answered here and nowhere else.

/// Blocks from `first` on and below `end`; without an end, to wherever the file ends. Rows that a
/// snapshot sees never move, so that ranges without a gap hold each of them exactly once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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

/// Bytes of a piece: small enough that what is under way on `jobs` sessions is a small part of
/// all, so that little is copied twice after a crash; large enough that a commit costs nothing
/// beside it.
#[must_use]
pub fn piece_bytes(all_bytes: u64, jobs: usize) -> u64 {
    const SMALLEST: u64 = 8 << 20;
    const LARGEST: u64 = 1 << 30;
    let jobs = u64::try_from(jobs.max(1)).unwrap_or(1);
    (all_bytes / (jobs * 24)).clamp(SMALLEST, LARGEST)
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
        let all = 2_u64 << 30;
        assert!(piece_bytes(all, 4) * 4 <= all / 24);
        assert_eq!(piece_bytes(0, 4), 8 << 20);
        assert_eq!(piece_bytes(1 << 50, 4), 1 << 30);
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
