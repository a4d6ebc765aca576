//! Faults of whole rows: missing, extra, exchanged, in tables of every kind of key, and of none.

use super::{Fault, row, row_in, rows};

/// Faults of rows.
pub(super) fn faults() -> Vec<Fault> {
    [missing(), extra(), exchanged(), keys(), without_a_key(), kept_otherwise()]
        .into_iter()
        .flatten()
        .collect()
}

fn missing() -> Vec<Fault> {
    let one = |sql: &str, table: &str, key: &[&str]| {
        Fault::new("missing row", sql, vec![row(table, key, "missing")])
    };
    vec![
        one("DELETE FROM wide.types WHERE id = 1000", "wide.types", &["1000"]),
        one("DELETE FROM wide.by_text WHERE name = 'name 9'", "wide.by_text", &["name 9"]),
        one("DELETE FROM wide.by_mood WHERE code = 'code 9'", "wide.by_mood", &["cross", "code 9"]),
        one("DELETE FROM plant.long WHERE id = 1", "plant.long", &["1"]),
        one("DELETE FROM plant.long WHERE id = 170000", "plant.long", &["170000"]),
        one("DELETE FROM plant.long WHERE id = 85000", "plant.long", &["85000"]),
        one(
            "DELETE FROM plant.split_2026 WHERE id = 300",
            "plant.split_2026",
            &["300", "2026-03-28"],
        ),
        one(
            "DELETE FROM plant.by_uuid WHERE v = 7",
            "plant.by_uuid",
            &["8f14e45f-ceea-167a-5a36-dedd4bea2543"],
        ),
    ]
}

fn extra() -> Vec<Fault> {
    let one = |sql: &str, table: &str, key: &[&str]| {
        Fault::new("extra row", sql, vec![row(table, key, "extra")])
    };
    vec![
        one("INSERT INTO wide.types (id) VALUES (-5)", "wide.types", &["-5"]),
        one("INSERT INTO wide.by_text VALUES ('', 0)", "wide.by_text", &[""]),
        one("INSERT INTO wide.by_mood VALUES ('calm', 'new', 1)", "wide.by_mood", &["calm", "new"]),
        one("INSERT INTO plant.long VALUES (0, 'before')", "plant.long", &["0"]),
        one("INSERT INTO plant.long VALUES (9000000, 'behind')", "plant.long", &["9000000"]),
        one(
            "INSERT INTO plant.split VALUES (9000, '2025-12-31', 'new')",
            "plant.split_2025",
            &["9000", "2025-12-31"],
        ),
        one(
            "INSERT INTO plant.by_uuid VALUES ('00000000-0000-0000-0000-000000000000', 0)",
            "plant.by_uuid",
            &["00000000-0000-0000-0000-000000000000"],
        ),
        one(
            "INSERT INTO plant.numbered OVERRIDING SYSTEM VALUE VALUES (-1, 'new')",
            "plant.numbered",
            &["-1"],
        ),
    ]
}

/// The same values are on both sides, in other rows or columns: no sum over them changes.
fn exchanged() -> Vec<Fault> {
    let kind = "values exchanged";
    let different =
        |table: &str, key: &[&str], columns: &[&str]| row_in(table, key, "different", columns);
    vec![
        Fault::new(
            kind,
            "UPDATE wide.types SET short = (SELECT short FROM wide.types WHERE id = 4001 - t.id) \
             FROM wide.types AS t WHERE t.id = types.id AND t.id IN (2000, 2001)",
            vec![
                different("wide.types", &["2000"], &["short"]),
                different("wide.types", &["2001"], &["short"]),
            ],
        ),
        Fault::new(
            kind,
            "UPDATE wide.types SET large = (SELECT large FROM wide.types WHERE id = 4005 - t.id) \
             FROM wide.types AS t WHERE t.id = types.id AND t.id IN (2002, 2003)",
            vec![
                different("wide.types", &["2002"], &["large"]),
                different("wide.types", &["2003"], &["large"]),
            ],
        ),
        Fault::new(
            kind,
            "UPDATE wide.by_text SET n = 201 - n WHERE name IN ('name 100', 'name 101')",
            vec![
                different("wide.by_text", &["name 100"], &["n"]),
                different("wide.by_text", &["name 101"], &["n"]),
            ],
        ),
        Fault::new(
            kind,
            "UPDATE plant.long SET id = -id WHERE id IN (50000, 50001); \
             UPDATE plant.long SET v = 'one' WHERE id = -50000; \
             UPDATE plant.long SET id = 100001 + id WHERE id IN (-50000, -50001)",
            vec![different("plant.long", &["50001"], &["v"])],
        ),
        Fault::new(
            kind,
            "UPDATE wide.types SET word = short, short = word WHERE id = 2004",
            vec![different("wide.types", &["2004"], &["word", "short"])],
        ),
        Fault::new(
            kind,
            "UPDATE plant.named SET code = 'aside' WHERE id = 1; \
             UPDATE plant.named SET code = 'code 1' WHERE id = 2; \
             UPDATE plant.named SET code = 'code 2' WHERE id = 1",
            vec![
                different("plant.named", &["1"], &["code"]),
                different("plant.named", &["2"], &["code"]),
            ],
        ),
        Fault::new(
            kind,
            "UPDATE plant.loose SET b = 'b ' || (23 - a) WHERE a IN (11, 12)",
            vec![
                rows("plant.loose", "missing", 1),
                rows("plant.loose", "missing", 1),
                rows("plant.loose", "extra", 1),
                rows("plant.loose", "extra", 1),
            ],
        ),
    ]
}

/// The key itself: what is another key in text, though equal, is another row.
fn keys() -> Vec<Fault> {
    let moved = |sql: &str, table: &str, from: &[&str], to: &[&str]| {
        Fault::new("key", sql, vec![row(table, from, "missing"), row(table, to, "extra")])
    };
    let changed = |sql: &str, table: &str, key: &[&str], column: &str| {
        Fault::new("key", sql, vec![row_in(table, key, "different", &[column])])
    };
    vec![
        moved(
            "UPDATE wide.by_text SET name = 'NAME 78' WHERE name = 'name 78'",
            "wide.by_text",
            &["name 78"],
            &["NAME 78"],
        ),
        moved(
            "UPDATE wide.by_text SET name = 'name 79 ' WHERE name = 'name 79'",
            "wide.by_text",
            &["name 79"],
            &["name 79 "],
        ),
        moved(
            "UPDATE plant.by_number SET id = 7.00 WHERE id = 7",
            "plant.by_number",
            &["7.0000000000000000"],
            &["7.00"],
        ),
        moved(
            "UPDATE plant.by_case SET id = 'KEY 5' WHERE v = 5",
            "plant.by_case",
            &["Key 5"],
            &["KEY 5"],
        ),
        moved(
            "UPDATE plant.composed SET c = c + interval '1 microsecond' WHERE b = 'b 5'",
            "plant.composed",
            &["5", "b 5", "2026-01-06 00:00:00+00"],
            &["5", "b 5", "2026-01-06 00:00:00.000001+00"],
        ),
        changed(
            "UPDATE plant.composed SET v = 'else' WHERE b = 'b 6'",
            "plant.composed",
            &["6", "b 6", "2026-01-07 00:00:00+00"],
            "v",
        ),
        changed(
            "UPDATE plant.by_blank SET v = 'else' WHERE id = 'k7'",
            "plant.by_blank",
            &["k7"],
            "v",
        ),
        changed(
            "UPDATE plant.\"Odd \"\"name\" SET \"o'th\"\"er\" = 'else' WHERE \"a key\" = 9",
            "plant.Odd \"name",
            &["9"],
            "o'th\"er",
        ),
    ]
}

fn without_a_key() -> Vec<Fault> {
    let kind = "rows without a key";
    vec![
        Fault::new(
            kind,
            "DELETE FROM plant.twins WHERE ctid IN (SELECT ctid FROM plant.twins WHERE a = 3 LIMIT 2)",
            vec![rows("plant.twins", "missing", 2)],
        ),
        Fault::new(
            kind,
            "INSERT INTO plant.twins VALUES (4), (4), (4)",
            vec![rows("plant.twins", "extra", 3)],
        ),
        Fault::new(
            kind,
            "INSERT INTO plant.twins VALUES (NULL)",
            vec![rows("plant.twins", "extra", 1)],
        ),
        Fault::new(
            kind,
            "DELETE FROM plant.loose WHERE a = 1",
            vec![rows("plant.loose", "missing", 1)],
        ),
        Fault::new(
            kind,
            "UPDATE plant.loose SET b = NULL WHERE a = 2",
            vec![rows("plant.loose", "missing", 1), rows("plant.loose", "extra", 1)],
        ),
        Fault::new(
            kind,
            "INSERT INTO wide.nothing DEFAULT VALUES",
            vec![rows("wide.nothing", "extra", 1)],
        ),
    ]
}

/// Partitions, columns that number themselves or are computed, and rows around the ends of ranges.
fn kept_otherwise() -> Vec<Fault> {
    vec![
        Fault::new(
            "partition",
            "UPDATE plant.split SET v = 'else' WHERE id = 10",
            vec![row_in("plant.split_2025", &["10", "2025-06-11"], "different", &["v"])],
        ),
        Fault::new(
            "partition",
            "UPDATE plant.split SET at = '2026-06-01' WHERE id = 11",
            vec![
                row("plant.split_2025", &["11", "2025-06-12"], "missing"),
                row("plant.split_2026", &["11", "2026-06-01"], "extra"),
            ],
        ),
        Fault::new(
            "identity",
            "UPDATE plant.numbered SET v = 'else' WHERE id = 3",
            vec![row_in("plant.numbered", &["3"], "different", &["v"])],
        ),
        Fault::new(
            "generated column",
            "UPDATE plant.derived SET v = 0 WHERE id = 4",
            vec![row_in("plant.derived", &["4"], "different", &["v", "twice"])],
        ),
        Fault::new(
            "changed value",
            "UPDATE plant.long SET v = overlay(v placing 'w' from 400) WHERE id = 84999",
            vec![row_in("plant.long", &["84999"], "different", &["v"])],
        ),
    ]
}
