//! Phase preparing: both nodes made ready, nothing of the application touched but its fence on
//! the empty destination.

use uuid::Uuid;

use super::{Decision, Policy, blocked, done, fence, look, not_seen, unless_job, was_in_vain};
use crate::action::Action;
use crate::existing::ExistingView;
use crate::facts::Facts;
use crate::finding::{Blocker, Finding, Severity};
use crate::seen::Seen;
use crate::side::Side;
use crate::world::World;

pub(super) fn check_prerequisites(world: &World) -> Decision {
    let findings = look!(world.findings, "preflight");
    let blockers = blocking(findings);
    if blockers.is_empty() { done() } else { Decision::Blocked(blockers) }
}

fn blocking(findings: &[Finding]) -> Vec<Blocker> {
    findings
        .iter()
        .filter(|finding| finding.severity == Severity::Block)
        .map(Blocker::from)
        .collect()
}

pub(super) fn install_pglogical(facts: &Facts, world: &World) -> Decision {
    for side in Side::BOTH {
        let node = world.node(side);
        let install = look!(node.install, side.as_str());
        if !install.blockers.is_empty() {
            return Decision::Blocked(install.blockers.clone());
        }
        let wanted_id = facts.node_id(side).unwrap_or_else(|| node_id(facts, side));
        match &node.record {
            Seen::Unknown(reason) => return not_seen("the node's record", reason),
            Seen::Present(record) if record.side != side => return blocked(exchanged(side)),
            Seen::Present(record) if record.id != wanted_id => {
                return blocked(Blocker::new(
                    "leftovers",
                    format!("the {side} carries the node record of another migration"),
                    "finish or abandon that migration with the daemon that ran it, or drop schema pgferry there",
                ));
            }
            Seen::Present(_) if install.extension && install.tables => {}
            Seen::Present(_) | Seen::Absent => {
                return Decision::Act(Action::Install {
                    side,
                    node_id: wanted_id,
                    creates_extension: !install.extension,
                });
            }
        }
    }
    done()
}

/// The server behind this side's DSN says that it is the other side.
pub(crate) fn exchanged(side: Side) -> Blocker {
    Blocker::new(
        "servers_exchanged",
        format!("the server configured as {side} carries the record of the {}", side.other()),
        "exchange the two DSNs in the configuration, or point the host names back, and restart",
    )
}

/// Unique by the random id of the start operation; derived, so that deciding twice agrees.
fn node_id(facts: &Facts, side: Side) -> Uuid {
    let start = facts.operations.first().map_or(Uuid::nil(), |operation| operation.id);
    Uuid::from_u128(start.as_u128() ^ (side as u128 + 1))
}

pub(super) fn fence_destination(world: &World, policy: &Policy) -> Decision {
    fence::close(Side::Destination, &world.destination, policy)
}

pub(super) fn create_nodes(world: &World, policy: &Policy) -> Decision {
    for side in Side::BOTH {
        let wanted = policy.migration.node(side);
        match &world.node(side).pglogical_node {
            Seen::Unknown(reason) => return not_seen("pglogical's node", reason),
            Seen::Absent => return Decision::Act(Action::CreateNode { side }),
            Seen::Present(name) if *name == wanted => {}
            Seen::Present(name) => {
                return blocked(Blocker::new(
                    "leftovers",
                    format!("the {side} database is already pglogical's node \"{name}\""),
                    format!(
                        "SELECT pglogical.drop_node('{}'); -- when nothing uses it",
                        name.replace('\'', "''")
                    ),
                ));
            }
        }
    }
    done()
}

pub(super) fn check_peers(world: &World) -> Decision {
    let failures = look!(world.peers, "the way between the servers");
    if failures.is_empty() { done() } else { Decision::Blocked(failures.clone()) }
}

pub(super) fn copy_schema(world: &World) -> Decision {
    unless_job(world, || {
        match &world.existing {
            Seen::Unknown(reason) => return not_seen("the destination's schema", reason),
            Seen::Present(existing) => return take_existing(existing, was_in_vain(world)),
            Seen::Absent => {}
        }
        let schema = look!(world.schema, "the destination's schema");
        // It is copied whole, in one transaction, or not at all: a part of it was made by others.
        let whole = schema.missing.len() as u64 == schema.tables;
        match super::copying::incomplete(schema) {
            None => done(),
            Some(_) if whole && schema.tables > 0 && !was_in_vain(world) => {
                Decision::Act(Action::CopySchema)
            }
            Some(blocked) => blocked,
        }
    })
}

/// Compares once more, now that nobody writes there, and takes out of the way what the copy would
/// fire or be refused by.
fn take_existing(existing: &ExistingView, in_vain: bool) -> Decision {
    let blockers: Vec<Blocker> = blocking(&existing.findings);
    if !blockers.is_empty() {
        Decision::Blocked(blockers)
    } else if existing.to_set_aside.is_empty() {
        done()
    } else if in_vain {
        let named: Vec<String> =
            existing.to_set_aside.iter().take(10).map(ToString::to_string).collect();
        blocked(Blocker::new(
            "not_set_aside",
            format!("still on the destination after it was set aside: {}", named.join(", ")),
            "see what makes it again there, then `pgferry resume`",
        ))
    } else {
        Decision::Act(Action::SetAside { objects: existing.to_set_aside.clone() })
    }
}

pub(super) fn create_source_sets(world: &World) -> Decision {
    add_to_sets(Side::Source, world)
}

pub(super) fn add_to_sets(side: Side, world: &World) -> Decision {
    unless_job(world, || match &world.node(side).to_replicate {
        Seen::Unknown(reason) => not_seen("the replication sets", reason),
        Seen::Absent => done(),
        Seen::Present(tables) => Decision::Act(Action::AddToSets { side, tables: tables.clone() }),
    })
}
