//! The parts of the verdict about streams and sessions.

use super::{Policy, copying, fence};
use crate::finding::Blocker;
use crate::lag::{LagReport, StreamStatus};
use crate::seen::Seen;
use crate::side::{Direction, Side};
use crate::verdict::unseen;
use crate::world::World;

/// A transaction that the fence would end after its grace is somebody's work of this long.
const LONG_TRANSACTION_SECONDS: f64 = 60.0;

/// What stands against a switchover in the two streams: both must run, or there is no way back.
pub(crate) fn stream_blockers(world: &World, policy: &Policy, blockers: &mut Vec<Blocker>) {
    for direction in Direction::BOTH {
        match &world.stream(direction).subscription {
            Seen::Present(subscription) if !subscription.forwards_nothing => {
                blockers.push(copying::forwards_something(direction));
            }
            Seen::Present(_) | Seen::Absent | Seen::Unknown(_) => {}
        }
        if let Seen::Present(slot) = &world.stream(direction).slot
            && slot.lost
        {
            blockers.push(copying::slot_lost(direction));
        }
    }
    let lag = match &world.lag {
        Seen::Present(lag) => lag,
        Seen::Absent => return blockers.push(unseen("the lag", "nothing was sampled")),
        Seen::Unknown(reason) => return blockers.push(unseen("the lag", reason)),
    };
    for (direction, stream) in
        [(Direction::Forward, &lag.forward), (Direction::Reverse, &lag.reverse)]
    {
        if stream.status != StreamStatus::Streaming {
            blockers.push(not_streaming(direction, lag));
            continue;
        }
        match stream.lag_seconds {
            Some(seconds) if seconds <= policy.max_lag.as_secs_f64() => {}
            Some(seconds) => blockers.push(Blocker::new(
                "lag_above_limit",
                format!("the {direction} stream is {seconds:.3} s behind, more than max_lag"),
                "wait until the load is lower, or raise cutover.max_lag",
            )),
            None => blockers.push(unseen(
                &format!("the lag of the {direction} stream"),
                "no heartbeat arrived yet",
            )),
        }
    }
}

pub(super) fn not_streaming(direction: Direction, lag: &LagReport) -> Blocker {
    Blocker::new(
        "stream_not_streaming",
        format!("the {direction} stream is {}", lag.stream(direction).status),
        "look at `pgferry status` and at the subscriber's server log",
    )
}

/// What stands against a switchover in the sessions of the active side.
pub(crate) fn fence_blockers(active: Side, world: &World, blockers: &mut Vec<Blocker>) {
    let view = match &world.node(active).fence {
        Seen::Present(view) => view,
        Seen::Absent => return,
        Seen::Unknown(reason) => return blockers.push(unseen("roles and sessions", reason)),
    };
    if view.prepared > 0 {
        blockers.push(fence::prepared_transactions(active, view.prepared));
    }
    if !view.used_elsewhere.is_empty() {
        blockers.push(Blocker::new(
            "role_used_elsewhere",
            format!(
                "NOLOGIN would lock roles of the {active} out of other databases: {}",
                view.used_elsewhere.join("; ")
            ),
            "set fence.method = \"read_only\" and restart the daemon, or let each database have a role of its own",
        ));
    }
    if let Some(seconds) =
        view.longest_transaction_seconds.filter(|s| *s > LONG_TRANSACTION_SECONDS)
    {
        blockers.push(Blocker::new(
            "long_transaction",
            format!("a transaction of an application role has been open for {seconds:.0} s on the {active}"),
            "wait for it, or end it: SELECT pid, usename, xact_start, query FROM pg_stat_activity WHERE datname = current_database() ORDER BY xact_start;",
        ));
    }
    if !view.unfenceable_writers.is_empty() {
        blockers.push(Blocker::new(
            "unfenceable_writer",
            format!(
                "sessions that cannot be fenced write on the {active}: {}",
                view.unfenceable_writers.join(", ")
            ),
            "let the application log in as a role of its own, neither superuser nor pgferry's",
        ));
    }
}
