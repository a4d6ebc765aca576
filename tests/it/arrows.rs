//! Which crate may use which: the arrows of the architecture, held by cargo's own view of them.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

/// Each crate of the workspace and the crates of the workspace it may use.
const ARROWS: [(&str, &[&str]); 10] = [
    ("pgferry-plan", &[]),
    ("pgferry-config", &["pgferry-plan"]),
    ("pgferry-engine", &["pgferry-plan"]),
    ("pgferry-postgres", &["pgferry-plan", "pgferry-config", "pgferry-engine"]),
    ("pgferry-monitor", &["pgferry-plan", "pgferry-config", "pgferry-postgres"]),
    ("pgferry-traffic", &["pgferry-plan", "pgferry-config", "pgferry-engine", "pgferry-postgres"]),
    ("pgferry-api", &["pgferry-plan"]),
    ("pgferry-server", &["pgferry-plan", "pgferry-config", "pgferry-engine", "pgferry-api"]),
    (
        "pgferry",
        &[
            "pgferry-plan",
            "pgferry-config",
            "pgferry-engine",
            "pgferry-postgres",
            "pgferry-monitor",
            "pgferry-api",
            "pgferry-server",
            "pgferry-traffic",
        ],
    ),
    ("pgferry-tests", &["pgferry-plan"]),
];

/// What would bring I/O, async or a server into the pure core, or a database into a crate that is
/// to be tested without one.
const KEPT_OUT: [(&str, &[&str]); 4] = [
    ("pgferry-plan", &["tokio", "tokio-postgres", "axum", "ureq", "tracing"]),
    ("pgferry-engine", &["tokio-postgres", "axum", "ureq"]),
    ("pgferry-api", &["tokio", "tokio-postgres", "axum"]),
    ("pgferry-server", &["tokio-postgres"]),
];

#[test]
fn every_crate_uses_only_those_below_it() {
    let workspace = workspace();
    let members: BTreeSet<String> = workspace.keys().cloned().collect();
    for (name, uses) in &workspace {
        let (_, allowed) = ARROWS
            .iter()
            .find(|(member, _)| member == name)
            .unwrap_or_else(|| panic!("{name} has no row in ARROWS: say what it may use"));
        for used in uses.intersection(&members) {
            assert!(allowed.contains(&used.as_str()), "{name} may not use {used}");
        }
    }
    for (name, _) in ARROWS {
        assert!(workspace.contains_key(name), "{name} is in ARROWS and not in the workspace");
    }
}

#[test]
fn the_core_has_no_way_to_the_outside() {
    let metadata = metadata();
    for (name, kept_out) in KEPT_OUT {
        let reached = everything_under(&metadata, name);
        for forbidden in kept_out {
            assert!(!reached.contains(*forbidden), "{name} reaches {forbidden}");
        }
    }
}

#[test]
fn only_one_crate_speaks_to_databases() {
    for (name, uses) in workspace() {
        let may = matches!(name.as_str(), "pgferry-postgres" | "pgferry-tests");
        assert!(may || !uses.contains("tokio-postgres"), "{name} uses tokio-postgres");
    }
}

/// Each member and what it depends on directly, tests' dependencies left out.
fn workspace() -> BTreeMap<String, BTreeSet<String>> {
    metadata()
        .workspace_packages()
        .into_iter()
        .map(|package| (package.name.to_string(), direct(package)))
        .collect()
}

fn direct(package: &Package) -> BTreeSet<String> {
    package
        .dependencies
        .iter()
        .filter(|dependency| dependency.kind != DependencyKind::Development)
        .map(|dependency| dependency.name.clone())
        .collect()
}

/// All packages that a member reaches over normal dependencies.
fn everything_under(metadata: &Metadata, name: &str) -> BTreeSet<String> {
    let resolve = metadata.resolve.as_ref().unwrap();
    let member = metadata.packages.iter().find(|p| p.name.as_str() == name).unwrap();
    let mut waiting = vec![member.id.clone()];
    let mut reached = BTreeSet::new();
    while let Some(id) = waiting.pop() {
        let node = resolve.nodes.iter().find(|node| node.id == id).unwrap();
        for dependency in &node.deps {
            let normal =
                dependency.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal);
            let package = &metadata[&dependency.pkg];
            if normal && reached.insert(package.name.to_string()) {
                waiting.push(dependency.pkg.clone());
            }
        }
    }
    reached
}

fn metadata() -> Metadata {
    MetadataCommand::new()
        .manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .exec()
        .unwrap()
}
