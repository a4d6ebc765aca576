//! The comparison of both sides: how it stands, and what differs.

use std::fmt::Write;

use pgferry_api::{Difference, DifferenceKind, Verification, VerificationReport};

use super::{plain, units};

/// In one line: what it came to, and how old it is; or how far it is.
pub(crate) fn verification(verification: &Verification) -> String {
    let tables = match verification.tables_total {
        Some(total) => format!("{} of {total}", units::count(verification.tables)),
        None => units::count(verification.tables),
    };
    let mut out = format!(
        "{}: {} rows in {tables} tables, {} differ",
        plain(&verification.state),
        units::count(verification.rows),
        units::count(verification.mismatched_rows)
    );
    if let Some(others) = verification.other_differences {
        let _ = write!(out, ", {others} other differences");
    }
    if let Some(mended) = verification.mended_rows {
        let _ = write!(out, ", {mended} copied again");
    }
    if let Some(unsettled) = verification.unsettled_rows {
        let _ = write!(out, ", {unsettled} never held still");
    }
    if let Some(left) = verification.seconds_left {
        let _ = write!(out, ", {} left", units::seconds(Some(left as f64)));
    }
    if let Some(age) = verification.age_seconds {
        let _ = write!(out, ", {} ago", age_in_words(age));
    }
    for more in [&verification.since, &verification.background].into_iter().flatten() {
        let _ = write!(out, "; {}", plain(more));
    }
    out
}

fn age_in_words(seconds: u64) -> String {
    pgferry_plan::verify::in_words(std::time::Duration::from_secs(seconds))
}

/// What differs, one line each; nothing when nothing does.
pub(crate) fn differences(report: &VerificationReport) -> String {
    let mut out = String::new();
    for difference in &report.differences {
        let _ = writeln!(out, "{}", difference_line(difference));
        for value in &difference.values {
            let shown = |text: &Option<String>| match text {
                Some(text) => format!("{:?}", plain(text)),
                None => "NULL".to_owned(),
            };
            let (active, passive) = (shown(&value.active), shown(&value.passive));
            let column = plain(&value.column);
            let _ =
                writeln!(out, "  {column}: {active} on the active side, {passive} on the passive");
        }
    }
    out
}

fn difference_line(difference: &Difference) -> String {
    let object = plain(&difference.object);
    if difference.kind != DifferenceKind::Row {
        let kind = difference.kind.as_str().replace('_', " ");
        let message = match difference.message.as_str() {
            "" => difference.wrong.as_str().to_owned(),
            message => plain(message),
        };
        return format!("{kind}: {object}: {message}");
    }
    let key = match &difference.key {
        None => format!("{} rows", difference.rows),
        Some(key) => {
            let parts: Vec<String> =
                key.iter().map(|part| format!("{}={}", part.column, part.value)).collect();
            plain(&parts.join(", "))
        }
    };
    let columns = if difference.columns.is_empty() {
        String::new()
    } else {
        format!(" in {}", plain(&difference.columns.join(", ")))
    };
    let rest = match (difference.mended, difference.message.as_str()) {
        (true, _) => "; copied again".to_owned(),
        (false, "") => String::new(),
        (false, why) => format!("; not copied again: {}", plain(why)),
    };
    format!("{object} ({key}): {}{columns}{rest}", difference.wrong.as_str())
}

#[cfg(test)]
mod tests {
    use pgferry_api::{KeyPart, ValuePair, Wrong};

    use super::super::sample;
    use super::*;

    fn row() -> Difference {
        Difference {
            kind: DifferenceKind::Row,
            object: "public.orders".to_owned(),
            key: Some(vec![KeyPart { column: "id".to_owned(), value: "7".to_owned() }]),
            wrong: Wrong::Different,
            rows: 1,
            columns: vec!["note".to_owned(), "paid".to_owned()],
            values: vec![],
            mended: false,
            message: String::new(),
        }
    }

    #[test]
    fn each_difference_is_a_line() {
        let keyless =
            Difference { key: None, wrong: Wrong::Missing, rows: 3, columns: vec![], ..row() };
        let object = Difference {
            kind: DifferenceKind::LargeObject,
            object: "large object 5".to_owned(),
            key: None,
            columns: vec![],
            ..row()
        };
        let shown = ValuePair {
            column: "note".to_owned(),
            active: None,
            passive: Some("a\x1bb".to_owned()),
        };
        let valued = Difference { values: vec![shown], ..row() };
        let report = VerificationReport {
            verification: None,
            differences: vec![row(), keyless, object, valued],
        };
        assert_eq!(
            differences(&report),
            "public.orders (id=7): different in note, paid\n\
             public.orders (3 rows): missing\n\
             large object: large object 5: different\n\
             public.orders (id=7): different in note, paid\n  \
             note: NULL on the active side, \"a\u{fffd}b\" on the passive\n"
        );
    }

    #[test]
    fn a_result_says_how_old_it_is_and_a_run_how_long_it_takes() {
        let ended = sample::verified();
        let line = verification(&ended);
        assert!(
            line.starts_with("clean: ") && line.contains("in 11 tables, 0 differ, 5 min ago;"),
            "{line}"
        );
        assert!(line.ends_with("since; a round has compared 3 of 11 tables again"), "{line}");
        let running = Verification {
            state: "running".to_owned(),
            age_seconds: None,
            since: None,
            background: None,
            tables_total: Some(20),
            seconds_left: Some(9),
            ..ended
        };
        assert!(verification(&running).contains("in 11 of 20 tables, 0 differ, 9"), "{running:?}");
    }
}
