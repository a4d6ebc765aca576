//! Roles that begin to write while a switchover is on its way: found, though no ACL is read while
//! clients are held.

use pgferry_plan::Side;
use pgferry_tests::daemon::AtFailpoint;
use pgferry_tests::pgbouncer::in_front;
use pgferry_tests::{Answer, Daemon, Ledger, LedgerOptions, Pair, PairOptions, PgBouncer};

use crate::settled::{SOON, assert_whole, wait_for_go};

/// What only the statement over every ACL says.
const READS_EVERY_ACL: &str = "definer_that_writes AS MATERIALIZED";

fn hold_cutover_at(daemon: &Daemon, point: &str) -> Answer {
    daemon.failpoint().arm(point, AtFailpoint::Hold);
    let order = daemon.order("cutover");
    assert_eq!(order.status, 202, "{order:?}");
    daemon.failpoint().wait_until_reached(SOON);
    order
}

/// Lets a role write on the source that only read until now, as an administrator might at any time.
fn let_reader_write(pair: &Pair) {
    pair.source.sql("shop", "GRANT INSERT ON bank.balances TO reader");
}

fn is_read_only(pair: &Pair, side: Side, role: &str) -> bool {
    let found = pair.admin(side).number(&format!(
        "SELECT count(*) FROM pg_db_role_setting WHERE setrole = '{role}'::regrole \
         AND 'default_transaction_read_only=on' = ANY (setconfig)"
    ));
    found == 1
}

#[test]
fn no_acl_is_read_while_clients_are_held_and_a_role_that_appeared_is_fenced_all_the_same() {
    let logged = [("log_statement", "all".to_owned())];
    let pair = Pair::start_with(PairOptions::default(), &logged);
    pair.load_bank();
    let one = PgBouncer::start(&pair);
    let daemon = Daemon::start(&in_front(&pair, &[&one]));
    let ledger = Ledger::with_configs(&[one.app_config()], LedgerOptions::SLOW);
    daemon.bring_to_ready();
    wait_for_go(&daemon);
    let acl_looks = || pair.source.log().matches(READS_EVERY_ACL).count();

    let order = hold_cutover_at(&daemon, "after_effect:pause_traffic");
    let before = acl_looks();
    assert!(before > 0, "the statement is in the log when it is carried out");
    daemon.failpoint().arm("before_effect:yield", AtFailpoint::Hold);
    daemon.failpoint().wait_until_reached(SOON);
    assert_eq!(acl_looks(), before, "every ACL was read while clients were held");
    daemon.failpoint().release();
    assert_eq!(daemon.wait_for_operation(&order)["state"], "succeeded");
    assert_whole(&pair, &ledger, Side::Destination);

    wait_for_go(&daemon);
    daemon.succeed("rollback");
    wait_for_go(&daemon);
    let order = hold_cutover_at(&daemon, "after_effect:pause_traffic");
    let_reader_write(&pair);
    daemon.failpoint().arm("before_effect:yield", AtFailpoint::Hold);
    daemon.failpoint().wait_until_reached(SOON);
    assert!(is_read_only(&pair, Side::Source, "reader"), "it may write to the fenced source");
    daemon.failpoint().release();
    assert_eq!(daemon.wait_for_operation(&order)["state"], "succeeded");
    assert_eq!(ledger.errors().len(), 0, "{:?}", ledger.errors());
}

#[test]
fn a_role_that_appears_behind_the_fence_takes_the_switchover_back() {
    let pair = Pair::with_bank();
    let daemon = Daemon::for_bank(&pair);
    let ledger = Ledger::start(&pair, LedgerOptions::SLOW);
    daemon.bring_to_ready();
    wait_for_go(&daemon);
    let order = hold_cutover_at(&daemon, "before_effect:drain");
    let_reader_write(&pair);
    daemon.failpoint().release();
    let operation = daemon.wait_for_operation(&order);
    assert_eq!(operation["state"], "aborted", "{operation}");
    assert_eq!(operation["problem"]["code"], "fence_broken", "{operation}");
    assert!(!is_read_only(&pair, Side::Source, "app"), "the fence is lifted");
    assert_whole(&pair, &ledger, Side::Source);
    wait_for_go(&daemon);
    daemon.succeed("cutover");
    assert!(is_read_only(&pair, Side::Source, "reader"), "it may write to the closed source");
    assert_whole(&pair, &ledger, Side::Destination);
}
