//! Configurations and command lines that are wrong: everything is told at once, and exit 64.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;

use pgferry_tests::config::{PASSWORD_VARIABLE, migration};
use pgferry_tests::tempdir::TempDir;
use pgferry_tests::{ConfigFile, pgferry, process, serve_into_pipe};

use crate::settled::SOON;

const DSN: &str = "host=127.0.0.1 port=1 dbname=shop user=pgferry";
const PASSWORD: (&str, &str) = (PASSWORD_VARIABLE, "swordfish");

fn config() -> ConfigFile {
    ConfigFile::for_dsns(DSN, &DSN.replace("port=1", "port=2"))
}

#[test]
fn a_good_configuration_is_told_to_be_good() {
    let (_dir, file) = write(&config().text());
    let output = pgferry(&["check-config", &file.to_string_lossy()], &[PASSWORD]);
    assert_eq!(output.code, Some(0), "{output:?}");
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest_known_one() {
    let text = config().with(&migration("cutover.max_lga"), "1s").text();
    refused(&text, &[PASSWORD], &["max_lga", "max_lag"]);
}

#[test]
fn two_mistakes_are_told_at_once() {
    let text = config()
        .with(&migration("heartbeat_interval"), "soon")
        .with(&migration("copy.jobs"), -1)
        .with("server.listne", "127.0.0.1:8432")
        .text();
    refused(&text, &[PASSWORD], &["heartbeat_interval", "jobs", "listne"]);
}

#[test]
fn a_missing_password_variable_is_named() {
    refused(&config().text(), &[], &[PASSWORD_VARIABLE]);
}

#[test]
fn the_same_database_on_both_sides_is_refused() {
    refused(&ConfigFile::for_dsns(DSN, DSN).text(), &[PASSWORD], &["destination"]);
}

#[test]
fn a_listener_elsewhere_than_on_loopback_is_refused() {
    refused(&config().with("server.listen", "0.0.0.0:8432").text(), &[PASSWORD], &["listen"]);
}

#[test]
fn a_file_that_is_not_toml_or_not_there_is_refused() {
    refused("[migrations.shop", &[PASSWORD], &["pgferry.toml"]);
    let output = pgferry(&["check-config", "no-such-file.toml"], &[]);
    assert_eq!(output.code, Some(64), "{output:?}");
    assert!(output.stderr.contains("no-such-file.toml"), "{output:?}");
}

#[test]
fn serve_ends_with_the_same_words_as_check_config() {
    let (_dir, file) = write(&config().with(&migration("copy.job"), 2).text());
    let file = file.to_string_lossy();
    let checked = pgferry(&["check-config", &file], &[PASSWORD]);
    let served = pgferry(&["serve", "--config", &file], &[PASSWORD]);
    assert_eq!((checked.code, served.code), (Some(64), Some(64)));
    assert!(served.stderr.contains("copy.job"), "{served:?}");
}

#[test]
fn a_wrong_command_line_ends_with_64_and_an_absent_daemon_with_1() {
    for wrong in [&["no-such-verb"][..], &["serve"], &["status", "--output", "yaml"]] {
        let output = pgferry(wrong, &[]);
        assert_eq!(output.code, Some(64), "{wrong:?}: {output:?}");
    }
    let output = pgferry(&["status"], &[("PGFERRY_URL", "http://127.0.0.1:1")]);
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(output.stderr.contains("127.0.0.1:1"), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
}

#[test]
fn a_certificate_that_is_there_and_of_no_use_is_told_before_anything_starts() {
    let dir = TempDir::new("certificates");
    let bundle = dir.path().join("empty.pem");
    std::fs::write(&bundle, "no certificate").unwrap();
    let words = |mode: &str, root: &str| format!("{DSN} sslmode={mode} sslrootcert={root}");
    let text = config()
        .with(&migration("source.dsn"), words("verify-full", &bundle.to_string_lossy()))
        .with("journal.dsn", format!("{DSN} sslcert=/no/such.pem sslkey=/no/such.pem"))
        .text();
    refused(&text, &[PASSWORD], &["migrations.shop.source.dsn", "no certificate", "journal.dsn"]);
    let (_dir, file) = write(&text);
    let served = pgferry(&["serve", "--config", &file.to_string_lossy()], &[PASSWORD]);
    assert_eq!(served.code, Some(64), "{served:?}");
    // The machine's authorities vouch for anybody: the name must be checked, too.
    let system = |mode| config().with(&migration("source.dsn"), words(mode, "system")).text();
    refused(&system("require"), &[PASSWORD], &["sslrootcert=system", "verify-full"]);
    let (_dir, file) = write(&system("verify-full"));
    let output = pgferry(&["check-config", &file.to_string_lossy()], &[PASSWORD]);
    assert_eq!(output.code, Some(0), "{output:?}");
}

/// A supervisor's log reader that dies must not take a switchover with it.
#[test]
fn a_daemon_whose_log_nobody_reads_any_more_goes_on_and_can_be_stopped() {
    let (_dir, file) = write(&config().with("server.listen", "127.0.0.1:0").text());
    let mut daemon = serve_into_pipe(&file, &[PASSWORD]);
    let log = daemon.stderr.take().unwrap();
    let address = BufReader::new(log)
        .lines()
        .map_while(Result::ok)
        .find_map(|line| Some(line.split_once("listen=")?.1.split(' ').next()?.to_owned()))
        .unwrap();
    // The reader is closed by now.
    for _ in 0..3 {
        let mut stream = TcpStream::connect(&address).unwrap();
        let request = "POST /v1/migrations/shop/preflight HTTP/1.1\r\nHost: localhost\r\n\
                       Content-Length: 0\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 202"), "{answer:?}");
    }
    process::signal(daemon.id(), "TERM");
    let status = process::wait_for_end(&mut daemon, "the daemon", SOON);
    assert_eq!(status.code(), Some(0));
}

/// Checks a configuration and expects exit 64 with every word of `told` on standard error, and
/// never the password.
fn refused(text: &str, environment: &[(&str, &str)], told: &[&str]) {
    let (_dir, file) = write(text);
    let output = pgferry(&["check-config", &file.to_string_lossy()], environment);
    assert_eq!(output.code, Some(64), "{output:?}");
    for word in told {
        assert!(output.stderr.contains(word), "{word} is not in\n{}", output.stderr);
    }
    assert!(!output.stderr.contains(PASSWORD.1) && !output.stdout.contains(PASSWORD.1));
}

fn write(text: &str) -> (TempDir, PathBuf) {
    let dir = TempDir::new("config");
    let file = dir.path().join("pgferry.toml");
    std::fs::write(&file, text).unwrap();
    (dir, file)
}
