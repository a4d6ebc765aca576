//! What stands in the way: findings, verdicts, problems, each with its remedy.
//!
//! Remedies are never put into a table: they are statements to be copied, and a cell would wrap them.

use std::fmt::Write;

use pgferry_api::{Blocker, Finding, MigrationName, Problem, Severity, Verdict};

use super::table::{table, text};
use super::{indented, plain};

/// The result of a preflight: a table of all findings, and below it each one's remedy.
pub(crate) fn findings(name: &MigrationName, findings: &[Finding]) -> String {
    if findings.is_empty() {
        return format!("{name}: nothing stands in the way\n");
    }
    let mut ordered: Vec<_> = findings.iter().collect();
    ordered.sort_by_key(|finding| finding.severity);
    let mut shown = table(&["#", "severity", "code", "subject"], &[0]);
    let mut remedies = String::new();
    for (number, finding) in (1..).zip(ordered) {
        let severity = severity(finding.severity).to_owned();
        let row = vec![number.to_string(), severity, plain(&finding.code), plain(&finding.subject)];
        shown.add_row(row);
        let _ = writeln!(remedies, "\n{number}. {}", plain(&finding.message));
        remedies.push_str(&indented("   ", &finding.hint));
    }
    let blocking = findings.iter().filter(|finding| finding.severity == Severity::Block).count();
    let warning = findings.len() - blocking;
    format!("{name}: {blocking} in the way, {warning} to know\n{}{remedies}", text(&shown))
}

/// The result of a dry run.
pub(crate) fn verdict(name: &MigrationName, verdict: &Verdict) -> String {
    if let (true, Some(loss)) = (verdict.go, &verdict.may_be_lost) {
        return format!("{name}: {} can be forced: {}\n", verdict.kind, plain(loss));
    }
    if verdict.go {
        let stall = verdict.predicted_stall_ms.map_or(String::new(), |ms| {
            format!("; by what was measured just now, writes would be held for {ms:.0} ms or more")
        });
        let verified = verdict
            .verification
            .as_ref()
            .map_or(String::new(), |verified| format!("{}\n", plain(verified)));
        return format!(
            "{name}: {} can begin: nothing stands in the way{stall}\n{verified}",
            verdict.kind
        );
    }
    let heading = format!("{name}: {} cannot begin", verdict.kind);
    format!("{heading}\n{}", blockers(&verdict.blockers))
}

/// A refusal or a failure, with everything that is in the way.
pub(crate) fn problem(problem: &Problem) -> String {
    let mut out = format!("{}: {}", plain(&problem.title), plain(&problem.detail));
    if !problem.code.is_empty() {
        let _ = write!(out, " [{}]", plain(&problem.code));
    }
    out.push('\n');
    out.push_str(&indented("  ", &problem.hint));
    out.push_str(&blockers(&problem.blockers));
    out
}

/// An error that is not the daemon's.
pub(crate) fn error(message: &str, hint: &str) -> String {
    format!("error: {}\n{}", plain(message), indented("  ", hint))
}

fn blockers(blockers: &[Blocker]) -> String {
    let one = |blocker: &Blocker| {
        let (message, code) = (plain(&blocker.message), plain(&blocker.code));
        format!("- {message} [{code}]\n{}", indented("  ", &blocker.hint))
    };
    blockers.iter().map(one).collect()
}

fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Block => "block",
        Severity::Warn => "warn",
    }
}

#[cfg(test)]
mod tests {
    use pgferry_api::Kind;

    use super::*;

    fn name() -> MigrationName {
        "orders".parse().unwrap()
    }

    #[test]
    fn findings_that_block_come_first_and_remedies_are_not_wrapped() {
        let long = format!("GRANT {} TO pgferry;\nSELECT 1;", "x".repeat(200));
        let shown = findings(
            &name(),
            &[
                Finding::warn("large_objects", "source", "there are large objects", "move them"),
                Finding::block("role_missing", "destination: app", "role app is missing", &long),
            ],
        );
        assert!(shown.starts_with("orders: 1 in the way, 1 to know\n"), "{shown}");
        let row = |word: &str| shown.lines().position(|line| line.contains(word)).unwrap();
        assert!(row("role_missing") < row("large_objects"), "{shown}");
        let remedies = format!(
            "\n1. role app is missing\n   GRANT {} TO pgferry;\n   SELECT 1;\n\n\
             2. there are large objects\n   move them\n",
            "x".repeat(200)
        );
        assert!(shown.ends_with(&remedies), "{shown}");
    }

    #[test]
    fn no_finding_is_a_sentence() {
        assert_eq!(findings(&name(), &[]), "orders: nothing stands in the way\n");
    }

    #[test]
    fn a_verdict_names_all_blockers() {
        let blockers =
            vec![Blocker::new("lag_too_high", "2 s behind", "wait"), Blocker::new("b", "m", "")];
        assert_eq!(
            verdict(&name(), &Verdict::of(Kind::Cutover, blockers)),
            "orders: cutover cannot begin\n- 2 s behind [lag_too_high]\n  wait\n- m [b]\n"
        );
        assert_eq!(
            verdict(&name(), &Verdict::of(Kind::Rollback, vec![])),
            "orders: rollback can begin: nothing stands in the way\n"
        );
    }

    #[test]
    fn a_problem_has_title_detail_hint_and_blockers() {
        let shown = Problem::new(409, "not_ready", "the copy runs", "wait")
            .with_blockers(vec![Blocker::new("phase", "phase is copying", "pgferry watch")]);
        assert_eq!(
            problem(&shown),
            "Conflict: the copy runs [not_ready]\n  wait\n- phase is copying [phase]\n  pgferry watch\n"
        );
    }
}
