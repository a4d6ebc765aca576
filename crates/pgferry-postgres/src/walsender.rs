//! A replication session: the one thing tokio-postgres cannot open, needed to make a slot and the
//! snapshot that belongs to it.
//!
//! It speaks the start-up exchange and simple queries, no more. The snapshot lives while the
//! session is open and nothing else is sent on it, so nothing here ever sends a keepalive.

mod wire;

use pgferry_plan::Lsn;
use postgres_protocol::message::backend::Message;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::connect::{ConnectError, Connector, MAY_IDLE};
use crate::quote;
use wire::Wire;

/// A snapshot that other sessions can import while its walsender lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportedSnapshot {
    /// The slot's consistent point: the snapshot holds exactly what committed before it.
    pub lsn: Lsn,
    /// For `SET TRANSACTION SNAPSHOT`.
    pub snapshot_name: String,
}

/// Why a replication session failed.
#[derive(Debug, thiserror::Error)]
pub enum WalsenderError {
    /// It could not be opened.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The server refused a command.
    #[error("the replication command was refused: {message} (SQLSTATE {state})")]
    Refused {
        /// The server's SQLSTATE.
        state: String,
        /// The server's words.
        message: String,
    },
    /// The session ended, and its slot and snapshot with it.
    #[error("the replication session was lost: {0}")]
    Lost(String),
    /// The server said something that the protocol does not allow here.
    #[error("the server's answer makes no sense: {0}")]
    Protocol(String),
    /// The caller gave up waiting.
    #[error("cancelled")]
    Cancelled,
}

impl WalsenderError {
    /// The word for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Connect(error) => error.code(),
            Self::Refused { .. } => "replication_refused",
            Self::Lost(_) => "snapshot_lost",
            Self::Protocol(_) => "protocol_error",
            Self::Cancelled => "cancelled",
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Connect(error) => error.hint(),
            Self::Refused { .. } => {
                "check wal_level = logical, free replication slots and walsenders, and that the \
                 role has REPLICATION (rds_replication on RDS)"
            }
            Self::Lost(_) => "the copy begins again with a new snapshot",
            Self::Protocol(_) => "connect to the server itself, not to a pooler",
            Self::Cancelled => "",
        }
    }
}

/// An open replication session.
pub struct Walsender {
    wire: Wire,
    connector: Connector,
}

impl Walsender {
    /// Opens a replication session on the connector's database, within its connect timeout.
    pub async fn connect(
        connector: &Connector,
        application_name: &str,
    ) -> Result<Self, WalsenderError> {
        let opening = async {
            let mut wire = Wire::open(connector).await?;
            wire.start(connector, application_name).await?;
            Ok::<_, WalsenderError>(wire)
        };
        let wire = tokio::time::timeout(connector.timeout(), opening)
            .await
            .map_err(|_| ConnectError::timeout(connector))??;
        let mut walsender = Self { wire, connector: connector.clone() };
        walsender.query(MAY_IDLE).await?;
        // Making a slot waits for open transactions, and that wait is a lock's.
        walsender.query("SET lock_timeout = 0").await?;
        Ok(walsender)
    }

    /// Makes a slot that ends with this session, and exports the snapshot of its consistent point.
    ///
    /// Waits for every transaction that is open anywhere in the cluster; `cancel` ends the wait,
    /// on the server too. pgoutput, because the slot is never read and every server has it.
    pub async fn create_temporary_slot_with_snapshot(
        &mut self,
        slot_name: &str,
        cancel: &CancellationToken,
    ) -> Result<ExportedSnapshot, WalsenderError> {
        let command = create_slot_command(slot_name, self.wire.server_major());
        let cancelled = cancel.cancelled();
        let rows = tokio::select! {
            rows = self.query(&command) => Some(rows?),
            () = cancelled => None,
        };
        let Some(rows) = rows else {
            self.wire.cancel_statement(&self.connector).await;
            return Err(WalsenderError::Cancelled);
        };
        read_created_slot(&rows)
    }

    /// Waits until the session is lost, and says why. Sends nothing; may be dropped and called again.
    pub async fn lost(&mut self) -> WalsenderError {
        loop {
            match self.wire.receive().await {
                Ok(Message::NoticeResponse(_) | Message::ParameterStatus(_)) => {}
                Ok(Message::ErrorResponse(body)) => {
                    let (state, message) = wire::error_fields(&body);
                    return WalsenderError::Lost(format!("{message} (SQLSTATE {state})"));
                }
                Ok(_) => return WalsenderError::Protocol("an answer to no question".to_owned()),
                Err(error) => return error,
            }
        }
    }

    /// Holds the session, and so the snapshot, in a task of its own until the keeper is dropped.
    pub fn keep(mut self) -> SnapshotKeeper {
        let (announce, lost) = watch::channel(None);
        let task = tokio::spawn(async move {
            let why = self.lost().await.to_string();
            tracing::warn!(why, "the exported snapshot is gone");
            announce.send_replace(Some(why));
        });
        SnapshotKeeper { lost, task }
    }

    async fn query(&mut self, sql: &str) -> Result<Vec<Vec<Option<String>>>, WalsenderError> {
        self.wire.query(sql).await
    }
}

/// Keeps an exported snapshot alive; dropping it ends the session, the slot and the snapshot.
#[derive(Debug)]
pub struct SnapshotKeeper {
    lost: watch::Receiver<Option<String>>,
    task: JoinHandle<()>,
}

impl SnapshotKeeper {
    /// Why the session was lost, once it is.
    pub fn lost(&self) -> Option<String> {
        self.lost.borrow().clone()
    }

    /// Waits until the session is lost, and says why.
    pub async fn wait_until_lost(&self) -> String {
        let mut lost = self.lost.clone();
        match lost.wait_for(Option::is_some).await {
            Ok(why) => why.clone().unwrap_or_default(),
            Err(_) => "its task ended".to_owned(),
        }
    }
}

impl Drop for SnapshotKeeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// PostgreSQL 15 put the options into parentheses; 16 and later still take the old form, but only
/// the new one is documented for them.
fn create_slot_command(slot_name: &str, server_major: u32) -> String {
    let slot = quote::ident(slot_name);
    let snapshot = if server_major >= 15 { "(SNAPSHOT 'export')" } else { "EXPORT_SNAPSHOT" };
    format!("CREATE_REPLICATION_SLOT {slot} TEMPORARY LOGICAL pgoutput {snapshot}")
}

/// The answer's columns: `slot_name`, `consistent_point`, `snapshot_name`, `output_plugin`.
fn read_created_slot(rows: &[Vec<Option<String>>]) -> Result<ExportedSnapshot, WalsenderError> {
    let nonsense = || WalsenderError::Protocol(format!("created slot as {rows:?}"));
    let [row] = rows else { return Err(nonsense()) };
    let [_, Some(point), Some(snapshot), ..] = row.as_slice() else { return Err(nonsense()) };
    let lsn = point.parse().map_err(|_| nonsense())?;
    Ok(ExportedSnapshot { lsn, snapshot_name: snapshot.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_follows_the_servers_grammar() {
        assert_eq!(
            create_slot_command("pgferry_orders", 15),
            "CREATE_REPLICATION_SLOT \"pgferry_orders\" TEMPORARY LOGICAL pgoutput (SNAPSHOT 'export')"
        );
        assert!(create_slot_command("s", 14).ends_with("pgoutput EXPORT_SNAPSHOT"));
    }

    #[test]
    fn a_slot_without_a_snapshot_is_refused() {
        let row = |snapshot: Option<&str>| {
            vec![vec![
                Some("s".to_owned()),
                Some("0/16B3748".to_owned()),
                snapshot.map(str::to_owned),
                Some("pgoutput".to_owned()),
            ]]
        };
        let made = read_created_slot(&row(Some("00000003-1"))).unwrap();
        assert_eq!(made.lsn, Lsn(0x016B_3748));
        assert_eq!(made.snapshot_name, "00000003-1");
        assert!(read_created_slot(&row(None)).is_err());
        assert!(read_created_slot(&[]).is_err());
    }
}
