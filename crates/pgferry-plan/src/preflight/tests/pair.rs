//! A pair of servers that nothing is wrong with, and handles to spoil it one thing at a time.

use std::collections::{BTreeMap, BTreeSet};

use super::super::*;
use crate::name::TableName;
use crate::roles::{ApplicationRole, WriteAccess};
use crate::scope::{Key, RowSecurity, ScopeRules, TableView};

pub(super) fn healthy() -> PreflightFacts {
    let mut source = node(16_400, "10:00:00.000001");
    source.tables = Seen::Present(vec![table("orders")]);
    source.objects = Seen::Present(vec![object("table", "orders")]);
    source.referenced_roles = Seen::Present(BTreeMap::from([("app".to_owned(), true)]));
    PreflightFacts {
        source: Seen::Present(source),
        destination: Seen::Present(node(16_400, "11:00:00.000001")),
        existing: Seen::Absent,
        native: Seen::Absent,
        policy: policy(),
    }
}

pub(super) fn policy() -> PreflightPolicy {
    PreflightPolicy {
        migration: "shop".parse().unwrap(),
        scope: ScopeRules::default(),
        existing_schema: false,
        native_copy: false,
        fence_roles: None,
        locks_out: false,
        fence_exclusions: Vec::new(),
        max_retained_wal: None,
        progress: Progress::default(),
    }
}

pub(super) fn source(facts: &mut PreflightFacts) -> &mut NodeFacts {
    present(&mut facts.source)
}

pub(super) fn destination(facts: &mut PreflightFacts) -> &mut NodeFacts {
    present(&mut facts.destination)
}

/// Changes what was seen in place; the result of the change does not matter.
pub(super) fn alter<T, R>(look: &mut Seen<T>, change: impl FnOnce(&mut T) -> R) {
    change(present(look));
}

fn present<T>(look: &mut Seen<T>) -> &mut T {
    match look {
        Seen::Present(value) => value,
        Seen::Absent | Seen::Unknown(_) => panic!("a healthy pair was seen whole"),
    }
}

fn node(database_oid: u32, started_at: &str) -> NodeFacts {
    let roles = [
        ("app", role()),
        ("pgferry", role()),
        ("postgres", RoleFacts { superuser: true, usable_by_us: false, ..role() }),
    ];
    let settings = [
        ("wal_level", "logical"),
        ("shared_preload_libraries", "pg_stat_statements,pglogical"),
        ("max_replication_slots", "10"),
        ("max_wal_senders", "10"),
        ("max_slot_wal_keep_size", "102400"),
        ("max_worker_processes", "8"),
        ("max_locks_per_transaction", "64"),
        ("max_connections", "100"),
        ("max_prepared_transactions", "0"),
        ("pglogical.conflict_resolution", "apply_remote"),
    ];
    NodeFacts {
        server: Seen::Present(ServerFacts {
            version_num: 150_018,
            version: "15.18".into(),
            database: "shop".into(),
            database_oid,
            started_at: started_at.into(),
            in_recovery: false,
            encoding: "UTF8".into(),
            collate: "C.UTF-8".into(),
            ctype: "C.UTF-8".into(),
            locale_provider: "libc".into(),
            provider_locale: None,
        }),
        settings: Seen::Present(
            settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        ),
        catalog_settings: Seen::Present(Vec::new()),
        extensions: Seen::Present(BTreeMap::from([
            ("pglogical".to_owned(), extension(Some("2.4.2"), Some("2.4.2"))),
            ("plpgsql".to_owned(), extension(Some("1.0"), Some("1.0"))),
        ])),
        in_use: Seen::Present(InUse { workers: 2, ..InUse::default() }),
        privileges: Seen::Present(PrivilegeFacts {
            role: "pgferry".into(),
            superuser: false,
            bypasses_row_security: false,
            replication: true,
            create_role: true,
            monitor: true,
            signal_backend: true,
            creates_any_extension: false,
            create_in_database: true,
            origin_functions_refused: Vec::new(),
        }),
        pglogical: Seen::Present(PglogicalFacts {
            usage: true,
            usage_for_everybody: true,
            ..PglogicalFacts::default()
        }),
        roles: Seen::Present(roles.map(|(name, role)| (name.to_owned(), role)).into()),
        referenced_roles: Seen::Present(BTreeMap::new()),
        application_roles: Seen::Present(vec![application_role("app")]),
        schemas: Seen::Present(BTreeMap::from([(
            "public".to_owned(),
            BTreeSet::from(["app".to_owned(), "pgferry".to_owned()]),
        )])),
        tables: Seen::Present(Vec::new()),
        objects: Seen::Present(Vec::new()),
        relations: Seen::Present(RelationCounts::default()),
        uncarried: Seen::Present(Uncarried::default()),
        triggers: Seen::Present(Vec::new()),
        leftovers: Seen::Present(Leftovers::default()),
        pglogical_nodes: Seen::Present(PglogicalNodes::default()),
        transactions: Seen::Present(Vec::new()),
        jobs: Seen::Absent,
        unfenced_sessions: Seen::Present(Vec::new()),
    }
}

pub(super) fn role() -> RoleFacts {
    RoleFacts { login: true, superuser: false, usable_by_us: true, may_connect: true }
}

pub(super) fn extension(available: Option<&str>, installed: Option<&str>) -> ExtensionFacts {
    ExtensionFacts {
        available: available.map(Into::into),
        installed: installed.map(Into::into),
        needs_superuser: true,
    }
}

pub(super) fn application_role(name: &str) -> ApplicationRole {
    ApplicationRole {
        name: name.to_owned(),
        may_connect: true,
        writes: vec![WriteAccess::Grant],
        read_only_here: None,
        read_only_everywhere: None,
        alterable: true,
        login_alterable: true,
        sessions: 0,
        other_databases: Vec::new(),
    }
}

pub(super) fn object(kind: &str, name: &str) -> ObjectFacts {
    ObjectFacts {
        kind: kind.to_owned(),
        name: TableName::new("public", name),
        owner: "app".into(),
        arguments: (kind == "function").then(|| "integer".into()),
        has_storage: false,
    }
}

pub(super) fn transaction(seconds: f64) -> TransactionFacts {
    TransactionFacts {
        kind: TransactionKind::Open { pid: 1 },
        database: "shop".into(),
        role: "app".into(),
        here: true,
        seconds,
    }
}

pub(super) fn table(name: &str) -> TableView {
    TableView {
        oid: 1,
        name: TableName::new("public", name),
        owner: "app".into(),
        columns: Vec::new(),
        key: Key::Usable { index: format!("{name}_pkey"), columns: vec!["id".into()] },
        relfilenode: 1,
        bytes: 0,
        rows: None,
        row_security: RowSecurity::Off,
        row_security_active: false,
        ancestors: Vec::new(),
        unlogged: false,
    }
}
