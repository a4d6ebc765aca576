use jiff::Timestamp;
use pgferry_plan::WorkerSeen;
use prometheus::TextEncoder;

use super::*;

#[test]
fn a_known_figure_is_shown_and_an_unknown_one_disappears() {
    let (registry, metrics) = metrics();
    let streaming = StreamReport {
        status: StreamStatus::Streaming,
        lag_seconds: Some(0.012),
        lag_bytes: Some(4096),
        retained_wal_bytes: Some(8192),
        safe_wal_bytes: Some(1 << 30),
        wal_status: Some("extended".to_owned()),
        heartbeat_received_at: Some(Timestamp::from_millisecond(1_500).unwrap()),
        slot_active: Some(true),
        apply_worker: Some(WorkerSeen { pid: 1, started_at: Timestamp::UNIX_EPOCH }),
        worker_restarts: 0,
    };
    let report = LagReport { forward: streaming, ..LagReport::default() };
    metrics.set_streams(&report);
    let forward = r#"{direction="forward",migration="orders"}"#;
    for line in [
        format!("pgferry_replication_lag_seconds{forward} 0.012"),
        format!("pgferry_replication_lag_bytes{forward} 4096"),
        format!("pgferry_slot_retained_wal_bytes{forward} 8192"),
        format!("pgferry_slot_safe_wal_bytes{forward} 1073741824"),
        format!("pgferry_heartbeat_received_timestamp_seconds{forward} 1.5"),
        format!("pgferry_apply_worker_up{forward} 1"),
    ] {
        assert_line(&registry, &line);
    }
    assert!(!text(&registry).contains(r#"pgferry_replication_lag_seconds{direction="reverse""#));

    metrics.set_streams(&LagReport::default());
    let text = text(&registry);
    assert!(!text.contains("pgferry_replication_lag_seconds{"), "{text}");
    assert!(!text.contains("pgferry_apply_worker_up{"), "{text}");
}

#[test]
fn an_enabled_stream_without_worker_is_zero_and_no_subscription_is_nothing() {
    let worker = |status| worker_up(&StreamReport { status, ..StreamReport::default() });
    assert_eq!(worker(StreamStatus::Down), Some(0));
    assert_eq!(worker(StreamStatus::Disabled), Some(0));
    assert_eq!(worker(StreamStatus::Absent), None);
    assert_eq!(worker(StreamStatus::Unknown), None);
}

#[test]
fn exactly_one_phase_is_one() {
    let (registry, metrics) = metrics();
    let all = ["planned", "ready", "cut_over"];
    metrics.set_phase("planned", &all);
    metrics.set_phase("ready", &all);
    let ones: Vec<String> = text(&registry)
        .lines()
        .filter(|line| line.starts_with("pgferry_migration_phase{") && line.ends_with(" 1"))
        .map(str::to_owned)
        .collect();
    assert_eq!(ones, [r#"pgferry_migration_phase{migration="orders",phase="ready"} 1"#]);
}

#[test]
fn a_copy_that_begins_again_resets_its_counters() {
    let (registry, metrics) = metrics();
    metrics.set_copied(100, 1_000);
    metrics.set_copied(150, 1_500);
    assert_line(&registry, r#"pgferry_copy_rows_total{migration="orders"} 150"#);
    metrics.set_copied(10, 100);
    assert_line(&registry, r#"pgferry_copy_rows_total{migration="orders"} 10"#);
    assert_line(&registry, r#"pgferry_copy_bytes_total{migration="orders"} 100"#);
}

#[test]
fn the_copy_is_counted_by_state_and_its_time_left_goes_when_it_is_not_known() {
    let (registry, metrics) = metrics();
    metrics.set_copy_tables(&[("copying", Some(2)), ("done", Some(9))]);
    metrics.set_copy_indexes(&[("waiting", Some(4)), ("done", Some(0))]);
    metrics.set_copy_seconds_left(Some(12.5));
    for line in [
        r#"pgferry_copy_tables{migration="orders",state="copying"} 2"#,
        r#"pgferry_copy_tables{migration="orders",state="done"} 9"#,
        r#"pgferry_copy_indexes{migration="orders",state="waiting"} 4"#,
        r#"pgferry_copy_indexes{migration="orders",state="done"} 0"#,
        r#"pgferry_copy_seconds_left{migration="orders"} 12.5"#,
    ] {
        assert_line(&registry, line);
    }
    metrics.set_copy_tables(&[("copying", Some(0)), ("done", None)]);
    metrics.set_copy_seconds_left(None);
    assert_line(&registry, r#"pgferry_copy_tables{migration="orders",state="copying"} 0"#);
    let text = text(&registry);
    for gone in [r#"copy_tables{migration="orders",state="done""#, "pgferry_copy_seconds_left{"] {
        assert!(!text.contains(gone), "{gone} in\n{text}");
    }
}

#[test]
fn a_switchover_counts_by_kind_and_outcome_and_only_a_held_write_is_a_stall() {
    let (registry, metrics) = metrics();
    let of = |kind: &str, outcome: &str, count: u32| {
        format!(
            r#"pgferry_switchovers_total{{kind="{kind}",migration="orders",outcome="{outcome}"}} {count}"#
        )
    };
    assert_line(&registry, &of("rollback", "aborted", 0));
    metrics.observe_switchover(Kind::Cutover, "succeeded", Some(Duration::from_millis(31)));
    metrics.observe_switchover(Kind::Rollback, "blocked", None);
    assert_line(&registry, &of("cutover", "succeeded", 1));
    assert_line(&registry, &of("rollback", "blocked", 1));
    let stall = "pgferry_switchover_write_stall_seconds";
    assert_line(&registry, &format!(r#"{stall}_count{{migration="orders"}} 1"#));
    assert_line(&registry, &format!(r#"{stall}_bucket{{migration="orders",le="0.03"}} 0"#));
    assert_line(&registry, &format!(r#"{stall}_bucket{{migration="orders",le="0.04"}} 1"#));
}

#[test]
fn the_rest_of_the_documented_names_are_there() {
    let (registry, metrics) = metrics();
    metrics.set_blocked(true);
    metrics.set_leader(true);
    metrics.set_epoch(3);
    metrics.set_copy_expected(Some(900));
    metrics.observe_step("drain", Duration::from_millis(4));
    metrics.set_nodes(&NodesReport {
        source: NodeReach::Up,
        destination: NodeReach::Down("connection refused".to_owned()),
    });
    for line in [
        r#"pgferry_migration_blocked{migration="orders"} 1"#,
        r#"pgferry_leader{migration="orders"} 1"#,
        r#"pgferry_epoch{migration="orders"} 3"#,
        r#"pgferry_copy_expected_bytes{migration="orders"} 900"#,
        r#"pgferry_step_duration_seconds_count{migration="orders",step="drain"} 1"#,
        r#"pgferry_node_up{migration="orders",side="source"} 1"#,
        r#"pgferry_node_up{migration="orders",side="destination"} 0"#,
        r#"pgferry_apply_worker_restarts_total{direction="forward",migration="orders"} 0"#,
        r#"pgferry_build_info{version="1.2.3"} 1"#,
    ] {
        assert_line(&registry, line);
    }
    if cfg!(target_os = "linux") {
        assert!(text(&registry).contains("process_resident_memory_bytes"));
    }
}

#[test]
fn registering_twice_is_an_error_and_not_a_second_set() {
    let (registry, _metrics) = metrics();
    assert!(Metrics::register(&registry).is_err());
}

fn metrics() -> (Registry, MigrationMetrics) {
    let registry = Registry::new();
    let metrics = Metrics::register(&registry).unwrap();
    metrics.set_build("1.2.3");
    let migration = metrics.migration("orders");
    (registry, migration)
}

fn text(registry: &Registry) -> String {
    TextEncoder::new().encode_to_string(&registry.gather()).unwrap()
}

#[track_caller]
fn assert_line(registry: &Registry, line: &str) {
    let text = text(registry);
    assert!(text.lines().any(|shown| shown == line), "no line {line} in\n{text}");
}
