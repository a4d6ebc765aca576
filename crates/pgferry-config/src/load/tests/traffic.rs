//! How clients come to the other side: every method, and what each misses.

use std::time::Duration;

use pgferry_plan::traffic::OnPauseDeadline;

use super::*;
use crate::{Rewrite, TrafficConfig};

const TRAFFIC: &str = "migrations.orders.traffic";

/// A section with these lines in it, and what they lead to.
#[track_caller]
fn check_traffic(lines: &str, expected: &[&str]) {
    let expected: Vec<String> = expected.iter().map(|e| format!("{TRAFFIC}.{e}")).collect();
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    check(&format!("{MINIMAL}[{TRAFFIC}]\n{lines}"), &[("HOOK", "key")], &expected);
}

fn pgbouncer(lines: &str) -> String {
    format!("method = 'pgbouncer'\n[[{TRAFFIC}.pgbouncers]]\n{lines}")
}

const CONSOLE: &str =
    "dsn = 'host=b1 port=6432 dbname=pgbouncer user=pgferry'\ndatabase = 'shop'\n";

fn parsed(lines: &str) -> TrafficConfig {
    valid(&format!("{MINIMAL}[{TRAFFIC}]\n{lines}"), &[("HOOK", "key")]).traffic
}

#[test]
fn a_pgbouncer_is_led_where_the_nodes_are_unless_its_entries_say_otherwise() {
    let TrafficConfig::Pgbouncer(config) =
        parsed(&pgbouncer(&format!("{CONSOLE}include_file = '/etc/pgbouncer/shop.ini'")))
    else {
        panic!("another method");
    };
    assert_eq!(config.pause_deadline, Duration::from_secs(2));
    assert_eq!(config.on_pause_deadline, OnPauseDeadline::Abort);
    let [one] = &config.pgbouncers[..] else { panic!("{config:?}") };
    assert_eq!((one.name.as_str(), one.database.as_str()), ("b1:6432", "shop"));
    assert_eq!(one.entries[0].text, "host=old port=5432 dbname=orders");
    assert_eq!(one.entries[1].text, "host=new port=5432 dbname=orders");
    assert!(matches!(&one.rewrite, Rewrite::IncludeFile(_)));

    let lines = format!(
        "{CONSOLE}name = 'one'\nrewrite_command = ['/bin/sh', '-c', 'x']\nsource_entry = \"host = 'it''s' pool_size=5\"\ndestination_entry = 'host=c port=1 dbname=x'"
    );
    let TrafficConfig::Pgbouncer(config) = parsed(&pgbouncer(&lines)) else {
        panic!("another method");
    };
    let [source, destination] = &config.pgbouncers[0].entries;
    assert_eq!((source.host.as_str(), source.port, source.dbname.as_str()), ("it's", 5432, "shop"));
    assert_eq!((destination.host.as_str(), destination.port), ("c", 1));
    assert_eq!(destination.dbname, "x");
}

#[test]
fn the_pause_fits_into_the_stall_budget() {
    let budget = |traffic: &str| {
        format!(
            "{MINIMAL}[migrations.orders.cutover]\nstall_budget = '1s'\n[{TRAFFIC}]\n{traffic}\n{}include_file = '/etc/x'",
            pgbouncer(CONSOLE)
        )
    };
    let TrafficConfig::Pgbouncer(config) = valid(&budget(""), &[]).traffic else {
        panic!("another method");
    };
    assert_eq!(config.pause_deadline, Duration::from_millis(500));
    check(
        &budget("pause_deadline = '1s'"),
        &[],
        &[
            "migrations.orders.traffic.pause_deadline: it must be below cutover.stall_budget: writes are held from the PAUSE on",
        ],
    );
}

#[test]
fn what_a_pgbouncer_misses_is_named_with_its_number() {
    check_traffic("method = 'pgbouncer'", &["pgbouncers: no PgBouncer is named"]);
    check_traffic(
        &pgbouncer(""),
        &[
            "pgbouncers.0.database: missing",
            "pgbouncers.0.dsn: missing",
            "pgbouncers.0.include_file: missing: nothing says how the entry is changed",
        ],
    );
    let both = format!("{CONSOLE}include_file = '/etc/x'\nrewrite_command = ['/bin/sh']");
    check_traffic(
        &pgbouncer(&both),
        &["pgbouncers.0.rewrite_command: given together with include_file"],
    );
    check_traffic(
        &pgbouncer("dsn = 'host=b1 dbname=orders user=a'\ndatabase = 'orders'\ninclude_file = 'x'"),
        &[
            "pgbouncers.0.dsn: its dbname is \"orders\", which is no admin console",
            "pgbouncers.0.include_file: it is no absolute path",
        ],
    );
    for (entry, message) in [
        ("host=c password=x", "it holds a password"),
        ("port=1", "it names no host"),
        ("host=c port=x", "its port is no port number"),
        ("host", "a word has no ="),
        ("host='c", "a quote is not closed"),
    ] {
        let lines = format!("{CONSOLE}include_file = '/etc/x'\nsource_entry = \"{entry}\"");
        check_traffic(&pgbouncer(&lines), &[&format!("pgbouncers.0.source_entry: {message}")]);
    }
    let same = format!("{CONSOLE}include_file = '/etc/x'\nsource_entry = 'host=new dbname=orders'");
    check_traffic(
        &pgbouncer(&same),
        &["pgbouncers.0.destination_entry: it leads where source_entry does"],
    );
    let twice = format!("{CONSOLE}include_file = '/etc/x'\n");
    let twice = format!("{}[[{TRAFFIC}.pgbouncers]]\n{twice}", pgbouncer(&twice));
    check_traffic(&twice, &["pgbouncers.1: the same PgBouncer and entry stand here twice"]);
    let misspelt = format!("{CONSOLE}include_file = '/etc/x'\ndata_base = 'x'");
    check_traffic(
        &pgbouncer(&misspelt),
        &["pgbouncers.0.data_base: unknown key (the nearest known key is \"database\")"],
    );
}

#[test]
fn hooks_are_programs_that_are_there_and_a_url_with_a_secret() {
    let TrafficConfig::Command(config) =
        parsed("method = 'command'\nbefore_line = ['/bin/sh', '-c', 'x']\npass_env = ['A']")
    else {
        panic!("another method");
    };
    assert_eq!((config.deadline, config.after_line), (Duration::from_secs(10), None));
    check_traffic("method = 'command'", &["before_line: missing: no command is given"]);
    check_traffic(
        "method = 'command'\nbefore_line = ['sh']\nafter_line = []\naborted = ['/no/such']\ndeadline = '51s'",
        &[
            "aborted: there is no such program on this machine",
            "after_line: no program is named",
            "before_line: the program is not named by an absolute path",
            "deadline: a duration from 100ms to 50s is expected",
        ],
    );

    let webhook = "method = 'webhook'\nsecret_env = 'HOOK'\n";
    for url in ["https://h/x?y=1", "http://127.0.0.1:1"] {
        assert!(matches!(parsed(&format!("{webhook}url = '{url}'")), TrafficConfig::Webhook(_)));
    }
    for url in ["ftp://h/", "https://", "https://u:p@h/", "https://h/#x", "https://h/ x"] {
        check_traffic(
            &format!("{webhook}url = '{url}'"),
            &["url: this is no URL that a webhook can be sent to"],
        );
    }
    check_traffic(
        "method = 'webhook'\nca_file = '/no/such'",
        &[
            "ca_file: the file cannot be read: No such file or directory (os error 2)",
            "secret_env: missing: nothing to sign with",
            "url: missing",
        ],
    );
}

#[test]
fn a_key_of_another_method_is_refused_by_name() {
    check_traffic(
        "pause_deadline = '1s'\nurl = 'https://h'\ndeadline = '1s'",
        &[
            "deadline: method = \"multi_host\" does not read it (remove it, or choose method = \"command\" or \"webhook\")",
            "pause_deadline: method = \"multi_host\" does not read it (remove it, or choose method = \"pgbouncer\")",
            "url: method = \"multi_host\" does not read it",
        ],
    );
    check_traffic(
        "method = 'dns'",
        &["method: one of \"multi_host\", \"pgbouncer\", \"command\", \"webhook\" is expected"],
    );
}
