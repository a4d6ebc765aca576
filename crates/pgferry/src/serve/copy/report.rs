//! From counters to the documents of the API. Pure.

use std::cmp::Reverse;

use pgferry_api as api;
use pgferry_postgres::copy::{CopyTotals, TableProgress, TableState};

use super::Begun;
use super::estimate;
use super::pace::Ahead;

/// The sums of a copy that runs. Its counters are known from the moment on that a run of it has
/// begun: until then nothing is said of rows, because zero would be a claim. `bytes_expected` is the
/// estimate over those counters.
pub(super) fn sums(
    begun: &Begun,
    totals: &CopyTotals,
    bytes_expected: Option<u64>,
    seconds: f64,
) -> api::Copy {
    let counted = totals.tables > 0;
    api::Copy {
        // The look apart from the copy also counts tables that an earlier run has copied.
        tables_total: counted.then_some(totals.tables).max(begun.tables),
        tables_done: counted.then_some(totals.tables_done),
        rows: counted.then_some(totals.rows),
        bytes: counted.then_some(totals.bytes),
        bytes_expected: if counted {
            // The estimate is from a moment ago, and rows have been sent since.
            bytes_expected.or(begun.size_bytes).max(Some(totals.bytes))
        } else {
            begun.size_bytes
        },
        seconds: Some(seconds),
    }
}

/// The report of a copy of which only the journal knows.
pub(super) fn of_sums(sums: &api::Copy) -> api::CopyReport {
    api::CopyReport {
        tables_total: sums.tables_total,
        tables_done: sums.tables_done,
        rows: sums.rows,
        bytes: sums.bytes,
        bytes_expected: sums.bytes_expected,
        seconds: sums.seconds,
        ..api::CopyReport::default()
    }
}

/// The report of a copy whose counters are at hand, without its tables.
pub(super) fn live(sums: &api::Copy, totals: &CopyTotals, ahead: Ahead) -> api::CopyReport {
    let counted = totals.tables > 0;
    api::CopyReport {
        indexes_total: counted.then_some(totals.indexes),
        indexes_done: counted.then_some(totals.indexes_done),
        bytes_per_second: ahead.bytes_per_second,
        rows_per_second: ahead.rows_per_second,
        seconds_left: ahead.seconds_left,
        ..of_sums(sums)
    }
}

/// The tables in these states: those at work first, then those that wait, the largest first, then
/// those that are done.
pub(super) fn tables(
    mut all: Vec<TableProgress>,
    states: &[api::CopyState],
    totals: &CopyTotals,
    seconds_left: impl Fn(&TableProgress) -> Option<f64>,
) -> Vec<api::CopyTable> {
    all.retain(|table| states.contains(&word(table.state)));
    all.sort_by(|one, other| {
        let place = |table: &TableProgress| (turn(table.state), Reverse(table.size_bytes));
        place(one).cmp(&place(other)).then_with(|| one.name.cmp(&other.name))
    });
    let shown = |table: TableProgress| api::CopyTable {
        state: word(table.state),
        rows: table.rows,
        bytes: table.bytes,
        bytes_expected: estimate::table(&table, totals),
        indexes_total: u64::from(table.indexes),
        indexes_done: u64::from(table.indexes_done),
        seconds_left: seconds_left(&table),
        schema: table.name.schema,
        table: table.name.name,
    };
    all.into_iter().map(shown).collect()
}

fn turn(state: TableState) -> u8 {
    match state {
        TableState::Copying => 0,
        TableState::Indexing => 1,
        TableState::Waiting => 2,
        TableState::Done => 3,
    }
}

fn word(state: TableState) -> api::CopyState {
    match state {
        TableState::Waiting => api::CopyState::Waiting,
        TableState::Copying => api::CopyState::Copying,
        TableState::Indexing => api::CopyState::Indexing,
        TableState::Done => api::CopyState::Done,
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use pgferry_plan::TableName;

    use super::*;

    fn begun() -> Begun {
        Begun { at: Timestamp::UNIX_EPOCH, tables: Some(11), size_bytes: Some(9000) }
    }

    fn totals() -> CopyTotals {
        CopyTotals {
            tables: 11,
            tables_done: 3,
            rows: 40,
            bytes: 400,
            size_bytes: 8000,
            read_bytes: 800,
            indexes: 5,
            indexes_done: 1,
            ..CopyTotals::default()
        }
    }

    fn table(name: &str, state: TableState, size: u64, read: u64, bytes: u64) -> TableProgress {
        TableProgress {
            name: TableName::new("public", name),
            state,
            rows: bytes / 10,
            bytes,
            size_bytes: size,
            read_bytes: read,
            indexes: 1,
            indexes_done: 0,
        }
    }

    #[test]
    fn the_sums_come_from_the_counters() {
        let shown = sums(&begun(), &totals(), Some(4000), 1.5);
        let expected = api::Copy {
            tables_total: Some(11),
            tables_done: Some(3),
            rows: Some(40),
            bytes: Some(400),
            bytes_expected: Some(4000),
            seconds: Some(1.5),
        };
        assert_eq!(shown, expected);
        let overtaken = sums(&begun(), &totals(), Some(399), 1.5);
        assert_eq!(overtaken.bytes_expected, overtaken.bytes, "never below what was sent");
    }

    #[test]
    fn until_a_run_has_begun_nothing_is_counted() {
        let shown = sums(&begun(), &CopyTotals::default(), None, 0.1);
        assert_eq!((shown.tables_total, shown.bytes_expected), (Some(11), Some(9000)));
        assert_eq!((shown.tables_done, shown.rows, shown.bytes), (None, None, None));
        let unseen = Begun { tables: None, size_bytes: None, ..begun() };
        assert_eq!(sums(&unseen, &CopyTotals::default(), None, 0.1).tables_total, None);
        assert_eq!(sums(&unseen, &totals(), None, 0.1).tables_total, Some(11));
    }

    #[test]
    fn the_report_has_the_sums_and_what_lies_ahead() {
        let ahead = Ahead {
            rows_per_second: Some(4.0),
            bytes_per_second: Some(40.0),
            seconds_left: Some(90.0),
        };
        let report = live(&sums(&begun(), &totals(), Some(4000), 1.5), &totals(), ahead);
        assert_eq!((report.rows, report.bytes_expected), (Some(40), Some(4000)));
        assert_eq!((report.indexes_total, report.indexes_done), (Some(5), Some(1)));
        assert_eq!((report.bytes_per_second, report.seconds_left), (Some(40.0), Some(90.0)));
        assert_eq!(report.seconds, Some(1.5));
        let unknown = CopyTotals::default();
        let report = live(&sums(&begun(), &unknown, None, 1.5), &unknown, Ahead::default());
        assert_eq!(report.indexes_total, None);
    }

    #[test]
    fn what_is_at_work_comes_first_and_then_the_largest() {
        let all = vec![
            table("done", TableState::Done, 900, 900, 500),
            table("small", TableState::Waiting, 10, 0, 0),
            table("indexing", TableState::Indexing, 700, 700, 600),
            table("copying", TableState::Copying, 100, 50, 10),
            table("large", TableState::Waiting, 1000, 0, 0),
        ];
        let shown = tables(all.clone(), api::CopyState::ALL, &totals(), |_| None);
        let names: Vec<_> = shown.iter().map(|table| table.table.as_str()).collect();
        assert_eq!(names, ["copying", "indexing", "large", "small", "done"]);
        // Half as much as was sent for what was read of all tables; its own; what was sent.
        let expected: Vec<_> = shown.iter().map(|table| table.bytes_expected).collect();
        assert_eq!(expected, [20, 600, 500, 5, 500]);
        let working = [api::CopyState::Copying];
        let shown = tables(all, &working, &totals(), |table| Some(table.size_bytes as f64));
        assert_eq!(shown.len(), 1);
        assert_eq!(shown[0].seconds_left, Some(100.0));
    }
}
