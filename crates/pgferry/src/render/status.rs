//! A migration as `pgferry status` shows it.

use std::fmt::Write;

use pgferry_api::{Condition, CopyReport, Direction, LastSwitchover, Migration, Sequences, Stream};

use super::table::{table, text};
use super::{copy, indented, plain, units};

/// Everything about one migration, with the tables at work while the copy runs.
pub(crate) fn status(migration: &Migration, report: Option<&CopyReport>) -> String {
    everything(migration, report, copy::at_work)
}

/// Everything about one migration, with every table of the copy.
pub(crate) fn status_with_tables(migration: &Migration, report: &CopyReport) -> String {
    everything(migration, Some(report), copy::all_tables)
}

fn everything(
    migration: &Migration,
    report: Option<&CopyReport>,
    tables: fn(&CopyReport) -> String,
) -> String {
    let mut out = format!("{}: {}", migration.name, migration.phase);
    if let Some(step) = &migration.step {
        let _ = write!(out, ", {}", plain(step));
    }
    let leader = if migration.leader { "this daemon leads" } else { "this daemon does not lead" };
    let epoch = migration.epoch.map(|epoch| format!(", epoch {epoch}")).unwrap_or_default();
    let _ = writeln!(out, " (the {} is active, {leader}{epoch})", migration.active);
    if let Some(shown) = &migration.condition {
        out.push_str(&condition(shown));
    }
    out.push_str(&streams(migration));
    if let Some(shown) = &migration.copy {
        let _ = writeln!(out, "copy             {}", copy::copy(shown, report));
    }
    if let Some(report) = report {
        out.push_str(&tables(report));
    }
    let _ = writeln!(out, "sequences        {}", sequences(migration.sequences));
    if let Some(shown) = &migration.verification {
        let _ = writeln!(out, "verification     {}", super::verification(shown));
    }
    if let Some(last) = &migration.last_switchover {
        let _ = writeln!(out, "last switchover  {}", last_switchover(last));
    }
    out
}

/// Every migration, one line each.
pub(crate) fn overview(migrations: &[Migration]) -> String {
    let header =
        ["migration", "phase", "step", "active", "condition", "forward lag", "reverse lag"];
    let mut shown = table(&header, &[5, 6]);
    for migration in migrations {
        shown.add_row(vec![
            migration.name.to_string(),
            migration.phase.to_string(),
            plain(migration.step.as_deref().unwrap_or_default()),
            migration.active.to_string(),
            migration.condition.as_ref().map(short_condition).unwrap_or_default(),
            units::seconds(migration.forward.lag_seconds),
            units::seconds(migration.reverse.lag_seconds),
        ]);
    }
    text(&shown)
}

fn short_condition(condition: &Condition) -> String {
    plain(&format!("{}: {}", condition.kind, condition.code))
}

fn condition(condition: &Condition) -> String {
    let mut out = format!(
        "{} since {:.0}: {} [{}]\n",
        condition.kind,
        condition.since,
        plain(&condition.message),
        plain(&condition.code)
    );
    out.push_str(&indented("  ", &condition.hint));
    out
}

fn streams(migration: &Migration) -> String {
    let header = ["direction", "status", "lag", "bytes behind", "WAL kept"];
    let mut shown = table(&header, &[2, 3, 4]);
    let mut add = |direction: Direction, stream: Stream| {
        shown.add_row(vec![
            format!("{direction} ({} → {})", direction.from(), direction.to()),
            stream.status.to_string(),
            units::seconds(stream.lag_seconds),
            units::bytes(stream.lag_bytes),
            units::bytes(stream.retained_wal_bytes),
        ]);
    };
    add(Direction::Forward, migration.forward);
    add(Direction::Reverse, migration.reverse);
    text(&shown)
}

fn sequences(sequences: Sequences) -> String {
    format!(
        "{}, {} behind on the passive side",
        units::count(sequences.total),
        units::count(sequences.behind)
    )
}

fn last_switchover(last: &LastSwitchover) -> String {
    let stall = match last.write_stall_ms {
        Some(ms) => format!("writes held for {}", units::milliseconds(ms)),
        None => "writes were not held".to_owned(),
    };
    format!("{} {} at {:.0}, {stall}", last.kind, last.outcome, last.started_at)
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn shows_all_there_is_to_know() {
        let expected = "\
orders: ready (the source is active, this daemon leads, epoch 3)
blocked since 2026-11-21T06:00:00Z: public.new is in no set [tables_missing]
  pgferry resume
  takes it in
──────────────────────────────────────────────────────────────────────────────
 direction                       status      lag     bytes behind   WAL kept
══════════════════════════════════════════════════════════════════════════════
 forward (source → destination)  streaming   12 ms        4.0 KiB   16.0 MiB
 reverse (destination → source)  unknown         ?              ?          ?
──────────────────────────────────────────────────────────────────────────────
copy             11 of 11 tables, 15,607 rows, 880.0 KiB of 880.0 KiB in 1.2 s
sequences        11, 0 behind on the passive side
last switchover  rollback succeeded at 2026-11-21T06:00:00Z, writes held for 31.2 ms
";
        let shown = status(&sample::ready(), None);
        let squeezed = |text: &str| {
            text.lines()
                .filter(|line| !line.starts_with(['─', '═', '╌']))
                .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
                .collect::<Vec<_>>()
        };
        assert_eq!(squeezed(&shown), squeezed(expected), "\n{shown}");
    }

    #[test]
    fn a_migration_that_has_not_begun_is_short() {
        let shown = status(&sample::planned(), None);
        assert!(shown.starts_with("orders: planned (the source is active, this daemon leads)\n"));
        for absent in ["copy", "verification", "last switchover", "since"] {
            assert!(!shown.contains(absent), "{shown}");
        }
    }

    #[test]
    fn the_copy_has_its_tables_below_it() {
        let shown = status(&sample::copying(), Some(&sample::copy_report()));
        let line = shown.lines().position(|line| line.starts_with("copy ")).unwrap();
        let below: Vec<_> = shown.lines().skip(line).collect();
        assert!(below[0].ends_with("1.4 s left, 7 of 40 indexes"), "{shown}");
        assert!(shown.contains("public.orders") && !shown.contains("public.events"), "{shown}");
        assert!(below.last().unwrap().starts_with("sequences"), "{shown}");
        let all = status_with_tables(&sample::copying(), &sample::copy_report());
        assert!(all.contains("public.events"), "{all}");
        let none = status_with_tables(&sample::planned(), &CopyReport::default());
        assert!(none.contains("no table is being copied now"), "{none}");
    }

    #[test]
    fn the_overview_has_a_line_for_each() {
        let shown = overview(&[sample::ready(), sample::copying()]);
        let lines: Vec<_> = shown.lines().filter(|line| line.contains("orders")).collect();
        assert_eq!(lines.len(), 2, "{shown}");
        assert!(lines[0].contains("blocked: tables_missing"), "{shown}");
    }
}
