//! Which event may follow what stands, and what it changes: one match, everything else is illegal.

use jiff::Timestamp;
use uuid::Uuid;

use super::{
    Course, Facts, Operation, Repairing, StepTime, Switchover, TrafficTouched, milliseconds,
};
use crate::finding::Blocker;
use crate::journal::{Entry, Event, Evidence, Intent, OperationState, Verb};
use crate::side::Side;
use crate::steps::{LINE, Phase, Step};
use crate::strays;
use crate::verify::Verified;

impl Facts {
    pub(super) fn step_over(&mut self, entry: &Entry) -> Result<(), &'static str> {
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
            Event::Requested { operation, verb, force: true, .. } => {
                self.forced(*operation, *verb, entry.at)?;
            }
            Event::Requested { operation, verb, open_passive, force: false } => {
                self.requested(*operation, *verb, *open_passive, entry.at)?;
            }
            Event::Adopted { lost, node_id } => self.adopted(*lost, *node_id)?,
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
            Event::RepairRequested { operation } => {
                if self.running(Verb::Verify).map(|running| running.id) != Some(*operation)
                    || self.repair.is_some()
                {
                    return Err("no such verification was asked for");
                }
                self.repair = Some(Repairing { operation: *operation, open: Vec::new() });
            }
            Event::RepairIntended { operation, repair, .. } => {
                let open = &mut self.repairing(*operation)?.open;
                if open.contains(repair) {
                    return Err("it is intended already");
                }
                open.push(*repair);
            }
            Event::Repaired { operation, repair, .. } => {
                let open = &mut self.repairing(*operation)?.open;
                let at = open.iter().position(|intended| intended == repair);
                open.remove(at.ok_or("it was not intended")?);
            }
            Event::Verified { verified } => {
                let asked_for = self.running(Verb::Verify).map(|operation| operation.id);
                if verified.background {
                    if self.course != Course::AtRest || verified.active != self.active {
                        return Err("no round compares this way now");
                    }
                } else if asked_for != Some(verified.run) {
                    return Err("no such verification runs");
                } else {
                    strays::fold::answered(self, verified);
                }
                self.verification = Some(verified.clone());
            }
            Event::StrayFound { writer } => strays::fold::found(self, writer, entry.at)?,
            Event::StrayEnded { side, xid, fate } => {
                strays::fold::ended(self, *side, *xid, *fate, entry.at)?;
            }
            Event::StrayCompared { side, xid, tables } => {
                strays::fold::compared(self, *side, *xid, tables)?;
            }
            Event::OperationEnded { operation, state, problem, blockers } => {
                self.ended(*operation, *state, problem, blockers, entry.at)?;
            }
        }
        self.next_seq += 1;
        Ok(())
    }

    fn repairing(&mut self, operation: Uuid) -> Result<&mut Repairing, &'static str> {
        let repairing = self.repair.as_mut().filter(|repair| repair.operation == operation);
        repairing.ok_or("no such repair runs")
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
                    && !self.paused
                    && self.lost.is_none() =>
            {
                let kind = self.kind();
                self.leftovers.clear();
                let switchover = Switchover::begun(id, kind, Step::CheckVerdict, at);
                self.enter(Course::Switchover(switchover));
            }
            Verb::Finish if self.phase() == Phase::CutOver => self.enter_end(verb, open_passive),
            Verb::Abandon
                if self.active == Side::Source
                    && matches!(self.course, Course::SetUp(_) | Course::AtRest) =>
            {
                self.enter_end(verb, open_passive);
            }
            Verb::Abort if matches!(&self.course, Course::Switchover(s) if s.step <= LINE) => {}
            Verb::Verify
                if self.course == Course::AtRest && self.running(Verb::Verify).is_none() => {}
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
        self.began(id, verb, at);
        Ok(())
    }

    fn began(&mut self, id: Uuid, verb: Verb, at: Timestamp) {
        self.operations.push(Operation {
            id,
            verb,
            state: OperationState::Running,
            requested_at: at,
            finished_at: None,
            problem: None,
            blockers: Vec::new(),
        });
    }

    /// A switchover away from a side that is lost. One that waits for that side ends with it.
    fn forced(&mut self, id: Uuid, verb: Verb, at: Timestamp) -> Result<(), &'static str> {
        let kind = self.kind();
        if self.lost.is_some() || verb != Verb::of_switchover(kind) {
            return Err("the phase does not allow it");
        }
        match &self.course {
            Course::AtRest => {}
            Course::Switchover(switchover) if switchover.step.before_opening() => {
                let superseded = switchover.operation;
                for operation in &mut self.operations {
                    if operation.state == OperationState::Running
                        && (operation.id == superseded || operation.verb == Verb::Abort)
                    {
                        operation.state = OperationState::Failed;
                        operation.finished_at = Some(at);
                    }
                }
            }
            Course::Planned
            | Course::SetUp(_)
            | Course::Switchover(_)
            | Course::End { .. }
            | Course::Ended(_) => return Err("the phase does not allow it"),
        }
        self.lost = Some(kind.from());
        self.paused = false;
        self.leftovers.clear();
        let switchover = Switchover::begun(id, kind, Step::CutStream, at);
        self.enter(Course::Switchover(switchover));
        self.began(id, verb, at);
        Ok(())
    }

    fn adopted(&mut self, lost: Side, node_id: Uuid) -> Result<(), &'static str> {
        if self.course != Course::Planned {
            return Err("only an empty journal can take a migration up");
        }
        self.active = lost;
        self.node_ids[lost.other() as usize] = Some(node_id);
        self.installed = true;
        self.enter(Course::AtRest);
        Ok(())
    }

    /// A journal of before there was step `verify_rows`, or `lead_traffic`, goes on without it.
    fn pass_over_unknown_step(&mut self, step: Step) {
        if let Course::Switchover(switchover) = &mut self.course
            && (switchover.step, step) == (Step::LeadTraffic, Step::DropStreams)
        {
            switchover.step = step;
            self.intents.clear();
        }
        if self.course == Course::SetUp(Step::VerifyRows) && step == Step::CreateDestinationSets {
            self.enter(Course::SetUp(step));
        }
    }

    fn enter_end(&mut self, verb: Verb, open_passive: bool) {
        self.paused = false;
        // What a switchover has left is not what this end leaves.
        self.leftovers.clear();
        self.enter(Course::End { verb, step: Step::DrainBoth, open_passive });
    }

    fn enter(&mut self, course: Course) {
        self.course = course;
        self.intents.clear();
    }

    fn intended(&mut self, step: Step, intent: &Intent, at: Timestamp) -> Result<(), &'static str> {
        self.pass_over_unknown_step(step);
        if self.step() != Some(step) {
            return Err("another step is at hand");
        }
        if let Intent::Install { side, node_id, creates_extension } = intent {
            self.node_ids[*side as usize] = Some(*node_id);
            self.made_extension[*side as usize] |= creates_extension;
        }
        self.set_aside |= *intent == Intent::SetAside;
        if *intent == Intent::CreateCopyingSubscription {
            self.copy_began_at.get_or_insert(at);
        }
        if let Intent::CopyRows { snapshot_lsn } = intent {
            self.copy_lsn = Some(*snapshot_lsn);
            self.copy_began_at.get_or_insert(at);
            // A copy that begins again and again must not fill the facts.
            self.intents.retain(|old| !matches!(old, Intent::CopyRows { .. }));
        }
        if let (Intent::Fence { .. }, Some(switchover)) = (intent, self.switchover_mut())
            && switchover.step == Step::FenceActive
        {
            switchover.fenced_at.get_or_insert(at);
        }
        if let (Intent::PauseTraffic { holds, .. }, Some(switchover)) =
            (intent, self.switchover_mut())
        {
            if *holds {
                switchover.traffic = TrafficTouched::Held;
                switchover.fenced_at.get_or_insert(at);
            } else {
                switchover.traffic = TrafficTouched::Told;
            }
        }
        if let (Intent::WriteMarker { side, token }, Some(switchover)) =
            (intent, self.switchover_mut())
            && *side == switchover.kind.from()
        {
            switchover.last_marker = Some(*token);
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
        self.pass_over_unknown_step(step);
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
            Evidence::Verified { verified } => self.verification = Some(Verified::clone(verified)),
            Evidence::Leftovers { left } => self.leftovers.clone_from(left),
            Evidence::Held { from } => {
                // Where a pooler holds writes, the fence that follows does not begin the stall.
                if let Some(switchover) = self.switchover_mut().filter(|switchover| {
                    step == Step::PauseTraffic || switchover.traffic != TrafficTouched::Held
                }) {
                    switchover.fenced_at = Some(*from);
                }
            }
            Evidence::Opened { .. } => {}
        }
        // Its look has found everything that the source has.
        self.set_aside &= step != Step::BuildIndexes;
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
                let held = switchover.traffic == TrafficTouched::Held;
                if matches!(step, Step::OpenOther | Step::OpenSurvivor)
                    || step == Step::ResumeTraffic && held
                {
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
        self.repair.take_if(|repair| repair.operation == id);
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
}
