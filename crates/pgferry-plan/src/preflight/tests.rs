//! Every finding, as one change to a healthy pair: the change in, the findings out.

mod extensions;
mod pair;
mod roles;
mod servers;
mod surroundings;
mod tables;

use pair::{
    alter, application_role, destination, extension, healthy, object, policy, source, table,
    transaction,
};

use super::*;
use crate::name::TableName;
use crate::roles::WriteAccess;
use crate::scope::{Key, RowSecurity};

/// The change leads to exactly this finding, whose remedy holds this text.
fn finds(change: impl FnOnce(&mut PreflightFacts), severity: Severity, code: &str, remedy: &str) {
    let findings = found_after(change);
    let [finding] = findings.as_slice() else {
        panic!("expected {code} alone, found {findings:#?}");
    };
    assert_eq!((finding.severity, finding.code.as_str()), (severity, code), "{finding:#?}");
    assert!(finding.hint.contains(remedy), "{finding:#?}");
}

fn blocks(change: impl FnOnce(&mut PreflightFacts), code: &str, remedy: &str) {
    finds(change, Severity::Block, code, remedy);
}

fn warns(change: impl FnOnce(&mut PreflightFacts), code: &str, remedy: &str) {
    finds(change, Severity::Warn, code, remedy);
}

fn found_after(change: impl FnOnce(&mut PreflightFacts)) -> Vec<Finding> {
    let mut facts = healthy();
    change(&mut facts);
    check(&facts)
}

fn codes(findings: &[Finding]) -> Vec<&str> {
    findings.iter().map(|finding| finding.code.as_str()).collect()
}

#[test]
fn a_healthy_pair_has_no_findings() {
    assert_eq!(check(&healthy()), []);
}

#[test]
fn an_unreachable_side_is_one_finding_and_hides_nothing_of_the_other() {
    blocks(|f| f.source = Seen::Unknown("no route".to_owned()), "source_unreachable", "dsn");
    blocks(|f| f.destination = Seen::Absent, "destination_unreachable", "dsn");
    let findings = found_after(|f| {
        f.destination = Seen::Unknown("no route".to_owned());
        alter(&mut source(f).settings, |s| s.insert("wal_level".into(), "replica".into()));
    });
    assert_eq!(codes(&findings), ["destination_unreachable", "wal_level_not_logical"]);
    assert!(findings[0].message.contains("no route"));
}

#[test]
fn what_was_not_seen_blocks_and_is_not_taken_for_absent() {
    let findings = found_after(|f| *source(f) = NodeFacts::default());
    assert_eq!(findings.len(), 21, "{findings:#?}");
    assert!(findings.iter().all(|finding| finding.code == "not_seen"));
    blocks(
        |f| destination(f).jobs = Seen::Unknown("permission denied for schema cron".to_owned()),
        "not_seen",
        "run preflight again",
    );
    blocks(|f| source(f).triggers = Seen::Absent, "not_seen", "run preflight again");
    blocks(
        |f| alter(&mut source(f).settings, |s| s.remove("shared_preload_libraries")),
        "not_seen",
        "GRANT pg_monitor TO \"pgferry\";",
    );
}

#[test]
fn blocks_come_before_warnings_and_all_come_at_once() {
    let findings = found_after(|f| {
        alter(&mut source(f).uncarried, |u| u.event_triggers = vec!["guard".into()]);
        alter(&mut source(f).uncarried, |u| u.large_objects = 1);
        alter(&mut destination(f).settings, |s| s.insert("wal_level".into(), "minimal".into()));
    });
    assert_eq!(codes(&findings), ["wal_level_not_logical", "large_objects", "event_triggers"]);
    assert!(findings.iter().all(|finding| !finding.hint.contains(" SUPERUSER")));
    assert_eq!(policy().progress, Progress::default());
}
