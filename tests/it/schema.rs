//! What a schema can hold that pg_dump cannot carry in its plain order, or not at all.

use pgferry_plan::Side;
use pgferry_tests::{ConfigFile, DATABASE, Daemon, Pair, PairOptions, content};

const SCHEMA: &str = include_str!("schema.sql");

/// Made by the administrator, because nobody else may.
const EVENT_TRIGGER: &str = "CREATE EVENT TRIGGER guard ON ddl_command_end
    WHEN TAG IN ('CREATE SEQUENCE') EXECUTE FUNCTION public.see_ddl();
    COMMENT ON EVENT TRIGGER guard IS 'not carried';
    CREATE PUBLICATION feed FOR TABLE public.customer;
    COMMENT ON PUBLICATION feed IS 'not carried'";

/// Objects that pg_dump makes as a dummy or postpones, each with the rows that it gives.
const READ: [&str; 6] = [
    "SELECT id, name, total FROM spent ORDER BY id",
    "SELECT id, total FROM big_spenders ORDER BY id",
    "SELECT id, name, total FROM spent_kept ORDER BY id",
    "SELECT id, name FROM named(2) ORDER BY id",
    "SELECT id, name FROM over_named ORDER BY id",
    "SELECT id FROM open_orders ORDER BY id",
];

/// What restoring can lose without a word: comments, grants, owners and defaults.
const KEPT: [&str; 5] = [
    "SELECT c.relname, d.objsubid, d.description FROM pg_description AS d
       JOIN pg_class AS c ON c.oid = d.objoid AND d.classoid = 'pg_class'::regclass
       JOIN pg_namespace AS n ON n.oid = c.relnamespace AND n.nspname = 'public' ORDER BY 1, 2",
    "SELECT proname, proowner::regrole, proacl, obj_description(oid, 'pg_proc') FROM pg_proc
      WHERE pronamespace = 'public'::regnamespace AND prosqlbody IS NOT NULL ORDER BY 1",
    // MAINTAIN, the `m`, came with 17; whoever has all has it there too.
    "SELECT relname, relowner::regrole, replace(relacl::text, 'Dxtm/', 'Dxt/') FROM pg_class
      WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v', 'm') ORDER BY 1",
    "SELECT polname, pg_get_expr(polqual, polrelid), obj_description(oid, 'pg_policy')
       FROM pg_policy ORDER BY 1",
    "SELECT adrelid::regclass, pg_get_expr(adbin, adrelid) FROM pg_attrdef
      WHERE adrelid = 'customer'::regclass",
];

#[test]
fn what_groups_by_a_key_is_carried_and_what_cannot_be_is_named() {
    let pair = Pair::start(PairOptions::default());
    // Trusted, so whoever may create in the database may create it: pgferry's role, on the way.
    pair.source.sql(DATABASE, "CREATE EXTENSION pg_trgm");
    pair.load(SCHEMA);
    pair.source.sql(DATABASE, EVENT_TRIGGER);
    let daemon = Daemon::start(&ConfigFile::for_pair(&pair));
    daemon.bring_to_ready();

    for query in READ {
        let [here, there] = Side::BOTH.map(|side| pair.admin(side).rows(query));
        assert!(!here.is_empty(), "{query} gives nothing");
        assert_eq!(here, there, "{query}");
    }
    for query in KEPT {
        let wanted = format!("SELECT t::text FROM ({query}) AS t");
        let [here, there] = Side::BOTH.map(|side| pair.admin(side).column(&wanted));
        assert!(!here.is_empty(), "{query} gives nothing");
        assert_eq!(here, there, "{query}");
    }
    assert_eq!(content::differences(&pair.source, &pair.destination), Vec::<String>::new());
    let uncarried = "SELECT (SELECT count(*) FROM pg_event_trigger WHERE evtname = 'guard')
                          + (SELECT count(*) FROM pg_publication WHERE pubname = 'feed')";
    assert_eq!(pair.admin(Side::Source).number(uncarried), 2);
    assert_eq!(pair.admin(Side::Destination).number(uncarried), 0);
    assert_warned_of_event_triggers(&daemon);
}

fn assert_warned_of_event_triggers(daemon: &Daemon) {
    let report = daemon.get("/v1/migrations/shop/preflight").body.to_string();
    assert!(report.contains("event_triggers") && report.contains("guard"), "{report}");
}

/// Lets the view be made as a dummy, before the keys, and refuses to give it its query after.
const REFUSE_VIEWS: &str = "
    CREATE FUNCTION pg_catalog.refuse_views() RETURNS event_trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF EXISTS (SELECT FROM pg_constraint WHERE conname = 'customer_pkey') THEN
            RAISE EXCEPTION 'no views today';
        END IF;
    END $$;
    CREATE EVENT TRIGGER refuse_views ON ddl_command_start
        WHEN TAG IN ('CREATE VIEW') EXECUTE FUNCTION pg_catalog.refuse_views()";

#[test]
fn a_view_that_is_still_a_dummy_is_not_taken_for_the_view() {
    let pair = Pair::start(PairOptions::default());
    pair.load(
        "CREATE TABLE customer (id int PRIMARY KEY, name text NOT NULL);
         INSERT INTO customer SELECT n, 'customer ' || n FROM generate_series(1, 5) AS n;
         CREATE VIEW named AS SELECT id, name FROM customer GROUP BY id",
    );
    pair.destination.sql(DATABASE, REFUSE_VIEWS);
    let daemon = Daemon::start(&ConfigFile::for_pair(&pair));
    assert_eq!(daemon.order("start").status, 202);
    daemon.wait_until("the view to be refused", |migration| {
        assert_ne!(migration["phase"], "ready");
        migration["condition"].to_string().contains("no views today")
    });
    assert_eq!(pair.admin(Side::Destination).number("SELECT count(*) FROM named"), 1);
    pair.destination.sql(DATABASE, "DROP EVENT TRIGGER refuse_views");
    daemon.wait_until("ready", |migration| migration["phase"] == "ready");
    assert_eq!(pair.admin(Side::Destination).number("SELECT count(*) FROM named"), 5);
}
