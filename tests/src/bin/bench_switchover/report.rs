//! What was measured, as the table that a person reads.

use std::fmt::Write as _;

use crate::arguments::{Arguments, Way};
use crate::stage::Measured;

/// The figures of every way.
#[derive(Debug)]
pub(crate) struct Report {
    set: String,
    rows: Vec<(Way, u32, Measured)>,
}

impl Report {
    pub(crate) fn new(arguments: &Arguments) -> Self {
        let set = format!(
            "{} tables and {} sequences beside the ledger's; commits reach the disk; {} ms added to round trips \
             with the destination; a client waits {} ms between two transactions, and that is in every gap",
            arguments.tables,
            arguments.sequences,
            arguments.delay_ms,
            arguments.pause.as_millis()
        );
        Self { set, rows: Vec::new() }
    }

    pub(crate) fn add(&mut self, way: Way, rate: u32, measured: Measured) {
        self.rows.push((way, rate, measured));
    }

    /// Whether no way of pgferry's lost anything. What others lose is told, and is no failure of ours.
    pub(crate) fn is_good(&self) -> bool {
        self.rows.iter().all(|(way, _, m)| !way.is_ours() || m.broken.is_empty())
    }

    pub(crate) fn table(&self) -> String {
        let mut out = format!("{}\n\n", self.set);
        let _ = writeln!(
            out,
            "| way | aim/s | acked/s | n | stall p50 | p90 | p99 | max ms | gap p50 | p99 | max ms | errors/client | whole |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|"
        );
        for (way, rate, measured) in &self.rows {
            let stalls = sorted(measured.switched.iter().map(|s| s.stall_ms));
            let gaps = sorted(measured.switched.iter().map(|s| s.gap_ms));
            let _ = writeln!(
                out,
                "| {way} | {rate} | {:.0} | {} | {:.1} | {:.1} | {:.1} | {:.1} | {:.1} | {:.1} | {:.1} | {:.2} | {} |",
                measured.per_second,
                stalls.len(),
                at(&stalls, 50),
                at(&stalls, 90),
                at(&stalls, 99),
                at(&stalls, 100),
                at(&gaps, 50),
                at(&gaps, 99),
                at(&gaps, 100),
                measured.errors_per_client,
                if measured.broken.is_empty() { "yes" } else { "NO" },
            );
        }
        let _ = writeln!(
            out,
            "\n| way | aim/s | step | p50 | p90 | max ms |\n|---|---|---|---|---|---|"
        );
        for (way, rate, measured) in &self.rows {
            for (step, took) in by_step(measured) {
                let [p50, p90, max] = [50, 90, 100].map(|percent| at(&took, percent));
                let _ =
                    writeln!(out, "| {way} | {rate} | {step} | {p50:.1} | {p90:.1} | {max:.1} |");
            }
        }
        for (way, rate, measured) in &self.rows {
            for what in &measured.broken {
                let _ = writeln!(out, "\n{way} at {rate}: {what}");
            }
        }
        out
    }
}

/// What each step took, in the order of the steps.
fn by_step(measured: &Measured) -> Vec<(&str, Vec<f64>)> {
    let mut steps: Vec<(&str, Vec<f64>)> = Vec::new();
    for (step, ms) in measured.switched.iter().flat_map(|switched| &switched.steps) {
        match steps.iter_mut().find(|(name, _)| name == step) {
            Some((_, took)) => took.push(*ms),
            None => steps.push((step, vec![*ms])),
        }
    }
    steps.into_iter().map(|(step, took)| (step, sorted(took.into_iter()))).collect()
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

/// The value that this many percent of all do not pass.
fn at(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let values = sorted([4.0, 1.0, 3.0, 2.0].into_iter());
        assert_eq!([50, 75, 99, 100].map(|p| at(&values, p)), [2.0, 3.0, 4.0, 4.0]);
        assert!(at(&[], 50).is_nan());
    }
}
