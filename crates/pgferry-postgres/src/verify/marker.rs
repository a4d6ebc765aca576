//! Waiting until everything that the active side has committed is on the passive side.
//!
//! The marker is written after the look that it stands behind, so its arrival proves that every
//! change before that look has been applied: a stream keeps the order of commits. No lag figure
//! proves that.

use std::time::{Duration, Instant};

use pgferry_plan::{Blocker, Side};
use tokio_postgres::Client;

use super::VerifyError;
use crate::cluster::PgCluster;
use crate::statements::{Guard, touch_marker};

const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);
/// A stream that is this far behind is not about to be compared.
const PATIENCE: Duration = Duration::from_secs(600);

const WRITTEN: &str = "SELECT written_at::text FROM pgferry.marker WHERE side = $1";
const ARRIVED: &str =
    "SELECT written_at >= $2::text::timestamptz FROM pgferry.marker WHERE side = $1";

/// Writes the active side's marker and returns when `passive` sees it.
pub(super) async fn pass(
    cluster: &PgCluster,
    active: Side,
    epoch: i64,
    passive: &Client,
) -> Result<(), VerifyError> {
    if pass_within(cluster, active, epoch, passive, PATIENCE).await? {
        return Ok(());
    }
    Err(VerifyError::Blocked(Blocker::new(
        "stream_behind",
        format!(
            "a marker of the {active} was not on the {} after {} s: rows cannot be compared \
             while the stream does not carry",
            active.other(),
            PATIENCE.as_secs()
        ),
        "look at `pgferry status`; verify again when the stream has caught up",
    )))
}

/// The same, and false when it is not there after so long.
pub(super) async fn pass_within(
    cluster: &PgCluster,
    active: Side,
    epoch: i64,
    passive: &Client,
    patience: Duration,
) -> Result<bool, VerifyError> {
    let node = cluster.node(active);
    node.mutate(Guard::of_epoch(epoch), &touch_marker(active)).await?;
    let word = active.as_str();
    let written: String = {
        let client = node.client().await.map_err(|error| node.fault(&error))?;
        client
            .query_one(WRITTEN, &[&word])
            .await
            .and_then(|row| row.try_get(0))
            .map_err(VerifyError::on(active))?
    };
    let began = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        let arrived: Option<bool> = passive
            .query_opt(ARRIVED, &[&word, &written])
            .await
            .and_then(|row| row.map(|row| row.try_get(0)).transpose())
            .map_err(VerifyError::on(active.other()))?
            .flatten();
        if arrived == Some(true) {
            return Ok(true);
        }
        if began.elapsed() > patience {
            return Ok(false);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
