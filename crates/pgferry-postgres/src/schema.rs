//! The schema: carried by `pg_dump` and `pg_restore`, pre-data before the rows, post-data after.
//!
//! Nothing of pgferry's or pglogical's own is carried, nor what extensions own, nor publications
//! and subscriptions, nor event triggers. Definitions of excluded tables are; only their rows are not. Pre-data is all
//! or nothing; post-data may be repeated until [`missing_post_data`] finds nothing. No step is
//! done because one of these functions returned.

mod child;
mod gist;
mod look;
mod private_dir;
mod refresh;
mod toc;
mod tools;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use crate::connect::{ConnectError, Connector};
use child::Child;
use private_dir::PrivateDir;
use toc::{Entry, Stage};

pub(crate) use gist::gist;
pub use look::missing_post_data;
pub(crate) use look::{PostData, compare_post_data, missing_keys};
pub use tools::SchemaTools;

/// Schemas that never leave their server.
const OUR_SCHEMAS: [&str; 2] = ["pgferry", "pglogical"];

const SCHEMAS: &str = "SELECT oid, nspname FROM pg_namespace";
/// With `--schema` pg_dump leaves extensions out, and types and functions of theirs are missed.
/// One that lives in a schema out of scope cannot be made without that schema.
const EXTENSIONS: &str = "SELECT e.extname
FROM pg_extension AS e JOIN pg_namespace AS n ON n.oid = e.extnamespace
WHERE e.extname <> ALL ('{pglogical,plpgsql}')
  AND (n.nspname = ANY ($1) OR n.nspname IN ('pg_catalog', 'public'))
ORDER BY e.extname";

/// Waiting for a table's lock holds nobody up, but a pg_dump that waits looks like one that hangs.
const LOCK_WAIT: &str = "30s";

/// Which schemas the migration carries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SchemaScope {
    /// By their catalog names; `None` means every schema but the system's and ours.
    pub schemas: Option<Vec<String>>,
}

/// What one run of the schema tools needs.
pub struct SchemaCopy<'a> {
    /// The programs, not older than the source.
    pub tools: &'a SchemaTools,
    /// Where definitions come from.
    pub source: &'a Connector,
    /// Where they go.
    pub destination: &'a Connector,
    /// Which of them.
    pub scope: &'a SchemaScope,
    /// The leadership that this belongs to.
    pub epoch: i64,
    /// Shown by every session of the tools on both servers, so that a successor can end them.
    pub application_name: &'a str,
    /// Ends the running tool, and its workers.
    pub cancel: &'a CancellationToken,
}

impl SchemaCopy<'_> {
    /// Makes schemas, types, functions, tables, views and what else comes before rows, with
    /// owners and grants, in one transaction under the epoch. Fails, and changes nothing, when
    /// any of it is there already, but for schemas and extensions.
    ///
    /// By `pg_restore`'s script through `psql`, not by `pg_restore` on the database: that grants
    /// only after it has handed every table to its owner, and an owner who is no superuser may
    /// take a table only in a schema that is granted to him.
    pub async fn copy_pre_data(&self) -> Result<(), SchemaError> {
        let dir = PrivateDir::new()?;
        let dump = self.dump(&dir).await?;
        let there = self.schemas_of_both().await?;
        let kept: Vec<Entry> = self
            .entries(&dump)
            .await?
            .into_iter()
            .filter(|e| !e.stays_behind() && e.stage == Stage::BeforeRows)
            .filter(|e| !e.is_already_there(&there))
            .collect();
        let (schemas, rest): (Vec<_>, Vec<_>) = kept.iter().partition(|e| e.is_about_schemas());
        let epoch = dir.write("epoch.sql", epoch_check(self.epoch))?;
        let schemas = self.script(&dir, &dump, "schemas", &schemas).await?;
        let rest = self.script(&dir, &dump, "rest", &rest).await?;
        self.run_scripts(&[&epoch, &schemas, &rest]).await
    }

    /// Builds indexes, constraints, triggers, rules, policies and statistics objects that the
    /// destination does not have yet, `jobs` at a time, then fills materialized views. What
    /// pg_dump postpones because it needs a key is made between the two, in one transaction
    /// under the epoch with its owners and grants: a matview, say, that groups by it.
    ///
    /// Each object is a transaction of its own, so an interrupted run loses at most those under
    /// way, and the next one leaves out what is there. `pg_restore` cannot check the epoch in
    /// each of them; it is checked before, and a late one only finds its object made.
    pub async fn build_post_data(&self, jobs: usize) -> Result<(), SchemaError> {
        let dir = PrivateDir::new()?;
        let dump = self.dump(&dir).await?;
        let name = self.application_name;
        let source = self.source.connect(name).await.map_err(SchemaError::Source)?;
        let destination = self.destination.connect(name).await.map_err(SchemaError::Destination)?;
        self.check_epoch(&destination).await?;
        let present = look::present_objects(&source, &destination, self.scope).await?;
        let entries: Vec<Entry> =
            self.entries(&dump).await?.into_iter().filter(|e| !e.stays_behind()).collect();
        let missing = |stage: Stage| {
            let present = &present;
            move |e: &&Entry| e.stage == stage && !present.contains(&e.object)
        };
        let mut early = 0;
        if entries.iter().any(|e| e.is_postponed_object() && !present.contains(&e.object)) {
            let needed = toc::before_postponed(&entries);
            early = needed.len();
            let needed: Vec<&Entry> = needed.iter().filter(missing(Stage::AfterRows)).collect();
            self.restore(&dir, &dump, "keys", &needed, jobs).await?;
            let postponed: Vec<&Entry> = entries.iter().filter(missing(Stage::Postponed)).collect();
            let epoch = dir.write("epoch.sql", epoch_check(self.epoch))?;
            let postponed = self.script(&dir, &dump, "postponed", &postponed).await?;
            self.run_scripts(&[&epoch, &postponed]).await?;
        }
        let rest: Vec<&Entry> = entries[early..].iter().filter(missing(Stage::AfterRows)).collect();
        self.restore(&dir, &dump, "post-data", &rest, jobs).await?;
        refresh::fill_materialized_views(self, &source).await
    }

    /// Builds the keys and indexes of tables before their rows, for a copy that is followed at once
    /// by changes; everything else of post-data is left to [`Self::build_post_data`].
    pub async fn build_keys(&self, jobs: usize) -> Result<(), SchemaError> {
        let dir = PrivateDir::new()?;
        let dump = self.dump(&dir).await?;
        let name = self.application_name;
        let source = self.source.connect(name).await.map_err(SchemaError::Source)?;
        let destination = self.destination.connect(name).await.map_err(SchemaError::Destination)?;
        self.check_epoch(&destination).await?;
        let absent = look::absent_keys(&source, &destination, self.scope).await?;
        let entries = self.entries(&dump).await?;
        let wanted: Vec<&Entry> = entries
            .iter()
            .filter(|entry| !entry.stays_behind())
            .filter(|entry| entry.attaches_an_index() || absent.contains(&entry.object))
            .collect();
        self.restore(&dir, &dump, "keys", &wanted, jobs).await
    }

    /// The whole schema in custom format. Security labels are carried: one that the destination
    /// has no provider for is an error, because a masking rule must not vanish in silence.
    async fn dump(&self, dir: &PrivateDir) -> Result<PathBuf, SchemaError> {
        let file = dir.path("schema.dump");
        let mut dump = self.tool("pg_dump", self.source);
        dump.args(["--format=custom", "--schema-only", "--no-password", "--no-tablespaces"]);
        dump.args(["--no-publications", "--no-subscriptions"]);
        dump.arg(format!("--lock-wait-timeout={LOCK_WAIT}"));
        dump.arg(file_argument("--file=", &file));
        for schema in OUR_SCHEMAS {
            dump.arg(format!("--exclude-schema={}", pattern(schema)));
        }
        if let Some(schemas) = &self.scope.schemas {
            dump.arg("--strict-names");
            for schema in schemas {
                dump.arg(format!("--schema={}", pattern(schema)));
            }
            for extension in self.extensions(schemas).await? {
                dump.arg(format!("--extension={}", pattern(&extension)));
            }
        }
        dump.run(self.cancel).await?;
        Ok(file)
    }

    async fn entries(&self, dump: &Path) -> Result<Vec<Entry>, SchemaError> {
        let mut list = Child::new(self.tools.program("pg_restore"));
        list.arg("--list").arg(dump);
        Ok(toc::parse(&list.run(self.cancel).await?))
    }

    /// The SQL of some pre-data entries.
    async fn script(
        &self,
        dir: &PrivateDir,
        dump: &Path,
        name: &str,
        entries: &[&Entry],
    ) -> Result<PathBuf, SchemaError> {
        let list = dir.write(&format!("{name}.list"), toc::list(entries.iter().copied()))?;
        let whole = dir.path(&format!("{name}.whole.sql"));
        let mut restore = Child::new(self.tools.program("pg_restore"));
        restore.arg("--no-tablespaces").arg(file_argument("--use-list=", &list));
        restore.arg(file_argument("--file=", &whole)).arg(dump);
        restore.run(self.cancel).await?;
        let reading = SchemaError::io(format!("reading {}", whole.display()));
        let text = std::fs::read(&whole).map_err(reading)?;
        dir.write(&format!("{name}.sql"), child::without_newer_setting(&text))
    }

    /// Runs scripts on the destination as one transaction.
    async fn run_scripts(&self, files: &[&PathBuf]) -> Result<(), SchemaError> {
        let mut psql = self.tool("psql", self.destination);
        psql.args(["--no-psqlrc", "--quiet", "--no-password", "--single-transaction"]);
        psql.args(["--set=ON_ERROR_STOP=1", "--output=/dev/null"]);
        for file in files {
            psql.arg(file_argument("--file=", file));
        }
        psql.run(self.cancel).await?;
        Ok(())
    }

    /// Makes each entry on the destination by itself; goes on after one that fails.
    async fn restore(
        &self,
        dir: &PrivateDir,
        dump: &Path,
        name: &str,
        entries: &[&Entry],
        jobs: usize,
    ) -> Result<(), SchemaError> {
        if entries.is_empty() {
            return Ok(());
        }
        let list = dir.write(&format!("{name}.list"), toc::list(entries.iter().copied()))?;
        let mut restore = self.tool("pg_restore", self.destination);
        restore.forgive_newer_setting();
        restore.args(["--no-password", "--no-tablespaces"]);
        restore.arg(format!("--jobs={}", jobs.max(1)));
        restore.arg(file_argument("--use-list=", &list)).arg(dump);
        restore.run(self.cancel).await?;
        Ok(())
    }

    /// Schemas that both sides have, by the source's object ids, and their names.
    async fn schemas_of_both(&self) -> Result<toc::SchemasThere, SchemaError> {
        let name = self.application_name;
        let source = self.source.connect(name).await.map_err(SchemaError::Source)?;
        let destination = self.destination.connect(name).await.map_err(SchemaError::Destination)?;
        let there: BTreeSet<String> = destination
            .query(SCHEMAS, &[])
            .await
            .map_err(|error| SchemaError::look("destination", &error))?
            .iter()
            .map(|row| row.get("nspname"))
            .collect();
        let both = source
            .query(SCHEMAS, &[])
            .await
            .map_err(|error| SchemaError::look("source", &error))?
            .iter()
            .map(|row| (row.get::<_, u32>("oid"), row.get::<_, String>("nspname")))
            .filter(|(_, name)| there.contains(name))
            .collect();
        Ok(toc::SchemasThere(both))
    }

    async fn extensions(&self, schemas: &[String]) -> Result<Vec<String>, SchemaError> {
        if self.tools.major() < 14 {
            // Without --extension: the administrator makes them, and a missing one is an error.
            return Ok(Vec::new());
        }
        let source =
            self.source.connect(self.application_name).await.map_err(SchemaError::Source)?;
        let rows = source
            .query(EXTENSIONS, &[&schemas])
            .await
            .map_err(|error| SchemaError::look("source", &error))?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    async fn check_epoch(&self, destination: &Client) -> Result<(), SchemaError> {
        const CHECK_EPOCH: &str = "SELECT 1 FROM pgferry.node WHERE epoch = $1";
        let led = destination
            .query_opt(CHECK_EPOCH, &[&self.epoch])
            .await
            .map_err(|error| SchemaError::look("destination", &error))?;
        led.map(drop).ok_or(SchemaError::EpochRaised(self.epoch))
    }

    fn tool(&self, program: &str, to: &Connector) -> Child {
        let mut child = Child::new(self.tools.program(program));
        child.connect_to(to, self.application_name);
        child
    }
}

/// Why the schema could not be carried.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// The source cannot be reached.
    #[error("source: {0}")]
    Source(#[source] ConnectError),
    /// The destination cannot be reached.
    #[error("destination: {0}")]
    Destination(#[source] ConnectError),
    /// No pg_dump that can read the source.
    #[error("no pg_dump of version {needed} or later was found{}", found(.seen))]
    ToolsMissing {
        /// The source's major version.
        needed: u32,
        /// What was found instead.
        seen: Vec<String>,
    },
    /// A tool could not be started, or its files not be written.
    #[error("{doing}: {cause}")]
    Io {
        /// What was being done.
        doing: String,
        /// Why it failed.
        #[source]
        cause: std::io::Error,
    },
    /// A tool ended with an error.
    #[error("{tool} failed: {said}")]
    Tool {
        /// Which tool.
        tool: String,
        /// The last of what it printed, without passwords.
        said: String,
    },
    /// The catalogs could not be read, or a materialized view not be filled.
    #[error("{side}: {message}")]
    Statement {
        /// On which side.
        side: &'static str,
        /// What the server or the driver said.
        message: String,
    },
    /// Another daemon leads this migration now.
    #[error("the destination's record is not of epoch {0}: another daemon leads now")]
    EpochRaised(i64),
    /// The caller stopped it.
    #[error("cancelled")]
    Cancelled,
}

impl SchemaError {
    /// The word for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Source(error) | Self::Destination(error) => error.code(),
            Self::ToolsMissing { .. } => "pg_dump_missing",
            Self::Io { .. } => "schema_tool_not_started",
            Self::Tool { .. } => "schema_tool_failed",
            Self::Statement { .. } => "schema_look_failed",
            Self::EpochRaised(_) => "epoch_raised",
            Self::Cancelled => "cancelled",
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Source(error) | Self::Destination(error) => error.hint().to_owned(),
            Self::ToolsMissing { needed, .. } => format!(
                "install postgresql-client-{needed} where pgferry runs, or set schema.pg_bindir"
            ),
            Self::Io { .. } => "check schema.pg_bindir and the space under TMPDIR".to_owned(),
            Self::Tool { .. } => "make what it could not make on the destination, as an \
                                  administrator, or change it on the source; it is tried again"
                .to_owned(),
            Self::Statement { .. } => "see the server's log".to_owned(),
            Self::EpochRaised(_) => "leave it to the daemon that leads".to_owned(),
            Self::Cancelled => String::new(),
        }
    }

    fn look(side: &'static str, error: &tokio_postgres::Error) -> Self {
        let message = error
            .as_db_error()
            .map_or_else(|| error.to_string(), |answer| answer.message().to_owned());
        Self::Statement { side, message }
    }

    fn io(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let doing = doing.into();
        move |cause| Self::Io { doing, cause }
    }
}

fn found(seen: &[String]) -> String {
    if seen.is_empty() { String::new() } else { format!(" (only {})", seen.join(", ")) }
}

/// The words by which a refused epoch is known in psql's output.
const EPOCH_RAISED: &str = "pgferry: epoch raised";

fn epoch_check(epoch: i64) -> String {
    format!(
        "DO $check$ BEGIN\n    PERFORM 1 FROM pgferry.node WHERE epoch = {epoch} FOR SHARE;\n    \
         IF NOT FOUND THEN RAISE EXCEPTION '{EPOCH_RAISED} from {epoch}'; END IF;\nEND $check$;\n"
    )
}

/// A name as a pattern of pg_dump's: in double quotes nothing in it is special.
fn pattern(name: &str) -> String {
    crate::quote::ident(name)
}

fn file_argument(option: &str, file: &Path) -> OsString {
    let mut argument = OsString::from(option);
    argument.push(file);
    argument
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_literal_patterns() {
        assert_eq!(pattern("a*b"), "\"a*b\"");
        assert_eq!(pattern("it\"s"), "\"it\"\"s\"");
    }

    #[test]
    fn missing_tools_are_named_with_what_was_found() {
        let error = SchemaError::ToolsMissing { needed: 16, seen: vec!["15 in /usr/bin".into()] };
        assert_eq!(
            error.to_string(),
            "no pg_dump of version 16 or later was found (only 15 in /usr/bin)"
        );
        assert!(error.hint().contains("postgresql-client-16"));
    }
}
