//! What the journal adds up to, and which order of events is legal.
//!
//! The same function folds an event when it is written and when it is read back, so a journal
//! that could not have been written is refused when it is loaded. No clock, no I/O.

mod fold;

use jiff::Timestamp;
use uuid::Uuid;

use crate::finding::Blocker;
use crate::journal::{Entry, Event, Evidence, Intent, OperationState, Verb};
use crate::lsn::Lsn;
use crate::side::{Kind, Side};
use crate::steps::{Part, Phase, Step};
use crate::strays::{Forgotten, Stray};
use crate::verify::Verified;

/// Everything that is known from the journal.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// The sequence number of the next entry.
    pub next_seq: u64,
    /// The last leadership that wrote.
    pub epoch: i64,
    /// What goes on.
    pub course: Course,
    /// The side that takes the writes.
    pub active: Side,
    /// The side that a person has declared lost for good: nothing waits for it any more.
    pub lost: Option<Side>,
    /// A person asked for a pause.
    pub paused: bool,
    /// Every operation, oldest first.
    pub operations: Vec<Operation>,
    /// What was intended for the present step.
    pub intents: Vec<Intent>,
    /// The ids of the nodes' records, source first.
    pub node_ids: [Option<Uuid>; 2],
    /// Both nodes were seen to carry their record, and were not told to drop it.
    pub installed: bool,
    /// Whether pgferry made the extension, source first.
    pub made_extension: [bool; 2],
    /// Foreign keys and triggers of the destination were set aside, and have not been seen restored.
    pub set_aside: bool,
    /// The snapshot that the copy was last begun under.
    pub copy_lsn: Option<Lsn>,
    /// When the copy was first begun.
    pub copy_began_at: Option<Timestamp>,
    /// What the copy came to.
    pub copied: Option<Evidence>,
    /// The slots that the subscriptions use, forward first.
    pub slots: [Option<String>; 2],
    /// The last switchover that ended, and what ended operations left to say.
    pub last_switchover: Option<SwitchoverReport>,
    /// The last comparison of rows that came to a result.
    pub verification: Option<Verified>,
    /// The repair that runs with a verification.
    pub repair: Option<Repairing>,
    /// Transactions that wrote on a closed side, oldest first: all that are not over, and the last that are.
    pub strays: Vec<Stray>,
    /// Those that are over, and went to make room.
    pub strays_forgotten: Forgotten,
    /// What the end had to leave.
    pub leftovers: Vec<Blocker>,
}

/// A verification that also copies rows again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repairing {
    /// Its operation.
    pub operation: Uuid,
    /// What is intended and not known to have ended.
    pub open: Vec<Uuid>,
}

/// What goes on.
#[derive(Clone, Debug, PartialEq)]
pub enum Course {
    /// Nothing was asked for yet.
    Planned,
    /// The road is being built.
    SetUp(Step),
    /// Both sides in step, waiting for a person.
    AtRest,
    /// The active side is being moved.
    Switchover(Switchover),
    /// Everything is being taken away.
    End {
        /// Finish or abandon.
        verb: Verb,
        /// The step.
        step: Step,
        /// Also lift the fence of the side left behind.
        open_passive: bool,
    },
    /// Everything has been taken away.
    Ended(Verb),
}

/// A running switchover.
#[derive(Clone, Debug, PartialEq)]
pub struct Switchover {
    /// The operation that asked for it.
    pub operation: Uuid,
    /// Which way.
    pub kind: Kind,
    /// The step; while unwinding, the step that is being taken back.
    pub step: Step,
    /// Why it is being taken back, if it is.
    pub unwinding: Option<Vec<Blocker>>,
    /// When it was asked for.
    pub started_at: Timestamp,
    /// Since when writes are held: when the fence was first intended, or, before it, that a pooler
    /// holds them.
    pub fenced_at: Option<Timestamp>,
    /// What was begun with the traffic, and has to be taken back when the switchover is.
    pub traffic: TrafficTouched,
    /// The token of the marker that was written behind everything else on the side that was fenced: the
    /// other side has all of it as long as it has the marker.
    pub last_marker: Option<u64>,
    /// When the other side was seen open, and the traffic that was held for it let go.
    pub opened_at: Option<Timestamp>,
    /// How long each step took.
    pub steps: Vec<StepTime>,
    /// When the present step began.
    pub step_began_at: Timestamp,
}

/// What a switchover has begun with the traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrafficTouched {
    /// Nothing.
    Not,
    /// A hook was told.
    Told,
    /// A pooler holds it.
    Held,
}

/// How long a step took.
#[derive(Clone, Debug, PartialEq)]
pub struct StepTime {
    /// The step.
    pub step: Step,
    /// Milliseconds.
    pub ms: f64,
}

/// A switchover that has ended.
#[derive(Clone, Debug, PartialEq)]
pub struct SwitchoverReport {
    /// The operation that asked for it.
    pub operation: Uuid,
    /// Which way.
    pub kind: Kind,
    /// How it ended.
    pub outcome: OperationState,
    /// When it was asked for.
    pub started_at: Timestamp,
    /// Milliseconds from the fence to the opening, of whichever side; None when nothing was fenced.
    pub write_stall_ms: Option<f64>,
    /// How long each step took.
    pub steps: Vec<StepTime>,
}

/// An operation, as a person sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Operation {
    /// Its id.
    pub id: Uuid,
    /// What was asked for.
    pub verb: Verb,
    /// How it stands.
    pub state: OperationState,
    /// When it was asked for.
    pub requested_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// Why it did not succeed.
    pub problem: Option<Blocker>,
    /// Everything that stood in the way.
    pub blockers: Vec<Blocker>,
}

/// An entry that cannot follow what stands before it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("journal entry {seq} ({event}) cannot follow what stands before it: {reason}")]
pub struct IllegalEntry {
    /// Its position.
    pub seq: u64,
    /// Its event's name.
    pub event: String,
    /// Why not.
    pub reason: &'static str,
}

impl Default for Facts {
    fn default() -> Self {
        Self {
            next_seq: 1,
            epoch: 0,
            course: Course::Planned,
            active: Side::Source,
            lost: None,
            paused: false,
            operations: Vec::new(),
            intents: Vec::new(),
            node_ids: [None, None],
            installed: false,
            made_extension: [false, false],
            set_aside: false,
            copy_lsn: None,
            copy_began_at: None,
            copied: None,
            slots: [None, None],
            last_switchover: None,
            verification: None,
            repair: None,
            strays: Vec::new(),
            strays_forgotten: Forgotten::default(),
            leftovers: Vec::new(),
        }
    }
}

impl Facts {
    /// Folds a whole journal.
    ///
    /// # Errors
    /// The first entry that cannot follow what stands before it.
    pub fn replay(entries: &[Entry]) -> Result<Facts, IllegalEntry> {
        let mut facts = Facts::default();
        for entry in entries {
            facts.fold(entry)?;
        }
        Ok(facts)
    }

    /// Folds one entry. Nothing changes when it is refused.
    ///
    /// # Errors
    /// When the entry cannot follow what stands before it.
    pub fn fold(&mut self, entry: &Entry) -> Result<(), IllegalEntry> {
        let mut next = self.clone();
        match next.step_over(entry) {
            Ok(()) => {
                *self = next;
                Ok(())
            }
            Err(reason) => Err(IllegalEntry {
                seq: entry.seq,
                event: event_name(&entry.event).to_owned(),
                reason,
            }),
        }
    }

    /// The step at hand; None at rest. While unwinding, the step that is taken back.
    #[must_use]
    pub fn step(&self) -> Option<Step> {
        match &self.course {
            Course::SetUp(step) | Course::End { step, .. } => Some(*step),
            Course::Switchover(switchover) => Some(switchover.step),
            Course::Planned | Course::AtRest | Course::Ended(_) => None,
        }
    }

    /// The phase, as people see it.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match &self.course {
            Course::Planned => Phase::Planned,
            Course::SetUp(step) => match step.spec().part {
                Part::Preparing => Phase::Preparing,
                Part::Copying => Phase::Copying,
                Part::Following | Part::Switchover | Part::Forced | Part::End => Phase::Following,
            },
            Course::AtRest => Phase::at_rest(self.active),
            Course::Switchover(switchover) => Phase::of_switchover(switchover.kind),
            Course::End { verb: Verb::Abandon, .. } => Phase::Abandoning,
            Course::End { .. } => Phase::Finishing,
            Course::Ended(Verb::Abandon) => Phase::Abandoned,
            Course::Ended(_) => Phase::Finished,
        }
    }

    /// The kind of switchover that is possible, or running.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match (&self.course, self.active) {
            (Course::Switchover(switchover), _) => switchover.kind,
            (_, Side::Source) => Kind::Cutover,
            (_, Side::Destination) => Kind::Rollback,
        }
    }

    /// The running operation of this verb, if any.
    #[must_use]
    pub fn running(&self, verb: Verb) -> Option<&Operation> {
        self.operations
            .iter()
            .rev()
            .find(|operation| operation.verb == verb && operation.state == OperationState::Running)
    }

    /// The id of a node's record.
    #[must_use]
    pub fn node_id(&self, side: Side) -> Option<Uuid> {
        self.node_ids[side as usize]
    }

    /// The id that a side's record must carry now; None while it may have none.
    #[must_use]
    pub fn expected_id(&self, side: Side) -> Option<Uuid> {
        self.node_id(side).filter(|_| self.installed)
    }

    /// The token of the marker that was intended for this side in the present step.
    #[must_use]
    pub fn intended_marker(&self, of: Side) -> Option<u64> {
        self.intents.iter().find_map(|intent| match intent {
            Intent::WriteMarker { side, token } if *side == of => Some(*token),
            _ => None,
        })
    }

    /// The running switchover.
    #[must_use]
    pub fn switchover(&self) -> Option<&Switchover> {
        match &self.course {
            Course::Switchover(switchover) => Some(switchover),
            Course::Planned
            | Course::SetUp(_)
            | Course::AtRest
            | Course::End { .. }
            | Course::Ended(_) => None,
        }
    }

    fn switchover_mut(&mut self) -> Option<&mut Switchover> {
        match &mut self.course {
            Course::Switchover(switchover) => Some(switchover),
            Course::Planned
            | Course::SetUp(_)
            | Course::AtRest
            | Course::End { .. }
            | Course::Ended(_) => None,
        }
    }
}

impl Course {
    /// A switchover that nobody has asked for, to look as one looks in its step.
    #[must_use]
    pub fn imagined(kind: Kind, step: Step) -> Course {
        Course::Switchover(Switchover::begun(Uuid::nil(), kind, step, Timestamp::UNIX_EPOCH))
    }
}

impl Switchover {
    pub(crate) fn begun(operation: Uuid, kind: Kind, step: Step, at: Timestamp) -> Self {
        Self {
            operation,
            kind,
            step,
            unwinding: None,
            started_at: at,
            fenced_at: None,
            traffic: TrafficTouched::Not,
            last_marker: None,
            opened_at: None,
            steps: Vec::new(),
            step_began_at: at,
        }
    }

    fn report(&self, outcome: OperationState) -> SwitchoverReport {
        SwitchoverReport {
            operation: self.operation,
            kind: self.kind,
            outcome,
            started_at: self.started_at,
            write_stall_ms: self
                .fenced_at
                .zip(self.opened_at)
                .map(|(fenced, opened)| milliseconds(fenced, opened)),
            steps: self.steps.clone(),
        }
    }
}

/// Milliseconds from one instant to another; never negative, whatever the clock did.
#[must_use]
pub fn milliseconds(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64().max(0.0) * 1000.0
}

fn event_name(event: &Event) -> &'static str {
    match event {
        Event::Requested { .. } => "requested",
        Event::Adopted { .. } => "adopted",
        Event::TookOver => "took_over",
        Event::Intended { .. } => "intended",
        Event::Completed { .. } => "completed",
        Event::Unwinding { .. } => "unwinding",
        Event::Undone { .. } => "undone",
        Event::LineCrossed => "line_crossed",
        Event::RepairRequested { .. } => "repair_requested",
        Event::RepairIntended { .. } => "repair_intended",
        Event::Repaired { .. } => "repaired",
        Event::Verified { .. } => "verified",
        Event::StrayFound { .. } => "stray_found",
        Event::StrayEnded { .. } => "stray_ended",
        Event::StrayCompared { .. } => "stray_compared",
        Event::OperationEnded { .. } => "operation_ended",
    }
}

#[cfg(test)]
mod tests;
