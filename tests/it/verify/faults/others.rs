//! Faults in what is no row: sequences, large objects, definitions, owners and privileges.

use super::{Fault, other};

/// Faults in what is no row.
pub(super) fn faults() -> Vec<Fault> {
    [sequences(), large_objects(), definitions(), privileges()].into_iter().flatten().collect()
}

/// What is defined otherwise comes first: while a definition differs, upkeep sets no value right.
fn sequences() -> Vec<Fault> {
    let one = |sql: &str, name: &str, says: &str| {
        let wanted = other("sequence", name, "different", says);
        Fault::new("sequence", sql, vec![wanted])
    };
    vec![
        one("ALTER SEQUENCE plant.s4 INCREMENT 2", "plant.s4", "increment"),
        one("ALTER SEQUENCE plant.s5 CYCLE", "plant.s5", "cycle"),
        one("ALTER SEQUENCE plant.s6 MAXVALUE 1000", "plant.s6", "bounds"),
        one("SELECT setval('plant.s1', 499)", "plant.s1", "behind the active side's 500"),
        one("SELECT setval('plant.s2', 1, false)", "plant.s2", "behind the active side's 500"),
        one("SELECT setval('plant.down', -499)", "plant.down", "behind the active side's -500"),
        one("SELECT setval('plant.numbered_id_seq', 3)", "plant.numbered_id_seq", "behind"),
        one("DROP SEQUENCE plant.s3", "plant.s3", "not on the passive side"),
    ]
}

fn large_objects() -> Vec<Fault> {
    let one = |sql: &str, oid: u32, wrong: &str| {
        let wanted = other("large_object", &format!("large object {oid}"), wrong, "");
        Fault::new("large object", sql, vec![wanted])
    };
    let mut faults = vec![
        one("SELECT lo_put(70001, 0, 'y')", 70001, "different"),
        one("SELECT lo_put(70002, 120, 'y')", 70002, "different"),
        one("SELECT lo_put(70003, 181, 'y')", 70003, "different"),
        one("SELECT lo_truncate(lo_open(70004, 131072), 240)", 70004, "different"),
        one("SELECT lo_truncate(lo_open(70005, 131072), 0)", 70005, "different"),
        one("SELECT lo_unlink(70006)", 70006, "missing"),
        one("SELECT lo_create(70099)", 70099, "extra"),
        one("SELECT lo_put(70020, 2000012, 'd')", 70020, "different"),
        one("SELECT lo_put(70021, 0, '\\x00')", 70021, "different"),
    ];
    let both = [70007, 70008]
        .map(|oid| other("large_object", &format!("large object {oid}"), "different", ""));
    faults.push(Fault::new(
        "large object",
        "WITH held AS MATERIALIZED (SELECT lo_get(70007) AS a, lo_get(70008) AS b) \
         SELECT lo_put(70007, 0, b), lo_put(70008, 0, a), \
                lo_truncate(lo_open(70008, 131072), length(a)) FROM held",
        both.to_vec(),
    ));
    faults
}

/// What is done, whose definition that is, words of what is told.
const DEFINITIONS: &[(&str, &str, &str)] = &[
    ("ALTER TABLE plant.d1 ALTER a SET DEFAULT 8", "the default of plant.d1.a", "otherwise"),
    ("ALTER TABLE plant.d2 ALTER a DROP DEFAULT", "the default of plant.d2.a", "not on the dest"),
    (
        "ALTER TABLE plant.d3 ALTER b SET DEFAULT ''",
        "the default of plant.d3.b",
        "not on the source",
    ),
    (
        "ALTER TABLE plant.d4 DROP CONSTRAINT d4_small",
        "plant.d4",
        "d4_small of plant.d4 is missing",
    ),
    (
        "ALTER TABLE plant.d5 DROP CONSTRAINT d5_small; \
         ALTER TABLE plant.d5 ADD CONSTRAINT d5_small CHECK (a < 1000) NOT VALID",
        "plant.d5",
        "d5_small of plant.d5 is \"not validated\"",
    ),
    (
        "ALTER TABLE plant.d6 DROP CONSTRAINT d6_small; \
         ALTER TABLE plant.d6 ADD CONSTRAINT d6_small CHECK (a < 1001)",
        "plant.d6",
        "d6_small of plant.d6 is defined otherwise",
    ),
    (
        "ALTER TABLE plant.d7 ADD CONSTRAINT d7_more CHECK (a < 900)",
        "plant.d7",
        "d7_more of plant.d7 is extra",
    ),
    ("DROP INDEX plant.d8_a", "plant.d8", "index d8_a of plant.d8 is missing"),
    (
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'plant.d9_a'::regclass",
        "plant.d9",
        "index d9_a of plant.d9 is not valid",
    ),
    (
        "DROP INDEX plant.d10_a; CREATE INDEX d10_a ON plant.d10 (b)",
        "plant.d10",
        "index d10_a of plant.d10 is defined otherwise",
    ),
    (
        "CREATE UNIQUE INDEX d11_b ON plant.d11 (id, b)",
        "plant.d11",
        "index d11_b of plant.d11 is extra",
    ),
    (
        "ALTER TABLE plant.d12 DISABLE TRIGGER note",
        "plant.d12",
        "trigger note of plant.d12 is \"D\"",
    ),
    ("ALTER TABLE plant.d13 ENABLE ALWAYS TRIGGER note", "plant.d13", "note of plant.d13 is \"A\""),
    ("DROP TRIGGER note ON plant.d14", "plant.d14", "trigger note of plant.d14 is missing"),
    ("ALTER TABLE plant.d15 ALTER a DROP NOT NULL", "plant.d15", "columns differ: a is"),
    ("ALTER TABLE plant.d16 ADD c int", "plant.d16", "c is only on the destination"),
    ("ALTER TABLE plant.d17 ALTER b TYPE varchar(90)", "plant.d17", "columns differ: b is"),
    ("ALTER TABLE plant.d18 ALTER a TYPE bigint", "plant.d18", "columns differ: a is"),
    ("ALTER TABLE plant.d19 ALTER b TYPE text COLLATE \"C\"", "plant.d19", "columns differ: b is"),
    (
        "ALTER TABLE plant.d20 DROP CONSTRAINT d20_parent",
        "plant.d20",
        "d20_parent of plant.d20 is missing",
    ),
    (
        "ALTER TABLE plant.d22 DISABLE ROW LEVEL SECURITY",
        "plant.d22",
        "row security of plant.d22 is missing",
    ),
    (
        "DROP POLICY own ON plant.d23; CREATE POLICY own ON plant.d23 USING (false)",
        "plant.d23",
        "policy own of plant.d23 is defined otherwise",
    ),
    ("ALTER TABLE plant.d24 NO FORCE ROW LEVEL SECURITY", "plant.d24", "on the source \"forced\""),
    ("DROP RULE quiet ON plant.d25", "plant.d25", "rule quiet of plant.d25 is missing"),
    ("DROP STATISTICS plant.d26_stats", "plant.d26", "d26_stats of plant.d26 is missing"),
    (
        "CREATE OR REPLACE VIEW plant.seen AS SELECT id + 0 AS id FROM plant.d27",
        "plant.seen",
        "view of plant.seen is defined otherwise",
    ),
    (
        "REFRESH MATERIALIZED VIEW plant.kept WITH NO DATA",
        "plant.kept",
        "content of materialized view",
    ),
    ("ALTER TABLE plant.d29 SET UNLOGGED", "plant.d29", "unlogged on the destination alone"),
    (
        "CREATE OR REPLACE FUNCTION plant.answer() RETURNS int LANGUAGE plpgsql \
         AS 'BEGIN RETURN 43; END'",
        "function plant.answer()",
        "otherwise",
    ),
    ("ALTER TYPE plant.state ADD VALUE 'lost' BEFORE 'done'", "type plant.state", "otherwise"),
    ("ALTER DOMAIN plant.amount DROP CONSTRAINT amount_check", "type plant.amount", "otherwise"),
    (
        "ALTER TABLE plant.numbered ALTER id SET GENERATED BY DEFAULT",
        "plant.numbered",
        "columns differ: id is",
    ),
];

fn definitions() -> Vec<Fault> {
    DEFINITIONS
        .iter()
        .map(|(sql, object, says)| {
            let wanted = other("definition", object, "different", says);
            Fault::new("definition", *sql, vec![wanted])
        })
        .collect()
}

/// Told, and no reason against a cutover.
const PRIVILEGES: &[(&str, &str)] = &[
    ("GRANT SELECT ON plant.d31 TO pgferry; ALTER TABLE plant.d31 OWNER TO reader", "plant.d31"),
    ("REVOKE UPDATE ON plant.d32 FROM app", "plant.d32"),
    ("GRANT SELECT ON plant.d33 TO reader", "plant.d33"),
    ("REVOKE USAGE ON SEQUENCE plant.s5 FROM app", "sequence plant.s5"),
    ("REVOKE USAGE ON SCHEMA plant FROM reader", "schema plant"),
    ("REVOKE SELECT (id) ON plant.d30 FROM reader", "column plant.d30.id"),
    ("REVOKE EXECUTE ON FUNCTION plant.note() FROM PUBLIC", "function plant.note()"),
    ("REVOKE SELECT ON plant.seen FROM app", "view plant.seen"),
];

fn privileges() -> Vec<Fault> {
    PRIVILEGES
        .iter()
        .map(|(sql, object)| {
            let wanted = other("privilege", object, "different", "owner or privileges");
            Fault::new("owner or privilege", *sql, vec![wanted])
        })
        .collect()
}
