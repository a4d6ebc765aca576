//! When a row that differs is damage, and when it is only under way.
//!
//! The two servers share no snapshot. So a row is read on the active side, a marker is written
//! there and awaited, and the row is read on the passive side; then the same once more. Two rules
//! follow from the order of commits, and both are proofs, whatever the application does meanwhile:
//!
//! - The active side holds the *same version* before and after the passive side's look: nothing
//!   touched the row in between, and everything before had arrived. What the passive side showed
//!   must have been that version.
//! - The passive side holds the *same version* in two looks: it is older than the active side's look
//!   in between, and by the second everything before that look had arrived. It must be what the active
//!   side showed.
//!
//! A row that changes at each look of both sides is in flight. It is never damage, and never proven.

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

/// What two rounds say of a row.
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

/// Judges a row by its last round and the one before.
#[must_use]
pub fn judge(before: Option<&Round>, now: &Round) -> Standing {
    if same_content(now) {
        return Standing::Equal;
    }
    let Some(before) = before else { return Standing::Open };
    let passive_stood = same_version(&before.passive, &now.passive);
    let active_stood = same_version(&before.active, &now.active) && !same_content(before);
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

    fn check(before: Round, now: Round, wanted: Standing) {
        assert_eq!(judge(Some(&before), &now), wanted, "{before:?} {now:?}");
    }

    #[test]
    fn a_difference_that_holds_still_is_damage() {
        let value = Round { active: row(1, "a"), passive: row(2, "p") };
        check(value.clone(), value.clone(), Standing::Proven(Wrong::Different));
        let missing = Round { active: row(1, "a"), passive: None };
        check(missing.clone(), missing, Standing::Proven(Wrong::Missing));
        let extra = Round { active: None, passive: row(1, "p") };
        check(extra.clone(), extra, Standing::Proven(Wrong::Extra));
        assert_eq!(judge(None, &value), Standing::Open, "one look is none");
    }

    #[test]
    fn updates_that_do_not_arrive_are_damage_although_the_active_side_changes() {
        check(
            Round { active: row(1, "a"), passive: row(9, "p") },
            Round { active: row(2, "b"), passive: row(9, "p") },
            Standing::Proven(Wrong::Different),
        );
    }

    #[test]
    fn what_changes_on_both_sides_is_in_flight() {
        check(
            Round { active: row(1, "a"), passive: row(2, "q") },
            Round { active: row(3, "c"), passive: row(4, "s") },
            Standing::Open,
        );
        // It came and went between the looks.
        check(
            Round { active: row(1, "a"), passive: None },
            Round { active: row(1, "b"), passive: None },
            Standing::Open,
        );
        // The passive side had it before; the active side has changed it since, and back.
        check(
            Round { active: row(1, "a"), passive: row(1, "p") },
            Round { active: row(1, "a"), passive: row(2, "q") },
            Standing::Open,
        );
    }

    /// A row's history on the active side: its content, or nothing, each a version of its own.
    fn history() -> impl Strategy<Value = Vec<Option<i64>>> {
        proptest::collection::vec(proptest::option::weighted(0.7, 0..3_i64), 1..12)
    }

    proptest! {
        /// The active side lives through a history; the passive side shows, behind a marker, any
        /// moment not older than the active side's look. No two such rounds are ever called damage.
        #[test]
        fn a_faithful_replica_is_never_accused(
            history in history(),
            moments in proptest::collection::vec(0..1000_usize, 4),
        ) {
            let shown = |at: usize, side: &str| {
                history[at].map(|content| RowState { content, version: format!("{side}{at}") })
            };
            let mut at = moments.iter().map(|moment| moment % history.len()).collect::<Vec<_>>();
            // active 1 ≤ passive 1, active 1 ≤ active 2 ≤ passive 2, and a look at the active side
            // comes after the passive side's before it: that one cannot have shown the future.
            at.sort_unstable();
            let before = Round { active: shown(at[0], "a"), passive: shown(at[1], "p") };
            let now = Round { active: shown(at[2], "a"), passive: shown(at[3], "p") };
            prop_assert!(!matches!(judge(Some(&before), &now), Standing::Proven(_)));
        }
    }
}
