//! Versions, server settings and limits, encodings and locales.
//!
//! Remedies for server settings are lines for postgresql.conf, because managed servers have no
//! ALTER SYSTEM; nothing here names a provider's console.

use super::{CatalogSetting, Node, PreflightPolicy, ServerFacts};
use crate::finding::Finding;
use crate::side::Side;

/// pglogical 2.4 exists for all of these, and every statement of pgferry runs on them.
const SUPPORTED_MAJORS: std::ops::RangeInclusive<i32> = 13..=18;

/// Where origins have a limit of their own instead of sharing `max_replication_slots`.
const ORIGINS_LIMITED_APART: i32 = 18;

/// What one migration takes on a server beside what is in use already.
struct Needs {
    slots: i64,
    wal_senders: i64,
    origins: i64,
    workers: i64,
}

impl Needs {
    const fn of(side: Side) -> Self {
        match side {
            // The forward stream's slot and the temporary one of the snapshot, each with its
            // walsender; one walsender more, because pglogical connects anew before the old
            // connection is gone.
            Side::Source => Needs { slots: 2, wal_senders: 3, origins: 1, workers: 3 },
            Side::Destination => Needs { slots: 1, wal_senders: 2, origins: 1, workers: 3 },
        }
        // Workers: manager and apply, and the next one while the last is still ending.
    }
}

pub(super) fn check_node(node: Node<'_>, policy: &PreflightPolicy, findings: &mut Vec<Finding>) {
    if let Some(server) = node.facts.server.present() {
        version_not_supported(node, server, findings);
        server_is_standby(node, server, findings);
    }
    wal_level_not_logical(node, findings);
    library_not_preloaded(node, findings);
    output_plugin_refused(node, findings);
    conflict_resolution(node, findings);
    if node.side == Side::Source {
        wal_unbounded(node, policy, findings);
    }
    if !policy.progress.nodes {
        too_few(node, findings);
    }
}

/// One database under both names. Nothing else may be judged then: what is asked of an empty
/// destination, to drop its tables above all, would be asked of the source.
pub(super) fn same_server(source: Node<'_>, destination: Node<'_>) -> Option<Finding> {
    let (from, to) = (source.facts.server.present()?, destination.facts.server.present()?);
    let same = from.started_at == to.started_at && from.database_oid == to.database_oid;
    same.then(|| {
        Finding::block(
            "same_server",
            "source and destination",
            format!("source and destination are the same database, {}", from.database),
            "point dsn of the source or of the destination at the other server",
        )
    })
}

pub(super) fn check_pair(source: Node<'_>, destination: Node<'_>, findings: &mut Vec<Finding>) {
    let (Some(from), Some(to)) =
        (source.facts.server.present(), destination.facts.server.present())
    else {
        return;
    };
    if to.major() < from.major() {
        findings.push(Finding::block(
            "destination_older",
            destination.about("version"),
            format!(
                "the destination runs PostgreSQL {}, older than the source's {}",
                to.version, from.version
            ),
            format!("use a destination of PostgreSQL {} or later", from.major()),
        ));
    }
    if from.encoding != to.encoding {
        findings.push(Finding::block(
            "encodings_differ",
            destination.about("encoding"),
            format!(
                "the source's database is encoded in {} and the destination's in {}",
                from.encoding, to.encoding
            ),
            format!(
                "make the destination's database anew with ENCODING {} TEMPLATE template0",
                crate::quote::literal(&from.encoding)
            ),
        ));
    }
    if locale(from) != locale(to) {
        findings.push(Finding::warn(
            "collations_differ",
            destination.about("locale"),
            format!(
                "text may sort and compare differently: the source has {}, the destination {}",
                locale(from),
                locale(to)
            ),
            "make the destination's database anew with the source's locale, unless the \
             application does not depend on the order of text",
        ));
    }
}

fn locale(server: &ServerFacts) -> String {
    let provider_locale =
        server.provider_locale.as_ref().map_or(String::new(), |locale| format!(" {locale}"));
    format!(
        "{}{provider_locale} with LC_COLLATE {} and LC_CTYPE {}",
        server.locale_provider, server.collate, server.ctype
    )
}

fn version_not_supported(node: Node<'_>, server: &ServerFacts, findings: &mut Vec<Finding>) {
    if !SUPPORTED_MAJORS.contains(&server.major()) {
        findings.push(Finding::block(
            "version_not_supported",
            node.about("version"),
            format!("the {} runs PostgreSQL {}", node.side, server.version),
            format!(
                "use a server of PostgreSQL {} to {}",
                SUPPORTED_MAJORS.start(),
                SUPPORTED_MAJORS.end()
            ),
        ));
    }
}

fn server_is_standby(node: Node<'_>, server: &ServerFacts, findings: &mut Vec<Finding>) {
    if server.in_recovery {
        findings.push(Finding::block(
            "server_is_standby",
            node.side.as_str(),
            format!("the {} is a standby, and takes no writes", node.side),
            format!("point dsn of the {} at the primary", node.side),
        ));
    }
}

fn wal_level_not_logical(node: Node<'_>, findings: &mut Vec<Finding>) {
    let Some(wal_level) = setting(node, "wal_level") else { return };
    if wal_level != "logical" {
        findings.push(Finding::block(
            "wal_level_not_logical",
            node.about("wal_level"),
            format!("wal_level is {wal_level} on the {}, not logical", node.side),
            "set wal_level = logical (on RDS rds.logical_replication = 1), and restart the server",
        ));
    }
}

fn library_not_preloaded(node: Node<'_>, findings: &mut Vec<Finding>) {
    let Some(libraries) = setting(node, "shared_preload_libraries") else { return };
    if !names(libraries).any(|name| name.rsplit('/').next() == Some("pglogical")) {
        findings.push(Finding::block(
            "pglogical_not_preloaded",
            node.about("shared_preload_libraries"),
            format!("shared_preload_libraries on the {} does not name pglogical", node.side),
            format!(
                "set shared_preload_libraries = '{}', and restart the server",
                with_one_more(libraries, "pglogical")
            ),
        ));
    }
}

/// The setting exists only where the server refuses plugins that it does not name; on other
/// servers it must not be set, because they do not start with it.
fn output_plugin_refused(node: Node<'_>, findings: &mut Vec<Finding>) {
    let Some(libraries) = setting(node, "output_plugin_libraries") else { return };
    if !names(libraries).any(|name| name == "pglogical_output") {
        findings.push(Finding::block(
            "output_plugin_refused",
            node.about("output_plugin_libraries"),
            format!("output_plugin_libraries on the {} does not name pglogical_output", node.side),
            format!(
                "set output_plugin_libraries = '{}', and reload the server",
                with_one_more(libraries, "pglogical_output")
            ),
        ));
    }
}

/// Only `apply_remote` keeps two-way streams in step: the others drop changes of rows that
/// changed sides.
fn conflict_resolution(node: Node<'_>, findings: &mut Vec<Finding>) {
    const NAME: &str = "pglogical.conflict_resolution";
    let Some(resolution) = setting(node, NAME) else { return };
    // A value of the database shows through in every session; its own finding resets it there.
    let of_database = |setting: &CatalogSetting| setting.role.is_none() && setting.name == NAME;
    if node.facts.catalog_settings.present().is_some_and(|known| known.iter().any(of_database)) {
        return;
    }
    if resolution != "apply_remote" {
        findings.push(Finding::block(
            "conflict_resolution",
            node.about(NAME),
            format!("pglogical.conflict_resolution is {resolution} on the {}", node.side),
            "set pglogical.conflict_resolution = 'apply_remote', and reload the server",
        ));
    }
}

/// What bounds the WAL that a slot keeps while nothing reads it: the server, the configuration, or
/// the disk. How much of that is free cannot be asked over SQL.
fn wal_unbounded(node: Node<'_>, policy: &PreflightPolicy, findings: &mut Vec<Finding>) {
    let Some("-1") = setting(node, "max_slot_wal_keep_size") else { return };
    if policy.max_retained_wal.is_none() {
        findings.push(Finding::warn(
            "wal_unbounded",
            node.about("max_slot_wal_keep_size"),
            format!(
                "the {} keeps all WAL from the beginning of the copy to its end, and nothing stops \
                 the copy before its disk is full",
                node.side
            ),
            "set copy.max_retained_wal well below the free space of that server's disk; or set \
             max_slot_wal_keep_size there, and reload the server",
        ));
    }
}

fn too_few(node: Node<'_>, findings: &mut Vec<Finding>) {
    let Some(in_use) = node.facts.in_use.present() else { return };
    let needs = Needs::of(node.side);
    let major = node.facts.server.present().map_or(0, ServerFacts::major);
    let origin_limit = if major >= ORIGINS_LIMITED_APART {
        "max_active_replication_origins"
    } else {
        "max_replication_slots"
    };
    for (code, what, limit, used, needed) in [
        ("too_few_slots", "replication slots", "max_replication_slots", in_use.slots, needs.slots),
        (
            "too_few_wal_senders",
            "walsenders",
            "max_wal_senders",
            in_use.wal_senders,
            needs.wal_senders,
        ),
        ("too_few_origins", "replication origins", origin_limit, in_use.origins, needs.origins),
        (
            "too_few_workers",
            "background workers",
            "max_worker_processes",
            in_use.workers,
            needs.workers,
        ),
    ] {
        let Some(allowed) = setting(node, limit).and_then(|text| text.parse::<i64>().ok()) else {
            continue;
        };
        if used + needed > allowed {
            findings.push(Finding::block(
                code,
                node.about(limit),
                format!(
                    "the {} has {used} of {allowed} {what} in use, and this migration needs \
                     {needed} more",
                    node.side
                ),
                format!("set {limit} = {}, and restart the server", used + needed),
            ));
        }
    }
}

fn setting<'a>(node: Node<'a>, name: &str) -> Option<&'a str> {
    node.facts.settings.present()?.get(name).map(String::as_str)
}

fn names(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(|name| name.trim().trim_matches('"')).filter(|name| !name.is_empty())
}

fn with_one_more(list: &str, name: &str) -> String {
    names(list).chain([name]).collect::<Vec<_>>().join(", ")
}
