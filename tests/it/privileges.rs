//! Nobody is superuser: what the daemon may not do, an administrator does with the statements that
//! the findings print, and with nothing else.

use pgferry_plan::Side;
use pgferry_tests::{ConfigFile, Daemon, Ledger, Pair, PairOptions, eventually};
use serde_json::Value;

use crate::settled::{SOON, assert_whole};

#[test]
fn the_statements_of_the_findings_are_all_an_administrator_needs() {
    let pair = Pair::start(PairOptions { extension: false, ..PairOptions::default() });
    pair.load_bank();
    let daemon = Daemon::start(&ConfigFile::for_pair(&pair).insert_only(&["bank.ledger_keyless"]));
    let refused = daemon.order("start");
    assert_eq!(refused.status, 409, "{}", refused.body);

    // Some findings can only be seen once others are gone; each round must make progress.
    let mut told_before = Vec::new();
    loop {
        let blocking = blocking_findings(&daemon);
        if blocking.is_empty() {
            break;
        }
        assert_ne!(blocking, told_before, "the statements did not help");
        for finding in &blocking {
            carry_out(&pair, finding);
        }
        told_before = blocking;
    }
    let ledger = Ledger::over(&pair);
    daemon.bring_to_ready();
    daemon.succeed("cutover");
    assert_whole(&pair, &ledger, Side::Destination);
}

fn blocking_findings(daemon: &Daemon) -> Vec<Value> {
    daemon.succeed("preflight");
    let findings = eventually("the findings", SOON, || {
        daemon.try_get("/v1/migrations/shop/preflight")?.body["findings"]
            .as_array()
            .cloned()
            .ok_or("no findings".to_owned())
    });
    findings.into_iter().filter(|finding| finding["severity"] == "block").collect()
}

/// Runs the finding's hint as the administrator of the side that its subject names.
fn carry_out(pair: &Pair, finding: &Value) {
    let subject = finding["subject"].as_str().unwrap_or_default();
    let hint = finding["hint"].as_str().unwrap_or_default();
    let sides: Vec<Side> =
        Side::BOTH.into_iter().filter(|side| subject.contains(side.as_str())).collect();
    assert!(!sides.is_empty(), "whose administrator? {finding}");
    for side in sides {
        pair.admin(side).try_rows(hint).unwrap_or_else(|e| panic!("{finding}\n{e:?}"));
    }
}
