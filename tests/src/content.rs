//! What two databases hold, compared table by table.
//!
//! A digest is a count and two sums of 64-bit hashes of each row's text: it needs no sorting, and
//! unlike an exclusive-or it sees a row that is there twice. It looks at the application's tables
//! only: what pgferry and pglogical keep is theirs, and differs between the sides by design.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::Duration;

use pgferry_plan::Side;

use crate::cluster::Cluster;
use crate::expect::eventually;
use crate::pair::{DATABASE, Pair};
use crate::process;
use crate::session::Session;

/// A table's name, and its digest.
pub type Digests = BTreeMap<String, String>;

/// The digests of every application table of a database.
#[must_use]
pub fn digests(cluster: &Cluster) -> Digests {
    let session = cluster.admin(DATABASE);
    // The text of a value depends on these.
    session.run(
        "SET timezone = 'UTC'; SET datestyle = 'ISO'; SET intervalstyle = 'postgres';
         SET extra_float_digits = 3; SET bytea_output = 'hex'; SET row_security = off",
    );
    let digest = |table: String| {
        let value = session.value(&format!(
            "SELECT count(*) || ' rows, ' || coalesce(sum(hashtextextended(r::text, 0)), 0)
                    || '/' || coalesce(sum(hashtextextended(r::text, 1)), 0)
               FROM ONLY {table} AS r"
        ));
        (table, value.unwrap_or_default())
    };
    tables(&session).into_iter().map(digest).collect()
}

/// Tables whose content differs, or that only one side has; empty when all agree.
#[must_use]
pub fn differences(one: &Cluster, other: &Cluster) -> Vec<String> {
    let (left, right) = thread::scope(|scope| {
        let right = scope.spawn(|| digests(other));
        (digests(one), right.join().unwrap_or_else(|e| std::panic::resume_unwind(e)))
    });
    let names: BTreeSet<&String> = left.keys().chain(right.keys()).collect();
    names
        .into_iter()
        .filter(|table| left.get(*table) != right.get(*table))
        .map(|table| {
            let text = |side: &Digests| side.get(table).cloned().unwrap_or("no table".to_owned());
            format!("{table}: {} {}, {} {}", one.side(), text(&left), other.side(), text(&right))
        })
        .collect()
}

/// Waits until every table agrees: with writers held, what is still on its way arrives.
pub fn wait_until_equal(one: &Cluster, other: &Cluster, deadline: Duration) {
    eventually("the contents of both sides to agree", deadline, || {
        let differences = differences(one, other);
        if differences.is_empty() { Ok(()) } else { Err(differences.join("\n")) }
    });
}

/// Waits until each side has the other's heartbeat of a moment after this call: then everything
/// that was committed before the call has been applied, because a stream keeps the order of
/// commits. Writers must be held, or there is always more.
pub fn wait_until_settled(pair: &Pair, deadline: Duration) {
    for side in Side::BOTH {
        let here = pair.admin(side);
        let there = pair.admin(side.other());
        let now = here.value("SELECT clock_timestamp()").unwrap_or_default();
        let arrived =
            format!("SELECT beat_at > '{now}' FROM pgferry.heartbeat WHERE side = '{side}'");
        eventually(&format!("a heartbeat of the {side} to arrive"), deadline, || {
            match there.value(&arrived).as_deref() {
                Some("t") => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
    }
}

/// How many tables there are to compare.
#[must_use]
pub fn table_count(cluster: &Cluster) -> usize {
    tables(&cluster.admin(DATABASE)).len()
}

/// The definitions of the application's schemas, as pg_dump prints them.
///
/// Both sides are read by the newer of the two programs, or each other's spelling would differ.
#[must_use]
pub fn structure(cluster: &Cluster, dumped_by: &Cluster) -> String {
    let mut command = std::process::Command::new(dumped_by.bin().join("pg_dump"));
    command
        .env("PGHOST", cluster.dir())
        .env("PGPORT", cluster.port().to_string())
        .args(["-U", "postgres", "--schema-only"])
        .args(["--exclude-schema=pgferry", "--exclude-schema=pglogical", DATABASE]);
    let dump = process::run(command).stdout;
    String::from_utf8_lossy(&dump)
        .lines()
        // Minor releases write a random key into these; the extension is the administrator's.
        .filter(|line| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict"))
        .filter(|line| !line.starts_with("--") && !line.is_empty())
        .filter(|line| !line.contains("EXTENSION"))
        // The administrator's before 15, the database owner's since; each server makes its own.
        .filter(|line| !line.starts_with("ALTER SCHEMA public OWNER TO "))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Sequences that would hand out, on the active side, a value the passive side has handed out
/// already; empty when none would.
#[must_use]
pub fn sequences_behind(active: &Cluster, passive: &Cluster) -> Vec<String> {
    let ahead = sequences(active);
    sequences(passive)
        .into_iter()
        .filter_map(|(name, used)| {
            let last = used.last?;
            let next = ahead.get(&name).and_then(|s| s.last);
            let behind = match next {
                None => true,
                Some(next) if used.increment > 0 => next < last,
                Some(next) => next > last,
            };
            behind.then(|| format!("{name}: {next:?} on the active side, {last} on the passive"))
        })
        .collect()
}

#[derive(Clone, Copy, Debug)]
struct SequenceState {
    /// `None` when no value was ever taken.
    last: Option<i64>,
    increment: i64,
}

fn sequences(cluster: &Cluster) -> BTreeMap<String, SequenceState> {
    cluster
        .sql(DATABASE, SEQUENCES)
        .into_iter()
        .filter_map(|row| {
            let mut columns = row.into_iter();
            let name = columns.next()??;
            let last = columns.next()?.and_then(|text| text.parse().ok());
            let increment = columns.next()??.parse().ok()?;
            Some((name, SequenceState { last, increment }))
        })
        .collect()
}

fn tables(session: &Session) -> Vec<String> {
    session.column(TABLES)
}

/// Ordinary tables, partitions among them; a partitioned parent holds nothing itself.
const TABLES: &str = "
SELECT format('%I.%I', n.nspname, c.relname)
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind = 'r' AND c.relpersistence <> 't'
   AND n.nspname NOT IN ('information_schema', 'pglogical', 'pgferry')
   AND n.nspname NOT LIKE 'pg\\_%'
 ORDER BY 1";

const SEQUENCES: &str = "
SELECT format('%I.%I', schemaname, sequencename), last_value, increment_by
  FROM pg_sequences WHERE schemaname NOT IN ('pglogical', 'pgferry')";
