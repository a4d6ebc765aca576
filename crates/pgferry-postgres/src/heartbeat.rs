//! The heartbeat: the row each side rewrites so that the other can tell how far behind it is.
//!
//! The only write of the monitor. It touches nothing but its own side's row, and stops when the
//! epoch was raised.

use pgferry_plan::Side;
use tokio_postgres::Client;
use tokio_postgres::types::Type;

/// Writes one heartbeat of `side` under `epoch`; false when another epoch governs the node now.
pub async fn beat(client: &Client, side: Side, epoch: i64) -> Result<bool, HeartbeatError> {
    let rows = client
        .query_typed(BEAT_SQL, &[(&side.as_str(), Type::TEXT), (&epoch, Type::INT8)])
        .await
        .map_err(|source| HeartbeatError { side, source })?;
    Ok(!rows.is_empty())
}

/// Prepares a session for heartbeats alone: they become durable here before they are sent, but do
/// not wait for synchronous standbys. One that hangs would else silence the heartbeat, and lag
/// would be unknown exactly when it matters.
pub async fn prepare(client: &Client, side: Side) -> Result<(), HeartbeatError> {
    client.batch_execute(PREPARE_SQL).await.map_err(|source| HeartbeatError { side, source })
}

/// A heartbeat could not be written.
#[derive(Debug, thiserror::Error)]
#[error("could not write the heartbeat of the {side}")]
pub struct HeartbeatError {
    side: Side,
    #[source]
    source: tokio_postgres::Error,
}

/// The epoch is read without a lock, unlike in every other change of a node: a heartbeat that
/// lands after the epoch was raised says only that this side was alive, and `FOR SHARE` ten times
/// a second would make each raising of the epoch wait behind it.
///
/// `beat_at` is the time of the statement, not of its commit: a commit that hangs is lag.
const BEAT_SQL: &str = "\
    UPDATE pgferry.heartbeat SET beat = beat + 1, beat_at = clock_timestamp() \
    WHERE side = $1 AND EXISTS (SELECT FROM pgferry.node WHERE epoch = $2 AND side = $1) \
    RETURNING beat";

const PREPARE_SQL: &str = "SET synchronous_commit = local";
