//! What the schema copy needs of the destination: nothing in its way, every role that the schema
//! names, and the right to create and to give away.

use std::collections::{BTreeMap, BTreeSet};

use super::{Node, ObjectFacts, PreflightPolicy};
use crate::finding::Finding;
use crate::name::RoleName;
use crate::quote::{counted, first_ten, ident, table};
use crate::roles::ApplicationRole;

pub(super) fn check_destination(
    destination: Node<'_>,
    policy: &PreflightPolicy,
    findings: &mut Vec<Finding>,
) {
    if !policy.progress.schema && !policy.existing_schema {
        destination_not_empty(destination, findings);
    }
}

/// Tables that are there are emptied, filled and replicated by our role, whoever owns them.
pub(super) fn check_existing(destination: Node<'_>, findings: &mut Vec<Finding>) {
    let (Some(tables), Some(roles)) =
        (destination.facts.tables.present(), destination.facts.roles.present())
    else {
        return;
    };
    let owners: BTreeSet<&RoleName> = tables.iter().map(|view| &view.owner).collect();
    let refused: Vec<&RoleName> = owners
        .into_iter()
        .filter(|owner| !roles.get(*owner).is_some_and(|role| role.usable_by_us))
        .collect();
    for owner in refused {
        let superuser = roles.get(owner).is_some_and(|role| role.superuser);
        findings.push(Finding::block(
            if superuser { "owned_by_superuser" } else { "not_member_of_owner" },
            destination.about(owner),
            format!(
                "pgferry's role is not a member of role {owner}, which owns tables of the destination"
            ),
            if superuser {
                format!("give its tables there to the owner that they have on the source; {owner} is superuser")
            } else {
                format!("GRANT {} TO {};", ident(owner), ident(destination.role()))
            },
        ));
    }
    super::tables::row_security_filters(destination, tables, findings);
}

pub(super) fn check_pair(
    source: Node<'_>,
    destination: Node<'_>,
    policy: &PreflightPolicy,
    findings: &mut Vec<Finding>,
) {
    roles_missing(source, destination, policy, findings);
    if !policy.progress.schema {
        not_member_of_owner(source, destination, findings);
        if !policy.existing_schema {
            create_on_schema_missing(source, destination, findings);
        }
        event_triggers(source, findings);
    }
}

/// Empty tables are in the way too: the copied schema would collide with them.
fn destination_not_empty(node: Node<'_>, findings: &mut Vec<Finding>) {
    let Some(objects) = node.facts.objects.present() else { return };
    if objects.is_empty() {
        return;
    }
    let named: Vec<String> =
        objects.iter().map(|object| format!("{} {}", object.kind, object.name)).collect();
    let with_rows = objects.iter().filter(|object| object.has_storage).count();
    let rows = if with_rows == 0 {
        "none of them holds rows".to_owned()
    } else {
        format!("{} with rows", counted(with_rows, "table"))
    };
    findings.push(Finding::block(
        "destination_not_empty",
        node.about("tables in scope"),
        format!("the destination's database is not empty ({rows}): {}", first_ten(&named)),
        removal(objects),
    ));
}

/// Past this many statements an empty database is the better advice.
const DROPS_PRINTED: usize = 100;

/// No statement that drops rows is ever printed: the two servers may be exchanged.
fn removal(objects: &[ObjectFacts]) -> String {
    let empty_database = "use an empty database".to_owned();
    if objects.iter().any(|object| object.has_storage) {
        return format!(
            "check that source and destination are not exchanged, and {empty_database}"
        );
    }
    if objects.len() > DROPS_PRINTED {
        return empty_database;
    }
    let statements: Vec<String> = objects
        .iter()
        .map(|object| format!("DROP {} CASCADE;", in_statement(object, "IF EXISTS ")))
        .collect();
    format!(
        "{empty_database}; or, when nothing of this is needed, run on the destination: {}",
        statements.join(" ")
    )
}

/// The object as DROP and ALTER name it, with the kind before and the arguments after.
fn in_statement(object: &ObjectFacts, condition: &str) -> String {
    let name = table(&object.name);
    match &object.arguments {
        // ROUTINE, because a procedure or an aggregate is no FUNCTION.
        Some(arguments) => format!("ROUTINE {condition}{name}({arguments})"),
        None => format!("{} {condition}{name}", object.kind.to_uppercase()),
    }
}

fn roles_missing(
    source: Node<'_>,
    destination: Node<'_>,
    policy: &PreflightPolicy,
    findings: &mut Vec<Finding>,
) {
    let Some(there) = destination.facts.roles.present() else { return };
    let mut needed: BTreeSet<&RoleName> = BTreeSet::new();
    if let Some(referenced) = source.facts.referenced_roles.present() {
        needed.extend(referenced.keys());
    }
    if let Some(application_roles) = source.facts.application_roles.present() {
        needed.extend(
            application_roles
                .iter()
                .filter(|role| role.may_write() && !policy.fence_exclusions.contains(&role.name))
                .map(|role: &ApplicationRole| &role.name),
        );
    }
    if let Some(named) = &policy.fence_roles {
        needed.extend(named.iter().filter(|name| !policy.fence_exclusions.contains(name)));
    }
    let missing: Vec<&RoleName> =
        needed.into_iter().filter(|name| !there.contains_key(*name)).collect();
    if missing.is_empty() {
        return;
    }
    let here = source.facts.roles.present();
    let statements: Vec<String> = missing
        .iter()
        .map(|name| {
            let login = here.and_then(|roles| roles.get(*name)).is_some_and(|role| role.login);
            format!("CREATE ROLE {}{};", ident(name), if login { " LOGIN" } else { "" })
        })
        .collect();
    findings.push(Finding::block(
        "roles_missing",
        destination.about("roles"),
        format!(
            "the schema or the application uses roles that the destination lacks: {}",
            first_ten(&missing)
        ),
        format!(
            "{} -- then give the login roles their passwords, and repeat memberships",
            statements.join(" ")
        ),
    ));
}

/// Whoever copies a table, adds it to a set or gives it to its owner must be a member of the owner.
fn not_member_of_owner(source: Node<'_>, destination: Node<'_>, findings: &mut Vec<Finding>) {
    let Some(referenced) = source.facts.referenced_roles.present() else { return };
    for (owner, _) in referenced.iter().filter(|(_, owns)| **owns) {
        for node in [source, destination] {
            let Some(role) = node.facts.roles.present().and_then(|roles| roles.get(owner)) else {
                continue;
            };
            if role.usable_by_us {
                continue;
            }
            if role.superuser {
                owned_by_superuser(source, node, owner, findings);
                break;
            }
            findings.push(Finding::block(
                "not_member_of_owner",
                node.about(owner),
                format!(
                    "pgferry's role is not a member of role {owner} on the {}, which owns objects \
                     of the schema",
                    node.side
                ),
                format!("GRANT {} TO {};", ident(owner), ident(node.role())),
            ));
        }
    }
}

/// Membership of a superuser would be superuser itself, so the remedy is another owner.
fn owned_by_superuser(
    source: Node<'_>,
    node: Node<'_>,
    owner: &RoleName,
    findings: &mut Vec<Finding>,
) {
    let objects = source.facts.objects.present().map_or(&[][..], Vec::as_slice);
    let mut others: BTreeMap<&RoleName, usize> = BTreeMap::new();
    for object in objects.iter().filter(|object| object.owner != *owner) {
        *others.entry(&object.owner).or_default() += 1;
    }
    let new_owner = others
        .into_iter()
        .max_by_key(|(_, count)| *count)
        .map_or(source.role(), |(name, _)| name.as_str());
    let statements: Vec<String> = objects
        .iter()
        .filter(|object| object.owner == *owner)
        .map(|object| format!("ALTER {} OWNER TO {};", in_statement(object, ""), ident(new_owner)))
        .collect();
    findings.push(Finding::block(
        "owned_by_superuser",
        source.about(owner),
        format!(
            "role {owner}, superuser on the {}, owns objects of the schema, and pgferry's role \
             cannot be a member of it",
            node.side
        ),
        format!(
            "on the source, give what {owner} owns to a role that is not superuser: {}{}",
            statements.join(" "),
            if statements.is_empty() {
                "\\dn shows schemas, \\dew and \\des foreign servers"
            } else {
                ""
            }
        ),
    ));
}

/// A schema that exists already, `public` above all, is not created by the copy: our role must be
/// able to create in it, and so must each owner that a table is then given to.
fn create_on_schema_missing(source: Node<'_>, destination: Node<'_>, findings: &mut Vec<Finding>) {
    let (Some(objects), Some(tables), Some(schemas), Some(roles)) = (
        source.facts.objects.present(),
        source.facts.tables.present(),
        destination.facts.schemas.present(),
        destination.facts.roles.present(),
    ) else {
        return;
    };
    for (schema, creators) in schemas {
        if !objects.iter().any(|object| object.name.schema == *schema) {
            continue;
        }
        let mut needed: BTreeSet<&str> = tables
            .iter()
            .filter(|view| view.name.schema == *schema)
            .map(|view| view.owner.as_str())
            .collect();
        needed.insert(destination.role());
        let refused: Vec<&str> = needed
            .into_iter()
            .filter(|name| !name.is_empty() && !creators.contains(*name))
            .filter(|name| !roles.get(*name).is_some_and(|role| role.superuser))
            .collect();
        if !refused.is_empty() {
            let grantees: Vec<String> = refused.iter().map(|name| ident(name)).collect();
            findings.push(Finding::block(
                "create_on_schema_missing",
                destination.about(schema),
                format!(
                    "may not create in schema {schema} of the destination, where their tables \
                     go: {}",
                    first_ten(&refused)
                ),
                format!("GRANT CREATE ON SCHEMA {} TO {};", ident(schema), grantees.join(", ")),
            ));
        }
    }
}

/// Left out whoever copies: most roles may not create them, and one on the destination would act on
/// what the daemon does there.
fn event_triggers(source: Node<'_>, findings: &mut Vec<Finding>) {
    let Some(uncarried) = source.facts.uncarried.present() else { return };
    if uncarried.event_triggers.is_empty() {
        return;
    }
    let statements: Vec<String> = uncarried
        .event_triggers
        .iter()
        .map(|name| format!("DROP EVENT TRIGGER {};", ident(name)))
        .collect();
    findings.push(Finding::warn(
        "event_triggers",
        source.about("event triggers"),
        format!(
            "event triggers are not carried to the destination, their functions are: {}",
            first_ten(&uncarried.event_triggers)
        ),
        format!(
            "after the migration, let an administrator run on the destination the CREATE EVENT \
             TRIGGER statements that pg_dump --schema-only prints for the source; or, when they \
             are not needed, on the source: {}",
            statements.join(" ")
        ),
    ));
}
