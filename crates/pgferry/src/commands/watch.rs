//! `watch`: looking on while a migration moves.
//!
//! Three forms of the same looks: bars for a person at a terminal, lines where there is none, JSON
//! documents for a script. Looking on changes nothing.

use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use pgferry_api::{Migration, Phase};

use super::session::Session;
use super::{Exit, Failure};
use crate::args::Named;
use crate::render;

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
    let mut migration = session.client.migration(&name)?;
    loop {
        view.show(session, &migration)?;
        if let Some(exit) = end(migration.phase, until) {
            view.close();
            if !session.console.is_json() {
                session.console.data(&migration, render::line)?;
            }
            return Ok(exit);
        }
        session.pause();
        migration = session.patiently(|client| client.migration(&name))?;
    }
}

/// Whether looking on ends at this phase, and how.
fn end(phase: Phase, until: Option<Phase>) -> Option<Exit> {
    match until {
        Some(wanted) if wanted == phase => Some(Exit::Done),
        Some(_) if phase.is_over() => Some(Exit::Failed),
        Some(_) => None,
        None => match phase {
            Phase::Ready | Phase::CutOver | Phase::Finished | Phase::Abandoned => Some(Exit::Done),
            Phase::Planned
            | Phase::Preparing
            | Phase::Copying
            | Phase::Following
            | Phase::CuttingOver
            | Phase::RollingBack
            | Phase::Finishing
            | Phase::Abandoning => None,
        },
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

    fn show(&mut self, session: &mut Session<'_>, now: &Migration) -> Result<(), Failure> {
        match self {
            View::Bars(bars) => bars.show(now),
            View::Lines { last } => {
                let due = last.as_ref().is_none_or(|(before, at)| {
                    worth_a_line(before, now) || (at.elapsed() >= LINE_INTERVAL && before != now)
                });
                if due {
                    session.console.talk(&render::line(now));
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

    fn close(&self) {
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

/// A line for the state and a bar for the copy, redrawn in place; what has changed stays above.
struct Bars {
    all: MultiProgress,
    state: ProgressBar,
    copy: Option<ProgressBar>,
    last: Option<Migration>,
}

impl Bars {
    fn new() -> Self {
        let all = MultiProgress::new();
        let state = all.add(ProgressBar::new_spinner());
        state.set_style(style("{spinner} {wide_msg}", ProgressStyle::default_spinner));
        Self { all, state, copy: None, last: None }
    }

    fn show(&mut self, now: &Migration) {
        for line in render::changes(self.last.as_ref(), now) {
            // A terminal that is gone takes the bars with it; there is nothing to add.
            let _ = self.all.println(line);
        }
        self.state.set_message(render::line(now));
        self.state.tick();
        self.show_copy(now);
        self.last = Some(now.clone());
    }

    fn show_copy(&mut self, now: &Migration) {
        if now.phase != Phase::Copying {
            if let Some(bar) = self.copy.take() {
                bar.finish_and_clear();
            }
            return;
        }
        let Some(copy) = now.copy else { return };
        let bar = self.copy.get_or_insert_with(|| {
            let bar = self.all.add(ProgressBar::new(0));
            bar.set_style(style("  {bar:60} {percent:>3} %", ProgressStyle::default_bar));
            bar
        });
        let sent = copy.bytes.unwrap_or_default();
        // The expected size is an estimate: a bar must not end before its copy.
        bar.set_length(copy.bytes_expected.unwrap_or_default().max(sent));
        bar.set_position(sent);
    }

    fn close(&self) {
        if let Some(bar) = &self.copy {
            bar.finish_and_clear();
        }
        self.state.finish_and_clear();
    }
}

/// A template that cannot be parsed costs the looks, not the watching.
fn style(template: &str, otherwise: fn() -> ProgressStyle) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| otherwise())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::sample;

    #[test]
    fn ends_where_a_migration_rests() {
        assert_eq!(end(Phase::Copying, None), None);
        assert_eq!(end(Phase::Ready, None), Some(Exit::Done));
        assert_eq!(end(Phase::Ready, Some(Phase::CutOver)), None);
        assert_eq!(end(Phase::Copying, Some(Phase::Copying)), Some(Exit::Done));
        assert_eq!(end(Phase::Abandoned, Some(Phase::Ready)), Some(Exit::Failed));
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
