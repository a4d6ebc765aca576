//! Looking at both ends of a stream: slots and WAL where it is read, subscription and apply
//! worker where it arrives, the heartbeat on both.
//!
//! Reads only, and never concludes from an error: what is not installed yet is absent, what could
//! not be read is unknown.

use std::time::Duration;

use jiff::Timestamp;
use pgferry_plan::lag::{
    Beat, ProviderLook, SenderSeen, SlotSeen, StreamSample, SubscriberLook, SubscriptionSeen,
};
use pgferry_plan::{Direction, Lsn, Seen, WorkerSeen};
use tokio_postgres::types::{PgLsn, ToSql, Type};
use tokio_postgres::{Client, Row};

/// Looks at both ends of the stream of `direction`, the one it is read from first.
pub async fn sample(
    provider: &Client,
    subscriber: &Client,
    subscription: &str,
    direction: Direction,
) -> StreamSample {
    let provider = look_at_provider(provider, subscription, direction).await;
    let subscriber = look_at_subscriber(subscriber, subscription, direction).await;
    StreamSample { provider: seen(provider), subscriber: seen(subscriber) }
}

/// An answer was seen; an error is a reason for not having seen one.
fn seen<T>(look: Result<T, StreamLookError>) -> Seen<T> {
    match look {
        Ok(value) => Seen::Present(value),
        Err(error) => Seen::Unknown(error.described()),
    }
}

/// Looks at the side that the stream of `direction` is read from.
pub async fn look_at_provider(
    client: &Client,
    subscription: &str,
    direction: Direction,
) -> Result<ProviderLook, StreamLookError> {
    let installed = Installed::look(client).await?;
    let side = direction.from().as_str();
    let heartbeat_sql = if installed.heartbeat { HEARTBEAT_SQL } else { NO_HEARTBEAT_SQL };
    let of_subscription = [(&subscription as &(dyn ToSql + Sync), Type::TEXT)];
    let of_side = [(&side as &(dyn ToSql + Sync), Type::TEXT)];
    // Sent together and answered in this order: the WAL position comes after the confirmed one,
    // so that what is counted as outstanding is never less than it was.
    let (slots, senders, position, heartbeat) = tokio::join!(
        client.query_typed(SLOTS_SQL, &[]),
        client.query_typed(SENDER_SQL, &of_subscription),
        client.query_typed(POSITION_SQL, &[]),
        client.query_typed(heartbeat_sql, &of_side),
    );
    let slots = slots.map_err(reading("replication slots"))?;
    let senders = senders.map_err(reading("replication senders"))?;
    let position = one(position.map_err(reading("WAL position"))?, "WAL position")?;
    let clock = one(heartbeat.map_err(reading("heartbeat"))?, "heartbeat")?;
    Ok(ProviderLook {
        now: clock.try_get("now").map_err(reading("clock"))?,
        wal_lsn: lsn(&position, "wal_lsn").map_err(reading("WAL position"))?,
        slots: slots.iter().map(slot).collect::<Result<_, _>>().map_err(reading("slots"))?,
        sender: senders.first().map(sender).transpose().map_err(reading("senders"))?,
        heartbeat: beat(&clock).map_err(reading("heartbeat"))?,
    })
}

/// Looks at the side that the stream of `direction` carries changes to.
pub async fn look_at_subscriber(
    client: &Client,
    subscription: &str,
    direction: Direction,
) -> Result<SubscriberLook, StreamLookError> {
    let installed = Installed::look(client).await?;
    let side = direction.from().as_str();
    let heartbeat_sql = if installed.heartbeat { HEARTBEAT_SQL } else { NO_HEARTBEAT_SQL };
    let of_side = [(&side as &(dyn ToSql + Sync), Type::TEXT)];
    let (heartbeat, subscription) = tokio::join!(
        client.query_typed(heartbeat_sql, &of_side),
        look_at_subscription(client, subscription, installed.pglogical),
    );
    let heartbeat = one(heartbeat.map_err(reading("heartbeat"))?, "heartbeat")?;
    Ok(SubscriberLook {
        subscription: subscription?,
        received: beat(&heartbeat).map_err(reading("heartbeat"))?,
    })
}

/// Bounds every later statement of this session on the server itself: a client that gives up does
/// not end the statement it gave up on.
pub async fn bound_statements(client: &Client, limit: Duration) -> Result<(), StreamLookError> {
    let limit = format!("{}ms", limit.as_millis().max(1));
    client
        .query_typed(BOUND_STATEMENTS_SQL, &[(&limit, Type::TEXT)])
        .await
        .map_err(reading("statement_timeout"))?;
    Ok(())
}

/// One end of a stream could not be read.
#[derive(Debug, thiserror::Error)]
pub enum StreamLookError {
    /// The server refused, or is away.
    #[error("could not read the {what}")]
    Read {
        /// What was being read.
        what: &'static str,
        /// The driver's error.
        #[source]
        source: tokio_postgres::Error,
    },
    /// A statement that always answers with one row did not.
    #[error("no answer about the {what}")]
    Empty {
        /// What was being read.
        what: &'static str,
    },
}

impl StreamLookError {
    /// The error with its causes, on one line: what a person is told.
    #[must_use]
    pub fn described(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

fn reading(what: &'static str) -> impl FnOnce(tokio_postgres::Error) -> StreamLookError {
    move |source| StreamLookError::Read { what, source }
}

fn one(rows: Vec<Row>, what: &'static str) -> Result<Row, StreamLookError> {
    rows.into_iter().next().ok_or(StreamLookError::Empty { what })
}

/// What is there to be asked. Asked each time: both come and go within the life of a migration,
/// and a statement that names a missing table fails as a whole.
struct Installed {
    heartbeat: bool,
    pglogical: bool,
}

impl Installed {
    async fn look(client: &Client) -> Result<Self, StreamLookError> {
        let rows =
            client.query_typed(INSTALLED_SQL, &[]).await.map_err(reading("installed tables"))?;
        let row = one(rows, "installed tables")?;
        let read = |column| row.try_get(column).map_err(reading("installed tables"));
        Ok(Self { heartbeat: read("heartbeat")?, pglogical: read("pglogical")? })
    }
}

async fn look_at_subscription(
    client: &Client,
    name: &str,
    installed: bool,
) -> Result<Seen<SubscriptionSeen>, StreamLookError> {
    if !installed {
        return Ok(Seen::Absent);
    }
    let rows = client
        .query_typed(SUBSCRIPTION_SQL, &[(&name, Type::TEXT)])
        .await
        .map_err(reading("subscription"))?;
    match rows.first() {
        Some(row) => subscription(row).map(Seen::Present).map_err(reading("subscription")),
        None => Ok(Seen::Absent),
    }
}

fn subscription(row: &Row) -> Result<SubscriptionSeen, tokio_postgres::Error> {
    let pid: Option<i32> = row.try_get("pid")?;
    let started_at: Option<Timestamp> = row.try_get("backend_start")?;
    let sees_processes: bool = row.try_get("sees_processes")?;
    let worker = match pid.zip(started_at) {
        Some((pid, started_at)) => Seen::Present(WorkerSeen { pid, started_at }),
        None if sees_processes => Seen::Absent,
        // A process hidden by privilege looks like one that is not there.
        None => {
            Seen::Unknown("the role may not see processes of others: grant pg_monitor".to_owned())
        }
    };
    let sync_status: Option<String> = row.try_get("sync_status")?;
    Ok(SubscriptionSeen {
        enabled: row.try_get("sub_enabled")?,
        slot_name: row.try_get("slot_name")?,
        sets: row.try_get("sets")?,
        forward_origins: row.try_get("forward_origins")?,
        sync_status: sync_status.and_then(|status| status.chars().next()),
        worker,
    })
}

fn slot(row: &Row) -> Result<SlotSeen, tokio_postgres::Error> {
    Ok(SlotSeen {
        name: row.try_get("slot_name")?,
        active: row.try_get("active")?,
        wal_status: row.try_get("wal_status")?,
        restart_lsn: lsn(row, "restart_lsn")?,
        confirmed_flush_lsn: lsn(row, "confirmed_flush_lsn")?,
        safe_wal_bytes: row.try_get("safe_wal_size")?,
    })
}

fn sender(row: &Row) -> Result<SenderSeen, tokio_postgres::Error> {
    Ok(SenderSeen { pid: row.try_get("pid")?, state: row.try_get("state")? })
}

fn beat(row: &Row) -> Result<Option<Beat>, tokio_postgres::Error> {
    let beat: Option<i64> = row.try_get("beat")?;
    let at: Option<Timestamp> = row.try_get("beat_at")?;
    Ok(beat.zip(at).map(|(beat, at)| Beat { beat, at }))
}

fn lsn(row: &Row, column: &str) -> Result<Option<Lsn>, tokio_postgres::Error> {
    let position: Option<PgLsn> = row.try_get(column)?;
    Ok(position.map(|position| Lsn(position.into())))
}

const INSTALLED_SQL: &str = "\
    SELECT to_regclass('pgferry.heartbeat') IS NOT NULL AS heartbeat, \
           to_regclass('pglogical.subscription') IS NOT NULL AS pglogical";

const SLOTS_SQL: &str = "\
    SELECT slot_name::text, active, wal_status, restart_lsn, confirmed_flush_lsn, safe_wal_size \
    FROM pg_replication_slots \
    WHERE database = current_database() AND plugin = 'pglogical_output'";

/// The newest, when an old sender has not noticed yet that its client is gone.
const SENDER_SQL: &str = "\
    SELECT pid, state FROM pg_stat_replication \
    WHERE application_name = $1 ORDER BY backend_start DESC LIMIT 1";

const POSITION_SQL: &str = "\
    SELECT CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_current_wal_lsn() END AS wal_lsn";

/// The clock in the same statement as the heartbeat, so that it is never the older of the two.
const HEARTBEAT_SQL: &str = "\
    SELECT clock_timestamp() AS now, heartbeat.beat, heartbeat.beat_at \
    FROM (VALUES (1)) AS always (one) LEFT JOIN pgferry.heartbeat ON heartbeat.side = $1";

const NO_HEARTBEAT_SQL: &str = "\
    SELECT clock_timestamp() AS now, NULL::bigint AS beat, NULL::timestamptz AS beat_at \
    WHERE $1::text IS NOT NULL";

const SUBSCRIPTION_SQL: &str = "\
    SELECT s.sub_enabled, s.sub_slot_name::text AS slot_name, \
           coalesce(s.sub_replication_sets, '{}') AS sets, \
           coalesce(s.sub_forward_origins, '{}') AS forward_origins, \
           (SELECT sync_status::text FROM pglogical.local_sync_status \
            WHERE sync_subid = s.sub_id AND sync_relname IS NULL LIMIT 1) AS sync_status, \
           pg_has_role('pg_read_all_stats', 'USAGE') AS sees_processes, \
           worker.pid, worker.backend_start \
    FROM pglogical.subscription s \
    LEFT JOIN LATERAL ( \
        SELECT pid, backend_start FROM pg_stat_activity \
        WHERE backend_type = format('pglogical apply %s:%s', \
              (SELECT oid FROM pg_database WHERE datname = current_database()), s.sub_id) \
        ORDER BY backend_start DESC LIMIT 1) AS worker ON true \
    WHERE s.sub_name = $1";

const BOUND_STATEMENTS_SQL: &str = "SELECT set_config('statement_timeout', $1, false)";
