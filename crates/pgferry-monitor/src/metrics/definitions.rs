//! Names, labels, buckets and help of every metric, in one place.
//!
//! Names are a contract: dashboards and alerts hold on to them. Nothing is added up here.

use prometheus::core::Collector;
use prometheus::{
    GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry,
};

/// The metrics themselves; cloning shares them.
#[derive(Clone, Debug)]
pub(super) struct Definitions {
    pub(super) replication_lag_seconds: GaugeVec,
    pub(super) replication_lag_bytes: IntGaugeVec,
    pub(super) heartbeat_received: GaugeVec,
    pub(super) slot_retained_bytes: IntGaugeVec,
    pub(super) slot_safe_bytes: IntGaugeVec,
    pub(super) apply_worker_up: IntGaugeVec,
    pub(super) apply_worker_restarts: IntCounterVec,
    pub(super) migration_phase: IntGaugeVec,
    pub(super) migration_blocked: IntGaugeVec,
    pub(super) copy_rows: IntCounterVec,
    pub(super) copy_bytes: IntCounterVec,
    pub(super) copy_expected_bytes: IntGaugeVec,
    pub(super) copy_tables: IntGaugeVec,
    pub(super) copy_indexes: IntGaugeVec,
    pub(super) copy_seconds_left: GaugeVec,
    pub(super) write_stall_seconds: HistogramVec,
    pub(super) verify_rows: IntCounterVec,
    pub(super) verify_mismatched_rows: IntGaugeVec,
    pub(super) switchovers: IntCounterVec,
    pub(super) step_duration_seconds: HistogramVec,
    pub(super) node_up: IntGaugeVec,
    pub(super) leader: IntGaugeVec,
    pub(super) epoch: IntGaugeVec,
    pub(super) build_info: IntGaugeVec,
}

const STREAM: &[&str] = &["migration", "direction"];
const MIGRATION: &[&str] = &["migration"];
const STATE: &[&str] = &["migration", "state"];

/// A stall is tens of milliseconds when all goes well, and aborted after a few seconds when not.
const WRITE_STALL_BUCKETS: &[f64] =
    &[0.005, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Steps take from milliseconds inside the stall to hours in the copy.
const STEP_BUCKETS: &[f64] = &[
    0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 30.0, 120.0, 600.0, 1800.0, 7200.0, 28800.0, 86400.0,
];

impl Definitions {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let define = Define(registry);
        let definitions = Self {
            replication_lag_seconds: define.number(
                "replication_lag_seconds",
                "Age of the oldest change known not to have arrived, by its writer's clock",
                STREAM,
            )?,
            replication_lag_bytes: define.gauge(
                "replication_lag_bytes",
                "WAL written and not yet confirmed as durable on the other side",
                STREAM,
            )?,
            heartbeat_received: define.number(
                "heartbeat_received_timestamp_seconds",
                "When the newest heartbeat that has arrived was written, by its writer's clock",
                STREAM,
            )?,
            slot_retained_bytes: define.gauge(
                "slot_retained_wal_bytes",
                "WAL that the stream's slot holds back on the side it is read from",
                STREAM,
            )?,
            slot_safe_bytes: define.gauge(
                "slot_safe_wal_bytes",
                "WAL that can still be written before the slot is lost; absent without a limit",
                STREAM,
            )?,
            apply_worker_up: define.gauge(
                "apply_worker_up",
                "1 while a process applies the stream",
                STREAM,
            )?,
            apply_worker_restarts: define.counter(
                "apply_worker_restarts_total",
                "Times that process was seen replaced by another while the stream was enabled",
                STREAM,
            )?,
            migration_phase: define.gauge(
                "migration_phase",
                "1 for the phase the migration is in, 0 for the others",
                &["migration", "phase"],
            )?,
            migration_blocked: define.gauge(
                "migration_blocked",
                "1 while the migration waits for a person",
                MIGRATION,
            )?,
            copy_rows: define.counter("copy_rows_total", "Rows copied", MIGRATION)?,
            copy_bytes: define.counter("copy_bytes_total", "Bytes of rows copied", MIGRATION)?,
            copy_expected_bytes: define.gauge(
                "copy_expected_bytes",
                "Bytes the copy is expected to move",
                MIGRATION,
            )?,
            copy_tables: define.gauge("copy_tables", "Tables of the copy, by state", STATE)?,
            copy_indexes: define.gauge(
                "copy_indexes",
                "Indexes that the copy builds, by state",
                STATE,
            )?,
            copy_seconds_left: define.number(
                "copy_seconds_left",
                "Seconds until the copy's last row has arrived, at the speed of late",
                MIGRATION,
            )?,
            verify_rows: define.counter(
                "verify_rows_total",
                "Rows compared on both sides",
                MIGRATION,
            )?,
            verify_mismatched_rows: define.gauge(
                "verify_mismatched_rows",
                "Rows that differed in the last verification",
                MIGRATION,
            )?,
            write_stall_seconds: define.histogram(
                "switchover_write_stall_seconds",
                "From the active side refusing writes until the other side takes them",
                MIGRATION,
                WRITE_STALL_BUCKETS,
            )?,
            switchovers: define.counter(
                "switchovers_total",
                "Switchovers ended, by kind and outcome",
                &["migration", "kind", "outcome"],
            )?,
            step_duration_seconds: define.histogram(
                "step_duration_seconds",
                "Time a step of the plan took",
                &["migration", "step"],
                STEP_BUCKETS,
            )?,
            node_up: define.gauge(
                "node_up",
                "1 while the side's database answers",
                &["migration", "side"],
            )?,
            leader: define.gauge("leader", "1 while this daemon leads the migration", MIGRATION)?,
            epoch: define.gauge("epoch", "Number of the present leadership", MIGRATION)?,
            build_info: define.gauge("build_info", "Always 1", &["version"])?,
        };
        #[cfg(target_os = "linux")]
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        Ok(definitions)
    }
}

struct Define<'a>(&'a Registry);

impl Define<'_> {
    fn gauge(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntGaugeVec, prometheus::Error> {
        self.register(IntGaugeVec::new(opts(name, help), labels)?)
    }

    fn number(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<GaugeVec, prometheus::Error> {
        self.register(GaugeVec::new(opts(name, help), labels)?)
    }

    fn counter(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntCounterVec, prometheus::Error> {
        self.register(IntCounterVec::new(opts(name, help), labels)?)
    }

    fn histogram(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: &[f64],
    ) -> Result<HistogramVec, prometheus::Error> {
        let opts = HistogramOpts::from(opts(name, help)).buckets(buckets.to_vec());
        self.register(HistogramVec::new(opts, labels)?)
    }

    fn register<C: Collector + Clone + 'static>(&self, metric: C) -> Result<C, prometheus::Error> {
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("pgferry")
}
