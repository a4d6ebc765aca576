//! What a schema can hold that pg_dump cannot carry in its plain order, or not at all.

use pgferry_plan::Side;
use pgferry_tests::{ConfigFile, DATABASE, Daemon, Pair, PairOptions, content};

const SCHEMA: &str = include_str!("schema.sql");

/// Made by the administrator; anything it fires on there would be seen in `seen_ddl`.
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

/// What restoring can lose without a word: comments, grants and owners.
const KEPT: [&str; 4] = [
    "SELECT c.relname, d.objsubid, d.description FROM pg_description AS d
       JOIN pg_class AS c ON c.oid = d.objoid AND d.classoid = 'pg_class'::regclass
       JOIN pg_namespace AS n ON n.oid = c.relnamespace AND n.nspname = 'public' ORDER BY 1, 2",
    "SELECT proname, proowner::regrole, proacl, obj_description(oid, 'pg_proc') FROM pg_proc
      WHERE pronamespace = 'public'::regnamespace AND prosqlbody IS NOT NULL ORDER BY 1",
    "SELECT relname, relowner::regrole, relacl FROM pg_class
      WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v', 'm') ORDER BY 1",
    "SELECT polname, pg_get_expr(polqual, polrelid), obj_description(oid, 'pg_policy')
       FROM pg_policy ORDER BY 1",
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
