//! What the two ends of a stream said about it, before any judgement.
//!
//! Nothing here is computed: each field is a figure that one server printed.

use jiff::Timestamp;

use crate::lsn::Lsn;
use crate::seen::Seen;

use super::WorkerSeen;

/// Both ends of one stream, the end it is read from looked at *first*: what arrives between the
/// two looks can then only make the stream look faster than it is by that moment, never slower.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StreamSample {
    /// The side that changes come from. Never `Absent`.
    pub provider: Seen<ProviderLook>,
    /// The side that changes go to. Never `Absent`.
    pub subscriber: Seen<SubscriberLook>,
}

/// What the side that changes come from said.
#[derive(Clone, Debug, PartialEq)]
pub struct ProviderLook {
    /// Its clock, read in one statement with its heartbeat.
    pub now: Timestamp,
    /// Its present WAL position; `None` while it is a standby.
    pub wal_lsn: Option<Lsn>,
    /// Slots of this database that pglogical reads. Which is ours, only the other side knows.
    pub slots: Vec<SlotSeen>,
    /// The process that sends the stream.
    pub sender: Option<SenderSeen>,
    /// The heartbeat that this side writes; `None` until its first.
    pub heartbeat: Option<Beat>,
}

/// A replication slot.
#[derive(Clone, Debug, PartialEq)]
pub struct SlotSeen {
    /// `slot_name`
    pub name: String,
    /// Whether a process is reading it.
    pub active: bool,
    /// `wal_status`: `reserved`, `extended`, `unreserved` or `lost`.
    pub wal_status: Option<String>,
    /// The oldest WAL it needs.
    pub restart_lsn: Option<Lsn>,
    /// Everything before it is durable on the other side.
    pub confirmed_flush_lsn: Option<Lsn>,
    /// `safe_wal_size`; `None` when retention has no limit, or the slot is lost.
    pub safe_wal_bytes: Option<i64>,
}

impl SlotSeen {
    /// Whether the server has removed WAL that the slot needs: no stream can start on it again.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.wal_status.as_deref() == Some("lost")
    }
}

/// A row of `pg_stat_replication`.
#[derive(Clone, Debug, PartialEq)]
pub struct SenderSeen {
    /// Its process id.
    pub pid: i32,
    /// `startup`, `catchup`, `streaming`, …; `None` without the privilege to see it.
    pub state: Option<String>,
}

/// What the side that changes go to said.
#[derive(Clone, Debug, PartialEq)]
pub struct SubscriberLook {
    /// The subscription; `Absent` also while pglogical is not installed.
    pub subscription: Seen<SubscriptionSeen>,
    /// The other side's heartbeat, as replication brought it; `None` until the first arrives.
    pub received: Option<Beat>,
}

/// A subscription and the process that serves it.
#[derive(Clone, Debug, PartialEq)]
pub struct SubscriptionSeen {
    /// `sub_enabled`
    pub enabled: bool,
    /// `sub_slot_name`
    pub slot_name: String,
    /// `sub_replication_sets`
    pub sets: Vec<String>,
    /// `sub_forward_origins`: empty, or the stream would send back what it received.
    pub forward_origins: Vec<String>,
    /// `sync_status` of the subscription itself: `r` once it may stream.
    pub sync_status: Option<char>,
    /// Its apply process; `Unknown` without the privilege to see processes of others.
    pub worker: Seen<WorkerSeen>,
}

/// One heartbeat: its number and the writer's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beat {
    /// Counts up by one with each heartbeat.
    pub beat: i64,
    /// When it was written, by the writer's clock.
    pub at: Timestamp,
}
