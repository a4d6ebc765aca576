//! What pgferry's role may do, judged by the catalogs: a GRANT by somebody who may not give it
//! only warns and "succeeds", so that having run a statement proves nothing.
//!
//! Every remedy is for an administrator to run, and none makes the role a superuser.

use super::Node;
use crate::finding::Finding;
use crate::quote::{first_ten, ident};
use crate::side::Side;

pub(super) fn check_node(node: Node<'_>, findings: &mut Vec<Finding>) {
    let Some(privileges) = node.facts.privileges.present() else { return };
    let role = ident(&privileges.role);
    let named = &privileges.role;
    for (held, code, sentence, statement) in [
        (
            privileges.replication,
            "replication_missing",
            "may not open a replication connection",
            format!("ALTER ROLE {role} REPLICATION; -- on RDS: GRANT rds_replication TO {role};"),
        ),
        (
            privileges.create_role,
            "createrole_missing",
            "may not change the settings of application roles, which is the fence",
            format!("ALTER ROLE {role} CREATEROLE;"),
        ),
        (
            privileges.monitor,
            "monitor_missing",
            "may not see other roles' sessions and every setting",
            format!("GRANT pg_monitor TO {role};"),
        ),
        (
            privileges.signal_backend,
            "signal_backend_missing",
            "may not end sessions of application roles, which is part of the fence",
            format!("GRANT pg_signal_backend TO {role};"),
        ),
        (
            privileges.create_in_database,
            "create_on_database_missing",
            "may not create schemas in the database",
            format!("GRANT CREATE ON DATABASE {} TO {role};", ident(node.database())),
        ),
    ] {
        if !held {
            findings.push(Finding::block(
                code,
                node.about(named),
                format!("role {named} {sentence} on the {}", node.side),
                statement,
            ));
        }
    }
    let refused = &privileges.origin_functions_refused;
    if !refused.is_empty() {
        let hint = if grants_reach_origins(node) {
            let statements: Vec<String> = refused
                .iter()
                .map(|function| {
                    format!("GRANT EXECUTE ON FUNCTION pg_catalog.{function} TO {role};")
                })
                .collect();
            statements.join(" ")
        } else {
            "nothing can be granted: before PostgreSQL 14 only a superuser may use replication \
             origins"
                .to_owned()
        };
        findings.push(Finding::warn(
            "origin_functions_not_granted",
            node.about(named),
            format!(
                "role {named} may not execute {} on the {}: {}",
                first_ten(refused),
                node.side,
                weaker_without_origins(node.side)
            ),
            hint,
        ));
    }
}

/// Whether a grant lets a role use replication origins: before 14 the functions themselves asked
/// for a superuser.
pub(super) fn grants_reach_origins(node: Node<'_>) -> bool {
    node.facts.server.present().is_none_or(|server| server.major() >= 14)
}

/// Rows are copied to the destination only; on the source an origin is only ever cleaned up.
fn weaker_without_origins(side: Side) -> &'static str {
    match side {
        Side::Source => "an origin that a crash leaves behind must be dropped by an administrator",
        Side::Destination => {
            "copied rows carry no origin, so that their first change is logged as a conflict where \
             track_commit_timestamp is on; after a crash of this server the hand-over rests on the \
             source's slot alone; and an origin that is left behind must be dropped by an \
             administrator"
        }
    }
}
