//! The copy, in all and table by table: for `status`, and as bars for `watch`.

use std::fmt::Write;

use pgferry_api::{Copy, CopyReport, CopyState, CopyTable};

use super::table::{table, text};
use super::{plain, units};

/// Tables at work that `status` lists; more would push the rest off a screen.
const LISTED: usize = 10;

/// Tables at work that `watch` gives a bar each.
const BARS: usize = 8;

/// A bar and what stands behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bar {
    /// In whole hundredths; a hundred only when all of it is there.
    pub(crate) percent: u64,
    pub(crate) text: String,
}

/// How far the copy is: `3 of 11 tables, 4,000 rows, 200.0 KiB of 880.0 KiB in 400 ms`, and what
/// only the report knows.
pub(super) fn copy(copy: &Copy, report: Option<&CopyReport>) -> String {
    let sums = report.map_or(*copy, sums);
    let mut out = format!(
        "{} of {} tables, {} rows, {} of {} in {}",
        units::count(sums.tables_done),
        units::count(sums.tables_total),
        units::count(sums.rows),
        units::bytes(sums.bytes),
        units::bytes(sums.bytes_expected),
        units::seconds(sums.seconds)
    );
    for part in report.map(ahead).unwrap_or_default() {
        let _ = write!(out, ", {part}");
    }
    out
}

/// The tables at work now, and how many more there are.
pub(super) fn at_work(report: &CopyReport) -> String {
    let working: Vec<_> = report.tables.iter().filter(|table| works(table)).collect();
    if working.is_empty() {
        return String::new();
    }
    let mut out = listing(working.iter().copied().take(LISTED));
    if let Some(more) = working.len().checked_sub(LISTED).filter(|more| *more > 0) {
        let _ = writeln!(out, "and {more} more (pgferry status --tables)");
    }
    out
}

/// Every table of the report.
pub(super) fn all_tables(report: &CopyReport) -> String {
    if report.tables.is_empty() {
        return "no table is being copied now\n".to_owned();
    }
    listing(report.tables.iter())
}

fn listing<'a>(tables: impl Iterator<Item = &'a CopyTable>) -> String {
    let header = ["table", "state", "done", "rows", "bytes", "of about", "time left", "indexes"];
    let mut shown = table(&header, &[2, 3, 4, 5, 6, 7]);
    for table in tables {
        shown.add_row(vec![
            name(table),
            table.state.to_string(),
            format!("{} %", percent(table)),
            units::count(Some(table.rows)),
            units::bytes(Some(table.bytes)),
            units::bytes(Some(table.bytes_expected)),
            table.seconds_left.map(|left| units::seconds(Some(left))).unwrap_or_default(),
            indexes(table).unwrap_or_default(),
        ]);
    }
    text(&shown)
}

/// The bar of the whole copy.
pub(crate) fn total_bar(report: &CopyReport) -> Bar {
    let percent = if rows_have_arrived(report) {
        100
    } else {
        share(report.bytes.unwrap_or_default(), report.bytes_expected.unwrap_or_default())
    };
    let mut parts = vec![if rows_have_arrived(report) {
        format!("every row is there, {}", units::bytes(report.bytes))
    } else {
        format!("{} of {}", units::bytes(report.bytes), units::bytes(report.bytes_expected))
    }];
    parts.extend(ahead(report));
    Bar { percent, text: parts.join(" · ") }
}

/// A bar for each table at work, and how many more there are.
pub(crate) fn table_bars(report: &CopyReport) -> (Vec<Bar>, usize) {
    let working: Vec<_> = report.tables.iter().filter(|table| works(table)).collect();
    let bars = working.iter().take(BARS).map(|table| table_bar(table)).collect();
    (bars, working.len().saturating_sub(BARS))
}

fn table_bar(table: &CopyTable) -> Bar {
    let mut text = name(table);
    let mut percent = percent(table);
    match table.state {
        CopyState::Indexing => {
            // Its rows are through: from here on the bar is that of its indexes.
            percent = share(table.indexes_done, table.indexes_total);
            let built = indexes(table).unwrap_or_default();
            let _ = write!(text, " · building indexes, {built} are there");
        }
        CopyState::Waiting | CopyState::Copying | CopyState::Done => {
            let _ = write!(
                text,
                " · {} of {}, {} rows",
                units::bytes(Some(table.bytes)),
                units::bytes(Some(table.bytes_expected)),
                units::count(Some(table.rows))
            );
            if let Some(left) = table.seconds_left {
                let _ = write!(text, ", {} left", units::seconds(Some(left)));
            }
        }
    }
    Bar { percent, text: text.replace('\n', " ") }
}

/// Speed, time left and indexes, as far as there are any.
fn ahead(report: &CopyReport) -> Vec<String> {
    let mut parts = Vec::new();
    if let Some(bytes) = report.bytes_per_second {
        parts.push(format!("{}/s", units::bytes(Some(bytes as u64))));
    }
    if let Some(rows) = report.rows_per_second {
        parts.push(format!("{} rows/s", units::count(Some(rows as u64))));
    }
    if let Some(left) = report.seconds_left {
        parts.push(format!("{} left", units::seconds(Some(left))));
    }
    if let Some(total) = report.indexes_total.filter(|total| *total > 0) {
        let done = units::count(report.indexes_done);
        parts.push(format!("{done} of {} indexes", units::count(Some(total))));
    }
    parts
}

fn sums(report: &CopyReport) -> Copy {
    Copy {
        tables_total: report.tables_total,
        tables_done: report.tables_done,
        rows: report.rows,
        bytes: report.bytes,
        bytes_expected: report.bytes_expected,
        seconds: report.seconds,
    }
}

fn rows_have_arrived(report: &CopyReport) -> bool {
    report.tables_done.is_some() && report.tables_done == report.tables_total
}

fn works(table: &CopyTable) -> bool {
    match table.state {
        CopyState::Copying | CopyState::Indexing => true,
        CopyState::Waiting | CopyState::Done => false,
    }
}

/// In whole hundredths. What is expected is an estimate: what is on its way is never all.
fn share(sent: u64, expected: u64) -> u64 {
    let part = u128::from(sent) * 100 / u128::from(expected.max(1));
    u64::try_from(part).unwrap_or(99).min(99)
}

/// In whole hundredths; a hundred only when every row has arrived.
fn percent(table: &CopyTable) -> u64 {
    match table.state {
        CopyState::Waiting => 0,
        CopyState::Copying => share(table.bytes, table.bytes_expected),
        CopyState::Indexing | CopyState::Done => 100,
    }
}

fn indexes(table: &CopyTable) -> Option<String> {
    (table.indexes_total > 0).then(|| format!("{} of {}", table.indexes_done, table.indexes_total))
}

fn name(table: &CopyTable) -> String {
    plain(&format!("{}.{}", table.schema, table.table))
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    fn words(text: &str) -> Vec<String> {
        let no_rule = |line: &&str| !line.starts_with(['─', '═', '╌']);
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        text.lines().filter(no_rule).map(words).collect()
    }

    #[test]
    fn the_line_has_speed_time_left_and_indexes() {
        let sums = sample::copying().copy.unwrap();
        assert_eq!(
            copy(&sums, Some(&sample::copy_report())),
            "3 of 11 tables, 4,100 rows, 205.1 KiB of 880.0 KiB in 500 ms, 500.0 KiB/s, 10,000 rows/s, \
             1.4 s left, 7 of 40 indexes"
        );
        let unknown = CopyReport::default();
        assert_eq!(copy(&sums, Some(&unknown)), "? of ? tables, ? rows, ? of ? in ?");
    }

    #[test]
    fn lists_the_tables_at_work() {
        assert_eq!(
            words(&at_work(&sample::copy_report())),
            [
                "table state done rows bytes of about time left indexes",
                "public.orders copying 43 % 1,000 43.0 KiB 100.0 KiB 1.0 s 0 of 2",
                "public.items indexing 100 % 3,000 160.0 KiB 160.0 KiB 1 of 3",
            ]
        );
        let mut many = sample::copy_report();
        many.tables = vec![many.tables[0].clone(); 12];
        let shown = at_work(&many);
        assert_eq!(shown.matches("public.orders").count(), 10);
        assert!(shown.ends_with("and 2 more (pgferry status --tables)\n"), "{shown}");
        many.tables.truncate(10);
        assert!(!at_work(&many).contains("more"));
    }

    #[test]
    fn lists_every_table_or_says_that_there_is_none() {
        let shown = words(&all_tables(&sample::copy_report()));
        assert_eq!(shown.len(), 5);
        assert_eq!(shown[3], "public.events waiting 0 % 0 0 B 500.0 KiB");
        assert_eq!(shown[4], "public.countries done 100 % 100 2.1 KiB 2.1 KiB 1 of 1");
        assert_eq!(all_tables(&CopyReport::default()), "no table is being copied now\n");
        assert_eq!(at_work(&CopyReport::default()), "");
    }

    #[test]
    fn a_table_that_is_being_copied_is_never_a_hundred_per_cent() {
        let mut table = sample::copy_report().tables[0].clone();
        table.bytes = table.bytes_expected;
        assert_eq!(percent(&table), 99);
        table.state = CopyState::Indexing;
        assert_eq!(percent(&table), 100);
    }

    #[test]
    fn the_total_is_a_bar_that_does_not_end_before_its_copy() {
        let mut report = sample::copy_report();
        let bar = total_bar(&report);
        assert_eq!(bar.percent, 23);
        report.bytes = report.bytes_expected;
        assert_eq!(total_bar(&report).percent, 99);
        report.bytes = Some(210_000);
        assert_eq!(
            bar.text,
            "205.1 KiB of 880.0 KiB · 500.0 KiB/s · 10,000 rows/s · 1.4 s left · 7 of 40 indexes"
        );
        report.tables_done = Some(11);
        (report.bytes_per_second, report.rows_per_second) = (None, None);
        report.seconds_left = None;
        assert_eq!(total_bar(&report).percent, 100);
        assert_eq!(total_bar(&report).text, "every row is there, 205.1 KiB · 7 of 40 indexes");
        let empty = total_bar(&CopyReport::default());
        assert_eq!((empty.percent, empty.text.as_str()), (0, "? of ?"));
    }

    #[test]
    fn each_table_at_work_is_a_bar() {
        let (bars, more) = table_bars(&sample::copy_report());
        assert_eq!(more, 0);
        assert_eq!((bars[0].percent, bars[1].percent), (43, 33));
        assert_eq!(bars[0].text, "public.orders · 43.0 KiB of 100.0 KiB, 1,000 rows, 1.0 s left");
        assert_eq!(bars[1].text, "public.items · building indexes, 1 of 3 are there");
        let mut many = sample::copy_report();
        many.tables = vec![many.tables[0].clone(); 11];
        assert_eq!((table_bars(&many).0.len(), table_bars(&many).1), (8, 3));
    }

    #[test]
    fn a_name_with_control_characters_does_no_harm() {
        let mut report = sample::copy_report();
        report.tables[0].table = "a\x1b[2J\nb".to_owned();
        let (bars, _) = table_bars(&report);
        assert!(bars[0].text.starts_with("public.a\u{fffd}[2J b"), "{}", bars[0].text);
    }
}
