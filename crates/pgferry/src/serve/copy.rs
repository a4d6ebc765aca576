//! The copy as it is shown: its counters, what they come to, and what the journal says afterwards.
//!
//! Shared by the loop, which says what the copy's stage is, and by the server, which reads it when
//! asked. No database is asked here and nothing waits; no decision follows from any figure.

mod estimate;
mod pace;
mod report;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use jiff::Timestamp;
use pgferry_api as api;
use pgferry_postgres::copy::{CopyProgress, CopyTotals};
use pgferry_server::CopyFigures;

pub(super) use pace::Counts;
use pace::Pace;

/// One migration's copy.
pub(super) struct LiveCopy {
    progress: CopyProgress,
    shown: Mutex<Shown>,
}

#[derive(Default)]
struct Shown {
    stage: Stage,
    pace: Pace,
}

/// How far the copy is, by the journal.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Stage {
    /// It has not begun, or another daemon carries it out: nothing is known here.
    #[default]
    Unknown,
    /// Rows are on their way.
    Running(Begun),
    /// Every row has arrived: what the journal holds of it.
    Arrived {
        /// The sums.
        sums: api::Copy,
        /// Whether the copy's phase goes on, with tables that may still get their indexes.
        indexing: bool,
    },
}

/// A copy that runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Begun {
    /// When it was first begun.
    pub(super) at: Timestamp,
    /// Tables to copy, as looked up apart from the copy; its own counters come first.
    pub(super) tables: Option<u64>,
    /// The bytes of their files, likewise.
    pub(super) size_bytes: Option<u64>,
}

impl LiveCopy {
    /// The copy whose workers raise these counters.
    pub(super) fn new(progress: CopyProgress) -> Self {
        Self { progress, shown: Mutex::default() }
    }

    /// Says how far it is, and takes a sample of its speed when one is due.
    pub(super) fn turn(&self, stage: Stage) {
        let now = Instant::now();
        let mut shown = self.shown();
        let wanted = match stage {
            Stage::Unknown => {
                shown.pace = Pace::default();
                false
            }
            Stage::Running(_) | Stage::Arrived { indexing: true, .. } => shown.pace.is_due(now),
            // One more, in which everything is done.
            Stage::Arrived { indexing: false, .. } => shown.stage != stage,
        };
        if wanted {
            shown.pace.sample(now, &self.progress.totals(), &self.progress.tables());
        }
        shown.stage = stage;
    }

    /// The sums, in the form of the migration's document.
    pub(super) fn sums(&self) -> Option<api::Copy> {
        let shown = self.shown();
        match &shown.stage {
            Stage::Unknown => None,
            Stage::Running(begun) => {
                let expected = shown.pace.bytes_expected();
                Some(report::sums(begun, &self.progress.totals(), expected, since(begun)))
            }
            Stage::Arrived { sums, .. } => Some(*sums),
        }
    }

    /// Tables and indexes by their state, at most a second old; `None` when no run of the copy is
    /// known to this process.
    pub(super) fn counts(&self) -> Option<Counts> {
        self.shown().pace.counts()
    }

    /// Seconds until the last row has arrived.
    pub(super) fn seconds_left(&self) -> Option<f64> {
        let shown = self.shown();
        match shown.stage {
            Stage::Running(_) => {
                shown.pace.ahead(Instant::now(), &self.progress.totals()).seconds_left
            }
            Stage::Unknown | Stage::Arrived { .. } => None,
        }
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CopyFigures for LiveCopy {
    fn read(&self, states: &[api::CopyState]) -> api::CopyReport {
        let totals = self.progress.totals();
        let tables = self.progress.tables();
        let now = Instant::now();
        let mut shown = self.shown();
        let live = match &shown.stage {
            Stage::Unknown => false,
            Stage::Running(_) => true,
            Stage::Arrived { indexing, .. } => *indexing && totals != CopyTotals::default(),
        };
        if !live {
            return match &shown.stage {
                Stage::Arrived { sums, .. } => report::of_sums(sums),
                Stage::Unknown | Stage::Running(_) => api::CopyReport::default(),
            };
        }
        if shown.pace.is_due(now) {
            shown.pace.sample(now, &totals, &tables);
        }
        let sums = match &shown.stage {
            Stage::Running(begun) => {
                report::sums(begun, &totals, shown.pace.bytes_expected(), since(begun))
            }
            Stage::Arrived { sums, .. } => *sums,
            Stage::Unknown => return api::CopyReport::default(),
        };
        let left = |table: &_| shown.pace.table_seconds_left(now, table);
        api::CopyReport {
            tables: report::tables(tables, states, &totals, left),
            ..report::live(&sums, &totals, shown.pace.ahead(now, &totals))
        }
    }
}

/// Seconds since the copy began, over restarts.
fn since(begun: &Begun) -> f64 {
    pgferry_plan::facts::milliseconds(begun.at, Timestamp::now()) / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrived(indexing: bool) -> Stage {
        let sums = api::Copy {
            tables_total: Some(11),
            tables_done: Some(11),
            rows: Some(15_607),
            bytes: Some(900),
            bytes_expected: Some(900),
            seconds: Some(1.2),
        };
        Stage::Arrived { sums, indexing }
    }

    #[test]
    fn before_it_has_begun_nothing_is_known() {
        let copy = LiveCopy::new(CopyProgress::default());
        copy.turn(Stage::Unknown);
        assert_eq!(copy.sums(), None);
        assert_eq!(copy.read(api::CopyState::ALL), api::CopyReport::default());
        assert_eq!((copy.counts(), copy.seconds_left()), (None, None));
    }

    #[test]
    fn after_a_restart_the_journal_s_sums_are_all_there_is() {
        let copy = LiveCopy::new(CopyProgress::default());
        for stage in [arrived(false), arrived(true)] {
            copy.turn(stage);
            let report = copy.read(api::CopyState::ALL);
            assert_eq!((report.rows, report.tables_done), (Some(15_607), Some(11)));
            assert_eq!((report.indexes_total, report.seconds_left), (None, None));
            assert_eq!(report.tables, []);
            assert_eq!(copy.sums().and_then(|sums| sums.rows), Some(15_607));
        }
    }

    #[test]
    fn a_copy_whose_counters_are_not_there_yet_claims_nothing() {
        let copy = LiveCopy::new(CopyProgress::default());
        let at = Timestamp::now();
        copy.turn(Stage::Running(Begun { at, tables: Some(3), size_bytes: Some(70) }));
        let report = copy.read(api::CopyState::ALL);
        assert_eq!((report.tables_total, report.bytes_expected), (Some(3), Some(70)));
        assert_eq!((report.rows, report.tables_done, report.indexes_total), (None, None, None));
        assert!(report.seconds.is_some_and(|seconds| seconds >= 0.0));
    }
}
