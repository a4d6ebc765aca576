//! Room in the servers' lock tables.
//!
//! A transaction that touches many tables keeps one entry for each in a table of fixed size that
//! all sessions share. It is full only in the middle of the schema copy, after minutes; so it is
//! reckoned up beforehand. A server's share for its own processes comes on top of the documented
//! size, and is left to the application.

use super::{Node, PreflightPolicy, RelationCounts};
use crate::finding::Finding;

/// Catalogs and their indexes that pg_dump or the script of the schema touches, and what pgferry's
/// other sessions hold meanwhile.
const BESIDE: i64 = 300;

/// pg_dump keeps every table locked, and a look at the sequences each of them, one at a time.
pub(super) fn check_source(source: Node<'_>, findings: &mut Vec<Finding>) {
    let Some(there) = source.facts.relations.present() else { return };
    let locks = there.tables.max(there.sequences);
    let what = format!("{} tables and {} sequences", there.tables, there.sequences);
    too_few_locks(source, locks, &what, findings);
}

/// The schema is made in one transaction, which keeps everything that it makes locked. Afterwards
/// it is the sequences that one statement sets.
pub(super) fn check_pair(
    source: Node<'_>,
    destination: Node<'_>,
    policy: &PreflightPolicy,
    findings: &mut Vec<Finding>,
) {
    let Some(there) = source.facts.relations.present() else { return };
    let RelationCounts { tables, toast_tables, sequences, others } = *there;
    if policy.progress.schema {
        return too_few_locks(destination, sequences, &format!("{sequences} sequences"), findings);
    }
    let locks = tables + 2 * toast_tables + sequences + others;
    let what = format!(
        "{tables} tables, {toast_tables} TOAST tables with an index each, {sequences} sequences \
         and {others} views, types and the like"
    );
    too_few_locks(destination, locks, &what, findings);
}

fn too_few_locks(node: Node<'_>, locks: i64, what: &str, findings: &mut Vec<Finding>) {
    let limit = |name| -> Option<i64> { node.facts.settings.present()?.get(name)?.parse().ok() };
    let (Some(each), Some(connections), Some(prepared)) = (
        limit("max_locks_per_transaction"),
        limit("max_connections"),
        limit("max_prepared_transactions"),
    ) else {
        return;
    };
    let holders = connections + prepared;
    let (room, needed) = (each * holders, locks + BESIDE);
    if needed > room && holders > 0 {
        // div_ceil of signed integers is not stable yet.
        let enough = (needed + holders - 1) / holders;
        findings.push(Finding::block(
            "too_few_locks",
            node.about("max_locks_per_transaction"),
            format!(
                "the {} has room for {room} locks, and one transaction of this migration needs \
                 {needed} at once, for {what}",
                node.side
            ),
            format!("set max_locks_per_transaction = {enough}, and restart the server"),
        ));
    }
}
