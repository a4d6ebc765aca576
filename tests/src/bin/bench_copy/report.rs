//! What was measured, as the table that a person reads.

use std::fmt::Write as _;
use std::thread;

use crate::ferry::Figures;
use crate::tools::Tool;

/// The figures of all rounds.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// What was carried, in words.
    pub(crate) set: String,
    tools: Vec<Measured>,
    absent: Vec<(Tool, String)>,
    steps: Vec<(String, Vec<f64>)>,
    peak_rss_kib: u64,
    notes: Vec<String>,
    failed: bool,
}

/// One tool's figures.
#[derive(Debug)]
struct Measured {
    tool: Tool,
    version: String,
    seconds: Vec<f64>,
    failures: usize,
}

impl Report {
    /// A tool that runs, and its version.
    pub(crate) fn add_tool(&mut self, tool: Tool, version: String) {
        self.tools.push(Measured { tool, version, seconds: Vec::new(), failures: 0 });
    }

    /// A tool that cannot run here, and why.
    pub(crate) fn add_absent(&mut self, tool: Tool, why: String) {
        self.absent.push((tool, why));
    }

    /// A measured run.
    pub(crate) fn add(&mut self, tool: Tool, seconds: f64) {
        if let Some(measured) = self.of(tool) {
            measured.seconds.push(seconds);
        }
    }

    /// A run that failed, cold or not.
    pub(crate) fn add_failure(&mut self, tool: Tool) {
        self.failed = true;
        if let Some(measured) = self.of(tool) {
            measured.failures += 1;
        }
    }

    /// Where a measured migration's time went.
    pub(crate) fn add_steps(&mut self, figures: &Figures) {
        self.peak_rss_kib = self.peak_rss_kib.max(figures.peak_rss_kib);
        for (step, seconds) in &figures.steps {
            match self.steps.iter_mut().find(|(known, _)| known == step) {
                Some((_, all)) => all.push(*seconds),
                None => self.steps.push((step.clone(), vec![*seconds])),
            }
        }
    }

    /// Whether what was written meanwhile has arrived, and what a kill has cost.
    pub(crate) fn add_notes(&mut self, when: &str, figures: &Figures) {
        if let Some(writes) = &figures.writes {
            let equal = match writes.differences.as_slice() {
                [] => "equal".to_owned(),
                some => format!("NOT EQUAL: {}", some.join("; ")),
            };
            self.failed |= !writes.differences.is_empty();
            self.notes.push(format!(
                "pgferry, {when}: {} transactions acknowledged meanwhile ({:.0} per second), {} \
                 tables compared by hash: {equal}",
                writes.written.acknowledged, writes.written.per_second, writes.tables
            ));
        }
        if let Some(killed) = figures.killed {
            let mb = |bytes: u64| bytes as f64 / 1e6;
            self.notes.push(format!(
                "pgferry, {when}: killed after {:.1} MB of rows and started again, {:.1} MB followed, \
                 {:.1} MB were needed: {:.1} % copied twice; {:.2} s from the second start to the \
                 end, {:.2} s in all; {:.1} MiB peak memory",
                mb(killed.before),
                mb(killed.after),
                mb(killed.needed),
                killed.twice_percent(),
                killed.seconds,
                figures.seconds,
                figures.peak_rss_kib as f64 / 1024.0,
            ));
        }
    }

    /// Something that is not as it should be.
    pub(crate) fn add_trouble(&mut self, what: String) {
        self.failed = true;
        self.notes.push(what);
    }

    /// Whether every run went well and everything was equal.
    pub(crate) fn is_good(&self) -> bool {
        !self.failed
    }

    /// The whole of it.
    pub(crate) fn text(&self) -> String {
        let cores = thread::available_parallelism().map_or(0, usize::from);
        let mut text = format!("{}, {cores} cores\n\n", self.set);
        let _ = writeln!(
            text,
            "{:<10} {:<18} {:>4} {:>9} {:>9} {:>9} {:>9}",
            "tool", "version", "runs", "median s", "min s", "max s", "ratio"
        );
        let reference = self
            .tools
            .iter()
            .find(|measured| measured.tool == Tool::Pgferry)
            .map_or(f64::NAN, |measured| median(&measured.seconds));
        for measured in &self.tools {
            let seconds = &measured.seconds;
            let least = seconds.iter().copied().fold(f64::NAN, f64::min);
            let most = seconds.iter().copied().fold(f64::NAN, f64::max);
            let middle = median(seconds);
            let _ = write!(
                text,
                "{:<10} {:<18} {:>4} {} {} {} {}",
                measured.tool.name(),
                measured.version,
                seconds.len(),
                figure(middle),
                figure(least),
                figure(most),
                figure(middle / reference),
            );
            match measured.failures {
                0 => text.push('\n'),
                some => {
                    let _ = writeln!(text, "  {some} FAILED");
                }
            }
        }
        for (tool, why) in &self.absent {
            let _ = writeln!(text, "{:<10} not run: {why}", tool.name());
        }
        if !self.steps.is_empty() {
            let _ = writeln!(text, "\n{:<28} {:>9}", "pgferry's step", "median s");
            for (step, seconds) in &self.steps {
                let _ = writeln!(text, "{step:<28} {}", figure(median(seconds)));
            }
            let peak = self.peak_rss_kib as f64 / 1024.0;
            let _ = writeln!(text, "\npeak memory of the daemon: {peak:.1} MiB");
        }
        for note in &self.notes {
            let _ = writeln!(text, "{note}");
        }
        text
    }

    fn of(&mut self, tool: Tool) -> Option<&mut Measured> {
        self.tools.iter_mut().find(|measured| measured.tool == tool)
    }
}

/// A number with two places, or a dash where there is none.
fn figure(value: f64) -> String {
    if value.is_nan() { format!("{:>9}", "-") } else { format!("{value:>9.2}") }
}

/// NaN of nothing: what was not measured is not zero.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one_and_nothing_has_none() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn every_ratio_is_to_pgferry() {
        let mut report = Report::default();
        report.add_tool(Tool::Pgferry, "1".to_owned());
        report.add_tool(Tool::PgDump, "2".to_owned());
        report.add(Tool::Pgferry, 10.0);
        report.add(Tool::PgDump, 25.0);
        assert!(report.is_good());
        let text = report.text();
        assert!(text.lines().nth(4).is_some_and(|line| line.ends_with("2.50")), "{text}");
        report.add_failure(Tool::PgDump);
        assert!(!report.is_good());
        assert!(report.text().contains("1 FAILED"));
    }

    #[test]
    fn a_tool_that_is_not_here_is_told_and_is_no_failure() {
        let mut report = Report::default();
        report.add_absent(Tool::Pgcopydb, "no such program".to_owned());
        assert!(report.is_good());
        assert!(report.text().contains("pgcopydb   not run: no such program"), "{}", report.text());
    }
}
