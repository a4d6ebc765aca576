//! Large objects: copied once with the rows that refer to them, and streamed by nobody.

use super::{Node, PreflightPolicy};
use crate::finding::Finding;
use crate::name::RoleName;
use crate::quote::{first_ten, ident, literal};

pub(super) fn check_source(source: Node<'_>, findings: &mut Vec<Finding>) {
    let Some(uncarried) = source.facts.uncarried.present() else { return };
    if uncarried.large_objects > 0 {
        findings.push(Finding::warn(
            "large_objects",
            source.about("large objects"),
            format!(
                "the source has {} large objects: they are copied once, with the rows, and not \
                 streamed; what is made, changed or removed after the copy stays on its side",
                up_to(uncarried.large_objects)
            ),
            "let nothing change them until the migration has ended; what has to change belongs into \
             columns of type bytea (lo_get reads an object). While one side has an object that the \
             other lacks no switchover begins",
        ));
    }
    if uncarried.large_objects_refused > 0 {
        let refused = owners_refused(source, &uncarried.large_object_owners, |_| false);
        findings.push(Finding::block(
            "large_objects_refused",
            source.about("large objects"),
            format!(
                "pgferry's role may not read {} of the source's large objects",
                up_to(uncarried.large_objects_refused)
            ),
            remedy(source, source, &refused),
        ));
    }
}

/// Whoever copies an object gives it to its owner, and must be a member of that role. A role that the
/// destination lacks is a finding of its own, except a superuser's: nobody would create that one.
pub(super) fn check_pair(
    source: Node<'_>,
    destination: Node<'_>,
    policy: &PreflightPolicy,
    findings: &mut Vec<Finding>,
) {
    let Some(uncarried) = source.facts.uncarried.present() else { return };
    if policy.progress.schema {
        return;
    }
    let superuser = |owner: &RoleName| {
        source.facts.roles.present().and_then(|roles| roles.get(owner)).is_some_and(|r| r.superuser)
    };
    let refused = owners_refused(destination, &uncarried.large_object_owners, superuser);
    if !refused.is_empty() {
        findings.push(Finding::block(
            "large_objects_refused",
            destination.about("large objects"),
            format!(
                "pgferry's role cannot give large objects to their owners on the destination: {}",
                first_ten(&refused)
            ),
            remedy(source, destination, &refused),
        ));
    }
}

/// The copy takes away whatever large objects it finds there, as those of an earlier try.
pub(super) fn check_destination(
    destination: Node<'_>,
    policy: &PreflightPolicy,
    findings: &mut Vec<Finding>,
) {
    let Some(uncarried) = destination.facts.uncarried.present() else { return };
    if uncarried.large_objects > 0 && !policy.progress.schema {
        findings.push(Finding::block(
            "destination_large_objects",
            destination.about("large objects"),
            format!(
                "the destination's database has {} large objects, and those of the source keep \
                 their oids",
                up_to(uncarried.large_objects)
            ),
            // As for tables: no statement that drops what may be the only copy is ever printed.
            "check that source and destination are not exchanged, and use an empty database",
        ));
    }
}

fn up_to(counted: i64) -> String {
    if counted >= 1000 { format!("at least {counted}") } else { counted.to_string() }
}

/// Owners that our role cannot act for on this side; of those that the side lacks, which `count`.
fn owners_refused<'a>(
    node: Node<'_>,
    owners: &'a [RoleName],
    count: impl Fn(&RoleName) -> bool,
) -> Vec<&'a RoleName> {
    let Some(roles) = node.facts.roles.present() else { return Vec::new() };
    owners
        .iter()
        .filter(|owner| match roles.get(*owner) {
            Some(role) => !role.usable_by_us,
            None => count(owner),
        })
        .collect()
}

/// Membership where it can be had; another owner where that would be superuser itself.
fn remedy(source: Node<'_>, node: Node<'_>, refused: &[&RoleName]) -> String {
    let mut statements = Vec::new();
    for owner in refused {
        let superuser = [source, node].iter().any(|node| {
            node.facts.roles.present().and_then(|r| r.get(*owner)).is_some_and(|r| r.superuser)
        });
        statements.push(if superuser {
            format!(
                "on the source: DO $$DECLARE o oid; BEGIN FOR o IN SELECT oid FROM \
                 pg_largeobject_metadata WHERE lomowner = {}::regrole LOOP EXECUTE format('ALTER \
                 LARGE OBJECT %s OWNER TO %I', o, {}); END LOOP; END$$;",
                literal(&ident(owner)),
                literal(source.role())
            )
        } else {
            format!("GRANT {} TO {};", ident(owner), ident(node.role()))
        });
    }
    if statements.is_empty() {
        // Its owner may not read it either.
        return format!(
            "give pgferry's role SELECT on them: SELECT format('GRANT SELECT ON LARGE OBJECT %s TO \
             %I;', oid, {}) FROM pg_largeobject_metadata prints the statements",
            literal(node.role())
        );
    }
    statements.join(" ")
}
