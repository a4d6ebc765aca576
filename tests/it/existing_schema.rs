//! A destination that has its schema already: taken when it is the source's, refused when it is
//! not, and the same afterwards.

use pgferry_plan::Side;
use pgferry_tests::config::migration;
use pgferry_tests::{ConfigFile, DATABASE, Daemon, Ledger, Pair, Profile, content, leftovers};

use crate::settled::{SOON, assert_whole, order_and_die};

const SCHEMA: &str = include_str!("existing_schema.sql");

/// Everything that is set aside, and what could be lost of it: definition, state and comment.
const DEFINITIONS: [&str; 4] = [
    "SELECT conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid) || ' '
            || convalidated || ' ' || coalesce(obj_description(oid, 'pg_constraint'), '-')
       FROM pg_constraint WHERE connamespace::regnamespace::text IN ('shelf', 'store', 'bank')
      ORDER BY 1",
    "SELECT pg_get_triggerdef(oid) || ' ' || tgenabled::text || ' '
            || coalesce(obj_description(oid, 'pg_trigger'), '-')
       FROM pg_trigger WHERE NOT tgisinternal AND tgname NOT LIKE 'queue_truncate%' ORDER BY 1",
    "SELECT pg_get_indexdef(indexrelid) || ' ' || indisvalid FROM pg_index
      WHERE indrelid >= 16384 AND indrelid::regclass::text ~ '^(shelf|store|bank)\\.' ORDER BY 1",
    "SELECT matviewname || ' ' || ispopulated || ' ' || definition FROM pg_matviews ORDER BY 1",
];

fn definitions(pair: &Pair, side: Side) -> Vec<String> {
    let session = pair.admin(side);
    let of = |query: &&str| session.column(query);
    let all: Vec<String> = DEFINITIONS.iter().flat_map(of).collect();
    assert!(all.len() > 40, "the test sees too little: {all:#?}");
    all
}

/// Two servers with the same schema, the one with rows and the other without.
fn pair_with_schema() -> Pair {
    let pair = Pair::with_bank();
    pair.load_store();
    pair.load(SCHEMA);
    take_schema(&pair);
    pair
}

fn take_schema(pair: &Pair) {
    let structure = content::structure(&pair.source, &pair.source);
    pair.destination.sql(DATABASE, &structure);
    pair.destination.sql(DATABASE, "REFRESH MATERIALIZED VIEW shelf.counted");
}

fn config(pair: &Pair) -> ConfigFile {
    ConfigFile::for_pair(pair)
        .insert_only(&["bank.ledger_keyless", "store.visits"])
        .with(&migration("schema.mode"), "existing")
}

#[test]
fn a_schema_that_is_there_is_taken_and_comes_out_as_it_was() {
    let pair = pair_with_schema();
    let before = definitions(&pair, Side::Destination);
    if pair.same_major() {
        assert_eq!(before, definitions(&pair, Side::Source), "the test's own schemas differ");
    }
    // Only there, and nobody's business; and one that costs and refuses nothing.
    pair.destination.sql(
        DATABASE,
        "CREATE SCHEMA apart; CREATE TABLE apart.own (id int); INSERT INTO apart.own VALUES (1);
         SET ROLE owner; CREATE INDEX extra ON shelf.late (amount)",
    );
    let left = Side::BOTH.map(|side| leftovers::inventory(pair.cluster(side)));
    let daemon = Daemon::start(&config(&pair).with(
        &migration("scope.schemas"),
        ["bank", "shelf", "store"].map(toml::Value::from).to_vec(),
    ));
    let mut ledger = Ledger::over(&pair);
    daemon.bring_to_ready();
    let preflight = daemon.get("/v1/migrations/shop/preflight").body.to_string();
    assert!(!preflight.contains("schema_differs"), "{preflight}");

    pair.destination.sql(DATABASE, "DROP TABLE apart.own; DROP INDEX shelf.extra");
    assert_eq!(definitions(&pair, Side::Destination), before);
    assert_whole(&pair, &ledger, Side::Source);
    let counted = pair.admin(Side::Destination).number("SELECT n FROM shelf.counted");
    assert_eq!(counted, 300, "the materialized view holds what it held before the rows came");

    daemon.succeed("cutover");
    assert_whole(&pair, &ledger, Side::Destination);
    // From now on it is the application's own, and the end must not bring it back.
    pair.destination.sql(DATABASE, "DROP TRIGGER always ON shelf.leaf");
    daemon.succeed("finish");
    ledger.stop();
    let there: Vec<String> = definitions(&pair, Side::Destination);
    assert!(!there.iter().any(|definition| definition.contains("TRIGGER always")), "{there:#?}");
    for (side, before) in Side::BOTH.into_iter().zip(&left) {
        assert_eq!(leftovers::since(before, pair.cluster(side)), Vec::<String>::new(), "{side}");
    }
}

/// One change to the destination, and what of it the refusal names.
const DIFFERENCES: [(&str, &str, &str); 8] = [
    ("INSERT INTO shelf.leaf DEFAULT VALUES", "destination_not_empty", "shelf.leaf"),
    ("DROP INDEX store.orders_customer_id_idx", "schema_differs", "orders_customer_id_idx"),
    ("ALTER TABLE shelf.late DROP CONSTRAINT late_parent", "schema_differs", "late_parent"),
    ("ALTER TABLE shelf.leaf ENABLE TRIGGER switched_off", "schema_differs", "switched_off"),
    (
        "CREATE TRIGGER own BEFORE INSERT ON shelf.leaf FOR EACH ROW EXECUTE FUNCTION shelf.pass()",
        "schema_differs",
        "trigger own of shelf.leaf is only on the destination",
    ),
    ("ALTER TABLE store.visits ALTER page TYPE varchar", "columns_differ", "store.visits"),
    (
        "ALTER TABLE store.audit DROP CONSTRAINT audit_pkey, ADD PRIMARY KEY (id, order_id)",
        "keys_differ",
        "store.audit",
    ),
    (
        "CREATE TABLE public.own (id int REFERENCES shelf.late)",
        "foreign_keys_from_outside",
        "own_id_fkey of public.own",
    ),
];

#[test]
fn a_schema_that_differs_is_refused_with_the_difference_named() {
    let pair = pair_with_schema();
    let owner = pair.admin(Side::Destination);
    owner.run("SET ROLE owner");
    // Each alone is enough; together one refusal names them all.
    owner.run("ALTER TABLE shelf.leaf ALTER id SET DEFAULT 0, DROP CONSTRAINT leaf_split");
    owner.run("ALTER TABLE shelf.late DISABLE TRIGGER USER");
    for (statement, _, _) in DIFFERENCES {
        owner.run(statement);
    }
    let before = definitions(&pair, Side::Destination);
    let daemon = Daemon::start(&config(&pair).with(
        &migration("scope.schemas"),
        ["bank", "shelf", "store"].map(toml::Value::from).to_vec(),
    ));
    let refused = daemon.order("start");
    assert_eq!(refused.status, 409, "{}", refused.body);
    let body = refused.body.to_string();
    for (statement, code, named) in DIFFERENCES {
        assert!(body.contains(code), "{statement}: {code}: {body}");
        assert!(body.contains(named), "{statement}: {named}: {body}");
    }
    assert_eq!(definitions(&pair, Side::Destination), before, "a refusal changes nothing");
    assert_eq!(owner.number("SELECT count(*) FROM shelf.leaf"), 1);
}

#[test]
fn a_copy_that_is_given_up_leaves_the_schema_as_it_was_or_says_what_is_missing() {
    let pair = pair_with_schema();
    pair.load_pgbench(15);
    let pgbench = "pgbench_accounts pgbench_branches pgbench_tellers pgbench_history";
    let structure = content::structure(&pair.source, &pair.source);
    let tables: Vec<&str> = structure
        .split_inclusive(';')
        .filter(|s| pgbench.split(' ').any(|t| s.contains(t)))
        .collect();
    pair.destination.sql(DATABASE, &tables.concat());
    let before = definitions(&pair, Side::Destination);
    let keyless = ["bank.ledger_keyless", "store.visits", "public.pgbench_history"];
    let daemon = Daemon::start(&config(&pair).insert_only(&keyless));
    assert_eq!(daemon.order("start").status, 202);
    daemon.wait_until("the copy to run", |m| m["step"] == "copy_rows");
    assert_ne!(definitions(&pair, Side::Destination), before, "nothing was set aside");

    let operation = daemon.carry_out("abandon");
    assert_eq!(operation["state"], "succeeded", "{operation}");
    let remains = operation.to_string();
    let after = definitions(&pair, Side::Destination);
    for definition in before.iter().filter(|definition| !after.contains(definition)) {
        // A foreign key may be refused by rows whose table was not copied yet; nothing else may.
        let name = definition.split('"').nth(1).or(definition.split(' ').nth(1)).unwrap();
        assert!(definition.contains("FOREIGN KEY"), "not put back: {definition}\n{remains}");
        assert!(remains.contains(name), "neither put back nor named: {definition}\n{remains}");
    }
    let schema = "SELECT count(*) FROM pg_namespace WHERE nspname = 'pgferry'";
    assert_eq!(pair.admin(Side::Source).number(schema), 0);
    assert!(pair.is_open(Side::Source));
}

#[test]
fn a_daemon_that_is_killed_while_the_schema_is_quiet_restores_it_all_the_same() {
    let pair = pair_with_schema();
    let before = definitions(&pair, Side::Destination);
    let mut daemon = Daemon::prepare(&config(&pair), Profile::Test);
    let ledger = Ledger::over(&pair);
    let points =
        ["before_effect:copy_schema", "after_effect:copy_schema", "after_effect:build_indexes"];
    for (index, point) in points.into_iter().enumerate() {
        daemon.serve_until(point);
        if index == 0 {
            order_and_die(&daemon, "start");
        }
        let _ = daemon.wait_for_end(SOON);
    }
    daemon.serve();
    daemon.wait_for_phase("ready");
    assert_eq!(definitions(&pair, Side::Destination), before);
    assert_whole(&pair, &ledger, Side::Source);
}
