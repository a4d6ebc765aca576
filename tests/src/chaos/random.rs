//! Random schedules, each the same again from the same seed.

use std::time::Duration;

use pgferry_plan::Kind;

use super::case::Case;

/// A small generator of numbers (SplitMix64): not for secrets, and the same on every machine.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Dice that fall the same way for the same seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// One of these.
    pub fn one_of<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        let index = self.roll() % items.len().max(1) as u64;
        &items[usize::try_from(index).unwrap_or(0)]
    }
}

/// A point, a fault there, how long it lasts, and a second point that kills whoever comes by while
/// the first is overcome.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// Point and fault; its kind is whichever way the next switchover goes.
    pub case: Case,
    /// How long the fault lasts.
    pub lasting: Duration,
    /// Where the daemon dies once more after the fault struck, if it comes there.
    pub dies_again: Option<&'static str>,
}

/// Points on the way on and on the way back at which a daemon may die once more.
const AGAIN: [&str; 8] = [
    "before_undo:fence_active",
    "after_undo:fence_active",
    "before_undo:drain",
    "after_undo:drain",
    "seen_undone:set_sequences",
    "before_effect:open_other",
    "after_effect:open_other",
    "before_append:yield",
];

impl Schedule {
    /// The next schedule, of these cases.
    pub fn roll(dice: &mut Dice, cases: &[Case], kind: Kind) -> Self {
        let case = Case { kind, ..*dice.one_of(cases) };
        // From a blink to more than the lease and the stall budget.
        let lasting = Duration::from_millis(50 + dice.roll() % 9_000);
        let dies_again = dice.roll().is_multiple_of(2).then(|| *dice.one_of(&AGAIN));
        Self { case, lasting, dies_again }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_rolls_the_same_schedules() {
        let matrix = Case::matrix();
        let roll = |seed| {
            let mut dice = Dice::new(seed);
            (0..20)
                .map(|_| format!("{:?}", Schedule::roll(&mut dice, &matrix, Kind::Cutover)))
                .collect::<Vec<_>>()
        };
        assert_eq!(roll(7), roll(7));
        assert_ne!(roll(7), roll(8));
    }
}
