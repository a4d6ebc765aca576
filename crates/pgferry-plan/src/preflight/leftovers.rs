//! What an earlier run left, and what is going on in the database that a migration cannot share.
//!
//! What is this migration's own, by its journal, is no leftover.

use super::{Node, PreflightPolicy, TransactionFacts, TransactionKind};
use crate::finding::{Finding, Severity};
use crate::quote::{counted, first_ten, ident, literal};
use crate::side::Side;

/// A transaction this old will hardly end by itself while the snapshot waits for it.
const LONG_SECONDS: f64 = 300.0;

pub(super) fn check_node(node: Node<'_>, policy: &PreflightPolicy, findings: &mut Vec<Finding>) {
    leftovers(node, policy, findings);
    transactions(node, findings);
    scheduled_jobs(node, findings);
    unfenced_sessions(node, findings);
}

fn leftovers(node: Node<'_>, policy: &PreflightPolicy, findings: &mut Vec<Finding>) {
    let mut named = Vec::new();
    let mut statements = Vec::new();
    // In the order in which they can go: what depends on something before it.
    if !policy.progress.nodes {
        let pglogical = node.facts.pglogical_nodes.present();
        for name in pglogical.map_or(&[][..], |known| &known.subscriptions) {
            named.push(format!("subscription {name}"));
            statements
                .push(format!("SELECT pglogical.drop_subscription({}, true);", literal(name)));
        }
        let outside = node.facts.leftovers.present();
        for name in outside.map_or(&[][..], |known| &known.slots) {
            named.push(format!("replication slot {name}"));
            let name = literal(name);
            statements.push(format!(
                "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name \
                 = {name} AND active; SELECT pg_drop_replication_slot({name});"
            ));
        }
        for name in outside.map_or(&[][..], |known| &known.origins) {
            named.push(format!("replication origin {name}"));
            // Dropped with its subscription, it may be gone before this line is reached.
            statements.push(format!(
                "SELECT pg_replication_origin_drop(roname) FROM pg_replication_origin WHERE roname = {};",
                literal(name)
            ));
        }
        for name in pglogical.map_or(&[][..], |known| &known.nodes) {
            named.push(format!("pglogical node {name}"));
            statements.push(format!("SELECT pglogical.drop_node({}, true);", literal(name)));
        }
    }
    if !policy.progress.started
        && node.facts.leftovers.present().is_some_and(|known| known.pgferry_schema)
    {
        named.push("schema pgferry".to_owned());
        statements.push("DROP SCHEMA pgferry CASCADE;".to_owned());
    }
    if !named.is_empty() {
        findings.push(Finding::block(
            "leftovers",
            node.about("leftovers"),
            format!(
                "the {} still has what an earlier migration or another replication left: {}",
                node.side,
                first_ten(&named)
            ),
            format!(
                "when no replication needs them any more, run on the {}: {}",
                node.side,
                statements.join(" ")
            ),
        ));
    }
}

/// A slot is made only after every transaction with an id that was open before has ended, in any
/// database of its server; a prepared one in this database would pass the fence.
fn transactions(node: Node<'_>, findings: &mut Vec<Finding>) {
    let Some(transactions) = node.facts.transactions.present() else { return };
    for transaction in transactions {
        let Some(severity) = hinders(node.side, transaction) else { continue };
        let age = transaction.seconds.round();
        let (code, message, hint) = match &transaction.kind {
            TransactionKind::Open { pid } => (
                "long_transaction",
                format!(
                    "a transaction of role {} in database {} of the {} is open for {age} s, and \
                     the copy cannot begin before it ends",
                    transaction.role, transaction.database, node.side
                ),
                format!("wait for it, or: SELECT pg_terminate_backend({pid});"),
            ),
            TransactionKind::Prepared { gid } => (
                "prepared_transaction",
                format!(
                    "transaction {gid} of role {} is prepared in database {} of the {} since \
                     {age} s",
                    transaction.role, transaction.database, node.side
                ),
                format!(
                    "in database {}: COMMIT PREPARED {2}; or ROLLBACK PREPARED {2}; as {1}",
                    transaction.database,
                    transaction.role,
                    literal(gid)
                ),
            ),
        };
        let subject = node.about("transactions");
        findings.push(match severity {
            Severity::Block => Finding::block(code, subject, message, hint),
            Severity::Warn => Finding::warn(code, subject, message, hint),
        });
    }
}

fn hinders(side: Side, transaction: &TransactionFacts) -> Option<Severity> {
    let long = transaction.seconds >= LONG_SECONDS;
    match (&transaction.kind, side) {
        (TransactionKind::Prepared { .. }, _) if transaction.here || long => Some(Severity::Block),
        (TransactionKind::Prepared { .. }, _) => None,
        (TransactionKind::Open { .. }, Side::Source) if long => Some(Severity::Block),
        (TransactionKind::Open { .. }, _) => Some(Severity::Warn),
    }
}

fn scheduled_jobs(node: Node<'_>, findings: &mut Vec<Finding>) {
    let Some(jobs) = node.facts.jobs.present() else { return };
    if !jobs.jobs.is_empty() {
        let statements: Vec<String> = jobs
            .jobs
            .iter()
            .map(|job| format!("SELECT cron.alter_job({job}, active := false);"))
            .collect();
        findings.push(Finding::block(
            "scheduled_jobs",
            node.about("pg_cron"),
            format!(
                "{} of pg_cron may write while the {} is fenced",
                counted(jobs.jobs.len(), "active job"),
                node.side
            ),
            statements.join(" "),
        ));
    } else if jobs.hidden {
        findings.push(Finding::block(
            "scheduled_jobs",
            node.about("pg_cron"),
            format!(
                "pg_cron is installed on the {}, and row security hides other roles' jobs from \
                 pgferry's role",
                node.side
            ),
            format!(
                "ALTER ROLE {} BYPASSRLS; -- or, when there are no jobs: DROP EXTENSION pg_cron;",
                ident(node.role())
            ),
        ));
    }
}

/// A warning, because a person's or a monitor's session looks the same as an application's.
fn unfenced_sessions(node: Node<'_>, findings: &mut Vec<Finding>) {
    let Some(sessions) = node.facts.unfenced_sessions.present() else { return };
    for found in sessions {
        let application =
            if found.application.is_empty() { "no application_name" } else { &found.application };
        let kind = if found.superuser { "a superuser" } else { "pgferry's own role" };
        findings.push(Finding::warn(
            "unfenced_sessions",
            node.about(&found.role),
            format!(
                "{} on the {} by role {}, {kind} ({application}): no fence holds what it writes",
                counted(usize::try_from(found.sessions).unwrap_or(usize::MAX), "session"),
                node.side,
                found.role
            ),
            "if it is an application, let it log in as a role of its own that is not superuser",
        ));
    }
}
