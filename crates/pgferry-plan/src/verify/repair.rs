//! Copying rows again that are proven to differ: written down before it is done, and how it ended.
//!
//! A comparison that is asked to repair stops in front of each table's rows and shows them; only what
//! the journal holds as intended is let go on. Pure; which rows those are, and how they are copied, is
//! the comparison's own. Names of tables and numbers of rows, no key and no value.

use uuid::Uuid;

use crate::action::Action;
use crate::facts::Facts;
use crate::journal::{Event, Verb};
use crate::seen::Seen;
use crate::world::World;

/// Some rows of one table, as a look sees them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepairView {
    /// These rows.
    pub id: Uuid,
    /// The operation of the verification that has found them.
    pub run: Uuid,
    /// Their table.
    pub table: String,
    /// How many there are.
    pub rows: u64,
    /// How far it is with them.
    pub stage: Stage,
}

/// How far it is with some rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// They wait to be let.
    Waits,
    /// They are being copied.
    Runs,
    /// It has ended.
    Ended {
        /// How many of them were replaced, added or taken away.
        rows: u64,
        /// Why the others were not.
        refused: Option<String>,
    },
}

/// What is to be written down about a repair, and then done.
#[derive(Clone, Debug, PartialEq)]
pub struct Next {
    /// First.
    pub events: Vec<Event>,
    /// Behind it.
    pub action: Action,
}

/// Judges the repair of a running verification; None when nothing has changed.
#[must_use]
pub fn next(facts: &Facts, world: &World) -> Option<Next> {
    let run = facts.running(Verb::Verify)?.id;
    let repairing = facts.repair.as_ref().filter(|repair| repair.operation == run)?;
    let Seen::Present(repairs) = &world.repairs else { return None };
    let (mut events, mut begin, mut told) = (Vec::new(), Vec::new(), Vec::new());
    for repair in repairs.iter().filter(|repair| repair.run == run) {
        let intended = repairing.open.contains(&repair.id);
        match &repair.stage {
            // Intended already: whoever was told of it has not heard.
            Stage::Waits => {
                if !intended {
                    events.push(Event::RepairIntended {
                        operation: run,
                        repair: repair.id,
                        table: repair.table.clone(),
                        rows: repair.rows,
                    });
                }
                begin.push(repair.id);
            }
            Stage::Runs => {}
            Stage::Ended { rows, refused } => {
                if intended {
                    events.push(Event::Repaired {
                        operation: run,
                        repair: repair.id,
                        table: repair.table.clone(),
                        rows: *rows,
                        refused: refused.clone(),
                    });
                }
                told.push(repair.id);
            }
        }
    }
    let anything = !begin.is_empty() || !told.is_empty();
    anything.then_some(Next { events, action: Action::Repair { begin, told } })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{Course, Operation, Repairing};
    use crate::journal::OperationState;

    const RUN: Uuid = Uuid::from_u128(7);
    const ROWS: Uuid = Uuid::from_u128(8);

    fn facts(repair: Option<Vec<Uuid>>) -> Facts {
        let operation = Operation {
            id: RUN,
            verb: Verb::Verify,
            state: OperationState::Running,
            requested_at: "2026-11-21T06:00:00Z".parse().unwrap(),
            finished_at: None,
            problem: None,
            blockers: Vec::new(),
        };
        Facts {
            course: Course::AtRest,
            operations: vec![operation],
            repair: repair.map(|open| Repairing { operation: RUN, open }),
            ..Facts::default()
        }
    }

    fn world(run: Uuid, stage: Stage) -> World {
        let repair = RepairView { id: ROWS, run, table: "public.t".to_owned(), rows: 3, stage };
        World { repairs: Seen::Present(vec![repair]), ..World::default() }
    }

    fn ended() -> Stage {
        Stage::Ended { rows: 2, refused: Some("held".to_owned()) }
    }

    #[test]
    fn rows_are_let_go_behind_their_intent_only() {
        let intended = Event::RepairIntended {
            operation: RUN,
            repair: ROWS,
            table: "public.t".to_owned(),
            rows: 3,
        };
        let action = Action::Repair { begin: vec![ROWS], told: Vec::new() };
        let waits = world(RUN, Stage::Waits);
        let first = next(&facts(Some(Vec::new())), &waits).unwrap();
        assert_eq!((first.events, &first.action), (vec![intended], &action));
        // The order was lost behind its intent: it is given again, and not written down twice.
        let again = next(&facts(Some(vec![ROWS])), &waits).unwrap();
        assert_eq!((again.events, &again.action), (Vec::new(), &action));
        assert_eq!(next(&facts(Some(vec![ROWS])), &world(RUN, Stage::Runs)), None);
    }

    #[test]
    fn how_it_ended_is_written_down_once() {
        let first = next(&facts(Some(vec![ROWS])), &world(RUN, ended())).unwrap();
        assert!(
            matches!(&first.events[..], [Event::Repaired { rows: 2, refused: Some(_), .. }]),
            "{:?}",
            first.events
        );
        let action = Action::Repair { begin: Vec::new(), told: vec![ROWS] };
        assert_eq!(first.action, action);
        let again = next(&facts(Some(Vec::new())), &world(RUN, ended())).unwrap();
        assert_eq!((again.events, again.action), (Vec::new(), action));
    }

    #[test]
    fn nothing_is_repaired_that_nobody_asked_for_or_saw() {
        assert_eq!(next(&facts(None), &world(RUN, Stage::Waits)), None, "it was not asked for");
        assert_eq!(next(&facts(Some(Vec::new())), &world(ROWS, Stage::Waits)), None, "another run");
        assert_eq!(next(&facts(Some(Vec::new())), &World::default()), None, "not seen");
    }
}
