//! What must hold whenever a migration rests: one side open, nothing lost, both sides equal.

use std::time::Duration;

use pgferry_plan::Side;
use pgferry_tests::{Daemon, Ledger, Pair, content};

/// Writers, streams and a restarted daemon all come to rest well within this.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// The side the daemon calls active, once the migration rests at one of its two gates.
pub(crate) fn rest(daemon: &Daemon) -> Side {
    let at_gate = daemon.wait_until("the migration to rest", |migration| {
        let phase = migration["phase"].as_str().unwrap_or_default();
        matches!(phase, "ready" | "cut_over") && migration["condition"].is_null()
    });
    match at_gate["active"].as_str() {
        Some("source") => Side::Source,
        Some("destination") => Side::Destination,
        other => panic!("active is {other:?}"),
    }
}

/// Proves that the writers write on the active side, and there only; that no promise was broken;
/// and that the passive side has everything. The writers write on afterwards.
pub(crate) fn assert_whole(pair: &Pair, ledger: &Ledger, active: Side) {
    ledger.wait_for_writes(10, SOON);
    assert!(pair.is_open(active), "the {active} is active and takes no writes");
    assert!(!pair.is_open(active.other()), "both sides are open");
    ledger.hold();
    content::wait_until_settled(pair, SOON);
    assert_eq!(content::differences(&pair.source, &pair.destination), Vec::<String>::new());
    let behind = content::sequences_behind(pair.cluster(active), pair.cluster(active.other()));
    assert_eq!(behind, Vec::<String>::new());
    ledger.check(pair.cluster(active)).assert_clean();
    ledger.resume();
}
