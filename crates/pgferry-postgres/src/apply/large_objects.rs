//! The large objects' part of the copy job: under the same snapshot as the rows, and before them.

use pgferry_plan::{Blocker, Lsn, Side};
use tokio_util::sync::CancellationToken;

use super::jobs::look_blocker;
use crate::cluster::PgCluster;
use crate::connect::ConnectError;
use crate::large_objects::{LargeObjectError, copy_large_objects};
use crate::observe::uncarried::large_objects;
use crate::quote::literal;

impl PgCluster {
    /// Copies the large objects under the exported snapshot, unless that is done. That there are none
    /// is recorded too: one that is made later must not send the rows back.
    pub(super) async fn carry_large_objects(
        &self,
        snapshot: &str,
        lsn: Lsn,
        epoch: i64,
        cancel: &CancellationToken,
    ) -> Result<(), Blocker> {
        let (source, destination) = (self.node(Side::Source), self.node(Side::Destination));
        let copied = self.copied().await.map_err(|error| look_blocker(destination, &error))?;
        if copied.iter().any(|copied| copied.table == large_objects() && copied.snapshot == lsn) {
            return Ok(());
        }
        let unreachable = |side: Side| {
            move |error: ConnectError| {
                Blocker::new(error.code(), format!("the {side}: {error}"), error.hint())
            }
        };
        let name = crate::copy::session_name(source);
        let reader = source.connector().session(&name).await.map_err(unreachable(Side::Source))?;
        let writer =
            destination.connector().session(&name).await.map_err(unreachable(Side::Destination))?;
        let import = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT {}",
            literal(snapshot)
        );
        reader.batch_execute(&import).await.map_err(|error| look_blocker(source, &error.into()))?;
        let copied = copy_large_objects(&reader, &writer, lsn, epoch, cancel).await;
        if copied.is_err() {
            tokio::join!(reader.cancel_statement(), writer.cancel_statement());
        }
        copied.map(drop).map_err(|error: LargeObjectError| {
            Blocker::new(error.code(), crate::node::scrub(&error.to_string()), error.hint())
        })
    }
}
