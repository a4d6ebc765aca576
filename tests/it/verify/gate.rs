//! What pglogical loses in silence, provoked on purpose: nothing tells of it but a comparison, and then
//! a cutover is refused with the table's name. What its own copy loses is in `pglogical_copy.rs`.

use pgferry_plan::Side;
use pgferry_tests::{Daemon, Pair, content, eventually};
use serde_json::Value;

use super::{differences, saboteur, verify};
use crate::settled::{SOON, wait_for_go};

/// The refusal's first reason, which has to be the comparison's.
fn refused(daemon: &Daemon) -> String {
    let refused = daemon.order("cutover");
    assert_eq!(refused.status, 409, "{}", refused.body);
    let blocker = &refused.body["blockers"][0];
    assert_eq!(blocker["code"], "verification_mismatched", "{blocker}");
    blocker["message"].as_str().unwrap_or_default().to_owned()
}

/// Errors of the destination's apply worker since it was asked last.
fn stream_errors(pair: &Pair) -> Vec<String> {
    let log = pair.destination.log();
    let is_error = |line: &&str| line.contains("pglogical apply") && line.contains("ERROR");
    log.lines().filter(is_error).map(str::to_owned).collect()
}

/// While both sides follow each other: a row that is in the way of another one's copy by a second unique
/// key is overwritten with it, and so lost; an update of a row that is not there is passed over.
#[test]
fn rows_that_the_stream_loses_in_silence_keep_the_cutover_away() {
    let pair = Pair::with_bank();
    pair.load(
        "CREATE TABLE bank.coded (id int PRIMARY KEY, code text UNIQUE);
         INSERT INTO bank.coded SELECT n, 'code ' || n FROM generate_series(1, 50) AS n;
         GRANT SELECT, INSERT, UPDATE, DELETE ON bank.coded TO app",
    );
    let daemon = Daemon::for_bank(&pair);
    daemon.bring_to_ready();
    let bad = saboteur(&pair, Side::Destination);
    bad.run("UPDATE bank.coded SET code = 'taken' WHERE id = 7");
    bad.run("DELETE FROM bank.balances WHERE account = 3");
    let app = pair.app_on(Side::Source).unwrap();
    app.run("INSERT INTO bank.coded VALUES (500, 'taken')");
    app.run("UPDATE bank.balances SET amount = amount + 1 WHERE account = 3");
    let there = pair.admin(Side::Destination);
    eventually("the insert to arrive", SOON, || {
        match there.number("SELECT count(*) FROM bank.coded WHERE id = 500") {
            1 => Ok(()),
            rows => Err(format!("{rows} rows")),
        }
    });
    content::wait_until_settled(&pair, SOON);
    assert_eq!(there.number("SELECT count(*) FROM bank.coded WHERE id = 7"), 0, "it is lost");
    assert_eq!(stream_errors(&pair), Vec::<String>::new(), "and nothing told");
    // The streams carry, the last comparison was clean: without another one it could go.
    wait_for_go(&daemon);

    let (state, report) = verify(&daemon);
    assert_eq!(state, "failed", "{report}");
    let mut placed: Vec<(Value, Value, Value)> = differences(&report)
        .into_iter()
        .map(|found| {
            (found["object"].clone(), found["key"][0]["value"].clone(), found["wrong"].clone())
        })
        .collect();
    placed.sort_by_key(|(object, ..)| object.to_string());
    let wanted = [("bank.balances", "3", "missing"), ("bank.coded", "7", "missing")];
    assert_eq!(placed, wanted.map(|(o, k, w)| (o.into(), k.into(), w.into())));
    let message = refused(&daemon);
    for table in ["bank.balances (1)", "bank.coded (1)"] {
        assert!(message.contains(table), "{table} is not in: {message}");
    }
    // Mended, it may go.
    let mended = daemon.command(&["verify", "--repair", "--yes"]);
    assert_eq!(mended.code, Some(0), "{mended:?}");
    daemon.succeed("cutover");
    assert_eq!(there.number("SELECT count(*) FROM bank.coded"), 51);
}
