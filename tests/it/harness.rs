//! The harness itself: a test that leans on it must be able to trust it.

use std::time::Duration;

use pgferry_plan::Side;
use pgferry_tests::pair::PGFERRY_PASSWORD;
use pgferry_tests::{
    Cluster, ClusterOptions, DATABASE, Ledger, LedgerOptions, Pair, PairOptions, Shutdown, content,
};

const SOON: Duration = Duration::from_secs(20);

#[test]
fn a_server_starts_from_its_template_and_survives_a_crash() {
    let mut cluster = Cluster::start(Side::Source, &ClusterOptions::default());
    let started = std::time::Instant::now();
    cluster.sql("postgres", "CREATE TABLE kept (id int); INSERT INTO kept VALUES (7)");
    cluster.restart(Shutdown::Immediate);
    assert_eq!(cluster.admin("postgres").value("SELECT id FROM kept").as_deref(), Some("7"));
    cluster.restart(Shutdown::Fast);
    assert_eq!(cluster.admin("postgres").value("SHOW wal_level").as_deref(), Some("logical"));
    assert!(started.elapsed() < SOON, "restarts took {:?}", started.elapsed());
}

#[test]
fn the_daemons_role_is_what_a_managed_server_gives() {
    let pair = Pair::start(PairOptions::default());
    let admin = pair.admin(Side::Destination);
    let attributes = admin.rows(
        "SELECT rolsuper, rolreplication, rolcreaterole, rolbypassrls FROM pg_roles
          WHERE rolname = 'pgferry'",
    );
    let texts: Vec<&str> = attributes[0].iter().flatten().map(String::as_str).collect();
    assert_eq!(texts, ["f", "t", "t", "f"]);
    assert_eq!(
        admin.value(
            "SELECT has_function_privilege('public',
                    'pglogical.create_node(name, text)', 'execute')"
        ),
        Some("f".to_owned())
    );
}

#[test]
fn the_daemons_role_may_do_what_a_migration_needs() {
    let pair = Pair::with_bank();
    let [source, destination] = Side::BOTH.map(|side| pair.pgferry_on(side));
    let dsn = |side| format!("{} password={PGFERRY_PASSWORD}", pair.dsn(side));
    for (side, session) in [(Side::Source, &source), (Side::Destination, &destination)] {
        session.run(&format!("SELECT pglogical.create_node('{side}', '{}')", dsn(side)));
        session.run(&format!(
            "ALTER ROLE app IN DATABASE {DATABASE} SET default_transaction_read_only = on;
             ALTER ROLE app IN DATABASE {DATABASE} RESET default_transaction_read_only"
        ));
    }
    source.run(
        "SELECT pglogical.create_replication_set('probe');
         SELECT pglogical.replication_set_add_table('probe', 'bank.ledger');
         SELECT setval('bank.ledger_number_seq', 7)",
    );
    // Reaches the peer and itself from inside the server, and leaves nothing. The session ends
    // there: pglogical keeps the signal it meant to send in freed memory, and the next commit of
    // that session ends the whole server with a segmentation fault (seen with 2.4.2).
    pair.pgferry_on(Side::Destination).run(&format!(
        "BEGIN;
         SELECT pglogical.create_subscription('probe', '{}', '{{probe}}', false, false, '{{}}');
         ROLLBACK",
        dsn(Side::Source)
    ));
    destination.run(
        "SELECT pg_replication_origin_create('probe');
         SELECT pg_replication_origin_advance('probe', '0/1');
         SELECT pg_replication_origin_drop('probe');
         CREATE SCHEMA made AUTHORIZATION owner",
    );
    assert_eq!(destination.number("SELECT count(*) FROM pglogical.subscription"), 0);
}

#[test]
fn an_application_lands_on_the_open_side_whichever_is_named_first() {
    let pair = Pair::with_bank();
    pair.source.sql(
        DATABASE,
        &format!("ALTER ROLE app IN DATABASE {DATABASE} SET default_transaction_read_only = on"),
    );
    let session = pgferry_tests::Session::connect(&pair.app_config()).unwrap();
    let port = session.value("SHOW port").unwrap();
    assert_eq!(port, pair.destination.port().to_string());
    assert!(!pair.is_open(Side::Source));
}

#[test]
fn the_ledger_finds_what_is_lost_doubled_and_torn() {
    let pair = Pair::with_bank();
    let mut ledger = Ledger::start(
        &pair,
        LedgerOptions { writers: 3, pause: Duration::ZERO, ..LedgerOptions::SLOW },
    );
    ledger.wait_for_writes(20, SOON);
    ledger.hold();
    ledger.check(&pair.source).assert_clean();
    let held = ledger.acknowledged();
    ledger.resume();
    ledger.wait_for_writes(5, SOON);
    ledger.stop();
    assert!(ledger.acknowledged() > held);

    pair.source.sql(
        DATABASE,
        "
        DELETE FROM bank.ledger WHERE client = 0 AND seq = 1;
        DELETE FROM bank.ledger_keyless WHERE client = 0 AND seq = 1;
        DELETE FROM bank.ledger_keyless WHERE client = 1 AND seq = 1;
        INSERT INTO bank.ledger_keyless VALUES (2, 1);
        UPDATE bank.balances SET amount = amount + 3 WHERE account = 1",
    );
    let report = ledger.check(&pair.source);
    assert_eq!((report.lost, report.duplicated, report.torn, report.balance_off), (2, 1, 1, 3));
}

#[test]
fn the_ledgers_clients_come_back_after_a_crash_of_the_server() {
    let mut pair = Pair::with_bank();
    // Open and empty, it would take in the clients while the source is away.
    pair.close(Side::Destination);
    let mut ledger = Ledger::over(&pair);
    ledger.wait_for_writes(5, SOON);
    pair.source.restart(Shutdown::Immediate);
    ledger.wait_for_writes(5, SOON);
    ledger.stop();
    let report = ledger.check(&pair.source);
    // fsync is off and the machine did not stop, so even this loses nothing.
    report.assert_clean();
    assert!(!ledger.errors().is_empty(), "the crash went unnoticed");
}

#[test]
fn contents_differ_by_one_row_that_is_there_twice() {
    let pair = Pair::with_bank();
    for side in Side::BOTH {
        pair.cluster(side).sql(DATABASE, "CREATE TABLE public.t (a int, b numeric)");
        pair.cluster(side).sql(DATABASE, "INSERT INTO t VALUES (1, 1.0), (2, NULL)");
    }
    let bank: Vec<String> = content::differences(&pair.source, &pair.destination);
    assert_eq!(bank.len(), 3, "the bank is on one side only: {bank:?}");
    pair.source.sql(DATABASE, "INSERT INTO t VALUES (1, 1.0), (2, NULL)");
    assert_eq!(content::differences(&pair.source, &pair.destination).len(), 4);
    pair.destination.sql(DATABASE, "INSERT INTO t VALUES (1, 1.0), (2, NULL)");
    assert_eq!(content::differences(&pair.source, &pair.destination).len(), 3);
    pair.source.sql(DATABASE, "UPDATE t SET b = 1.00 WHERE b = 1.0");
    assert_eq!(content::differences(&pair.source, &pair.destination).len(), 4);
}

#[test]
fn with_tls_the_daemons_role_is_refused_without_it() {
    let pair = Pair::start(PairOptions { tls: true, ..PairOptions::default() });
    assert!(pair.dsn(Side::Source).contains("sslmode=verify-full"));
    let psql = |dsn: String| {
        let mut command = std::process::Command::new(pair.source.bin().join("psql"));
        command.env("PGPASSWORD", pgferry_tests::pair::PGFERRY_PASSWORD).args(["-Atc", "SELECT 1"]);
        command.arg("-d").arg(dsn).output().unwrap()
    };
    assert!(psql(pair.dsn(Side::Source)).status.success());
    let plain = pair.dsn(Side::Source).replace("verify-full", "disable");
    assert!(!psql(plain).status.success());
}

#[test]
fn the_stores_traffic_runs_as_the_application() {
    let pair = Pair::start(PairOptions::default());
    pair.load_store();
    pair.load_pgbench(1);
    let app = pair.app_on(Side::Source).unwrap();
    for _ in 0..3 {
        app.run(pgferry_tests::pair::STORE_TRAFFIC);
    }
    let owned = "SELECT count(*) FROM pg_tables WHERE schemaname IN ('public', 'store')
                  AND tableowner <> 'owner'";
    assert_eq!(pair.admin(Side::Source).number(owned), 0);
    assert_eq!(content::table_count(&pair.source), 12);
    assert!(content::structure(&pair.source, &pair.source).contains("CREATE TRIGGER note_status"));
}
