//! `watch`: looking on while a migration moves.
//!
//! Three forms of the same looks: bars for a person at a terminal, lines where there is none, JSON
//! documents for a script. Looking on changes nothing.

mod bars;
mod until;

use std::time::{Duration, Instant};

use pgferry_api::{CopyReport, Migration, Phase};

use super::session::Session;
use super::{AT_WORK, Exit, Failure};
use crate::args::Named;
use crate::render;
use bars::Bars;
use until::Way;

/// Without a terminal a figure that only moves is worth a line this often.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// `pgferry watch`
pub(super) fn watch(
    session: &mut Session<'_>,
    named: Named,
    until: Option<Phase>,
) -> Result<Exit, Failure> {
    let name = session.resolve(named)?;
    let mut view = View::of(session);
    let mut now = session.client.migration(&name)?;
    let first = now.clone();
    loop {
        let report = match view {
            View::Json { .. } => None,
            View::Bars(_) | View::Lines { .. } => copy_report(session, &now)?,
        };
        view.show(session, &now, report.as_ref())?;
        if let Some((exit, why)) = end(until, &first, &now) {
            view.close();
            if let Some(why) = why {
                session.console.talk(&why);
            }
            if !session.console.is_json() {
                session.console.data(&now, |now| render::line(now, None))?;
            }
            return Ok(exit);
        }
        session.pause();
        now = session.patiently(|client| client.migration(&name))?;
    }
}

/// The copy with the tables at work, while it runs.
fn copy_report(session: &mut Session<'_>, now: &Migration) -> Result<Option<CopyReport>, Failure> {
    if now.phase != Phase::Copying {
        return Ok(None);
    }
    session.patiently(|client| client.copy(&now.name, &AT_WORK)).map(Some)
}

/// Whether looking on ends at this look, how, and what there is to say about it.
fn end(until: Option<Phase>, first: &Migration, now: &Migration) -> Option<(Exit, Option<String>)> {
    let Some(wanted) = until else { return rests(now.phase).then_some((Exit::Done, None)) };
    match until::way(wanted, first, now) {
        Way::There => Some((Exit::Done, None)),
        Way::Passed => Some((Exit::Done, Some(format!("{wanted} was passed already")))),
        Way::Ahead => None,
        Way::Gone => Some((Exit::Failed, Some(format!("{wanted} can no longer come")))),
    }
}

/// Whether a migration stays in this phase until somebody asks for something.
fn rests(phase: Phase) -> bool {
    match phase {
        Phase::Ready | Phase::CutOver | Phase::Finished | Phase::Abandoned => true,
        Phase::Planned
        | Phase::Preparing
        | Phase::Copying
        | Phase::Following
        | Phase::CuttingOver
        | Phase::RollingBack
        | Phase::Finishing
        | Phase::Abandoning => false,
    }
}

enum View {
    Bars(Bars),
    Lines { last: Option<(Migration, Instant)> },
    Json { last: Option<Migration> },
}

impl View {
    fn of(session: &Session<'_>) -> Self {
        if session.console.is_json() {
            View::Json { last: None }
        } else if session.console.interactive {
            View::Bars(Bars::new())
        } else {
            View::Lines { last: None }
        }
    }

    fn show(
        &mut self,
        session: &mut Session<'_>,
        now: &Migration,
        report: Option<&CopyReport>,
    ) -> Result<(), Failure> {
        match self {
            View::Bars(bars) => bars.show(now, report),
            View::Lines { last } => {
                let due = last.as_ref().is_none_or(|(before, at)| {
                    worth_a_line(before, now) || (at.elapsed() >= LINE_INTERVAL && before != now)
                });
                if due {
                    session.console.talk(&render::line(now, report));
                    *last = Some((now.clone(), Instant::now()));
                }
            }
            View::Json { last } => {
                if last.as_ref() != Some(now) {
                    session.console.json(now)?;
                    *last = Some(now.clone());
                }
            }
        }
        Ok(())
    }

    fn close(&mut self) {
        match self {
            View::Bars(bars) => bars.close(),
            View::Lines { .. } | View::Json { .. } => {}
        }
    }
}

/// Whether something has changed that is not a figure on its way.
fn worth_a_line(before: &Migration, now: &Migration) -> bool {
    let landmark = |migration: &Migration| {
        (
            (migration.phase, migration.step.clone(), migration.active, migration.leader),
            migration.condition.as_ref().map(|condition| (condition.kind, condition.code.clone())),
            (migration.forward.status, migration.reverse.status),
            migration.copy.and_then(|copy| render::tenths(&copy)),
        )
    };
    landmark(before) != landmark(now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::sample;

    #[test]
    fn ends_where_a_migration_rests() {
        let exit = |phase, until| {
            let now = Migration { phase, last_switchover: None, ..sample::ready() };
            end(until, &now, &now).map(|(exit, _)| exit)
        };
        assert_eq!(exit(Phase::Copying, None), None);
        assert_eq!(exit(Phase::Ready, None), Some(Exit::Done));
        assert_eq!(exit(Phase::Ready, Some(Phase::CutOver)), None);
        assert_eq!(exit(Phase::Copying, Some(Phase::Copying)), Some(Exit::Done));
        assert_eq!(exit(Phase::Ready, Some(Phase::Following)), Some(Exit::Done));
        assert_eq!(exit(Phase::Abandoned, Some(Phase::Ready)), Some(Exit::Failed));
    }

    #[test]
    fn a_moving_figure_alone_is_worth_no_line() {
        let before = sample::copying();
        let mut now = before.clone();
        now.forward.lag_seconds = Some(4.2);
        assert!(!worth_a_line(&before, &now));
        now.step = Some("build_indexes".to_owned());
        assert!(worth_a_line(&before, &now));
    }
}
