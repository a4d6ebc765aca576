//! Phase copying: the exact hand-over from one snapshot to the stream.
//!
//! The subscription initialises on an empty set and is disabled before the snapshot is taken: had
//! it streamed past the snapshot's position, the changes in between would be lost for good.

use super::{Decision, blocked, done, look, not_seen, unless_job, was_in_vain};
use crate::action::Action;
use crate::facts::Facts;
use crate::finding::Blocker;
use crate::journal::{Evidence, Intent};
use crate::seen::Seen;
use crate::side::Direction;
use crate::world::{SchemaView, World};

pub(super) fn create_forward_subscription(world: &World) -> Decision {
    let direction = Direction::Forward;
    let subscription = match &world.forward.subscription {
        Seen::Unknown(reason) => return not_seen("the forward subscription", reason),
        Seen::Absent => {
            return Decision::Act(Action::CreateSubscription { direction, on_empty_set: true });
        }
        Seen::Present(subscription) => subscription,
    };
    if !subscription.forwards_nothing {
        return blocked(forwards_something(direction));
    }
    if !subscription.initialized {
        return Decision::Wait("the forward subscription initialises".to_owned());
    }
    if subscription.enabled {
        return Decision::Act(Action::DisableSubscription { direction });
    }
    let slot = look!(world.forward.slot, "the forward slot");
    if subscription.worker || slot.active() {
        return Decision::Wait("the forward subscription comes to rest".to_owned());
    }
    if !subscription.real_sets {
        return Decision::Act(Action::SwapSets { direction });
    }
    Decision::Done(Evidence::Subscription { slot: subscription.slot.clone() })
}

pub(super) fn copy_rows(facts: &Facts, world: &World) -> Decision {
    unless_job(world, || {
        let copy = look!(world.copy, "the copy");
        let under = |lsn| copy.copied.get(&lsn).copied().unwrap_or(0);
        let subscription = look!(world.forward.subscription, "the forward subscription");
        let slot = look!(world.forward.slot, "the forward slot");
        if subscription.enabled || slot.active() {
            return blocked(Blocker::new(
                "stream_ran_before_copy",
                "the forward subscription was enabled before the copy was done",
                "abandon the migration, and start again: changes may have been applied to missing rows",
            ));
        }
        if let Some(lsn) = facts.copy_lsn
            && under(lsn) >= copy.tables
        {
            return Decision::Done(Evidence::Copied {
                tables: copy.tables,
                rows: copy.rows,
                bytes: copy.bytes,
                seconds: facts
                    .copy_began_at
                    .map_or(0.0, |began| crate::facts::milliseconds(began, world.now) / 1000.0),
            });
        }
        // What was made between the schema and the sets is in the sets, and not on the destination.
        let schema = look!(world.schema, "the destination's schema");
        if let Some(blocker) = incomplete(schema) {
            return blocker;
        }
        match copy.held {
            None => Decision::Act(Action::TakeSnapshot),
            Some(held) if slot.confirmed_flush > held => blocked(passed()),
            Some(held)
                if was_in_vain(world)
                    && facts.intents.contains(&Intent::CopyRows { snapshot_lsn: held }) =>
            {
                blocked(incomplete_copy(copy.tables.saturating_sub(under(held)), copy.tables))
            }
            Some(held) => Decision::Act(Action::CopyRows { snapshot_lsn: held }),
        }
    })
}

/// Tables that the snapshot does not know by the names they have now: doing it again under the same
/// snapshot would leave out the same ones.
fn incomplete_copy(missing: u64, all: u64) -> Blocker {
    Blocker::new(
        "copy_incomplete",
        format!(
            "{missing} of {all} tables are not under the copied snapshot by the names they have now"
        ),
        "a table was renamed, moved to another schema, made or excluded during the copy: undo that, or \
         begin again with a new snapshot by running on the source: SELECT pg_terminate_backend(pid) FROM \
         pg_stat_activity WHERE application_name LIKE 'pgferry-snapshot/%'; then `pgferry resume`",
    )
}

/// Tables that the destination lacks, or has otherwise, although the schema was copied.
pub(super) fn incomplete(schema: &SchemaView) -> Option<Decision> {
    if !schema.differing.is_empty() {
        return Some(Decision::Blocked(schema.differing.clone()));
    }
    (!schema.missing.is_empty()).then(|| {
        let names: Vec<String> = schema.missing.iter().take(10).map(ToString::to_string).collect();
        blocked(Blocker::new(
            "tables_missing",
            format!("{} tables are not on the destination: {}", schema.missing.len(), names.join(", ")),
            "create each on the destination with the same definition, but without indexes, or drop it on the source",
        ))
    })
}

pub(super) fn build_indexes(facts: &Facts, world: &World) -> Decision {
    unless_job(world, || {
        let missing = look!(world.missing_indexes, "the destination's indexes");
        if missing.is_empty() {
            done()
        } else if facts.intents.contains(&Intent::BuildIndexes) && was_in_vain(world) {
            blocked(Blocker::new(
                "indexes_missing",
                format!(
                    "after everything was built the destination still differs: {}",
                    missing.iter().take(10).cloned().collect::<Vec<_>>().join("; ")
                ),
                "make it on the destination as it is on the source, or undo the change on the source; then `pgferry resume`",
            ))
        } else {
            Decision::Act(Action::BuildIndexes)
        }
    })
}

pub(super) fn start_forward_stream(facts: &Facts, world: &World) -> Decision {
    let direction = Direction::Forward;
    let Some(at_lsn) = facts.copy_lsn else {
        return blocked(Blocker::new(
            "copy_position_missing",
            "the journal does not say under which snapshot the rows were copied",
            "abandon the migration, and start again",
        ));
    };
    let subscription = look!(world.forward.subscription, "the forward subscription");
    let slot = look!(world.forward.slot, "the forward slot");
    if slot.lost {
        return blocked(slot_lost(direction));
    }
    if subscription.enabled {
        return match world.forward.origin {
            Seen::Present(origin) if origin >= at_lsn => done(),
            // Where the origin functions are not granted the slot's position alone hands over.
            Seen::Absent if slot.confirmed_flush >= at_lsn => done(),
            Seen::Present(_) | Seen::Absent => blocked(Blocker::new(
                "stream_began_early",
                "the forward stream runs from before the copied snapshot",
                "abandon the migration, and start again: changes may have been applied twice",
            )),
            Seen::Unknown(ref reason) => not_seen("the forward origin", reason),
        };
    }
    if slot.confirmed_flush > at_lsn {
        return blocked(passed());
    }
    if slot.confirmed_flush < at_lsn {
        return Decision::Act(Action::AdvanceSlot { direction, to: at_lsn });
    }
    Decision::Act(Action::StartStream { direction, at_lsn })
}

pub(super) fn forwards_something(direction: Direction) -> Blocker {
    Blocker::new(
        "forwards_origins",
        format!(
            "the {direction} subscription forwards changes of other origins, which makes a loop"
        ),
        "abandon the migration, and start again; nothing alters forward_origins afterwards",
    )
}

pub(crate) fn slot_lost(direction: Direction) -> Blocker {
    Blocker::new(
        "slot_lost",
        format!("the {direction} slot has lost WAL that it still needed"),
        "abandon the migration, raise max_slot_wal_keep_size, and start again",
    )
}

fn passed() -> Blocker {
    Blocker::new(
        "position_passed",
        "the forward slot is past the snapshot's position: changes in between would be lost",
        "abandon the migration, and start again",
    )
}
