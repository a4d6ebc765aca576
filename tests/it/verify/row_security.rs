//! Row security hides nothing from a comparison: it is an error, or it does not apply.

use pgferry_plan::Side;
use pgferry_tests::{Daemon, Pair};

use super::{differences, saboteur, verify};

/// What both sides hide alike would be equal, whatever is in it.
#[test]
fn rows_that_row_security_hides_are_never_taken_for_equal() {
    let pair = Pair::with_bank();
    let daemon = Daemon::for_bank(&pair);
    daemon.bring_to_ready();
    let before = daemon.migration()["verification"].clone();
    assert_eq!(before["state"], "clean", "{before}");
    for side in Side::BOTH {
        // Of an owner's rights it is kept only by FORCE.
        pair.admin(side).run(
            "CREATE POLICY few ON bank.balances USING (account < 32);
             ALTER TABLE bank.balances ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
        );
    }
    let bad = saboteur(&pair, Side::Destination);
    bad.run("UPDATE bank.balances SET amount = amount + 1 WHERE account = 40");

    let refused = daemon.carry_out("verify");
    assert_eq!(refused["state"], "failed", "{refused}");
    assert!(refused.to_string().contains("row-level security"), "{refused}");
    let after = daemon.migration()["verification"].clone();
    assert_eq!(after["finished_at"], before["finished_at"], "it has not come to an end: {after}");

    // By a role that it does not apply to, all rows are read.
    for side in Side::BOTH {
        pair.admin(side).run("ALTER ROLE pgferry BYPASSRLS");
    }
    let (state, report) = verify(&daemon);
    assert_eq!(state, "failed", "{report}");
    let found = differences(&report);
    assert_eq!(found.len(), 1, "{report}");
    assert_eq!(found[0]["key"][0]["value"], "40", "{report}");
}
