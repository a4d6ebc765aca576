//! The plan of a migration as one table: the order of its steps, their words, what undoes them.
//!
//! Order, comment, undo and line only. When a step is done, and what it needs, is judged in
//! [`crate::decide`]; a condition in this table would be a second place for judgement.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::side::{Kind, Side};

/// One row of the plan. The names are the words of journal, HTTP, metrics and documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the comment of each step stands once, in STEPS")]
pub enum Step {
    CheckPrerequisites,
    InstallPglogical,
    FenceDestination,
    CreateNodes,
    CheckPeers,
    CopySchema,
    CreateSourceSets,
    CreateForwardSubscription,
    CopyRows,
    BuildIndexes,
    StartForwardStream,
    AwaitCatchUp,
    AnalyzeDestination,
    VerifyRows,
    CreateDestinationSets,
    CreateReverseSubscription,
    ProveBothDirections,
    CheckVerdict,
    WarmSequences,
    PauseTraffic,
    FenceActive,
    Drain,
    SetSequences,
    Yield,
    OpenOther,
    ResumeTraffic,
    Confirm,
    CutStream,
    RaiseSequences,
    OpenSurvivor,
    LeadTraffic,
    DropStreams,
    DrainBoth,
    DisableSubscriptions,
    DropSubscriptions,
    CheckSlotsAndOrigins,
    DropNodes,
    RemovePglogical,
    LeftoverScan,
    ArchiveJournal,
    DropJournal,
}

/// The part of a migration's life that a step belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Phase preparing: both nodes made ready.
    Preparing,
    /// Phase copying: rows carried over.
    Copying,
    /// Phase following: both directions proven.
    Following,
    /// Phases cutting_over and rolling_back: one switchover, sides exchanged.
    Switchover,
    /// The same phases, when the active side is lost and a person has forced it: there is nothing to drain
    /// and nobody to fence.
    Forced,
    /// Phases finishing and abandoning.
    End,
}

/// How a step of a switchover is taken back before the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undo {
    /// The side that was fenced is opened again.
    OpenActive,
    /// The poolers lead to the active side again and let go; hooks are told.
    ResumeTraffic,
    /// Leaving its effect in place harms nothing.
    Harmless,
    /// There is no way back: it stands at the line or behind it, or outside a switchover.
    None,
}

/// A row of the plan.
#[derive(Clone, Copy, Debug)]
pub struct StepSpec {
    /// The step.
    pub step: Step,
    /// The part that it belongs to.
    pub part: Part,
    /// What it does, in words for people.
    pub comment: &'static str,
    /// How it is taken back.
    pub undo: Undo,
}

const fn row(part: Part, step: Step, comment: &'static str) -> StepSpec {
    StepSpec { step, part, comment, undo: Undo::None }
}

const fn undone(step: Step, undo: Undo, comment: &'static str) -> StepSpec {
    StepSpec { step, part: Part::Switchover, comment, undo }
}

/// The step after whose completion a switchover can only go forward.
pub const LINE: Step = Step::Yield;

/// The whole plan, in order.
pub const STEPS: &[StepSpec] = &[
    row(Part::Preparing, Step::CheckPrerequisites, "look for whatever would break the road"),
    row(
        Part::Preparing,
        Step::InstallPglogical,
        "make pglogical, node record, heartbeat and marker present on both sides",
    ),
    row(Part::Preparing, Step::FenceDestination, "close the destination to application writes"),
    row(Part::Preparing, Step::CreateNodes, "register both databases with pglogical"),
    row(Part::Preparing, Step::CheckPeers, "prove that each server reaches the other and itself"),
    row(Part::Preparing, Step::CopySchema, "create schemas, types and tables on the destination"),
    row(Part::Preparing, Step::CreateSourceSets, "choose what the source replicates"),
    row(
        Part::Copying,
        Step::CreateForwardSubscription,
        "reserve the source's changes from here on",
    ),
    row(Part::Copying, Step::CopyRows, "copy every row of one snapshot"),
    row(Part::Copying, Step::BuildIndexes, "build keys, indexes, constraints and triggers"),
    row(Part::Copying, Step::StartForwardStream, "stream changes from the snapshot's position on"),
    row(Part::Following, Step::AwaitCatchUp, "wait until the lag is below max_lag"),
    row(Part::Following, Step::AnalyzeDestination, "gather planner statistics on the destination"),
    row(Part::Following, Step::VerifyRows, "compare every row of both sides"),
    row(Part::Following, Step::CreateDestinationSets, "choose what the destination replicates"),
    row(Part::Following, Step::CreateReverseSubscription, "prepare the way back"),
    row(Part::Following, Step::ProveBothDirections, "send a marker each way and look for echoes"),
    undone(Step::CheckVerdict, Undo::Harmless, "look afresh for anything in the way"),
    undone(
        Step::WarmSequences,
        Undo::Harmless,
        "raise the passive side's sequences ahead of the stall",
    ),
    undone(
        Step::PauseTraffic,
        Undo::ResumeTraffic,
        "hold the application where a pooler can, ask the hook where there is one",
    ),
    undone(Step::FenceActive, Undo::OpenActive, "stop application writes on the active side"),
    undone(Step::Drain, Undo::Harmless, "wait until every change before the fence is applied"),
    undone(
        Step::SetSequences,
        Undo::Harmless,
        "move the other side's sequences past the fenced side's",
    ),
    row(Part::Switchover, Step::Yield, "give up the fenced side; from here it can only go forward"),
    row(Part::Switchover, Step::OpenOther, "allow application writes on the other side"),
    row(
        Part::Switchover,
        Step::ResumeTraffic,
        "let the application go on, on the other side, where it was held; tell the hook",
    ),
    row(
        Part::Switchover,
        Step::Confirm,
        "see writes allowed, the fenced side quiet and the stream back moving",
    ),
    row(
        Part::Forced,
        Step::CutStream,
        "stop the lost side's stream for good, so that nothing of it arrives later",
    ),
    row(
        Part::Forced,
        Step::RaiseSequences,
        "move the surviving side's sequences past what its tables hold",
    ),
    row(Part::Forced, Step::OpenSurvivor, "allow application writes on the surviving side"),
    row(
        Part::Forced,
        Step::LeadTraffic,
        "lead the application to the surviving side where a pooler does, tell the hook",
    ),
    row(Part::Forced, Step::DropStreams, "remove what would keep changes for the lost side"),
    row(Part::End, Step::DrainBoth, "send a last marker each way"),
    row(Part::End, Step::DisableSubscriptions, "stop both streams"),
    row(Part::End, Step::DropSubscriptions, "remove both subscriptions"),
    row(Part::End, Step::CheckSlotsAndOrigins, "see slots and origins gone, remove what stayed"),
    row(Part::End, Step::DropNodes, "unregister both databases from pglogical"),
    row(
        Part::End,
        Step::RemovePglogical,
        "remove triggers, pgferry's tables, and the extension where pgferry made it",
    ),
    row(Part::End, Step::LeftoverScan, "look for anything that is left"),
    row(Part::End, Step::ArchiveJournal, "write the journal to a file"),
    row(Part::End, Step::DropJournal, "remove the journal"),
];

impl Step {
    /// The step's row.
    #[must_use]
    pub fn spec(self) -> &'static StepSpec {
        // STEPS lists the variants in declaration order; a test holds the two together.
        &STEPS[self as usize]
    }

    /// The word used in journal, HTTP, metrics and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Step::CheckPrerequisites => "check_prerequisites",
            Step::InstallPglogical => "install_pglogical",
            Step::FenceDestination => "fence_destination",
            Step::CreateNodes => "create_nodes",
            Step::CheckPeers => "check_peers",
            Step::CopySchema => "copy_schema",
            Step::CreateSourceSets => "create_source_sets",
            Step::CreateForwardSubscription => "create_forward_subscription",
            Step::CopyRows => "copy_rows",
            Step::BuildIndexes => "build_indexes",
            Step::StartForwardStream => "start_forward_stream",
            Step::AwaitCatchUp => "await_catch_up",
            Step::AnalyzeDestination => "analyze_destination",
            Step::VerifyRows => "verify_rows",
            Step::CreateDestinationSets => "create_destination_sets",
            Step::CreateReverseSubscription => "create_reverse_subscription",
            Step::ProveBothDirections => "prove_both_directions",
            Step::CheckVerdict => "check_verdict",
            Step::WarmSequences => "warm_sequences",
            Step::PauseTraffic => "pause_traffic",
            Step::FenceActive => "fence_active",
            Step::Drain => "drain",
            Step::SetSequences => "set_sequences",
            Step::Yield => "yield",
            Step::OpenOther => "open_other",
            Step::ResumeTraffic => "resume_traffic",
            Step::Confirm => "confirm",
            Step::CutStream => "cut_stream",
            Step::RaiseSequences => "raise_sequences",
            Step::OpenSurvivor => "open_survivor",
            Step::LeadTraffic => "lead_traffic",
            Step::DropStreams => "drop_streams",
            Step::DrainBoth => "drain_both",
            Step::DisableSubscriptions => "disable_subscriptions",
            Step::DropSubscriptions => "drop_subscriptions",
            Step::CheckSlotsAndOrigins => "check_slots_and_origins",
            Step::DropNodes => "drop_nodes",
            Step::RemovePglogical => "remove_pglogical",
            Step::LeftoverScan => "leftover_scan",
            Step::ArchiveJournal => "archive_journal",
            Step::DropJournal => "drop_journal",
        }
    }

    /// The step after this one within the same course: set-up, switchover, or end.
    #[must_use]
    pub fn next(self) -> Option<Step> {
        let next = STEPS.get(self as usize + 1)?;
        (next.part.course() == self.spec().part.course()).then_some(next.step)
    }

    /// Whether this step stands before the line of a switchover.
    #[must_use]
    pub fn before_line(self) -> bool {
        self.spec().part == Part::Switchover && self <= LINE
    }

    /// Whether the side that a switchover moves writes to may still be closed in this step.
    #[must_use]
    pub fn before_opening(self) -> bool {
        self.spec().part == Part::Switchover && self <= Step::OpenOther
    }

    /// Whether this step belongs to a forced switchover: it never waits for the lost side, and only goes
    /// forward.
    #[must_use]
    pub fn is_forced(self) -> bool {
        self.spec().part == Part::Forced
    }

    /// Whether writes are held while this step runs: between the fence and the opening nothing
    /// sleeps and nothing waits for a person.
    #[must_use]
    pub fn within_stall(self) -> bool {
        (Step::FenceActive..=Step::OpenOther).contains(&self)
    }

    /// Whether this step may go on from the look by which the step before it was seen done: while
    /// writes are held, each round trip is a part of the stall.
    #[must_use]
    pub fn goes_on_from_the_last_look(self) -> bool {
        (Step::FenceActive..=Step::ResumeTraffic).contains(&self)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Part {
    fn course(self) -> u8 {
        match self {
            Part::Preparing | Part::Copying | Part::Following => 0,
            Part::Switchover => 1,
            Part::Forced => 2,
            Part::End => 3,
        }
    }
}

/// Where a migration is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the words are the design's; each is a row group of STEPS")]
pub enum Phase {
    Planned,
    Preparing,
    Copying,
    Following,
    Ready,
    CuttingOver,
    CutOver,
    RollingBack,
    Finishing,
    Finished,
    Abandoning,
    Abandoned,
}

impl Phase {
    /// Every phase, in the order of a life without rollback.
    pub const ALL: [Phase; 12] = [
        Phase::Planned,
        Phase::Preparing,
        Phase::Copying,
        Phase::Following,
        Phase::Ready,
        Phase::CuttingOver,
        Phase::CutOver,
        Phase::RollingBack,
        Phase::Finishing,
        Phase::Finished,
        Phase::Abandoning,
        Phase::Abandoned,
    ];

    /// The word used in HTTP, metrics and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Planned => "planned",
            Phase::Preparing => "preparing",
            Phase::Copying => "copying",
            Phase::Following => "following",
            Phase::Ready => "ready",
            Phase::CuttingOver => "cutting_over",
            Phase::CutOver => "cut_over",
            Phase::RollingBack => "rolling_back",
            Phase::Finishing => "finishing",
            Phase::Finished => "finished",
            Phase::Abandoning => "abandoning",
            Phase::Abandoned => "abandoned",
        }
    }

    /// The phase in which a migration rests while `active` takes the writes.
    #[must_use]
    pub fn at_rest(active: Side) -> Phase {
        match active {
            Side::Source => Phase::Ready,
            Side::Destination => Phase::CutOver,
        }
    }

    /// The phase of a running switchover.
    #[must_use]
    pub fn of_switchover(kind: Kind) -> Phase {
        match kind {
            Kind::Cutover => Phase::CuttingOver,
            Kind::Rollback => Phase::RollingBack,
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The plan as a Mermaid flow chart, for `docs/plan.md`.
#[must_use]
pub fn to_markdown() -> String {
    let mut text = String::from(
        "# The plan\n\nGenerated from `STEPS` in `crates/pgferry-plan/src/steps.rs`; a test compares them.\n",
    );
    let mut part = None;
    for spec in STEPS {
        if part != Some(spec.part) {
            part = Some(spec.part);
            let title = match spec.part {
                Part::Preparing => "preparing",
                Part::Copying => "copying",
                Part::Following => "following",
                Part::Switchover => "cutting_over, rolling_back",
                Part::Forced => "cutting_over, rolling_back, forced",
                Part::End => "finishing, abandoning",
            };
            text.push_str(&format!(
                "\n## {title}\n\n| step | what it does | taken back by |\n|---|---|---|\n"
            ));
        }
        let undo = match (spec.undo, spec.step == LINE) {
            (_, true) => "**the line**",
            (Undo::OpenActive, _) => "opening the active side",
            (Undo::ResumeTraffic, _) => {
                "letting the application go on where it was, telling the hook"
            }
            (Undo::Harmless, _) => "nothing to do",
            (Undo::None, _) => "",
        };
        text.push_str(&format!("| `{}` | {} | {undo} |\n", spec.step, spec.comment));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_lists_every_step_once_in_declaration_order() {
        for (index, spec) in STEPS.iter().enumerate() {
            assert_eq!(spec.step as usize, index, "{}", spec.step);
        }
        assert_eq!(STEPS.last().map(|spec| spec.step), Some(Step::DropJournal));
    }

    #[test]
    fn the_word_of_a_step_is_its_word_in_the_journal() {
        for spec in STEPS {
            assert_eq!(serde_json::to_value(spec.step).unwrap(), spec.step.as_str());
        }
        for phase in Phase::ALL {
            assert_eq!(serde_json::to_value(phase).unwrap(), phase.as_str());
        }
    }

    #[test]
    fn every_step_before_the_line_can_be_taken_back_and_none_behind_it() {
        for spec in STEPS.iter().filter(|spec| spec.part == Part::Switchover) {
            assert_eq!(spec.undo == Undo::None, spec.step >= LINE, "{}", spec.step);
        }
    }

    #[test]
    fn comments_are_lower_case_without_a_full_stop() {
        for spec in STEPS {
            assert!(spec.comment.starts_with(char::is_lowercase) && !spec.comment.ends_with('.'));
        }
    }

    #[test]
    fn a_course_ends_where_its_part_ends() {
        assert_eq!(Step::ProveBothDirections.next(), None);
        assert_eq!(Step::Confirm.next(), None);
        assert_eq!(Step::DropJournal.next(), None);
        assert_eq!(Step::CreateSourceSets.next(), Some(Step::CreateForwardSubscription));
    }

    #[test]
    fn the_document_of_the_plan_is_the_table() {
        let document = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/plan.md");
        let written = std::fs::read_to_string(document).unwrap_or_default();
        if written != to_markdown() && std::env::var_os("PGFERRY_TEST_WRITE_DOCS").is_some() {
            std::fs::write(document, to_markdown()).unwrap();
            return;
        }
        assert_eq!(written, to_markdown(), "run again with PGFERRY_TEST_WRITE_DOCS=1");
    }
}
