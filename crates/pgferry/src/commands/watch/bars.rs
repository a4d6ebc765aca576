//! What a person at a terminal sees: a line for the state, a bar for the copy and one for each table
//! at work, redrawn in place; what has changed stays above.
//!
//! Thin: what the bars say is made in `render`.

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use pgferry_api::{CopyReport, Migration};

use crate::render::{self, Bar};

const STATE: &str = "{spinner} {wide_msg}";
const COPY: &str = "  {bar:40} {percent:>3} %  {wide_msg}";
const TABLE: &str = "  {bar:40.dim} {percent:>3} %  {wide_msg}";
const MORE: &str = "  {wide_msg:.dim}";

/// The length of each bar.
const HUNDREDTHS: u64 = 100;

/// Everything that is drawn.
pub(super) struct Bars {
    all: MultiProgress,
    state: ProgressBar,
    copy: Option<ProgressBar>,
    tables: Vec<ProgressBar>,
    more: Option<ProgressBar>,
    last: Option<Migration>,
}

impl Bars {
    pub(super) fn new() -> Self {
        let all = MultiProgress::new();
        let state = all.add(ProgressBar::new_spinner());
        state.set_style(style(STATE));
        Self { all, state, copy: None, tables: Vec::new(), more: None, last: None }
    }

    /// Draws the look; the report is there while the copy runs.
    pub(super) fn show(&mut self, now: &Migration, report: Option<&CopyReport>) {
        for line in render::changes(self.last.as_ref(), now) {
            // A terminal that is gone takes the bars with it; there is nothing to add.
            let _ = self.all.println(line);
        }
        // The copy has a bar of its own.
        let shown = report.map(|_| Migration { copy: None, ..now.clone() });
        self.state.set_message(render::line(shown.as_ref().unwrap_or(now), None));
        self.state.tick();
        match report {
            Some(report) => self.show_copy(report),
            None => self.clear_copy(),
        }
        self.last = Some(now.clone());
    }

    fn show_copy(&mut self, report: &CopyReport) {
        let copy = self.copy.get_or_insert_with(|| added(&self.all, COPY));
        draw(copy, &render::total_bar(report));
        let (bars, more) = render::table_bars(report);
        while self.tables.len() > bars.len() {
            remove(&self.all, self.tables.pop());
        }
        while self.tables.len() < bars.len() {
            let above = self.tables.last().unwrap_or(copy);
            let bar = self.all.insert_after(above, ProgressBar::new(HUNDREDTHS));
            bar.set_style(style(TABLE));
            self.tables.push(bar);
        }
        for (bar, shown) in self.tables.iter().zip(&bars) {
            draw(bar, shown);
        }
        if more == 0 {
            remove(&self.all, self.more.take());
        } else {
            let line = self.more.get_or_insert_with(|| added(&self.all, MORE));
            line.set_message(format!("and {more} more (pgferry status --tables)"));
        }
    }

    fn clear_copy(&mut self) {
        for bar in self.tables.drain(..) {
            remove(&self.all, Some(bar));
        }
        remove(&self.all, self.more.take());
        remove(&self.all, self.copy.take());
    }

    pub(super) fn close(&mut self) {
        self.clear_copy();
        self.state.finish_and_clear();
    }
}

fn added(all: &MultiProgress, template: &str) -> ProgressBar {
    let bar = all.add(ProgressBar::new(HUNDREDTHS));
    bar.set_style(style(template));
    bar
}

fn draw(bar: &ProgressBar, shown: &Bar) {
    bar.set_position(shown.percent);
    bar.set_message(shown.text.clone());
}

fn remove(all: &MultiProgress, bar: Option<ProgressBar>) {
    if let Some(bar) = bar {
        bar.finish_and_clear();
        all.remove(&bar);
    }
}

/// A template that cannot be parsed costs the looks, not the watching.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::sample;

    #[test]
    fn the_templates_can_be_parsed() {
        for template in [STATE, COPY, TABLE, MORE] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }

    #[test]
    fn bars_come_and_go_with_the_tables_at_work() {
        let mut bars = Bars::new();
        let drawn = |bars: &Bars| (bars.copy.is_some(), bars.tables.len(), bars.more.is_some());
        bars.show(&sample::planned(), None);
        assert_eq!(drawn(&bars), (false, 0, false));
        let mut report = sample::copy_report();
        bars.show(&sample::copying(), Some(&report));
        assert_eq!(drawn(&bars), (true, 2, false));
        assert!(bars.tables[0].message().starts_with("public.orders · 43.0 KiB"));
        assert_eq!(bars.tables[0].position(), 43);
        report.tables = vec![report.tables[1].clone(); 9];
        bars.show(&sample::copying(), Some(&report));
        assert_eq!(drawn(&bars), (true, 8, true));
        report.tables.truncate(1);
        bars.show(&sample::copying(), Some(&report));
        assert_eq!(drawn(&bars), (true, 1, false));
        assert!(bars.tables[0].message().starts_with("public.items · building indexes"));
        bars.show(&sample::ready(), None);
        assert_eq!(drawn(&bars), (false, 0, false));
    }
}
