//! `watch --until`: whether the phase has come, still may, or cannot come any more.
//!
//! Pure. The phases before `ready` and those of a running switchover are stretches of the way: one
//! that has been left was passed. `ready` and `cut_over` are places to be: passed on the way further,
//! gone once the clean-up has begun.

use pgferry_api::{Kind, LastSwitchover, Migration, Outcome, Phase};

/// How a phase that is waited for stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// The migration is in it.
    There,
    /// It was in it, and has gone on.
    Passed,
    /// It may still come.
    Ahead,
    /// It cannot come any more.
    Gone,
}

/// How `wanted` stands, for somebody who has looked on since `first`.
pub(super) fn way(wanted: Phase, first: &Migration, now: &Migration) -> Way {
    match by_phase(wanted, now.phase) {
        // A whole switchover may be over between two looks.
        Way::Ahead if passed_by_switchover(wanted, first, now) => Way::Passed,
        way => way,
    }
}

fn by_phase(wanted: Phase, now: Phase) -> Way {
    if wanted == now {
        return Way::There;
    }
    // Phases are ordered as they come. The two of abandon stand last: they may come from any phase
    // in which the source is active, and nobody knows how far it had come.
    let finish = (Phase::Finishing..=Phase::Finished).contains(&now);
    let abandon = now >= Phase::Abandoning;
    let (passed, gone) = match wanted {
        Phase::Planned => (true, false),
        Phase::Preparing | Phase::Copying | Phase::Following | Phase::CuttingOver => {
            (now > wanted && !abandon, abandon)
        }
        Phase::Ready => ((Phase::CuttingOver..=Phase::CutOver).contains(&now), finish || abandon),
        Phase::CutOver => (now == Phase::RollingBack, finish || abandon),
        Phase::RollingBack => (false, finish || abandon),
        Phase::Finishing => (now == Phase::Finished, abandon),
        Phase::Finished => (false, abandon),
        Phase::Abandoning => (now == Phase::Abandoned, finish),
        Phase::Abandoned => (false, finish),
    };
    match (passed, gone) {
        (true, _) => Way::Passed,
        (false, true) => Way::Gone,
        (false, false) => Way::Ahead,
    }
}

fn passed_by_switchover(wanted: Phase, first: &Migration, now: &Migration) -> bool {
    let id = |migration: &Migration| migration.last_switchover.as_ref().map(|last| last.id);
    let Some(last) = now.last_switchover.as_ref().filter(|last| Some(last.id) != id(first)) else {
        return false;
    };
    let LastSwitchover { kind, outcome, .. } = last;
    match wanted {
        Phase::CuttingOver => *kind == Kind::Cutover,
        Phase::RollingBack => *kind == Kind::Rollback,
        Phase::Ready => (*kind, *outcome) == (Kind::Rollback, Outcome::Succeeded),
        // From there the rollback began, whatever came of it.
        Phase::CutOver => *kind == Kind::Rollback || *outcome == Outcome::Succeeded,
        Phase::Planned
        | Phase::Preparing
        | Phase::Copying
        | Phase::Following
        | Phase::Finishing
        | Phase::Finished
        | Phase::Abandoning
        | Phase::Abandoned => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::sample;

    fn at(phase: Phase) -> Migration {
        Migration { phase, last_switchover: None, ..sample::ready() }
    }

    fn after(phase: Phase, kind: Kind, outcome: Outcome) -> Migration {
        let last = sample::ready().last_switchover.unwrap();
        let last_switchover = Some(LastSwitchover { kind, outcome, ..last });
        Migration { phase, last_switchover, ..sample::ready() }
    }

    #[track_caller]
    fn check(wanted: Phase, now: Phase, expected: Way) {
        assert_eq!(way(wanted, &at(now), &at(now)), expected, "{wanted} at {now}");
    }

    #[test]
    fn each_phase_is_there_when_it_is() {
        for &phase in Phase::ALL {
            check(phase, phase, Way::There);
        }
    }

    #[test]
    fn a_stretch_of_the_way_that_was_left_is_passed() {
        for now in [Phase::Ready, Phase::CuttingOver, Phase::CutOver, Phase::Finished] {
            check(Phase::Following, now, Way::Passed);
        }
        check(Phase::Preparing, Phase::Copying, Way::Passed);
        check(Phase::Planned, Phase::Abandoned, Way::Passed);
        check(Phase::Following, Phase::Copying, Way::Ahead);
        check(Phase::Following, Phase::Abandoning, Way::Gone);
        check(Phase::Finishing, Phase::Finished, Way::Passed);
        check(Phase::Abandoning, Phase::Abandoned, Way::Passed);
    }

    #[test]
    fn ready_and_cut_over_are_passed_going_on_and_gone_at_the_end() {
        check(Phase::Ready, Phase::Following, Way::Ahead);
        check(Phase::Ready, Phase::RollingBack, Way::Ahead);
        check(Phase::Ready, Phase::CuttingOver, Way::Passed);
        check(Phase::Ready, Phase::CutOver, Way::Passed);
        check(Phase::CutOver, Phase::Ready, Way::Ahead);
        check(Phase::CutOver, Phase::RollingBack, Way::Passed);
        for now in [Phase::Finishing, Phase::Finished, Phase::Abandoning, Phase::Abandoned] {
            check(Phase::Ready, now, Way::Gone);
            check(Phase::CutOver, now, Way::Gone);
        }
    }

    #[test]
    fn there_is_one_end() {
        check(Phase::Finished, Phase::Ready, Way::Ahead);
        check(Phase::Finished, Phase::Finishing, Way::Ahead);
        check(Phase::Finished, Phase::Abandoning, Way::Gone);
        check(Phase::Abandoned, Phase::Finishing, Way::Gone);
        check(Phase::Abandoned, Phase::Copying, Way::Ahead);
        check(Phase::Abandoned, Phase::Abandoning, Way::Ahead);
        check(Phase::RollingBack, Phase::Finishing, Way::Gone);
    }

    #[test]
    fn over_a_migration_that_has_ended_nobody_waits_for_ever() {
        for over in [Phase::Finished, Phase::Abandoned] {
            for &wanted in Phase::ALL {
                assert_ne!(way(wanted, &at(over), &at(over)), Way::Ahead, "{wanted} at {over}");
            }
        }
    }

    #[test]
    fn a_switchover_between_two_looks_was_passed() {
        let back = after(Phase::Ready, Kind::Rollback, Outcome::Succeeded);
        let first = at(Phase::CutOver);
        assert_eq!(way(Phase::RollingBack, &first, &back), Way::Passed);
        assert_eq!(way(Phase::RollingBack, &back, &back), Way::Ahead, "it was over before");
        assert_eq!(way(Phase::CutOver, &at(Phase::Ready), &back), Way::Passed);
        let aborted = after(Phase::Ready, Kind::Cutover, Outcome::Aborted);
        assert_eq!(way(Phase::CuttingOver, &at(Phase::Ready), &aborted), Way::Passed);
        assert_eq!(way(Phase::CutOver, &at(Phase::Ready), &aborted), Way::Ahead);
    }
}
