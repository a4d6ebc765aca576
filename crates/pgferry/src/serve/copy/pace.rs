//! How fast a copy goes of late, and when its last row will have arrived.
//!
//! Pure: told the time, the sums and the tables now and then, it keeps half a minute of them. The
//! mean since the beginning would be wrong for hours after a pause or a slow table.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use pgferry_plan::TableName;
use pgferry_postgres::copy::{CopyTotals, TableProgress, TableState};

use super::estimate;

/// Between two samples; under it a speed says nothing.
const EVERY: Duration = Duration::from_secs(1);

/// How far back the speed looks.
const WINDOW: Duration = Duration::from_secs(30);

/// Samples of a copy.
#[derive(Debug, Default)]
pub(super) struct Pace {
    samples: VecDeque<Sample>,
    /// Tables whose rows are on their way: since when they are seen so, and what was read then.
    copying: HashMap<TableName, (Instant, u64)>,
    counts: Option<Counts>,
    bytes_expected: Option<u64>,
    /// Seconds until the last of the tables that are being copied is through: a large one may be
    /// left for a single worker when the others have nothing to do.
    longest: Option<f64>,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    rows: u64,
    bytes: u64,
    read: u64,
}

/// Tables and indexes by their state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) waiting: u64,
    pub(crate) copying: u64,
    pub(crate) indexing: u64,
    pub(crate) done: u64,
    pub(crate) indexes_waiting: u64,
    pub(crate) indexes_done: u64,
}

/// What lies ahead, at the speed of late.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Ahead {
    pub(super) rows_per_second: Option<f64>,
    pub(super) bytes_per_second: Option<f64>,
    pub(super) seconds_left: Option<f64>,
}

impl Pace {
    /// Whether the last sample is old enough for the next one.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.samples.back().is_none_or(|last| now.duration_since(last.at) >= EVERY)
    }

    /// Takes in how the copy stands. Nothing before its first run: a run that goes on where an
    /// earlier one ended begins with what that one copied, and that would count as speed.
    pub(super) fn sample(&mut self, at: Instant, totals: &CopyTotals, tables: &[TableProgress]) {
        if tables.is_empty() {
            return;
        }
        let read = totals.read_bytes;
        let sample = Sample { at, rows: totals.rows, bytes: totals.bytes, read };
        // Less than before is a copy that began again, or a piece that was given up.
        if self.samples.back().is_some_and(|last| {
            last.read > sample.read || last.rows > sample.rows || last.bytes > sample.bytes
        }) {
            self.samples.clear();
        }
        self.samples.push_back(sample);
        while self.samples.get(1).is_some_and(|next| at.duration_since(next.at) >= WINDOW) {
            self.samples.pop_front();
        }
        let mut before = std::mem::take(&mut self.copying);
        for table in tables.iter().filter(|table| table.state == TableState::Copying) {
            let known = before.remove(&table.name).filter(|(_, read)| *read <= table.read_bytes);
            self.copying.insert(table.name.clone(), known.unwrap_or((at, table.read_bytes)));
        }
        self.counts = Some(count(tables));
        self.bytes_expected = Some(estimate::all(tables, totals));
        let left = tables.iter().filter_map(|table| self.table_seconds_left(at, table));
        self.longest = left.reduce(f64::max);
    }

    /// Tables and indexes by their state, as last sampled.
    pub(super) fn counts(&self) -> Option<Counts> {
        self.counts
    }

    /// Bytes that come to be sent in all, by the last sample.
    pub(super) fn bytes_expected(&self) -> Option<u64> {
        self.bytes_expected
    }

    /// Speed, and time left. Nothing of it once every row has arrived: a speed that sinks towards
    /// zero while indexes are built would only mislead.
    pub(super) fn ahead(&self, now: Instant, totals: &CopyTotals) -> Ahead {
        let Some(first) = self.samples.front().filter(|_| totals.tables_done < totals.tables)
        else {
            return Ahead::default();
        };
        let span = now.duration_since(first.at);
        if span < EVERY {
            return Ahead::default();
        }
        let speed = |then: u64, now: u64| now.saturating_sub(then) as f64 / span.as_secs_f64();
        let all =
            seconds(totals.size_bytes, totals.read_bytes, speed(first.read, totals.read_bytes));
        Ahead {
            rows_per_second: Some(speed(first.rows, totals.rows)),
            bytes_per_second: Some(speed(first.bytes, totals.bytes)),
            seconds_left: all.map(|all| self.longest.map_or(all, |longest| all.max(longest))),
        }
    }

    /// Seconds until the table's last row has arrived, by its own speed since it was begun.
    pub(super) fn table_seconds_left(&self, now: Instant, table: &TableProgress) -> Option<f64> {
        if table.state != TableState::Copying {
            return None;
        }
        let (began, read) = self.copying.get(&table.name)?;
        let span = now.duration_since(*began);
        if span < EVERY {
            return None;
        }
        let speed = table.read_bytes.saturating_sub(*read) as f64 / span.as_secs_f64();
        seconds(table.size_bytes, table.read_bytes, speed)
    }
}

fn seconds(size: u64, read: u64, speed: f64) -> Option<f64> {
    (speed > 0.0).then(|| size.saturating_sub(read) as f64 / speed)
}

fn count(tables: &[TableProgress]) -> Counts {
    let mut counts = Counts::default();
    for table in tables {
        *match table.state {
            TableState::Waiting => &mut counts.waiting,
            TableState::Copying => &mut counts.copying,
            TableState::Indexing => &mut counts.indexing,
            TableState::Done => &mut counts.done,
        } += 1;
        counts.indexes_done += u64::from(table.indexes_done);
        counts.indexes_waiting += u64::from(table.indexes.saturating_sub(table.indexes_done));
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A made-up copy: tables with their files' size and what was read of them.
    fn copy(tables: &[(&str, u64, u64)]) -> (CopyTotals, Vec<TableProgress>) {
        let tables: Vec<_> =
            tables.iter().map(|&(name, size, read)| table(name, size, read)).collect();
        let sum = |figure: fn(&TableProgress) -> u64| tables.iter().map(figure).sum();
        let totals = CopyTotals {
            tables: tables.len() as u64,
            tables_done: sum(|table| u64::from(table.state >= TableState::Indexing)),
            rows: sum(|table| table.rows),
            bytes: sum(|table| table.bytes),
            size_bytes: sum(|table| table.size_bytes),
            read_bytes: sum(|table| table.read_bytes),
            indexes: sum(|table| u64::from(table.indexes)),
            indexes_done: sum(|table| u64::from(table.indexes_done)),
            ..CopyTotals::default()
        };
        (totals, tables)
    }

    /// Half of the files' bytes are sent, a row for each ten bytes read; one of two indexes is there.
    fn table(name: &str, size: u64, read: u64) -> TableProgress {
        TableProgress {
            name: TableName::new("public", name),
            state: match read {
                0 => TableState::Waiting,
                read if read == size => TableState::Indexing,
                _ => TableState::Copying,
            },
            rows: read / 10,
            bytes: read / 2,
            size_bytes: size,
            read_bytes: read,
            indexes: 2,
            indexes_done: 1,
        }
    }

    fn sample(pace: &mut Pace, at: Instant, tables: &[(&str, u64, u64)]) -> Ahead {
        let (totals, tables) = copy(tables);
        pace.sample(at, &totals, &tables);
        pace.ahead(at, &totals)
    }

    fn after(began: Instant, seconds: u64) -> Instant {
        began + Duration::from_secs(seconds)
    }

    #[test]
    fn the_speed_is_known_after_a_second() {
        let (mut pace, t0) = (Pace::default(), Instant::now());
        assert!(pace.is_due(t0));
        assert_eq!(sample(&mut pace, t0, &[("a", 1000, 100)]), Ahead::default());
        assert!(!pace.is_due(t0 + Duration::from_millis(999)));
        assert!(pace.is_due(after(t0, 1)));
        let ahead = sample(&mut pace, after(t0, 2), &[("a", 1000, 300)]);
        assert_eq!(ahead.bytes_per_second, Some(50.0));
        assert_eq!(ahead.rows_per_second, Some(10.0));
        assert_eq!(ahead.seconds_left, Some(7.0));
    }

    #[test]
    fn what_an_earlier_run_copied_is_no_speed() {
        let (mut pace, t0) = (Pace::default(), Instant::now());
        assert_eq!(sample(&mut pace, t0, &[]), Ahead::default());
        sample(&mut pace, after(t0, 1), &[("a", 1000, 900)]);
        let ahead = sample(&mut pace, after(t0, 2), &[("a", 1000, 910)]);
        assert_eq!(ahead.seconds_left, Some(9.0));
    }

    #[test]
    fn the_speed_is_that_of_the_last_half_minute() {
        let (mut pace, t0) = (Pace::default(), Instant::now());
        let mut read = 0;
        let mut last = Ahead::default();
        for second in 0..=100 {
            read += if second <= 50 { 1000 } else { 10 };
            last = sample(&mut pace, after(t0, second), &[("a", 1_000_000, read)]);
        }
        assert_eq!(last.bytes_per_second, Some(5.0));
        assert!(pace.samples.len() <= 32, "{}", pace.samples.len());
    }

    #[test]
    fn a_copy_that_stands_has_no_end() {
        let (mut pace, t0) = (Pace::default(), Instant::now());
        sample(&mut pace, t0, &[("a", 1000, 100)]);
        let ahead = sample(&mut pace, after(t0, 5), &[("a", 1000, 100)]);
        assert_eq!((ahead.bytes_per_second, ahead.seconds_left), (Some(0.0), None));
    }

    #[test]
    fn a_copy_that_begins_again_has_no_speed_at_first() {
        let (mut pace, t0) = (Pace::default(), Instant::now());
        sample(&mut pace, t0, &[("a", 1000, 500)]);
        assert_eq!(sample(&mut pace, after(t0, 2), &[("a", 1000, 100)]), Ahead::default());
        let ahead = sample(&mut pace, after(t0, 3), &[("a", 1000, 200)]);
        assert_eq!(ahead.seconds_left, Some(8.0));
    }

    #[test]
    fn one_large_table_is_not_hidden_by_many_fast_ones() {
        let (mut pace, t0) = (Pace::default(), Instant::now());
        sample(&mut pace, t0, &[("large", 1000, 10), ("small", 1000, 10)]);
        let ahead = sample(&mut pace, after(t0, 10), &[("large", 1000, 20), ("small", 1000, 990)]);
        assert_eq!(ahead.seconds_left, Some(980.0));
    }

    #[test]
    fn when_every_row_has_arrived_nothing_is_foretold() {
        let (mut pace, t0) = (Pace::default(), Instant::now());
        sample(&mut pace, t0, &[("a", 1000, 100)]);
        assert_eq!(sample(&mut pace, after(t0, 2), &[("a", 1000, 1000)]), Ahead::default());
    }

    #[test]
    fn a_table_s_time_is_its_own() {
        let (mut pace, t0) = (Pace::default(), Instant::now());
        let now = after(t0, 10);
        sample(&mut pace, t0, &[("a", 1000, 100), ("b", 1000, 0)]);
        sample(&mut pace, now, &[("a", 1000, 200), ("b", 1000, 50)]);
        let left = |name, read| pace.table_seconds_left(now, &table(name, 1000, read));
        assert_eq!(left("a", 200), Some(80.0));
        assert_eq!(left("b", 50), None, "seen a moment ago");
        assert_eq!(left("a", 1000), None, "through");
        assert_eq!(left("other", 100), None);
    }

    #[test]
    fn tables_and_indexes_are_counted_by_state() {
        let (mut pace, t0) = (Pace::default(), Instant::now());
        assert_eq!(pace.counts(), None);
        sample(&mut pace, t0, &[("a", 1000, 100), ("b", 1000, 0), ("c", 10, 10)]);
        let expected = Counts {
            waiting: 1,
            copying: 1,
            indexing: 1,
            done: 0,
            indexes_waiting: 3,
            indexes_done: 3,
        };
        assert_eq!(pace.counts(), Some(expected));
    }
}
