//! WAL that the forward slot holds back on the source while rows are copied and indexes are built.
//!
//! Nothing reads the slot until the stream starts, so from its creation on the source keeps every
//! byte of WAL: until its disk is full, or until `max_slot_wal_keep_size` and then the slot is lost.
//! How much disk is free no server says over SQL, so `copy.max_retained_wal` stands for it. Figures
//! that were not seen stop nothing that runs, and begin nothing that would have to be stopped.

use super::{Decision, Policy, blocked, copying};
use crate::action::Action;
use crate::finding::Blocker;
use crate::lag::StreamReport;
use crate::seen::Seen;
use crate::side::Direction;
use crate::world::{JobView, World};

/// Below this part of what the server lets a slot keep the copy is not going to end in time: at a
/// steady rate four times as much went by already.
const SAFE_PART: f64 = 0.2;

/// The step's own decision, unless too much WAL is held back: then the copy is ended, the snapshot
/// let go, and nothing begins again while that stands. A copy that is complete is not held up.
pub(super) fn or_stopped(
    world: &World,
    policy: &Policy,
    step: impl FnOnce() -> Decision,
) -> Decision {
    let decision = step();
    if matches!(decision, Decision::Done(_)) {
        return decision;
    }
    let holds_something = matches!(world.job, Seen::Present(JobView::Running(_)))
        || world.copy.present().is_some_and(|copy| copy.held.is_some());
    match too_much(world, policy) {
        Some(_) if holds_something => Decision::Act(Action::StopJob),
        Some(blocker) => blocked(blocker),
        None if matches!(decision, Decision::Act(_)) && unseen(world, policy) => {
            Decision::Wait("the WAL that the source keeps was not seen yet".to_owned())
        }
        None => decision,
    }
}

/// The step's own decision, and while it waits what is wrong: once the rows are there, going on to
/// the stream is what lets go of the WAL soonest.
pub(super) fn or_told(world: &World, policy: &Policy, step: impl FnOnce() -> Decision) -> Decision {
    match step() {
        Decision::Wait(why) => too_much(world, policy).map_or(Decision::Wait(why), blocked),
        decision => decision,
    }
}

/// Whether nobody has looked yet, as right after a restart; or a bound is set, and nothing is known of
/// what it bounds.
fn unseen(world: &World, policy: &Policy) -> bool {
    world.lag.present().is_none_or(|lag| lag.observed_at.is_none())
        || policy.max_retained_wal.is_some()
            && forward(world).is_none_or(|stream| stream.retained_wal_bytes.is_none())
}

fn forward(world: &World) -> Option<&StreamReport> {
    world.lag.present().map(|lag| &lag.forward)
}

/// Why the WAL that is held back is too much, by the last figures seen.
fn too_much(world: &World, policy: &Policy) -> Option<Blocker> {
    let stream = forward(world)?;
    if stream.wal_status.as_deref() == Some("lost") {
        return Some(copying::slot_lost(Direction::Forward));
    }
    let retained = stream.retained_wal_bytes;
    if let (Some(retained), Some(bound)) = (retained, policy.max_retained_wal)
        && retained > bound
    {
        return Some(stopped(
            &format!(
                "it keeps {}, more than copy.max_retained_wal = {}",
                size(retained),
                size(bound)
            ),
            "raise copy.max_retained_wal and restart pgferry",
        ));
    }
    // What is safe and what is kept add up to the server's bound, to within a segment.
    let (safe, retained) = (stream.safe_wal_bytes?, retained?);
    let bound = retained.saturating_add(u64::try_from(safe).unwrap_or(0));
    let little = safe <= 0 || (safe as f64) < SAFE_PART * bound as f64;
    (little || stream.wal_status.as_deref() == Some("unreserved")).then(|| {
        stopped(
            &format!(
                "it keeps {}, and loses the slot after {} more",
                size(retained),
                size(u64::try_from(safe).unwrap_or(0))
            ),
            "raise max_slot_wal_keep_size there and reload it",
        )
    })
}

fn stopped(figures: &str, remedy: &str) -> Blocker {
    Blocker::new(
        "wal_retention",
        format!("the source must keep WAL until the copy is done: {figures}"),
        format!(
            "{remedy}, then `pgferry resume`: rows that are not all copied are copied again from \
             the beginning. The WAL stays until the forward stream runs; `pgferry abandon` lets go \
             of it at once"
        ),
    )
}

/// As PostgreSQL writes sizes, rounded down.
fn size(bytes: u64) -> String {
    const MEGABYTE: u64 = 1 << 20;
    match bytes {
        0..MEGABYTE => format!("{} kB", bytes >> 10),
        MEGABYTE.. => format!("{} MB", bytes / MEGABYTE),
    }
}

#[cfg(test)]
mod tests;
