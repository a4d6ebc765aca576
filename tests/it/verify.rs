//! Verification: planted faults are found and placed, equal data is equal, writes under way are no
//! fault, a cutover is refused while something differs, and a repair mends exactly that.

use pgferry_plan::Side;
use pgferry_tests::{ConfigFile, Daemon, Pair, PairOptions, Session};
use serde_json::Value;

use crate::settled::wait_for_go;

mod faults;
mod gate;
mod index;
mod repair;
mod row_security;
mod shown;
mod types;
mod under_way;

pub(crate) const WIDE: &str = include_str!("../src/sql/wide.sql");

/// A session that damages the passive side: what it writes carries an origin, so that it is not
/// streamed back to the active side.
pub(crate) fn saboteur(pair: &Pair, side: Side) -> Session {
    let session = pair.admin(side);
    session.run(
        "SELECT pg_replication_origin_create('sabotage')
          WHERE NOT EXISTS (SELECT FROM pg_replication_origin WHERE roname = 'sabotage')",
    );
    session.run("SELECT pg_replication_origin_session_setup('sabotage')");
    session.run("SET session_replication_role = replica");
    session
}

/// Verifies, and returns the operation's state with what was found.
pub(crate) fn verify(daemon: &Daemon) -> (String, Value) {
    let operation = daemon.carry_out("verify");
    let report = daemon.get("/v1/migrations/shop/verification").body;
    (operation["state"].as_str().unwrap_or_default().to_owned(), report)
}

pub(crate) fn differences(report: &Value) -> Vec<Value> {
    report["differences"].as_array().cloned().unwrap_or_default()
}

fn wide_pair() -> (Pair, Daemon) {
    let pair = Pair::start(PairOptions::default());
    pair.load(WIDE);
    let config = ConfigFile::for_pair(&pair).insert_only(&["wide.nothing", "wide.loose"]);
    let daemon = Daemon::start(&config);
    daemon.bring_to_ready();
    (pair, daemon)
}

#[test]
fn equal_data_is_equal_whatever_its_types() {
    let (_pair, daemon) = wide_pair();
    // On the way to ready it was compared already.
    let first = daemon.migration()["verification"].clone();
    assert_eq!(first["state"], "clean", "{first}");
    assert_eq!(
        (first["tables"].as_u64(), first["rows"].as_u64()),
        (Some(5), Some(6507)),
        "{first}"
    );
    assert_eq!(first["mismatched_rows"], 0);
    wait_for_go(&daemon);
    let (state, report) = verify(&daemon);
    assert_eq!((state.as_str(), differences(&report)), ("succeeded", vec![]), "{report}");
    assert_eq!(report["verification"]["state"], "clean");
    assert!(report["verification"]["finished_at"].is_string(), "{report}");
}
