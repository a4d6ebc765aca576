//! The question that stands before each change outside the databases: do we still lead?

use std::future::Future;

use pgferry_engine::Fault;
use pgferry_plan::Side;
use pgferry_postgres::PgCluster;

/// Who can be asked whether a leadership still holds.
pub trait Leadership: Clone + Send + Sync + 'static {
    /// Asks the node of a side. Either would do: a new leadership raises the epoch on both before it
    /// acts. Asked is the one that is open, because the other may be away.
    fn still_leads(&self, side: Side, epoch: i64)
    -> impl Future<Output = Result<(), Fault>> + Send;
}

impl Leadership for PgCluster {
    async fn still_leads(&self, side: Side, epoch: i64) -> Result<(), Fault> {
        self.node(side).check_epoch(epoch).await
    }
}
