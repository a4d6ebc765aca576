//! The journal in PostgreSQL: where it is, who may write it, and how it is read back.
//!
//! One leader at a time, by a lease that it keeps renewing. An entry is appended only while the
//! lease carries the writer's epoch, in the same statement.

mod archive;

use std::path::PathBuf;
use std::time::Duration;

use deadpool_postgres::{Object, Pool, PoolError, Runtime};
use jiff::Timestamp;
use pgferry_config::{Config, Login, MigrationConfig};
use pgferry_engine::{Journal, LeadershipLost};
use pgferry_plan::facts::IllegalEntry;
use pgferry_plan::{Entry, Event, MigrationName, Side};
use tokio::time::Instant;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::connect::{ConnectError, Connector};
use crate::migrate::{MigrateError, migrate_journal};
use crate::node::{describe, is_missing};

/// For how long a lease holds without being renewed. A dead session frees it at once; this long
/// it takes only after a host is gone, or a process frozen.
///
/// Two renewals in a row may be late before a standby takes it. That costs a leadership and never a
/// write: whoever leads next raises the epoch first, and a leader without a standby renews late.
pub const LEASE_TIME: Duration = Duration::from_secs(3);
/// How often it is renewed.
pub const RENEWAL: Duration = Duration::from_secs(1);
/// An answer that takes longer is none: a server that is frozen, or behind a network that is cut,
/// must not hold up who has a fence to open. For so long a leader goes on without having renewed,
/// too: longer than the lease, because a server that is slow to commit costs a leader without a
/// standby nothing until then, and because the epoch, and not the lease, is what refuses the late.
const PATIENCE: Duration = Duration::from_secs(4);

/// The database that holds the journals.
#[derive(Clone)]
pub struct Place {
    connector: Connector,
    pool: Pool,
    side: Option<Side>,
    archive_dir: PathBuf,
}

/// Why the journal could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Its database cannot be reached.
    #[error("the journal's database: {0}")]
    Connect(ConnectError),
    /// A statement failed.
    #[error("the journal: {}", describe(.0))]
    Statement(#[from] tokio_postgres::Error),
    /// Its tables could not be made.
    #[error("the journal: {0}")]
    Migrate(#[from] MigrateError),
    /// What is in it could not have been written by pgferry.
    #[error("the journal does not add up: {0}")]
    Illegal(#[from] IllegalEntry),
    /// An event is not one of ours: a newer pgferry wrote it.
    #[error("journal entry {seq} is not understood: {reason}")]
    NotUnderstood {
        /// Its position.
        seq: i64,
        /// What does not fit.
        reason: String,
    },
    /// Its database did not answer in time.
    #[error("the journal's database does not answer")]
    NoAnswer,
    /// Another daemon leads.
    #[error("another daemon leads this migration")]
    NotLeader,
    /// The archive could not be written.
    #[error("the journal's archive {path}: {reason}")]
    Archive {
        /// The file.
        path: String,
        /// What the system said.
        reason: String,
    },
}

/// What a look for the lease found.
#[derive(Debug)]
pub enum Lead {
    /// There is no journal yet, or nothing of this migration in it.
    NotStarted,
    /// Another daemon holds the lease.
    Other,
    /// It is ours, under this epoch.
    Ours(i64),
}

impl Place {
    /// Where the configuration says that this migration's journal is; does not connect.
    ///
    /// # Errors
    /// When the login cannot be used at all.
    pub fn new(config: &Config, migration: &MigrationConfig) -> Result<Self, ConnectError> {
        let own: &Login = &migration.destination.login;
        let login = config.journal.place.as_ref().unwrap_or(own);
        let address = |login: &Login| {
            let dsn = &login.dsn;
            (dsn.host().to_owned(), dsn.port(), dsn.dbname().to_owned())
        };
        let side = Side::BOTH
            .into_iter()
            .find(|side| address(&migration.node(*side).login) == address(login));
        let connector = Connector::new(login)?;
        let name = format!("pgferry/{}/journal", migration.name);
        let pool = Pool::builder(connector.manager(&name))
            .max_size(3)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(PATIENCE))
            .create_timeout(Some(PATIENCE))
            .build()
            .map_err(|error| ConnectError::Configuration { reason: error.to_string() })?;
        Ok(Self { connector, pool, side, archive_dir: config.journal.archive_dir.clone() })
    }

    /// The side whose database it is in; None for a third place.
    pub fn side(&self) -> Option<Side> {
        self.side
    }

    async fn in_time<T>(
        &self,
        work: impl Future<Output = Result<T, JournalError>>,
    ) -> Result<T, JournalError> {
        match tokio::time::timeout(PATIENCE, work).await {
            Ok(result) => result,
            Err(_) => {
                self.forget_connections();
                Err(JournalError::NoAnswer)
            }
        }
    }

    /// Throws away the connections that nobody uses: one that was given up on went back with its
    /// statement still under way, and the next statement would wait behind it.
    pub fn forget_connections(&self) {
        self.pool.retain(|_, _| false);
    }

    async fn client(&self) -> Result<Object, JournalError> {
        self.pool.get().await.map_err(|error| match error {
            PoolError::Backend(error) => {
                JournalError::Connect(ConnectError::from_driver(&self.connector, &error))
            }
            PoolError::Timeout(_) => JournalError::Connect(ConnectError::timeout(&self.connector)),
            PoolError::Closed | PoolError::NoRuntimeSpecified | PoolError::PostCreateHook(_) => {
                JournalError::Connect(ConnectError::Configuration { reason: error.to_string() })
            }
        })
    }

    /// Makes the journal's tables: what `start` does first, and nothing before it.
    ///
    /// # Errors
    /// When they could not be made.
    pub async fn create(&self) -> Result<(), JournalError> {
        self.in_time(self.create_now()).await
    }

    async fn create_now(&self) -> Result<(), JournalError> {
        let mut client = self.client().await?;
        let result = migrate_journal(&mut client).await;
        if result.is_err() {
            // The session may still hold the migrations' lock.
            drop(Object::take(client));
        }
        Ok(result?)
    }

    /// Every entry of a migration, oldest first; None when there is no journal.
    ///
    /// # Errors
    /// When it could not be read, or is not understood.
    pub async fn load(
        &self,
        migration: &MigrationName,
    ) -> Result<Option<Vec<Entry>>, JournalError> {
        self.in_time(self.load_now(migration)).await
    }

    async fn load_now(
        &self,
        migration: &MigrationName,
    ) -> Result<Option<Vec<Entry>>, JournalError> {
        let client = self.client().await?;
        let rows = match client.query(LOAD, &[&migration.as_str()]).await {
            Ok(rows) => rows,
            Err(error) if is_missing(&error) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut entries = Vec::with_capacity(rows.len());
        for row in rows {
            let seq: i64 = row.try_get("seq")?;
            let event: serde_json::Value = row.try_get("event")?;
            let event: Event = serde_json::from_value(event)
                .map_err(|error| JournalError::NotUnderstood { seq, reason: error.to_string() })?;
            entries.push(Entry {
                seq: u64::try_from(seq).unwrap_or(0),
                at: row.try_get("at")?,
                epoch: row.try_get("epoch")?,
                event,
            });
        }
        Ok(Some(entries))
    }

    /// Asks for the lease. `first` makes a lease where there is none, under this epoch: what `start` does.
    ///
    /// # Errors
    /// When the journal could not be asked.
    pub async fn lead(
        &self,
        migration: &MigrationName,
        holder: Uuid,
        first: Option<i64>,
    ) -> Result<(Lead, Option<Leader>), JournalError> {
        self.in_time(self.lead_now(migration, holder, first)).await
    }

    async fn lead_now(
        &self,
        migration: &MigrationName,
        holder: Uuid,
        first: Option<i64>,
    ) -> Result<(Lead, Option<Leader>), JournalError> {
        let client = self.client().await?;
        // Asked first, not found out by an error: a planned daemon asks all day, and every error is
        // a line in the server's log.
        if !client.query_one(JOURNAL_THERE, &[]).await?.try_get::<_, bool>(0)? {
            return Ok((Lead::NotStarted, None));
        }
        let seconds = LEASE_TIME.as_secs_f64();
        let name = migration.as_str();
        let taken = match client.query_opt(TAKE_LEASE, &[&name, &holder, &seconds]).await {
            Ok(taken) => taken,
            Err(error) if is_missing(&error) => return Ok((Lead::NotStarted, None)),
            Err(error) => return Err(error.into()),
        };
        let taken = match taken {
            Some(row) => Some(row),
            None => match first {
                Some(epoch) => {
                    client.query_opt(MAKE_LEASE, &[&name, &holder, &seconds, &epoch]).await?
                }
                None => None,
            },
        };
        match taken {
            Some(row) => {
                let epoch: i64 = row.try_get(0)?;
                // The lease names this session, so it belongs to the leader alone from here on.
                let client = Object::take(client);
                let leader = Leader { client, migration: migration.clone(), holder, epoch };
                Ok((Lead::Ours(epoch), Some(leader)))
            }
            None => {
                let known = client.query_opt(ANY_LEASE, &[&name]).await?.is_some();
                Ok((if known { Lead::Other } else { Lead::NotStarted }, None))
            }
        }
    }

    /// Removes the journal: this migration's rows, and the tables when no other needs them.
    ///
    /// # Errors
    /// When it was not seen to work, or another daemon leads.
    pub async fn drop(&self, migration: &MigrationName, epoch: i64) -> Result<(), JournalError> {
        let mut client = self.client().await?;
        let transaction = client.transaction().await?;
        let name = migration.as_str();
        match transaction.query_opt(HOLD_LEASE, &[&name, &epoch]).await {
            Ok(Some(_)) => {}
            Ok(None) => return Err(JournalError::NotLeader),
            Err(error) if is_missing(&error) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let others: bool = transaction.query_one(OTHER_MIGRATIONS, &[&name]).await?.try_get(0)?;
        if others {
            transaction
                .execute("DELETE FROM pgferry.journal WHERE migration = $1", &[&name])
                .await?;
            transaction.execute("DELETE FROM pgferry.lease WHERE migration = $1", &[&name]).await?;
        } else {
            transaction.batch_execute(DROP_TABLES).await?;
        }
        transaction.commit().await?;
        Ok(())
    }
}

/// The one writer of a migration's journal, on a session of its own.
pub struct Leader {
    client: deadpool_postgres::ClientWrapper,
    migration: MigrationName,
    holder: Uuid,
    epoch: i64,
}

impl Leader {
    /// The epoch of this leadership.
    pub fn epoch(&self) -> i64 {
        self.epoch
    }

    /// A second session that renews the lease until it is lost, or the future is dropped.
    ///
    /// On a session of its own, so that a renewal never waits behind an append.
    pub async fn renew(place: Place, migration: MigrationName, epoch: i64) -> LeadershipLost {
        let mut renewed = Instant::now();
        let seconds = LEASE_TIME.as_secs_f64();
        let mut beat = tokio::time::interval(RENEWAL);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            if tokio::time::timeout_at(renewed + PATIENCE, beat.tick()).await.is_err() {
                return LeadershipLost("the lease could not be renewed".into());
            }
            let attempt = async {
                let client = place.client().await?;
                let renewed =
                    client.execute(RENEW_LEASE, &[&migration.as_str(), &epoch, &seconds]).await?;
                Ok::<_, JournalError>(renewed == 1)
            };
            // Behind a connection that hangs there is time for another one.
            let deadline = (Instant::now() + PATIENCE / 2).min(renewed + PATIENCE);
            match tokio::time::timeout_at(deadline, attempt).await {
                Ok(Ok(true)) => renewed = Instant::now(),
                Ok(Ok(false)) => return LeadershipLost("another daemon took the lease".into()),
                Ok(Err(JournalError::Statement(error))) if is_missing(&error) => {
                    return LeadershipLost("the journal is gone".into());
                }
                Ok(Err(error)) => tracing::warn!(%error, "could not renew the lease"),
                Err(_) => {
                    place.forget_connections();
                    tracing::warn!("the journal does not answer");
                }
            }
            if renewed.elapsed() >= PATIENCE {
                return LeadershipLost("the lease could not be renewed".into());
            }
        }
    }

    /// Gives the lease up, so that a successor need not wait for its time.
    pub async fn release(self) {
        let name = self.migration.as_str();
        let parameters: [&(dyn ToSql + Sync); 2] = [&name, &self.epoch];
        let release = self.client.execute(RELEASE_LEASE, &parameters);
        let Ok(result) = tokio::time::timeout(PATIENCE, release).await else { return };
        if let Err(error) = result
            && !is_missing(&error)
        {
            tracing::warn!(error = describe(&error), "could not give up the lease");
        }
    }
}

impl Journal for Leader {
    fn is_lost(&self) -> bool {
        self.client.is_closed()
    }

    async fn append(&mut self, entries: &[Entry]) -> Result<(), LeadershipLost> {
        let mut seqs = Vec::new();
        let mut times = Vec::new();
        let mut events = Vec::new();
        for entry in entries {
            seqs.push(entry.seq as i64);
            times.push(entry.at);
            let event = serde_json::to_value(&entry.event)
                .map_err(|error| LeadershipLost(error.to_string()))?;
            events.push(event);
        }
        let times: Vec<Timestamp> = times;
        let name = self.migration.as_str();
        let parameters: [&(dyn ToSql + Sync); 6] =
            [&name, &self.holder, &self.epoch, &seqs, &times, &events];
        let append = async {
            let statement = self.client.prepare_cached(APPEND).await?;
            self.client.execute(&statement, &parameters).await
        };
        match tokio::time::timeout(PATIENCE, append).await {
            Ok(Ok(written)) if written == entries.len() as u64 => Ok(()),
            Ok(Ok(_)) => Err(LeadershipLost("another daemon took the lease".to_owned())),
            Ok(Err(error)) => Err(LeadershipLost(format!("the journal: {}", describe(&error)))),
            Err(_) => Err(LeadershipLost("the journal does not answer".to_owned())),
        }
    }
}

const JOURNAL_THERE: &str = "SELECT to_regclass('pgferry.lease') IS NOT NULL";

const LOAD: &str = "\
    SELECT seq, at, epoch, event FROM pgferry.journal WHERE migration = $1 ORDER BY seq";

/// Takes a lease that is ours, that ran out, or whose session is gone.
const TAKE_LEASE: &str = "\
    UPDATE pgferry.lease l SET holder = $2, epoch = l.epoch + 1, \
    expires_at = clock_timestamp() + make_interval(secs => $3), \
    backend_pid = me.pid, backend_start = me.backend_start \
    FROM (SELECT pid, backend_start FROM pg_catalog.pg_stat_activity \
        WHERE pid = pg_backend_pid()) me \
    WHERE l.migration = $1 AND (l.holder = $2 OR l.expires_at < clock_timestamp() \
        OR NOT EXISTS (SELECT FROM pg_catalog.pg_stat_activity a \
            WHERE a.pid = l.backend_pid AND a.backend_start = l.backend_start)) \
    RETURNING l.epoch";

const MAKE_LEASE: &str = "\
    INSERT INTO pgferry.lease (migration, holder, epoch, expires_at, backend_pid, backend_start) \
    SELECT $1, $2, $4, clock_timestamp() + make_interval(secs => $3), pid, backend_start \
    FROM pg_catalog.pg_stat_activity WHERE pid = pg_backend_pid() \
    ON CONFLICT DO NOTHING RETURNING epoch";

const ANY_LEASE: &str = "SELECT 1 FROM pgferry.lease WHERE migration = $1";

const HOLD_LEASE: &str =
    "SELECT 1 FROM pgferry.lease WHERE migration = $1 AND epoch = $2 FOR UPDATE";

const RENEW_LEASE: &str = "\
    UPDATE pgferry.lease SET expires_at = clock_timestamp() + make_interval(secs => $3) \
    WHERE migration = $1 AND epoch = $2";

const RELEASE_LEASE: &str = "\
    UPDATE pgferry.lease SET expires_at = '-infinity' WHERE migration = $1 AND epoch = $2";

const APPEND: &str = "\
    WITH leader AS (SELECT 1 FROM pgferry.lease \
        WHERE migration = $1 AND holder = $2 AND epoch = $3 FOR SHARE) \
    INSERT INTO pgferry.journal (migration, seq, at, epoch, event) \
    SELECT $1, e.seq, e.at, $3, e.event FROM leader, \
    unnest($4::bigint[], $5::timestamptz[], $6::jsonb[]) AS e(seq, at, event)";

const OTHER_MIGRATIONS: &str = "SELECT EXISTS (SELECT FROM pgferry.lease WHERE migration <> $1)";

/// RESTRICT, so that whatever else somebody put there stays, and is told.
const DROP_TABLES: &str = "\
    DROP TABLE pgferry.journal, pgferry.lease, pgferry.journal_history; DROP SCHEMA pgferry";
