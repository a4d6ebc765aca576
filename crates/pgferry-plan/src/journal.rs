//! The journal's words: what was asked for, intended, seen to be done, and taken back.
//!
//! Events only. What they add up to, and which order of them is legal, is [`crate::facts`].

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::finding::Blocker;
use crate::lsn::Lsn;
use crate::side::{Direction, Kind, Side};
use crate::steps::Step;
use crate::strays::{Fate, StrayTable, Writer};
use crate::verify::Verified;

/// One row of the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Position, from 1, without gaps.
    pub seq: u64,
    /// The daemon's clock when it was written. Shown to people; decides nothing but budgets.
    pub at: Timestamp,
    /// The leadership that wrote it.
    pub epoch: i64,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// What a person can ask of a migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the commands of the design, section 6")]
pub enum Verb {
    Preflight,
    Start,
    Verify,
    Cutover,
    Rollback,
    Abort,
    Pause,
    Resume,
    Finish,
    Abandon,
}

impl Verb {
    /// The word used in HTTP, command line and journal.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Verb::Preflight => "preflight",
            Verb::Start => "start",
            Verb::Verify => "verify",
            Verb::Cutover => "cutover",
            Verb::Rollback => "rollback",
            Verb::Abort => "abort",
            Verb::Pause => "pause",
            Verb::Resume => "resume",
            Verb::Finish => "finish",
            Verb::Abandon => "abandon",
        }
    }

    /// The verb that asks for this kind of switchover.
    #[must_use]
    pub fn of_switchover(kind: Kind) -> Verb {
        match kind {
            Kind::Cutover => Verb::Cutover,
            Kind::Rollback => Verb::Rollback,
        }
    }
}

/// How an operation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationState {
    /// It was accepted and has not ended.
    Running,
    /// It did what it was asked for.
    Succeeded,
    /// It ended without doing it, and did not undo what it had done.
    Failed,
    /// It was taken back.
    Aborted,
    /// Something stood in the way, and nothing was changed.
    Blocked,
}

impl OperationState {
    /// The word used in HTTP and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            OperationState::Running => "running",
            OperationState::Succeeded => "succeeded",
            OperationState::Failed => "failed",
            OperationState::Aborted => "aborted",
            OperationState::Blocked => "blocked",
        }
    }
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A person asked for something, and it was accepted.
    Requested {
        /// The operation that it became.
        operation: Uuid,
        /// What was asked for.
        verb: Verb,
        /// finish and abandon: also lift the fence of the side left behind.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        open_passive: bool,
        /// For a switchover away from a side that is lost for good.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        force: bool,
    },
    /// The journal was lost with the active side, and this one begins with what the surviving side's
    /// record says.
    Adopted {
        /// The side that was active, and is lost.
        lost: Side,
        /// The id of the surviving side's record.
        node_id: Uuid,
    },
    /// A daemon became leader under the entry's epoch and raised it on both nodes.
    TookOver,
    /// An action is about to be carried out.
    Intended {
        /// For this step.
        step: Step,
        /// What, with all that a later look needs to recognise it.
        #[serde(flatten)]
        intent: Intent,
    },
    /// A look proved that the step is done.
    Completed {
        /// The step.
        step: Step,
        /// What the look showed, as far as later steps need it.
        #[serde(default, skip_serializing_if = "Evidence::is_nothing")]
        evidence: Evidence,
    },
    /// The running switchover is being taken back.
    Unwinding {
        /// Why; the first is the one that decided.
        blockers: Vec<Blocker>,
    },
    /// A look proved that the step has been taken back.
    Undone {
        /// The step.
        step: Step,
    },
    /// A switchover that was being taken back was seen to have crossed the line: it goes on.
    LineCrossed,
    /// The verification that was just asked for also copies rows again that differ.
    RepairRequested {
        /// The verification's operation.
        operation: Uuid,
    },
    /// Rows of a table are proven to differ, and are about to be copied again from the active side.
    RepairIntended {
        /// The verification's operation.
        operation: Uuid,
        /// These rows, in what follows.
        repair: Uuid,
        /// Their table.
        table: String,
        /// How many there are.
        rows: u64,
    },
    /// How that ended. It is missing where the process died meanwhile: what became of those rows the
    /// verification finds out when it goes on.
    Repaired {
        /// The verification's operation.
        operation: Uuid,
        /// Which rows.
        repair: Uuid,
        /// Their table.
        table: String,
        /// How many of them were replaced, added or taken away on the passive side.
        rows: u64,
        /// Why the others were not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        refused: Option<String>,
    },
    /// A verification beside the migration at rest came to a result.
    Verified {
        /// What it came to.
        verified: Verified,
    },
    /// A transaction of a fenced role was seen to write on a closed side, or in more of its tables than
    /// before. Its session is about to be ended.
    StrayFound {
        /// It.
        #[serde(flatten)]
        writer: Writer,
    },
    /// Its server says what became of it.
    StrayEnded {
        /// Where.
        side: Side,
        /// Which transaction.
        xid: u64,
        /// What.
        fate: Fate,
    },
    /// What it left was counted, and its tables were compared on both sides.
    StrayCompared {
        /// Where.
        side: Side,
        /// Which transaction.
        xid: u64,
        /// By table.
        tables: Vec<StrayTable>,
    },
    /// An operation ended.
    OperationEnded {
        /// Which.
        operation: Uuid,
        /// How.
        state: OperationState,
        /// Why, unless it succeeded.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        problem: Option<Blocker>,
        /// Everything that stood in the way, when that was more than one thing.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        blockers: Vec<Blocker>,
    },
}

/// What an action was meant to do, as far as a later look needs it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
#[allow(missing_docs, reason = "the fields carry the words of crate::action::Action")]
pub enum Intent {
    Install {
        side: Side,
        node_id: Uuid,
        creates_extension: bool,
    },
    Fence {
        side: Side,
    },
    CreateNode {
        side: Side,
    },
    CopySchema,
    SetAside,
    PutBack,
    BuildKeys,
    CreateCopyingSubscription,
    CountRows,
    AddToSets {
        side: Side,
    },
    CreateSubscription {
        direction: Direction,
    },
    DisableSubscription {
        direction: Direction,
    },
    EnableSubscription {
        direction: Direction,
    },
    SwapSets {
        direction: Direction,
    },
    TakeSnapshot,
    CopyRows {
        snapshot_lsn: Lsn,
    },
    BuildIndexes,
    AdvanceSlot {
        direction: Direction,
        to: Lsn,
    },
    StartStream {
        direction: Direction,
        at_lsn: Lsn,
    },
    Analyze,
    Verify {
        run: Uuid,
    },
    WriteMarker {
        side: Side,
        token: u64,
    },
    SetSequences {
        side: Side,
        #[serde(default)]
        revision: i64,
    },
    RaiseSequences {
        side: Side,
        revision: i64,
    },
    Yield {
        side: Side,
    },
    Open {
        side: Side,
        revision: i64,
    },
    PauseTraffic {
        side: Side,
        holds: bool,
    },
    PointTraffic {
        side: Side,
    },
    ResumeTraffic {
        side: Side,
    },
    DropSubscription {
        direction: Direction,
    },
    DropSlot {
        side: Side,
    },
    DropOrigin {
        side: Side,
    },
    DropNode {
        side: Side,
    },
    Remove {
        side: Side,
    },
    ArchiveJournal,
    DropJournal,
    StopJob,
}

/// What a completed step showed that later steps, or people, need.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Evidence {
    /// Only that it is done.
    #[default]
    Nothing,
    /// A subscription stands, on this slot of its provider.
    Subscription {
        /// `pglogical.subscription.sub_slot_name`
        slot: String,
    },
    /// Every table was copied under one snapshot.
    Copied {
        /// Tables.
        tables: u64,
        /// Rows.
        rows: u64,
        /// Bytes of COPY data.
        bytes: u64,
        /// Seconds from the first intent to the look that saw the last table.
        seconds: f64,
    },
    /// Writes were held from then on: when the fence, or a pooler's PAUSE, was sent, without the
    /// journal's own time.
    Held {
        /// The daemon's clock.
        from: Timestamp,
    },
    /// Writes were taken again from then on: when the opening, or a pooler's RESUME, had been answered.
    Opened {
        /// The daemon's clock.
        at: Timestamp,
    },
    /// Every row of both sides was compared.
    Verified {
        /// What that came to.
        verified: Box<Verified>,
    },
    /// What is left behind on purpose, or could not be removed: statements for an administrator.
    Leftovers {
        /// One sentence each.
        left: Vec<Blocker>,
    },
}

impl Evidence {
    fn is_nothing(&self) -> bool {
        *self == Evidence::Nothing
    }
}
