//! The five tools, each from its start to *caught up with every index valid*.
//!
//! What a person would have done beforehand (roles, an empty database, the extension) is no part of
//! the measured time; what the tool itself needs to begin (nodes, publications, the schema) is.

use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use pgferry_tests::tempdir::TempDir;
use pgferry_tests::{Cluster, DATABASE, eventually};

use crate::servers::{self, dsn, program, run, uri};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tool {
    /// The release build of this project.
    Pgferry,
    /// pglogical's own copy: `create_subscription` with structure and data.
    Pglogical,
    /// `pg_dump -Fd -j N`, then `pg_restore -j N`.
    PgDump,
    /// Publication and subscription of PostgreSQL itself.
    Native,
    /// `pgcopydb clone`.
    Pgcopydb,
}

/// The longest that any tool may take for the reference set.
pub(crate) const RUN_DEADLINE: Duration = Duration::from_secs(3600);

/// How often a tool that works by itself is asked whether it is done.
pub(crate) const ASK_EVERY: Duration = Duration::from_millis(50);

impl Tool {
    /// In the order in which a round runs them.
    pub(crate) const ALL: [Self; 5] =
        [Self::Pgferry, Self::Pglogical, Self::PgDump, Self::Native, Self::Pgcopydb];

    /// Its name on the command line and in the table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pgferry => "pgferry",
            Self::Pglogical => "pglogical",
            Self::PgDump => "pg_dump",
            Self::Native => "native",
            Self::Pgcopydb => "pgcopydb",
        }
    }

    /// Whether the extension has to be there before it begins.
    pub(crate) fn needs_pglogical(self) -> bool {
        match self {
            Self::Pgferry | Self::Pglogical => true,
            Self::PgDump | Self::Native | Self::Pgcopydb => false,
        }
    }

    /// Which version runs, or why it cannot.
    pub(crate) fn version(self, source: &Cluster) -> Result<String, String> {
        match self {
            Self::Pgferry => Ok(env!("CARGO_PKG_VERSION").to_owned()),
            Self::Pglogical => Ok(source
                .admin(DATABASE)
                .value(
                    "SELECT default_version FROM pg_available_extensions WHERE name = 'pglogical'",
                )
                .unwrap_or_default()),
            Self::PgDump => first_number(program(source, "pg_dump")),
            Self::Native => first_number(program(source, "postgres")),
            Self::Pgcopydb => first_number(servers::pgcopydb(source)),
        }
    }
}

/// pglogical's own copy. It carries one table after the other, and its indexes come last.
pub(crate) fn pglogical(source: &Cluster, destination: &Cluster) -> f64 {
    let (provider, subscriber) = (source.admin(DATABASE), destination.admin(DATABASE));
    let (from, to) = (dsn(source), dsn(destination));
    let started = Instant::now();
    provider.run(&format!("SELECT pglogical.create_node('source', '{from}')"));
    provider.run(ADD_TO_SETS);
    subscriber.run(&format!("SELECT pglogical.create_node('destination', '{to}')"));
    subscriber.run(&format!(
        "SELECT pglogical.create_subscription('bench', '{from}',
                    synchronize_structure := true, synchronize_data := true)"
    ));
    until("pglogical to replicate", || {
        let state = subscriber.value(PGLOGICAL_STATE).unwrap_or_default();
        if state == "replicating, 0 not ready" { Ok(()) } else { Err(state) }
    });
    started.elapsed().as_secs_f64()
}

/// Dump and restore in directory format, which is the one that does both in parallel.
pub(crate) fn pg_dump(source: &Cluster, destination: &Cluster, jobs: usize) -> f64 {
    let dir = TempDir::new("dump");
    let dump = dir.path().join("dump");
    let jobs = jobs.to_string();
    let started = Instant::now();
    let mut command = program(source, "pg_dump");
    command.args(["-Fd", "-j", &jobs, "-d", &uri(source), "-f"]).arg(&dump);
    run(command);
    let mut command = program(destination, "pg_restore");
    command.args(["-j", &jobs, "--exit-on-error", "-d", &uri(destination)]).arg(&dump);
    run(command);
    started.elapsed().as_secs_f64()
}

/// Logical replication as its manual tells it: the whole schema first, then the subscription.
pub(crate) fn native(source: &Cluster, destination: &Cluster) -> f64 {
    let subscriber = destination.admin(DATABASE);
    let started = Instant::now();
    let mut command = program(source, "pg_dump");
    command.args(["--schema-only", "-d", &uri(source)]);
    let schema = run(command).stdout;
    let dir = TempDir::new("schema");
    let file = dir.path().join("schema.sql");
    std::fs::write(&file, schema).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let mut command = program(destination, "psql");
    command.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", &uri(destination), "-f"]).arg(&file);
    run(command);
    source.sql(DATABASE, "CREATE PUBLICATION bench FOR ALL TABLES");
    subscriber.run(&format!(
        "CREATE SUBSCRIPTION bench CONNECTION '{}' PUBLICATION bench WITH (copy_data = true)",
        dsn(source)
    ));
    until("every table of the subscription to be ready", || {
        let state = subscriber.value(NATIVE_STATE).unwrap_or_default();
        if state == "ready" { Ok(()) } else { Err(state) }
    });
    started.elapsed().as_secs_f64()
}

/// `pgcopydb clone`, which also vacuums and analyzes what it has copied.
pub(crate) fn pgcopydb(source: &Cluster, destination: &Cluster, jobs: usize) -> f64 {
    let dir = TempDir::new("pgcopydb");
    let jobs = jobs.to_string();
    let mut command = servers::pgcopydb(source);
    command
        .args(["clone", "--table-jobs", &jobs, "--index-jobs", &jobs])
        .args(["--source", &uri(source), "--target", &uri(destination), "--dir"])
        .arg(dir.path().join("work"))
        .stdin(Stdio::null());
    let started = Instant::now();
    run(command);
    started.elapsed().as_secs_f64()
}

/// Asks until the answer is yes.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    eventually(what, RUN_DEADLINE, || look().inspect_err(|_| thread::sleep(ASK_EVERY)))
}

/// The first word of what a program says about its version that begins with a digit.
fn first_number(mut command: Command) -> Result<String, String> {
    let name = command.get_args().last().unwrap_or_default().to_string_lossy().into_owned();
    let output = command.arg("--version").output().map_err(|e| format!("{name}: {e}"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    said.split_whitespace()
        .filter(|_| output.status.success())
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()) && !word.contains(':'))
        .map(str::to_owned)
        .ok_or_else(|| format!("{name} --version failed: {}", said.trim()))
}

/// A table without a key goes where only its inserts are replicated.
const ADD_TO_SETS: &str = "
SELECT pglogical.replication_set_add_table(
           CASE WHEN EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary)
                THEN 'default' ELSE 'default_insert_only' END,
           c.oid::regclass)
  FROM pg_class c
 WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace";

/// The subscription's own row of `local_sync_status` has no table; it counts like the others.
const PGLOGICAL_STATE: &str = "
SELECT format('%s, %s not ready',
              (SELECT status FROM pglogical.show_subscription_status('bench')),
              (SELECT count(*) FROM pglogical.local_sync_status WHERE sync_status <> 'r'))";

const NATIVE_STATE: &str = "
SELECT CASE WHEN count(*) > 0 AND bool_and(srsubstate = 'r') THEN 'ready'
            ELSE coalesce(string_agg(format('%s %s', srrelid::regclass, srsubstate), ', '), 'no tables') END
  FROM pg_subscription_rel";
