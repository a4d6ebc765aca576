//! Roles that begin to write while a switchover is on its way: found, though no ACL is read while
//! clients are held.

use pgferry_plan::Side;
use pgferry_tests::daemon::AtFailpoint;
use pgferry_tests::pgbouncer::in_front;
use pgferry_tests::{
    Daemon, Ledger, LedgerOptions, Pair, PairOptions, PgBouncer, Session, eventually,
};

use crate::settled::{SOON, assert_whole, hold_at, is_read_only, wait_for_go};

/// What only the statement over every ACL says.
const READS_EVERY_ACL: &str = "definer_that_writes AS MATERIALIZED";

/// Lets a role write on the source that only read until now, as an administrator might at any time.
fn let_reader_write(pair: &Pair) {
    pair.source.sql("shop", "GRANT INSERT ON bank.balances TO reader");
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

    let order = hold_at(&daemon, "cutover", "after_effect:pause_traffic");
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
    let order = hold_at(&daemon, "cutover", "after_effect:pause_traffic");
    let_reader_write(&pair);
    daemon.failpoint().arm("before_effect:yield", AtFailpoint::Hold);
    daemon.failpoint().wait_until_reached(SOON);
    assert!(is_read_only(&pair, Side::Source, "reader"), "it may write to the fenced source");
    daemon.failpoint().release();
    assert_eq!(daemon.wait_for_operation(&order)["state"], "succeeded");
    assert_eq!(ledger.errors().len(), 0, "{:?}", ledger.errors());
}

/// Inserts a row of its own, and says whether it was let.
fn may_insert(session: &Session, account: i32) -> bool {
    session.try_rows(&format!("INSERT INTO bank.balances VALUES ({account}, 1000)")).is_ok()
}

/// It appears right behind the request, where no upkeep looks any more, with sessions on both sides
/// that are older than any fence of it.
#[test]
fn a_role_that_appears_once_the_passive_side_is_closed_is_closed_out_there_first() {
    let pair = Pair::with_bank();
    let daemon = Daemon::for_bank(&pair);
    let ledger = Ledger::start(&pair, LedgerOptions::SLOW);
    daemon.bring_to_ready();
    wait_for_go(&daemon);
    let reader_on = |side| pair.login_on(side, "reader", "reader-password");
    let [here, there] = Side::BOTH.map(|side| reader_on(side).unwrap());
    daemon.failpoint().arm("before_append:check_verdict", AtFailpoint::Hold);
    let order = std::thread::scope(|scope| {
        let order = scope.spawn(|| daemon.order("cutover"));
        daemon.failpoint().wait_until_reached(SOON);
        for side in Side::BOTH {
            pair.cluster(side).sql("shop", "GRANT INSERT ON bank.balances TO reader");
        }
        daemon.failpoint().arm("after_effect:check_verdict", AtFailpoint::Hold);
        order.join().unwrap()
    });
    assert_eq!(order.status, 202, "{}", order.body);
    daemon.failpoint().wait_until_reached(SOON);
    assert!(is_read_only(&pair, Side::Destination, "reader"), "the verdict closes it out");
    assert!(!is_read_only(&pair, Side::Source, "reader"));
    assert!(!may_insert(&reader_on(Side::Destination).unwrap(), 101), "the passive side is closed");
    daemon.failpoint().arm("before_effect:yield", AtFailpoint::Hold);
    daemon.failpoint().wait_until_reached(SOON);
    assert!(is_read_only(&pair, Side::Source, "reader"), "it may write to the fenced source");
    for (session, whose) in [
        (here, "of before on the source"),
        (reader_on(Side::Source).unwrap(), "on the source"),
        (there, "of before on the destination"),
    ] {
        assert!(!may_insert(&session, 102), "a session {whose} writes to a closed side");
    }
    daemon.failpoint().release();
    assert_eq!(daemon.wait_for_operation(&order)["state"], "succeeded");
    eventually("the role to write on the side that was opened", SOON, || {
        let session = reader_on(Side::Destination).map_err(|error| error.to_string())?;
        if may_insert(&session, 104) { Ok(()) } else { Err("it is refused".to_owned()) }
    });
    pair.cluster(Side::Destination).sql("shop", "DELETE FROM bank.balances WHERE account > 100");
    assert_whole(&pair, &ledger, Side::Destination);
}

#[test]
fn a_role_that_appears_behind_the_fence_takes_the_switchover_back() {
    let pair = Pair::with_bank();
    let daemon = Daemon::for_bank(&pair);
    let ledger = Ledger::start(&pair, LedgerOptions::SLOW);
    daemon.bring_to_ready();
    wait_for_go(&daemon);
    let order = hold_at(&daemon, "cutover", "before_effect:drain");
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
