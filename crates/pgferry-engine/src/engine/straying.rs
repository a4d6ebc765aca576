//! Writing down who writes on a closed side, before its session is ended, and what became of it.

use pgferry_plan::strays::{Next, next};

use super::Engine;
use crate::failpoint;
use crate::ports::{Cluster, Fault, Journal, LeadershipLost, Traffic};

impl<C: Cluster, T: Traffic, J: Journal> Engine<C, T, J> {
    /// Notes the strays of the last look, ends their sessions, and notes what became of them. The turn goes
    /// on behind it: a client that comes again and again must not keep everything else from being done.
    pub(super) async fn keep_strays(&mut self) -> Result<(), LeadershipLost> {
        let Some(Next { before, action, after }) = next(&self.facts, &self.world) else {
            return Ok(());
        };
        let step = self.facts.step();
        for event in before {
            tracing::warn!(?event, "somebody wrote on the closed side");
            self.note(self.facts.epoch, event)?;
        }
        self.flush().await?;
        failpoint::reach("before_strays", step).await;
        if let Some(action) = action {
            match self.cluster.apply(&action, &self.facts).await {
                Ok(()) => {}
                Err(Fault::EpochRaised) => {
                    return Err(LeadershipLost("another daemon has raised the epoch".to_owned()));
                }
                Err(fault @ Fault::Failed(_)) => {
                    tracing::warn!(%fault, "who writes on the closed side was not ended");
                    return Ok(());
                }
            }
        }
        failpoint::reach("after_strays", step).await;
        for event in after {
            tracing::warn!(?event, "a transaction on the closed side has ended");
            self.note(self.facts.epoch, event)?;
        }
        self.flush().await
    }
}
