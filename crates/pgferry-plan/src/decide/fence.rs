//! Closing a side to application writes, and opening one: the same for every step that does it.
//!
//! A side counts as closed only when a fresh look finds every role fenced, no backend that could
//! still carry the settings of before, no writer, and no prepared transaction: COMMIT PREPARED
//! passes a read-only fence.

use super::{Decision, Policy, blocked, done, look};
use crate::action::{Action, SessionId};
use crate::finding::Blocker;
use crate::name::RoleName;
use crate::side::Side;
use crate::world::{FenceView, NodeState, NodeView, SessionView};

pub(super) fn close(side: Side, node: &NodeView, policy: &Policy) -> Decision {
    let record = look!(node.record, "the node's record");
    let fence = look!(node.fence, "the fence");
    if fence.prepared > 0 {
        return blocked(prepared_transactions(side, fence.prepared));
    }
    if record.state == NodeState::Open || !fence.unfenced.is_empty() {
        return Decision::Act(Action::fence(side, record, fence));
    }
    let grace_is_over = u128::from(fence.since_change_ms) >= policy.grace.as_millis();
    match old_sessions(side, fence, grace_is_over) {
        Some(decision) => decision,
        None if fence.writers.is_empty() => done(),
        None => blocked(writer_found(side, &fence.writers)),
    }
}

/// For how long after a change of the record sessions of before are looked for.
const JUST_CHANGED_MS: u64 = 60_000;

/// A role that may write to a closed side since, and its sessions of before. Later ones began under the
/// fence, and may go on reading there.
pub(super) fn close_out(side: Side, node: &NodeView) -> Option<Action> {
    let (record, fence) = (node.record.present()?, node.fence.present()?);
    if record.state == NodeState::Open {
        return None;
    }
    if !fence.unfenced.is_empty() {
        return Some(Action::fence(side, record, fence));
    }
    let sessions: Vec<_> = fence.older_sessions.iter().map(|session| session.id.clone()).collect();
    (!sessions.is_empty() && fence.since_change_ms < JUST_CHANGED_MS)
        .then_some(Action::EndSessions { side, sessions })
}

/// Opens a side, then ends the sessions that are older and would stay read-only. `after_marker` is as in
/// [`Action::Open`].
pub(super) fn open(side: Side, node: &NodeView, after_marker: Option<u64>) -> Decision {
    let record = look!(node.record, "the node's record");
    match record.state {
        NodeState::Fenced | NodeState::Yielded => {
            Decision::Act(Action::Open { side, revision: record.revision, after_marker })
        }
        NodeState::Open => {
            let fence = look!(node.fence, "the fence");
            old_sessions(side, fence, true).unwrap_or_else(done)
        }
    }
}

/// Sessions of roles that were lifted late, from before: they would stay read-only.
pub(super) fn end_late_sessions(side: Side, node: &NodeView) -> Option<Action> {
    let late = &node.fence.present()?.late_sessions;
    let sessions: Vec<SessionId> = late.iter().map(|session| session.id.clone()).collect();
    (!sessions.is_empty()).then_some(Action::EndSessions { side, sessions })
}

/// Roles that a side is closed to although it is open.
pub(super) fn not_lifted(side: Side, fence: &FenceView) -> Blocker {
    let let_us = administrators_statements(fence);
    let by_hand = fence.lift_statements.join(" ");
    Blocker::new(
        "fence_not_lifted",
        format!(
            "the {side} is open, but roles of it stay read-only that pgferry's role could not alter: {}",
            fence.fenced.join(", ")
        ),
        if let_us.is_empty() {
            by_hand
        } else {
            format!("{let_us} then pgferry lifts it within seconds; or by hand: {by_hand}")
        },
    )
}

/// Roles that could not be lifted if this side were opened now.
pub(crate) fn cannot_lift(side: Side, fence: &FenceView) -> Option<Blocker> {
    let roles: Vec<&str> = fence.cannot_lift.iter().map(|(role, _)| role.as_str()).collect();
    (!roles.is_empty()).then(|| {
        Blocker::new(
            "cannot_lift_fence",
            format!(
                "pgferry's role may not alter roles of the {side} any more, which would stay read-only when it is opened: {}",
                roles.join(", ")
            ),
            administrators_statements(fence),
        )
    })
}

fn administrators_statements(fence: &FenceView) -> String {
    let mut statements: Vec<&str> = Vec::new();
    for (_, needed) in &fence.cannot_lift {
        if !statements.contains(&needed.as_str()) {
            statements.push(needed);
        }
    }
    statements.join(" ")
}

/// What an opening could not lift, once it can be, or once an administrator has. Only of a side that
/// is seen open: the action states the revision of that look.
pub(super) fn lift_late(side: Side, node: &NodeView) -> Option<Action> {
    let (record, fence) = (node.record.present()?, node.fence.present()?);
    let can_be = |role: &RoleName| {
        fence.unfenced.contains(role) || fence.cannot_lift.iter().all(|(other, _)| other != role)
    };
    (record.state == NodeState::Open && fence.fenced.iter().any(can_be)).then_some(Action::Open {
        side,
        revision: record.revision,
        after_marker: None,
    })
}

/// What is left to do about backends that began before the record's last change.
///
/// Those that are starting up come first: they are in no list yet, and appear in it when they are
/// through.
fn old_sessions(side: Side, fence: &FenceView, working_ones_too: bool) -> Option<Decision> {
    let to_end: Vec<SessionId> = fence
        .older_sessions
        .iter()
        .filter(|session| session.idle || working_ones_too)
        .map(|session| session.id.clone())
        .collect();
    if !to_end.is_empty() {
        return Some(Decision::Act(Action::EndSessions { side, sessions: to_end }));
    }
    if fence.starting > 0 {
        return Some(Decision::Wait(format!(
            "{} sessions of the {side} are still starting up",
            fence.starting
        )));
    }
    if !fence.older_sessions.is_empty() {
        return Some(Decision::Wait(format!(
            "{} transactions of the {side} still run within their grace",
            fence.older_sessions.len()
        )));
    }
    None
}

pub(crate) fn prepared_transactions(side: Side, count: u64) -> Blocker {
    Blocker::new(
        "prepared_transactions",
        format!(
            "{count} prepared transactions stand in the {side} database, and could commit through the fence"
        ),
        "COMMIT PREPARED or ROLLBACK PREPARED each one: SELECT gid, prepared, owner FROM pg_prepared_xacts WHERE database = current_database();",
    )
}

pub(crate) fn writer_found(side: Side, writers: &[SessionView]) -> Blocker {
    let names: Vec<String> =
        writers.iter().take(5).map(|w| format!("pid {} of role {}", w.id.pid, w.role)).collect();
    Blocker::new(
        "writer_found",
        format!("{} sessions write on the closed {side}: {}", writers.len(), names.join(", ")),
        "find what sets default_transaction_read_only off or begins READ WRITE by itself, stop it, then try again",
    )
}
