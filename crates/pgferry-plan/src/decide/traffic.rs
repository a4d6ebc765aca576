//! The traffic around a switchover: held and led to the other side before the fence, let go behind
//! the line, and led back and let go when the switchover is taken back.
//!
//! Nothing here keeps a write safe: the fence by role does, whatever a pooler does meanwhile. One that
//! is restarted forgets its PAUSE, and its clients are then refused by the fenced side until it ends.

use super::{Decision, Policy, done, not_seen};
use crate::action::Action;
use crate::facts::{Course, Facts, Switchover, TrafficTouched, milliseconds};
use crate::finding::Blocker;
use crate::journal::Evidence;
use crate::seen::Seen;
use crate::side::Side;
use crate::steps::Step;
use crate::traffic::{
    HookState, OnPauseDeadline, PoolerState, PoolerView, TrafficGoal, TrafficView,
};
use crate::verdict::unseen;
use crate::world::World;

/// Step `pause_traffic`. Where each pooler leads is changed here and not behind the line: a file that
/// is not included, or a command that fails, then aborts instead of keeping the clients waiting.
pub(super) fn pause(facts: &Facts, world: &World, policy: &Policy) -> Decision {
    let (from, to) = (facts.kind().from(), facts.kind().to());
    match &world.traffic {
        Seen::Absent => done(),
        Seen::Unknown(reason) => not_seen("the traffic", reason),
        Seen::Present(TrafficView::Poolers(poolers)) => {
            let since = facts.switchover().and_then(|switchover| switchover.fenced_at);
            let held_ms = since.map_or(0.0, |since| milliseconds(since, world.now));
            hold(poolers, from, to, held_ms, policy)
        }
        Seen::Present(TrafficView::Hooks(hooks)) => match &hooks.before_line {
            HookState::None | HookState::Succeeded => done(),
            HookState::NotRun => Decision::Act(Action::PauseTraffic { side: from, holds: false }),
            HookState::Running => Decision::Wait("the hook before the line runs".to_owned()),
            HookState::Failed { blocker, .. } => Decision::Blocked(vec![blocker.clone()]),
        },
    }
}

/// Step `resume_traffic`.
pub(super) fn resume(facts: &Facts, world: &World) -> Decision {
    let to = facts.kind().to();
    match &world.traffic {
        Seen::Absent => done(),
        Seen::Unknown(reason) => not_seen("the traffic", reason),
        Seen::Present(TrafficView::Poolers(poolers)) => let_go(poolers, to, world),
        Seen::Present(TrafficView::Hooks(hooks)) => told(&hooks.after_line, to, world),
    }
}

/// Step `lead_traffic`, when a person has forced a switchover. A pooler that is away, as one beside the
/// lost side may be, or that cannot be led over, is named and left to upkeep: nothing waits for what is
/// lost. A hook is told until it succeeds, because nobody else leads its clients.
pub(super) fn lead(facts: &Facts, world: &World) -> Decision {
    match (resume(facts, world), &world.traffic) {
        (Decision::Blocked(left), Seen::Present(TrafficView::Poolers(_))) => {
            Decision::Done(Evidence::Leftovers { left })
        }
        (decision, _) => decision,
    }
}

/// The last part of taking a switchover back, when the active side is open.
pub(super) fn undo(switchover: &Switchover, world: &World) -> Decision {
    let from = switchover.kind.from();
    if switchover.traffic == TrafficTouched::Not {
        return done();
    }
    match &world.traffic {
        Seen::Absent => done(),
        Seen::Unknown(reason) => not_seen("the traffic", reason),
        Seen::Present(TrafficView::Poolers(poolers)) => let_go(poolers, from, world),
        Seen::Present(TrafficView::Hooks(hooks)) => told(&hooks.aborted, from, world),
    }
}

/// Where nothing is to be held, no client is, and none is led to the side that refuses its writes: a
/// PAUSE of a daemon that was frozen may land at any time.
pub(super) fn upkeep(facts: &Facts, world: &World) -> Option<Action> {
    let Seen::Present(TrafficView::Poolers(poolers)) = &world.traffic else { return None };
    let side = match &facts.course {
        Course::AtRest => facts.active,
        // Open, and let go already. What is left to drop may take as long as a dead host does, and
        // what is left to confirm as long as a person.
        Course::Switchover(switchover)
            if matches!(switchover.step, Step::Confirm | Step::DropStreams) =>
        {
            switchover.kind.to()
        }
        Course::Planned
        | Course::SetUp(_)
        | Course::Switchover(_)
        | Course::End { .. }
        | Course::Ended(_) => return None,
    };
    let goal = TrafficGoal::LetGo(side);
    let astray = |pooler: &PoolerView| {
        let wrong = pooler
            .state
            .present()
            .is_some_and(|state| state.paused || state.points_at == Some(side.other()));
        wrong && pooler.working != Some(goal) && backing_off(pooler, goal, world).is_none()
    };
    poolers.iter().any(astray).then_some(Action::ResumeTraffic { side })
}

/// What upkeep has tried and failed to put right.
pub(super) fn ailing(world: &World) -> Option<Blocker> {
    let Seen::Present(TrafficView::Poolers(poolers)) = &world.traffic else { return None };
    poolers.iter().find_map(|pooler| pooler.failed.as_ref()).map(|failed| failed.blocker.clone())
}

/// What stands against a switchover in the poolers, before anything is stopped.
pub(crate) fn traffic_blockers(active: Side, world: &World, blockers: &mut Vec<Blocker>) {
    let poolers = match &world.traffic {
        Seen::Absent | Seen::Present(TrafficView::Hooks(_)) => return,
        Seen::Unknown(reason) => return blockers.push(unseen("the traffic", reason)),
        Seen::Present(TrafficView::Poolers(poolers)) => poolers,
    };
    for pooler in poolers {
        let state = match &pooler.state {
            Seen::Unknown(reason) => {
                blockers.push(unreachable(pooler, reason));
                continue;
            }
            Seen::Absent => {
                blockers.push(entry_missing(pooler));
                continue;
            }
            Seen::Present(state) => state,
        };
        blockers.extend(state.blockers.iter().cloned());
        if state.paused {
            blockers.push(Blocker::new(
                "pgbouncer_paused",
                format!("PgBouncer {} is paused, and holds its clients", pooler.name),
                "at rest it is resumed by itself; when that fails the condition says why",
            ));
        }
        if state.points_at != Some(active) {
            blockers.push(Blocker::new(
                "pgbouncer_points_elsewhere",
                format!(
                    "PgBouncer {} leads to {} and not to the {active}",
                    pooler.name, state.address
                ),
                "let its entry name host, port and dbname as the side's dsn does, or as source_entry and destination_entry do; and let pgbouncer.ini %include the include_file, and nothing else, for it",
            ));
        }
    }
}

/// To poolers that all hold, without a connection to a server, and lead to `to`.
fn hold(poolers: &[PoolerView], from: Side, to: Side, held_ms: f64, policy: &Policy) -> Decision {
    let mut seen = Vec::new();
    let mut away = Vec::new();
    for pooler in poolers {
        match &pooler.state {
            Seen::Unknown(reason) => away.push(unreachable(pooler, reason)),
            Seen::Absent => away.push(entry_missing(pooler)),
            Seen::Present(state) => seen.push((pooler, state)),
        }
    }
    let (hold, point) = (TrafficGoal::HoldFor(to), TrafficGoal::PointAt(to));
    away.extend(poolers.iter().filter_map(|pooler| {
        let failed = pooler.failed.as_ref()?;
        (failed.goal == hold || failed.goal == point).then(|| failed.blocker.clone())
    }));
    if !away.is_empty() {
        return Decision::Blocked(away);
    }
    let unless_working = |left: Vec<&PoolerView>, goals: &[TrafficGoal], action, what: &str| {
        (!left.is_empty()).then(|| {
            let is_at_it = |p: &&PoolerView| p.working.is_some_and(|goal| goals.contains(&goal));
            if left.iter().all(is_at_it) {
                Decision::Wait(format!("PgBouncer {} {what}", names(&left)))
            } else {
                Decision::Act(action)
            }
        })
    };
    let left = |wanted: fn(&PoolerState) -> bool| -> Vec<&PoolerView> {
        seen.iter().filter(|(_, state)| !wanted(state)).map(|(pooler, _)| *pooler).collect()
    };
    let pausing = unless_working(
        left(|state| state.paused),
        &[hold],
        Action::PauseTraffic { side: from, holds: true },
        "is being paused",
    );
    if let Some(decision) = pausing {
        return decision;
    }
    let busy = left(|state| state.connections == 0);
    if !busy.is_empty() {
        let deadline_ms = policy.traffic.pause_deadline.as_secs_f64() * 1000.0;
        match policy.traffic.on_pause_deadline {
            _ if held_ms < deadline_ms => {
                return Decision::Wait(format!(
                    "PgBouncer {} waits for transactions to end",
                    names(&busy)
                ));
            }
            OnPauseDeadline::Abort => {
                return Decision::Blocked(vec![not_paused_in_time(&busy, held_ms)]);
            }
            OnPauseDeadline::Fence => {}
        }
    }
    let astray: Vec<&PoolerView> = seen
        .iter()
        .filter(|(_, state)| state.points_at != Some(to))
        .map(|(pooler, _)| *pooler)
        .collect();
    // Leading over is a part of holding, unless that waits for a transaction that the fence shall end,
    // or was a daemon's that is gone.
    let goals: &[TrafficGoal] = if busy.is_empty() { &[hold, point] } else { &[point] };
    unless_working(astray, goals, Action::PointTraffic { side: to }, "is being led over")
        .unwrap_or_else(done)
}

/// Until every pooler leads to `side` and lets go. Those that are away keep nobody else waiting.
fn let_go(poolers: &[PoolerView], side: Side, world: &World) -> Decision {
    let goal = TrafficGoal::LetGo(side);
    let (mut stuck, mut working, mut to_do) = (Vec::new(), Vec::new(), false);
    for pooler in poolers {
        match &pooler.state {
            Seen::Unknown(reason) => stuck.push(unreachable(pooler, reason)),
            Seen::Absent => stuck.push(entry_missing(pooler)),
            // Whoever is still about to hold it, or to lead it over, is stopped first.
            Seen::Present(state)
                if !state.paused && state.points_at == Some(side) && !is_led_away(pooler) => {}
            Seen::Present(_) if pooler.working == Some(goal) => working.push(pooler),
            Seen::Present(_) => match backing_off(pooler, goal, world) {
                Some(blocker) => stuck.push(blocker),
                None => to_do = true,
            },
        }
    }
    if to_do {
        Decision::Act(Action::ResumeTraffic { side })
    } else if !working.is_empty() {
        Decision::Wait(format!("PgBouncer {} is being let go", names(&working)))
    } else if stuck.is_empty() {
        done()
    } else {
        Decision::Blocked(stuck)
    }
}

fn is_led_away(pooler: &PoolerView) -> bool {
    match pooler.working {
        Some(TrafficGoal::HoldFor(_) | TrafficGoal::PointAt(_)) => true,
        Some(TrafficGoal::LetGo(_)) | None => false,
    }
}

/// A hook that has to be run until it succeeds.
fn told(hook: &HookState, side: Side, world: &World) -> Decision {
    match hook {
        HookState::None | HookState::Succeeded => done(),
        HookState::Running => Decision::Wait("a hook runs".to_owned()),
        HookState::Failed { blocker, retry_at } if world.now < *retry_at => {
            Decision::Blocked(vec![blocker.clone()])
        }
        HookState::NotRun | HookState::Failed { .. } => {
            Decision::Act(Action::ResumeTraffic { side })
        }
    }
}

fn backing_off(pooler: &PoolerView, goal: TrafficGoal, world: &World) -> Option<Blocker> {
    let failed = pooler.failed.as_ref()?;
    (failed.goal == goal && world.now < failed.retry_at).then(|| failed.blocker.clone())
}

fn names(poolers: &[&PoolerView]) -> String {
    let names: Vec<&str> = poolers.iter().map(|pooler| pooler.name.as_str()).collect();
    names.join(", ")
}

fn not_paused_in_time(busy: &[&PoolerView], held_ms: f64) -> Blocker {
    let connections: u64 = busy
        .iter()
        .filter_map(|pooler| pooler.state.present())
        .map(|state| state.connections)
        .sum();
    Blocker::new(
        "pause_deadline_passed",
        format!(
            "PgBouncer {} still had {connections} transactions open after {held_ms:.0} ms, and its other clients were held for them",
            names(busy)
        ),
        "wait for the long transaction or end it, then try again; or let the fence end it: traffic.on_pause_deadline = \"fence\". In session pooling a transaction is as long as its client's connection",
    )
}

fn unreachable(pooler: &PoolerView, reason: &str) -> Blocker {
    Blocker::new(
        "pgbouncer_unreachable",
        format!("PgBouncer {} was not seen: {reason}", pooler.name),
        "start it, or mend its dsn; one that is gone for good is taken out of the configuration, and pgferry restarted",
    )
}

fn entry_missing(pooler: &PoolerView) -> Blocker {
    Blocker::new(
        "pgbouncer_entry_missing",
        format!("PgBouncer {} has no entry for the database in [databases]", pooler.name),
        "look at `database` of this PgBouncer in the configuration, and at its [databases]",
    )
}

#[cfg(test)]
mod tests;
