//! What the events on strays add up to, and which of them may follow what stands.

use jiff::Timestamp;

use super::{Fate, Forgotten, Stray, StrayTable, Writer};
use crate::facts::{Course, Facts};
use crate::side::Side;
use crate::verify::Verified;

/// Strays that are over and kept to be shown; the journal has all.
const KEPT: usize = 20;

/// A transaction was seen, or more of what it writes to.
pub(crate) fn found(facts: &mut Facts, writer: &Writer, at: Timestamp) -> Result<(), &'static str> {
    let operation = match &facts.course {
        Course::AtRest => None,
        Course::Switchover(switchover) => Some(switchover.operation),
        Course::Planned | Course::SetUp(_) | Course::End { .. } | Course::Ended(_) => {
            return Err("no side is watched for strays");
        }
    };
    match facts.strays.iter_mut().find(|stray| stray.is(writer.side, writer.xid)) {
        Some(Stray { fate: Some(_), .. }) => return Err("that transaction has ended"),
        Some(known) => {
            for table in &writer.tables {
                if !known.writer.tables.contains(table) {
                    known.writer.tables.push(table.clone());
                }
            }
        }
        None => facts.strays.push(Stray {
            writer: writer.clone(),
            found_at: at,
            ended_at: None,
            operation,
            fate: None,
            left: None,
            answered: false,
        }),
    }
    Ok(())
}

/// Its server says how it ended.
pub(crate) fn ended(
    facts: &mut Facts,
    side: Side,
    xid: u64,
    fate: Fate,
    at: Timestamp,
) -> Result<(), &'static str> {
    let stray = of(facts, side, xid)?;
    stray.ended_at = Some(at);
    if stray.fate.replace(fate).is_some() {
        return Err("that transaction has ended already");
    }
    forget_the_oldest(facts);
    Ok(())
}

/// What it left was compared.
pub(crate) fn compared(
    facts: &mut Facts,
    side: Side,
    xid: u64,
    tables: &[StrayTable],
) -> Result<(), &'static str> {
    let stray = of(facts, side, xid)?;
    if !stray.is_to_be_compared() {
        return Err("it has left nothing to compare, or that was compared");
    }
    stray.left = Some(tables.to_vec());
    forget_the_oldest(facts);
    Ok(())
}

/// A person has compared everything.
pub(crate) fn answered(facts: &mut Facts, verified: &Verified) {
    let before = |stray: &&mut Stray| {
        stray.ended_at.is_some_and(|at| at <= verified.began_at) && stray.is_over()
    };
    facts.strays.iter_mut().filter(before).for_each(|stray| stray.answered = true);
    if facts.strays_forgotten.last_ended_at <= Some(verified.began_at) {
        facts.strays_forgotten = Forgotten::default();
    }
}

fn of(facts: &mut Facts, side: Side, xid: u64) -> Result<&mut Stray, &'static str> {
    facts.strays.iter_mut().find(|stray| stray.is(side, xid)).ok_or("no such stray was found")
}

fn forget_the_oldest(facts: &mut Facts) {
    let over = facts.strays.iter().filter(|stray| stray.is_over()).count();
    let mut too_many = over.saturating_sub(KEPT);
    // What nobody has to hear of any more goes first.
    let is_past = |stray: &Stray| stray.answered || stray.fate == Some(Fate::RolledBack);
    let forgotten = &mut facts.strays_forgotten;
    for may_go in [is_past, |_: &Stray| true] {
        facts.strays.retain(|stray| {
            let goes = too_many > 0 && stray.is_over() && may_go(stray);
            too_many -= usize::from(goes);
            if goes && !is_past(stray) {
                forgotten.number += 1;
                forgotten.last_ended_at = forgotten.last_ended_at.max(stray.ended_at);
            }
            !goes
        });
    }
}
