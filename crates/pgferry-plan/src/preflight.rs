//! Preflight: everything that would break the road, found before anything is changed.
//!
//! [`check`] is a function from what was seen to a list of findings, all of them at once, each
//! with the remedy as it would be typed. What could not be seen blocks as well: not seen is never
//! absent. Nothing here looks, and no remedy ever makes pgferry's role a superuser.
//!
//! A check is one function in one of the modules below, named after what it finds.

mod extension;
mod facts;
mod fence;
mod large_objects;
mod leftovers;
mod locks;
mod objects;
mod privileges;
mod server;
mod settings;
mod tables;

#[cfg(test)]
mod tests;

pub use facts::{
    CatalogSetting, ExtensionFacts, InUse, JobFacts, Leftovers, NativeCopyFacts, NodeFacts,
    ObjectFacts, PglogicalFacts, PglogicalNodes, PreflightFacts, PreflightPolicy, PrivilegeFacts,
    Progress, RelationCounts, RoleFacts, ServerFacts, TransactionFacts, TransactionKind,
    TriggerFacts, Uncarried, UnfencedSessions,
};

use crate::existing::ExistingView;
use crate::finding::{Finding, Severity};
use crate::seen::Seen;
use crate::side::Side;

/// Everything that stands in the way or has a cost, blocks first, each side's in a fixed order.
#[must_use]
pub fn check(facts: &PreflightFacts) -> Vec<Finding> {
    let mut findings = Vec::new();
    let source = reached(Side::Source, &facts.source, &mut findings);
    let destination = reached(Side::Destination, &facts.destination, &mut findings);
    if let (Some(source), Some(destination)) = (source, destination)
        && let Some(same) = server::same_server(source, destination)
    {
        return vec![same];
    }
    for node in [source, destination].into_iter().flatten() {
        not_seen(node, &mut findings);
        server::check_node(node, &facts.policy, &mut findings);
        extension::check_node(node, &mut findings);
        privileges::check_node(node, &mut findings);
        leftovers::check_node(node, &facts.policy, &mut findings);
        settings::check_node(node, &mut findings);
    }
    if let Some(source) = source {
        tables::check_source(source, &facts.policy, &mut findings);
        large_objects::check_source(source, &mut findings);
        locks::check_source(source, &mut findings);
    }
    if let Some(destination) = destination {
        objects::check_destination(destination, &facts.policy, &mut findings);
        large_objects::check_destination(destination, &facts.policy, &mut findings);
        if takes_existing(&facts.policy) {
            objects::check_existing(destination, &mut findings);
        }
    }
    if let (Some(source), Some(destination)) = (source, destination) {
        server::check_pair(source, destination, &mut findings);
        extension::check_pair(source, destination, &mut findings);
        extension::check_stream(source, destination, &mut findings);
        extension::check_stream(destination, source, &mut findings);
        objects::check_pair(source, destination, &facts.policy, &mut findings);
        tables::check_pair(source, destination, &mut findings);
        large_objects::check_pair(source, destination, &facts.policy, &mut findings);
        locks::check_pair(source, destination, &facts.policy, &mut findings);
        settings::check_pair(source, destination, &mut findings);
        fence::check_pair(source, destination, &facts.policy, &mut findings);
        if takes_existing(&facts.policy) {
            existing(&facts.existing, &mut findings);
        }
        if facts.policy.native_copy && !facts.policy.progress.schema {
            native_copy(&facts.native, &mut findings);
            extension::check_native_copy(source, destination, &mut findings);
        }
    }
    findings.sort_by_key(|finding| match finding.severity {
        Severity::Block => 0,
        Severity::Warn => 1,
    });
    findings
}

/// Refused, its copy breaks off, and is not to be taken up again.
fn native_copy(look: &Seen<NativeCopyFacts>, findings: &mut Vec<Finding>) {
    const SUBJECT: &str = "destination: pglogical's copy";
    let native = match look {
        Seen::Present(native) => native,
        Seen::Absent | Seen::Unknown(_) => {
            findings.push(Finding::block(
                "not_seen",
                SUBJECT,
                format!(
                    "could not look at what pglogical's copy may do on the destination: {}",
                    why_unseen(look).unwrap_or_default()
                ),
                "remove the reason, then run preflight again: what was not seen is not taken for granted",
            ));
            return;
        }
    };
    let role = crate::quote::ident(&native.role);
    for (may, what, statement) in [
        (
            native.may_set_replication_role,
            "set session_replication_role",
            format!("GRANT SET ON PARAMETER session_replication_role TO {role};"),
        ),
        (
            native.may_use_origins,
            "use replication origins",
            format!(
                "GRANT EXECUTE ON FUNCTION pg_replication_origin_session_setup(text) TO {role};"
            ),
        ),
    ] {
        if !may {
            findings.push(Finding::block(
                "native_copy_refused",
                SUBJECT,
                format!(
                    "role {} may not {what} on the destination, and pglogical's copy would break off",
                    native.role
                ),
                format!("{statement} -- or use copy.method = \"parallel\", which does not need it"),
            ));
        }
    }
}

/// The destination's schema is to be the source's already, and nothing is set aside of it yet.
fn takes_existing(policy: &PreflightPolicy) -> bool {
    policy.existing_schema && !policy.progress.schema
}

fn existing(look: &Seen<ExistingView>, findings: &mut Vec<Finding>) {
    match look {
        Seen::Present(view) => findings.extend(view.findings.iter().cloned()),
        Seen::Absent | Seen::Unknown(_) => findings.push(Finding::block(
            "not_seen",
            "destination: existing schema",
            format!(
                "could not compare the destination's schema with the source's: {}",
                why_unseen(look).unwrap_or_default()
            ),
            "remove the reason, then run preflight again: what was not seen is not taken for equal",
        )),
    }
}

/// One side that was reached.
#[derive(Clone, Copy)]
struct Node<'a> {
    side: Side,
    facts: &'a NodeFacts,
}

impl Node<'_> {
    /// The subject of a finding: the side, and what of it.
    fn about(&self, what: &str) -> String {
        format!("{}: {what}", self.side)
    }

    /// Our role on this side, for statements; empty only when the look at it failed, and that
    /// look blocks by itself.
    fn role(&self) -> &str {
        self.facts.privileges.present().map_or("", |privileges| privileges.role.as_str())
    }

    /// This side's database, for statements; empty only when the look at it failed.
    fn database(&self) -> &str {
        self.facts.server.present().map_or("", |server| server.database.as_str())
    }
}

fn reached<'a>(
    side: Side,
    seen: &'a Seen<NodeFacts>,
    findings: &mut Vec<Finding>,
) -> Option<Node<'a>> {
    let reason = match seen {
        Seen::Present(facts) => return Some(Node { side, facts }),
        Seen::Absent => "it was not looked at",
        Seen::Unknown(reason) => reason,
    };
    let code = match side {
        Side::Source => "source_unreachable",
        Side::Destination => "destination_unreachable",
    };
    findings.push(Finding::block(
        code,
        side.as_str(),
        format!("the {side} cannot be reached: {reason}"),
        format!(
            "check dsn, password and sslrootcert of the {side} in the configuration, and that this \
             machine may connect to that server"
        ),
    ));
    None
}

/// One finding per look that failed.
fn not_seen(node: Node<'_>, findings: &mut Vec<Finding>) {
    // Destructured, so that a new look cannot be forgotten here.
    let NodeFacts {
        server,
        settings,
        catalog_settings,
        extensions,
        in_use,
        privileges,
        pglogical,
        roles,
        referenced_roles,
        application_roles,
        schemas,
        tables,
        objects,
        relations,
        uncarried,
        triggers,
        leftovers,
        pglogical_nodes,
        transactions,
        jobs,
        unfenced_sessions,
    } = node.facts;
    let looks = [
        ("the server and its database", why_unseen(server)),
        ("server settings", why_unseen(settings)),
        ("settings of roles and of the database", why_unseen(catalog_settings)),
        ("extensions", why_unseen(extensions)),
        ("slots, walsenders, origins and workers in use", why_unseen(in_use)),
        ("privileges of pgferry's role", why_unseen(privileges)),
        ("privileges in schema pglogical", why_unknown(pglogical)),
        ("roles", why_unseen(roles)),
        ("roles that the schema names", why_unseen(referenced_roles)),
        ("application roles", why_unseen(application_roles)),
        ("schemas", why_unseen(schemas)),
        ("tables in scope", why_unseen(tables)),
        ("objects in the schemas in scope", why_unseen(objects)),
        ("the number of relations in scope", why_unseen(relations)),
        ("large objects, event triggers and subscriptions", why_unseen(uncarried)),
        ("triggers", why_unseen(triggers)),
        ("leftovers of an earlier run", why_unseen(leftovers)),
        ("pglogical's nodes and subscriptions", why_unknown(pglogical_nodes)),
        ("long and prepared transactions", why_unseen(transactions)),
        ("jobs of pg_cron", why_unknown(jobs)),
        ("sessions that cannot be fenced", why_unseen(unfenced_sessions)),
    ];
    for (what, reason) in looks {
        if let Some(reason) = reason {
            findings.push(Finding::block(
                "not_seen",
                node.about(what),
                format!("could not look at {what} on the {}: {reason}", node.side),
                "remove the reason, then run preflight again: what was not seen is not taken for \
                 absent",
            ));
        }
    }
    // Without pg_monitor the reason is a finding of its own, with the same remedy.
    if let Some(settings) = settings.present()
        && !settings.contains_key("shared_preload_libraries")
        && privileges.present().is_none_or(|privileges| privileges.monitor)
    {
        findings.push(Finding::block(
            "not_seen",
            node.about("hidden server settings"),
            format!("pgferry's role may not see every server setting of the {}", node.side),
            format!("GRANT pg_monitor TO {};", crate::quote::ident(node.role())),
        ));
    }
}

fn why_unseen<T>(look: &Seen<T>) -> Option<&str> {
    match look {
        Seen::Present(_) => None,
        Seen::Absent => Some("the server answered with nothing"),
        Seen::Unknown(reason) => Some(reason),
    }
}

/// For looks at what may rightly be absent.
fn why_unknown<T>(look: &Seen<T>) -> Option<&str> {
    match look {
        Seen::Present(_) | Seen::Absent => None,
        Seen::Unknown(reason) => Some(reason),
    }
}
