//! Strays: transactions of fenced roles that wrote on a closed side, which the fence cannot forbid.
//!
//! Before the line such a writer takes the switchover back. Behind it, and at rest, it is written down
//! with all that is known of it, its session is ended, and what became of it is asked of the server:
//! rolled back, nothing of it is left; committed, its rows are counted and its tables compared on both
//! sides. Pure, and it holds tables and numbers, no key and no value but in what is shown.

pub(crate) mod fold;
mod told;

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::action::{Action, SessionId};
use crate::facts::{Course, Facts};
use crate::finding::Blocker;
use crate::journal::Event;
use crate::name::{RoleName, TableName};
use crate::seen::Seen;
use crate::side::Side;
use crate::steps::Step;
use crate::world::{NodeState, World};

pub(crate) use told::ailing;
pub use told::of_operation;

/// Strays that are written down within a minute: a client that begins again each time it is ended must
/// fill no journal.
const MOST_A_MINUTE: usize = 10;

/// A transaction that writes on a closed side, as a look saw it while it was open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Writer {
    /// Where.
    pub side: Side,
    /// Whose session.
    pub role: RoleName,
    /// `pg_stat_activity.pid`
    pub pid: i32,
    /// `pg_stat_activity.backend_start`, microseconds since 1970.
    pub started_us: i64,
    /// The transaction's id, with its epoch: it is never used again.
    pub xid: u64,
    /// The application's tables that it held a lock for writing on.
    pub tables: Vec<TableName>,
}

impl Writer {
    fn session(&self) -> SessionId {
        SessionId { pid: self.pid, started_us: self.started_us }
    }
}

/// What became of a transaction, by its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// Nothing of it is left.
    RolledBack,
    /// Its rows are there, and travel to the other side.
    Committed,
    /// It was so long ago that the server does not know any more.
    Forgotten,
}

/// What a stray left in one table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StrayTable {
    /// Which.
    pub table: TableName,
    /// Rows that are still as it wrote them. Deleted ones, and those that were written again since, leave
    /// no trace of it. None where the table is not compared.
    pub rows: Option<u64>,
    /// Rows of the whole table that both sides do not have alike; None where it is not compared: on one
    /// side only, unlogged, or out of scope.
    pub differing: Option<u64>,
    /// More of them differ than were located.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub at_least: bool,
}

/// A stray, and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stray {
    /// As it was seen.
    pub writer: Writer,
    /// When it was first seen.
    pub found_at: Timestamp,
    /// When its fate was written down.
    pub ended_at: Option<Timestamp>,
    /// The switchover that found it; None at rest.
    pub operation: Option<Uuid>,
    /// What became of it; None while that is not known.
    pub fate: Option<Fate>,
    /// What it left, once its tables were compared.
    pub left: Option<Vec<StrayTable>>,
    /// A person has compared everything since.
    pub answered: bool,
}

impl Stray {
    fn is(&self, side: Side, xid: u64) -> bool {
        self.writer.side == side && self.writer.xid == xid
    }

    fn has_tables_of(&self, writer: &Writer) -> bool {
        writer.tables.iter().all(|table| self.writer.tables.contains(table))
    }

    fn is_to_be_compared(&self) -> bool {
        matches!(self.fate, Some(Fate::Committed | Fate::Forgotten))
            && self.left.is_none()
            && !self.writer.tables.is_empty()
    }

    fn is_over(&self) -> bool {
        self.fate.is_some() && !self.is_to_be_compared()
    }
}

/// Strays that a person has yet to hear of, and that were too many to keep: the journal has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// How many.
    pub number: usize,
    /// When the last of them had ended.
    pub last_ended_at: Option<Timestamp>,
}

/// The comparison of what strays left, as a look sees it.
#[derive(Clone, Debug, PartialEq)]
pub enum ComparisonView {
    /// It is at work.
    Running,
    /// It came to an end.
    Ended(Vec<Compared>),
    /// It could not be carried through, and may be tried again from then on.
    Failed {
        /// Why.
        blocker: Blocker,
        /// When.
        retry_at: Timestamp,
    },
}

/// What one stray left, with what is shown and never written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compared {
    /// Its side.
    pub side: Side,
    /// Its transaction.
    pub xid: u64,
    /// By table.
    pub tables: Vec<StrayTable>,
    /// Keys of some of its rows, for people.
    pub keys: Vec<(TableName, Vec<String>)>,
}

/// What is to be written down and done about strays.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Next {
    /// Written down first.
    pub before: Vec<Event>,
    /// Then done.
    pub action: Option<Action>,
    /// Written down behind it, when it was answered.
    pub after: Vec<Event>,
}

/// The side on which strays are looked for now: the one that has yielded, or that is passive.
#[must_use]
pub fn watched(facts: &Facts) -> Option<Side> {
    match &facts.course {
        Course::AtRest if facts.lost.is_none() => Some(facts.active.other()),
        Course::Switchover(switchover)
            if switchover.step == Step::Confirm && switchover.unwinding.is_none() =>
        {
            Some(switchover.kind.from())
        }
        Course::Planned
        | Course::SetUp(_)
        | Course::AtRest
        | Course::Switchover(_)
        | Course::End { .. }
        | Course::Ended(_) => None,
    }
}

/// Strays of a side of which it is not known what became of them.
pub fn open(facts: &Facts, side: Side) -> impl Iterator<Item = &Writer> {
    let open = move |stray: &&Stray| stray.writer.side == side && stray.fate.is_none();
    facts.strays.iter().filter(open).map(|stray| &stray.writer)
}

/// Judges one look; None when there is nothing to do about it.
///
/// The session is ended in every turn until the fate is known, and once more in the turn that learns of
/// it: a daemon that died may have written it down and done nothing, and one that has committed would
/// write again.
#[must_use]
pub fn next(facts: &Facts, world: &World) -> Option<Next> {
    let watched = watched(facts)?;
    Side::BOTH
        .into_iter()
        .find_map(|side| ending(facts, world, side, side == watched))
        .or_else(|| comparing(facts, world))
}

fn ending(facts: &Facts, world: &World, side: Side, is_watched: bool) -> Option<Next> {
    let node = world.node(side);
    let is_closed = node.record.present().is_some_and(|record| record.state != NodeState::Open);
    let seen = node.strays.present().filter(|_| is_watched && is_closed);
    let seen = || seen.into_iter().flatten();
    let sessions: BTreeSet<SessionId> = open(facts, side)
        .chain(seen().filter(|writer| !is_known(facts, writer)))
        .map(Writer::session)
        .collect();
    if sessions.is_empty() {
        return None;
    }
    // Their sessions are ended all the same; that a client keeps coming is told by those before them.
    let room = MOST_A_MINUTE.saturating_sub(found_lately(facts, world.now));
    let of_it = |writer: &Writer| facts.strays.iter().find(|s| s.is(writer.side, writer.xid));
    let more_of_open = seen().filter(|writer| {
        of_it(writer).is_some_and(|s| s.fate.is_none() && !s.has_tables_of(writer))
    });
    let new = seen().filter(|writer| of_it(writer).is_none()).take(room);
    let found: Vec<&Writer> = more_of_open.chain(new).collect();
    let fates = node.fates.present().map(Vec::as_slice).unwrap_or_default();
    let fate = |writer: &Writer| fates.iter().find(|(xid, _)| *xid == writer.xid);
    let after = open(facts, side)
        .filter(|writer| !found.iter().any(|found| found.xid == writer.xid))
        .filter_map(|writer| {
            let (xid, fate) = fate(writer)?;
            Some(Event::StrayEnded { side, xid: *xid, fate: *fate })
        });
    Some(Next {
        after: after.collect(),
        before: found.into_iter().cloned().map(|writer| Event::StrayFound { writer }).collect(),
        action: Some(Action::EndSessions { side, sessions: sessions.into_iter().collect() }),
    })
}

/// How many strays of the last minute are written down.
fn found_lately(facts: &Facts, now: Timestamp) -> usize {
    let lately = |stray: &&Stray| now.duration_since(stray.found_at).as_secs() < 60;
    facts.strays.iter().filter(lately).count()
}

/// Whether all that was seen of a writer is written down. After a crash an id may be another
/// transaction's, in another session.
fn is_known(facts: &Facts, writer: &Writer) -> bool {
    let of_it = facts.strays.iter().find(|stray| stray.is(writer.side, writer.xid));
    of_it.is_some_and(|stray| {
        stray.writer.session() == writer.session()
            && (stray.fate.is_some() || stray.has_tables_of(writer))
    })
}

fn comparing(facts: &Facts, world: &World) -> Option<Next> {
    let is_running = matches!(world.stray_comparison, Seen::Present(ComparisonView::Running));
    if facts.paused && is_running {
        return Some(Next { action: Some(Action::GiveUpBackground), ..Next::default() });
    }
    if facts.course != Course::AtRest || facts.paused {
        return None;
    }
    let wanted = || facts.strays.iter().filter(|stray| stray.is_to_be_compared());
    let begin = || {
        let strays: Vec<Writer> = wanted().map(|stray| stray.writer.clone()).collect();
        let compare = || Action::CompareStrays { active: facts.active, strays };
        wanted().next().is_some().then(|| Next { action: Some(compare()), ..Next::default() })
    };
    match &world.stray_comparison {
        Seen::Unknown(_) | Seen::Present(ComparisonView::Running) => None,
        Seen::Absent => begin(),
        Seen::Present(ComparisonView::Failed { retry_at, .. }) => {
            (world.now >= *retry_at).then(begin).flatten()
        }
        Seen::Present(ComparisonView::Ended(compared)) => {
            let news = compared.iter().filter(|one| wanted().any(|s| s.is(one.side, one.xid)));
            let before: Vec<Event> = news
                .map(|one| Event::StrayCompared {
                    side: one.side,
                    xid: one.xid,
                    tables: one.tables.clone(),
                })
                .collect();
            if before.is_empty() { begin() } else { Some(Next { before, ..Next::default() }) }
        }
    }
}

#[cfg(test)]
mod tests;
