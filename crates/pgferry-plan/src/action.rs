//! What can be done to the world: each action small, idempotent, and named as its intent is.
//!
//! Data only. An action carries everything that its effect depends on, so that what was decided
//! is what is done; how it is done is the Postgres crate's business.

use uuid::Uuid;

use crate::existing::SetAside;
use crate::journal::Intent;
use crate::lsn::Lsn;
use crate::name::{RoleName, SequenceName, TableName};
use crate::side::{Direction, Side};
use crate::strays::Writer;
use crate::world::{FenceView, NodeRecord};

/// One idempotent change of one node, or the start of one background job.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Make extension, schema, tables and node record present on a side.
    Install {
        /// Where.
        side: Side,
        /// The random id of the node's record.
        node_id: Uuid,
        /// Whether the extension is pgferry's to make, and so to remove.
        creates_extension: bool,
    },
    /// Record the roles' settings, make them read-only by default, lock out those that were locked
    /// out before, and say so in the record; one transaction.
    Fence {
        /// Where.
        side: Side,
        /// The record's revision that was seen.
        revision: i64,
        /// The roles that are not fenced yet.
        roles: Vec<RoleName>,
        /// Those of them that may not log in any more either.
        lock_out: Vec<RoleName>,
    },
    /// End client sessions that may still have the settings of before.
    EndSessions {
        /// Where.
        side: Side,
        /// Which.
        sessions: Vec<SessionId>,
    },
    /// Start the job that counts what strays left and compares their tables on both sides.
    CompareStrays {
        /// The side whose rows count as right.
        active: Side,
        /// Which.
        strays: Vec<Writer>,
    },
    /// Register the database with pglogical.
    CreateNode {
        /// Where.
        side: Side,
    },
    /// Start the job that carries over the definitions without indexes (pre-data).
    CopySchema,
    /// Start the job that takes foreign keys and triggers of the destination out of the way of the
    /// copy, each table's in one transaction with the record of them.
    SetAside {
        /// All of it is on the source in the same words and state.
        objects: Vec<SetAside>,
    },
    /// Start the job that puts back what an abandoned migration had set aside.
    PutBack,
    /// Start the job that makes the replication sets and puts tables into them, one by one.
    AddToSets {
        /// Where.
        side: Side,
        /// The tables that are in none yet, and whether each goes into the insert-only set.
        tables: Vec<SetAddition>,
    },
    /// Start the job that builds keys and indexes before the rows, for a copy that pglogical makes.
    BuildKeys,
    /// Create the forward subscription on the real sets, and let pglogical copy the rows.
    CreateCopyingSubscription,
    /// Start the job that counts every table on both sides.
    CountRows,
    /// Create a subscription that copies nothing and forwards nothing.
    CreateSubscription {
        /// Which.
        direction: Direction,
        /// On the empty set (forward, before the copy) or on the real ones.
        on_empty_set: bool,
    },
    /// Disable a subscription.
    DisableSubscription {
        /// Which.
        direction: Direction,
    },
    /// Enable a subscription that was disabled.
    EnableSubscription {
        /// Which.
        direction: Direction,
    },
    /// Wake the worker of a subscription that is enabled; never enables one.
    WakeSubscription {
        /// Which.
        direction: Direction,
    },
    /// Replace the empty set of a disabled subscription by the real ones.
    SwapSets {
        /// Which.
        direction: Direction,
    },
    /// Export a snapshot on the source and hold it.
    TakeSnapshot,
    /// Start the job that copies every table not yet copied under this snapshot.
    CopyRows {
        /// The position that the snapshot stands for.
        snapshot_lsn: Lsn,
    },
    /// Start the job that builds what is missing of keys, indexes, constraints and triggers.
    BuildIndexes,
    /// Advance the subscription's slot on its provider.
    AdvanceSlot {
        /// Whose.
        direction: Direction,
        /// Exactly to here, never past it.
        to: Lsn,
    },
    /// Advance the subscription's origin and enable it, in one transaction.
    StartStream {
        /// Which.
        direction: Direction,
        /// The position of the copied snapshot.
        at_lsn: Lsn,
    },
    /// Start the job that gathers planner statistics.
    Analyze,
    /// Start comparing every row of both sides, or go on with it.
    Verify {
        /// The operation that asked for it.
        run: Uuid,
        /// The side whose rows count as right.
        active: Side,
    },
    /// Let the comparison copy these rows again, and forget of those what is written down.
    Repair {
        /// Intended in the journal.
        begin: Vec<Uuid>,
        /// Ended, and that is in the journal.
        told: Vec<Uuid>,
    },
    /// Give up the comparison that runs.
    StopVerification,
    /// Start a round in the background, or go on with it.
    VerifyInBackground {
        /// The round.
        run: Uuid,
        /// The side whose rows count as right.
        active: Side,
        /// The verification whose findings are still to be told.
        keep: Option<Uuid>,
    },
    /// Give up the round that runs in the background; what it has compared stays compared.
    GiveUpBackground,
    /// Write a side's own marker.
    WriteMarker {
        /// Whose.
        side: Side,
        /// Greater than every token before it.
        token: u64,
    },
    /// Set sequences of a closed side.
    SetSequences {
        /// Where.
        side: Side,
        /// The record's revision that was seen.
        revision: i64,
        /// The last value that each is to have handed out.
        values: Vec<(SequenceName, i64)>,
    },
    /// End the walsender that reads a slot.
    EndReader {
        /// Where.
        side: Side,
        /// The slot, which is ours.
        slot: String,
        /// Only this one, which was seen; none means whoever reads it, before it is dropped.
        pid: Option<i32>,
    },
    /// Set sequences of a closed side past what its tables hold, because the other side is lost.
    RaiseSequences {
        /// Where.
        side: Side,
        /// The record's revision that was seen, and that this raises: how a look knows it was done.
        revision: i64,
        /// The last value that each is to have handed out.
        values: Vec<(SequenceName, i64)>,
    },
    /// Write into the fenced side's record that it has yielded. This is the line.
    Yield {
        /// The fenced side.
        side: Side,
        /// The record's revision that was seen.
        revision: i64,
    },
    /// Restore the setting of every fenced role that can be altered, and say so in the record; one
    /// transaction.
    Open {
        /// Where.
        side: Side,
        /// The record's revision that was seen.
        revision: i64,
        /// The other side's marker that must have arrived, for the side that writes move to: it is
        /// looked for in the same transaction, because what was seen to arrive is gone after a crash.
        after_marker: Option<u64>,
    },
    /// Hold the clients of every pooler, and lead each one that holds to the other side; or run the
    /// hook before the line.
    PauseTraffic {
        /// The side that they come from.
        side: Side,
        /// Whether writes are held from then on: a pooler holds them, of a hook nothing is known.
        holds: bool,
    },
    /// Lead every pooler that holds to a side, where holding was not enough; it goes on holding.
    PointTraffic {
        /// Where to.
        side: Side,
    },
    /// Lead every pooler to a side and let its clients go on, or run the hook that tells of it.
    ResumeTraffic {
        /// Where to; that side is open.
        side: Side,
    },
    /// Drop a subscription on its subscriber.
    DropSubscription {
        /// Which.
        direction: Direction,
    },
    /// Drop a slot that its subscription left behind.
    DropSlot {
        /// The provider.
        side: Side,
        /// `pg_replication_slots.slot_name`
        slot: String,
    },
    /// Drop an origin that its subscription left behind.
    DropOrigin {
        /// The subscriber.
        side: Side,
        /// `pg_replication_origin.roname`
        origin: String,
    },
    /// Unregister the database from pglogical.
    DropNode {
        /// Where.
        side: Side,
    },
    /// Remove triggers, the extension where pgferry made it, and pgferry's own tables.
    Remove {
        /// Where.
        side: Side,
        /// Whether the extension goes too.
        extension: bool,
    },
    /// Write the journal to a file, durably.
    ArchiveJournal,
    /// Remove the journal's tables.
    DropJournal,
    /// End the background job of a course that was left.
    StopJob,
}

/// One client session, recognised even when its process id is used again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionId {
    /// `pg_stat_activity.pid`
    pub pid: i32,
    /// `pg_stat_activity.backend_start`, microseconds since 1970.
    pub started_us: i64,
}

/// A table to be replicated, and the set that it goes into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAddition {
    /// The table.
    pub table: TableName,
    /// Into the insert-only set, because it has no key.
    pub insert_only: bool,
}

impl Action {
    /// Closes out every role that a look found open.
    #[must_use]
    pub(crate) fn fence(side: Side, record: &NodeRecord, seen: &FenceView) -> Self {
        Action::Fence {
            side,
            revision: record.revision,
            roles: seen.unfenced.clone(),
            lock_out: seen.to_lock_out.clone(),
        }
    }

    /// Whether it is the traffic's to carry out, and not the servers'.
    #[must_use]
    pub fn concerns_traffic(&self) -> bool {
        matches!(
            self,
            Action::PauseTraffic { .. }
                | Action::PointTraffic { .. }
                | Action::ResumeTraffic { .. }
        )
    }

    /// What the journal keeps of it; None for what leaves nothing that a later look would have to
    /// recognise: within the stall each entry costs a flush to disk.
    #[must_use]
    pub fn intent(&self) -> Option<Intent> {
        let intent = match self {
            Action::Install { side, node_id, creates_extension } => Intent::Install {
                side: *side,
                node_id: *node_id,
                creates_extension: *creates_extension,
            },
            Action::Fence { side, .. } => Intent::Fence { side: *side },
            Action::EndSessions { .. }
            | Action::CompareStrays { .. }
            | Action::EndReader { .. }
            | Action::WakeSubscription { .. }
            | Action::Repair { .. }
            | Action::StopVerification
            | Action::VerifyInBackground { .. }
            | Action::GiveUpBackground => return None,
            Action::CreateNode { side } => Intent::CreateNode { side: *side },
            Action::CopySchema => Intent::CopySchema,
            Action::SetAside { .. } => Intent::SetAside,
            Action::PutBack => Intent::PutBack,
            Action::BuildKeys => Intent::BuildKeys,
            Action::CreateCopyingSubscription => Intent::CreateCopyingSubscription,
            Action::CountRows => Intent::CountRows,
            Action::AddToSets { side, .. } => Intent::AddToSets { side: *side },
            Action::CreateSubscription { direction, .. } => {
                Intent::CreateSubscription { direction: *direction }
            }
            Action::DisableSubscription { direction } => {
                Intent::DisableSubscription { direction: *direction }
            }
            Action::EnableSubscription { direction } => {
                Intent::EnableSubscription { direction: *direction }
            }
            Action::SwapSets { direction } => Intent::SwapSets { direction: *direction },
            Action::TakeSnapshot => Intent::TakeSnapshot,
            Action::CopyRows { snapshot_lsn } => Intent::CopyRows { snapshot_lsn: *snapshot_lsn },
            Action::BuildIndexes => Intent::BuildIndexes,
            Action::AdvanceSlot { direction, to } => {
                Intent::AdvanceSlot { direction: *direction, to: *to }
            }
            Action::StartStream { direction, at_lsn } => {
                Intent::StartStream { direction: *direction, at_lsn: *at_lsn }
            }
            Action::Analyze => Intent::Analyze,
            Action::Verify { run, .. } => Intent::Verify { run: *run },
            Action::WriteMarker { side, token } => {
                Intent::WriteMarker { side: *side, token: *token }
            }
            Action::SetSequences { side, revision, .. } => {
                Intent::SetSequences { side: *side, revision: *revision }
            }
            Action::RaiseSequences { side, revision, .. } => {
                Intent::RaiseSequences { side: *side, revision: *revision }
            }
            Action::Yield { side, .. } => Intent::Yield { side: *side },
            Action::Open { side, revision, .. } => {
                Intent::Open { side: *side, revision: *revision }
            }
            Action::PauseTraffic { side, holds } => {
                Intent::PauseTraffic { side: *side, holds: *holds }
            }
            Action::PointTraffic { side } => Intent::PointTraffic { side: *side },
            Action::ResumeTraffic { side } => Intent::ResumeTraffic { side: *side },
            Action::DropSubscription { direction } => {
                Intent::DropSubscription { direction: *direction }
            }
            Action::DropSlot { side, .. } => Intent::DropSlot { side: *side },
            Action::DropOrigin { side, .. } => Intent::DropOrigin { side: *side },
            Action::DropNode { side } => Intent::DropNode { side: *side },
            Action::Remove { side, .. } => Intent::Remove { side: *side },
            Action::ArchiveJournal => Intent::ArchiveJournal,
            Action::DropJournal => Intent::DropJournal,
            Action::StopJob => Intent::StopJob,
        };
        Some(intent)
    }
}
