//! What pglogical loses in silence, and a cutover that is refused for it with the table's name.

use pgferry_plan::Side;
use pgferry_tests::{Daemon, Pair};

use super::{saboteur, verify};
use crate::settled::wait_for_go;

/// A row of the passive side is in the way of its own copy: pglogical says nothing, or stops.
#[test]
fn a_row_that_was_lost_in_silence_keeps_the_cutover_away() {
    let pair = Pair::with_bank();
    let daemon = Daemon::for_bank(&pair);
    daemon.bring_to_ready();
    // The passive side's row takes the place of the one that is about to come: pglogical's
    // conflict resolution keeps one of the two, and no error tells.
    let bad = saboteur(&pair, Side::Destination);
    bad.run("INSERT INTO bank.balances VALUES (4711, 1)");
    bad.run("DELETE FROM bank.balances WHERE account = 3");
    let app = pair.app_on(Side::Source).unwrap();
    app.run("UPDATE bank.balances SET amount = amount + 1 WHERE account = 3");
    wait_for_go(&daemon);
    assert_eq!(verify(&daemon).0, "failed");
    let refused = daemon.order("cutover");
    assert_eq!(refused.status, 409, "{}", refused.body);
    let blocker = &refused.body["blockers"][0];
    assert_eq!(blocker["code"], "verification_mismatched", "{blocker}");
    assert!(blocker["message"].as_str().unwrap().contains("bank.balances (2)"), "{blocker}");
}
