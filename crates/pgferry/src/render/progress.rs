//! A migration on its way: one line for where it is, one for each thing that has changed.

use std::fmt::Write;

use pgferry_api::{
    Condition, ConditionKind, Copy, CopyReport, Migration, Phase, Stream, StreamStatus,
};

use super::{copy, plain, units};

/// Where it is, in one line. The report is there while the copy runs.
pub(crate) fn line(migration: &Migration, report: Option<&CopyReport>) -> String {
    let mut out = format!("{}: {}", migration.name, migration.phase);
    if let Some(step) = &migration.step {
        let _ = write!(out, ", {}", plain(step));
    }
    if let (Phase::Copying, Some(shown)) = (migration.phase, &migration.copy) {
        let _ = write!(out, " · {}", copy::copy(shown, report));
    }
    for (direction, stream) in [("forward", migration.forward), ("reverse", migration.reverse)] {
        if let Some(shown) = lag(stream) {
            let _ = write!(out, " · {direction} {shown}");
        }
    }
    // One that has ended is told by the status.
    if let Some(shown) = migration.verification.as_ref().filter(|shown| shown.state == "running") {
        let _ = write!(out, " · verification {}", super::verification(shown));
    }
    if let Some(shown) = &migration.condition {
        let message = plain(&shown.message).replace('\n', " ");
        let _ = write!(out, " · {}: {message}", shown.kind);
    }
    out
}

/// What has changed since the look before: the phase, the step, what holds it up.
pub(crate) fn changes(before: Option<&Migration>, now: &Migration) -> Vec<String> {
    let mut lines = Vec::new();
    if before.is_none_or(|before| before.phase != now.phase) {
        lines.push(now.phase.to_string());
    }
    if let Some(step) = &now.step
        && before.is_none_or(|before| before.step != now.step)
    {
        lines.push(format!("  {}", plain(step)));
    }
    if let Some(shown) = &now.condition
        && before.is_none_or(|before| !before.condition.as_ref().is_some_and(|c| same(c, shown)))
    {
        lines.push(format!("  {}: {} [{}]", shown.kind, plain(&shown.message), plain(&shown.code)));
        match shown.kind {
            // What one waits for comes by itself; a remedy would only mislead.
            ConditionKind::Waiting => {}
            ConditionKind::Blocked | ConditionKind::Paused => {
                lines.extend(plain(&shown.hint).lines().map(|line| format!("    {line}")));
            }
        }
    }
    lines
}

/// The tenths of the copy that are done: a landmark, where every byte would be one too many.
pub(crate) fn tenths(copy: &Copy) -> Option<u64> {
    let expected = copy.bytes_expected.filter(|&bytes| bytes > 0)?;
    Some(copy.bytes?.min(expected).saturating_mul(10) / expected)
}

/// Messages of the same condition may carry figures that move.
fn same(one: &Condition, other: &Condition) -> bool {
    (one.kind, &one.code) == (other.kind, &other.code)
}

/// The lag of a stream, or why there is none; nothing for one that is not made yet.
fn lag(stream: Stream) -> Option<String> {
    match stream.status {
        StreamStatus::Absent => None,
        StreamStatus::Streaming => Some(format!("lag {}", units::seconds(stream.lag_seconds))),
        StreamStatus::Stalled | StreamStatus::Down => {
            Some(format!("{}, lag {}", stream.status, units::seconds(stream.lag_seconds)))
        }
        StreamStatus::Starting | StreamStatus::Disabled | StreamStatus::Unknown => {
            Some(stream.status.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn a_line_says_phase_step_copy_and_lag() {
        assert_eq!(
            line(&sample::copying(), None),
            "orders: copying, copy_rows · 3 of 11 tables, 4,000 rows, 200.0 KiB of 880.0 KiB in 400 ms \
             · forward disabled"
        );
        assert_eq!(
            line(&sample::ready(), None),
            "orders: ready · forward lag 12 ms · reverse unknown · blocked: public.new is in no set"
        );
    }

    #[test]
    fn a_verification_is_told_while_it_runs() {
        let ready = sample::ready();
        let running = pgferry_api::Verification {
            state: "running".to_owned(),
            tables_total: Some(20),
            seconds_left: Some(9),
            ..sample::verified()
        };
        let shown = |verification| line(&Migration { verification, ..ready.clone() }, None);
        assert!(!shown(Some(sample::verified())).contains("verification"));
        let shown = shown(Some(running));
        assert!(shown.contains(" · verification running: "), "{shown}");
        assert!(shown.contains("of 20 tables") && shown.contains("9.0 s left"), "{shown}");
    }

    #[test]
    fn the_report_adds_speed_and_time_left() {
        let shown = line(&sample::copying(), Some(&sample::copy_report()));
        assert!(shown.contains("in 500 ms, 500.0 KiB/s, 10,000 rows/s, 1.4 s left"), "{shown}");
    }

    #[test]
    fn only_what_has_changed_is_told() {
        let before = sample::copying();
        assert_eq!(changes(None, &before), ["copying", "  copy_rows"]);
        assert_eq!(changes(Some(&before), &before), [""; 0]);
        let mut now = before.clone();
        now.step = Some("build_indexes".to_owned());
        now.condition = sample::ready().condition;
        assert_eq!(
            changes(Some(&before), &now),
            [
                "  build_indexes",
                "  blocked: public.new is in no set [tables_missing]",
                "    pgferry resume",
                "    takes it in"
            ]
        );
        let mut later = now.clone();
        later.condition.as_mut().unwrap().message = "2 tables are in no set".to_owned();
        assert_eq!(changes(Some(&now), &later), [""; 0]);
    }

    #[test]
    fn the_copy_has_tenths_once_its_size_is_known() {
        let mut copy = sample::copying().copy.unwrap();
        assert_eq!(tenths(&copy), Some(2));
        copy.bytes = Some(u64::MAX);
        assert_eq!(tenths(&copy), Some(10));
        copy.bytes_expected = Some(0);
        assert_eq!(tenths(&copy), None);
    }
}
