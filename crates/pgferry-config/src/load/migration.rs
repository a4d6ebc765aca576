//! `[migrations.NAME]` and the sections within it.
//!
//! Every section is read before any of them can make the migration fail, so that one problem never
//! hides another. Defaults and limits stand here, each at its key.

use std::path::PathBuf;
use std::time::Duration;

use pgferry_plan::{MigrationName, Side, TableName};

use super::across::Endpoint;
use super::raw::KeyPath;
use super::reader::Reader;
use super::{identifier, node, traffic};
use crate::{
    BackgroundConfig, CopyConfig, CopyMethod, CutoverConfig, FenceConfig, FenceMethod, Lookup,
    MigrationConfig, NodeConfig, SchemaConfig, SchemaMode, ScopeConfig, SequencesConfig,
    TrafficConfig, VerifyConfig,
};

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const KILOBYTE: u64 = 1 << 10;
const MEGABYTE: u64 = 1 << 20;
const TERABYTE: u64 = 1 << 40;

/// Reads a migration; none together with a problem.
pub(super) fn migration(
    reader: &mut Reader,
    at: &KeyPath,
    name: &str,
    env: &dyn Lookup,
    endpoints: &mut Vec<Endpoint>,
) -> Option<MigrationConfig> {
    reader.section(at);
    let valid_name = name.parse::<MigrationName>();
    if valid_name.is_err() {
        reader.refuse(
            at,
            "this cannot name a migration",
            "use a lower-case letter, then up to 15 lower-case letters, digits or underscores",
        );
    }
    let autostart = reader.boolean(&at.key("autostart"), false);
    // Below 10 ms the heartbeat itself would be the load; above a minute no lag figure is of use.
    let heartbeat_interval = reader.duration(
        &at.key("heartbeat_interval"),
        100 * MILLISECOND,
        10 * MILLISECOND..=MINUTE,
    );
    let poll_interval =
        reader.duration(&at.key("poll_interval"), SECOND, 10 * MILLISECOND..=MINUTE);
    let mut side = |reader: &mut Reader, side: Side| -> Option<NodeConfig> {
        let node = node::node(reader, &at.key(side.as_str()), env)?;
        let dsn = node.login.dsn.clone();
        endpoints.push(Endpoint { migration: at.clone(), side, dsn });
        Some(node)
    };
    let source = side(reader, Side::Source);
    let destination = side(reader, Side::Destination);
    let scope = scope(reader, &at.key("scope"));
    let schema = schema(reader, &at.key("schema"));
    let copy = copy(reader, &at.key("copy"));
    let verify = verify(reader, &at.key("verify"));
    let sequences = sequences(reader, &at.key("sequences"));
    let cutover = cutover(reader, &at.key("cutover"), heartbeat_interval);
    let fence = fence(reader, &at.key("fence"));
    let sides =
        [&source, &destination].map(|node| node.as_ref().map(|node| node.login.dsn.clone()));
    let traffic = traffic::traffic(reader, &at.key("traffic"), env, &sides, cutover.stall_budget);
    no_login_with_multi_host(reader, &at.key("fence"), &fence, traffic.as_ref());
    Some(MigrationConfig {
        name: valid_name.ok()?,
        autostart,
        heartbeat_interval,
        poll_interval,
        source: source?,
        destination: destination?,
        scope,
        schema,
        copy,
        verify,
        sequences,
        cutover,
        fence,
        traffic: traffic?,
    })
}

fn scope(reader: &mut Reader, at: &KeyPath) -> ScopeConfig {
    reader.section(at);
    let schemas = reader.texts(&at.key("schemas"));
    if let Some(schemas) = &schemas {
        let key = at.key("schemas");
        if schemas.is_empty() {
            reader.refuse(&key, "no schema is named", "remove the key for every schema");
        }
        for schema in schemas.iter().filter(|schema| is_reserved(schema)) {
            reader.refuse(
                &key,
                format!("\"{schema}\" belongs to PostgreSQL, pglogical or pgferry"),
                "name schemas of the application",
            );
        }
    }
    let exclude_tables = tables(reader, &at.key("exclude_tables"));
    let insert_only = tables(reader, &at.key("insert_only"));
    for table in &insert_only {
        let key = at.key("insert_only");
        if exclude_tables.contains(table) {
            reader.refuse(
                &key,
                format!("{table} is named in exclude_tables as well"),
                "a table either comes along or stays: name it once",
            );
        }
        if schemas.as_ref().is_some_and(|schemas| !schemas.contains(&table.schema)) {
            reader.refuse(
                &key,
                format!("{table} is in none of the schemas in scope"),
                "add its schema to schemas, or remove the table here",
            );
        }
    }
    ScopeConfig { schemas, exclude_tables, insert_only }
}

fn is_reserved(schema: &str) -> bool {
    schema.starts_with("pg_") || ["information_schema", "pglogical", "pgferry"].contains(&schema)
}

fn tables(reader: &mut Reader, at: &KeyPath) -> Vec<TableName> {
    let mut tables = Vec::new();
    for text in reader.texts(at).unwrap_or_default() {
        match identifier::table(&text) {
            Ok(table) => tables.push(table),
            Err(invalid) => reader.refuse(
                at,
                format!("{text:?} is not a table: {invalid}"),
                "write \"public.orders\", or '\"My Schema\".\"My Table\"'",
            ),
        }
    }
    tables
}

fn schema(reader: &mut Reader, at: &KeyPath) -> SchemaConfig {
    reader.section(at);
    let mode = reader.choice(&at.key("mode"), SchemaMode::Copy);
    let key = at.key("pg_bindir");
    let pg_bindir = reader.text(&key).map(PathBuf::from);
    if let Some(directory) = &pg_bindir {
        for program in ["pg_dump", "pg_restore"] {
            if !directory.join(program).is_file() {
                reader.refuse(
                    &key,
                    format!("there is no {program} in this directory"),
                    "name the bin directory of a PostgreSQL not older than the source",
                );
            }
        }
    }
    SchemaConfig { mode, pg_bindir }
}

fn copy(reader: &mut Reader, at: &KeyPath) -> CopyConfig {
    const DEFAULT_JOBS: i64 = 4;
    reader.section(at);
    let method = reader.choice(&at.key("method"), CopyMethod::Parallel);
    // Each job is a session on both servers; more than 64 starve the application of connections.
    let jobs = reader.integer(&at.key("jobs"), DEFAULT_JOBS, 1..=64);
    // Below 64 kB a single row may take longer than a server keeps a silent connection.
    let max_bytes_per_second =
        reader.size(&at.key("max_bytes_per_second"), 64 * KILOBYTE..=TERABYTE);
    // What PostgreSQL takes for it: 1 MB, and the kilobytes of a 32-bit number.
    let maintenance_work_mem =
        reader.size(&at.key("maintenance_work_mem"), MEGABYTE..=2 * TERABYTE - KILOBYTE);
    // WAL is kept by whole segments of 16 MB: less would be exceeded by a source at rest.
    let max_retained_wal =
        reader.size(&at.key("max_retained_wal"), 16 * MEGABYTE..=1024 * TERABYTE);
    // Below a minute a restart of the daemon would lose it; beyond a day vacuum suffers for nobody.
    let snapshot_grace =
        reader.duration(&at.key("snapshot_grace"), 15 * MINUTE, MINUTE..=24 * HOUR);
    CopyConfig {
        method,
        jobs: usize::try_from(jobs).unwrap_or(1),
        max_bytes_per_second,
        maintenance_work_mem,
        max_retained_wal,
        snapshot_grace,
    }
}

fn verify(reader: &mut Reader, at: &KeyPath) -> VerifyConfig {
    reader.section(at);
    // Two keep both sides of a small pair busy; more is for servers with cores to spare.
    let jobs = reader.integer(&at.key("jobs"), 2, 1..=64);
    let max_bytes_per_second =
        reader.size(&at.key("max_bytes_per_second"), 64 * KILOBYTE..=TERABYTE);
    let background = background(reader, at);
    VerifyConfig { jobs: usize::try_from(jobs).unwrap_or(1), max_bytes_per_second, background }
}

fn background(reader: &mut Reader, at: &KeyPath) -> Option<BackgroundConfig> {
    // 100 GB in seven hours.
    const DEFAULT_RATE: u64 = 4 * MEGABYTE;
    let key = at.key("background_bytes_per_second");
    let rate = reader.size(&key, 0..=TERABYTE).unwrap_or(DEFAULT_RATE);
    if (1..64 * KILOBYTE).contains(&rate) {
        reader.refuse(
            &key,
            "a round would never end: from 64kB",
            "write 0 to switch the verification in the background off",
        );
    }
    // Rounds of a small database would otherwise follow each other without a rest.
    let pause = reader.duration(&at.key("background_pause"), 10 * MINUTE, SECOND..=7 * 24 * HOUR);
    (rate > 0).then_some(BackgroundConfig { bytes_per_second: rate, pause })
}

fn sequences(reader: &mut Reader, at: &KeyPath) -> SequencesConfig {
    reader.section(at);
    // A billion is half of what an integer sequence has: beyond it, a slip of the finger is likelier.
    SequencesConfig { headroom: reader.integer(&at.key("headroom"), 1000, 1..=1_000_000_000) }
}

fn cutover(reader: &mut Reader, at: &KeyPath, heartbeat_interval: Duration) -> CutoverConfig {
    reader.section(at);
    let max_lag = reader.duration(&at.key("max_lag"), SECOND, MILLISECOND..=60 * MINUTE);
    if max_lag <= heartbeat_interval {
        // Lag is the age of the last heartbeat: between two of them it grows to a whole interval.
        reader.refuse(
            &at.key("max_lag"),
            "it must be above heartbeat_interval: lag cannot be seen to fall below that",
            "raise max_lag, or lower heartbeat_interval",
        );
    }
    let stall_budget =
        reader.duration(&at.key("stall_budget"), 5 * SECOND, MILLISECOND..=10 * MINUTE);
    // Above stall_budget it is not a mistake: then a working session aborts the switchover, and is
    // never ended by it.
    let grace = reader.duration(&at.key("grace"), 200 * MILLISECOND, Duration::ZERO..=10 * MINUTE);
    let require_verification = reader.boolean(&at.key("require_verification"), true);
    // Below a minute the one that ended before `ready` would be too old for a person to use.
    let verification_max_age =
        reader.duration(&at.key("verification_max_age"), 24 * HOUR, MINUTE..=30 * 24 * HOUR);
    CutoverConfig { max_lag, stall_budget, grace, require_verification, verification_max_age }
}

fn fence(reader: &mut Reader, at: &KeyPath) -> FenceConfig {
    reader.section(at);
    let method = reader.choice(&at.key("method"), FenceMethod::ReadOnly);
    let roles = reader.texts(&at.key("roles"));
    let exclude_roles = reader.texts(&at.key("exclude_roles")).unwrap_or_default();
    if let Some(roles) = &roles {
        let key = at.key("roles");
        if roles.is_empty() {
            reader.refuse(&key, "no role is named", "remove the key for every role that may write");
        }
        for role in roles.iter().filter(|role| exclude_roles.contains(role)) {
            reader.refuse(
                &key,
                format!("\"{role}\" is named in exclude_roles as well"),
                "a role is either fenced or not: name it once",
            );
        }
    }
    FenceConfig { method, roles, exclude_roles }
}

/// libpq goes on to the next host when a session is read-only, and not when its login is refused.
fn no_login_with_multi_host(
    reader: &mut Reader,
    at: &KeyPath,
    fence: &FenceConfig,
    traffic: Option<&TrafficConfig>,
) {
    match (fence.method, traffic) {
        (FenceMethod::NoLogin, Some(TrafficConfig::MultiHost)) => reader.refuse(
            &at.key("method"),
            "\"no_login\" goes with no traffic method \"multi_host\": a client does not go on to the next host when its login is refused",
            "use \"read_only\", or set traffic.method to \"pgbouncer\", \"command\" or \"webhook\"",
        ),
        (FenceMethod::NoLogin | FenceMethod::ReadOnly, _) => {}
    }
}
