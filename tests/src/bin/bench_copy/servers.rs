//! The servers: the same settings for everybody, a new destination for each run, and a source that
//! each run finds as the one before it found it.

use std::ffi::OsStr;
use std::process::{Command, Output};

use pgferry_plan::Side;
use pgferry_tests::session::words_of;
use pgferry_tests::{Cluster, ClusterOptions, DATABASE, Session, install, process};

/// The administrator's password, for the tools that run as the administrator: everybody comes over
/// TCP with a password, so that nobody has the advantage of the socket.
const PASSWORD: &str = "bench-password";

/// Starts a server with the roles, the database and nothing in it.
pub(crate) fn start(side: Side, jobs: usize, shared_buffers: &str) -> Cluster {
    let set = |key, value: &str| (key, value.to_owned());
    let cluster = Cluster::start(
        side,
        &ClusterOptions {
            fsync: true,
            settings: vec![
                set("shared_buffers", shared_buffers),
                set("max_wal_size", "8GB"),
                set("maintenance_work_mem", "256MB"),
                set("checkpoint_timeout", "15min"),
                set("max_worker_processes", "16"),
                set("max_logical_replication_workers", "12"),
                // As many initial copies at a time as the other tools get jobs.
                ("max_sync_workers_per_subscription", jobs.to_string()),
            ],
            ..ClusterOptions::default()
        },
    );
    cluster.sql("postgres", include_str!("../../sql/roles.sql"));
    cluster.sql("postgres", &format!("ALTER ROLE postgres PASSWORD '{PASSWORD}'"));
    cluster.sql("postgres", &format!("CREATE DATABASE {DATABASE} OWNER owner"));
    cluster.sql("postgres", &format!("GRANT CREATE ON DATABASE {DATABASE} TO pgferry"));
    if install::major_version(cluster.bin()) >= 16 {
        cluster.sql("postgres", "GRANT app, reader TO pgferry WITH ADMIN TRUE, INHERIT FALSE");
    }
    cluster
}

/// Gives the extension to a side, as an administrator would before pgferry or pglogical comes.
pub(crate) fn add_pglogical(cluster: &Cluster) {
    cluster.sql(DATABASE, include_str!("../../sql/extension.sql"));
}

/// Takes away whatever a run has left on the source; after it, nothing of it is there.
///
/// Only when the destination's server is gone, because a slot that is in use cannot be dropped.
pub(crate) fn cleanse(source: &Cluster) -> Result<(), String> {
    for statements in [END_SUBSCRIPTIONS, CLEANSE] {
        // A session that has called pglogical is not used for anything else.
        let session = source.admin(DATABASE);
        session.try_rows(statements).map_err(|e| words_of(&e))?;
    }
    let left = source.admin(DATABASE).column(LEFT);
    if left.is_empty() { Ok(()) } else { Err(format!("left on the source: {}", left.join(", "))) }
}

/// Writes out what is dirty, on both servers and in the machine, so that one run's writes are not
/// another's load.
pub(crate) fn settle(source: &Cluster, destination: &Cluster) {
    source.sql(DATABASE, "CHECKPOINT");
    destination.sql(DATABASE, "CHECKPOINT");
    run(Command::new("sync"));
}

/// A session on the source in the name of the tables' owner.
pub(crate) fn as_owner(source: &Cluster) -> Session {
    let session = source.admin(DATABASE);
    session.run("SET ROLE owner");
    session
}

/// How the administrator reaches a server, in libpq's words.
pub(crate) fn dsn(cluster: &Cluster) -> String {
    let port = cluster.port();
    format!("host=127.0.0.1 port={port} dbname={DATABASE} user=postgres password={PASSWORD}")
}

/// The same as a URI.
pub(crate) fn uri(cluster: &Cluster) -> String {
    format!("postgresql://postgres:{PASSWORD}@127.0.0.1:{}/{DATABASE}", cluster.port())
}

/// A program that ends when this one does, with PostgreSQL's own programs before all others.
pub(crate) fn program(cluster: &Cluster, name: impl AsRef<OsStr>) -> Command {
    let mut path = cluster.bin().as_os_str().to_owned();
    if let Some(rest) = std::env::var_os("PATH") {
        path.push(":");
        path.push(rest);
    }
    let mut command = process::bound(name, "TERM");
    command.env("PATH", path).current_dir("/");
    command
}

/// The pgcopydb that the script has found, else the one on `PATH`.
///
/// It takes `psql`, `pg_dump` and the rest from where `PG_CONFIG` says, and else from `PATH`, where
/// the server's own come first: those of a newer version write what an older server refuses.
pub(crate) fn pgcopydb(cluster: &Cluster) -> Command {
    let found = std::env::var_os("PGFERRY_BENCH_PGCOPYDB").filter(|program| !program.is_empty());
    let mut command = program(cluster, found.unwrap_or_else(|| "pgcopydb".into()));
    command.env_remove("PG_CONFIG");
    command
}

/// Runs a program to its end; panics with all that it said when it fails.
pub(crate) fn run(command: Command) -> Output {
    process::run(command)
}

/// What only a migration that failed on its way has left.
const END_SUBSCRIPTIONS: &str = "
DO $$
BEGIN
    IF to_regclass('pglogical.subscription') IS NOT NULL THEN
        PERFORM pglogical.alter_subscription_disable(sub_name, true) FROM pglogical.subscription;
    END IF;
END
$$";

const CLEANSE: &str = "
SET lock_timeout = '60s';
DO $$
DECLARE
    name text;
BEGIN
    FOR name IN SELECT pubname FROM pg_publication LOOP
        EXECUTE format('DROP PUBLICATION %I', name);
    END LOOP;
    PERFORM pg_terminate_backend(pid, 10000) FROM pg_stat_activity
      WHERE backend_type = 'walsender' OR usename = 'pgferry';
    PERFORM pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT temporary;
END
$$;
DROP EXTENSION IF EXISTS pglogical CASCADE;
DROP SCHEMA IF EXISTS pglogical, pgferry, pgcopydb CASCADE;
DO $$
BEGIN
    PERFORM pg_replication_origin_drop(roname) FROM pg_replication_origin;
END
$$;
ALTER ROLE app RESET ALL;
ALTER ROLE app IN DATABASE shop RESET ALL";

const LEFT: &str = "
SELECT 'schema ' || nspname FROM pg_namespace WHERE nspname IN ('pgferry', 'pglogical', 'pgcopydb')
UNION ALL SELECT 'slot ' || slot_name FROM pg_replication_slots
UNION ALL SELECT 'origin ' || roname FROM pg_replication_origin
UNION ALL SELECT 'publication ' || pubname FROM pg_publication
UNION ALL SELECT 'trigger ' || tgname FROM pg_trigger WHERE NOT tgisinternal";
