//! The copy that pglogical itself makes when it creates a subscription: slower, not restartable,
//! and known to lose rows without a word. So it is waited for, and not believed until every table
//! was counted on both sides at one and the same moment.
//!
//! There is no snapshot of ours and no position to hand over at: pglogical's slot exports the
//! snapshot that it copies, and streams on from there.

use super::{Decision, blocked, copying, done, look, not_seen, unless_job, was_in_vain};
use crate::action::Action;
use crate::facts::{Facts, milliseconds};
use crate::finding::Blocker;
use crate::journal::{Evidence, Intent};
use crate::seen::Seen;
use crate::side::Direction;
use crate::world::{NativeCopyView, World};

/// The step after the tables: what pglogical finds rows by has to be there before the first change
/// arrives, and that is right behind the copy. Foreign keys, triggers and checks stay for
/// `build_indexes`: a row that one of them refuses would be a row lost.
pub(super) fn keys(facts: &Facts, world: &World, schema: Decision) -> Decision {
    if !matches!(schema, Decision::Done(_)) {
        return schema;
    }
    unless_job(world, || match &world.missing_indexes {
        Seen::Unknown(reason) => not_seen("the destination's indexes", reason),
        Seen::Absent => done(),
        Seen::Present(missing) if missing.is_empty() => done(),
        Seen::Present(missing)
            if facts.intents.contains(&Intent::BuildKeys) && was_in_vain(world) =>
        {
            blocked(Blocker::new(
                "indexes_missing",
                format!(
                    "after keys and indexes were built the destination still differs: {}",
                    missing.iter().take(10).cloned().collect::<Vec<_>>().join("; ")
                ),
                "make it on the destination as it is on the source, or undo the change on the source; then `pgferry resume`",
            ))
        }
        Seen::Present(_) => Decision::Act(Action::BuildKeys),
    })
}

pub(super) fn create_forward_subscription(world: &World) -> Decision {
    let subscription = match &world.forward.subscription {
        Seen::Unknown(reason) => return not_seen("the forward subscription", reason),
        Seen::Absent => {
            // What was made between the schema and the sets is in the sets, and not over there.
            let schema = look!(world.schema, "the destination's schema");
            return copying::incomplete(schema)
                .unwrap_or(Decision::Act(Action::CreateCopyingSubscription));
        }
        Seen::Present(subscription) => subscription,
    };
    if !subscription.forwards_nothing {
        return blocked(copying::forwards_something(Direction::Forward));
    }
    Decision::Done(Evidence::Subscription { slot: subscription.slot.clone() })
}

pub(super) fn copy_rows(facts: &Facts, world: &World) -> Decision {
    unless_job(world, || {
        let native = look!(world.native, "pglogical's copy");
        if let Some(decision) = under_way(native) {
            return decision;
        }
        if native.counted < native.tables {
            return Decision::Act(Action::CountRows);
        }
        Decision::Done(Evidence::Copied {
            tables: native.tables,
            rows: native.rows,
            bytes: 0,
            seconds: facts
                .copy_began_at
                .map_or(0.0, |began| milliseconds(began, world.now) / 1000.0),
        })
    })
}

/// None once pglogical calls its copy finished.
fn under_way(native: &NativeCopyView) -> Option<Decision> {
    match native.status {
        Some('r') => None,
        // Only these begin again by themselves. In the others a worker that is gone has failed.
        Some(status) if !native.worker && !matches!(status, 'i' | 'u' | 'y') => {
            Some(blocked(Blocker::new(
                "pglogical_copy_failed",
                format!(
                    "pglogical's copy broke off (status {status}), and cannot be taken up again"
                ),
                "look into the destination server's log for the reason, `pgferry abandon`, empty the \
                 destination, and start again; copy.method = \"parallel\" goes on after a failure",
            )))
        }
        Some(status) => Some(Decision::Wait(format!(
            "pglogical copies the rows (status {status}{})",
            native.progress.as_deref().map(|p| format!(", {p}")).unwrap_or_default()
        ))),
        None => Some(Decision::Wait("pglogical has not begun to copy".to_owned())),
    }
}

/// The stream runs since the copy: there is no position to begin at. That it carries is what
/// `await_catch_up` asks next, and upkeep wakes it meanwhile.
pub(super) fn start_forward_stream(world: &World) -> Decision {
    let direction = Direction::Forward;
    let subscription = look!(world.forward.subscription, "the forward subscription");
    let slot = look!(world.forward.slot, "the forward slot");
    if slot.lost {
        return blocked(copying::slot_lost(direction));
    }
    if !subscription.initialized {
        return Decision::Wait("the forward subscription initialises".to_owned());
    }
    if !subscription.enabled {
        return Decision::Act(Action::EnableSubscription { direction });
    }
    done()
}
