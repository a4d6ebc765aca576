//! What the journal adds up to, and which order of events is legal.
//!
//! The same function folds an event when it is written and when it is read back, so a journal
//! that could not have been written is refused when it is loaded. No clock, no I/O.

use jiff::Timestamp;
use uuid::Uuid;

use crate::finding::Blocker;
use crate::journal::{Entry, Event, Evidence, Intent, OperationState, Verb};
use crate::lsn::Lsn;
use crate::side::{Kind, Side};
use crate::steps::{LINE, Part, Phase, Step};

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
    /// What the end had to leave.
    pub leftovers: Vec<Blocker>,
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
    /// When the fence was first intended.
    pub fenced_at: Option<Timestamp>,
    /// When the other side was seen open.
    pub opened_at: Option<Timestamp>,
    /// How long each step took.
    pub steps: Vec<StepTime>,
    /// When the present step began.
    pub step_began_at: Timestamp,
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
            paused: false,
            operations: Vec::new(),
            intents: Vec::new(),
            node_ids: [None, None],
            installed: false,
            made_extension: [false, false],
            copy_lsn: None,
            copy_began_at: None,
            copied: None,
            slots: [None, None],
            last_switchover: None,
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
                Part::Following | Part::Switchover | Part::End => Phase::Following,
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

    fn step_over(&mut self, entry: &Entry) -> Result<(), &'static str> {
        if entry.seq != self.next_seq {
            return Err("its number is not the next one");
        }
        match entry.event {
            Event::TookOver if entry.epoch <= self.epoch => {
                return Err("a take-over raises the epoch");
            }
            Event::TookOver => {}
            _ if entry.epoch != self.epoch => return Err("its epoch never took over"),
            _ => {}
        }
        match &entry.event {
            Event::TookOver => self.epoch = entry.epoch,
            Event::Requested { operation, verb, open_passive } => {
                self.requested(*operation, *verb, *open_passive, entry.at)?;
            }
            Event::Intended { step, intent } => self.intended(*step, intent, entry.at)?,
            Event::Completed { step, evidence } => self.completed(*step, evidence, entry.at)?,
            Event::Unwinding { blockers } => {
                let switchover = self.switchover_mut().ok_or("no switchover runs")?;
                if switchover.unwinding.is_some() || switchover.step > LINE {
                    return Err("the switchover is past the line, or already taken back");
                }
                switchover.unwinding = Some(blockers.clone());
                switchover.step_began_at = entry.at;
                self.intents.clear();
            }
            Event::Undone { step } => {
                let switchover = self.switchover_mut().ok_or("no switchover runs")?;
                if switchover.unwinding.is_none() || switchover.step < *step {
                    return Err("the step is not being taken back");
                }
                switchover.opened_at = switchover.fenced_at.map(|_| entry.at);
                self.intents.clear();
            }
            Event::LineCrossed => {
                let switchover = self.switchover_mut().ok_or("no switchover runs")?;
                if switchover.unwinding.take().is_none() {
                    return Err("the switchover is not being taken back");
                }
                switchover.step = Step::OpenOther;
                switchover.step_began_at = entry.at;
                self.intents.clear();
            }
            Event::OperationEnded { operation, state, problem, blockers } => {
                self.ended(*operation, *state, problem, blockers, entry.at)?;
            }
        }
        self.next_seq += 1;
        Ok(())
    }

    fn requested(
        &mut self,
        id: Uuid,
        verb: Verb,
        open_passive: bool,
        at: Timestamp,
    ) -> Result<(), &'static str> {
        match verb {
            Verb::Start if self.course == Course::Planned => {
                self.enter(Course::SetUp(Step::CheckPrerequisites));
            }
            Verb::Cutover | Verb::Rollback
                if self.course == Course::AtRest
                    && verb == Verb::of_switchover(self.kind())
                    && !self.paused =>
            {
                let kind = self.kind();
                self.enter(Course::Switchover(Switchover {
                    operation: id,
                    kind,
                    step: Step::CheckVerdict,
                    unwinding: None,
                    started_at: at,
                    fenced_at: None,
                    opened_at: None,
                    steps: Vec::new(),
                    step_began_at: at,
                }));
            }
            Verb::Finish if self.phase() == Phase::CutOver => self.enter_end(verb, open_passive),
            Verb::Abandon
                if self.active == Side::Source
                    && matches!(self.course, Course::SetUp(_) | Course::AtRest) =>
            {
                self.enter_end(verb, open_passive);
            }
            Verb::Abort if matches!(&self.course, Course::Switchover(s) if s.step <= LINE) => {}
            Verb::Pause if !self.paused => self.paused = true,
            Verb::Resume => self.paused = false,
            Verb::Start
            | Verb::Cutover
            | Verb::Rollback
            | Verb::Finish
            | Verb::Abandon
            | Verb::Abort
            | Verb::Pause
            | Verb::Preflight
            | Verb::Verify => return Err("the phase does not allow it"),
        }
        self.operations.push(Operation {
            id,
            verb,
            state: OperationState::Running,
            requested_at: at,
            finished_at: None,
            problem: None,
            blockers: Vec::new(),
        });
        Ok(())
    }

    fn enter_end(&mut self, verb: Verb, open_passive: bool) {
        self.paused = false;
        self.enter(Course::End { verb, step: Step::DrainBoth, open_passive });
    }

    fn enter(&mut self, course: Course) {
        self.course = course;
        self.intents.clear();
    }

    fn intended(&mut self, step: Step, intent: &Intent, at: Timestamp) -> Result<(), &'static str> {
        if self.step() != Some(step) {
            return Err("another step is at hand");
        }
        if let Intent::Install { side, node_id, creates_extension } = intent {
            self.node_ids[*side as usize] = Some(*node_id);
            self.made_extension[*side as usize] |= creates_extension;
        }
        if let Intent::CopyRows { snapshot_lsn } = intent {
            self.copy_lsn = Some(*snapshot_lsn);
            self.copy_began_at.get_or_insert(at);
        }
        if let (Intent::Fence { .. }, Some(switchover)) = (intent, self.switchover_mut())
            && switchover.step == Step::FenceActive
        {
            switchover.fenced_at.get_or_insert(at);
        }
        self.intents.push(intent.clone());
        Ok(())
    }

    fn completed(
        &mut self,
        step: Step,
        evidence: &Evidence,
        at: Timestamp,
    ) -> Result<(), &'static str> {
        if self.step() != Some(step) {
            return Err("another step is at hand");
        }
        match evidence {
            Evidence::Nothing => {}
            Evidence::Subscription { slot } => {
                let reverse = step == Step::CreateReverseSubscription;
                self.slots[usize::from(reverse)] = Some(slot.clone());
            }
            Evidence::Copied { .. } => self.copied = Some(evidence.clone()),
            Evidence::Leftovers { left } => self.leftovers.clone_from(left),
            Evidence::Held { from } => {
                if let Some(switchover) = self.switchover_mut() {
                    switchover.fenced_at = Some(*from);
                }
            }
            Evidence::Opened { .. } => {}
        }
        // DropNodes is the last step before the records themselves are removed.
        self.installed =
            (self.installed || step == Step::InstallPglogical) && step != Step::DropNodes;
        self.intents.clear();
        let next = step.next();
        match &mut self.course {
            Course::SetUp(current) => match next {
                Some(next) => *current = next,
                None => self.course = Course::AtRest,
            },
            Course::End { step: current, verb, .. } => match next {
                Some(next) => *current = next,
                None => self.course = Course::Ended(*verb),
            },
            Course::Switchover(switchover) => {
                if switchover.unwinding.is_some() {
                    return Err("the switchover is being taken back");
                }
                if step == Step::OpenOther {
                    let opened = if let Evidence::Opened { at } = evidence { *at } else { at };
                    switchover.opened_at = Some(opened);
                }
                let ms = milliseconds(switchover.step_began_at, at);
                switchover.steps.push(StepTime { step, ms });
                switchover.step_began_at = at;
                if let Some(next) = next {
                    switchover.step = next;
                } else {
                    let report = switchover.report(OperationState::Succeeded);
                    self.active = switchover.kind.to();
                    self.last_switchover = Some(report);
                    self.course = Course::AtRest;
                }
            }
            Course::Planned | Course::AtRest | Course::Ended(_) => {
                return Err("no step is at hand");
            }
        }
        Ok(())
    }

    fn ended(
        &mut self,
        id: Uuid,
        state: OperationState,
        problem: &Option<Blocker>,
        blockers: &[Blocker],
        at: Timestamp,
    ) -> Result<(), &'static str> {
        let operation = self
            .operations
            .iter_mut()
            .find(|operation| operation.id == id && operation.state == OperationState::Running)
            .ok_or("no such operation runs")?;
        if state == OperationState::Running {
            return Err("an operation cannot end as running");
        }
        operation.state = state;
        operation.finished_at = Some(at);
        operation.problem.clone_from(problem);
        operation.blockers = blockers.to_vec();
        if let Course::Switchover(switchover) = &self.course
            && switchover.operation == id
        {
            if switchover.unwinding.is_none() {
                return Err("a switchover that is not taken back ends with its last step");
            }
            if switchover.fenced_at.is_some() && switchover.opened_at.is_none() {
                return Err("the fenced side was not opened again");
            }
            self.last_switchover = Some(switchover.report(state));
            self.enter(Course::AtRest);
        }
        Ok(())
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

impl Switchover {
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
        Event::TookOver => "took_over",
        Event::Intended { .. } => "intended",
        Event::Completed { .. } => "completed",
        Event::Unwinding { .. } => "unwinding",
        Event::Undone { .. } => "undone",
        Event::LineCrossed => "line_crossed",
        Event::OperationEnded { .. } => "operation_ended",
    }
}

#[cfg(test)]
mod tests;
