//! How far a stream is behind, judged from what its two ends said.
//!
//! Pure: no clock is read. Times of two servers are never subtracted from each other, origin
//! progress is never taken for lag (it does not move over empty transactions), and a figure that
//! was not seen is absent, never zero.

mod judge;
mod sample;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::side::Direction;

pub use judge::{StreamLimits, StreamWindow};
pub use sample::{
    Beat, ProviderLook, SenderSeen, SlotSeen, StreamSample, SubscriberLook, SubscriptionSeen,
};

/// Both streams of a migration, as last seen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LagReport {
    /// Source to destination.
    pub forward: StreamReport,
    /// Destination to source.
    pub reverse: StreamReport,
    /// When both were looked at, by the observer's clock: a report nobody renews looks fresh.
    pub observed_at: Option<Timestamp>,
}

impl LagReport {
    /// The report of one direction.
    #[must_use]
    pub fn stream(&self, direction: Direction) -> &StreamReport {
        match direction {
            Direction::Forward => &self.forward,
            Direction::Reverse => &self.reverse,
        }
    }
}

/// One stream, as last seen. A figure that is not known is `None`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StreamReport {
    /// What the stream is doing.
    pub status: StreamStatus,
    /// Age of the oldest change known not to have arrived, by the clock of the side that wrote it.
    pub lag_seconds: Option<f64>,
    /// WAL written by the one side and not yet confirmed as durable by the other.
    pub lag_bytes: Option<u64>,
    /// WAL that the stream's slot holds back on the side it reads from.
    pub retained_wal_bytes: Option<u64>,
    /// WAL that may still be written before the slot is lost; `None` also when there is no limit.
    pub safe_wal_bytes: Option<i64>,
    /// What the server says of that WAL: `reserved`, `extended`, `unreserved` or `lost`.
    pub wal_status: Option<String>,
    /// The newest heartbeat that has arrived, by the clock of the side that wrote it.
    pub heartbeat_received_at: Option<Timestamp>,
    /// Whether anybody reads the stream's slot.
    pub slot_active: Option<bool>,
    /// The process that applies the stream.
    pub apply_worker: Option<WorkerSeen>,
    /// How often that process was replaced within [`StreamLimits::restart_window`] while the
    /// subscription stayed enabled: the trace that a crash loop leaves outside the server's log.
    pub worker_restarts: u32,
}

/// What a stream is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamStatus {
    /// There is no subscription.
    Absent,
    /// Enabled, and not carrying changes yet.
    Starting,
    /// Carrying changes.
    Streaming,
    /// Connected, yet what is confirmed stands still while there is something to carry.
    Stalled,
    /// Switched off.
    Disabled,
    /// Enabled, and nothing is there to carry changes.
    Down,
    /// Not seen.
    #[default]
    Unknown,
}

impl StreamStatus {
    /// Every status, in the order of their declaration.
    pub const ALL: [StreamStatus; 7] = [
        StreamStatus::Absent,
        StreamStatus::Starting,
        StreamStatus::Streaming,
        StreamStatus::Stalled,
        StreamStatus::Disabled,
        StreamStatus::Down,
        StreamStatus::Unknown,
    ];

    /// The word used in HTTP, metrics and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            StreamStatus::Absent => "absent",
            StreamStatus::Starting => "starting",
            StreamStatus::Streaming => "streaming",
            StreamStatus::Stalled => "stalled",
            StreamStatus::Disabled => "disabled",
            StreamStatus::Down => "down",
            StreamStatus::Unknown => "unknown",
        }
    }
}

impl std::fmt::Display for StreamStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A process of the server that applies a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerSeen {
    /// Its process id.
    pub pid: i32,
    /// When it was started, by its server's clock: another value is another process.
    pub started_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_words_are_the_same_on_the_wire_and_in_the_log() {
        for status in StreamStatus::ALL {
            let wire = serde_json::to_value(status).unwrap();
            assert_eq!(wire, status.as_str());
        }
    }

    #[test]
    fn a_report_not_looked_at_claims_nothing() {
        let report = LagReport::default();
        for direction in Direction::BOTH {
            assert_eq!(report.stream(direction).status, StreamStatus::Unknown);
            assert_eq!(report.stream(direction).lag_seconds, None);
        }
    }
}
