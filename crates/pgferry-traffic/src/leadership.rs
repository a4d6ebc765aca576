//! The question that stands before each change outside the databases: do we still lead?

use std::future::Future;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use pgferry_engine::Fault;
use pgferry_plan::{Blocker, Side};
use pgferry_postgres::PgCluster;

/// Who can be asked whether a leadership still holds.
pub trait Leadership: Clone + Send + Sync + 'static {
    /// Asks both nodes, and takes the first word: a new leadership raises the epoch on both before it
    /// acts, so either knows, and the other may be away.
    fn still_leads(&self, epoch: i64) -> impl Future<Output = Result<(), Fault>> + Send;
}

impl Leadership for PgCluster {
    async fn still_leads(&self, epoch: i64) -> Result<(), Fault> {
        let ask = |side| self.node(side).check_epoch(epoch);
        let mut asked: FuturesUnordered<_> = Side::BOTH.into_iter().map(ask).collect();
        let mut unseen = None;
        while let Some(answer) = asked.next().await {
            match answer {
                Ok(()) => return Ok(()),
                Err(Fault::EpochRaised) => return Err(Fault::EpochRaised),
                Err(Fault::Failed(blocker)) => unseen = Some(blocker),
            }
        }
        Err(Fault::Failed(unseen.unwrap_or_else(|| {
            Blocker::new("epoch_not_seen", "no node could be asked for the epoch", "")
        })))
    }
}
