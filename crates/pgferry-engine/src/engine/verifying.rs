//! The verification beside a migration at rest: begun, noted, and given up for what goes before it.

use pgferry_plan::strays::ComparisonView;
use pgferry_plan::verify::background::{InBackground, in_background};
use pgferry_plan::verify::{AtRest, VerifyView, at_rest};
use pgferry_plan::{Action, Course, Seen, World};
use uuid::Uuid;

use super::Engine;
use crate::ports::{Cluster, Journal, LeadershipLost, Traffic};

impl<C: Cluster, T: Traffic, J: Journal> Engine<C, T, J> {
    /// Begins the verification that was asked for at rest, or notes how it ended; whether anything
    /// was noted. A begin that fails is seen by the next look.
    pub(super) async fn keep_verifying(&mut self) -> Result<bool, LeadershipLost> {
        if self.facts.course != Course::AtRest {
            return Ok(false);
        }
        match at_rest(&self.facts, &self.world) {
            AtRest::Nothing => Ok(false),
            AtRest::Begin(action) => {
                if let Err(fault) = self.cluster.apply(&action, &self.facts).await {
                    tracing::warn!(%fault, "the verification could not begin");
                }
                Ok(false)
            }
            AtRest::End(events) => {
                for event in events {
                    self.note(self.facts.epoch, event)?;
                }
                self.flush().await?;
                Ok(true)
            }
        }
    }

    /// Begins a round in the background or gives it up, or notes that it came out otherwise than
    /// before; whether anything was noted.
    pub(super) async fn verify_in_background(&mut self) -> Result<bool, LeadershipLost> {
        match in_background(&self.facts, &self.world, &self.policy, Uuid::now_v7()) {
            InBackground::Nothing => Ok(false),
            InBackground::Do(action) => {
                if let Err(fault) = self.cluster.apply(&action, &self.facts).await {
                    tracing::warn!(%fault, "a verification in the background could not begin or end");
                }
                Ok(false)
            }
            InBackground::Tell(event) => {
                self.note(self.facts.epoch, event)?;
                self.flush().await?;
                Ok(true)
            }
        }
    }

    /// Gives up the verification that runs when something was asked for that goes before it: it must
    /// not wait for its statements.
    pub(super) async fn give_way(&self, verifies: bool) {
        if !verifies || (self.facts.course == Course::AtRest && !self.facts.paused) {
            return;
        }
        let action = if self.facts.course == Course::AtRest {
            // What a person has asked for goes on in a pause.
            Action::GiveUpBackground
        } else {
            Action::StopVerification
        };
        if let Err(fault) = self.cluster.apply(&action, &self.facts).await {
            tracing::warn!(%fault, "the verification could not be stopped");
        }
    }
}

/// Whether a look saw a verification at work, whoever asked for it.
pub(super) fn verifies(world: &World) -> bool {
    matches!(world.verification, Seen::Present(VerifyView::Running { .. }))
        || world.stray_comparison == Seen::Present(ComparisonView::Running)
        || world.background.present().is_some_and(|view| view.running.is_some())
}
