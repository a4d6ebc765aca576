//! Which types are hashed as they are, proven by their values.

use pgferry_plan::Side;
use pgferry_plan::scope::ColumnView;
use pgferry_plan::verify::hashing::{Hashing, OfColumn, OfRow, of_column};
use pgferry_tests::{Pair, PairOptions, Session};

/// How a column of this type enters the hash between two servers of one version.
fn proven(type_name: &str) -> OfColumn {
    let column = ColumnView {
        name: "v".to_owned(),
        type_name: type_name.to_owned(),
        collation: None,
        not_null: false,
        generated: None,
        identity: None,
        position: 1,
    };
    of_column(&column, Hashing { of_row: OfRow::Seeded, as_they_are: true, recoded: false })
}

fn in_record(value: &str) -> String {
    format!("pg_catalog.hash_record_extended(ROW({value}), 0)")
}

/// Values that hash alike and are not written alike, among those that `values` makes.
fn alike(session: &Session, expression: &str, type_name: &str, values: &str) -> i64 {
    session.number(&format!(
        "SELECT count(*) FROM (SELECT {expression} AS h
           FROM (SELECT x::{type_name} AS v FROM ({values}) AS s (x)) AS t
          GROUP BY 1 HAVING count(DISTINCT coalesce(v::text, 'NULL!') COLLATE \"C\") > 1) AS c"
    ))
}

/// Each type that is hashed as it is, or in its binary form: equal hashes mean equal text, over edges,
/// neighbours and chance. And each that is not has values that show why.
#[test]
fn the_list_of_types_that_are_hashed_as_they_are_is_proven() {
    let pair = Pair::start(PairOptions::default());
    // The newer server, where they differ: those before 14 hash no record.
    let session = pair.admin(Side::Destination);
    let whole = "SELECT ((random() - 0.5) * 2 * 9e18)::int8 FROM generate_series(1, 20000)
        UNION ALL SELECT n::int8 FROM generate_series(-5000, 5000) AS n
        UNION ALL SELECT (n::int8 << 32) # m FROM generate_series(-60, 60) AS n, generate_series(-60, 60) AS m
        UNION ALL SELECT (1::int8 << n) + m FROM generate_series(0, 62) AS n, generate_series(-1, 1) AS m
        UNION ALL SELECT NULL";
    let texts = "SELECT substr(md5(random()::text), 1, (random() * 32)::int) FROM generate_series(1, 20000)
        UNION ALL SELECT repeat(c, n) FROM unnest(ARRAY['a', ' ', 'é', 'x ', E'\\t']) AS c, generate_series(0, 200) AS n
        UNION ALL SELECT NULL";
    let of_whole = |expression: &str| format!("SELECT {expression} FROM ({whole}) AS w (n)");
    let cases: &[(&str, String)] = &[
        ("boolean", "VALUES (true), (false), (NULL)".to_owned()),
        ("smallint", of_whole("(n % 32768)::int2")),
        ("integer", of_whole("(n % 2147483648)::int4")),
        ("oid", of_whole("(abs(n % 4294967296))::oid")),
        ("bigint", of_whole("n")),
        ("uuid", of_whole("md5(n::text)::uuid")),
        ("bytea", of_whole("int8send(n)")),
        ("\"char\"", of_whole("(n % 128)::int4::\"char\"")),
        ("text", texts.to_owned()),
        ("character varying", texts.to_owned()),
        ("name", texts.to_owned()),
        ("character(20)", texts.to_owned()),
        ("date", of_whole("date '2000-01-01' + (n % 1000000)::int")),
        (
            "time without time zone",
            of_whole("time '00:00' + (n % 86400000000) * interval '1 microsecond'"),
        ),
        (
            "timestamp without time zone",
            of_whole("timestamp '2000-01-01' + (n % 9000000000000000) * interval '1 microsecond'"),
        ),
        (
            "timestamp with time zone",
            of_whole(
                "timestamptz '2000-01-01' + (n % 9000000000000000) * interval '1 microsecond'",
            ),
        ),
    ];
    for (type_name, values) in cases {
        let how = proven(type_name);
        let recorded = how.in_record("v").map(|value| in_record(&value));
        let found: Vec<i64> = recorded
            .into_iter()
            .chain(how.seeded("v", "7"))
            .map(|expression| alike(&session, &expression, type_name, values))
            .collect();
        assert!(!found.is_empty(), "{type_name} goes by {how:?}: it is not on the list any more");
        assert!(
            found.iter().all(|found| *found == 0),
            "{type_name}: {found:?} hashes stand for more than one text"
        );
    }
    // Why the others are not on it; were this test blind, these would be zero.
    for (type_name, values) in [
        ("numeric", "VALUES ('1.0'), ('1.00')"),
        ("double precision", "VALUES ('0'), ('-0')"),
        ("interval", "VALUES ('1 day'), ('24:00:00')"),
        ("jsonb", "VALUES ('{\"a\": 1.0}'), ('{\"a\": 1.00}')"),
        ("integer[]", "VALUES ('[2:3]={1,2}'), ('{1,2}')"),
        ("numrange", "VALUES ('[1.0,2)'), ('[1.00,2)')"),
    ] {
        assert_eq!(proven(type_name), OfColumn::Text, "{type_name}");
        assert_eq!(alike(&session, &in_record("v"), type_name, values), 1, "{type_name}");
    }
    // Why 64 bits are not left to their own hash.
    let own = "hashint8extended(v, 7)";
    assert_eq!(alike(&session, own, "bigint", "VALUES (0::int8), (4294967297)"), 1);
}
