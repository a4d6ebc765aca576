//! Large objects come over with the rows that refer to them: content, oid, owner, grants, comment.

use pgferry_plan::Side;
use pgferry_tests::{ConfigFile, DATABASE, Daemon, Pair, PairOptions, content, eventually};
use serde_json::Value;

use crate::settled::{SOON, wait_for_verdict};

/// Small ones, more than one transaction takes; an empty one; one of exactly one piece; one of several
/// pieces and a bit; one with a hole. Owned by the owner, who lets others read and write some.
const OBJECTS: &str = "
    CREATE TABLE public.picture (id int PRIMARY KEY, content oid NOT NULL, name text);
    INSERT INTO picture
    SELECT n, lo_from_bytea(0, convert_to(repeat('picture ' || n, n), 'UTF8')), 'small ' || n
      FROM generate_series(1, 450) AS n;
    INSERT INTO picture VALUES
        (1001, lo_create(0), 'empty'),
        (1002, lo_from_bytea(0, convert_to(repeat('x', 1048576), 'UTF8')), 'one piece'),
        (1003, lo_from_bytea(0, convert_to(repeat('long piece ', 300000), 'UTF8')), 'pieces'),
        (1004, lo_create(0), 'hole');
    SELECT lo_put((SELECT content FROM picture WHERE name = 'hole'), 2500000, 'behind the hole');
    GRANT SELECT, INSERT, UPDATE, DELETE ON picture TO app;
    DO $$
    DECLARE o oid;
    BEGIN
        FOR o IN SELECT content FROM picture WHERE id % 3 = 0 LOOP
            EXECUTE format('GRANT SELECT, UPDATE ON LARGE OBJECT %s TO app', o);
            EXECUTE format('GRANT SELECT ON LARGE OBJECT %s TO PUBLIC', o);
            EXECUTE format('GRANT SELECT ON LARGE OBJECT %s TO reader WITH GRANT OPTION', o);
            EXECUTE format('COMMENT ON LARGE OBJECT %s IS %L', o, 'it''s number ' || o);
        END LOOP;
    END $$";

/// Every object as its server has it: the whole of it, because an administrator may.
const EVERYTHING: &str = "
    SELECT concat_ws(' ', m.oid, pg_get_userbyid(m.lomowner), obj_description(m.oid, 'pg_largeobject'),
                     m.lomacl IS NULL, md5(lo_get(m.oid)), length(lo_get(m.oid)),
                     (SELECT string_agg(concat_ws(':', pg_get_userbyid(a.grantee), a.privilege_type,
                                                  a.is_grantable), ',' ORDER BY a.grantee::text, 
                                        a.privilege_type, a.is_grantable)
                        FROM aclexplode(m.lomacl) AS a WHERE a.grantee <> 0),
                     (SELECT string_agg(a.privilege_type, ',')
                        FROM aclexplode(m.lomacl) AS a WHERE a.grantee = 0))
      FROM pg_largeobject_metadata AS m ORDER BY m.oid";

fn finding<'a>(report: &'a Value, code: &str) -> Option<&'a Value> {
    report["findings"].as_array()?.iter().find(|finding| finding["code"] == code)
}

/// A role has another OID on each server, and these columns show names in this order only.
fn everything(pair: &Pair, side: Side) -> Vec<String> {
    pair.admin(side).column(EVERYTHING)
}

#[test]
fn large_objects_come_over_with_the_rows() {
    let pair = Pair::start(PairOptions::default());
    pair.load(OBJECTS);
    let daemon = Daemon::start(&ConfigFile::for_pair(&pair));
    daemon.bring_to_ready();
    let [here, there] = Side::BOTH.map(|side| everything(&pair, side));
    assert_eq!(here.len(), 454);
    assert_eq!(here, there);
    assert_eq!(content::differences(&pair.source, &pair.destination), Vec::<String>::new());
    let report = daemon.get("/v1/migrations/shop/preflight").body;
    let told = finding(&report, "large_objects").unwrap_or_else(|| panic!("{report}"));
    assert_eq!(told["severity"], "warn");

    // Made afterwards: no switchover, until both sides have it.
    wait_for_verdict(&daemon);
    pair.load("SELECT lo_from_bytea(4000000000, 'late')");
    eventually("the verdict to name it", SOON, || {
        let verdict = daemon.try_get("/v1/migrations/shop/verdict")?.body;
        if verdict.to_string().contains("large_objects") {
            Ok(())
        } else {
            Err(verdict.to_string())
        }
    });
    pair.destination.sql(DATABASE, "SELECT lo_from_bytea(4000000000, 'late')");
    wait_for_verdict(&daemon);
    daemon.succeed("cutover");
    let app = pair.app_on(Side::Destination).unwrap();
    let read = "SELECT length(lo_get(content)) FROM picture WHERE id = 3";
    assert_eq!(app.number(read), 3 * "picture 3".len() as i64);
}

#[test]
fn what_an_interrupted_copy_left_is_taken_away_first() {
    let pair = Pair::start(PairOptions::default());
    pair.load(OBJECTS);
    let mut daemon = Daemon::start(&ConfigFile::for_pair(&pair));
    assert_eq!(daemon.order("start").status, 202);
    // The rows cannot be written for now; the large objects come before them.
    let holder = pair.admin(Side::Destination);
    eventually("the destination's table", SOON, || {
        holder.try_rows("BEGIN; LOCK TABLE public.picture IN EXCLUSIVE MODE").map(drop).map_err(
            |error| {
                holder.run("ROLLBACK");
                error.to_string()
            },
        )
    });
    let recorded = "SELECT count(*) FROM pgferry.copied WHERE table_name = 'pg_largeobject'";
    eventually("the large objects to arrive", SOON, || {
        match pair.admin(Side::Destination).number(recorded) {
            1 => Ok(()),
            _ => Err(daemon.migration().to_string()),
        }
    });
    assert_eq!(everything(&pair, Side::Destination).len(), 454);
    daemon.kill();
    // As if an earlier try had been under a snapshot with another one, and died before it was whole.
    pair.destination.sql(
        DATABASE,
        "SET ROLE owner;
         SELECT lo_from_bytea(4000000001, 'of an earlier snapshot');
         SELECT lo_put((SELECT min(oid) FROM pg_largeobject_metadata), 0, 'torn')",
    );
    pair.destination
        .sql(DATABASE, "DELETE FROM pgferry.copied WHERE table_name = 'pg_largeobject'");
    holder.run("ROLLBACK");
    daemon.serve();
    daemon.wait_until("ready", |migration| migration["phase"] == "ready");
    assert_eq!(everything(&pair, Side::Source), everything(&pair, Side::Destination));
    assert_eq!(content::differences(&pair.source, &pair.destination), Vec::<String>::new());
}

#[test]
fn large_objects_that_cannot_be_carried_are_named_before_the_start() {
    let pair = Pair::start(PairOptions::default());
    pair.load("CREATE TABLE public.t (id int PRIMARY KEY)");
    pair.source.sql(DATABASE, "SELECT lo_from_bytea(0, 'of the administrator')");
    pair.destination.sql(DATABASE, "SELECT lo_from_bytea(0, 'somebody else''s')");
    let daemon = Daemon::start(&ConfigFile::for_pair(&pair));
    let refused = daemon.order("start");
    assert_eq!(refused.status, 409, "{}", refused.body);
    let report = daemon.get("/v1/migrations/shop/preflight").body;
    assert!(finding(&report, "destination_large_objects").is_some(), "{report}");
    let of_admin = finding(&report, "large_objects_refused").unwrap_or_else(|| panic!("{report}"));
    assert!(of_admin["message"].to_string().contains("may not read 1 of"), "{of_admin}");
    let hint = of_admin["hint"].as_str().unwrap_or_default().replace("on the source: ", "");
    pair.source.sql(DATABASE, &hint);
    pair.destination.sql(DATABASE, "SELECT lo_unlink(oid) FROM pg_largeobject_metadata");
    daemon.bring_to_ready();
    assert_eq!(everything(&pair, Side::Source), everything(&pair, Side::Destination));
}
