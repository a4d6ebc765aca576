//! One of the two servers: its pooled connections, who it must be, and how it is mutated.
//!
//! Every new connection is checked: a host name may have come to mean the other server. Nothing
//! is mutated here without the guard of [`crate::statements`].

use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use deadpool_postgres::{Hook, HookError, Object, Pool, PoolError, QueueMode, Runtime};
use pgferry_config::NodeConfig;
use pgferry_engine::Fault;
use pgferry_plan::{Blocker, MigrationName, Side};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use uuid::Uuid;

use crate::connect::{ConnectError, Connector};
use crate::quote::literal;
use crate::statements::{EPOCH_RAISED, Guard, MARKER_MISSING, RECORD_CHANGED, guarded};

/// Looks of one tick run side by side; the copy has connections of its own.
const POOL_SIZE: usize = 6;
/// A connection that fails only after this was not refused: packets are lost on the way. For as long
/// afterwards it is not tried again.
const SILENCE: Duration = Duration::from_secs(3);
/// A look that takes longer is a look that failed; a mutation has its own lock_timeout.
const WAIT: Duration = Duration::from_secs(15);

/// Raising the epoch waits for what is in flight, whose session is ended first. It is tried again,
/// and meanwhile somebody may have a fence to open on the other side.
const RAISING: Duration = Duration::from_secs(4);

/// A server, under the name of its side.
#[derive(Clone)]
pub struct Node {
    side: Side,
    database: String,
    connector: Connector,
    pool: Pool,
    expected: Arc<Mutex<Option<Uuid>>>,
    epoch: Arc<AtomicI64>,
    migration: MigrationName,
    /// Looks given up since the last one that was answered.
    unanswered: Arc<AtomicU32>,
    /// When a connection last timed out, unless one has come about since.
    silent_since: Arc<Mutex<Option<Instant>>>,
}

impl Node {
    /// Prepares the connections of a side; does not connect.
    ///
    /// # Errors
    /// When the login cannot be used at all: a certificate that cannot be read, for instance.
    pub fn new(
        migration: &MigrationName,
        side: Side,
        config: &NodeConfig,
    ) -> Result<Self, ConnectError> {
        let connector = Connector::new(&config.login)?;
        let expected: Arc<Mutex<Option<Uuid>>> = Arc::default();
        let epoch: Arc<AtomicI64> = Arc::default();
        let check = Arc::clone(&expected);
        let (named, under) = (migration.clone(), Arc::clone(&epoch));
        let pool = Pool::builder(connector.manager(&application_name(migration, 0)))
            .max_size(POOL_SIZE)
            // The connection used last has every statement of a look prepared; in turn, each would
            // prepare them anew in the middle of a stall.
            .queue_mode(QueueMode::Lifo)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(WAIT))
            .create_timeout(Some(WAIT))
            .post_create(Hook::async_fn(move |client, _| {
                let expected = *check.lock().unwrap_or_else(PoisonError::into_inner);
                // The name by which a successor finds, and ends, the sessions of this leadership.
                let name = application_name(&named, under.load(Ordering::Relaxed));
                Box::pin(async move {
                    let named = format!("SET application_name = {}", literal(&name));
                    client.batch_execute(&named).await.map_err(HookError::Backend)?;
                    identify(client, side, expected).await.map_err(HookError::message)
                })
            }))
            .build()
            .map_err(|error| ConnectError::Configuration { reason: error.to_string() })?;
        Ok(Self {
            side,
            database: config.login.dsn.dbname().to_owned(),
            connector,
            pool,
            expected,
            epoch,
            migration: migration.clone(),
            unanswered: Arc::default(),
            silent_since: Arc::default(),
        })
    }

    /// The side that this server is.
    pub fn side(&self) -> Side {
        self.side
    }

    /// The database's name.
    pub(crate) fn database(&self) -> &str {
        &self.database
    }

    /// How to open connections outside the pool.
    pub fn connector(&self) -> &Connector {
        &self.connector
    }

    /// `application_name` of this leadership's sessions.
    pub(crate) fn application_name(&self) -> String {
        application_name(&self.migration, self.epoch.load(Ordering::Relaxed))
    }

    /// The id that the node's record must have from now on, known from the journal.
    pub fn expect(&self, id: Option<Uuid>) {
        let mut expected = self.expected.lock().unwrap_or_else(PoisonError::into_inner);
        if *expected != id {
            *expected = id;
            drop(expected);
            self.forget_connections();
        }
    }

    /// Throws away the connections that nobody uses at the moment.
    ///
    /// For whoever gave up waiting: the connection went back with its statement still under way,
    /// would be the next one taken, and everything sent on it would wait behind that statement.
    pub fn forget_connections(&self) {
        self.pool.retain(|_, _| false);
    }

    /// How many times its usual time the next look is given. A server that is only slow needs longer
    /// for a fresh connection than for one that has every statement prepared.
    pub(crate) fn patience(&self) -> u32 {
        1 << self.unanswered.load(Ordering::Relaxed).min(2)
    }

    /// A look was answered in time.
    pub(crate) fn answered(&self) {
        self.unanswered.store(0, Ordering::Relaxed);
    }

    /// A look was given up: the next one goes over a fresh connection, and has more time.
    pub(crate) fn gave_up(&self) {
        self.forget_connections();
        self.unanswered.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection to look or act with.
    ///
    /// # Errors
    /// In words for people, without a secret.
    pub async fn client(&self) -> Result<Object, LookError> {
        if self.lately_silent() {
            return Err(LookError::Connect(ConnectError::timeout(&self.connector)));
        }
        let asked = Instant::now();
        let client = self.pool.get().await.map_err(|error| self.pool_error(error));
        let silent = client.is_err() && asked.elapsed() >= SILENCE;
        let mut silent_since = self.silent_since.lock().unwrap_or_else(PoisonError::into_inner);
        *silent_since = silent.then(Instant::now);
        client
    }

    /// Whether a connection has timed out a moment ago: what else a look asks there need not wait as
    /// long again, or nothing of it is seen in its time.
    fn lately_silent(&self) -> bool {
        let since = self.silent_since.lock().unwrap_or_else(PoisonError::into_inner);
        since.is_some_and(|since| since.elapsed() < SILENCE)
    }

    /// Raises the epoch, after ending the sessions of older leaderships: the COMMIT of a daemon
    /// that died can still land, but not after this returns.
    ///
    /// # Errors
    /// When the node was not seen to carry the new epoch.
    pub async fn raise_epoch(&self, epoch: i64) -> Result<(), LookError> {
        self.epoch.store(epoch, Ordering::Relaxed);
        self.forget_connections();
        tokio::time::timeout(RAISING, self.raise_epoch_by(epoch))
            .await
            .map_err(|_| LookError::Connect(ConnectError::timeout(&self.connector)))?
    }

    async fn raise_epoch_by(&self, epoch: i64) -> Result<(), LookError> {
        let client = self.client().await?;
        let prefix = format!("pgferry/{}/", self.migration);
        client.execute(END_OLDER_SESSIONS, &[&prefix, &epoch]).await?;
        match client.query_opt(RAISE_EPOCH, &[&epoch]).await {
            Ok(Some(_)) => {}
            // No record yet: nothing here can be mutated before this leadership installs one.
            Ok(None) if client.query_opt(ANY_RECORD, &[]).await?.is_none() => {}
            Ok(None) => return Err(LookError::Said("a newer daemon leads this migration".into())),
            Err(error) if is_missing(&error) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Asks whether this leadership still holds, for what is changed outside a database and cannot
    /// be guarded there.
    ///
    /// # Errors
    /// When it does not, or when that could not be seen.
    pub async fn check_epoch(&self, epoch: i64) -> Result<(), Fault> {
        let look = async {
            let client = self.client().await?;
            let statement = client.prepare_cached(HOLDS_EPOCH).await?;
            Ok::<_, LookError>(client.query_opt(&statement, &[&epoch]).await?.is_some())
        };
        match look.await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Fault::EpochRaised),
            Err(error) => Err(self.fault(&error)),
        }
    }

    fn pool_error(&self, error: PoolError) -> LookError {
        match error {
            PoolError::Backend(error) => {
                LookError::Connect(ConnectError::from_driver(&self.connector, &error))
            }
            PoolError::PostCreateHook(HookError::Message(said)) => LookError::Said(said.into()),
            PoolError::PostCreateHook(HookError::Backend(error)) => LookError::Postgres(error),
            PoolError::Timeout(_) => LookError::Connect(ConnectError::timeout(&self.connector)),
            PoolError::Closed | PoolError::NoRuntimeSpecified => {
                LookError::Said("the connections are closed".into())
            }
        }
    }

    /// Runs one guarded mutation.
    pub(crate) async fn mutate(&self, guard: Guard, body: &str) -> Result<(), Fault> {
        let client = self.client().await.map_err(|error| self.fault(&error))?;
        match client.batch_execute(&guarded(self.side, guard, body)).await {
            Ok(()) => Ok(()),
            Err(error) => {
                // After a transaction that called pglogical and did not commit, the next commit of
                // the same session can crash the whole server (2.4.2, seen).
                drop(Object::take(client));
                Err(self.fault(&LookError::from(error)))
            }
        }
    }

    /// What an error means for the engine.
    pub(crate) fn fault(&self, error: &LookError) -> Fault {
        if let LookError::Postgres(error) = error
            && let Some(database) = error.as_db_error()
        {
            if database.code().code() == EPOCH_RAISED {
                return Fault::EpochRaised;
            }
            let (code, hint) = match database.code().code() {
                RECORD_CHANGED => ("record_changed", "nothing to do: it looks again"),
                MARKER_MISSING => (MISSES_MARKER, "nothing to do: they are on their way again"),
                code if code == SqlState::LOCK_NOT_AVAILABLE.code() => {
                    ("lock_not_available", "a long transaction holds the table; it tries again")
                }
                code if code == SqlState::INSUFFICIENT_PRIVILEGE.code() => (
                    "insufficient_privilege",
                    "run `pgferry preflight`: it prints the statements that grant what is missing",
                ),
                _ => ("statement_failed", "look into the server's log; it tries again"),
            };
            return Fault::Failed(Blocker::new(
                code,
                format!("the {}: {}", self.side, scrub(database.message())),
                hint,
            ));
        }
        let (code, hint) = error.code_and_hint();
        Fault::Failed(Blocker::new(code, format!("the {}: {error}", self.side), hint))
    }
}

/// Why a look failed, without a secret.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// No connection.
    #[error("{0}")]
    Connect(ConnectError),
    /// The server's answer.
    #[error("{}", describe(.0))]
    Postgres(#[from] tokio_postgres::Error),
    /// Everything else, in words.
    #[error("{0}")]
    Said(String),
}

impl LookError {
    /// A word for programs, and what to do about it.
    pub fn code_and_hint(&self) -> (&'static str, &'static str) {
        match self {
            LookError::Connect(error) => (error.code(), error.hint()),
            LookError::Postgres(_) => ("statement_failed", "look into the server's log"),
            LookError::Said(said) if said.starts_with(EXCHANGED) => {
                (EXCHANGED, "exchange the two DSNs in the configuration, and restart")
            }
            LookError::Said(said) if said.starts_with(WRONG_SERVER) => {
                (WRONG_SERVER, "point the DSN at the server that the migration was started with")
            }
            LookError::Said(_) => ("unreachable", "it tries again by itself"),
        }
    }
}

/// An error with its cause; the driver's own text says only "db error".
pub(crate) fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(database) => scrub(database.message()),
        None => {
            let cause = std::error::Error::source(error).map(|cause| format!(": {cause}"));
            scrub(&format!("{error}{}", cause.unwrap_or_default()))
        }
    }
}

/// pglogical prints whole DSNs into its errors, password included.
pub fn scrub(text: &str) -> String {
    let Some(at) = text.find("password=") else { return text.to_owned() };
    let value = at + "password=".len();
    let rest = &text[value..];
    let end = if let Some(quoted) = rest.strip_prefix('\'') {
        // A quote within the value is escaped by a backslash, in libpq's form.
        let mut escaped = false;
        quoted
            .char_indices()
            .find(|(_, c)| {
                let ends = *c == '\'' && !escaped;
                escaped = *c == '\\' && !escaped;
                ends
            })
            .map_or(rest.len(), |(index, _)| index + 2)
    } else {
        rest.find(char::is_whitespace).unwrap_or(rest.len())
    };
    format!("{}[redacted]{}", &text[..value], scrub(&rest[end..]))
}

/// Whether an error says that a table, schema or function of ours or pglogical's is not there.
pub(crate) fn is_missing(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| {
        *code == SqlState::UNDEFINED_TABLE
            || *code == SqlState::INVALID_SCHEMA_NAME
            || *code == SqlState::UNDEFINED_FUNCTION
    })
}

fn application_name(migration: &MigrationName, epoch: i64) -> String {
    format!("pgferry/{migration}/{epoch}")
}

/// The code of a fault: the other side's marker has not arrived.
pub(crate) const MISSES_MARKER: &str = "marker_missing";

const EXCHANGED: &str = "servers_exchanged";
const WRONG_SERVER: &str = "wrong_server";

async fn identify(client: &Client, side: Side, expected: Option<Uuid>) -> Result<(), String> {
    let there = client.query_one(RECORD_THERE, &[]).await.and_then(|row| row.try_get(0));
    let row = match there {
        Ok(true) => client.query_opt(IDENTIFY, &[]).await,
        Ok(false) => Ok(None),
        Err(error) => Err(error),
    };
    let row = match row {
        Ok(Some(row)) => Some(row),
        Ok(None) => None,
        Err(error) if is_missing(&error) => None,
        Err(error) => return Err(describe(&error)),
    };
    let Some(row) = row else {
        // Absent would be taken for "removed": a server that should have a record and has none is
        // another one, or a restored one.
        return match expected {
            None => Ok(()),
            Some(_) => Err(format!(
                "{WRONG_SERVER}: the server configured as {side} does not carry this migration's record"
            )),
        };
    };
    let found = row.try_get::<_, String>(0).and_then(|side| Ok((side, row.try_get::<_, Uuid>(1)?)));
    let (found_side, found) = found.map_err(|error| describe(&error))?;
    if found_side != side.as_str() {
        return Err(format!(
            "{EXCHANGED}: the server configured as {side} carries the record of the {found_side}"
        ));
    }
    match expected {
        Some(expected) if expected != found => Err(format!(
            "{WRONG_SERVER}: the server configured as {side} carries the record of another migration"
        )),
        Some(_) | None => Ok(()),
    }
}

const RECORD_THERE: &str = "SELECT to_regclass('pgferry.node') IS NOT NULL";

const IDENTIFY: &str = "SELECT side, id FROM pgferry.node";

const HOLDS_EPOCH: &str = "SELECT FROM pgferry.node WHERE epoch = $1";

const RAISE_EPOCH: &str = "UPDATE pgferry.node SET epoch = $1 WHERE epoch <= $1 RETURNING epoch";

const ANY_RECORD: &str = "SELECT 1 FROM pgferry.node";

/// Sessions of this migration's older leaderships. Looks before any leadership carry epoch 0 and
/// mutate nothing.
const END_OLDER_SESSIONS: &str = "\
    SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity \
    WHERE starts_with(application_name, $1) AND pid <> pg_backend_pid() \
    AND substr(application_name, length($1) + 1) ~ '^[0-9]{1,18}' \
    AND (regexp_match(substr(application_name, length($1) + 1), '^[0-9]{1,18}'))[1]::bigint \
        BETWEEN 1 AND $2::bigint - 1";

#[cfg(test)]
mod tests {
    use super::scrub;

    #[test]
    fn a_password_in_an_error_is_never_passed_on() {
        for (text, wanted) in [
            (
                "could not connect: host=a password=secret user=b",
                "could not connect: host=a password=[redacted] user=b",
            ),
            ("password='it\\'s secret' x", "password=[redacted] x"),
            ("password=a password=b", "password=[redacted] password=[redacted]"),
            ("password='never ends", "password=[redacted]"),
            ("nothing", "nothing"),
        ] {
            assert_eq!(scrub(text), wanted);
        }
    }
}
