//! What one look saw: both nodes, both streams, and the clock, as values.
//!
//! A snapshot, never a handle. What a look was not asked for, or could not see, is
//! [`Seen::Unknown`]; `World::default()` knows nothing, and nothing may follow from it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use uuid::Uuid;

use crate::action::{SessionId, SetAddition};
use crate::existing::{ExistingView, SetAside};
use crate::finding::{Blocker, Finding};
use crate::lag::LagReport;
use crate::lsn::Lsn;
use crate::name::{RoleName, SequenceName, TableName};
use crate::seen::Seen;
use crate::side::{Direction, Side};
use crate::strays::{ComparisonView, Fate, Writer};
use crate::traffic::TrafficView;
use crate::verify::VerifyView;
use crate::verify::background::{BackgroundView, Written};
use crate::verify::repair::RepairView;

/// Everything that one look saw.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// The daemon's clock when the look began.
    pub now: Timestamp,
    /// The source.
    pub source: NodeView,
    /// The destination.
    pub destination: NodeView,
    /// Source to destination.
    pub forward: StreamView,
    /// Destination to source.
    pub reverse: StreamView,
    /// What preflight found.
    pub findings: Seen<Vec<Finding>>,
    /// Connections between the servers that failed when tried from inside them.
    pub peers: Seen<Vec<Blocker>>,
    /// Tables of the source that the destination lacks, or has otherwise.
    pub schema: Seen<SchemaView>,
    /// How the schema that the destination brought compares; Absent when pgferry makes it.
    pub existing: Seen<ExistingView>,
    /// What was set aside on the destination and is not there again; Absent when nothing is.
    pub still_aside: Seen<Vec<SetAside>>,
    /// How far the copy is.
    pub copy: Seen<CopyView>,
    /// How far the copy is that pglogical makes.
    pub native: Seen<NativeCopyView>,
    /// Indexes, constraints and triggers of the source that the destination lacks.
    pub missing_indexes: Seen<Vec<String>>,
    /// Copied tables without planner statistics.
    pub tables_to_analyze: Seen<u64>,
    /// What differs between the tables in scope and what is replicated.
    pub drift: Seen<Vec<Blocker>>,
    /// Both streams, with lag.
    pub lag: Seen<LagReport>,
    /// The background job, when there is one.
    pub job: Seen<JobView>,
    /// The comparison of rows that was asked for; Absent when none was begun by this process.
    pub verification: Seen<VerifyView>,
    /// The comparison of rows that goes on in the background.
    pub background: Seen<BackgroundView>,
    /// What was written since a verification; Absent where that was not measured from its beginning.
    pub written: Seen<Written>,
    /// Rows that the verification is to copy again, while it is asked to.
    pub repairs: Seen<Vec<RepairView>>,
    /// The comparison of what strays left; Absent when none was begun by this process.
    pub stray_comparison: Seen<ComparisonView>,
    /// What is left that was not there before, with the statement that removes it.
    pub leftovers: Seen<Vec<Blocker>>,
    /// The journal itself.
    pub journal: Seen<JournalView>,
    /// Poolers or hooks between the clients and the active side; Absent when there are none.
    pub traffic: Seen<TrafficView>,
}

impl World {
    /// One of the two nodes.
    #[must_use]
    pub fn node(&self, side: Side) -> &NodeView {
        match side {
            Side::Source => &self.source,
            Side::Destination => &self.destination,
        }
    }

    /// One of the two nodes, to be filled in.
    pub fn node_mut(&mut self, side: Side) -> &mut NodeView {
        match side {
            Side::Source => &mut self.source,
            Side::Destination => &mut self.destination,
        }
    }

    /// One of the two streams.
    #[must_use]
    pub fn stream(&self, direction: Direction) -> &StreamView {
        match direction {
            Direction::Forward => &self.forward,
            Direction::Reverse => &self.reverse,
        }
    }

    /// One of the two streams, to be filled in.
    pub fn stream_mut(&mut self, direction: Direction) -> &mut StreamView {
        match direction {
            Direction::Forward => &mut self.forward,
            Direction::Reverse => &mut self.reverse,
        }
    }
}

/// One node.
#[derive(Clone, Debug, Default)]
pub struct NodeView {
    /// pgferry's record on it.
    pub record: Seen<NodeRecord>,
    /// Extension, grants and tables.
    pub install: Seen<InstallView>,
    /// Whether the database is registered with pglogical under our name; `Present(other name)`
    /// when under another.
    pub pglogical_node: Seen<String>,
    /// Tables in scope that are in no set of ours yet; sets that lack count as well.
    pub to_replicate: Seen<Vec<SetAddition>>,
    /// Roles, sessions and prepared transactions, as far as a fence needs them.
    pub fence: Seen<FenceView>,
    /// Transactions of fenced roles that write there, where it is the side to be watched for them.
    pub strays: Seen<Vec<Writer>>,
    /// What became of strays that were written down, by their transaction; those that go on are left out.
    pub fates: Seen<Vec<(u64, Fate)>>,
    /// The markers' rows.
    pub marker: Seen<MarkerView>,
    /// Every sequence in scope.
    pub sequences: Seen<Vec<SequenceView>>,
    /// For each sequence that fills a column: the value farthest in the direction of its increment
    /// that a row holds.
    pub column_values: Seen<Vec<(SequenceName, i64)>>,
    /// Slots and origins of this migration that no subscription uses.
    pub orphans: Seen<OrphansView>,
    /// What pgferry has put there and `Remove` takes away is still there.
    pub removable: Seen<()>,
}

/// Whether application writes are allowed on a node, by its own record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NodeState {
    /// They are.
    Open,
    /// They are not; un-fencing needs nothing but this record.
    Fenced,
    /// They are not, and the other side may have been opened.
    Yielded,
}

impl NodeState {
    /// The word in `pgferry.node.state`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            NodeState::Open => "open",
            NodeState::Fenced => "fenced",
            NodeState::Yielded => "yielded",
        }
    }
}

/// The row of `pgferry.node`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRecord {
    /// The side that this node is.
    pub side: Side,
    /// Its random id.
    pub id: Uuid,
    /// The leadership that may mutate it.
    pub epoch: i64,
    /// Open, fenced or yielded.
    pub state: NodeState,
    /// Raised by each change of state.
    pub revision: i64,
}

/// What stands of the installation on a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InstallView {
    /// The extension is there.
    pub extension: bool,
    /// The extension would have to be made, and this role may make it.
    pub may_create_extension: bool,
    /// Schema pgferry holds its tables.
    pub tables: bool,
    /// What an administrator has to do first.
    pub blockers: Vec<Blocker>,
}

/// What a fence needs to see.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FenceView {
    /// Application roles without the read-only default, or that were locked out and may log in.
    pub unfenced: Vec<RoleName>,
    /// Those of them in no record yet that are to be locked out of the server: with
    /// `fence.method = "no_login"`, when no other database uses them.
    pub to_lock_out: Vec<RoleName>,
    /// With `fence.method = "no_login"`: application roles that other databases use, and which.
    pub used_elsewhere: Vec<String>,
    /// Application roles of the other side that do not exist on this one.
    pub missing: Vec<RoleName>,
    /// Roles in the record of the fence.
    pub fenced: Vec<RoleName>,
    /// Those of them that pgferry's role may not alter any more, each with the administrator's
    /// statements after which it may.
    pub cannot_lift: Vec<(RoleName, String)>,
    /// Sessions of before of roles that could not be altered when their side was opened, a while after
    /// those were lifted: they would stay read-only.
    pub late_sessions: Vec<SessionView>,
    /// Roles whose fence was lifted, and that are read-only by default all the same.
    pub still_read_only: Vec<RoleName>,
    /// Roles whose fence was lifted, and that may not log in all the same.
    pub still_locked_out: Vec<RoleName>,
    /// Backends that began before the last change of the record and are still starting up: they
    /// may have read the settings of before, and are in no list of sessions yet.
    pub starting: u64,
    /// Client sessions of application roles that began before the last change of the record.
    pub older_sessions: Vec<SessionView>,
    /// Client sessions of application roles that hold a transaction id, whenever they began.
    pub writers: Vec<SessionView>,
    /// Prepared transactions in this database.
    pub prepared: u64,
    /// Milliseconds since the record's last change, by this server's clock.
    pub since_change_ms: u64,
    /// Transactions of application roles open for longer than a minute, in seconds.
    pub longest_transaction_seconds: Option<f64>,
    /// Statements that restore the recorded settings, for a person.
    pub lift_statements: Vec<String>,
    /// Sessions that write and cannot be fenced: superusers, or pgferry's own role used by others.
    pub unfenceable_writers: Vec<String>,
}

/// A client session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionView {
    /// Which.
    pub id: SessionId,
    /// Whose.
    pub role: RoleName,
    /// Between transactions.
    pub idle: bool,
}

/// Both rows of `pgferry.marker` on one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MarkerView {
    /// The token in the node's own row.
    pub own: u64,
    /// The token in the other side's row, as it arrived here.
    pub other: u64,
    /// Whether the node's own row was last written by a replication worker: an echo.
    pub own_came_back: bool,
}

/// A sequence (`pg_sequences`), its privilege proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SequenceView {
    /// Its name.
    pub name: SequenceName,
    /// The last value handed out; None when it was never called.
    pub last: Option<i64>,
    /// `seqincrement`
    pub increment: i64,
    /// `seqmin`
    pub min: i64,
    /// `seqmax`
    pub max: i64,
    /// `seqcycle`
    pub cycle: bool,
}

/// Slots on a node, and origins on it, that belong to this migration and to no subscription.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OrphansView {
    /// `pg_replication_slots`: name, and whether it is active.
    pub slots: BTreeMap<String, bool>,
    /// `pg_replication_origin`
    pub origins: Vec<String>,
}

/// One stream.
#[derive(Clone, Debug, Default)]
pub struct StreamView {
    /// On the subscriber.
    pub subscription: Seen<SubscriptionView>,
    /// On the provider.
    pub slot: Seen<SlotView>,
    /// On the subscriber: the position up to which changes have been applied.
    pub origin: Seen<Lsn>,
}

/// `pglogical.subscription` and what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionView {
    /// `sub_enabled`
    pub enabled: bool,
    /// Its `local_sync_status` is `r`.
    pub initialized: bool,
    /// Its worker runs.
    pub worker: bool,
    /// It reads the real sets; false while it reads the empty one.
    pub real_sets: bool,
    /// `sub_forward_origins` is empty, as it must be.
    pub forwards_nothing: bool,
    /// `sub_slot_name`
    pub slot: String,
}

/// `pg_replication_slots`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotView {
    /// The walsender that reads it.
    pub active_pid: Option<i32>,
    /// `confirmed_flush_lsn`
    pub confirmed_flush: Lsn,
    /// `wal_status` is `lost`.
    pub lost: bool,
}

impl SlotView {
    /// Whether a walsender reads it.
    #[must_use]
    pub fn active(&self) -> bool {
        self.active_pid.is_some()
    }
}

/// The definitions on the destination against the source's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SchemaView {
    /// Tables in scope on the source.
    pub tables: u64,
    /// Those that the destination lacks.
    pub missing: Vec<TableName>,
    /// Those that differ, one sentence each.
    pub differing: Vec<Blocker>,
}

/// How far the copy is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CopyView {
    /// The snapshot that this process holds.
    pub held: Option<Lsn>,
    /// Tables to copy.
    pub tables: u64,
    /// Tables with a committed copy, by the snapshot they were copied under.
    pub copied: BTreeMap<Lsn, u64>,
    /// Rows of the committed copies.
    pub rows: u64,
    /// Bytes of the committed copies.
    pub bytes: u64,
}

/// How far the copy is that pglogical makes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NativeCopyView {
    /// `local_sync_status` of the subscription: `r` once pglogical calls it finished.
    pub status: Option<char>,
    /// The worker that copies, and applies later, runs.
    pub worker: bool,
    /// What it is at, where the server tells.
    pub progress: Option<String>,
    /// Tables to copy.
    pub tables: u64,
    /// Those that were counted on both sides at one moment, and were equal.
    pub counted: u64,
    /// Their rows.
    pub rows: u64,
}

/// The background job of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobView {
    /// It runs, and this is what it does.
    Running(String),
    /// It ended well, whatever a look says of it.
    Done(String),
    /// It failed, and may be tried again from then on.
    Failed {
        /// Why.
        blocker: Blocker,
        /// When.
        retry_at: Timestamp,
    },
}

/// The journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalView {
    /// It lives in one of the two databases, and goes when the migration ends.
    pub in_a_node: bool,
    /// It has been written to a file since the last event that counts.
    pub archived: bool,
}
