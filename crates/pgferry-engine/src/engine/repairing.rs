//! Writing down what a verification is about to repair, before it is let.

use pgferry_plan::verify::repair::{Next, next};
use pgferry_plan::{Action, Course};

use super::Engine;
use crate::failpoint;
use crate::ports::{Cluster, Fault, Journal, LeadershipLost, Traffic};

impl<C: Cluster, T: Traffic, J: Journal> Engine<C, T, J> {
    /// Notes what is to be repaired and how that ended, and lets the former go on behind it.
    pub(super) async fn keep_repairing(&mut self) -> Result<(), LeadershipLost> {
        if self.facts.course != Course::AtRest {
            return Ok(());
        }
        let Some(Next { events, action }) = next(&self.facts, &self.world) else { return Ok(()) };
        for event in events {
            self.note(self.facts.epoch, event)?;
        }
        self.flush().await?;
        let begins = matches!(&action, Action::Repair { begin, .. } if !begin.is_empty());
        failpoint::reach(if begins { "before_repair" } else { "after_repair" }, None).await;
        match self.cluster.apply(&action, &self.facts).await {
            Ok(()) => {}
            Err(Fault::EpochRaised) => {
                return Err(LeadershipLost("another daemon has raised the epoch".to_owned()));
            }
            // It waits on, and the next look sees it.
            Err(fault @ Fault::Failed(_)) => tracing::warn!(%fault, "the repair was not let go on"),
        }
        Ok(())
    }
}
