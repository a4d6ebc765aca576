//! Worlds that are not as a switchover needs them: what was prepared and not committed, streams that
//! cannot carry, sequences at their end. Each is told, nothing is lost, and mended it goes on.

use std::collections::{BTreeMap, BTreeSet};

use pgferry_plan::Side;
use pgferry_tests::config::migration;
use pgferry_tests::{
    Answer, ConfigFile, Daemon, Ledger, LedgerOptions, Pair, PairOptions, Session, eventually,
};

use crate::settled::{
    SOON, assert_whole, hold_at, rest, wait_for_blocker, wait_for_go, wait_for_verdict,
};

/// Opens a transaction that is to be prepared: in a table that no writer waits for.
fn begin(session: &Session, id: i32) {
    session.run(&format!("BEGIN READ WRITE; INSERT INTO bank.noted VALUES ({id})"));
}

fn assert_taken_back(daemon: &Daemon, order: &Answer, code: &str) {
    let operation = daemon.wait_for_operation(order);
    assert_eq!(operation["state"], "aborted", "{operation}");
    assert_eq!(operation["problem"]["code"], code, "{operation}");
    assert_eq!(rest(daemon), Side::Source);
}

#[test]
fn prepared_transactions_stop_a_switchover_before_the_line_and_are_told_behind_it() {
    let settings = [("max_prepared_transactions", "10".to_owned())];
    let pair = Pair::start_with(PairOptions::default(), &settings);
    pair.load_bank();
    pair.load(
        "CREATE TABLE bank.noted (id int PRIMARY KEY); GRANT SELECT, INSERT ON bank.noted TO app",
    );
    let config = ConfigFile::for_pair(&pair)
        .insert_only(&["bank.ledger_keyless"])
        .with(&migration("cutover.stall_budget"), "60s");
    let daemon = Daemon::start(&config);
    let ledger = Ledger::start(&pair, LedgerOptions::SLOW);
    daemon.bring_to_ready();
    let admin = pair.admin(Side::Source);
    let app_on_source = || pair.app_on(Side::Source).unwrap();

    let app = app_on_source();
    begin(&app, 1);
    app.run("PREPARE TRANSACTION 'one'");
    let told = wait_for_blocker(&daemon, "prepared_transactions");
    assert!(told["hint"].to_string().contains("ROLLBACK PREPARED"), "{told}");
    let refused = daemon.order("cutover");
    assert_eq!(refused.status, 409, "{}", refused.body);
    admin.run("ROLLBACK PREPARED 'one'");
    wait_for_go(&daemon);

    // Behind the verdict, before the fence.
    let order = hold_at(&daemon, "cutover", "before_effect:fence_active");
    begin(&app, 2);
    app.run("PREPARE TRANSACTION 'two'");
    daemon.failpoint().release();
    assert_taken_back(&daemon, &order, "prepared_transactions");
    ledger.wait_for_writes(5, SOON);
    admin.run("ROLLBACK PREPARED 'two'");
    wait_for_go(&daemon);

    // Begun before the fence, and prepared behind it, where its session may still go on.
    let app = app_on_source();
    begin(&app, 3);
    let order = hold_at(&daemon, "cutover", "after_effect:fence_active");
    app.run("PREPARE TRANSACTION 'three'");
    daemon.failpoint().release();
    assert_taken_back(&daemon, &order, "prepared_transactions");
    ledger.wait_for_writes(5, SOON);
    assert_whole(&pair, &ledger, Side::Source);
    // It was somebody's work, and is not lost.
    admin.run("COMMIT PREPARED 'three'");
    wait_for_go(&daemon);

    // Behind the last look before the line, by a session that takes no notice of the fence.
    let order = hold_at(&daemon, "cutover", "before_effect:yield");
    let app = app_on_source();
    begin(&app, 4);
    app.run("PREPARE TRANSACTION 'four'");
    daemon.failpoint().release();
    let blocked = daemon.wait_until("what is prepared to be told", |m| {
        m["condition"]["code"] == "prepared_on_yielded"
    });
    assert_eq!(
        (&blocked["step"], &blocked["condition"]["kind"]),
        (&"confirm".into(), &"blocked".into())
    );
    ledger.wait_for_writes(5, SOON);
    assert!(pair.is_open(Side::Destination), "nobody waits for it");
    let too_late = daemon.order("abort");
    assert_eq!((too_late.status, &too_late.body["code"]), (409, &"too_late".into()));
    let command = daemon.command(&["abort"]);
    assert!(command.code == Some(2) && command.stderr.contains("line"), "{command:?}");
    admin.run("ROLLBACK PREPARED 'four'");
    let operation = daemon.wait_for_operation(&order);
    assert_eq!(operation["state"], "succeeded", "{operation}");
    assert_whole(&pair, &ledger, Side::Destination);
    let noted = pair.admin(Side::Destination).column("SELECT id::text FROM bank.noted");
    assert_eq!(noted, ["3"], "what was committed, and that alone");
}

#[test]
fn streams_that_cannot_carry_are_told_by_name_and_stand_against_a_switchover() {
    let pair = Pair::with_bank();
    let daemon = Daemon::for_bank(&pair);
    let ledger = Ledger::start(&pair, LedgerOptions::SLOW);
    daemon.bring_to_ready();
    wait_for_verdict(&daemon);

    // The apply worker ends at the first such row, is started again, and ends again.
    let there = pair.admin(Side::Destination);
    there.run("ALTER TABLE bank.balances ADD CONSTRAINT in_the_way CHECK (amount < 0) NOT VALID");
    let told = wait_for_blocker(&daemon, "stream_not_streaming");
    assert!(told["message"].to_string().contains("the forward stream"), "{told}");
    eventually("it to end again and again", SOON, || {
        let refused = daemon.order("cutover");
        assert_eq!(refused.status, 409, "it is connected for a moment: {}", refused.body);
        let ends = pair.destination.log().matches("\"in_the_way\"").count();
        if ends > 3 { Ok(()) } else { Err(format!("{ends} times")) }
    });
    ledger.wait_for_writes(5, SOON);
    there.run("ALTER TABLE bank.balances DROP CONSTRAINT in_the_way");
    wait_for_go(&daemon);
    daemon.succeed("cutover");
    assert_whole(&pair, &ledger, Side::Destination);

    // The way back is given up by its server while nobody reads it.
    wait_for_go(&daemon);
    ledger.hold();
    pair.admin(Side::Source).run(
        "SELECT pglogical.alter_subscription_disable(sub_name, true) FROM pglogical.subscription",
    );
    there.run("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'");
    there.run("SELECT pg_reload_conf()");
    eventually("the slot to be lost", SOON, || {
        there.run("SELECT pg_logical_emit_message(false, 'filler', repeat('x', 20 * 1024 * 1024))");
        there.run("SELECT pg_switch_wal()");
        there.run("CHECKPOINT");
        let slots = there.column("SELECT wal_status FROM pg_replication_slots");
        if slots == ["lost"] { Ok(()) } else { Err(format!("{slots:?}")) }
    });
    let told = wait_for_blocker(&daemon, "slot_lost");
    assert!(told["message"].to_string().contains("reverse"), "{told}");
    let refused = daemon.order("rollback");
    assert_eq!(refused.status, 409, "{}", refused.body);
    assert!(refused.body["blockers"].to_string().contains("slot_lost"), "{}", refused.body);
    // What it has lost is never brought; the end does not wait for it.
    ledger.resume();
    ledger.wait_for_writes(5, SOON);
    daemon.succeed("finish");
    assert!(pair.is_open(Side::Destination));
    ledger.wait_for_writes(5, SOON);
    ledger.hold();
    ledger.check(&pair.destination).assert_clean();
}

#[test]
fn the_end_does_not_wait_in_silence_for_a_stream_that_cannot_carry() {
    let pair = Pair::with_bank();
    let daemon = Daemon::for_bank(&pair);
    let ledger = Ledger::start(&pair, LedgerOptions::SLOW);
    daemon.bring_to_ready();
    wait_for_go(&daemon);
    daemon.succeed("cutover");

    pair.admin(Side::Source)
        .run("ALTER TABLE bank.balances ADD CONSTRAINT in_the_way CHECK (amount < 0) NOT VALID");
    wait_for_blocker(&daemon, "stream_not_streaming");
    let order = daemon.order("finish");
    assert_eq!(order.status, 202, "{}", order.body);
    let hint = eventually("the end to say what it waits for", SOON, || {
        let condition = daemon.migration()["condition"].clone();
        match condition["code"].as_str() {
            Some("stream_not_streaming") => Ok(condition["hint"].as_str().unwrap().to_owned()),
            _ => Err(condition.to_string()),
        }
    });
    let (_, statement) = hint.split_once("on the source: ").expect(&hint);
    pair.admin(Side::Source).run(statement);
    let operation = daemon.wait_for_operation(&order);
    assert_eq!(operation["state"], "succeeded", "{operation}");
    ledger.wait_for_writes(5, SOON);
    ledger.hold();
    ledger.check(&pair.destination).assert_clean();
}

/// Sequences near a bound or past it, and what is drawn from each before a switchover: the values
/// that come, or none where it is exhausted.
const SEQUENCES: &[(&str, &str, &[i64])] = &[
    // name, definition and last value, what the next three drawings are
    ("up", "AS smallint; SELECT setval('bank.up', 32760)", &[32761, 32762, 32763]),
    ("used_up", "AS smallint; SELECT setval('bank.used_up', 32767)", &[]),
    (
        "down",
        "AS smallint INCREMENT -1; SELECT setval('bank.down', -32763)",
        &[-32764, -32765, -32766],
    ),
    ("used_down", "AS smallint INCREMENT -1; SELECT setval('bank.used_down', -32768)", &[]),
    ("around", "MAXVALUE 30000 CYCLE; SELECT setval('bank.around', 29998)", &[29999, 30000, 1]),
    ("narrow", "MAXVALUE 100 CYCLE; SELECT setval('bank.narrow', 98)", &[99, 100, 1]),
    (
        "around_down",
        "INCREMENT -2 MINVALUE -30000 CYCLE; SELECT setval('bank.around_down', -29997)",
        &[-29999, -1, -3],
    ),
];

/// The next three values of each, and none that was handed out before.
fn draw(
    app: &Session,
    used: &mut BTreeMap<&str, BTreeSet<i64>>,
) -> BTreeMap<&'static str, Vec<i64>> {
    let mut drawn: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
    for (name, ..) in SEQUENCES {
        let values = drawn.entry(name).or_default();
        for _ in 0..3 {
            let Ok(rows) = app.try_rows(&format!("SELECT nextval('bank.{name}')")) else { break };
            let value = rows[0][0].as_ref().unwrap().parse().unwrap();
            assert!(used.entry(name).or_default().insert(value), "{name} hands out {value} again");
            values.push(value);
        }
    }
    drawn
}

#[test]
fn sequences_at_their_bounds_hand_out_no_value_twice_and_one_that_is_missing_is_told() {
    let pair = Pair::with_bank();
    for (name, definition, _) in SEQUENCES {
        pair.load(&format!("CREATE SEQUENCE bank.{name} {definition}"));
    }
    pair.load("GRANT USAGE ON ALL SEQUENCES IN SCHEMA bank TO app");
    let daemon = Daemon::for_bank(&pair);
    daemon.bring_to_ready();
    // Followed up to here, so that those that wrap now are about to on the passive side.
    let (here, there) = (pair.admin(Side::Source), pair.admin(Side::Destination));
    let lasts = "SELECT string_agg(sequencename || ' ' || last_value, ', ' ORDER BY sequencename)
        FROM pg_sequences WHERE schemaname = 'bank'";
    eventually("the sequences to be followed", SOON, || {
        let found = [here.value(lasts), there.value(lasts)];
        if found[0] == found[1] { Ok(()) } else { Err(format!("{found:?}")) }
    });
    wait_for_go(&daemon);
    let order = hold_at(&daemon, "cutover", "before_effect:fence_active");
    let mut used = BTreeMap::new();
    let drawn = draw(&pair.app_on(Side::Source).unwrap(), &mut used);
    for (name, _, wanted) in SEQUENCES {
        assert_eq!(drawn[name], *wanted, "{name}");
    }
    daemon.failpoint().release();
    assert_eq!(daemon.wait_for_operation(&order)["state"], "succeeded");
    let drawn = draw(&pair.app_on(Side::Destination).unwrap(), &mut used);
    // Where the headroom would not fit, exactly what comes next.
    assert_eq!(drawn["up"], [32764, 32765, 32766]);
    assert_eq!(drawn["down"], [-32767, -32768]);
    assert_eq!(drawn["narrow"], [2, 3, 4]);
    assert_eq!(drawn["around"], [1002, 1003, 1004]);
    assert_eq!(drawn["around_down"], [-2005, -2007, -2009]);
    for name in ["used_up", "used_down"] {
        assert_eq!(drawn[name], Vec::<i64>::new(), "{name}");
    }

    here.run("DROP SEQUENCE bank.up");
    let told = wait_for_blocker(&daemon, "sequences_missing");
    assert!(told["message"].to_string().contains("bank.up"), "{told}");
    let refused = daemon.order("rollback");
    assert_eq!(refused.status, 409, "{}", refused.body);
    here.run("SET ROLE owner; CREATE SEQUENCE bank.up AS smallint; GRANT USAGE ON bank.up TO app");
    wait_for_go(&daemon);
    daemon.succeed("rollback");
    let drawn = draw(&pair.app_on(Side::Source).unwrap(), &mut used);
    assert_eq!(drawn["up"], [32767], "the last one that is left");
    assert_eq!(drawn["narrow"], [5, 6, 7]);
}
