//! Strays in words: who wrote where, what became of it, and what a person does about it.

use uuid::Uuid;

use super::{ComparisonView, Fate, Stray, StrayTable, Writer};
use crate::facts::Facts;
use crate::finding::Blocker;
use crate::quote::{counted, first_ten, table};
use crate::world::World;

const CODE: &str = "wrote_on_closed_side";
/// Tables that are told of one by one, in the message and in the hint.
const SHOWN: usize = 5;

/// What a person should know at rest of writes that stand on a closed side; None when nobody wrote there,
/// nothing of it is left, or everything was compared since by a person's order.
#[must_use]
pub(crate) fn ailing(facts: &Facts, world: &World) -> Option<Blocker> {
    let told = |stray: &&Stray| !stray.answered && stray.fate != Some(Fate::RolledBack);
    let mut told = facts.strays.iter().rev().filter(told);
    let forgotten = facts.strays_forgotten.number;
    let Some(last) = told.next() else {
        return (forgotten > 0).then(|| {
            Blocker::new(
                CODE,
                format!(
                    "{} wrote on a closed side (`pgferry events`)",
                    counted(forgotten, "transaction")
                ),
                "`pgferry verify` compares everything and ends this notice",
            )
        });
    };
    let mut blocker = tell(last, world.stray_comparison.present());
    let more = told.count() + forgotten;
    if more > 0 {
        blocker.message.push_str(&format!("; and {more} more before it (`pgferry events`)"));
    }
    Some(blocker)
}

/// What a switchover has to say of the strays that it found.
#[must_use]
pub fn of_operation(facts: &Facts, operation: Uuid) -> Vec<Blocker> {
    let own = facts.strays.iter().filter(|stray| stray.operation == Some(operation));
    own.map(|stray| tell(stray, None)).collect()
}

fn tell(stray: &Stray, comparison: Option<&ComparisonView>) -> Blocker {
    let Writer { side, role, pid, tables, .. } = &stray.writer;
    let stop = format!(
        "what sets default_transaction_read_only off there, or begins READ WRITE by itself, as role {role}"
    );
    let names = if tables.is_empty() {
        "in no table of the application that was seen".to_owned()
    } else {
        format!("in {}", first_ten(tables))
    };
    let who = format!("role {role} (pid {pid}) wrote on the closed {side}");
    let what = match stray.fate {
        None => {
            let message = format!(
                "{who}, {names}; its session is being ended, and how its transaction ends is not known yet"
            );
            return Blocker::new(CODE, message, format!("find and stop {stop}"));
        }
        Some(Fate::RolledBack) => {
            let message = format!(
                "{who}, {names}; its session was ended and its transaction rolled back: nothing of it is left"
            );
            return Blocker::new("writer_ended", message, format!("find and stop {stop}"));
        }
        Some(Fate::Committed) => "committed",
        Some(Fate::Forgotten) => "ended so long ago that the server does not know how",
    };
    let left = match &stray.left {
        Some(left) => {
            // An update may hold locks on a thousand partitions, and have written to one.
            let says_much = |one: &&StrayTable| one.rows > Some(0) || one.differing > Some(0);
            let (first, rest): (Vec<_>, Vec<_>) = left.iter().partition(says_much);
            let words = first.into_iter().chain(rest).take(SHOWN);
            let mut words: Vec<String> =
                words.map(|one| in_words(one, stray, comparison)).collect();
            if left.len() > SHOWN {
                words.push(format!("and {} more tables", left.len() - SHOWN));
            }
            words.join("; ")
        }
        None if tables.is_empty() => names,
        None => {
            let failed = match comparison {
                Some(ComparisonView::Failed { blocker, .. }) => {
                    format!(", which failed and is tried again: {}", blocker.message)
                }
                Some(ComparisonView::Running | ComparisonView::Ended(_)) | None => String::new(),
            };
            format!("{names}; at rest its rows are counted and both sides compared{failed}")
        }
    };
    Blocker::new(
        CODE,
        format!("{who}, and {what}: {left}"),
        format!(
            "{}what it wrote reaches the {} too, and may have replaced what was newer there: look at those \
             rows, find and stop {stop}, then `pgferry verify` compares everything and ends this notice",
            statements(stray),
            side.other()
        ),
    )
}

/// The statements that show its rows by their keys, for as long as nobody writes them again.
fn statements(stray: &Stray) -> String {
    // As a row holds it.
    let xid = stray.writer.xid & u64::from(u32::MAX);
    let select = |name| format!("SELECT * FROM ONLY {} WHERE xmin = '{xid}';", table(name));
    let all: Vec<String> = stray.writer.tables.iter().take(SHOWN).map(select).collect();
    if all.is_empty() {
        return String::new();
    }
    format!("on the {}: {} — ", stray.writer.side, all.join(" "))
}

/// "bank.ledger: 2 rows still as it wrote them (id=7; id=8), both sides hold the same"
fn in_words(left: &StrayTable, stray: &Stray, comparison: Option<&ComparisonView>) -> String {
    let keys = match comparison {
        Some(ComparisonView::Ended(compared)) => compared
            .iter()
            .filter(|one| stray.is(one.side, one.xid))
            .flat_map(|one| &one.keys)
            .find(|(table, keys)| *table == left.table && !keys.is_empty())
            .map(|(_, keys)| format!(" ({})", keys.join("; "))),
        Some(ComparisonView::Running | ComparisonView::Failed { .. }) | None => None,
    };
    let rows = |rows: u64| counted(usize::try_from(rows).unwrap_or(usize::MAX), "row");
    let (Some(written), Some(differing)) = (left.rows, left.differing) else {
        return format!(
            "{}: not looked at (on one side only, unlogged, or out of scope)",
            left.table
        );
    };
    let both = if differing == 0 {
        "both sides hold the same".to_owned()
    } else {
        let least = if left.at_least { "at least " } else { "" };
        format!("{least}{} of the table not the same on both sides", rows(differing))
    };
    let (written, keys) = (rows(written), keys.unwrap_or_default());
    format!("{}: {written} still as it wrote them{keys}, {both}", left.table)
}
