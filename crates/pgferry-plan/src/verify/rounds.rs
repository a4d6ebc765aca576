//! When a row that differs is damage, and when it is only under way.
//!
//! The two servers share no snapshot. So a row is read on the active side, a marker is written
//! there and awaited, and the row is read on the passive side; then the same twice more. A commit is in
//! the log, and may be on the passive side, before the active side shows it: its backend may wait for a
//! processor, or for a synchronous standby. So each look of the active side from the third on comes
//! after every transaction has ended that may have been logged before; where that is not to be had,
//! the looks before it are forgotten. Two rules follow, and both are proofs, whatever the application
//! does meanwhile:
//!
//! - The active side holds the *same version* in three looks: whatever the passive side showed after
//!   the first of them is shown by the third. Nothing touched the row in between. What the passive side
//!   showed must have been that version.
//! - The passive side holds the *same version* in three looks: the active side's third look is not
//!   older than it, and by the passive side's third everything that the active side showed had arrived.
//!   It must be what the active side showed.
//!
//! A row that changes between the looks of both sides is in flight. It is never proven to be damage. One
//! that is on the active side in every look, and never on the passive side, is taken to be missing all
//! the same: a row that comes and goes is not seen so by as many rounds as there are.

/// One row as one side shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowState {
    /// The hash of its columns; how many there are, for rows that have no key.
    pub content: i64,
    /// What wrote it (`xmin`): another version has another one.
    pub version: String,
}

/// One row in one round: the active side, then, behind a marker, the passive side.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// On the active side.
    pub active: Option<RowState>,
    /// On the passive side.
    pub passive: Option<RowState>,
}

/// What is wrong with a row of the passive side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wrong {
    /// It is not there.
    Missing,
    /// It is there, and not on the active side.
    Extra,
    /// It holds something else.
    Different,
}

impl Wrong {
    /// The word in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Wrong::Missing => "missing",
            Wrong::Extra => "extra",
            Wrong::Different => "different",
        }
    }
}

/// What rounds say of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Both sides hold the same.
    Equal,
    /// It is damage.
    Proven(Wrong),
    /// Another round may tell.
    Open,
}

/// Rounds after which a row is left alone.
pub const MOST_ROUNDS: usize = 16;

/// What was seen of a row so far: its last rounds, and whether it was missing in all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watched {
    rounds: usize,
    missing: usize,
    /// The last two, the older one first.
    before: [Option<Round>; 2],
}

impl Watched {
    /// Takes in one more round, and judges the row by it and the two before.
    pub fn look(&mut self, now: Round) -> Standing {
        let standing = match &self.before {
            [Some(first), Some(second)] => judge(first, second, &now),
            [_, _] if same_content(&now) => Standing::Equal,
            [_, _] => Standing::Open,
        };
        self.rounds += 1;
        self.missing += usize::from(now.active.is_some() && now.passive.is_none());
        self.before.rotate_left(1);
        self.before[1] = Some(now);
        standing
    }

    /// Forgets the looks before: the next one of the active side may be older than what they saw.
    pub fn begin_again(&mut self) {
        self.before = [None, None];
    }

    /// What a row is that is still open after [`MOST_ROUNDS`].
    #[must_use]
    pub fn at_the_end(&self) -> Standing {
        if self.rounds >= MOST_ROUNDS && self.missing == self.rounds {
            Standing::Proven(Wrong::Missing)
        } else {
            Standing::Open
        }
    }

    /// The last round.
    #[must_use]
    pub fn last(&self) -> Option<&Round> {
        self.before[1].as_ref()
    }
}

/// Judges a row by its last round and the two before.
#[must_use]
pub fn judge(first: &Round, second: &Round, now: &Round) -> Standing {
    if same_content(now) {
        return Standing::Equal;
    }
    let stood = |side: fn(&Round) -> &Option<RowState>| {
        same_version(side(first), side(second)) && same_version(side(second), side(now))
    };
    let passive_stood = stood(|round| &round.passive);
    // What the passive side showed first is what the two later looks prove.
    let active_stood = stood(|round| &round.active) && !same_content(first);
    if !passive_stood && !active_stood {
        return Standing::Open;
    }
    match (&now.active, &now.passive) {
        (Some(_), Some(_)) => Standing::Proven(Wrong::Different),
        (Some(_), None) => Standing::Proven(Wrong::Missing),
        (None, Some(_)) => Standing::Proven(Wrong::Extra),
        (None, None) => Standing::Equal,
    }
}

fn same_content(round: &Round) -> bool {
    match (&round.active, &round.passive) {
        (Some(active), Some(passive)) => active.content == passive.content,
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    }
}

/// Two absences prove nothing: the row may have come and gone between them.
fn same_version(before: &Option<RowState>, now: &Option<RowState>) -> bool {
    matches!((before, now), (Some(before), Some(now)) if before == now)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row(content: i64, version: &str) -> Option<RowState> {
        Some(RowState { content, version: version.to_owned() })
    }

    fn check(rounds: [Round; 3], wanted: Standing) {
        let [first, second, now] = &rounds;
        assert_eq!(judge(first, second, now), wanted, "{rounds:?}");
    }

    #[test]
    fn a_difference_that_holds_still_is_damage() {
        let thrice = |round: &Round| [round.clone(), round.clone(), round.clone()];
        let value = Round { active: row(1, "a"), passive: row(2, "p") };
        check(thrice(&value), Standing::Proven(Wrong::Different));
        let missing = Round { active: row(1, "a"), passive: None };
        check(thrice(&missing), Standing::Proven(Wrong::Missing));
        let extra = Round { active: None, passive: row(1, "p") };
        check(thrice(&extra), Standing::Proven(Wrong::Extra));
        let mut watched = Watched::default();
        assert_eq!(watched.look(value.clone()), Standing::Open, "one look is none");
        assert_eq!(watched.look(value.clone()), Standing::Open, "nor are two");
        assert_eq!(watched.look(value.clone()), Standing::Proven(Wrong::Different));
        assert_eq!(watched.last(), Some(&value));
    }

    #[test]
    fn updates_that_do_not_arrive_are_damage_although_the_active_side_changes() {
        check(
            [
                Round { active: row(1, "a"), passive: row(9, "p") },
                Round { active: row(2, "b"), passive: row(9, "p") },
                Round { active: row(3, "c"), passive: row(9, "p") },
            ],
            Standing::Proven(Wrong::Different),
        );
    }

    #[test]
    fn what_changes_on_both_sides_is_in_flight() {
        check(
            [
                Round { active: row(1, "a"), passive: row(2, "q") },
                Round { active: row(3, "c"), passive: row(4, "s") },
                Round { active: row(5, "e"), passive: row(6, "u") },
            ],
            Standing::Open,
        );
        // It came and went between the looks.
        check(
            ["a", "b", "c"].map(|version| Round { active: row(1, version), passive: None }),
            Standing::Open,
        );
        // The passive side had it before; the active side has changed it since, and back.
        check(
            [
                Round { active: row(1, "a"), passive: row(1, "p") },
                Round { active: row(1, "a"), passive: row(1, "p") },
                Round { active: row(1, "a"), passive: row(2, "q") },
            ],
            Standing::Open,
        );
        // A commit that the passive side has, and the active side does not show yet.
        check(
            [
                Round { active: row(0, "z"), passive: row(0, "o") },
                Round { active: row(1, "a"), passive: row(2, "p") },
                Round { active: row(1, "a"), passive: row(2, "p") },
            ],
            Standing::Open,
        );
    }

    #[test]
    fn a_hot_row_that_is_never_there_is_missing_and_one_that_comes_and_goes_is_not() {
        let seen = |rounds: usize, there: Option<usize>| {
            let mut watched = Watched::default();
            for at in 0..rounds {
                let passive = row(at as i64 - 1, &format!("p{at}")).filter(|_| there == Some(at));
                let active = row(at as i64, &format!("a{at}"));
                assert_eq!(watched.look(Round { active, passive }), Standing::Open);
            }
            watched.at_the_end()
        };
        assert_eq!(seen(MOST_ROUNDS, None), Standing::Proven(Wrong::Missing));
        assert_eq!(seen(MOST_ROUNDS, Some(7)), Standing::Open, "it was there once");
        assert_eq!(seen(MOST_ROUNDS - 1, None), Standing::Open, "not often enough");
    }

    /// A row's history on the active side: its content, or nothing, each a version of its own.
    fn history() -> impl Strategy<Value = Vec<Option<i64>>> {
        proptest::collection::vec(proptest::option::weighted(0.7, 0..3_i64), 1..12)
    }

    proptest! {
        /// The active side lives through a history. What is logged may not be shown there yet, unless a
        /// marker was committed in between; the passive side shows whatever is logged, and not less
        /// than its marker stands behind. No three such rounds are ever called damage.
        #[test]
        fn a_faithful_replica_is_never_accused(
            history in history(),
            logged in proptest::collection::vec(0..1000_usize, 9),
            shown in proptest::collection::vec(0..1000_usize, 6),
        ) {
            let state = |at: usize, side: &str| {
                history[at].map(|content| RowState { content, version: format!("{side}{at}") })
            };
            // How much is logged at each active look, marker and passive look, in their order.
            let mut logged: Vec<usize> = logged.iter().map(|at| at % history.len()).collect();
            logged.sort_unstable();
            let mut least = 0;
            let rounds: Vec<Round> = (0..3)
                .map(|round| {
                    let (look, marker, passive) =
                        (logged[3 * round], logged[3 * round + 1], logged[3 * round + 2]);
                    let between = |low: usize, high: usize, pick: usize| low + pick % (high - low + 1);
                    let active = state(between(least, look, shown[2 * round]), "a");
                    least = marker;
                    let passive = state(between(marker, passive, shown[2 * round + 1]), "p");
                    Round { active, passive }
                })
                .collect();
            let standing = judge(&rounds[0], &rounds[1], &rounds[2]);
            prop_assert!(!matches!(standing, Standing::Proven(_)), "{rounds:?}");
        }
    }
}
