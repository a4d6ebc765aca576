//! Whether a switchover may begin: every reason against it, at once.
//!
//! The same list feeds the route, the refusal of a request, the dry run and step `check_verdict`.

use crate::decide::{Policy, cannot_lift, fence_blockers, stream_blockers, traffic_blockers};
use crate::facts::{Course, Facts};
use crate::finding::Blocker;
use crate::seen::Seen;
use crate::sequences;
use crate::side::Side;
use crate::steps::Phase;
use crate::world::{NodeState, World};

/// Everything that stands in the way of the switchover that is possible now; empty means go.
#[must_use]
pub fn verdict(facts: &Facts, world: &World, policy: &Policy) -> Vec<Blocker> {
    let mut blockers = Vec::new();
    let kind = facts.kind();
    if !matches!(facts.course, Course::AtRest | Course::Switchover(_)) {
        blockers.push(not_ready(facts.phase()));
        return blockers;
    }
    if let Some(lost) = facts.lost {
        blockers.push(side_lost(facts, lost));
        return blockers;
    }
    if facts.paused {
        blockers.push(Blocker::new(
            "paused",
            "the migration is paused",
            "run `pgferry resume` first",
        ));
    }
    states(kind.from(), kind.to(), world, &mut blockers);
    stream_blockers(world, policy, &mut blockers);
    if let Some(view) = world.node(kind.to()).fence.present()
        && !view.missing.is_empty()
    {
        blockers.push(Blocker::new(
            "roles_missing",
            format!("roles that write do not exist on the {}: {}", kind.to(), view.missing.join(", ")),
            "create each there with the same privileges and password, or name it in fence.exclude_roles",
        ));
    }
    blockers.extend(
        world.node(kind.to()).fence.present().and_then(|view| cannot_lift(kind.to(), view)),
    );
    fence_blockers(kind.from(), world, &mut blockers);
    traffic_blockers(kind.from(), world, &mut blockers);
    blockers.extend(crate::verify::gate(facts, world, policy));
    match &world.drift {
        Seen::Present(drift) => blockers.extend(drift.iter().cloned()),
        Seen::Absent => {}
        Seen::Unknown(reason) => blockers.push(unseen("the tables in scope", reason)),
    }
    match (&world.node(kind.from()).sequences, &world.node(kind.to()).sequences) {
        (Seen::Present(active), Seen::Present(passive)) => {
            blockers.extend(sequences::missing(active, passive));
            blockers.extend(sequences::differing(active, passive));
        }
        (Seen::Unknown(reason), _) | (_, Seen::Unknown(reason)) => {
            blockers.push(unseen("the sequences", reason));
        }
        (Seen::Absent, _) | (_, Seen::Absent) => {}
    }
    blockers
}

/// The refusal of a switchover that the phase does not allow.
#[must_use]
pub fn not_ready(phase: Phase) -> Blocker {
    Blocker::new(
        "not_ready",
        format!("the migration is in phase {phase}"),
        match phase {
            Phase::Planned => "run `pgferry start`, and wait for phase ready",
            Phase::Preparing | Phase::Copying | Phase::Following => {
                "wait for phase ready: `pgferry watch` shows how far it is"
            }
            Phase::CuttingOver | Phase::RollingBack => {
                "a switchover runs already: `pgferry watch` shows it"
            }
            Phase::Ready => "the source is active: ask for a cutover",
            Phase::CutOver => "the destination is active: ask for a rollback",
            Phase::Finishing | Phase::Finished | Phase::Abandoning | Phase::Abandoned => {
                "the migration has ended"
            }
        },
    )
}

/// There is no other side any more.
pub(crate) fn side_lost(facts: &Facts, lost: Side) -> Blocker {
    let (verb, rest) = match facts.active {
        Side::Source => ("abandon", "start again with a new destination"),
        Side::Destination => ("finish", "move on from there"),
    };
    Blocker::new(
        "side_lost",
        format!("the {lost} was declared lost: there is nothing to switch over to"),
        format!("`pgferry {verb}` clears up what is left, then {rest}"),
    )
}

fn states(active: Side, passive: Side, world: &World, blockers: &mut Vec<Blocker>) {
    for (side, wanted_open) in [(active, true), (passive, false)] {
        match &world.node(side).record {
            Seen::Present(record) if (record.state == NodeState::Open) == wanted_open => {}
            Seen::Present(record) => blockers.push(Blocker::new(
                "unexpected_state",
                format!("the {side}'s record says {}", record.state.as_str()),
                "somebody has changed pgferry.node by hand: compare both records before you go on",
            )),
            Seen::Absent => blockers.push(unseen(&format!("the {side}'s record"), "it is gone")),
            Seen::Unknown(reason) => {
                blockers.push(unseen(&format!("the {side}"), reason));
            }
        }
    }
}

/// A blocker for what a look could not see: not seen is never fine.
pub(crate) fn unseen(what: &str, reason: &str) -> Blocker {
    Blocker::new(
        "not_seen",
        format!("{what} could not be looked at: {reason}"),
        "wait until both servers answer, then try again",
    )
}
