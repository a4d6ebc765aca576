//! Whether a request is accepted, and which events it becomes.
//!
//! Pure. A refusal carries every reason at once, and changes nothing.

use jiff::Timestamp;
use uuid::Uuid;

use crate::decide::Policy;
use crate::facts::{Course, Facts};
use crate::finding::Blocker;
use crate::forced;
use crate::journal::{Event, OperationState, Verb};
use crate::steps::{LINE, Phase};
use crate::verdict::{not_ready, verdict};
use crate::verify::given_up_for;
use crate::world::World;

/// Why a request was not accepted.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// The one that decided.
    pub reason: Blocker,
    /// All of them.
    pub blockers: Vec<Blocker>,
}

impl Refusal {
    /// A refusal for one reason.
    #[must_use]
    pub fn because(reason: Blocker) -> Self {
        Self { blockers: vec![reason.clone()], reason }
    }

    fn all(blockers: Vec<Blocker>) -> Option<Self> {
        let reason = blockers.first()?.clone();
        Some(Self { reason, blockers })
    }
}

/// What a person asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// What.
    pub verb: Verb,
    /// finish and abandon: also lift the fence of the side left behind.
    pub open_passive: bool,
    /// cutover and rollback: the active side is lost for good, and what it had not sent with it.
    pub force: bool,
    /// verify: rows that are proven to differ are copied again from the active side.
    pub repair: bool,
}

impl From<Verb> for Order {
    fn from(verb: Verb) -> Self {
        Self { verb, open_passive: false, force: false, repair: false }
    }
}

/// Accepts a request as events to append, or refuses it. `world` is a look of just now.
///
/// # Errors
/// Every reason against it.
pub fn admit(
    facts: &Facts,
    world: &World,
    policy: &Policy,
    order: Order,
    operation: Uuid,
) -> Result<Vec<Event>, Refusal> {
    let Order { verb, open_passive, force, repair } = order;
    let phase = facts.phase();
    let requested = Event::Requested { operation, verb, open_passive, force };
    let at_once = |requested| vec![requested, succeeded(operation)];
    let instead_of_verifying =
        |requested| [requested].into_iter().chain(given_up_for(facts, verb)).collect::<Vec<_>>();
    match verb {
        Verb::Start => match facts.course {
            Course::Planned => Ok(vec![requested]),
            Course::SetUp(_)
            | Course::AtRest
            | Course::Switchover(_)
            | Course::End { .. }
            | Course::Ended(_) => Err(Refusal::because(Blocker::new(
                "already_started",
                format!("the migration has been started, and is in phase {phase}"),
                "look at `pgferry status`",
            ))),
        },
        Verb::Cutover | Verb::Rollback if force => {
            match Refusal::all(forced::blockers(facts, world, verb)) {
                Some(refusal) => Err(refusal),
                None => Ok(vec![requested]),
            }
        }
        Verb::Cutover | Verb::Rollback => {
            let allowed =
                facts.course == Course::AtRest && Verb::of_switchover(facts.kind()) == verb;
            if !allowed {
                return Err(Refusal::because(not_ready(phase)));
            }
            match Refusal::all(verdict(facts, world, policy)) {
                Some(refusal) => Err(refusal),
                None => Ok(instead_of_verifying(requested)),
            }
        }
        Verb::Finish if phase == Phase::CutOver => Ok(instead_of_verifying(requested)),
        Verb::Finish => Err(Refusal::because(Blocker::new(
            "not_cut_over",
            format!("finish needs phase cut_over, and the migration is in phase {phase}"),
            "cut over first; to give the migration up while the source is active use `pgferry abandon`",
        ))),
        Verb::Abandon => match &facts.course {
            Course::SetUp(_) | Course::AtRest if phase != Phase::CutOver => {
                let mut events = instead_of_verifying(requested);
                events.extend(facts.running(Verb::Start).map(|start| Event::OperationEnded {
                    operation: start.id,
                    state: OperationState::Aborted,
                    problem: Some(Blocker::new("abandoned", "the migration was abandoned", "")),
                    blockers: Vec::new(),
                }));
                Ok(events)
            }
            Course::Planned
            | Course::SetUp(_)
            | Course::AtRest
            | Course::Switchover(_)
            | Course::End { .. }
            | Course::Ended(_) => Err(Refusal::because(Blocker::new(
                "source_not_active",
                format!(
                    "abandon needs a started migration with the source active, and this one is in phase {phase}"
                ),
                "roll back first; when the destination is to stay use `pgferry finish`",
            ))),
        },
        Verb::Abort => match facts.switchover() {
            Some(switchover) if switchover.unwinding.is_some() => {
                Err(Refusal::because(Blocker::new(
                    "already_aborting",
                    "the switchover is being taken back already",
                    "wait for it: `pgferry watch` shows it",
                )))
            }
            Some(switchover) if switchover.step <= LINE => Ok(vec![
                requested,
                Event::Unwinding {
                    blockers: vec![Blocker::new(
                        "aborted",
                        "a person aborted the switchover",
                        "try again when ready",
                    )],
                },
            ]),
            Some(_) => Err(Refusal::because(too_late())),
            None => Err(Refusal::because(Blocker::new(
                "nothing_to_abort",
                "no switchover is running",
                "to give up the whole migration use `pgferry abandon`",
            ))),
        },
        Verb::Pause => match &facts.course {
            Course::Switchover(_) => Err(Refusal::because(Blocker::new(
                "switchover_running",
                "a switchover is running, and holds writes",
                "use `pgferry abort` to take it back",
            ))),
            Course::Planned | Course::Ended(_) | Course::End { .. } => {
                Err(Refusal::because(not_running(phase)))
            }
            Course::SetUp(_) | Course::AtRest if facts.paused => {
                Err(Refusal::because(Blocker::new(
                    "already_paused",
                    "the migration is paused already",
                    "`pgferry resume` lets it go on",
                )))
            }
            Course::SetUp(_) | Course::AtRest => Ok(at_once(requested)),
        },
        Verb::Resume => match &facts.course {
            Course::Planned | Course::Ended(_) => Err(Refusal::because(not_running(phase))),
            Course::SetUp(_) | Course::AtRest | Course::Switchover(_) | Course::End { .. } => {
                Ok(at_once(requested))
            }
        },
        Verb::Verify if facts.course != Course::AtRest => Err(Refusal::because(Blocker::new(
            "not_ready",
            format!("verify needs a migration at rest, and this one is in phase {phase}"),
            "wait for phase ready or cut_over: `pgferry watch` shows how far it is",
        ))),
        Verb::Verify if facts.running(Verb::Verify).is_some() => {
            Err(Refusal::because(Blocker::new(
                "already_verifying",
                "a verification is running",
                "wait for it: `pgferry watch` shows it",
            )))
        }
        Verb::Verify => {
            let repairs = repair.then_some(Event::RepairRequested { operation });
            Ok([requested].into_iter().chain(repairs).collect())
        }
        Verb::Preflight => Err(Refusal::because(Blocker::new(
            "not_journaled",
            "preflight changes nothing, and is no request to the engine",
            "",
        ))),
    }
}

/// The events that end a switchover that has been taken back.
#[must_use]
pub fn taken_back(facts: &Facts, now: Timestamp) -> Vec<Event> {
    let Some(switchover) = facts.switchover() else { return Vec::new() };
    let blockers = switchover.unwinding.clone().unwrap_or_default();
    let problem = blockers.first().cloned();
    let refused_by_verdict = switchover.step == crate::steps::Step::CheckVerdict
        && switchover.fenced_at.is_none()
        && crate::facts::milliseconds(switchover.started_at, now)
            <= crate::decide::MAX_BEFORE_FENCE.as_secs_f64() * 1000.0
        && problem.as_ref().is_none_or(|problem| problem.code != "aborted");
    let state = if refused_by_verdict { OperationState::Blocked } else { OperationState::Aborted };
    let mut events =
        vec![Event::OperationEnded { operation: switchover.operation, state, problem, blockers }];
    events.extend(facts.running(Verb::Abort).map(|abort| succeeded(abort.id)));
    events
}

/// An abort came after the line.
#[must_use]
pub fn too_late() -> Blocker {
    Blocker::new(
        "too_late",
        "the switchover has crossed the line, and can only go forward",
        "wait for its end, then take it back with the opposite switchover",
    )
}

/// The event that ends an operation well.
#[must_use]
pub fn succeeded(operation: Uuid) -> Event {
    Event::OperationEnded {
        operation,
        state: OperationState::Succeeded,
        problem: None,
        blockers: Vec::new(),
    }
}

fn not_running(phase: Phase) -> Blocker {
    Blocker::new(
        "not_running",
        format!("nothing runs in phase {phase}"),
        "look at `pgferry status`",
    )
}
