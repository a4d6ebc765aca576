//! A hundred faults and more, planted on the passive side behind pglogical's back: each is found and
//! placed, and nothing else is accused.
//!
//! One migration carries all of them, because a pair of servers for each would take an hour.

mod others;
mod rows;
mod values;

use std::collections::BTreeMap;

use pgferry_plan::Side;
use pgferry_tests::{ConfigFile, Daemon, Pair, PairOptions};
use serde_json::Value;

use super::{WIDE, differences, saboteur};

const PLANTED: &str = include_str!("../../src/sql/planted.sql");

/// One thing that is done to the passive side, and all that a verification has to say of it.
struct Fault {
    kind: &'static str,
    sql: String,
    wanted: Vec<Told>,
}

/// What a report says of one difference.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Told {
    /// A row by its key, with exactly these columns.
    Row { table: String, key: Vec<String>, wrong: String, columns: Vec<String> },
    /// Rows without a key that hold the same.
    Rows { table: String, wrong: String, rows: u64 },
    /// What is no row: its kind, its name, what is wrong, and words of the message.
    Other { kind: String, object: String, wrong: String, says: String },
}

impl Fault {
    fn new(kind: &'static str, sql: impl Into<String>, wanted: Vec<Told>) -> Self {
        Self { kind, sql: sql.into(), wanted }
    }
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn row(table: &str, key: &[&str], wrong: &str) -> Told {
    row_in(table, key, wrong, &[])
}

fn row_in(table: &str, key: &[&str], wrong: &str, columns: &[&str]) -> Told {
    Told::Row {
        table: table.to_owned(),
        key: strings(key),
        wrong: wrong.to_owned(),
        columns: strings(columns),
    }
}

fn rows(table: &str, wrong: &str, rows: u64) -> Told {
    Told::Rows { table: table.to_owned(), wrong: wrong.to_owned(), rows }
}

fn other(kind: &str, object: &str, wrong: &str, says: &str) -> Told {
    Told::Other {
        kind: kind.to_owned(),
        object: object.to_owned(),
        wrong: wrong.to_owned(),
        says: says.to_owned(),
    }
}

/// A difference of a report; what is no row with its whole message.
fn told(difference: &Value) -> Told {
    let text = |field: &str| difference[field].as_str().unwrap_or_default().to_owned();
    let (object, wrong) = (text("object"), text("wrong"));
    if text("kind") != "row" {
        return Told::Other { kind: text("kind"), object, wrong, says: text("message") };
    }
    let list = |field: &str| difference[field].as_array().cloned().unwrap_or_default();
    let Some(key) = difference["key"].as_array() else {
        let rows = difference["rows"].as_u64().unwrap_or_default();
        return Told::Rows { table: object, wrong, rows };
    };
    let owned = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Told::Row {
        table: object,
        key: key.iter().map(|part| owned(&part["value"])).collect(),
        wrong,
        columns: list("columns").iter().map(owned).collect(),
    }
}

fn is_same(wanted: &Told, found: &Told) -> bool {
    match (wanted, found) {
        (
            Told::Other { kind, object, wrong, says },
            Told::Other { kind: k, object: o, wrong: w, says: message },
        ) => (kind, object, wrong) == (k, o, w) && message.contains(says),
        (Told::Row { .. } | Told::Rows { .. } | Told::Other { .. }, _) => wanted == found,
    }
}

#[test]
fn a_hundred_planted_faults_are_found_and_placed() {
    let pair = Pair::start(PairOptions::default());
    pair.load(WIDE);
    pair.load(PLANTED);
    for side in Side::BOTH {
        pair.admin(side).run("ALTER ROLE pgferry BYPASSRLS");
    }
    let config = ConfigFile::for_pair(&pair).insert_only(&[
        "wide.nothing",
        "wide.loose",
        "plant.loose",
        "plant.twins",
    ]);
    let daemon = Daemon::start(&config);
    daemon.bring_to_ready();
    let before = daemon.get("/v1/migrations/shop/verification").body;
    assert_eq!(differences(&before), Vec::<Value>::new(), "before anything was planted");

    let faults: Vec<Fault> =
        [values::faults(), rows::faults(), others::faults()].into_iter().flatten().collect();
    assert!(faults.len() >= 100, "only {} faults are planted", faults.len());
    let bad = saboteur(&pair, Side::Destination);
    for fault in &faults {
        bad.try_rows(&fault.sql).unwrap_or_else(|error| {
            panic!("{}: {}", fault.sql, pgferry_tests::session::words_of(&error))
        });
    }
    // On the command line it is exit code 1, with one line for each.
    let ran = daemon.command(&["verify", "--show-values"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let report = daemon.get("/v1/migrations/shop/verification").body;

    let mut left: Vec<Told> = differences(&report).iter().map(told).collect();
    let mut wrong: Vec<String> = Vec::new();
    let mut by_kind: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for fault in &faults {
        let mut placed = true;
        for wanted in &fault.wanted {
            match left.iter().position(|found| is_same(wanted, found)) {
                Some(at) => drop(left.remove(at)),
                None => {
                    placed = false;
                    wrong.push(format!("missed: {}: {}\n    {wanted:?}", fault.kind, fault.sql));
                }
            }
        }
        let count = by_kind.entry(fault.kind).or_default();
        count.0 += usize::from(placed);
        count.1 += 1;
    }
    wrong.extend(left.iter().map(|found| format!("accused, and not planted: {found:?}")));
    let (found, planted) =
        by_kind.values().fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1));
    for (kind, (found, planted)) in &by_kind {
        println!("{kind}: {found} of {planted}");
    }
    println!("{found} of {planted} planted faults were found and placed");
    assert!(wrong.is_empty(), "{found} of {planted}\n{}", wrong.join("\n"));

    let rows: u64 = differences(&report)
        .iter()
        .filter(|difference| difference["kind"] == "row")
        .filter_map(|difference| difference["rows"].as_u64())
        .sum();
    assert_eq!(report["verification"]["mismatched_rows"], rows, "{report}");
    let privileges =
        differences(&report).iter().filter(|found| found["kind"] == "privilege").count();
    let others = differences(&report).iter().filter(|found| found["kind"] != "row").count();
    assert_eq!(report["verification"]["other_differences"], others - privileges);
    let refused = daemon.order("cutover");
    assert_eq!(refused.status, 409, "{}", refused.body);
    let codes: Vec<&str> = refused.body["blockers"]
        .as_array()
        .map(|all| all.iter().filter_map(|blocker| blocker["code"].as_str()).collect())
        .unwrap_or_default();
    assert!(codes.contains(&"verification_mismatched"), "{codes:?}");
    let kept = pair.admin(Side::Destination);
    let with_values = "SELECT count(*) FROM pgferry.verified WHERE outcome::text LIKE '%word 1%'";
    assert_eq!(kept.number(with_values), 0, "values are shown to who asked, and kept nowhere");
    for line in [
        "wide.by_mood (feeling=cross, code=code 9): missing",
        "word: \"word 1\" on the active side, \"other\" on the passive",
        // What only its blanks tell apart is shown with them.
        "free: \"x\" on the active side, \"x \" on the passive",
        "large object: large object 70006: missing",
        "sequence: plant.s1: it is behind the active side's 500",
    ] {
        assert!(ran.stdout.contains(line), "{line} is not in\n{}", ran.stdout);
    }
}
