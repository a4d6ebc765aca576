//! What an engine tells beforehand: for how long a switchover would hold writes, and what a forced one
//! may lose. Changes nothing, and nothing is decided by it.

use std::time::Duration;

use pgferry_plan::{Blocker, Course, Direction, Facts, Loss, Step, Verb, predict};

use super::Engine;
use crate::ports::{Cluster, Journal, Traffic};

/// Enough for a middle one, and a dry run is waited for.
const LOOKS_TO_MEASURE: usize = 5;

impl<C: Cluster, T: Traffic, J: Journal> Engine<C, T, J> {
    /// For how long the switchover that is possible now would hold writes, in milliseconds; changes
    /// nothing. None at any other time than at rest, or while a part of it could not be measured.
    pub async fn predicted_stall_ms(&self) -> Option<f64> {
        if self.facts.course != Course::AtRest {
            return None;
        }
        // A look as it would be within the stall: what it costs is told best by one.
        let kind = self.facts.kind();
        let within = Facts { course: Course::imagined(kind, Step::Yield), ..self.facts.clone() };
        let mut looks = Vec::new();
        for _ in 0..LOOKS_TO_MEASURE {
            let began = tokio::time::Instant::now();
            let world = self.cluster.observe(&within).await;
            world.node(kind.from()).record.present()?;
            world.node(kind.to()).record.present()?;
            looks.push(began.elapsed());
        }
        let appends: Vec<Duration> = self.appends.iter().copied().collect();
        let leaving = Direction::leaving(kind.from());
        let lag = self.world.lag.present().and_then(|lag| lag.stream(leaving).lag_seconds);
        predict::stall_ms(&predict::Parts {
            append_ms: predict::median_ms(&appends),
            look_ms: predict::median_ms(&looks),
            arrival_ms: lag.map(|seconds| seconds * 1000.0),
        })
    }

    /// Looks afresh and tells everything that stands against forcing a switchover of this verb, and what
    /// it may lose.
    pub async fn forced_verdict(&mut self, verb: Verb) -> (Vec<Blocker>, Loss) {
        self.world = self.cluster.observe_records().await;
        let blockers = pgferry_plan::forced::blockers(&self.facts, &self.world, verb);
        (blockers, pgferry_plan::forced::loss(&self.facts, &self.world, self.unconfirmed))
    }

    /// The active side's WAL that the other one had not confirmed, while both can be seen.
    pub(super) fn remember_unconfirmed(&mut self) {
        let leaving = Direction::leaving(self.facts.kind().from());
        let bytes = self.world.lag.present().and_then(|lag| lag.stream(leaving).lag_bytes);
        self.unconfirmed = bytes.map(|bytes| (bytes, self.world.now)).or(self.unconfirmed);
    }
}
