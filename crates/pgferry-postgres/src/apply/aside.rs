//! The jobs for a schema that the destination brought: foreign keys and triggers out of the way
//! of the copy, and back where the migration is given up before they were made again.

use std::time::Duration;

use pgferry_engine::Fault;
use pgferry_plan::existing::SetAside;
use pgferry_plan::{Blocker, Side};
use tokio_util::sync::CancellationToken;

use super::jobs::{fault_blocker, look_blocker, stopped};
use crate::cluster::PgCluster;
use crate::statements::{self, Guard};

/// Dropping a foreign key locks two tables against everybody, so it gives up soon and comes again.
const LOCK_TIMEOUT_MS: u32 = 500;
const PAUSE: Duration = Duration::from_millis(300);
const TRIES: u32 = 100;

impl PgCluster {
    /// One transaction for each table: the record of its objects, and their removal.
    pub(super) async fn set_aside(
        &self,
        objects: Vec<SetAside>,
        epoch: i64,
        cancel: CancellationToken,
    ) -> Result<(), Blocker> {
        let node = self.node(Side::Destination);
        let guard = Guard::of_epoch(epoch);
        for of_table in objects.chunk_by(|one, next| one.table == next.table) {
            let of_table: Vec<&SetAside> = of_table.iter().collect();
            let sql = statements::set_aside(&of_table, LOCK_TIMEOUT_MS);
            let mut tries = 0;
            loop {
                match node.mutate(guard, &sql).await {
                    Ok(()) => break,
                    Err(Fault::Failed(blocker))
                        if blocker.code == "lock_not_available" && tries < TRIES =>
                    {
                        tries += 1;
                        tokio::select! {
                            () = tokio::time::sleep(PAUSE) => {}
                            () = cancel.cancelled() => return Err(stopped()),
                        }
                    }
                    Err(fault) => {
                        let mut blocker = fault_blocker(fault);
                        let table = of_table.first().map(|object| object.table.to_string());
                        blocker.message =
                            format!("table {}: {}", table.unwrap_or_default(), blocker.message);
                        return Err(blocker);
                    }
                }
            }
            if cancel.is_cancelled() {
                return Err(stopped());
            }
        }
        Ok(())
    }

    /// Each by itself: a foreign key that the rows of a broken copy refuse keeps nothing else away.
    pub(super) async fn put_back(
        &self,
        epoch: i64,
        cancel: CancellationToken,
    ) -> Result<(), Blocker> {
        let node = self.node(Side::Destination);
        let guard = Guard::of_epoch(epoch);
        let left = self.still_aside().await.map_err(|error| look_blocker(node, &error))?;
        let mut outcome = Ok(());
        for object in left.unwrap_or_default() {
            let Some(definition) = &object.definition else { continue };
            match node.mutate(guard, definition).await {
                Ok(()) => {}
                Err(Fault::EpochRaised) => return Err(fault_blocker(Fault::EpochRaised)),
                Err(Fault::Failed(mut blocker)) => {
                    blocker.message = format!("{object}: {}", blocker.message);
                    outcome = outcome.and(Err(blocker));
                }
            }
            if cancel.is_cancelled() {
                return Err(stopped());
            }
        }
        outcome
    }
}
