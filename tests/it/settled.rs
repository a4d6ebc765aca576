//! What must hold whenever a migration rests: one side open, nothing lost, both sides equal.

use std::time::Duration;

use pgferry_plan::Side;
use pgferry_tests::daemon::{AtFailpoint, PHASE_DEADLINE};
use pgferry_tests::{Answer, Daemon, Ledger, Pair, content, eventually};
use serde_json::{Value, json};

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

/// Waits until the daemon says that nothing stands in the way and has measured both streams. After
/// a restart it has to look at both servers first, and pglogical's workers may have to come back.
pub(crate) fn wait_for_go(daemon: &Daemon) {
    wait_for_verdict(daemon);
    daemon.wait_until("the lag of both streams", |m| {
        m["forward"]["lag_seconds"].is_number() && m["reverse"]["lag_seconds"].is_number()
    });
}

/// Waits until the verdict on the next switchover is to go.
pub(crate) fn wait_for_verdict(daemon: &Daemon) {
    eventually("the verdict to go", PHASE_DEADLINE, || {
        let verdict = daemon.try_get("/v1/migrations/shop/verdict")?.body;
        if verdict["go"] == true { Ok(()) } else { Err(verdict.to_string()) }
    });
}

/// Waits until the verdict has a blocker of this code, and returns it.
pub(crate) fn wait_for_blocker(daemon: &Daemon, code: &str) -> Value {
    eventually(&format!("{code} in the verdict"), PHASE_DEADLINE, || {
        let verdict = daemon.try_get("/v1/migrations/shop/verdict")?.body;
        let blockers = verdict["blockers"].as_array().cloned().unwrap_or_default();
        blockers.into_iter().find(|told| told["code"] == code).ok_or_else(|| verdict.to_string())
    })
}

/// Orders a switchover and waits until it holds at a failpoint.
pub(crate) fn hold_at(daemon: &Daemon, verb: &str, point: &str) -> Answer {
    daemon.failpoint().arm(point, AtFailpoint::Hold);
    let order = daemon.order(verb);
    assert_eq!(order.status, 202, "{order:?}");
    daemon.failpoint().wait_until_reached(SOON);
    order
}

/// Whether new sessions of a role are read-only in the pair's database.
pub(crate) fn is_read_only(pair: &Pair, side: Side, role: &str) -> bool {
    let found = pair.admin(side).number(&format!(
        "SELECT count(*) FROM pg_db_role_setting WHERE setrole = '{role}'::regrole \
         AND 'default_transaction_read_only=on' = ANY (setconfig)"
    ));
    found == 1
}

/// Gives an order that may end the daemon before it has answered; a refusal fails the test.
pub(crate) fn order_and_die(daemon: &Daemon, verb: &str) {
    eventually(&format!("{verb} to be taken"), SOON, || {
        match daemon.try_post(&format!("/v1/migrations/shop/{verb}"), &json!({})) {
            // It died before it could answer: the order was taken.
            Err(_) => Ok(()),
            Ok(answer) if answer.status == 202 => Ok(()),
            // A verdict may turn for a moment on a busy machine.
            Ok(answer) => Err(answer.body.to_string()),
        }
    });
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
    ledger.check(pair.cluster(active)).assert_clean();
    ledger.resume();
}

/// The active side hands out nothing that the passive one has. Holds after a switchover that went
/// through; one that was taken back leaves the passive side's sequences raised, by values that
/// nobody was handed.
pub(crate) fn assert_sequences_ahead(pair: &Pair, active: Side) {
    // The passive side's sequence may be ahead: a switchover that was undone leaves its headroom.
    let unused = pair.admin(active).value(
        "SELECT last_value >= (SELECT max(number) FROM bank.ledger) FROM bank.ledger_number_seq",
    );
    assert_eq!(unused.as_deref(), Some("t"), "the sequence is behind the numbers in use");
}
