//! A repair mends what differs, and nothing that it cannot do exactly.

use pgferry_plan::Side;
use pgferry_tests::daemon::AtFailpoint;
use pgferry_tests::{
    ConfigFile, Daemon, Ledger, LedgerOptions, Pair, Session, content, eventually,
};
use serde_json::{Value, json};

use super::{WIDE, saboteur, verify};
use crate::settled::SOON;

/// What the journal says of repairs, as `GET …/events` shows it.
fn repairs_told(daemon: &Daemon) -> Vec<Value> {
    let events = daemon.get("/v1/migrations/shop/events").body["events"].clone();
    let is_of_repair =
        |event: &Value| event["event"].as_str().is_some_and(|name| name.starts_with("repair"));
    events.as_array().cloned().unwrap_or_default().into_iter().filter(is_of_repair).collect()
}

/// Exactly the rows that differ are copied again, while the application writes on; what cannot be
/// done exactly is refused with its reason.
#[test]
fn a_repair_copies_again_what_differs_and_refuses_what_it_cannot_do_exactly() {
    let pair = Pair::with_bank();
    pair.load(WIDE);
    pair.load(
        "CREATE TABLE bank.noted (id int PRIMARY KEY, v text);
         INSERT INTO bank.noted SELECT n, 'v' FROM generate_series(1, 10) AS n;
         CREATE TABLE bank.coded (id int PRIMARY KEY, code text UNIQUE);
         INSERT INTO bank.coded SELECT n, 'code ' || n FROM generate_series(1, 10) AS n;
         CREATE FUNCTION bank.note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
         CREATE TRIGGER note BEFORE INSERT ON bank.noted FOR EACH ROW EXECUTE FUNCTION bank.note();
         GRANT SELECT, INSERT, UPDATE, DELETE ON bank.noted TO app",
    );
    let config = ConfigFile::for_pair(&pair).insert_only(&[
        "bank.ledger_keyless",
        "wide.nothing",
        "wide.loose",
    ]);
    let daemon = Daemon::start(&config);
    let ledger = Ledger::start(&pair, LedgerOptions::SLOW);
    daemon.bring_to_ready();
    let bad = saboteur(&pair, Side::Destination);
    bad.run("DELETE FROM bank.balances WHERE account IN (3, 4)");
    bad.run("INSERT INTO bank.balances VALUES (4711, 1)");
    bad.run("DELETE FROM wide.types WHERE id IN (1, 100001, 100003)");
    bad.run("UPDATE wide.types SET double = 0, exact = 7.0, padded = 'other' WHERE id = 100002");
    bad.run("DELETE FROM wide.by_mood WHERE code = 'code 9'");
    // What is missing finds its place taken by what is extra.
    bad.run("UPDATE bank.coded SET id = 500 WHERE id = 5");
    bad.run("UPDATE bank.noted SET v = 'other' WHERE id = 5");
    bad.run("INSERT INTO wide.loose VALUES (99, 'new')");
    // Told first, and nothing is changed by it.
    let told = daemon.command(&["verify", "--repair"]);
    assert_eq!(told.code, Some(1), "{told:?}");
    assert!(told.stderr.contains("--repair --yes"), "{told:?}");
    assert_eq!(pair.admin(Side::Destination).number("SELECT count(*) FROM bank.balances"), 63);

    let done = daemon.command(&["verify", "--repair", "--yes"]);
    assert_eq!(done.code, Some(1), "two tables cannot be mended: {done:?}");
    assert!(done.stdout.contains("bank.balances (account=4711): extra; copied again"), "{done:?}");
    assert!(
        done.stdout.contains("bank.noted (id=5): different in v; not copied again"),
        "{done:?}"
    );
    assert!(done.stdout.contains("wide.loose (1 rows): extra; not copied again"), "{done:?}");
    let last = daemon.migration()["verification"].clone();
    assert_eq!(
        (last["mended_rows"].as_u64(), last["mismatched_rows"].as_u64()),
        (Some(10), Some(2))
    );
    let repairs = repairs_told(&daemon);
    let of = |event: &str, table: &str| -> Vec<Value> {
        let is = |told: &&Value| told["event"] == event && told["table"] == table;
        repairs.iter().filter(is).cloned().collect()
    };
    assert_eq!(repairs[0]["event"], "repair_requested", "{repairs:?}");
    for (table, rows, mended) in
        [("bank.balances", 3, 3), ("wide.types", 4, 4), ("bank.noted", 1, 0), ("wide.loose", 1, 0)]
    {
        let (intended, ended) = (of("repair_intended", table), of("repaired", table));
        assert_eq!((intended.len(), ended.len()), (1, 1), "{table}: {repairs:?}");
        assert_eq!(intended[0]["rows"], rows, "{table}: {intended:?}");
        assert_eq!(ended[0]["rows"], mended, "{table}: {ended:?}");
        assert_eq!(ended[0]["refused"].is_string(), mended == 0, "{table}: {ended:?}");
        assert_eq!(intended[0]["repair"], ended[0]["repair"]);
        assert!(intended[0]["seq"].as_u64() < ended[0]["seq"].as_u64());
    }
    assert!(!Value::from(repairs).to_string().contains("4711"), "no key is in the journal");
    bad.run("DELETE FROM wide.loose WHERE a = 99; UPDATE bank.noted SET v = 'v' WHERE id = 5");
    let (state, report) = verify(&daemon);
    assert_eq!(state, "succeeded", "{report}");
    // Nothing travelled back, and no promise was broken.
    crate::settled::assert_whole(&pair, &ledger, Side::Source);
    let origins = pair.admin(Side::Destination);
    let left = "SELECT count(*) FROM pg_replication_origin WHERE roname LIKE '%repair'";
    assert_eq!(origins.number(left), 0);
}

/// Where a daemon is ended in the middle of a repair.
struct Cut {
    /// It holds here first.
    held: &'static str,
    /// And dies here when it is let go on; None: it is killed where it holds.
    dies: Option<&'static str>,
    /// What the journal has of the repair by then.
    told: &'static [&'static str],
    /// Whether the rows are mended by then.
    mended: bool,
    /// What the daemon that goes on adds.
    added: &'static [&'static str],
}

/// The first append behind the order is the order itself, and the first behind an intent is its end.
const CUTS: &[Cut] = &[
    Cut {
        held: "before_append",
        dies: Some("before_append"),
        told: &["repair_requested"],
        mended: false,
        added: &["repair_intended", "repaired"],
    },
    Cut {
        held: "before_repair",
        dies: None,
        told: &["repair_requested", "repair_intended"],
        mended: false,
        added: &["repair_intended", "repaired"],
    },
    Cut {
        held: "before_repair",
        dies: Some("before_append"),
        told: &["repair_requested", "repair_intended"],
        mended: true,
        added: &[],
    },
    Cut {
        held: "after_repair",
        dies: None,
        told: &["repair_requested", "repair_intended", "repaired"],
        mended: true,
        added: &[],
    },
];

/// Two rows with the versions in which a server has them: who writes one again makes another version.
const BOTH_ROWS: &str = "SELECT string_agg(concat_ws(' ', account, amount, xmin), ', ' ORDER BY account) \
    FROM bank.balances WHERE account IN (7, 8)";

/// Nothing is copied again that the journal does not hold, what it holds is gone on with and done
/// once, and none of it travels back. To be told first changes nothing at all.
#[test]
fn a_repair_is_done_once_wherever_its_daemon_is_killed() {
    let pair = Pair::with_bank();
    let mut daemon = Daemon::for_bank(&pair);
    daemon.bring_to_ready();
    let bad = saboteur(&pair, Side::Destination);
    let (here, there) = (pair.admin(Side::Source), pair.admin(Side::Destination));
    let told_of = |daemon: &Daemon, operation: &str| -> Vec<String> {
        repairs_told(daemon)
            .iter()
            .filter(|event| event["operation"] == operation)
            .filter_map(|event| event["event"].as_str().map(str::to_owned))
            .collect()
    };
    let right = here.value(BOTH_ROWS);
    for (number, cut) in CUTS.iter().enumerate() {
        let at = format!("cut {number}, {} and {:?}", cut.held, cut.dies);
        bad.run("UPDATE bank.balances SET amount = 77 WHERE account = 7");
        bad.run("DELETE FROM bank.balances WHERE account = 8");
        let damaged = there.value(BOTH_ROWS);
        let before = content::digests(&pair.destination);
        let dry = daemon.command(&["verify", "--repair"]);
        assert_eq!(dry.code, Some(1), "{at}: {dry:?}");
        assert!(dry.stderr.contains("--repair --yes"), "{at}: {dry:?}");
        assert_eq!(content::digests(&pair.destination), before, "{at}: nobody has said yes");
        assert_eq!(there.value(BOTH_ROWS), damaged, "{at}: nobody has said yes");

        daemon.failpoint().arm(cut.held, AtFailpoint::Hold);
        let accepted = std::thread::scope(|scope| {
            let order = || daemon.try_post("/v1/migrations/shop/verify", &json!({"repair": true}));
            let order = scope.spawn(order);
            daemon.failpoint().wait_until_reached(SOON);
            match cut.dies {
                // It goes on at once, and comes there next after many round trips.
                Some(place) => daemon.failpoint().arm(place, AtFailpoint::Die),
                None => a_heart_beats_on(&there),
            }
            order.join().unwrap().unwrap_or_else(|error| panic!("{at}: {error}"))
        });
        match cut.dies {
            Some(_) => drop(daemon.wait_for_end(SOON)),
            None => daemon.kill(),
        }
        let operation = accepted.body["id"].as_str().unwrap_or_default().to_owned();
        let journal = format!(
            "SELECT event ->> 'event' FROM pgferry.journal WHERE event ->> 'operation' = '{operation}' \
             AND event ->> 'event' LIKE 'repair%' ORDER BY seq"
        );
        assert_eq!(there.column(&journal), cut.told, "{at}");
        let left = there.value(BOTH_ROWS);
        assert_eq!(left != damaged, cut.mended, "{at}: {left:?}");

        daemon.failpoint().disarm();
        daemon.serve();
        let ended = daemon.wait_for_operation(&accepted);
        assert_eq!(ended["state"], "succeeded", "{at}: {ended}");
        assert_eq!(daemon.migration()["verification"]["state"], "clean", "{at}");
        let all: Vec<&str> = cut.told.iter().chain(cut.added).copied().collect();
        assert_eq!(told_of(&daemon, &operation), all, "{at}");
        if cut.mended {
            assert_eq!(there.value(BOTH_ROWS), left, "{at}: they were written once");
        }
        content::wait_until_settled(&pair, SOON);
        assert_eq!(
            content::differences(&pair.source, &pair.destination),
            Vec::<String>::new(),
            "{at}"
        );
        assert_eq!(here.value(BOTH_ROWS), right, "{at}: what was mended has travelled back");
    }
    let origins = "SELECT count(*) FROM pg_replication_origin WHERE roname LIKE '%repair'";
    assert_eq!(there.number(origins), 0);
}

/// Waits for as long as a repair that waits for nobody would need: the loop holds, its heart does not.
fn a_heart_beats_on(there: &Session) {
    let beats = "SELECT beat FROM pgferry.heartbeat WHERE side = 'source'";
    let first = there.number(beats);
    eventually("the heart to beat on", SOON, || match there.number(beats) - first {
        10.. => Ok(()),
        few => Err(format!("{few} beats")),
    });
}
