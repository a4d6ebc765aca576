//! Everything but logins: keys, types, overrides, limits, what is not built yet.

use std::time::Duration;

use pgferry_plan::{Side, TableName};

use super::*;

#[test]
fn defaults_fill_what_is_not_said() {
    let config = parse(MINIMAL, &env(&[])).unwrap();
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:8432");
    assert!(config.journal.place.is_none());
    assert_eq!(config.journal.archive_dir, Path::new("."));
    let orders = &config.migrations[&"orders".parse().unwrap()];
    assert_eq!(orders.name.as_str(), "orders");
    assert!(!orders.autostart);
    assert_eq!(orders.heartbeat_interval, Duration::from_millis(100));
    assert_eq!(orders.poll_interval, Duration::from_secs(1));
    assert_eq!((orders.copy.jobs, orders.sequences.headroom), (4, 1000));
    assert_eq!(orders.cutover.max_lag, Duration::from_secs(1));
    assert_eq!(orders.cutover.stall_budget, Duration::from_secs(5));
    assert_eq!(orders.cutover.grace, Duration::from_millis(200));
    assert_eq!(orders.node(Side::Source).login.dsn.host(), "old");
    assert_eq!(orders.node(Side::Destination).login.dsn.host(), "new");
    assert!(orders.scope.schemas.is_none() && orders.fence.roles.is_none());
}

#[test]
fn what_is_not_toml_is_placed_and_not_repeated() {
    let text = "[server]\nlisten = 127.0.0.1:8432\n\ndsn = \"host=x password=hunter2\n";
    let seen = problems(text, &env(&[]));
    assert!(seen[0].starts_with("line 2, column "), "{seen:?}");
    assert!(seen.iter().any(|problem| problem.starts_with("line 4, ")), "{seen:?}");
    assert!(!seen.concat().contains("hunter2"), "{seen:?}");
    for text in [
        "password_file = hunter2",
        "dsn = 'a' hunter2",
        "dsn = \"a\\hunter2\"",
        "dsn = \"\"\"hunter2",
        "dsn = 2020hunter2",
        "dsn = hunter2 = 'b'",
        "hunter2",
        "[hunter2",
    ] {
        let seen = problems(text, &env(&[]));
        assert!(!seen.is_empty() && !seen.concat().contains("hunter2"), "{text}: {seen:?}");
    }
    let twice = problems("[server]\nlisten = 'a'\nlisten = 'b'", &env(&[]));
    assert_eq!((twice.len(), twice[0].starts_with("line 3, column 1: ")), (1, true), "{twice:?}");
}

#[test]
fn an_unknown_key_names_the_nearest() {
    check_added(
        "[migrations.orders]\nautostrat = true\npeer_dsn = 'x'\n[migrations.orders.copy]\njob = 2\n[journal]\nlisten = 'x'\n[serve]\na.b = 1",
        &[
            "journal.listen: unknown key (\"listen\" belongs in [server])",
            "migrations.orders.autostrat: unknown key (the nearest known key is \"autostart\")",
            "migrations.orders.copy.job: unknown key (the nearest known key is \"jobs\")",
            "migrations.orders.peer_dsn: unknown key (\"peer_dsn\" belongs in [migrations.orders.destination])",
            "serve: unknown key (the nearest known key is \"server\")",
        ],
    );
}

#[test]
fn two_mistakes_are_shown_at_once() {
    check_added(
        "[migrations.orders]\nautostart = 'yes'\npol_interval = '1s'",
        &[
            "migrations.orders.autostart: true or false is expected",
            "migrations.orders.pol_interval: unknown key (the nearest known key is \"poll_interval\")",
        ],
    );
}

#[test]
fn a_wrong_type_is_a_problem_of_its_key() {
    check(
        "server = 1\njournal = []\n[migrations]\na = 'x'\n[migrations.orders]\nsource = 'host=old'\ndestination = { dsn = 'host=new dbname=d user=u' }\nscope = 2020-01-01\ncopy = { jobs = '4', method = 1 }\nfence = { roles = 'a', exclude_roles = [1] }\nautostart = {}",
        &[],
        &[
            "journal: a section is expected, not array (write [journal])",
            "migrations.a: a section is expected, not string",
            "migrations.orders.autostart: true or false is expected",
            "migrations.orders.copy.jobs: a whole number from 1 to 64 is expected",
            "migrations.orders.copy.method: one of \"parallel\", \"pglogical\" is expected",
            "migrations.orders.fence.exclude_roles: a list of texts, none of them empty is expected",
            "migrations.orders.fence.roles: a list of texts, none of them empty is expected",
            "migrations.orders.scope: a section is expected, not datetime",
            "migrations.orders.source: a section is expected, not string",
            "server: a section is expected, not integer",
        ],
    );
}

#[test]
fn a_migration_is_needed_and_its_name_is_checked() {
    check("", &[], &["migrations: there is no migration"]);
    check("migrations = 1", &[], &["migrations: a section is expected, not integer"]);
    check(
        "[migrations.Orders.source]\n[migrations.'a.b']",
        &[],
        &[
            "migrations.\"a.b\": this cannot name a migration",
            "migrations.\"a.b\".destination.dsn: missing",
            "migrations.\"a.b\".source.dsn: missing",
            "migrations.Orders: this cannot name a migration",
            "migrations.Orders.destination.dsn: missing",
            "migrations.Orders.source.dsn: missing",
        ],
    );
}

#[test]
fn the_environment_overrides_and_adds() {
    let text = format!("{MINIMAL}[migrations.orders.copy]\njobs = 2\n");
    let orders = valid(
        &text,
        &[
            ("PGFERRY__MIGRATIONS__ORDERS__AUTOSTART", "true"),
            ("PGFERRY__MIGRATIONS__ORDERS__COPY__JOBS", "8"),
            ("PGFERRY__MIGRATIONS__ORDERS__POLL_INTERVAL", "250ms"),
            ("PGFERRY__MIGRATIONS__ORDERS__SOURCE__DSN", "host=env dbname=12 user=u"),
            ("PGFERRY__MIGRATIONS__ORDERS__SCOPE__SCHEMAS", "public, billing"),
            ("PGFERRY__MIGRATIONS__ORDERS__FENCE__ROLES", "[\"a,b\"]"),
            ("PGFERRY_URL", "http://localhost"),
            ("PGFERRY_TOKEN", "x"),
            ("PGFERRY_TEST_SOURCE_BIN", "x"),
            ("PATH", "x"),
        ],
    );
    assert!(orders.autostart);
    assert_eq!((orders.copy.jobs, orders.poll_interval), (8, Duration::from_millis(250)));
    assert_eq!(orders.source.login.dsn.host(), "env");
    assert_eq!(orders.scope.schemas.unwrap(), ["public", "billing"]);
    assert_eq!(orders.fence.roles.unwrap(), ["a,b"]);
}

#[test]
fn an_override_finds_a_name_with_underscores() {
    let named = |name: &str| MINIMAL.replace("migrations.orders", &format!("migrations.{name}"));
    let text = named("a__b") + &named("a").replace("dbname=orders", "dbname=other");
    let set = env(&[
        ("PGFERRY__MIGRATIONS__A__B__AUTOSTART", "true"),
        ("PGFERRY__MIGRATIONS__A__POLL_INTERVAL", "2s"),
    ]);
    let config = parse(&text, &set).unwrap();
    let of = |name: &str| &config.migrations[&name.parse().unwrap()];
    assert!(of("a__b").autostart && !of("a").autostart);
    assert_eq!(of("a").poll_interval, Duration::from_secs(2));
}

#[test]
fn an_override_without_a_place_is_a_problem() {
    check(
        MINIMAL,
        &[
            ("PGFERRY__MIGRATIONS__ORDERS__AUTOSTRAT", "true"),
            ("PGFERRY__MIGRATIONS__ORDERS__AUTOSTART", "maybe"),
            ("PGFERRY__MIGRATIONS__ORDRES__AUTOSTART", "true"),
            ("PGFERRY__MIGRATIONS__ORDERS__SOURCE", "host=x"),
            ("PGFERRY__MIGRATIONS__ORDERS__COPY", "parallel"),
            ("PGFERRY__MIGRATIONS__ORDERS__FENCE", "x"),
            ("PGFERRY__MIGRATIONS__ORDERS__FENCE__METHOD", "read_only"),
            ("PGFERRY__server__listen", "127.0.0.1:1"),
            ("PGFERRY__NONSENSE", "1"),
        ],
        &[
            "the variable PGFERRY__server__listen is not in upper case (write PGFERRY__SERVER__LISTEN)",
            "migrations.orders.autostart: true or false is expected, in PGFERRY__MIGRATIONS__ORDERS__AUTOSTART",
            "migrations.orders.autostrat: unknown key, set by PGFERRY__MIGRATIONS__ORDERS__AUTOSTRAT (the nearest known key is \"autostart\")",
            "migrations.orders.copy: a section is expected, not the text of PGFERRY__MIGRATIONS__ORDERS__COPY",
            "migrations.orders.fence: a section is expected, not the text of PGFERRY__MIGRATIONS__ORDERS__FENCE",
            "migrations.orders.fence.method: PGFERRY__MIGRATIONS__ORDERS__FENCE__METHOD and PGFERRY__MIGRATIONS__ORDERS__FENCE exclude each other",
            "migrations.orders.source: PGFERRY__MIGRATIONS__ORDERS__SOURCE names a section and not a key",
            "migrations.ordres: unknown migration, named by PGFERRY__MIGRATIONS__ORDRES__AUTOSTART (the nearest migration is \"orders\"; an override does not add one)",
            "nonsense: unknown key, set by PGFERRY__NONSENSE",
        ],
    );
}

#[test]
fn durations_have_units_and_limits() {
    for (key, bad) in [
        ("heartbeat_interval", "5ms"),
        ("heartbeat_interval", "2m"),
        ("heartbeat_interval", "-1s"),
        ("heartbeat_interval", "100"),
        ("poll_interval", "0s"),
        ("poll_interval", "1h"),
        ("poll_interval", "soon"),
    ] {
        check_added(
            &format!("[migrations.orders]\n{key} = '{bad}'"),
            &[&format!(
                "migrations.orders.{key}: a duration from 10ms to 1m is expected (write a number with its unit: \"100ms\", \"1s\", \"5m\")"
            )],
        );
    }
    check_added(
        "[migrations.orders.cutover]\nmax_lag = '2h'\nstall_budget = '0s'\ngrace = 1",
        &[
            "migrations.orders.cutover.grace: a duration from 0s to 10m is expected",
            "migrations.orders.cutover.max_lag: a duration from 1ms to 1h is expected",
            "migrations.orders.cutover.stall_budget: a duration from 1ms to 10m is expected",
        ],
    );
    check_added("[migrations.orders.cutover]\nstall_budget = '50ms'\ngrace = '0s'", &[]);
}

#[test]
fn lag_is_not_asked_to_be_below_the_heartbeat() {
    check_added(
        "[migrations.orders.cutover]\nmax_lag = '100ms'",
        &[
            "migrations.orders.cutover.max_lag: it must be above heartbeat_interval: lag cannot be seen to fall below that",
        ],
    );
    check_added("[migrations.orders.cutover]\nmax_lag = '101ms'", &[]);
}

#[test]
fn numbers_have_limits() {
    for (section, key, bad, range) in [
        ("copy", "jobs", "0", "1 to 64"),
        ("copy", "jobs", "65", "1 to 64"),
        ("sequences", "headroom", "0", "1 to 1000000000"),
        ("sequences", "headroom", "-5", "1 to 1000000000"),
        ("sequences", "headroom", "1.5", "1 to 1000000000"),
    ] {
        check_added(
            &format!("[migrations.orders.{section}]\n{key} = {bad}"),
            &[&format!(
                "migrations.orders.{section}.{key}: a whole number from {range} is expected"
            )],
        );
    }
}

#[test]
fn sizes_have_units_and_limits() {
    let copy = valid(
        &format!(
            "{MINIMAL}[migrations.orders.copy]\nmax_bytes_per_second = 65536\nmaintenance_work_mem = '512MB'\nmax_retained_wal = '100 GiB'\nsnapshot_grace = '1h'"
        ),
        &[("PGFERRY__MIGRATIONS__ORDERS__COPY__MAX_RETAINED_WAL", "17179869184")],
    )
    .copy;
    assert_eq!(copy.max_bytes_per_second, Some(65_536));
    assert_eq!(copy.maintenance_work_mem, Some(512 << 20));
    assert_eq!(copy.max_retained_wal, Some(16 << 30), "the variable, in bytes");
    assert_eq!(copy.snapshot_grace, Duration::from_secs(3600));

    let copy = valid(MINIMAL, &[]).copy;
    assert_eq!(copy.max_bytes_per_second.or(copy.maintenance_work_mem), None);
    assert_eq!(copy.max_retained_wal, None);
    assert_eq!(copy.snapshot_grace, Duration::from_secs(15 * 60));

    for (key, bad, range) in [
        ("max_bytes_per_second", "'63kB'", "64kB to 1TB"),
        ("max_bytes_per_second", "65535", "64kB to 1TB"),
        ("max_bytes_per_second", "-1", "64kB to 1TB"),
        ("max_bytes_per_second", "'50'", "64kB to 1TB"),
        ("max_bytes_per_second", "'50MB/s'", "64kB to 1TB"),
        ("max_bytes_per_second", "1.5", "64kB to 1TB"),
        ("maintenance_work_mem", "'512kB'", "1MB to 2147483647kB"),
        ("maintenance_work_mem", "'2TB'", "1MB to 2147483647kB"),
        ("max_retained_wal", "'8MB'", "16MB to 1024TB"),
        ("max_retained_wal", "'all of it'", "16MB to 1024TB"),
    ] {
        check_added(
            &format!("[migrations.orders.copy]\n{key} = {bad}"),
            &[&format!(
                "migrations.orders.copy.{key}: a size from {range} is expected (write a whole number with its unit: \"64kB\", \"512MB\", \"100GB\")"
            )],
        );
    }
    for bad in ["59s", "25h"] {
        check_added(
            &format!("[migrations.orders.copy]\nsnapshot_grace = '{bad}'"),
            &["migrations.orders.copy.snapshot_grace: a duration from 1m to 24h is expected"],
        );
    }
}

#[test]
fn what_is_not_built_yet_is_refused_by_name() {
    check_added(
        "[server]\ninsecure = true\ntls = { cert_file = 'x' }\n[[server.tokens]]\nname = 'ops'",
        &[
            "server.insecure: not built yet",
            "server.tls: not built yet",
            "server.tokens: not built yet",
        ],
    );
    check_added(
        "[migrations.orders.cutover]\nrequire_verification = false\n[server]\ninsecure = false",
        &[],
    );
}

#[test]
fn clients_that_know_both_hosts_are_never_locked_out() {
    let refused = "migrations.orders.fence.method: \"no_login\" goes with no traffic method \"multi_host\": a client does not go on to the next host when its login is refused (use \"read_only\", or set traffic.method to \"pgbouncer\", \"command\" or \"webhook\")";
    let no_login = "[migrations.orders.fence]\nmethod = 'no_login'\n";
    check_added(no_login, &[refused]);
    check_added(
        &format!("{no_login}[migrations.orders.traffic]\nmethod = 'multi_host'"),
        &[refused],
    );
    check_added(
        &format!(
            "{no_login}[migrations.orders.traffic]\nmethod = 'command'\nafter_line = ['/bin/sh']"
        ),
        &[],
    );
}

#[test]
fn the_listener_stays_on_loopback() {
    for listen in ["127.0.0.1:0", "127.8.8.8:80", "[::1]:8432"] {
        check_added(&format!("[server]\nlisten = '{listen}'"), &[]);
    }
    for listen in ["0.0.0.0:8432", "10.0.0.1:8432", "[::]:8432"] {
        check_added(
            &format!("[server]\nlisten = '{listen}'"),
            &["server.listen: only a loopback address is taken, because tokens are not built yet"],
        );
    }
    for listen in ["localhost:8432", ":8432", "127.0.0.1"] {
        check_added(
            &format!("[server]\nlisten = '{listen}'"),
            &["server.listen: an IP address with a port is expected"],
        );
    }
}

#[test]
fn a_database_takes_part_once() {
    let two = |source: &str, destination: &str| {
        format!(
            "[migrations.b]\nsource.dsn = 'user=u {source}'\ndestination.dsn = 'user=v {destination}'\n"
        )
    };
    check(
        &two("host=Old. dbname=d", "host=old port=5432 dbname=d"),
        &[],
        &["migrations.b.destination.dsn: source and destination are the same database"],
    );
    check(
        &two("host=a hostaddr=10.0.0.1 dbname=d", "host=10.0.0.1 dbname=d"),
        &[],
        &["migrations.b.destination.dsn: source and destination are the same database"],
    );
    check(&two("host=/tmp dbname=d", "host=/TMP dbname=d"), &[], &[]);
    check(&two("host=old dbname=d", "host=old dbname=e"), &[], &[]);
    check(&two("host=old dbname=d", "host=old dbname=d port=6000"), &[], &[]);
    check_added(
        &two("host=new dbname=orders", "host=newer dbname=orders"),
        &["migrations.orders.destination.dsn: migrations.b.source.dsn names the same database"],
    );
    // Seen although the migration has another mistake.
    check_added(
        &format!("{}copy.jobs = 0", two("host=new dbname=orders", "host=newer dbname=orders")),
        &[
            "migrations.b.copy.jobs: a whole number from 1 to 64 is expected",
            "migrations.orders.destination.dsn: migrations.b.source.dsn names the same database",
        ],
    );
}

#[test]
fn tables_are_named_with_their_schema() {
    let text = format!(
        "{MINIMAL}[migrations.orders.scope]\nschemas = ['public', 'My Schema']\nexclude_tables = ['public.a', '\"My Schema\".\"T\"']\ninsert_only = ['public.events']"
    );
    let scope = valid(&text, &[]).scope;
    assert_eq!(scope.schemas.unwrap(), ["public", "My Schema"]);
    assert_eq!(
        scope.exclude_tables,
        [TableName::new("public", "a"), TableName::new("My Schema", "T")]
    );
    assert_eq!(scope.insert_only, [TableName::new("public", "events")]);
    check_added(
        "[migrations.orders.scope]\nexclude_tables = ['audit_log', 'public.Audit']\ninsert_only = ['a.b.c']",
        &[
            "migrations.orders.scope.exclude_tables: \"audit_log\" is not a table: a table is written schema.table",
            "migrations.orders.scope.exclude_tables: \"public.Audit\" is not a table: a name that is not all lower-case letters, digits, \"_\" and \"$\" must be in double quotes",
            "migrations.orders.scope.insert_only: \"a.b.c\" is not a table: a table is written schema.table",
        ],
    );
}

#[test]
fn scope_does_not_contradict_itself() {
    check_added(
        "[migrations.orders.scope]\nschemas = ['public', 'pg_catalog', 'pgferry']\nexclude_tables = ['public.a']\ninsert_only = ['public.\"a\"', 'other.b']",
        &[
            "migrations.orders.scope.insert_only: other.b is in none of the schemas in scope",
            "migrations.orders.scope.insert_only: public.a is named in exclude_tables as well",
            "migrations.orders.scope.schemas: \"pg_catalog\" belongs to PostgreSQL, pglogical or pgferry",
            "migrations.orders.scope.schemas: \"pgferry\" belongs to PostgreSQL, pglogical or pgferry",
        ],
    );
    check_added(
        "[migrations.orders.scope]\nschemas = []",
        &["migrations.orders.scope.schemas: no schema is named"],
    );
}

#[test]
fn a_role_is_fenced_or_not() {
    check_added(
        "[migrations.orders.fence]\nroles = ['app', 'batch']\nexclude_roles = ['batch']",
        &["migrations.orders.fence.roles: \"batch\" is named in exclude_roles as well"],
    );
    check_added(
        "[migrations.orders.fence]\nroles = []",
        &["migrations.orders.fence.roles: no role is named"],
    );
}

#[test]
fn tools_and_archive_are_where_they_are_said_to_be() {
    let scratch = Scratch::new("tools");
    let file = scratch.file("pg_dump", "");
    check_added(
        &format!(
            "[migrations.orders.schema]\npg_bindir = '{}'\n[journal]\narchive_dir = '{file}'",
            scratch.0.display()
        ),
        &[
            "journal.archive_dir: this is a file and not a directory",
            "migrations.orders.schema.pg_bindir: there is no pg_restore in this directory",
        ],
    );
}

#[test]
fn the_journal_may_have_a_place_of_its_own() {
    let text = format!("{MINIMAL}[journal]\ndsn = 'host=j dbname=j user=j'\npassword_env = 'J'");
    let place = parse(&text, &env(&[("J", "x")])).unwrap().journal.place.unwrap();
    assert_eq!((place.dsn.host(), place.password.unwrap().expose()), ("j", "x"));
    check(
        &format!("{MINIMAL}[journal]\npassword_env = 'J'\n"),
        &[("J", "x")],
        &["journal.dsn: missing, although a password is given"],
    );
    check(
        &format!("{MINIMAL}[journal]\npassword_file = 5\n"),
        &[],
        &["journal.password_file: a text that is not empty is expected"],
    );
}
