//! pglogical and the other extensions: there, in reach, and with the rights they need.
//!
//! Where pgferry's role may create an extension there is no finding: the road creates it itself.

use super::privileges::grants_reach_origins;
use super::{ExtensionFacts, Node, PglogicalFacts};
use crate::finding::Finding;
use crate::pglogical;
use crate::quote::{first_ten, ident};

/// The oldest that the whole road was tried with: 2.3.3, on PostgreSQL 13.
const OLDEST_PGLOGICAL: pglogical::Version = (2, 3, 3);

pub(super) fn check_node(node: Node<'_>, findings: &mut Vec<Finding>) {
    let Some(extensions) = node.facts.extensions.present() else { return };
    let pglogical = extensions.get("pglogical");
    let available = pglogical.and_then(|extension| extension.available.as_ref());
    let installed = pglogical.and_then(|extension| extension.installed.as_ref());
    match (available, installed) {
        (None, None) => findings.push(Finding::block(
            "pglogical_not_available",
            node.about("pglogical"),
            format!("the {} does not have the files of pglogical", node.side),
            "install the server's package of pglogical (Debian: postgresql-<major>-pglogical), \
             name it in shared_preload_libraries, and restart the server",
        )),
        (Some(version), None) => {
            too_old(node, version, findings);
            let may_create =
                node.facts.privileges.present().is_none_or(|role| role.creates_any_extension);
            if !may_create {
                findings.push(Finding::block(
                    "pglogical_missing",
                    node.about("pglogical"),
                    format!(
                        "extension pglogical is not in database {} of the {}, and only an \
                         administrator can create it",
                        node.database(),
                        node.side
                    ),
                    administrators_statements(node.role()),
                ));
            }
        }
        (_, Some(version)) => {
            too_old(node, version, findings);
            if let Some(rights) = node.facts.pglogical.present() {
                privileges_missing(node, rights, findings);
                for_everybody(node, rights, findings);
            }
        }
    }
}

/// The stream of `provider`'s changes begins, by pglogical or else by pgferry: then its role needs
/// rights on the subscriber that nothing else asks for.
pub(super) fn check_stream(provider: Node<'_>, subscriber: Node<'_>, findings: &mut Vec<Finding>) {
    let (Some(server), Some(release), Some(role)) = (
        provider.facts.server.present(),
        release_on(subscriber),
        subscriber.facts.privileges.present(),
    ) else {
        return;
    };
    if pglogical::begins_by_itself(release, server.major()) {
        return;
    }
    let may_mark = match subscriber.facts.pglogical.present() {
        Some(rights) => rights.may_mark_initialised,
        // Who makes the extension owns its tables.
        None => role.creates_any_extension,
    };
    let origins = role.origin_functions_refused.iter().filter(|function| {
        ["_create(", "_advance("].iter().any(|needed| function.contains(needed))
    });
    let origins: Vec<&String> = origins.collect();
    let hint = if !origins.is_empty() && !grants_reach_origins(subscriber) {
        "install a package of pglogical 2.4.5 or later, restart the server, and then, where the \
         extension exists: ALTER EXTENSION pglogical UPDATE;"
            .to_owned()
    } else {
        let update = "UPDATE (sync_status) ON pglogical.local_sync_status".to_owned();
        let execute = |function: &&String| format!("EXECUTE ON FUNCTION pg_catalog.{function}");
        (!may_mark)
            .then_some(update)
            .into_iter()
            .chain(origins.iter().map(execute))
            .map(|right| format!("GRANT {right} TO {};", ident(subscriber.role())))
            .collect::<Vec<_>>()
            .join(" ")
    };
    if hint.is_empty() {
        return;
    }
    findings.push(Finding::block(
        "stream_cannot_begin",
        subscriber.about("pglogical"),
        format!(
            "pglogical {release} on the {} cannot ask a server of PostgreSQL {} for a slot \
             (2.4.5 can), so pgferry makes the slot and marks the subscription as initialised, \
             and its role lacks the rights for that",
            subscriber.side,
            server.major()
        ),
        hint,
    ));
}

/// For its own copy pglogical asks for the slot itself, with the snapshot that it copies: nobody can make
/// it in its place. The other direction copies nothing.
pub(super) fn check_native_copy(
    source: Node<'_>,
    destination: Node<'_>,
    findings: &mut Vec<Finding>,
) {
    let (Some(server), Some(release)) = (source.facts.server.present(), release_on(destination))
    else {
        return;
    };
    if pglogical::begins_by_itself(release, server.major()) {
        return;
    }
    findings.push(Finding::block(
        "native_copy_cannot_begin",
        destination.about("pglogical's copy"),
        format!(
            "pglogical {release} on the destination cannot ask the source, PostgreSQL {}, for the \
             slot of its copy (2.4.5 can)",
            server.major()
        ),
        "use copy.method = \"parallel\", which needs none of pglogical's making; or install a package \
         of pglogical 2.4.5 or later on the destination, restart that server, and then, where the \
         extension exists: ALTER EXTENSION pglogical UPDATE;",
    ));
}

/// The pglogical that a node runs, or would.
fn release_on(node: Node<'_>) -> Option<&String> {
    let extension = node.facts.extensions.present()?.get("pglogical")?;
    extension.installed.as_ref().or(extension.available.as_ref())
}

/// Every extension of the source must come to exist on the destination, before or by the copy.
pub(super) fn check_pair(source: Node<'_>, destination: Node<'_>, findings: &mut Vec<Finding>) {
    let (Some(from), Some(to)) =
        (source.facts.extensions.present(), destination.facts.extensions.present())
    else {
        return;
    };
    let privileges = destination.facts.privileges.present();
    for (name, _) in from.iter().filter(|(name, extension)| {
        extension.installed.is_some() && !["pglogical", "plpgsql"].contains(&name.as_str())
    }) {
        let there = to.get(name);
        if there.is_some_and(|extension| extension.installed.is_some()) {
            continue;
        }
        let Some(there) = there.filter(|extension| extension.available.is_some()) else {
            findings.push(Finding::block(
                "extension_not_available",
                destination.about(name),
                format!("the source uses extension {name}, which the destination does not have"),
                format!(
                    "install the files of {name} on the destination's server, or on the source: \
                     DROP EXTENSION {};",
                    ident(name)
                ),
            ));
            continue;
        };
        if privileges.is_some_and(|role| may_not_create(role, there)) {
            findings.push(Finding::block(
                "extension_missing",
                destination.about(name),
                format!(
                    "the source uses extension {name}; it is not in the destination's database, \
                     and pgferry's role may not create it"
                ),
                format!("CREATE EXTENSION {};", ident(name)),
            ));
        }
    }
}

fn may_not_create(role: &super::PrivilegeFacts, extension: &ExtensionFacts) -> bool {
    !role.creates_any_extension && (extension.needs_superuser || !role.create_in_database)
}

fn administrators_statements(role: &str) -> String {
    let role = ident(role);
    format!(
        "CREATE EXTENSION pglogical; \
         GRANT USAGE ON SCHEMA pglogical TO PUBLIC; \
         REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA pglogical FROM PUBLIC; \
         GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA pglogical TO {role}; \
         GRANT SELECT ON ALL TABLES IN SCHEMA pglogical TO {role};"
    )
}

fn too_old(node: Node<'_>, version: &str, findings: &mut Vec<Finding>) {
    if pglogical::version(version) < OLDEST_PGLOGICAL {
        findings.push(Finding::block(
            "pglogical_too_old",
            node.about("pglogical"),
            format!("the {} has pglogical {version}, older than 2.3.3", node.side),
            "install a package of pglogical 2.4 or later, restart the server, and then, where the \
             extension exists: ALTER EXTENSION pglogical UPDATE;",
        ));
    }
}

fn privileges_missing(node: Node<'_>, rights: &PglogicalFacts, findings: &mut Vec<Finding>) {
    let role = ident(node.role());
    if !rights.usage {
        findings.push(Finding::block(
            "pglogical_usage_missing",
            node.about("schema pglogical"),
            format!("pgferry's role may not use schema pglogical on the {}", node.side),
            format!("GRANT USAGE ON SCHEMA pglogical TO {role};"),
        ));
    }
    if !rights.functions_refused.is_empty() {
        findings.push(Finding::block(
            "pglogical_execute_missing",
            node.about("functions of pglogical"),
            format!(
                "pgferry's role may not execute on the {}: {}",
                node.side,
                first_ten(&rights.functions_refused)
            ),
            format!("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA pglogical TO {role};"),
        ));
    }
    if !rights.tables_refused.is_empty() {
        findings.push(Finding::block(
            "pglogical_select_missing",
            node.about("tables of pglogical"),
            format!(
                "pgferry's role may not read on the {}: {}",
                node.side,
                first_ten(&rights.tables_refused)
            ),
            format!("GRANT SELECT ON ALL TABLES IN SCHEMA pglogical TO {role};"),
        ));
    }
}

fn for_everybody(node: Node<'_>, rights: &PglogicalFacts, findings: &mut Vec<Finding>) {
    if !rights.usage_for_everybody {
        findings.push(Finding::warn(
            "pglogical_usage_not_public",
            node.about("schema pglogical"),
            format!(
                "while the migration runs, TRUNCATE of a replicated table and any DROP on the {} \
                 fail for roles without USAGE on schema pglogical",
                node.side
            ),
            "GRANT USAGE ON SCHEMA pglogical TO PUBLIC;",
        ));
    }
    if rights.execute_for_everybody {
        findings.push(Finding::warn(
            "pglogical_execute_public",
            node.about("functions of pglogical"),
            format!(
                "every role of the {} may create subscriptions, whose workers run as superuser",
                node.side
            ),
            format!(
                "REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA pglogical FROM PUBLIC; \
                 GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA pglogical TO {};",
                ident(node.role())
            ),
        ));
    }
}
