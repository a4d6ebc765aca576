//! How far the passive side's sequences have to be set.
//!
//! Never back, and past the last value handed out in the direction of the increment: a session
//! that slipped past the fence may still draw a few. Of a sequence that cycles, one that has wrapped is
//! ahead of one that is about to.

use std::collections::HashMap;

use crate::finding::Blocker;
use crate::name::SequenceName;
use crate::world::SequenceView;

/// The sequences of the passive side that are behind, with the value each is to be set to (as
/// `setval(…, value, true)`: the next value is the one after it).
#[must_use]
pub fn behind(
    active: &[SequenceView],
    passive: &[SequenceView],
    headroom: i64,
) -> Vec<(SequenceName, i64)> {
    let passive: HashMap<&SequenceName, &SequenceView> =
        passive.iter().map(|sequence| (&sequence.name, sequence)).collect();
    active
        .iter()
        .filter_map(|sequence| {
            let other = passive.get(&sequence.name)?;
            let (last, target) = (sequence.last?, target(sequence, headroom)?);
            is_behind(other, last, target, farthest_ahead(other, headroom))
                .then(|| (sequence.name.clone(), target))
        })
        .collect()
}

/// The values that put every sequence past what it has handed out here and past what rows hold, by the
/// headroom: for a side whose other side can no longer be asked.
#[must_use]
pub fn past_columns(
    here: &[SequenceView],
    columns: &[(SequenceName, i64)],
    headroom: i64,
) -> Vec<(SequenceName, i64)> {
    let mut farthest: Vec<SequenceView> = here.to_vec();
    let index: HashMap<SequenceName, usize> =
        here.iter().enumerate().map(|(index, view)| (view.name.clone(), index)).collect();
    for (name, value) in columns {
        let Some(view) = index.get(name).and_then(|index| farthest.get_mut(*index)) else {
            continue;
        };
        // A row may hold a value that the sequence could never have handed out.
        if (view.min..=view.max).contains(value)
            && is_behind(view, *value, *value, around(view) / 2)
        {
            view.last = Some(*value);
        }
    }
    behind(&farthest, here, headroom)
}

/// The value to set; None when the sequence was never called, so there is nothing to stay past.
///
/// Where headroom would pass the sequence's bound it is left out: an exhausted sequence is an
/// outage, and the drained last value alone is exact already.
fn target(sequence: &SequenceView, headroom: i64) -> Option<i64> {
    let last = sequence.last?;
    let ahead = sequence
        .increment
        .checked_mul(headroom)
        .and_then(|distance| last.checked_add(distance))
        .filter(|value| (sequence.min..=sequence.max).contains(value));
    Some(ahead.unwrap_or(last))
}

/// Whether the passive side has not reached what it is to be set to, given the value that was handed out
/// last. On a ring everything is ahead of everything: it counts as ahead up to `farthest` only.
fn is_behind(passive: &SequenceView, handed_out: i64, target: i64, farthest: i128) -> bool {
    let Some(last) = passive.last else { return true };
    let sign = i128::from(passive.increment.signum());
    let ahead_of = |value: i64| (i128::from(last) - i128::from(value)) * sign;
    if !passive.cycle {
        return ahead_of(target) < 0;
    }
    let on_ring = |distance: i128| distance.checked_rem_euclid(around(passive)).unwrap_or(distance);
    let lead = on_ring(ahead_of(handed_out));
    let wanted = on_ring((i128::from(target) - i128::from(handed_out)) * sign);
    lead < wanted || lead > wanted.max(farthest)
}

/// How far ahead of the active side a sequence of the passive side can be that is no round behind: it
/// was warmed by twice the headroom. Where that is much of the way round nothing but the exact value is
/// believed.
fn farthest_ahead(sequence: &SequenceView, headroom: i64) -> i128 {
    let warmed = 2 * i128::from(headroom) * i128::from(sequence.increment).abs();
    if warmed < around(sequence) / 2 { warmed } else { 0 }
}

/// How many values lie between two of the same on a ring.
fn around(sequence: &SequenceView) -> i128 {
    i128::from(sequence.max) - i128::from(sequence.min) + 1
}

/// How many of the passive side's sequences have not reached what the active side has handed out.
#[must_use]
pub fn count_behind(active: &[SequenceView], passive: &[SequenceView]) -> u64 {
    behind(active, passive, 0).len() as u64
}

/// The sequences of the active side that are not on the passive one.
#[must_use]
pub fn absent(active: &[SequenceView], passive: &[SequenceView]) -> Vec<SequenceName> {
    let there: std::collections::HashSet<&SequenceName> =
        passive.iter().map(|sequence| &sequence.name).collect();
    let absent = active.iter().filter(|sequence| !there.contains(&sequence.name));
    absent.map(|sequence| sequence.name.clone()).collect()
}

/// A blocker when a sequence of the active side is not on the passive one.
#[must_use]
pub fn missing(active: &[SequenceView], passive: &[SequenceView]) -> Option<Blocker> {
    let missing = absent(active, passive);
    (!missing.is_empty()).then(|| {
        Blocker::new(
            "sequences_missing",
            format!("{} sequences are not on the passive side: {}", missing.len(), first(&missing)),
            "create each with the definition that pg_dump prints for it on the active side",
        )
    })
}

/// The sequences that are defined otherwise on the two sides.
#[must_use]
pub fn unlike(active: &[SequenceView], passive: &[SequenceView]) -> Vec<SequenceName> {
    let definition = |s: &SequenceView| (s.increment, s.min, s.max, s.cycle);
    let there: HashMap<&SequenceName, _> =
        passive.iter().map(|sequence| (&sequence.name, definition(sequence))).collect();
    let otherwise =
        |view: &&SequenceView| there.get(&view.name).is_some_and(|d| *d != definition(view));
    active.iter().filter(otherwise).map(|sequence| sequence.name.clone()).collect()
}

/// A blocker when a sequence is defined otherwise on the two sides: a value of the one may be out of
/// the other's bounds, and would be refused within the stall.
#[must_use]
pub fn differing(active: &[SequenceView], passive: &[SequenceView]) -> Option<Blocker> {
    let differing = unlike(active, passive);
    (!differing.is_empty()).then(|| {
        Blocker::new(
            "sequences_differ",
            format!("{} sequences are defined otherwise on the passive side: {}", differing.len(), first(&differing)),
            "ALTER SEQUENCE each on the passive side to the active side's INCREMENT, MINVALUE, MAXVALUE and CYCLE",
        )
    })
}

fn first(names: &[SequenceName]) -> String {
    let mut text = names.iter().take(10).map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if names.len() > 10 {
        text.push_str(", …");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(last: Option<i64>, increment: i64) -> SequenceView {
        SequenceView {
            name: SequenceName::new("public", "s"),
            last,
            increment,
            min: -32_768,
            max: 32_767,
            cycle: false,
        }
    }

    fn check(active: SequenceView, passive: SequenceView, headroom: i64, expected: Option<i64>) {
        let values = behind(&[active], &[passive], headroom);
        assert_eq!(values.first().map(|(_, value)| *value), expected);
    }

    #[test]
    fn goes_past_the_last_value_by_the_headroom() {
        check(sequence(Some(100), 1), sequence(Some(7), 1), 1000, Some(1100));
        check(sequence(Some(100), 5), sequence(None, 5), 10, Some(150));
    }

    #[test]
    fn alone_goes_past_what_it_handed_out_and_past_what_rows_hold() {
        let name = SequenceName::new("public", "s");
        let alone = |last, rows: &[i64]| {
            let rows: Vec<_> = rows.iter().map(|value| (name.clone(), *value)).collect();
            past_columns(&[sequence(last, 1)], &rows, 10).first().map(|(_, value)| *value)
        };
        assert_eq!(alone(Some(100), &[]), Some(110));
        assert_eq!(
            alone(Some(100), &[250, 90]),
            Some(260),
            "rows arrived that it never handed out"
        );
        assert_eq!(alone(None, &[7]), Some(17));
        assert_eq!(alone(None, &[]), None, "nobody has used it");
        assert_eq!(alone(Some(100), &[1_000_000]), Some(110), "out of its bounds: not its value");
        let down = past_columns(&[sequence(Some(-5), -1)], &[(name, -40)], 10);
        assert_eq!(down.first().map(|(_, value)| *value), Some(-50));
    }

    #[test]
    fn goes_down_where_the_increment_does() {
        check(sequence(Some(-100), -1), sequence(Some(-7), -1), 1000, Some(-1100));
        check(sequence(Some(-100), -1), sequence(Some(-2000), -1), 1000, None);
    }

    #[test]
    fn never_goes_back() {
        check(sequence(Some(100), 1), sequence(Some(5000), 1), 1000, None);
    }

    #[test]
    fn follows_one_that_has_wrapped() {
        let cycling = |last, increment| SequenceView { cycle: true, ..sequence(last, increment) };
        check(cycling(Some(-32_765), 1), cycling(Some(32_760), 1), 1000, Some(-31_765));
        check(cycling(Some(32_765), -1), cycling(Some(-32_760), -1), 0, Some(32_765));
        // Ahead by the headroom, also where that is behind the bound already.
        check(cycling(Some(100), 1), cycling(Some(1100), 1), 1000, None);
        check(cycling(Some(32_760), 1), cycling(Some(-32_000), 1), 1000, None);
        check(cycling(Some(32_760), 1), cycling(Some(32_700), 1), 1000, Some(32_760));
        check(cycling(Some(7), 1), cycling(None, 1), 0, Some(7));
    }

    #[test]
    fn on_a_small_ring_nothing_handed_out_counts_as_ahead() {
        let ring = |last, increment, max| SequenceView {
            cycle: true,
            min: 1,
            max,
            ..sequence(Some(last), increment)
        };
        // The headroom is more than half of the way round.
        check(ring(100, 1, 1500), ring(90, 1, 1500), 1000, Some(1100));
        check(ring(10_000, 50, 99_999), ring(9950, 50, 99_999), 1000, Some(60_000));
        // Left by a switchover long ago: the values up to the active one were handed out since.
        check(ring(1110, 1, 1500), ring(100, 1, 1500), 1000, Some(1110));
        check(ring(1100, 1, 1500), ring(1100, 1, 1500), 1000, None);
    }

    #[test]
    fn leaves_a_sequence_alone_that_was_never_called() {
        check(sequence(None, 1), sequence(None, 1), 1000, None);
        check(sequence(None, 1), sequence(Some(9), 1), 1000, None);
    }

    #[test]
    fn spares_the_headroom_where_it_would_exhaust_the_sequence() {
        check(sequence(Some(32_700), 1), sequence(Some(1), 1), 1000, Some(32_700));
        check(sequence(Some(32_767), 1), sequence(Some(1), 1), 1000, Some(32_767));
        check(sequence(Some(32_767), 1), sequence(Some(32_767), 1), 1000, None);
    }
}
