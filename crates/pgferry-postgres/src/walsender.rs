//! A replication session: the one thing tokio-postgres cannot open, needed to make a slot and the
//! snapshot that belongs to it.

use pgferry_plan::Lsn;
use tokio_util::sync::CancellationToken;

use crate::connect::Connector;
use crate::quote;
use crate::wire::{Purpose, Wire, WireError};

/// A snapshot that other sessions can import while its walsender lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ExportedSnapshot {
    /// The slot's consistent point: the snapshot holds exactly what committed before it.
    pub(crate) lsn: Lsn,
    /// For `SET TRANSACTION SNAPSHOT`.
    pub(crate) snapshot_name: String,
}

/// Why no snapshot was exported.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WalsenderError {
    /// The session failed.
    #[error("replication session: {0}")]
    Wire(#[from] WireError),
    /// The caller gave up waiting.
    #[error("cancelled")]
    Cancelled,
}

impl WalsenderError {
    /// The word for programs.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Wire(WireError::Connect(error)) => error.code(),
            Self::Wire(WireError::Refused { .. }) => "replication_refused",
            Self::Wire(WireError::Lost(_)) => "snapshot_lost",
            Self::Wire(WireError::Protocol(_)) => "protocol_error",
            Self::Cancelled => "cancelled",
        }
    }

    /// What to do about it.
    pub(crate) fn hint(&self) -> &'static str {
        match self {
            Self::Wire(WireError::Connect(error)) => error.hint(),
            Self::Wire(WireError::Refused { .. }) => {
                "check wal_level = logical, free replication slots and walsenders, and that the \
                 role has REPLICATION (rds_replication on RDS)"
            }
            Self::Wire(WireError::Lost(_)) => "it is tried again",
            Self::Wire(WireError::Protocol(_)) => "connect to the server itself, not to a pooler",
            Self::Cancelled => "",
        }
    }
}

/// An open replication session.
pub(crate) struct Walsender {
    wire: Wire,
    connector: Connector,
}

impl Walsender {
    /// Opens a replication session on the connector's database, within its connect timeout.
    pub(crate) async fn connect(
        connector: &Connector,
        application_name: &str,
    ) -> Result<Self, WalsenderError> {
        let mut wire = Wire::connect(connector, application_name, Purpose::Replication).await?;
        // Making a slot waits for open transactions, and that wait is a lock's.
        wire.query("SET lock_timeout = 0").await?;
        Ok(Self { wire, connector: connector.clone() })
    }

    /// Makes a slot that ends with this session, and exports the snapshot of its consistent point,
    /// which lives until the next command here.
    ///
    /// Waits for every transaction that is open anywhere in the cluster; `cancel` ends the wait,
    /// on the server too. pgoutput, because the slot is never read and every server has it.
    pub(crate) async fn create_temporary_slot_with_snapshot(
        &mut self,
        slot_name: &str,
        cancel: &CancellationToken,
    ) -> Result<ExportedSnapshot, WalsenderError> {
        let command = create_slot_command(slot_name, self.wire.server_major());
        let cancelled = cancel.cancelled();
        let rows = tokio::select! {
            rows = self.wire.query(&command) => Some(rows?),
            () = cancelled => None,
        };
        let Some(rows) = rows else {
            self.wire.cancel_statement(&self.connector).await;
            return Err(WalsenderError::Cancelled);
        };
        Ok(read_created_slot(&rows)?)
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
fn read_created_slot(rows: &[Vec<Option<String>>]) -> Result<ExportedSnapshot, WireError> {
    let nonsense = || WireError::Protocol(format!("created slot as {rows:?}"));
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
