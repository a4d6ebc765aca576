//! Which tables were written to lately, and how much since a verification.
//!
//! Pure, over the server's own counters of rows inserted, updated and deleted, which cost one
//! statement for all tables. They say nothing of when: so they are looked at again and again, and a
//! table is as fresh as the last look that saw its counter move.

use std::cmp::Reverse;
use std::collections::HashMap;

/// The counter of each table at one moment, by the table's OID.
pub type Mark = HashMap<u32, u64>;

/// The counters of one side's tables, and at which look each moved last.
#[derive(Clone, Debug, Default)]
pub struct Activity {
    looks: u64,
    tables: HashMap<u32, Counter>,
}

#[derive(Clone, Copy, Debug)]
struct Counter {
    rows: u64,
    moved_at: u64,
}

/// How lately, and how much, a table was written to; the greater, the sooner it is read again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Freshness {
    /// The look that saw it move last; zero for one that was not written to.
    pub moved_at: u64,
    /// Rows written since the last verification.
    pub rows: u64,
}

impl Activity {
    /// Takes in one look at the counters of all tables; what is not in it is gone.
    pub fn take_in(&mut self, look: impl IntoIterator<Item = (u32, u64)>) {
        self.looks += 1;
        let first = self.looks == 1;
        let (looks, before) = (self.looks, std::mem::take(&mut self.tables));
        self.tables = look
            .into_iter()
            .map(|(table, rows)| {
                let moved_at = match before.get(&table) {
                    Some(counter) if counter.rows == rows => counter.moved_at,
                    // When it moved before the first look is not known.
                    None if first => 0,
                    Some(_) | None => looks,
                };
                (table, Counter { rows, moved_at })
            })
            .collect();
    }

    /// The counters of these tables as they are; a table that has none yet counts from zero.
    #[must_use]
    pub fn mark(&self, tables: impl IntoIterator<Item = u32>) -> Mark {
        let rows = |table| self.tables.get(&table).map_or(0, |counter| counter.rows);
        tables.into_iter().map(|table| (table, rows(table))).collect()
    }

    /// Rows written since `mark` to the tables that are in it, and how many tables that is.
    #[must_use]
    pub fn since(&self, mark: &Mark) -> (u64, u64) {
        let written = mark.iter().filter_map(|(table, before)| {
            let rows = self.tables.get(table)?.since(Some(before));
            (rows > 0).then_some(rows)
        });
        written.fold((0, 0), |(rows, tables), more| (rows.saturating_add(more), tables + 1))
    }

    /// How fresh a table is since `mark`; without one all that it ever counted is new.
    #[must_use]
    pub fn freshness(&self, table: u32, mark: Option<&Mark>) -> Freshness {
        let Some(counter) = self.tables.get(&table) else { return Freshness::default() };
        match counter.since(mark.and_then(|mark| mark.get(&table))) {
            0 => Freshness::default(),
            rows => Freshness { moved_at: counter.moved_at, rows },
        }
    }
}

impl Counter {
    /// A counter that is lower than before was reset: what it counts now came since.
    fn since(self, before: Option<&u64>) -> u64 {
        match before {
            Some(before) if *before <= self.rows => self.rows - before,
            Some(_) | None => self.rows,
        }
    }
}

/// Where a range of a table comes in a round: what was written lately first; of a table that was
/// written to the last range first, because that is where keys that grow put their new rows.
#[must_use]
pub fn place<N: Ord>(freshness: Freshness, table: N, number: i32) -> impl Ord {
    let number = if freshness.rows > 0 { -i64::from(number) } else { i64::from(number) };
    (Reverse(freshness), table, number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn activity(looks: &[&[(u32, u64)]]) -> Activity {
        let mut activity = Activity::default();
        for look in looks {
            activity.take_in(look.iter().copied());
        }
        activity
    }

    fn order(activity: &Activity, mark: Option<&Mark>, ranges: &[(u32, i32)]) -> Vec<(u32, i32)> {
        let mut ranges = ranges.to_vec();
        ranges.sort_by_key(|(table, number)| {
            place(activity.freshness(*table, mark), *table, *number)
        });
        ranges
    }

    #[test]
    fn what_was_written_last_is_read_first_and_what_was_not_is_read_all_the_same() {
        let first: &[(u32, u64)] = &[(1, 10), (2, 10), (3, 10), (4, 10)];
        let activity = activity(&[
            first,
            &[(1, 10), (2, 5010), (3, 10), (4, 10)],
            &[(1, 10), (2, 5010), (3, 11), (4, 10)],
        ]);
        let mark: Mark = first.iter().copied().collect();
        let sorted = order(&activity, Some(&mark), &[(1, 0), (2, 0), (3, 0), (4, 0)]);
        assert_eq!(sorted, [(3, 0), (2, 0), (1, 0), (4, 0)]);
    }

    #[test]
    fn of_a_table_that_was_written_to_the_end_comes_first() {
        let activity = activity(&[&[(1, 10), (2, 10)], &[(1, 10), (2, 20)]]);
        let mark: Mark = [(1, 10), (2, 10)].into_iter().collect();
        let sorted = order(&activity, Some(&mark), &[(1, 0), (1, 1), (2, 0), (2, 1), (2, 2)]);
        assert_eq!(sorted, [(2, 2), (2, 1), (2, 0), (1, 0), (1, 1)]);
    }

    #[test]
    fn without_a_mark_the_busiest_come_first() {
        let activity = activity(&[&[(1, 10), (2, 900), (3, 0)]]);
        assert_eq!(order(&activity, None, &[(3, 0), (1, 0), (2, 0)]), [(2, 0), (1, 0), (3, 0)]);
    }

    #[test]
    fn rows_are_counted_since_the_mark_in_the_tables_that_are_in_it_also_over_a_reset() {
        let mark: Mark = [(1, 100), (2, 100), (3, 100), (4, 100)].into_iter().collect();
        // 1 stood still, 2 moved, 3 was reset and moved, 4 is gone, 5 is of no interest.
        let activity = activity(&[&[(1, 100), (2, 130), (3, 7), (5, 3)]]);
        assert_eq!(activity.since(&mark), (37, 2));
        assert_eq!(activity.since(&activity.mark([1, 2, 3, 9])), (0, 0));
        assert_eq!(activity.freshness(4, Some(&mark)), Freshness::default());
    }
}
