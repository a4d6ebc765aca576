//! What was tried and how it ended, as a table.

use pgferry_tests::chaos::Outcome;

/// One line of the table.
#[derive(Debug)]
pub(crate) struct Line {
    /// What was tried.
    pub(crate) name: String,
    /// How it ended; an error when it did not.
    pub(crate) ended: Ended,
}

/// How a case ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// It came to an end that was looked at.
    Looked(Outcome),
    /// The switchover never came to the point.
    NotReached,
    /// The harness gave up, for this reason.
    Broke(String),
}

impl Line {
    /// Whether it is whole. A point that is never reached proves nothing.
    pub(crate) fn is_whole(&self) -> bool {
        matches!(&self.ended, Ended::Looked(outcome) if outcome.is_whole())
    }

    /// The line as it is printed.
    pub(crate) fn text(&self, width: usize) -> String {
        let name = &self.name;
        match &self.ended {
            Ended::Looked(outcome) => {
                let row = format!(
                    "{name:<width$}  {:<11} {:>6.1} {:>7.1} {:>8} {:>5} {:>7}",
                    outcome.word(),
                    outcome.after.as_secs_f64(),
                    outcome.settled.as_secs_f64(),
                    outcome.worst_gap.as_millis(),
                    outcome.lost,
                    outcome.doubled,
                );
                if outcome.is_whole() {
                    row
                } else {
                    format!("{row}  NOT WHOLE: {}", outcome.wrong.join("; "))
                }
            }
            Ended::NotReached => format!("{name:<width$}  the point was not reached"),
            Ended::Broke(why) => format!("{name:<width$}  NOT WHOLE: {why}"),
        }
    }
}

/// The whole table.
pub(crate) fn table(lines: &[Line]) -> String {
    let width = lines.iter().map(|line| line.name.len()).max().unwrap_or(4).max(4);
    let mut text = format!(
        "{:<width$}  {:<11} {:>6} {:>7} {:>8} {:>5} {:>7}\n",
        "case", "outcome", "s", "equal s", "gap ms", "lost", "doubled"
    );
    for line in lines {
        text.push_str(&line.text(width));
        text.push('\n');
    }
    let whole = lines.iter().filter(|line| line.is_whole()).count();
    text.push_str(&format!(
        "{whole} of {} whole; s: from the end of the fault to one open side; equal s: from there \
         until both sides held the same\n",
        lines.len()
    ));
    text
}

/// Quantiles of the times that take-overs took, by what was lost.
pub(crate) fn take_overs(times: &[(&'static str, std::time::Duration)]) -> String {
    let mut text = String::new();
    let mut kinds: Vec<&str> = times.iter().map(|(kind, _)| *kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    for kind in kinds {
        let mut of: Vec<f64> =
            times.iter().filter(|(k, _)| *k == kind).map(|(_, t)| t.as_secs_f64()).collect();
        of.sort_by(f64::total_cmp);
        let at = |part: usize| of.get((of.len() - 1) * part / 100).copied().unwrap_or_default();
        text.push_str(&format!(
            "take-over after {kind}: {} times, least {:.2} s, median {:.2} s, worst {:.2} s\n",
            of.len(),
            at(0),
            at(50),
            at(100)
        ));
    }
    text
}
