//! What differs is told by key and column. The values are in the answer to who asks for them, and
//! nowhere else.

use pgferry_plan::Side;
use pgferry_tests::{Daemon, Pair};

use super::saboteur;

/// What the two sides hold, in columns that are no key, and what no key is told by.
const SECRETS: [&str; 3] = ["hush-on-the-source", "hush-on-the-destination", "hush-without-a-key"];

/// Everything that pgferry says or keeps, each with where that is.
fn said(pair: &Pair, daemon: &Daemon) -> Vec<(String, String)> {
    let mut said = vec![("the log".to_owned(), daemon.log())];
    for path in ["", "/verification", "/events", "/verdict"] {
        let path = format!("/v1/migrations/shop{path}");
        said.push((path.clone(), daemon.get(&path).body.to_string()));
    }
    said.push(("/metrics".to_owned(), daemon.get("/metrics").body.to_string()));
    for arguments in [&["status"][..], &["events"], &["watch"], &["status", "--output", "json"]] {
        let output = daemon.command(arguments);
        said.push((format!("{arguments:?}"), output.stdout + &output.stderr));
    }
    for side in Side::BOTH {
        let admin = pair.admin(side);
        let tables = "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables
            WHERE schemaname = 'pgferry'";
        for table in admin.column(tables) {
            let rows = admin.column(&format!("SELECT t::text FROM {table} t"));
            said.push((format!("{table} on the {side}"), rows.join("\n")));
        }
    }
    for file in std::fs::read_dir(daemon.dir()).unwrap().flatten() {
        let text = std::fs::read_to_string(file.path()).unwrap_or_default();
        said.push((file.path().display().to_string(), text));
    }
    said
}

fn who_tells(said: &[(String, String)]) -> Vec<&str> {
    let tells = |text: &str| SECRETS.iter().any(|secret| text.contains(secret));
    said.iter().filter(|(_, text)| tells(text)).map(|(whence, _)| whence.as_str()).collect()
}

#[test]
fn values_are_told_to_who_asks_for_them_and_kept_nowhere() {
    let pair = Pair::with_bank();
    let [here, there, keyless] = SECRETS;
    pair.load(&format!(
        "CREATE TABLE bank.told (id int PRIMARY KEY, v text);
         INSERT INTO bank.told SELECT n, '{here}' FROM generate_series(1, 20) AS n;
         CREATE TABLE bank.loose (v text)"
    ));
    let config = pgferry_tests::ConfigFile::for_pair(&pair)
        .insert_only(&["bank.ledger_keyless", "bank.loose"]);
    let mut daemon = Daemon::start(&config);
    daemon.bring_to_ready();
    let bad = saboteur(&pair, Side::Destination);
    bad.run(&format!("UPDATE bank.told SET v = '{there}' WHERE id = 7"));
    bad.run("DELETE FROM bank.told WHERE id = 8");
    bad.run(&format!("INSERT INTO bank.loose VALUES ('{keyless}')"));

    let plain = daemon.command(&["verify"]);
    assert_eq!(plain.code, Some(1), "{plain:?}");
    assert!(plain.stdout.contains("bank.told (id=7): different in v"), "{plain:?}");
    assert!(plain.stdout.contains("bank.loose (1 rows): extra"), "{plain:?}");
    let mut everything = said(&pair, &daemon);
    assert!(everything.len() > 15, "{everything:?}");
    everything.push(("verify".to_owned(), plain.stdout + &plain.stderr));
    assert_eq!(who_tells(&everything), Vec::<&str>::new());

    let asked = daemon.command(&["verify", "--show-values"]);
    assert_eq!(asked.code, Some(1), "{asked:?}");
    let line = format!("v: \"{here}\" on the active side, \"{there}\" on the passive");
    assert!(asked.stdout.contains(&line), "{asked:?}");
    let everything = said(&pair, &daemon);
    assert_eq!(who_tells(&everything), ["/v1/migrations/shop/verification"]);
    // A restart has nothing to remember them by, and the next one shows none that were not asked for.
    assert!(daemon.terminate().success());
    daemon.serve();
    daemon.wait_until("the verification", |migration| migration["verification"].is_object());
    assert_eq!(who_tells(&said(&pair, &daemon)), Vec::<&str>::new());
}
