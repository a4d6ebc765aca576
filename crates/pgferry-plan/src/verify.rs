//! Verification: proof that both sides hold the same rows, what it came to, and what it allows.
//!
//! Pure. What of the definitions differs is [`definitions`], how columns are hashed [`hashing`], how
//! tables are cut [`parts`], when a difference is damage and not a change under way [`rounds`], what is
//! to be mended [`repair`]; what goes on while nobody asks is [`background`], which tables it reads first
//! [`activity`]. Nothing here has seen a value of the application.

pub mod activity;
pub mod background;
pub mod definitions;
pub mod hashing;
pub mod parts;
pub mod repair;
pub mod rounds;

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use self::background::Written;
use crate::action::Action;
use crate::decide::{Decision, Policy};
use crate::facts::{Facts, milliseconds};
use crate::finding::Blocker;
use crate::journal::{Event, Evidence, OperationState, Verb};
use crate::request::succeeded;
use crate::seen::Seen;
use crate::side::{Kind, Side};
use crate::world::World;

/// What a finished verification came to; the journal keeps it, so it holds no key and no value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// The operation that asked for it; an id of its own for a round in the background.
    pub run: Uuid,
    /// Nobody asked for it: a round in the background.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub background: bool,
    /// The side that took the writes meanwhile: what it holds counts as right.
    pub active: Side,
    /// When its first range was compared: what it says is as old as that. Before a restart, if it was resumed.
    pub began_at: Timestamp,
    /// When its last range was compared.
    pub finished_at: Timestamp,
    /// Tables compared.
    pub tables: u64,
    /// Rows compared, as the active side has them.
    pub rows: u64,
    /// Rows that are missing, extra or different on the passive side.
    pub mismatched_rows: u64,
    /// More rows differ than were located: a table that is damaged beyond use is not read to its end.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub at_least: bool,
    /// Rows that changed between any two looks, so that neither was shown.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unsettled_rows: u64,
    /// Rows that differed, and were copied again from the active side.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub mended_rows: u64,
    /// What else differs: sequences, large objects, definitions.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub other_differences: u64,
    /// What differs, most rows first, at most [`NAMED`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub differing: Vec<Differing>,
}

/// A table, or another object, that is not the same on both sides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Differing {
    /// Its name, for people.
    pub name: String,
    /// How many of its rows differ; zero for what has no rows.
    pub rows: u64,
}

/// One thing that is not the same on both sides, for whoever looks into it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// What it is.
    pub kind: DifferenceKind,
    /// The table, or the object itself.
    pub object: String,
    /// A row's key, column by column; None for what has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Vec<KeyPart>>,
    /// What is wrong with it on the passive side.
    pub wrong: rounds::Wrong,
    /// How many rows it stands for: rows without a key that hold the same are told once.
    pub rows: u64,
    /// The columns that differ.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<String>,
    /// What they hold; only where a person asked for it, and never kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<ValuePair>,
    /// It was copied again from the active side, and is the same now.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub mended: bool,
    /// More in words: for what is no row, and why a row could not be copied again.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// The kinds of thing that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DifferenceKind {
    /// A row of a table.
    Row,
    /// A sequence.
    Sequence,
    /// A large object.
    LargeObject,
    /// An index does not find rows that are there.
    Index,
    /// A definition: column, index, constraint, trigger, default.
    Definition,
    /// Owner or privileges: told, and no reason against a cutover.
    Privilege,
    /// A definition that is there on both sides, and that two major versions print in different
    /// words. Whether it means the same is for people: told, and no reason against a cutover.
    Wording,
}

impl DifferenceKind {
    /// The word in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            DifferenceKind::Row => "row",
            DifferenceKind::Sequence => "sequence",
            DifferenceKind::LargeObject => "large_object",
            DifferenceKind::Index => "index",
            DifferenceKind::Definition => "definition",
            DifferenceKind::Privilege => "privilege",
            DifferenceKind::Wording => "wording",
        }
    }

    /// Whether it stands against a cutover.
    #[must_use]
    pub fn counts(self) -> bool {
        match self {
            DifferenceKind::Row
            | DifferenceKind::Sequence
            | DifferenceKind::LargeObject
            | DifferenceKind::Index
            | DifferenceKind::Definition => true,
            DifferenceKind::Privilege | DifferenceKind::Wording => false,
        }
    }
}

/// One column of a row's key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyPart {
    /// The column.
    pub column: String,
    /// Its value as text.
    pub value: String,
}

/// What both sides hold in one column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValuePair {
    /// The column.
    pub column: String,
    /// On the active side; None is NULL.
    pub active: Option<String>,
    /// On the passive side; None is NULL.
    pub passive: Option<String>,
}

/// How many differing tables the journal and the verdict name.
pub const NAMED: usize = 10;

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Verified {
    /// Whether nothing differs. A row that changed at every look, present on both sides, keeps nothing
    /// away: each of its changes replaces the whole row on the passive side (TOASTed values that stay the
    /// same excepted), and a busy counter would otherwise block every cutover.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.mismatched_rows == 0 && self.other_differences == 0
    }

    /// What it came to in one word: `mismatched` or `clean`.
    #[must_use]
    pub fn state(&self) -> &'static str {
        if self.is_clean() { "clean" } else { "mismatched" }
    }

    /// What differs, for people; None when nothing does.
    #[must_use]
    pub fn problem(&self) -> Option<Blocker> {
        if self.is_clean() {
            return None;
        }
        let named: Vec<String> = self
            .differing
            .iter()
            .map(|differing| match differing.rows {
                0 => differing.name.clone(),
                rows => format!("{} ({rows})", differing.name),
            })
            .collect();
        let at_least = if self.at_least { "at least " } else { "" };
        let others = match self.other_differences {
            0 => String::new(),
            others => format!(" and {others} other things"),
        };
        Some(Blocker::new(
            "verification_mismatched",
            format!(
                "the two sides do not hold the same: {at_least}{} rows{others} differ: {}",
                self.mismatched_rows,
                named.join(", ")
            ),
            "`pgferry verify` compares again and prints each row by its key; \
             `pgferry verify --repair` prints what it would copy again from the active side",
        ))
    }
}

/// The verification at hand, as a look sees it.
#[derive(Clone, Debug, PartialEq)]
pub enum VerifyView {
    /// It runs, and this is how far it is.
    Running {
        /// The operation that asked for it.
        run: Uuid,
        /// In words.
        what: String,
    },
    /// It came to an end.
    Ended {
        /// The operation that asked for it.
        run: Uuid,
        /// What it came to.
        verified: Verified,
    },
    /// It could not be carried through.
    Failed {
        /// The operation that asked for it.
        run: Uuid,
        /// Why.
        blocker: Blocker,
        /// When a step may begin it again.
        retry_at: Timestamp,
    },
}

/// Step `verify_rows`: the first verification, so that `ready` is proven.
pub(crate) fn verify_rows(facts: &Facts, world: &World, policy: &Policy) -> Decision {
    let start = facts.running(Verb::Start).map(|start| start.id);
    let (true, Some(run)) = (policy.require_verification, start) else {
        return Decision::Done(Evidence::Nothing);
    };
    let begin = || Decision::Act(Action::Verify { run, active: facts.active });
    match &world.verification {
        Seen::Unknown(reason) => Decision::Wait(format!("the verification was not seen: {reason}")),
        Seen::Absent => begin(),
        Seen::Present(VerifyView::Running { run: at, what }) if *at == run => {
            Decision::Wait(what.clone())
        }
        // What differs does not keep a migration from being ready: there it can be mended. The
        // gate keeps it from a cutover.
        Seen::Present(VerifyView::Ended { run: at, verified }) if *at == run => {
            Decision::Done(Evidence::Verified { verified: Box::new(verified.clone()) })
        }
        Seen::Present(VerifyView::Failed { run: at, blocker, retry_at })
            if *at == run && world.now < *retry_at =>
        {
            Decision::Blocked(vec![blocker.clone()])
        }
        Seen::Present(
            VerifyView::Running { .. } | VerifyView::Ended { .. } | VerifyView::Failed { .. },
        ) => begin(),
    }
}

/// What a verification that was asked for at rest needs next.
#[derive(Clone, Debug, PartialEq)]
pub enum AtRest {
    /// Nothing was asked for, or it runs.
    Nothing,
    /// It is to begin, or to go on after a restart.
    Begin(Action),
    /// It has ended; these events say how.
    End(Vec<Event>),
}

/// Judges the verification beside a migration at rest.
#[must_use]
pub fn at_rest(facts: &Facts, world: &World) -> AtRest {
    let Some(run) = facts.running(Verb::Verify).map(|operation| operation.id) else {
        return AtRest::Nothing;
    };
    let begin = || AtRest::Begin(Action::Verify { run, active: facts.active });
    match &world.verification {
        Seen::Unknown(_) => AtRest::Nothing,
        Seen::Absent => begin(),
        Seen::Present(VerifyView::Running { run: at, .. }) if *at == run => AtRest::Nothing,
        Seen::Present(VerifyView::Ended { run: at, verified }) if *at == run => {
            let ended = match verified.problem() {
                None => succeeded(run),
                Some(problem) => failed(run, problem),
            };
            AtRest::End(vec![Event::Verified { verified: verified.clone() }, ended])
        }
        Seen::Present(VerifyView::Failed { run: at, blocker, .. }) if *at == run => {
            AtRest::End(vec![failed(run, blocker.clone())])
        }
        Seen::Present(
            VerifyView::Running { .. } | VerifyView::Ended { .. } | VerifyView::Failed { .. },
        ) => begin(),
    }
}

fn failed(operation: Uuid, problem: Blocker) -> Event {
    Event::OperationEnded {
        operation,
        state: OperationState::Failed,
        problem: Some(problem),
        blockers: Vec::new(),
    }
}

/// The event that ends a running verification, because something else was asked for that goes
/// before it: it would load both servers while writes are held.
#[must_use]
pub fn given_up_for(facts: &Facts, verb: Verb) -> Option<Event> {
    let running = facts.running(Verb::Verify)?;
    Some(Event::OperationEnded {
        operation: running.id,
        state: OperationState::Aborted,
        problem: Some(Blocker::new(
            "verification_given_up",
            format!("the verification was given up for the {}", verb.as_str()),
            "run `pgferry verify` again afterwards",
        )),
        blockers: Vec::new(),
    })
}

/// What stands against a cutover in the last verification.
///
/// Only against a cutover: a rollback is the emergency exit, and whoever needs it must not be asked
/// to read both databases first.
#[must_use]
pub fn gate(facts: &Facts, world: &World, policy: &Policy) -> Option<Blocker> {
    if !policy.require_verification || facts.kind() != Kind::Cutover {
        return None;
    }
    let Some(verified) = background::latest(facts, world) else {
        return Some(Blocker::new(
            "not_verified",
            "the rows of the two sides have not been compared",
            "run `pgferry verify`; or set cutover.require_verification = false",
        ));
    };
    if let Some(problem) = verified.problem() {
        return Some(problem);
    }
    let age = age(verified, world.now);
    (age > policy.verification_max_age).then(|| {
        let failed = world.background.present().and_then(|view| view.failed.as_ref());
        let failed = failed.map_or(String::new(), |(blocker, _)| {
            format!("; the last round in the background failed: {}", blocker.message)
        });
        Blocker::new(
            "verification_too_old",
            format!(
                "the last verification began {} ago, more than verification_max_age; {}{failed}",
                in_words(age),
                since(facts, verified, world)
            ),
            "run `pgferry verify`; where that takes longer than can be waited for, raise \
             cutover.verification_max_age and restart the daemon, which keeps everything",
        )
    })
}

/// How old the last verification is, what it came to and what changed since, in one sentence; None
/// before the first.
#[must_use]
pub fn in_one_sentence(facts: &Facts, world: &World) -> Option<String> {
    let verified = background::latest(facts, world)?;
    let age = in_words(age(verified, world.now));
    let since = since(facts, verified, world);
    Some(format!("the last verification began {age} ago and was {}; {since}", verified.state()))
}

/// How old what a verification says is: since its first range was compared.
#[must_use]
pub fn age(verified: &Verified, now: Timestamp) -> Duration {
    Duration::from_secs_f64(milliseconds(verified.began_at, now) / 1000.0)
}

/// What has changed since a verification, in words. What was written is said of the side that is
/// active now, and only where that was measured from the verification's beginning.
#[must_use]
pub fn since(facts: &Facts, verified: &Verified, world: &World) -> String {
    let crossed = facts.operations.iter().filter(|operation| {
        matches!(operation.verb, Verb::Cutover | Verb::Rollback)
            && operation.state == OperationState::Succeeded
            && operation.finished_at.is_some_and(|at| at > verified.began_at)
    });
    let moved = match crossed.count() {
        0 => format!("the {} has been active since", verified.active),
        1 => return "the active side has moved once since".to_owned(),
        times => return format!("the active side has moved {times} times since"),
    };
    match world.written.present().filter(|written| written.run == verified.run) {
        None => moved,
        Some(Written { rows: 0, .. }) => {
            format!("{moved}, and by its statistics nothing was written")
        }
        Some(Written { rows, tables, .. }) => {
            let (rows, tables) = (number_of(*rows, "row"), number_of(*tables, "table"));
            format!("{moved}, and by its statistics {rows} in {tables} were written")
        }
    }
}

fn number_of(number: u64, word: &str) -> String {
    if number == 1 { format!("1 {word}") } else { format!("{number} {word}s") }
}

/// "45 s", "12 min", "3 h", "2 d".
#[must_use]
pub fn in_words(age: Duration) -> String {
    match age.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds @ 7200..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
pub(crate) mod tests;
