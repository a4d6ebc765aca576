//! Every metric of pgferry, by name, and typed ways to set it.
//!
//! Labels are the migration and its direction or side: never a pid, a query, a table or a row. A
//! figure that is not known has no series; zero would be a claim.

mod definitions;

use std::time::Duration;

use pgferry_plan::{Direction, Kind, LagReport, Side, StreamReport, StreamStatus};
use prometheus::Registry;
use prometheus::core::{Atomic, GenericCounter, GenericGaugeVec};

use crate::{NodeReach, NodesReport};
use definitions::Definitions;

/// All metrics of the process, registered once.
#[derive(Clone, Debug)]
pub struct Metrics {
    all: Definitions,
}

impl Metrics {
    /// Defines every metric in `registry`, the process's own included.
    pub fn register(registry: &Registry) -> Result<Metrics, prometheus::Error> {
        Ok(Metrics { all: Definitions::register(registry)? })
    }

    /// Says which build this is.
    pub fn set_build(&self, version: &str) {
        self.all.build_info.with_label_values(&[version]).set(1);
    }

    /// The metrics of one migration. Its counters are there from now on, at zero: a counter whose
    /// first value is 1 shows no increase.
    #[must_use]
    pub fn migration(&self, name: &str) -> MigrationMetrics {
        let metrics = MigrationMetrics { all: self.all.clone(), migration: name.to_owned() };
        for direction in Direction::BOTH {
            metrics.count_worker_restarts(direction, 0);
        }
        for kind in Kind::BOTH {
            for outcome in SWITCHOVER_OUTCOMES {
                metrics.switchovers(kind, outcome).inc_by(0);
            }
        }
        metrics.all.write_stall_seconds.with_label_values(&[name]);
        metrics.set_copied(0, 0);
        metrics.set_verified(0);
        metrics
    }
}

/// How a switchover may end, in the words of the status.
const SWITCHOVER_OUTCOMES: [&str; 4] = ["succeeded", "failed", "aborted", "blocked"];

/// The metrics of one migration.
#[derive(Clone, Debug)]
pub struct MigrationMetrics {
    all: Definitions,
    migration: String,
}

impl MigrationMetrics {
    /// Both streams, as last seen.
    pub fn set_streams(&self, report: &LagReport) {
        for direction in Direction::BOTH {
            self.set_stream(direction, report.stream(direction));
        }
    }

    /// Adds restarts of the apply worker of one direction.
    pub fn count_worker_restarts(&self, direction: Direction, times: u64) {
        let labels = [self.migration.as_str(), direction.as_str()];
        self.all.apply_worker_restarts.with_label_values(&labels).inc_by(times);
    }

    /// Which nodes answer.
    pub fn set_nodes(&self, nodes: &NodesReport) {
        for side in Side::BOTH {
            let up = match nodes.node(side) {
                NodeReach::NotYet => None,
                NodeReach::Up => Some(1),
                NodeReach::Down(_) => Some(0),
            };
            set(&self.all.node_up, &[&self.migration, side.as_str()], up);
        }
    }

    /// The phase, out of `all` phases; exactly one of them is 1.
    pub fn set_phase(&self, phase: &str, all: &[&str]) {
        for known in all {
            let gauge =
                self.all.migration_phase.with_label_values(&[self.migration.as_str(), known]);
            gauge.set(i64::from(*known == phase));
        }
    }

    /// Whether it waits for a person.
    pub fn set_blocked(&self, blocked: bool) {
        let gauge = self.all.migration_blocked.with_label_values(&[&self.migration]);
        gauge.set(i64::from(blocked));
    }

    /// Whether this daemon leads the migration.
    pub fn set_leader(&self, leader: bool) {
        self.all.leader.with_label_values(&[&self.migration]).set(i64::from(leader));
    }

    /// The epoch of the present leadership, as far as this daemon knows it.
    pub fn set_epoch(&self, epoch: i64) {
        self.all.epoch.with_label_values(&[&self.migration]).set(epoch);
    }

    /// What the copy has done so far. Less than before is a copy that began again.
    pub fn set_copied(&self, rows: u64, bytes: u64) {
        let labels = [self.migration.as_str()];
        advance(&self.all.copy_rows.with_label_values(&labels), rows);
        advance(&self.all.copy_bytes.with_label_values(&labels), bytes);
    }

    /// How much the copy is expected to move; `None` while that is not known.
    pub fn set_copy_expected(&self, bytes: Option<u64>) {
        set(&self.all.copy_expected_bytes, &[&self.migration], bytes.map(as_gauge));
    }

    /// How many tables of the copy are in each state; `None` takes the series away.
    pub fn set_copy_tables(&self, states: &[(&str, Option<u64>)]) {
        for (state, tables) in states {
            set(&self.all.copy_tables, &[&self.migration, state], tables.map(as_gauge));
        }
    }

    /// How many indexes of the copy are in each state; `None` takes the series away.
    pub fn set_copy_indexes(&self, states: &[(&str, Option<u64>)]) {
        for (state, indexes) in states {
            set(&self.all.copy_indexes, &[&self.migration, state], indexes.map(as_gauge));
        }
    }

    /// Seconds until the copy's last row has arrived; `None` while that is not known.
    pub fn set_copy_seconds_left(&self, seconds: Option<f64>) {
        set(&self.all.copy_seconds_left, &[&self.migration], seconds);
    }

    /// Rows that the verification at hand has compared. Less than before is another verification.
    pub fn set_verified(&self, rows: u64) {
        advance(&self.all.verify_rows.with_label_values(&[self.migration.as_str()]), rows);
    }

    /// Rows that differed in the last verification; `None` before the first.
    pub fn set_mismatched(&self, rows: Option<u64>) {
        set(&self.all.verify_mismatched_rows, &[&self.migration], rows.map(as_gauge));
    }

    /// A step of the plan ended, after `took`.
    pub fn observe_step(&self, step: &str, took: Duration) {
        let histogram =
            self.all.step_duration_seconds.with_label_values(&[self.migration.as_str(), step]);
        histogram.observe(took.as_secs_f64());
    }

    /// A switchover ended. `write_stall` is there when writes were held at all.
    pub fn observe_switchover(&self, kind: Kind, outcome: &str, write_stall: Option<Duration>) {
        self.switchovers(kind, outcome).inc();
        if let Some(stall) = write_stall {
            let histogram = self.all.write_stall_seconds.with_label_values(&[&self.migration]);
            histogram.observe(stall.as_secs_f64());
        }
    }

    fn switchovers(&self, kind: Kind, outcome: &str) -> prometheus::IntCounter {
        self.all.switchovers.with_label_values(&[&self.migration, kind.as_str(), outcome])
    }

    fn set_stream(&self, direction: Direction, stream: &StreamReport) {
        let labels = [self.migration.as_str(), direction.as_str()];
        let received = stream.heartbeat_received_at.map(|at| at.as_millisecond() as f64 / 1e3);
        set(&self.all.replication_lag_seconds, &labels, stream.lag_seconds);
        set(&self.all.replication_lag_bytes, &labels, stream.lag_bytes.map(as_gauge));
        set(&self.all.heartbeat_received, &labels, received);
        set(&self.all.slot_retained_bytes, &labels, stream.retained_wal_bytes.map(as_gauge));
        set(&self.all.slot_safe_bytes, &labels, stream.safe_wal_bytes);
        set(&self.all.apply_worker_up, &labels, worker_up(stream));
    }
}

/// Whether changes are being applied or could be; `None` when that was not seen, or when there is
/// nothing that a worker should serve.
fn worker_up(stream: &StreamReport) -> Option<i64> {
    match stream.status {
        StreamStatus::Unknown | StreamStatus::Absent => None,
        StreamStatus::Streaming => Some(1),
        StreamStatus::Starting
        | StreamStatus::Stalled
        | StreamStatus::Disabled
        | StreamStatus::Down => Some(i64::from(stream.apply_worker.is_some())),
    }
}

fn set<P: Atomic>(gauge: &GenericGaugeVec<P>, labels: &[&str], value: Option<P::T>) {
    match value {
        Some(value) => gauge.with_label_values(labels).set(value),
        // An error says that there was no such series: what is wanted.
        None => drop(gauge.remove_label_values(labels)),
    }
}

fn advance<P: Atomic<T = u64>>(counter: &GenericCounter<P>, total: u64) {
    if total < counter.get() {
        counter.reset();
    }
    counter.inc_by(total - counter.get());
}

fn as_gauge(figure: u64) -> i64 {
    i64::try_from(figure).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
