//! DSNs and passwords as a configuration names them.

use super::*;
use crate::Login;

const SECRET: &str = "hunter2";

fn node(source: &str) -> String {
    format!(
        "[migrations.orders.source]\n{source}\n[migrations.orders.destination]\ndsn = \"host=new dbname=orders user=pgferry\""
    )
}

#[track_caller]
fn check_source(source: &str, pairs: &[(&str, &str)], expected: &[&str]) {
    check(&node(source), pairs, expected);
    let seen = problems(&node(source), &env(pairs)).join("\n");
    assert!(!seen.contains(SECRET), "{seen}");
}

const DSN: &str = "dsn = \"host=old dbname=orders user=pgferry\"\n";

fn shown(login: &Login) -> String {
    login.dsn.to_conninfo(login.password.as_ref()).expose().to_owned()
}

#[test]
fn a_dsn_is_required_and_judged_whole() {
    check_source("", &[], &["migrations.orders.source.dsn: missing"]);
    check_source(
        "dsn = ''",
        &[],
        &["migrations.orders.source.dsn: a text that is not empty is expected"],
    );
    check_source(
        "dsn = 5",
        &[],
        &["migrations.orders.source.dsn: a text that is not empty is expected"],
    );
    check_source(
        "dsn = 'host=a,b sslmode=on pasword=hunter2 dbname=d user=u'",
        &[],
        &[
            "migrations.orders.source.dsn: \"sslmode\" is not a mode of libpq (one of disable, allow, prefer, require, verify-ca, verify-full)",
            "migrations.orders.source.dsn: it names several servers (a node is one server: name one)",
            "migrations.orders.source.dsn: unknown word (the nearest word of libpq is \"password\")",
        ],
    );
}

#[test]
fn a_password_does_not_belong_in_a_dsn() {
    for dsn in ["host=old dbname=d user=u password=hunter2", "postgresql://u:hunter2@old/d"] {
        check_source(
            &format!("dsn = '{dsn}'\npeer_dsn = '{dsn}'\nself_dsn = '{dsn}'"),
            &[],
            &[
                "migrations.orders.source.dsn: it contains a password (take it out of the DSN and name password_env or password_file)",
                "migrations.orders.source.peer_dsn: it contains a password",
                "migrations.orders.source.self_dsn: it contains a password",
            ],
        );
    }
}

#[test]
fn a_root_certificate_is_needed_where_pgferry_verifies() {
    let scratch = Scratch::new("root-cert");
    let bundle = scratch.file("ca.pem", "");
    let with =
        |key: &str, words: &str| format!("{key} = 'host=old dbname=orders user=u {words}'\n");
    check_source(&with("dsn", &format!("sslmode=verify-full sslrootcert={bundle}")), &[], &[]);
    check_source(&with("dsn", "sslmode=verify-full sslrootcert=system"), &[], &[]);
    check_source(
        &with("dsn", "sslmode=verify-ca"),
        &[],
        &["migrations.orders.source.dsn: sslmode=verify-ca without sslrootcert"],
    );
    check_source(
        &with("dsn", "sslrootcert=/no/such.pem"),
        &[],
        &[
            "migrations.orders.source.dsn: the file that its sslrootcert names cannot be read: No such file or directory (os error 2)",
        ],
    );
    // On the other machine, where nobody can look from here.
    let elsewhere = "sslmode=verify-full sslrootcert=/no/such.pem";
    check_source(
        &format!(
            "{}{}{}",
            with("dsn", ""),
            with("peer_dsn", elsewhere),
            with("self_dsn", elsewhere)
        ),
        &[],
        &[],
    );
}

#[test]
fn a_password_comes_from_a_variable() {
    let text = node(&format!("{DSN}password_env = 'P_1'"));
    let source = valid(&text, &[("P_1", SECRET)]).source;
    assert_eq!(source.login.password.unwrap().expose(), SECRET);
    for set in [&[][..], &[("P_1", "")][..]] {
        check_source(
            &format!("{DSN}password_env = 'P_1'"),
            set,
            &[
                "migrations.orders.source.password_env: the environment variable P_1 is missing or empty",
            ],
        );
    }
    check_source(
        &format!("{DSN}password_env = 'hunter2'"),
        &[],
        &[
            "migrations.orders.source.password_env: no environment variable has this name, or it is empty",
        ],
    );
}

#[test]
fn a_password_comes_from_a_file() {
    let scratch = Scratch::new("password-file");
    for (content, expected) in
        [("hunter2", SECRET), ("hunter2\n", SECRET), ("hunter2\r\n", SECRET), (" a b \n", " a b ")]
    {
        let file = scratch.file("password", content);
        let source = valid(&node(&format!("{DSN}password_file = '{file}'")), &[]).source;
        assert_eq!(source.login.password.unwrap().expose(), expected);
    }
    for content in ["", "\n", "hunter2\nhunter2"] {
        let file = scratch.file("password", content);
        check_source(
            &format!("{DSN}password_file = '{file}'"),
            &[],
            &[
                "migrations.orders.source.password_file: the password is empty, or has several lines or a NUL character",
            ],
        );
    }
    check_source(
        &format!("{DSN}password_file = '/no/such/hunter2'"),
        &[],
        &[
            "migrations.orders.source.password_file: the file cannot be read: No such file or directory (os error 2)",
        ],
    );
}

#[test]
fn a_password_comes_from_one_place_or_none() {
    let scratch = Scratch::new("both");
    let file = scratch.file("password", SECRET);
    check_source(
        &format!("{DSN}password_env = 'P_1'\npassword_file = '{file}'"),
        &[("P_1", SECRET)],
        &["migrations.orders.source.password_env: given together with password_file"],
    );
    let source = valid(MINIMAL, &[]).source;
    assert!(source.login.password.is_none() && source.peer.password.is_none());
}

#[test]
fn the_other_server_uses_what_the_daemon_uses_unless_it_is_told() {
    let source = valid(&node(&format!("{DSN}password_env = 'P'")), &[("P", SECRET)]).source;
    let login = shown(&source.login);
    assert_eq!(
        login,
        "host=old port=5432 dbname=orders user=pgferry sslmode=prefer password=hunter2"
    );
    assert_eq!((shown(&source.peer), shown(&source.own)), (login.clone(), login));

    let text = node(&format!(
        "{DSN}password_env = 'P'\npeer_dsn = 'host=inner dbname=orders user=pgferry'\nself_dsn = 'host=/tmp dbname=orders user=pgferry'"
    ));
    let source = valid(&text, &[("P", SECRET)]).source;
    assert_eq!(
        shown(&source.peer),
        "host=inner port=5432 dbname=orders user=pgferry sslmode=prefer password=hunter2"
    );
    assert_eq!(
        shown(&source.own),
        "host=/tmp port=5432 dbname=orders user=pgferry sslmode=prefer password=hunter2"
    );
}

#[test]
fn replication_may_have_a_role_of_its_own() {
    let peer = "password_env = 'P'\npeer_dsn = 'host=inner dbname=orders user=repl'\n";
    let set = [("P", SECRET), ("Q", "other")];
    let text = node(&format!("{DSN}{peer}peer_password_env = 'Q'"));
    let source = valid(&text, &set).source;
    assert_eq!(
        shown(&source.peer),
        "host=inner port=5432 dbname=orders user=repl sslmode=prefer password=other"
    );
    assert_eq!(
        shown(&source.own),
        "host=old port=5432 dbname=orders user=repl sslmode=prefer password=other"
    );

    // No password goes with the name of another role.
    let source = valid(&node(&format!("{DSN}{peer}")), &set).source;
    assert!(source.peer.password.is_none() && source.own.password.is_none());

    check_source(
        &format!("{DSN}peer_password_env = 'Q'"),
        &set,
        &["migrations.orders.source.peer_dsn: missing, although a password of its own is given"],
    );
}

#[test]
fn every_way_leads_to_the_same_database() {
    check_source(
        &format!(
            "{DSN}peer_dsn = 'host=inner dbname=other user=u'\nself_dsn = 'host=/tmp dbname=o user=u'"
        ),
        &[],
        &[
            "migrations.orders.source.peer_dsn: it names another database than dsn",
            "migrations.orders.source.self_dsn: it names another database than dsn",
        ],
    );
}

#[test]
fn a_configuration_prints_no_secret() {
    let config = parse(&node(&format!("{DSN}password_env = 'P'")), &env(&[("P", SECRET)])).unwrap();
    let text = format!("{config:?} {config:#?}");
    assert!(text.contains("[redacted]") && !text.contains(SECRET));
}
