//! What a person sees of a copy: which tables are at work, how much is through, and afterwards what
//! it came to, whichever process is asked.

use pgferry_plan::Side;
use pgferry_tests::{ConfigFile, DATABASE, Daemon, Pair, eventually};
use serde_json::{Value, json};

use crate::settled::{SOON, order_and_die};

const COPY: &str = "/v1/migrations/shop/copy";

/// Rows and their line in `pgferry.copied` are one transaction: while no line can be given its
/// figures, tables stay on their way with rows sent and not committed.
const HOLD_COMMITS: &str = "
    CREATE FUNCTION pgferry.hold() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN PERFORM pg_advisory_xact_lock_shared(7); RETURN NEW; END';
    CREATE TRIGGER hold BEFORE INSERT OR UPDATE ON pgferry.copied FOR EACH ROW
        WHEN (NEW.row_count > 0) EXECUTE FUNCTION pgferry.hold();
    ALTER TABLE pgferry.copied ENABLE ALWAYS TRIGGER hold;
    SELECT pg_advisory_lock(7)";

#[test]
fn the_copy_is_seen_while_it_runs_and_after_it_has_ended() {
    let pair = Pair::with_bank();
    pair.load_pgbench(1);
    let config =
        ConfigFile::for_pair(&pair).insert_only(&["bank.ledger_keyless", "public.pgbench_history"]);
    let mut daemon = Daemon::start(&config);
    let before = daemon.get(COPY);
    assert_eq!(before.status, 200);
    assert_eq!((&before.body["tables_total"], &before.body["rows"]), (&json!(null), &json!(null)));
    assert_eq!(before.body["tables"], json!([]));

    // It dies where the copy begins, so that the next one finds the hold in place.
    assert!(daemon.terminate().success());
    daemon.serve_until("before_effect:copy_rows");
    order_and_die(&daemon, "start");
    daemon.wait_for_end(SOON);
    let holder = pair.admin(Side::Destination);
    holder.run(HOLD_COMMITS);
    daemon.serve();
    while_it_runs(&daemon);
    holder.run("SELECT pg_advisory_unlock(7)");

    daemon.wait_for_phase("ready");
    let rows = pair.source.admin(DATABASE).number("SELECT count(*) FROM pgbench_accounts");
    after_it_has_ended(&daemon, rows);
    assert!(daemon.terminate().success());
    daemon.serve();
    daemon.wait_for_phase("ready");
    after_it_has_ended(&daemon, rows);
}

fn while_it_runs(daemon: &Daemon) {
    let report = eventually("rows on their way and a speed", SOON, || {
        let report = daemon.try_get(COPY)?.body;
        let accounts = find(&report, "pgbench_accounts");
        let sent = accounts.is_some_and(|table| table["rows"].as_u64() > Some(0));
        if sent && report["bytes_per_second"].is_number() {
            Ok(report)
        } else {
            Err(report.to_string())
        }
    });
    let figure = |name: &str| report[name].as_u64().unwrap_or_else(|| panic!("{name}: {report}"));
    let tables = report["tables"].as_array().unwrap();
    assert_eq!(figure("tables_total"), tables.len() as u64);
    assert!(figure("tables_done") < figure("tables_total"), "{report}");
    assert!(figure("rows") > 0, "{report}");
    assert!(figure("bytes_expected") >= figure("bytes"), "{report}");
    assert!(report["seconds"].as_f64().unwrap() > 0.0);
    assert!(report["rows_per_second"].is_number());
    assert!(report["seconds_left"].is_null() || report["seconds_left"].is_number());
    let accounts = find(&report, "pgbench_accounts").unwrap();
    assert_eq!((&accounts["schema"], &accounts["state"]), (&json!("public"), &json!("copying")));
    assert!(accounts["bytes_expected"].as_u64() >= accounts["bytes"].as_u64());
    assert!(accounts["indexes_total"].is_number() && accounts["indexes_done"].is_number());
    assert_eq!(tables[0]["state"], "copying", "those at work come first: {report}");

    let copying = daemon.get(&format!("{COPY}?state=copying")).body;
    let states = copying["tables"].as_array().unwrap();
    assert!(!states.is_empty() && states.iter().all(|table| table["state"] == "copying"));
    assert_eq!(daemon.get(&format!("{COPY}?state=quick")).status, 400);

    let migration = daemon.migration();
    let fields: Vec<&String> = migration["copy"].as_object().unwrap().keys().collect();
    assert_eq!(
        fields,
        ["bytes", "bytes_expected", "rows", "seconds", "tables_done", "tables_total"],
        "a contract"
    );
    let status = daemon.command(&["status"]).stdout;
    assert!(status.contains("public.pgbench_accounts") && status.contains("/s"), "{status}");
    let all = daemon.command(&["status", "--tables"]).stdout;
    assert!(all.matches("bank.").count() >= 3, "{all}");
    let metrics = daemon.get("/metrics").body;
    let metrics = metrics.as_str().unwrap();
    let copying = r#"pgferry_copy_tables{migration="shop",state="copying"}"#;
    assert!(metrics.contains(copying), "{metrics}");
    assert!(!metrics.contains("pgbench_accounts"), "a metric names a table");
}

fn after_it_has_ended(daemon: &Daemon, accounts: i64) {
    let report = daemon.get(COPY).body;
    assert_eq!(report["tables"], json!([]), "{report}");
    assert_eq!(report["tables_done"], report["tables_total"]);
    assert_eq!(report["bytes_expected"], report["bytes"]);
    assert!(report["rows"].as_i64() > Some(accounts), "{report}");
    for left in ["seconds_left", "bytes_per_second", "rows_per_second"] {
        assert_eq!(report[left], json!(null), "{left}");
    }
    let copy = &daemon.migration()["copy"];
    for sum in ["tables_total", "tables_done", "rows", "bytes", "bytes_expected", "seconds"] {
        assert_eq!(report[sum], copy[sum], "{sum}");
    }
}

fn find<'a>(report: &'a Value, name: &str) -> Option<&'a Value> {
    report["tables"].as_array()?.iter().find(|table| table["table"] == name)
}
