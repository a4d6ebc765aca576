//! Finish and abandon: everything that pgferry and pglogical put there goes, in the order in
//! which nothing is orphaned. What is not there is done.

use super::fence::not_lifted;
use super::following::await_marker;
use super::gate::not_streaming;
use super::{Decision, Policy, blocked, done, look, not_seen};
use crate::action::Action;
use crate::facts::{Course, Facts};
use crate::finding::Blocker;
use crate::journal::{Evidence, Intent, Verb};
use crate::lag::StreamStatus;
use crate::quote::literal;
use crate::seen::Seen;
use crate::side::{Direction, Side};
use crate::world::{JobView, NodeState, World};

pub(super) fn drain_both(facts: &Facts, world: &World, policy: &Policy) -> Decision {
    match &world.job {
        Seen::Unknown(reason) => return not_seen("the background job", reason),
        Seen::Present(JobView::Running(_)) => return Decision::Act(Action::StopJob),
        Seen::Present(JobView::Done(_) | JobView::Failed { .. }) | Seen::Absent => {}
    }
    // What an abandoned destination has not received is not wanted there any more, and with a side
    // that is lost both streams were cut for good.
    if facts.lost.is_some() || matches!(facts.course, Course::End { verb: Verb::Abandon, .. }) {
        return done();
    }
    for direction in Direction::BOTH {
        let stream = world.stream(direction);
        match (&stream.subscription, &stream.slot) {
            (Seen::Unknown(reason), _) => return not_seen("a subscription", reason),
            (Seen::Absent, _) => {}
            // What a stream has lost never comes. To the active side nothing is under way.
            (Seen::Present(_), Seen::Present(slot)) if slot.lost => {}
            (Seen::Present(_), _) => match await_marker(facts, world, direction.from()) {
                None => {}
                Some(Decision::Wait(reason)) => {
                    return match held_up(direction, world, policy) {
                        Some(blocker) => blocked(blocker),
                        None => Decision::Wait(reason),
                    };
                }
                Some(decision) => return decision,
            },
        }
    }
    done()
}

/// A stream that will not carry the last marker unless somebody sees to it, or gives it up. None while a
/// server is away, or was until now: then that is what is waited for, and everything arrives.
fn held_up(direction: Direction, world: &World, policy: &Policy) -> Option<Blocker> {
    let lag = world.lag.present()?;
    world.stream(direction).slot.present()?;
    for side in Side::BOTH {
        world.node(side).marker.present()?;
    }
    let (to, name) = (direction.to(), literal(&policy.migration.subscription(direction)));
    let mend = match lag.stream(direction).status {
        StreamStatus::Down => format!(
            "it is woken again and again; if it stays so, the log of the {to} server says what it cannot apply there"
        ),
        StreamStatus::Stalled => {
            format!("look for what holds its worker on the {to}, a lock most of all")
        }
        StreamStatus::Disabled => {
            format!("on the {to}: SELECT pglogical.alter_subscription_enable({name}, true);")
        }
        StreamStatus::Absent
        | StreamStatus::Starting
        | StreamStatus::Streaming
        | StreamStatus::Unknown => return None,
    };
    let give_up = format!("SELECT pglogical.drop_subscription({name}, true);");
    Some(Blocker {
        hint: format!("{mend}; or give up what has not arrived, on the {to}: {give_up}"),
        ..not_streaming(direction, lag)
    })
}

pub(super) fn disable_subscriptions(world: &World) -> Decision {
    for direction in Direction::BOTH {
        let stream = world.stream(direction);
        match &stream.subscription {
            Seen::Unknown(reason) => return not_seen("a subscription", reason),
            Seen::Absent => {}
            Seen::Present(subscription) if subscription.enabled => {
                return Decision::Act(Action::DisableSubscription { direction });
            }
            Seen::Present(subscription) => match &stream.slot {
                Seen::Unknown(reason) => return not_seen("a slot", reason),
                // Its drop would only warn that the slot is in use, and leave it behind.
                Seen::Present(slot) if slot.active() || subscription.worker => {
                    return Decision::Wait(format!("the {direction} stream comes to rest"));
                }
                Seen::Present(_) | Seen::Absent => {}
            },
        }
    }
    done()
}

pub(super) fn drop_subscriptions(world: &World) -> Decision {
    for direction in Direction::BOTH {
        match &world.stream(direction).subscription {
            Seen::Unknown(reason) => return not_seen("a subscription", reason),
            Seen::Absent => {}
            Seen::Present(_) => return Decision::Act(Action::DropSubscription { direction }),
        }
    }
    done()
}

pub(super) fn check_slots_and_origins(world: &World) -> Decision {
    for side in Side::BOTH {
        let orphans = match &world.node(side).orphans {
            Seen::Unknown(reason) => return not_seen("slots and origins", reason),
            Seen::Absent => continue,
            Seen::Present(orphans) => orphans,
        };
        if let Some((slot, active)) = orphans.slots.first_key_value() {
            if *active {
                return Decision::Wait(format!("slot {slot} of the {side} is still in use"));
            }
            return Decision::Act(Action::DropSlot { side, slot: slot.clone() });
        }
        if let Some(origin) = orphans.origins.first() {
            return Decision::Act(Action::DropOrigin { side, origin: origin.clone() });
        }
    }
    done()
}

pub(super) fn drop_nodes(facts: &Facts, world: &World, policy: &Policy) -> Decision {
    for side in Side::BOTH {
        match &world.node(side).pglogical_node {
            Seen::Unknown(reason) => return not_seen("pglogical's node", reason),
            Seen::Present(name) if *name == policy.migration.node(side) => {
                return Decision::Act(Action::DropNode { side });
            }
            Seen::Absent | Seen::Present(_) => {}
        }
    }
    let aside = match put_back(facts, world) {
        Ok(left) => left,
        Err(decision) => return decision,
    };
    // The last step in which the record of the fence can be read: the next one removes it.
    let mut left = Vec::new();
    for side in Side::BOTH {
        match still_closed(side, facts, world) {
            Ok(closed) => left.extend(closed),
            Err(decision) => return decision,
        }
    }
    left.extend(aside);
    if left.is_empty() { done() } else { Decision::Done(Evidence::Leftovers { left }) }
}

/// What clients cannot write to on a side: all of the passive one, unless it is to be opened, and on
/// one that is open the roles that could not be lifted.
fn still_closed(side: Side, facts: &Facts, world: &World) -> Result<Option<Blocker>, Decision> {
    let node = world.node(side);
    let record = match &node.record {
        Seen::Unknown(reason) => return Err(not_seen("the node's record", reason)),
        Seen::Absent => return Ok(None),
        Seen::Present(record) => record,
    };
    let passive = side == facts.active.other();
    if record.state != NodeState::Open && !passive {
        return Ok(None);
    }
    let to_open = matches!(facts.course, Course::End { open_passive: true, .. });
    if record.state != NodeState::Open && to_open {
        return Err(Decision::Act(Action::Open {
            side,
            revision: record.revision,
            after_marker: None,
        }));
    }
    let fence = match &node.fence {
        Seen::Unknown(reason) => return Err(not_seen("the fence", reason)),
        Seen::Absent => return Ok(None),
        Seen::Present(fence) if fence.fenced.is_empty() => return Ok(None),
        Seen::Present(fence) => fence,
    };
    if record.state == NodeState::Open {
        return Ok(Some(not_lifted(side, fence)));
    }
    Ok(Some(Blocker::new(
        "passive_stays_fenced",
        format!(
            "the {side} stays closed to the roles {}, so that no client can write to it",
            fence.fenced.join(", ")
        ),
        fence.lift_statements.join(" "),
    )))
}

/// What was set aside for a copy that was then given up comes back, as far as the rows that are
/// there allow it: tried once, and what it could not put back is named.
fn put_back(facts: &Facts, world: &World) -> Result<Vec<Blocker>, Decision> {
    if !facts.set_aside {
        return Ok(Vec::new());
    }
    let tried = facts.intents.contains(&Intent::PutBack);
    match &world.job {
        Seen::Unknown(reason) => return Err(not_seen("the background job", reason)),
        Seen::Present(JobView::Running(what)) => return Err(Decision::Wait(what.clone())),
        Seen::Present(JobView::Done(_) | JobView::Failed { .. }) if tried => {}
        // A job of before, or one that died with its daemon.
        Seen::Present(JobView::Done(_) | JobView::Failed { .. }) | Seen::Absent => {
            return match &world.still_aside {
                Seen::Unknown(reason) => Err(not_seen("what was set aside", reason)),
                Seen::Absent => Ok(Vec::new()),
                Seen::Present(_) => Err(Decision::Act(Action::PutBack)),
            };
        }
    }
    match &world.still_aside {
        Seen::Unknown(reason) => Err(not_seen("what was set aside", reason)),
        Seen::Absent => Ok(Vec::new()),
        Seen::Present(objects) => Ok(objects
            .iter()
            .filter_map(|object| {
                let statements = object.definition.clone()?;
                let message = format!("on the destination: {object} is not there as it was before");
                Some(Blocker::new("set_aside", message, statements))
            })
            .collect()),
    }
}

pub(super) fn remove_pglogical(facts: &Facts, world: &World) -> Decision {
    let passive = facts.active.other();
    let open_passive = matches!(facts.course, Course::End { open_passive: true, .. });
    for side in Side::BOTH {
        let node = world.node(side);
        if side == passive && open_passive {
            match &node.record {
                Seen::Unknown(reason) => return not_seen("the node's record", reason),
                Seen::Present(record) if record.state != NodeState::Open => {
                    return Decision::Act(Action::Open {
                        side,
                        revision: record.revision,
                        after_marker: None,
                    });
                }
                Seen::Present(_) | Seen::Absent => {}
            }
        }
        match &node.removable {
            Seen::Unknown(reason) => return not_seen("what is to be removed", reason),
            Seen::Absent => {}
            Seen::Present(()) => {
                return Decision::Act(Action::Remove {
                    side,
                    extension: facts.made_extension[side as usize],
                });
            }
        }
    }
    done()
}

pub(super) fn leftover_scan(facts: &Facts, world: &World) -> Decision {
    let found = look!(world.leftovers, "what is left");
    if found.is_empty() {
        return done();
    }
    let mut left = facts.leftovers.clone();
    left.extend(found.iter().cloned());
    Decision::Done(Evidence::Leftovers { left })
}

pub(super) fn archive_journal(world: &World) -> Decision {
    let journal = look!(world.journal, "the journal");
    if journal.in_a_node && !journal.archived {
        Decision::Act(Action::ArchiveJournal)
    } else {
        done()
    }
}

pub(super) fn drop_journal(world: &World) -> Decision {
    match &world.journal {
        Seen::Unknown(reason) => not_seen("the journal", reason),
        Seen::Present(journal) if journal.in_a_node => Decision::Act(Action::DropJournal),
        Seen::Present(_) | Seen::Absent => done(),
    }
}
