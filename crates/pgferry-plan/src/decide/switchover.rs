//! A switchover, cutover and rollback alike: the active side is closed, the other one opened.
//!
//! Before the line everything that goes wrong ends in opening the active side again; behind it,
//! in going on. There is no third way.

use std::collections::BTreeSet;

use super::fence::{self, writer_found};
use super::following::await_marker;
use super::gate::not_streaming;
use super::{Decision, Policy, blocked, done, look, not_seen, traffic};
use crate::action::Action;
use crate::facts::{Facts, Switchover};
use crate::finding::Blocker;
use crate::journal::{Evidence, Intent};
use crate::lag::StreamStatus;
use crate::name::RoleName;
use crate::seen::Seen;
use crate::sequences;
use crate::side::{Direction, Side};
use crate::steps::Step;
use crate::strays;
use crate::verdict::verdict;
use crate::world::{NodeRecord, NodeState, World};

pub(super) fn check_verdict(facts: &Facts, world: &World, policy: &Policy) -> Decision {
    let passive = facts.kind().to();
    // A role that appeared after the passive side was closed is closed out now, outside the stall.
    if let Some(action) = fence::close_out(passive, world.node(passive)) {
        return Decision::Act(action);
    }
    let blockers = verdict(facts, world, policy);
    if blockers.is_empty() { done() } else { Decision::Blocked(blockers) }
}

/// Ahead of the stall, by twice the headroom: what the application draws until the fence is then
/// covered, and within the stall there is nothing left to set for most sequences.
pub(super) fn warm_sequences(facts: &Facts, world: &World, policy: &Policy) -> Decision {
    let (from, to) = (facts.kind().from(), facts.kind().to());
    let active = look!(world.node(from).sequences, "the sequences");
    let passive = look!(world.node(to).sequences, "the sequences");
    let record = look!(world.node(to).record, "the node's record");
    // Once is enough: the active side goes on handing out values, and a busy one would be chased
    // for ever.
    let behind = sequences::behind(active, passive, policy.headroom);
    let set = sequences_set(facts, to, record);
    if record.state == NodeState::Open || set.unwrap_or(behind.is_empty()) {
        return done();
    }
    Decision::Act(Action::SetSequences {
        side: to,
        revision: record.revision,
        values: sequences::behind(active, passive, policy.headroom.saturating_mul(2)),
    })
}

pub(super) fn fence_active(facts: &Facts, world: &World, policy: &Policy) -> Decision {
    let from = facts.kind().from();
    if let Some(stop) = other_side_is_open(facts, world) {
        return stop;
    }
    let record = look!(world.node(from).record, "the node's record");
    if record.state == NodeState::Open
        && let Some(wait) = a_stream_rests(world)
    {
        return wait;
    }
    fence::close(from, world.node(from), policy)
}

/// Nothing is fenced for a drain that cannot come: a server that crashed since the verdict has its
/// workers back only after seconds, which would all be stall. What is not seen yet, as after a
/// restart of the daemon, is waited for; nobody's writes are held meanwhile but by a pause.
fn a_stream_rests(world: &World) -> Option<Decision> {
    let Seen::Present(lag) = &world.lag else {
        return Some(Decision::Wait("the streams were not seen".to_owned()));
    };
    Direction::BOTH.into_iter().find_map(|direction| match lag.stream(direction).status {
        StreamStatus::Streaming => None,
        StreamStatus::Unknown | StreamStatus::Starting => {
            Some(Decision::Wait(format!("the {direction} stream was not seen to run")))
        }
        StreamStatus::Absent
        | StreamStatus::Stalled
        | StreamStatus::Disabled
        | StreamStatus::Down => Some(blocked(not_streaming(direction, lag))),
    })
}

pub(super) fn drain(facts: &Facts, world: &World) -> Decision {
    if let Some(stop) = still_closed(facts, world) {
        return stop;
    }
    if let Some(decision) = await_marker(facts, world, facts.kind().from()) {
        return decision;
    }
    let drift = look!(world.drift, "the scope");
    if drift.is_empty() { done() } else { Decision::Blocked(drift.clone()) }
}

pub(super) fn set_sequences(facts: &Facts, world: &World, policy: &Policy) -> Decision {
    if let Some(stop) = still_closed(facts, world) {
        return stop;
    }
    if let Some(stop) = still_drained(facts, world) {
        return stop;
    }
    let (from, to) = (facts.kind().from(), facts.kind().to());
    let active = look!(world.node(from).sequences, "the sequences");
    let passive = look!(world.node(to).sequences, "the sequences");
    if let Some(missing) = sequences::missing(active, passive) {
        return blocked(missing);
    }
    let record = look!(world.node(to).record, "the node's record");
    let values = sequences::behind(active, passive, policy.headroom);
    if values.is_empty() && sequences_set(facts, to, record).unwrap_or(true) {
        return done();
    }
    Decision::Act(Action::SetSequences { side: to, revision: record.revision, values })
}

/// Its rows would come to the open side after newer ones, so committing is no way out any more.
fn prepared_on_yielded(side: Side, count: u64) -> Blocker {
    Blocker::new(
        "prepared_on_yielded",
        format!(
            "{count} prepared transactions are left on the {side}, which has yielded: committed there, they could overwrite what is newer on the {}",
            side.other()
        ),
        "ROLLBACK PREPARED each one (SELECT gid, prepared, owner FROM pg_prepared_xacts WHERE database = current_database();) and do its work again on the open side; if one was committed meanwhile, `pgferry verify` shows what differs",
    )
}

/// Whether what this step was to set is sure to outlast a crash of that server; None when it has not
/// set anything. Values are seen before their commit, or without it; the revision raised with them
/// is not.
fn sequences_set(facts: &Facts, side: Side, record: &NodeRecord) -> Option<bool> {
    let revisions = facts.intents.iter().filter_map(|intent| {
        let Intent::SetSequences { side: of, revision } = intent else { return None };
        (*of == side).then_some(*revision)
    });
    revisions.max().map(|intended| intended < record.revision)
}

pub(super) fn yield_fenced(facts: &Facts, world: &World) -> Decision {
    let from = facts.kind().from();
    let record = look!(world.node(from).record, "the node's record");
    if record.state == NodeState::Yielded {
        return done();
    }
    if let Some(stop) = still_closed(facts, world).or_else(|| still_drained(facts, world)) {
        return stop;
    }
    Decision::Act(Action::Yield { side: from, revision: record.revision })
}

pub(super) fn open_other(facts: &Facts, world: &World) -> Decision {
    let (from, to) = (facts.kind().from(), facts.kind().to());
    match world.node(from).record.present().map(|record| record.state) {
        // Not seen is enough here, and only here: the journal says that the line was crossed, and
        // a side that is away cannot be opened by anybody but a newer leadership.
        Some(NodeState::Yielded) | None => {
            let is_open = |record: &NodeRecord| record.state == NodeState::Open;
            if !world.node(to).record.present().is_some_and(is_open) {
                match has_last_marker(facts, world) {
                    Ok(true) => {}
                    Ok(false) => return last_writes_missing(from, world),
                    Err(not_seen) => return not_seen,
                }
            }
            let last_marker = facts.switchover().and_then(|switchover| switchover.last_marker);
            fence::open(to, world.node(to), last_marker)
        }
        Some(NodeState::Open | NodeState::Fenced) => blocked(Blocker::new(
            "not_yielded",
            format!("the {from} has not yielded; the {to} stays closed"),
            "somebody has changed pgferry.node by hand: compare both records before you go on",
        )),
    }
}

pub(super) fn confirm(facts: &Facts, world: &World) -> Decision {
    let (from, to) = (facts.kind().from(), facts.kind().to());
    let opened = look!(world.node(to).fence, "the fence");
    if !opened.still_read_only.is_empty() {
        return blocked(Blocker::new(
            "opened_read_only",
            format!(
                "roles of the {to} cannot write although it is open: {}",
                opened.still_read_only.join(", ")
            ),
            "ALTER ROLE … IN DATABASE … RESET default_transaction_read_only for each of them there",
        ));
    }
    if !opened.still_locked_out.is_empty() {
        return blocked(Blocker::new(
            "opened_without_login",
            format!(
                "roles of the {to} may not log in although it is open: {}",
                opened.still_locked_out.join(", ")
            ),
            "ALTER ROLE … LOGIN for each of them there",
        ));
    }
    let fenced = look!(world.node(from).fence, "the fence");
    if fenced.prepared > 0 {
        // No session is left to be ended for it, and its COMMIT passes the fence at any later time.
        return blocked(prepared_on_yielded(from, fenced.prepared));
    }
    let writers = look!(world.node(from).strays, "who writes behind the line");
    // Written down and ended beside the steps, as at rest.
    let strays = strays::open(facts, from).count().max(writers.len());
    if strays > 0 {
        let roles: BTreeSet<&RoleName> =
            strays::open(facts, from).chain(writers).map(|writer| &writer.role).collect();
        let roles: Vec<&str> = roles.into_iter().map(String::as_str).collect();
        return Decision::Wait(format!(
            "{strays} sessions that write on the {from} as {} are being ended: stop whatever begins them again",
            roles.join(", ")
        ));
    }
    if let Some(decision) = await_marker(facts, world, to) {
        return decision;
    }
    // Nobody waits for them, least of all the way back: they are lifted at rest, once they can be.
    if opened.fenced.is_empty() {
        done()
    } else {
        Decision::Done(Evidence::Leftovers { left: vec![fence::not_lifted(to, opened)] })
    }
}

/// Takes a switchover back: the active side is opened again, then the traffic is let go to it. Roles
/// that could not be lifted are lifted at rest.
pub(super) fn undo(facts: &Facts, switchover: &Switchover, world: &World) -> Decision {
    match undo_fence(facts, switchover, world) {
        Decision::Done(_) => traffic::undo(switchover, world),
        not_yet @ (Decision::Act(_)
        | Decision::Wait(_)
        | Decision::Blocked(_)
        | Decision::LineCrossed) => not_yet,
    }
}

/// Opens the active side, unless its record says that it has yielded. Then the other side may be
/// open, and the only way is forward.
fn undo_fence(facts: &Facts, switchover: &Switchover, world: &World) -> Decision {
    let from = switchover.kind.from();
    if switchover.step < Step::FenceActive {
        return done();
    }
    let node = world.node(from);
    let record = look!(node.record, "the node's record");
    if record.state == NodeState::Yielded {
        return Decision::LineCrossed;
    }
    // Seen open is not enough: a fence whose COMMIT still hangs would land afterwards, and close
    // the side for good. Opening raises the revision, waits for what is in flight, and makes
    // whatever comes later find another revision.
    let opened = facts.intents.iter().any(|intent| {
        matches!(intent, Intent::Open { side, revision } if *side == from && *revision < record.revision)
    });
    if !opened {
        return Decision::Act(Action::Open {
            side: from,
            revision: record.revision,
            after_marker: None,
        });
    }
    fence::open(from, node, None)
}

/// Looks again, in every step between fence and line, that the fence still holds.
fn still_closed(facts: &Facts, world: &World) -> Option<Decision> {
    let from = facts.kind().from();
    if let Some(stop) = other_side_is_open(facts, world) {
        return Some(stop);
    }
    let node = world.node(from);
    let (Seen::Present(record), Seen::Present(fence)) = (&node.record, &node.fence) else {
        return Some(Decision::Wait(format!("the fence of the {from} was not seen")));
    };
    if record.state == NodeState::Open || !fence.unfenced.is_empty() {
        return Some(blocked(Blocker::new(
            "fence_broken",
            format!("the {from} was opened, or gained a role that may write, behind the fence"),
            "find who changes roles or pgferry.node there, then try again",
        )));
    }
    if fence.prepared > 0 {
        return Some(blocked(fence::prepared_transactions(from, fence.prepared)));
    }
    if !fence.writers.is_empty() {
        return Some(blocked(writer_found(from, &fence.writers)));
    }
    None
}

/// Looks again, from the drain to the line, that what was drained is still there.
fn still_drained(facts: &Facts, world: &World) -> Option<Decision> {
    let (from, to) = (facts.kind().from(), facts.kind().to());
    match has_last_marker(facts, world) {
        Ok(true) => None,
        // Not waited for: pglogical's worker comes back seconds after a crash, which would all be stall.
        Ok(false) => Some(blocked(Blocker::new(
            "drain_undone",
            format!("the {to} was restarted since the drain, and {}", on_their_way_again(from)),
            "nothing is lost; find out why it was restarted, and try again once its stream is back",
        ))),
        Err(not_seen) => Some(not_seen),
    }
}

/// Whether the side that writes move to has the marker that was written behind everything else on the
/// other one; or the decision to wait, where that was not seen.
///
/// Once seen is not enough. pglogical's worker does not wait for its commits to be flushed, and a server
/// that crashes takes the last of them back: they come again, once the worker does.
fn has_last_marker(facts: &Facts, world: &World) -> Result<bool, Decision> {
    let Some(token) = facts.switchover().and_then(|switchover| switchover.last_marker) else {
        return Ok(true);
    };
    match &world.node(facts.kind().to()).marker {
        Seen::Present(marker) => Ok(marker.other >= token),
        Seen::Absent => Ok(false),
        Seen::Unknown(reason) => Err(not_seen("the other side's marker", reason)),
    }
}

fn on_their_way_again(from: Side) -> String {
    format!("the last writes of the {from} are on their way to the {} again", from.other())
}

/// Behind the line: waited for, as long as there is a stream to bring them. What keeps it from that for a
/// while is upkeep's.
fn last_writes_missing(from: Side, world: &World) -> Decision {
    let stream = world.stream(Direction::leaving(from));
    let broken = match (&stream.subscription, &stream.slot) {
        (Seen::Absent, _) => "its subscription is gone",
        (Seen::Present(subscription), _) if !subscription.enabled => "its subscription is disabled",
        (_, Seen::Absent) => "its slot is gone",
        (_, Seen::Present(slot)) if slot.lost => "its slot is lost",
        (_, _) => return Decision::Wait(on_their_way_again(from)),
    };
    let to = from.other();
    blocked(Blocker::new(
        "last_writes_missing",
        format!(
            "the {to} was restarted and lacks the last writes of the {from}, and the stream cannot bring them: {broken}"
        ),
        format!(
            "enable a subscription that was disabled (pglogical.alter_subscription_enable); otherwise the {from} alone has them: shut it down for good and move by --force, which says what may be lost"
        ),
    ))
}

fn other_side_is_open(facts: &Facts, world: &World) -> Option<Decision> {
    let to: Side = facts.kind().to();
    match &world.node(to).record {
        Seen::Present(record) if record.state == NodeState::Open => Some(blocked(Blocker::new(
            "both_open",
            format!("the {to} is open to application writes before the switchover"),
            "somebody has changed pgferry.node by hand: compare both records before you go on",
        ))),
        Seen::Present(_) => None,
        Seen::Absent => Some(Decision::Wait(format!("the {to} has no node record"))),
        Seen::Unknown(reason) => {
            Some(Decision::Wait(format!("the {to}'s record was not seen: {reason}")))
        }
    }
}

#[cfg(test)]
mod tests;
