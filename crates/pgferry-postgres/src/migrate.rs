//! pgferry's own tables: the SQL files under `migrations/`, embedded and applied by refinery.
//!
//! Makes tables, never rows that say who a node is: those belong to whoever holds the epoch.
//! Each set has a history table of its own inside schema `pgferry`, so that the node's tables and
//! the journal's can live in one database, or apart, and leave nothing outside that schema.

use refinery::{Migration, Runner};
use tokio_postgres::Client;

/// Brings the tables of a node (its record, heartbeat, marker, …) up to this version.
///
/// A second run changes nothing, and two at once wait for each other. When it fails or is dropped
/// half-way, throw the connection away: the lock is the session's.
pub async fn migrate_node(client: &mut Client) -> Result<(), MigrateError> {
    NODE.run(client).await
}

/// Brings the journal's tables up to this version; otherwise like [`migrate_node`].
pub async fn migrate_journal(client: &mut Client) -> Result<(), MigrateError> {
    JOURNAL.run(client).await
}

/// pgferry's own tables could not be brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// Another run holds the lock, or the lock could not be asked for.
    #[error("could not lock schema pgferry against another installation")]
    Lock(#[source] tokio_postgres::Error),
    /// The schema is not there and could not be made.
    #[error("could not create schema pgferry")]
    Schema(#[source] tokio_postgres::Error),
    /// An embedded file does not carry a usable name.
    #[error("embedded migration {name} of pgferry's {set} tables is not usable")]
    Embedded {
        /// `node` or `journal`.
        set: &'static str,
        /// The file's name without its ending.
        name: &'static str,
        /// What refinery says about it.
        #[source]
        source: refinery::Error,
    },
    /// A file failed, or the database was left by a version of pgferry that this one does not know.
    #[error("could not bring pgferry's {set} tables up to date")]
    Apply {
        /// `node` or `journal`.
        set: &'static str,
        /// What refinery says about it.
        #[source]
        source: refinery::Error,
    },
}

/// Listed by hand instead of by `embed_migrations!`: that macro does not notice a new file until
/// something else is recompiled, and a forgotten table is found only on a server.
const NODE: MigrationSet = MigrationSet {
    set: "node",
    history: "pgferry.node_history",
    files: &[
        ("V1__node", include_str!("../../../migrations/node/V1__node.sql")),
        ("V2__pieces", include_str!("../../../migrations/node/V2__pieces.sql")),
        ("V3__set_aside", include_str!("../../../migrations/node/V3__set_aside.sql")),
        ("V4__verified", include_str!("../../../migrations/node/V4__verified.sql")),
        ("V5__parts", include_str!("../../../migrations/node/V5__parts.sql")),
        ("V6__login", include_str!("../../../migrations/node/V6__login.sql")),
    ],
};

const JOURNAL: MigrationSet = MigrationSet {
    set: "journal",
    history: "pgferry.journal_history",
    files: &[("V1__journal", include_str!("../../../migrations/journal/V1__journal.sql"))],
};

struct MigrationSet {
    set: &'static str,
    history: &'static str,
    files: &'static [(&'static str, &'static str)],
}

impl MigrationSet {
    async fn run(&self, client: &mut Client) -> Result<(), MigrateError> {
        let runner = self.runner()?;
        client.execute(LOCK_SQL, &[&LOCK_KEY]).await.map_err(MigrateError::Lock)?;
        let applied = match ensure_schema(client).await {
            Ok(()) => self.apply(&runner, client).await,
            Err(error) => Err(error),
        };
        // When the unlock fails the connection is gone, and the lock with it.
        let unlocked = client.execute(UNLOCK_SQL, &[&LOCK_KEY]).await;
        applied.and(unlocked.map(|_| ()).map_err(MigrateError::Lock))
    }

    fn runner(&self) -> Result<Runner, MigrateError> {
        let mut migrations = Vec::with_capacity(self.files.len());
        for &(name, sql) in self.files {
            let migration = Migration::unapplied(name, sql)
                .map_err(|source| MigrateError::Embedded { set: self.set, name, source })?;
            migrations.push(migration);
        }
        let mut runner = Runner::new(&migrations);
        runner.set_migration_table_name(self.history);
        Ok(runner)
    }

    async fn apply(&self, runner: &Runner, client: &mut Client) -> Result<(), MigrateError> {
        match runner.run_async(client).await {
            Ok(report) => {
                for migration in report.applied_migrations() {
                    tracing::info!(set = self.set, %migration, "made pgferry's own tables");
                }
                Ok(())
            }
            Err(source) => Err(MigrateError::Apply { set: self.set, source }),
        }
    }
}

/// An advisory lock of the session, because refinery opens a transaction for each file; without
/// it two runs would both see a file as missing. The key is "pgferry" in bytes.
const LOCK_KEY: i64 = 0x0070_6766_6572_7279;
const LOCK_SQL: &str = "SELECT pg_advisory_lock($1)";
const UNLOCK_SQL: &str = "SELECT pg_advisory_unlock($1)";

/// Looks before it creates: `CREATE SCHEMA IF NOT EXISTS` demands CREATE on the database even when
/// the schema is there, and an administrator may have made it for a role without that right.
async fn ensure_schema(client: &Client) -> Result<(), MigrateError> {
    let present: bool =
        client.query_one(SCHEMA_PRESENT_SQL, &[]).await.map_err(MigrateError::Schema)?.get(0);
    if !present {
        client.batch_execute(CREATE_SCHEMA_SQL).await.map_err(MigrateError::Schema)?;
    }
    Ok(())
}

const SCHEMA_PRESENT_SQL: &str = "SELECT to_regnamespace('pgferry') IS NOT NULL";

/// PUBLIC has no right on a new schema, unless default privileges say so: application roles must
/// not be able to lift their own fence. Sent as one message, so it is one transaction; an explicit
/// BEGIN would leave the session inside a failed one, unable to give the lock back.
const CREATE_SCHEMA_SQL: &str = "\
    CREATE SCHEMA pgferry; \
    REVOKE ALL ON SCHEMA pgferry FROM PUBLIC; \
    COMMENT ON SCHEMA pgferry IS 'pgferry: record of a running migration, dropped at its end'";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_embedded_file_is_usable() {
        for set in [NODE, JOURNAL] {
            let runner = set.runner().unwrap();
            assert_eq!(runner.get_migrations().len(), set.files.len());
        }
    }

    #[test]
    fn every_table_of_the_node_is_commented_and_in_our_schema() {
        let sql: String = NODE.files.iter().map(|(_, sql)| *sql).collect();
        let tables: Vec<&str> = sql
            .lines()
            .filter_map(|line| line.strip_prefix("CREATE TABLE "))
            .filter_map(|rest| rest.split_whitespace().next())
            .collect();
        assert_eq!(tables.len(), 7);
        for table in tables {
            assert!(table.starts_with("pgferry."), "{table}");
            assert!(sql.contains(&format!("COMMENT ON TABLE {table} IS")), "{table}");
        }
    }
}
