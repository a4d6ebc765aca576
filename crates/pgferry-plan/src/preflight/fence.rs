//! Application roles: which would be fenced, and whether each can be, on both sides.
//!
//! The fence takes the union of both sides' writers, so a role is judged on the side that it does
//! not write yet as well. A writer that nothing would fence blocks: its writes would be lost.

use std::collections::BTreeSet;

use super::{Node, PreflightPolicy};
use crate::finding::Finding;
use crate::name::RoleName;
use crate::quote::{first_ten, ident};
use crate::roles::ApplicationRole;

pub(super) fn check_pair(
    source: Node<'_>,
    destination: Node<'_>,
    policy: &PreflightPolicy,
    findings: &mut Vec<Finding>,
) {
    let (Some(on_source), Some(on_destination)) =
        (source.facts.application_roles.present(), destination.facts.application_roles.present())
    else {
        return;
    };
    let writers: BTreeSet<&RoleName> = on_source
        .iter()
        .chain(on_destination)
        .filter(|role| role.may_write())
        .map(|role| &role.name)
        .collect();
    let (excluded, writers): (BTreeSet<_>, BTreeSet<_>) =
        writers.into_iter().partition(|name| policy.fence_exclusions.contains(name));
    let fenced: BTreeSet<&RoleName> = match &policy.fence_roles {
        Some(named) => {
            named.iter().filter(|name| !policy.fence_exclusions.contains(name)).collect()
        }
        None => writers.clone(),
    };
    no_role_to_fence(&fenced, findings);
    writers_not_fenced(&writers, &fenced, findings);
    excluded_roles_may_write(&excluded, findings);
    for node in [source, destination] {
        database_read_only(node, findings);
        for name in &fenced {
            role_not_fenceable(node, name, findings);
            if policy.locks_out {
                login_not_alterable(node, name, findings);
                role_used_elsewhere(node, name, findings);
            }
            if !policy.progress.nodes {
                role_read_only(node, name, findings);
            }
        }
    }
    cannot_connect(on_source, destination, &fenced, findings);
}

fn no_role_to_fence(fenced: &BTreeSet<&RoleName>, findings: &mut Vec<Finding>) {
    if fenced.is_empty() {
        findings.push(Finding::warn(
            "no_role_to_fence",
            "application roles",
            "no login role but superusers and pgferry's own may write, so a cutover would fence \
             nobody",
            "let the application log in as a role of its own that is not superuser",
        ));
    }
}

fn writers_not_fenced(
    writers: &BTreeSet<&RoleName>,
    fenced: &BTreeSet<&RoleName>,
    findings: &mut Vec<Finding>,
) {
    let missed: Vec<&RoleName> = writers.difference(fenced).copied().collect();
    if !missed.is_empty() {
        findings.push(Finding::block(
            "writers_not_fenced",
            "fence.roles",
            format!("may write, and is not in fence.roles: {}", first_ten(&missed)),
            format!(
                "name them in fence.roles, or, when they never write during a switchover, in \
                 fence.exclude_roles = {}",
                toml_roles(&missed)
            ),
        ));
    }
}

fn excluded_roles_may_write(excluded: &BTreeSet<&RoleName>, findings: &mut Vec<Finding>) {
    let excluded: Vec<&RoleName> = excluded.iter().copied().collect();
    if !excluded.is_empty() {
        findings.push(Finding::warn(
            "excluded_roles_may_write",
            "fence.exclude_roles",
            format!(
                "may write while its side is fenced, and what it writes then can be lost: {}",
                first_ten(&excluded)
            ),
            "see to it that they do not write during a switchover, or take them out of \
             fence.exclude_roles",
        ));
    }
}

/// The fence keeps what a role had before; a database that is read-only for everybody would stay
/// so when its side is opened, and the apply worker's sequences and triggers fail under it.
fn database_read_only(node: Node<'_>, findings: &mut Vec<Finding>) {
    let Some(settings) = node.facts.catalog_settings.present() else { return };
    let read_only = settings.iter().any(|setting| {
        setting.role.is_none()
            && setting.name == "default_transaction_read_only"
            && !["off", "false", "no", "0"].contains(&setting.value.as_str())
    });
    if read_only {
        findings.push(Finding::block(
            "database_read_only",
            node.about("default_transaction_read_only"),
            format!("database {} of the {} is read-only by default", node.database(), node.side),
            format!(
                "ALTER DATABASE {} RESET default_transaction_read_only;",
                ident(node.database())
            ),
        ));
    }
}

/// The fence puts back what it found: a role that is read-only before it, because an earlier
/// migration left it so, would be read-only on the side that is opened.
fn role_read_only(node: Node<'_>, name: &RoleName, findings: &mut Vec<Finding>) {
    let Some(roles) = node.facts.application_roles.present() else { return };
    let Some(role) = roles.iter().find(|role| role.name == *name) else { return };
    let is_on = |setting: &Option<String>| setting.as_deref().is_some_and(is_true);
    let statement = if is_on(&role.read_only_here) {
        format!(
            "ALTER ROLE {} IN DATABASE {} RESET default_transaction_read_only;",
            ident(name),
            ident(node.database())
        )
    } else if role.read_only_here.is_none() && is_on(&role.read_only_everywhere) {
        format!("ALTER ROLE {} RESET default_transaction_read_only;", ident(name))
    } else {
        return;
    };
    findings.push(Finding::block(
        "role_read_only",
        node.about(name),
        format!(
            "role {name} is read-only by default on the {}, and would stay so after a cutover",
            node.side
        ),
        format!("{statement} or name the role in fence.exclude_roles when it never writes"),
    ));
}

/// The words that PostgreSQL takes for a true boolean setting.
fn is_true(text: &str) -> bool {
    matches!(text.to_ascii_lowercase().as_str(), "on" | "true" | "yes" | "1" | "t" | "y")
}

fn role_not_fenceable(node: Node<'_>, name: &RoleName, findings: &mut Vec<Finding>) {
    let (Some(application_roles), Some(roles)) =
        (node.facts.application_roles.present(), node.facts.roles.present())
    else {
        return;
    };
    let privileges = node.facts.privileges.present();
    let (message, hint) = match application_roles.iter().find(|role| role.name == *name) {
        Some(role) if role.alterable => return,
        // Without CREATEROLE no role is alterable, and that finding says so once for all. Where
        // ADMIN is needed as well (from 16 on) both are said at once.
        Some(_) if privileges.is_some_and(|role| !role.create_role) && !needs_admin(node) => return,
        Some(_) => (
            format!(
                "pgferry's role may not change the settings of role {name} on the {}",
                node.side
            ),
            format!("GRANT {} TO {} WITH ADMIN OPTION;", ident(name), ident(node.role())),
        ),
        None => match roles.get(name) {
            // A role that is missing on the destination is a finding of its own.
            None if node.side == crate::side::Side::Destination => return,
            None => (
                format!("role {name} of fence.roles does not exist on the {}", node.side),
                "take it out of fence.roles".to_owned(),
            ),
            Some(role) if role.superuser => (
                format!("role {name} is superuser on the {}, and no fence holds it", node.side),
                format!("ALTER ROLE {} NOSUPERUSER;", ident(name)),
            ),
            Some(role) if !role.login => (
                format!(
                    "role {name} cannot log in on the {}; settings follow login roles",
                    node.side
                ),
                format!(
                    "let the application log in as {0} (ALTER ROLE {0} LOGIN;), or name its login \
                     roles in fence.roles",
                    ident(name)
                ),
            ),
            Some(_) => (
                format!("role {name} is pgferry's own on the {}", node.side),
                "let pgferry connect as a role that no application uses".to_owned(),
            ),
        },
    };
    findings.push(Finding::block("role_not_fenceable", node.about(name), message, hint));
}

/// Below 16 only a superuser may alter a role that has REPLICATION; its settings anybody may who
/// has CREATEROLE.
fn login_not_alterable(node: Node<'_>, name: &RoleName, findings: &mut Vec<Finding>) {
    let Some(roles) = node.facts.application_roles.present() else { return };
    let locked = |role: &&ApplicationRole| role.alterable && !role.login_alterable;
    if roles.iter().filter(|role| role.name == *name).any(|role| locked(&role)) {
        findings.push(Finding::block(
            "role_not_fenceable",
            node.about(name),
            format!("pgferry's role may not take LOGIN from role {name} on the {}", node.side),
            format!(
                "ALTER ROLE {} NOREPLICATION; or use fence.method = \"read_only\"",
                ident(name)
            ),
        ));
    }
}

/// NOLOGIN is the whole server's.
fn role_used_elsewhere(node: Node<'_>, name: &RoleName, findings: &mut Vec<Finding>) {
    let Some(roles) = node.facts.application_roles.present() else { return };
    let Some(role) = roles.iter().find(|role| role.name == *name) else { return };
    if !role.other_databases.is_empty() {
        let databases: Vec<&String> = role.other_databases.iter().collect();
        findings.push(Finding::block(
            "role_used_elsewhere",
            node.about(name),
            format!(
                "other databases of the {} use role {name}, and NOLOGIN would lock it out of them: {}",
                node.side,
                first_ten(&databases)
            ),
            "use fence.method = \"read_only\", or let each database have a role of its own",
        ));
    }
}

fn needs_admin(node: Node<'_>) -> bool {
    node.facts.server.present().is_some_and(|server| server.major() >= 16)
}

fn cannot_connect(
    on_source: &[ApplicationRole],
    destination: Node<'_>,
    fenced: &BTreeSet<&RoleName>,
    findings: &mut Vec<Finding>,
) {
    let Some(roles) = destination.facts.roles.present() else { return };
    let refused: Vec<&RoleName> = on_source
        .iter()
        .filter(|role| role.may_connect && fenced.contains(&role.name))
        .filter(|role| {
            roles.get(&role.name).is_some_and(|there| !there.login || !there.may_connect)
        })
        .map(|role| &role.name)
        .collect();
    if !refused.is_empty() {
        let database = ident(destination.database());
        let statements: Vec<String> = refused
            .iter()
            .map(|name| {
                let name = ident(name);
                format!("ALTER ROLE {name} LOGIN; GRANT CONNECT ON DATABASE {database} TO {name};")
            })
            .collect();
        findings.push(Finding::block(
            "role_cannot_connect",
            destination.about("application roles"),
            format!(
                "may connect to the source and not to the destination: {}",
                first_ten(&refused)
            ),
            statements.join(" "),
        ));
    }
}

fn toml_roles(names: &[&RoleName]) -> String {
    let quoted: Vec<String> = names
        .iter()
        .map(|name| format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\"")))
        .collect();
    format!("[{}]", quoted.join(", "))
}
