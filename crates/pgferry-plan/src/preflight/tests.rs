//! Every finding, as one change to a healthy pair: the change in, the findings out.

mod pair;

use pair::{
    alter, application_role, destination, extension, healthy, object, policy, source, table,
    transaction,
};

use super::*;
use crate::name::TableName;
use crate::roles::WriteAccess;
use crate::scope::{Key, RowSecurity};

/// The change leads to exactly this finding, whose remedy holds this text.
fn finds(change: impl FnOnce(&mut PreflightFacts), severity: Severity, code: &str, remedy: &str) {
    let findings = found_after(change);
    let [finding] = findings.as_slice() else {
        panic!("expected {code} alone, found {findings:#?}");
    };
    assert_eq!((finding.severity, finding.code.as_str()), (severity, code), "{finding:#?}");
    assert!(finding.hint.contains(remedy), "{finding:#?}");
}

fn blocks(change: impl FnOnce(&mut PreflightFacts), code: &str, remedy: &str) {
    finds(change, Severity::Block, code, remedy);
}

fn warns(change: impl FnOnce(&mut PreflightFacts), code: &str, remedy: &str) {
    finds(change, Severity::Warn, code, remedy);
}

fn found_after(change: impl FnOnce(&mut PreflightFacts)) -> Vec<Finding> {
    let mut facts = healthy();
    change(&mut facts);
    check(&facts)
}

fn codes(findings: &[Finding]) -> Vec<&str> {
    findings.iter().map(|finding| finding.code.as_str()).collect()
}

#[test]
fn a_healthy_pair_has_no_findings() {
    assert_eq!(check(&healthy()), []);
}

#[test]
fn an_unreachable_side_is_one_finding_and_hides_nothing_of_the_other() {
    blocks(|f| f.source = Seen::Unknown("no route".to_owned()), "source_unreachable", "dsn");
    blocks(|f| f.destination = Seen::Absent, "destination_unreachable", "dsn");
    let findings = found_after(|f| {
        f.destination = Seen::Unknown("no route".to_owned());
        alter(&mut source(f).settings, |s| s.insert("wal_level".into(), "replica".into()));
    });
    assert_eq!(codes(&findings), ["destination_unreachable", "wal_level_not_logical"]);
    assert!(findings[0].message.contains("no route"));
}

#[test]
fn what_was_not_seen_blocks_and_is_not_taken_for_absent() {
    let findings = found_after(|f| *source(f) = NodeFacts::default());
    assert_eq!(findings.len(), 21, "{findings:#?}");
    assert!(findings.iter().all(|finding| finding.code == "not_seen"));
    blocks(
        |f| destination(f).jobs = Seen::Unknown("permission denied for schema cron".to_owned()),
        "not_seen",
        "run preflight again",
    );
    blocks(|f| source(f).triggers = Seen::Absent, "not_seen", "run preflight again");
    blocks(
        |f| alter(&mut source(f).settings, |s| s.remove("shared_preload_libraries")),
        "not_seen",
        "GRANT pg_monitor TO \"pgferry\";",
    );
}

#[test]
fn versions_and_the_kind_of_server() {
    blocks(
        |f| {
            alter(&mut source(f).server, |s| s.version_num = 120_020);
        },
        "version_not_supported",
        "13 to 18",
    );
    blocks(
        |f| alter(&mut source(f).server, |s| s.version_num = 160_004),
        "destination_older",
        "PostgreSQL 16 or later",
    );
    blocks(
        |f| alter(&mut destination(f).server, |s| s.in_recovery = true),
        "server_is_standby",
        "primary",
    );
    blocks(|f| f.destination = f.source.clone(), "same_server", "dsn");
}

#[test]
fn encodings_and_locales() {
    blocks(
        |f| alter(&mut destination(f).server, |s| s.encoding = "LATIN1".into()),
        "encodings_differ",
        "ENCODING 'UTF8' TEMPLATE template0",
    );
    warns(
        |f| {
            alter(&mut destination(f).server, |s| {
                s.locale_provider = "icu".into();
                s.provider_locale = Some("de".into());
            });
        },
        "collations_differ",
        "locale",
    );
}

#[test]
fn server_settings() {
    let set = |name: &'static str, value: &'static str| {
        move |f: &mut PreflightFacts| {
            alter(&mut source(f).settings, |s| s.insert(name.into(), value.into()));
        }
    };
    blocks(set("wal_level", "replica"), "wal_level_not_logical", "wal_level = logical");
    blocks(
        set("shared_preload_libraries", "pg_stat_statements,pglogical2"),
        "pglogical_not_preloaded",
        "shared_preload_libraries = 'pg_stat_statements, pglogical2, pglogical'",
    );
    blocks(
        set("output_plugin_libraries", "pgoutput, test_decoding"),
        "output_plugin_refused",
        "output_plugin_libraries = 'pgoutput, test_decoding, pglogical_output'",
    );
    let listed = found_after(set("output_plugin_libraries", "pgoutput, \"pglogical_output\""));
    assert_eq!(listed, []);
    blocks(
        set("pglogical.conflict_resolution", "last_update_wins"),
        "conflict_resolution",
        "'apply_remote'",
    );
    warns(set("max_slot_wal_keep_size", "-1"), "wal_unbounded", "copy.max_retained_wal");
    let bounded = found_after(|f| {
        set("max_slot_wal_keep_size", "-1")(f);
        f.policy.max_retained_wal = Some(1 << 30);
    });
    assert_eq!(bounded, []);
}

#[test]
fn the_servers_limits_leave_room_unless_it_is_taken_by_ourselves() {
    for (used, code, remedy) in [
        (InUse { slots: 9, ..InUse::default() }, "too_few_slots", "max_replication_slots = 11"),
        (InUse { wal_senders: 8, ..InUse::default() }, "too_few_wal_senders", "senders = 11"),
        (InUse { origins: 10, ..InUse::default() }, "too_few_origins", "replication_slots = 11"),
        (InUse { workers: 6, ..InUse::default() }, "too_few_workers", "max_worker_processes = 9"),
    ] {
        blocks(|f| source(f).in_use = Seen::Present(used), code, remedy);
        let ours = found_after(|f| {
            source(f).in_use = Seen::Present(used);
            f.policy.progress.nodes = true;
        });
        assert_eq!(ours, []);
    }
    let found = found_after(|f| {
        source(f).in_use = Seen::Present(InUse { slots: 8, origins: 9, ..InUse::default() });
    });
    assert_eq!(found, [], "exactly enough is enough");
    blocks(
        |f| {
            for node in [source, destination] {
                alter(&mut node(f).server, |s| s.version_num = 180_001);
                alter(&mut node(f).pglogical, |p| p.may_mark_initialised = true);
            }
            alter(&mut source(f).settings, |s| {
                s.insert("max_active_replication_origins".into(), "0".into())
            });
        },
        "too_few_origins",
        "max_active_replication_origins = 1",
    );
}

#[test]
fn the_lock_tables_hold_what_the_schema_copy_locks() {
    let many = |tables, toast_tables, sequences, others| {
        move |f: &mut PreflightFacts| {
            source(f).relations =
                Seen::Present(RelationCounts { tables, toast_tables, sequences, others });
        }
    };
    // 64 times 100 connections, less what is held beside.
    assert_eq!(found_after(many(2_000, 1_000, 2_000, 100)), [], "exactly enough is enough");
    let one_more = many(2_000, 1_000, 2_000, 101);
    blocks(one_more, "too_few_locks", "max_locks_per_transaction = 65,");
    // The source has the tables alone to lock, or the sequences alone.
    let findings = found_after(many(10_000, 10_000, 10_000, 0));
    assert_eq!(codes(&findings), ["too_few_locks"; 2]);
    assert!(findings[0].hint.contains("= 103,") && findings[0].subject.starts_with("source"));
    assert!(findings[1].hint.contains("= 403,") && findings[1].subject.starts_with("destination"));
    // Prepared transactions have their share of the same table.
    let roomy = found_after(|f| {
        many(10_000, 10_000, 10_000, 0)(f);
        for node in [source, destination] {
            alter(&mut node(f).settings, |s| {
                s.insert("max_prepared_transactions".into(), "600".into())
            });
        }
    });
    assert_eq!(roomy, []);
    // What was copied already needs no room any more; its sequences still do.
    let copied = |sequences| {
        move |f: &mut PreflightFacts| {
            many(6_000, 6_000, sequences, 0)(f);
            f.policy.progress = Progress { started: true, nodes: true, schema: true };
        }
    };
    assert_eq!(found_after(copied(6_000)), []);
    assert_eq!(codes(&found_after(copied(7_000))), ["too_few_locks"; 2]);
}

#[test]
fn pglogical_is_there_or_can_be_made() {
    blocks(
        |f| alter(&mut source(f).extensions, |e| e.remove("pglogical")),
        "pglogical_not_available",
        "postgresql-<major>-pglogical",
    );
    let uninstalled = |f: &mut PreflightFacts| {
        alter(&mut source(f).extensions, |e| {
            e.insert("pglogical".into(), extension(Some("2.4.2"), None))
        });
        source(f).pglogical = Seen::Absent;
        source(f).pglogical_nodes = Seen::Absent;
    };
    blocks(
        uninstalled,
        "pglogical_missing",
        "CREATE EXTENSION pglogical; GRANT USAGE ON SCHEMA pglogical TO PUBLIC; \
         REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA pglogical FROM PUBLIC; \
         GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA pglogical TO \"pgferry\"; \
         GRANT SELECT ON ALL TABLES IN SCHEMA pglogical TO \"pgferry\";",
    );
    let may_create = found_after(|f| {
        uninstalled(f);
        alter(&mut source(f).privileges, |p| p.creates_any_extension = true);
    });
    assert_eq!(may_create, []);
    blocks(
        |f| {
            alter(&mut source(f).extensions, |e| {
                e.insert("pglogical".into(), extension(Some("2.4.2"), Some("2.3.2")))
            });
        },
        "pglogical_too_old",
        "ALTER EXTENSION pglogical UPDATE;",
    );
}

#[test]
fn an_old_pglogical_cannot_begin_a_stream_from_a_newer_server_without_rights() {
    let to_17 = |f: &mut PreflightFacts| {
        alter(&mut destination(f).server, |server| server.version_num = 170_011);
        alter(&mut destination(f).extensions, |e| {
            e.insert("pglogical".into(), extension(Some("2.4.5"), Some("2.4.5")))
        });
    };
    let to_17_with_rights = |f: &mut PreflightFacts| {
        to_17(f);
        alter(&mut source(f).pglogical, |p| p.may_mark_initialised = true);
    };
    assert_eq!(found_after(to_17_with_rights), []);
    blocks(
        to_17,
        "stream_cannot_begin",
        "GRANT UPDATE (sync_status) ON pglogical.local_sync_status TO \"pgferry\";",
    );
    let found = found_after(|f| {
        to_17_with_rights(f);
        alter(&mut source(f).privileges, |p| {
            p.origin_functions_refused = vec![
                "pg_replication_origin_create(text)".into(),
                "pg_replication_origin_drop(text)".into(),
            ];
        });
    });
    let hint = found.iter().find(|f| f.code == "stream_cannot_begin").map(|f| f.hint.as_str());
    assert_eq!(
        hint,
        Some(
            "GRANT EXECUTE ON FUNCTION pg_catalog.pg_replication_origin_create(text) \
             TO \"pgferry\";"
        )
    );
    let beyond_grants = found_after(|f| {
        to_17_with_rights(f);
        alter(&mut source(f).server, |server| server.version_num = 130_016);
        alter(&mut source(f).privileges, |p| {
            p.origin_functions_refused = vec!["pg_replication_origin_create(text)".into()];
        });
    });
    for (code, words) in [
        ("stream_cannot_begin", "install a package of pglogical 2.4.5"),
        ("origin_functions_not_granted", "nothing can be granted"),
    ] {
        let hint = beyond_grants.iter().find(|f| f.code == code).map(|f| f.hint.as_str());
        assert!(hint.is_some_and(|hint| hint.contains(words)), "{beyond_grants:?}");
    }
    let newer = found_after(|f| {
        to_17(f);
        alter(&mut source(f).extensions, |e| {
            e.insert("pglogical".into(), extension(Some("2.4.5"), Some("2.4.5")))
        });
    });
    assert_eq!(newer, []);
}

#[test]
fn rights_in_the_schema_of_pglogical() {
    let right = |change: fn(&mut PglogicalFacts)| {
        move |f: &mut PreflightFacts| alter(&mut destination(f).pglogical, change)
    };
    blocks(right(|p| p.usage = false), "pglogical_usage_missing", "TO \"pgferry\";");
    blocks(
        right(|p| p.functions_refused = vec!["create_node".into()]),
        "pglogical_execute_missing",
        "GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA pglogical TO \"pgferry\";",
    );
    blocks(
        right(|p| p.tables_refused = vec!["node".into()]),
        "pglogical_select_missing",
        "GRANT SELECT ON ALL TABLES IN SCHEMA pglogical TO \"pgferry\";",
    );
    warns(
        right(|p| p.usage_for_everybody = false),
        "pglogical_usage_not_public",
        "GRANT USAGE ON SCHEMA pglogical TO PUBLIC;",
    );
    warns(
        right(|p| p.execute_for_everybody = true),
        "pglogical_execute_public",
        "REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA pglogical FROM PUBLIC;",
    );
}

#[test]
fn extensions_of_the_source_come_to_exist_on_the_destination() {
    let uses = |name: &'static str, there: Option<ExtensionFacts>| {
        move |f: &mut PreflightFacts| {
            alter(&mut source(f).extensions, |e| {
                e.insert(name.into(), extension(Some("1"), Some("1")))
            });
            if let Some(there) = there {
                alter(&mut destination(f).extensions, |e| e.insert(name.into(), there));
            }
        }
    };
    blocks(uses("postgis", None), "extension_not_available", "DROP EXTENSION \"postgis\";");
    blocks(
        uses("dblink", Some(extension(Some("1"), None))),
        "extension_missing",
        "CREATE EXTENSION \"dblink\";",
    );
    let trusted = ExtensionFacts { needs_superuser: false, ..extension(Some("1"), None) };
    assert_eq!(found_after(uses("citext", Some(trusted))), []);
}

#[test]
fn privileges_of_our_role() {
    let without = |change: fn(&mut PrivilegeFacts)| {
        move |f: &mut PreflightFacts| alter(&mut source(f).privileges, change)
    };
    for (change, code, remedy) in [
        (
            without(|p| p.replication = false),
            "replication_missing",
            "ALTER ROLE \"pgferry\" REPLICATION;",
        ),
        (
            without(|p| p.create_role = false),
            "createrole_missing",
            "ALTER ROLE \"pgferry\" CREATEROLE;",
        ),
        (without(|p| p.monitor = false), "monitor_missing", "GRANT pg_monitor TO \"pgferry\";"),
        (
            without(|p| p.signal_backend = false),
            "signal_backend_missing",
            "GRANT pg_signal_backend TO \"pgferry\";",
        ),
        (
            without(|p| p.create_in_database = false),
            "create_on_database_missing",
            "GRANT CREATE ON DATABASE \"shop\" TO \"pgferry\";",
        ),
    ] {
        blocks(change, code, remedy);
    }
    warns(
        without(|p| p.origin_functions_refused = vec!["pg_replication_origin_oid(text)".into()]),
        "origin_functions_not_granted",
        "GRANT EXECUTE ON FUNCTION pg_catalog.pg_replication_origin_oid(text) TO \"pgferry\";",
    );
}

#[test]
fn roles_that_the_schema_names_exist_on_the_destination() {
    blocks(
        |f| {
            alter(&mut source(f).referenced_roles, |r| r.insert("Report ing".into(), false));
            let role = RoleFacts { login: true, ..pair::role() };
            alter(&mut source(f).roles, |r| r.insert("Report ing".into(), role));
        },
        "roles_missing",
        "CREATE ROLE \"Report ing\" LOGIN;",
    );
    blocks(
        |f| alter(&mut destination(f).roles, |r| r.get_mut("app").unwrap().usable_by_us = false),
        "not_member_of_owner",
        "GRANT \"app\" TO \"pgferry\";",
    );
    blocks(
        |f| {
            alter(&mut source(f).referenced_roles, |r| r.insert("postgres".into(), true));
            let owned = ["table", "function"]
                .map(|kind| ObjectFacts { owner: "postgres".into(), ..object(kind, "legacy") });
            alter(&mut source(f).objects, |o| o.extend(owned));
        },
        "owned_by_superuser",
        "ALTER TABLE \"public\".\"legacy\" OWNER TO \"app\"; \
         ALTER ROUTINE \"public\".\"legacy\"(integer) OWNER TO \"app\";",
    );
    blocks(
        |f| alter(&mut destination(f).schemas, |s| s.get_mut("public").unwrap().clear()),
        "create_on_schema_missing",
        "GRANT CREATE ON SCHEMA \"public\" TO \"app\", \"pgferry\";",
    );
}

#[test]
fn a_role_that_an_earlier_migration_left_read_only_is_not_taken_over_as_it_is() {
    blocks(
        |f| {
            alter(&mut destination(f).application_roles, |r| {
                r[0].read_only_here = Some("on".to_owned());
            });
        },
        "role_read_only",
        "ALTER ROLE \"app\" IN DATABASE",
    );
}

#[test]
fn a_role_that_other_databases_use_is_not_locked_out() {
    let used = |f: &mut PreflightFacts| {
        alter(&mut source(f).application_roles, |r| r[0].other_databases = vec!["crm".into()]);
        alter(&mut destination(f).application_roles, |r| r[0].login_alterable = false);
    };
    assert_eq!(found_after(used), []);
    let found = found_after(|f| {
        used(f);
        f.policy.locks_out = true;
    });
    assert_eq!(codes(&found), ["role_used_elsewhere", "role_not_fenceable"]);
    assert!(found[1].hint.contains("ALTER ROLE \"app\" NOREPLICATION"), "{found:?}");
    assert!(found[0].message.ends_with("lock it out of them: crm"), "{found:?}");
}

#[test]
fn application_roles_can_be_fenced_on_both_sides() {
    blocks(
        |f| alter(&mut destination(f).application_roles, |r| r[0].alterable = false),
        "role_not_fenceable",
        "GRANT \"app\" TO \"pgferry\" WITH ADMIN OPTION;",
    );
    let superuser =
        found_after(|f| f.policy.fence_roles = Some(vec!["app".into(), "postgres".into()]));
    assert_eq!(codes(&superuser), ["role_not_fenceable", "role_not_fenceable"]);
    assert_eq!(superuser[0].hint, "ALTER ROLE \"postgres\" NOSUPERUSER;");
    warns(
        |f| {
            for node in [source, destination] {
                alter(&mut node(f).application_roles, |r| r[0].writes.clear());
            }
        },
        "no_role_to_fence",
        "a role of its own",
    );
    blocks(
        |f| {
            f.policy.fence_roles = Some(vec!["app".into()]);
            let mut batch = application_role("batch");
            batch.writes = vec![WriteAccess::Create];
            alter(&mut source(f).application_roles, |r| r.push(batch));
            for node in [source, destination] {
                alter(&mut node(f).roles, |r| r.insert("batch".into(), pair::role()));
            }
        },
        "writers_not_fenced",
        "fence.exclude_roles = [\"batch\"]",
    );
    let excluded = found_after(|f| f.policy.fence_exclusions = vec!["app".into()]);
    assert_eq!(codes(&excluded), ["no_role_to_fence", "excluded_roles_may_write"]);
    blocks(
        |f| alter(&mut destination(f).roles, |r| r.get_mut("app").unwrap().may_connect = false),
        "role_cannot_connect",
        "GRANT CONNECT ON DATABASE \"shop\" TO \"app\";",
    );
}

#[test]
fn a_missing_createrole_is_said_once_and_not_for_every_role() {
    blocks(
        |f| {
            alter(&mut source(f).privileges, |p| p.create_role = false);
            alter(&mut source(f).application_roles, |r| r[0].alterable = false);
        },
        "createrole_missing",
        "CREATEROLE",
    );
}

#[test]
fn the_destination_is_empty_until_the_schema_is_copied() {
    let occupied = |f: &mut PreflightFacts| {
        destination(f).objects = Seen::Present(vec![
            object("table", "orders"),
            object("materialized view", "Totals"),
            object("function", "f"),
        ]);
    };
    blocks(
        occupied,
        "destination_not_empty",
        "DROP TABLE IF EXISTS \"public\".\"orders\" CASCADE; \
         DROP MATERIALIZED VIEW IF EXISTS \"public\".\"Totals\" CASCADE; \
         DROP ROUTINE IF EXISTS \"public\".\"f\"(integer) CASCADE;",
    );
    let with_rows = found_after(|f| {
        occupied(f);
        alter(&mut destination(f).objects, |o| o[0].has_storage = true);
    });
    assert!(!with_rows[0].hint.contains("DROP"), "{with_rows:#?}");
    assert!(with_rows[0].hint.contains("not exchanged"), "{with_rows:#?}");
    let ours = found_after(|f| {
        occupied(f);
        f.policy.progress.schema = true;
    });
    assert_eq!(ours, []);
}

#[test]
fn a_schema_that_is_to_be_there_is_compared_and_not_in_the_way() {
    let existing = |f: &mut PreflightFacts| {
        f.policy.existing_schema = true;
        f.existing = Seen::Present(ExistingView::default());
        destination(f).tables = Seen::Present(vec![table("orders")]);
        destination(f).objects = Seen::Present(vec![object("table", "orders")]);
        alter(&mut destination(f).schemas, std::collections::BTreeMap::clear);
    };
    assert_eq!(found_after(existing), []);
    blocks(
        |f| {
            existing(f);
            f.existing = Seen::Unknown("no answer".to_owned());
        },
        "not_seen",
        "run preflight again",
    );
    warns(
        |f| {
            existing(f);
            let finding = Finding::warn("extra_indexes", "s", "m", "DROP INDEX");
            alter(&mut f.existing, |view| view.findings.push(finding));
        },
        "extra_indexes",
        "DROP INDEX",
    );
    blocks(
        |f| {
            existing(f);
            alter(&mut destination(f).tables, |t| t[0].owner = "postgres".into());
        },
        "owned_by_superuser",
        "on the source",
    );
}

#[test]
fn what_pglogicals_own_copy_needs() {
    let generated = |f: &mut PreflightFacts| {
        alter(&mut source(f).tables, |tables| {
            tables[0].columns = vec![crate::scope::ColumnView {
                name: "full".into(),
                type_name: "text".into(),
                collation: None,
                not_null: false,
                generated: Some(crate::scope::Generated::Stored),
                identity: None,
                position: 1,
            }];
        });
    };
    let native = |f: &mut PreflightFacts| {
        f.policy.native_copy = true;
        f.native = Seen::Present(NativeCopyFacts {
            role: "pgferry".into(),
            may_set_replication_role: true,
            may_use_origins: true,
        });
    };
    assert_eq!(found_after(generated), []);
    assert_eq!(found_after(native), []);
    blocks(|f| f.policy.native_copy = true, "not_seen", "run preflight again");
    blocks(
        |f| {
            native(f);
            alter(&mut f.native, |n| n.may_set_replication_role = false);
        },
        "native_copy_refused",
        "GRANT SET ON PARAMETER session_replication_role TO \"pgferry\";",
    );
    blocks(
        |f| {
            native(f);
            alter(&mut f.native, |n| n.may_use_origins = false);
        },
        "native_copy_refused",
        "pg_replication_origin_session_setup",
    );
    blocks(
        |f| {
            generated(f);
            native(f);
        },
        "generated_columns",
        "scope.exclude_tables = [\"public.orders\"]",
    );
}

#[test]
fn tables_without_a_usable_key() {
    let keyed_by = |key: Key| {
        move |f: &mut PreflightFacts| {
            let mut view = table("events");
            view.key = key;
            alter(&mut source(f).tables, |t| t.push(view));
        }
    };
    for (key, remedy) in [
        (
            Key::Missing { candidate: None },
            "ALTER TABLE \"public\".\"events\" ADD COLUMN pgferry_key bigint",
        ),
        (Key::Missing { candidate: None }, "scope.insert_only = [\"public.events\"]"),
        (
            Key::Missing { candidate: Some("u".into()) },
            "ALTER TABLE \"public\".\"events\" REPLICA IDENTITY USING INDEX \"u\";",
        ),
        (Key::Ignored { index: "p".into() }, "REPLICA IDENTITY DEFAULT;"),
        (Key::Invalid { index: "p".into() }, "REINDEX INDEX \"public\".\"p\";"),
        (
            Key::Deferrable { index: "p".into(), columns: vec!["id".into()] },
            "DROP CONSTRAINT \"p\", ADD CONSTRAINT \"p\" PRIMARY KEY (\"id\");",
        ),
    ] {
        blocks(keyed_by(key), "table_without_key", remedy);
    }
    let named = found_after(|f| {
        keyed_by(Key::Missing { candidate: None })(f);
        f.policy.scope.insert_only = [TableName::new("public", "events")].into();
    });
    assert_eq!(named, []);
}

#[test]
fn insert_only_names_tables_that_need_it() {
    let names = |name: &'static str| {
        move |f: &mut PreflightFacts| {
            f.policy.scope.insert_only = [TableName::new("public", name)].into();
        }
    };
    warns(names("nowhere"), "insert_only_unknown", "scope.insert_only");
    warns(names("orders"), "insert_only_has_key", "scope.insert_only");
    warns(|f| source(f).tables = Seen::Present(vec![]), "nothing_in_scope", "scope.schemas");
}

#[test]
fn tables_that_no_set_carries_whole() {
    warns(
        |f| alter(&mut source(f).tables, |t| t[0].unlogged = true),
        "unlogged_tables",
        "ALTER TABLE \"public\".\"orders\" SET LOGGED;",
    );
    warns(
        // No stream needs to find its rows, so it needs no key.
        |f| {
            alter(&mut source(f).tables, |t| {
                t[0].unlogged = true;
                t[0].key = Key::Missing { candidate: None };
            });
        },
        "unlogged_tables",
        "scope.exclude_tables = [\"public.orders\"]",
    );
    blocks(
        |f| alter(&mut source(f).tables, |t| t[0].row_security_active = true),
        "row_security",
        "ALTER ROLE \"pgferry\" BYPASSRLS;",
    );
    blocks(
        |f| {
            alter(&mut source(f).tables, |t| t[0].row_security = RowSecurity::Forced);
            alter(&mut source(f).privileges, |p| p.bypasses_row_security = true);
        },
        "row_security",
        "ALTER ROLE \"pgferry\" BYPASSRLS;",
    );
    warns(
        |f| {
            source(f).triggers = Seen::Present(vec![TriggerFacts {
                table: TableName::new("public", "orders"),
                name: "audit".into(),
                always: true,
            }]);
        },
        "triggers_fire_on_apply",
        "ALTER TABLE \"public\".\"orders\" ENABLE TRIGGER \"audit\";",
    );
    warns(
        |f| alter(&mut source(f).objects, |o| o.push(object("foreign table", "far"))),
        "foreign_tables",
        "foreign servers",
    );
    warns(
        |f| alter(&mut source(f).objects, |o| o.push(object("materialized view", "totals"))),
        "materialized_views",
        "REFRESH MATERIALIZED VIEW \"public\".\"totals\";",
    );
}

#[test]
fn what_is_in_the_database_beside_tables() {
    let beside = |change: fn(&mut Uncarried)| {
        move |f: &mut PreflightFacts| alter(&mut source(f).uncarried, change)
    };
    warns(beside(|u| u.large_objects = 3), "large_objects", "no switchover begins");
    blocks(
        beside(|u| u.subscriptions = vec!["feed".into()]),
        "subscriptions_active",
        "ALTER SUBSCRIPTION \"feed\" DISABLE;",
    );
    warns(
        beside(|u| u.event_triggers = vec!["guard".into()]),
        "event_triggers",
        "DROP EVENT TRIGGER \"guard\";",
    );
}

#[test]
fn large_objects_are_copied_by_a_role_that_may_and_into_a_database_without_any() {
    let owned_by = |owner: &'static str, refused: i64| {
        move |f: &mut PreflightFacts| {
            for node in [source, destination] {
                alter(&mut node(f).roles, |r| r.insert("media".into(), pair::role()));
            }
            source(f).uncarried = Seen::Present(Uncarried {
                large_objects: 2000,
                large_objects_refused: refused,
                large_object_owners: vec![owner.into()],
                ..Uncarried::default()
            });
        }
    };
    warns(owned_by("media", 0), "large_objects", "bytea");

    let refused = found_after(|f| {
        owned_by("media", 7)(f);
        alter(&mut source(f).roles, |r| r.get_mut("media").unwrap().usable_by_us = false);
    });
    assert_eq!(codes(&refused), ["large_objects_refused", "large_objects"]);
    assert!(refused[0].message.contains("may not read 7 of"), "{refused:#?}");
    assert_eq!(refused[0].hint, "GRANT \"media\" TO \"pgferry\";");
    assert!(refused[1].message.contains("at least 2000"), "{refused:#?}");

    let there = found_after(|f| {
        owned_by("media", 0)(f);
        alter(&mut destination(f).roles, |r| r.get_mut("media").unwrap().usable_by_us = false);
    });
    assert_eq!(codes(&there), ["large_objects_refused", "large_objects"]);
    assert!(there[0].subject.starts_with("destination"), "{there:#?}");

    for lacks in [false, true] {
        let by_superuser = found_after(|f| {
            owned_by("postgres", 0)(f);
            if lacks {
                alter(&mut destination(f).roles, |r| r.remove("postgres"));
            }
        });
        assert_eq!(codes(&by_superuser), ["large_objects_refused", "large_objects"]);
        assert!(by_superuser[0].hint.contains("'\"postgres\"'::regrole"), "{by_superuser:#?}");
        assert!(!by_superuser[0].hint.contains("GRANT \"postgres\""), "{by_superuser:#?}");
    }
    let unreadable = found_after(|f| owned_by("media", 1)(f));
    assert!(unreadable[0].hint.contains("GRANT SELECT ON LARGE OBJECT"), "{unreadable:#?}");

    let occupied =
        |f: &mut PreflightFacts| alter(&mut destination(f).uncarried, |u| u.large_objects = 1);
    blocks(occupied, "destination_large_objects", "not exchanged");
    let ours = found_after(|f| {
        occupied(f);
        f.policy.progress.schema = true;
    });
    assert_eq!(ours, []);
}

#[test]
fn leftovers_are_what_is_not_our_own() {
    let left = |f: &mut PreflightFacts| {
        source(f).leftovers = Seen::Present(Leftovers {
            pgferry_schema: true,
            slots: vec!["pgl_shop_a_b".into()],
            origins: vec!["pgl_shop_c_d".into()],
        });
        source(f).pglogical_nodes = Seen::Present(PglogicalNodes {
            nodes: vec!["far".into(), "near".into()],
            subscriptions: vec!["sub".into()],
        });
    };
    blocks(
        left,
        "leftovers",
        "SELECT pglogical.drop_subscription('sub', true); \
         SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = \
         'pgl_shop_a_b' AND active; SELECT pg_drop_replication_slot('pgl_shop_a_b'); \
         SELECT pg_replication_origin_drop(roname) FROM pg_replication_origin WHERE roname = 'pgl_shop_c_d'; \
         SELECT pglogical.drop_node('far', true); SELECT pglogical.drop_node('near', true); \
         DROP SCHEMA pgferry CASCADE;",
    );
    let started = found_after(|f| {
        left(f);
        f.policy.progress.started = true;
    });
    assert!(!started[0].hint.contains("DROP SCHEMA pgferry"), "{started:#?}");
    let ours = found_after(|f| {
        left(f);
        f.policy.progress = Progress { started: true, nodes: true, schema: false };
    });
    assert_eq!(ours, []);
}

#[test]
fn transactions_that_would_be_waited_for() {
    let open = |seconds: f64| TransactionFacts {
        kind: TransactionKind::Open { pid: 42 },
        ..transaction(seconds)
    };
    let prepared = |seconds: f64| TransactionFacts {
        kind: TransactionKind::Prepared { gid: "it's".into() },
        ..transaction(seconds)
    };
    blocks(
        |f| source(f).transactions = Seen::Present(vec![open(301.0)]),
        "long_transaction",
        "SELECT pg_terminate_backend(42);",
    );
    warns(
        |f| source(f).transactions = Seen::Present(vec![open(61.0)]),
        "long_transaction",
        "SELECT pg_terminate_backend(42);",
    );
    warns(
        |f| destination(f).transactions = Seen::Present(vec![open(301.0)]),
        "long_transaction",
        "SELECT pg_terminate_backend(42);",
    );
    for node in [source, destination] {
        blocks(
            |f| node(f).transactions = Seen::Present(vec![prepared(0.1)]),
            "prepared_transaction",
            "ROLLBACK PREPARED 'it''s'; as app",
        );
    }
    let elsewhere = TransactionFacts { here: false, ..prepared(10.0) };
    assert_eq!(found_after(|f| source(f).transactions = Seen::Present(vec![elsewhere])), []);
}

#[test]
fn jobs_and_sessions_that_no_fence_holds() {
    blocks(
        |f| source(f).jobs = Seen::Present(JobFacts { hidden: true, jobs: vec![7] }),
        "scheduled_jobs",
        "SELECT cron.alter_job(7, active := false);",
    );
    blocks(
        |f| source(f).jobs = Seen::Present(JobFacts { hidden: true, jobs: vec![] }),
        "scheduled_jobs",
        "ALTER ROLE \"pgferry\" BYPASSRLS;",
    );
    assert_eq!(found_after(|f| source(f).jobs = Seen::Present(JobFacts::default())), []);
    warns(
        |f| {
            source(f).unfenced_sessions = Seen::Present(vec![UnfencedSessions {
                role: "postgres".into(),
                superuser: true,
                application: "orders".into(),
                sessions: 2,
            }]);
        },
        "unfenced_sessions",
        "a role of its own",
    );
}

#[test]
fn settings_of_roles_and_of_the_database() {
    let sets =
        |role: Option<&'static str>, name: &'static str, value: &'static str| CatalogSetting {
            in_database: true,
            role: role.map(Into::into),
            name: name.into(),
            value: value.into(),
            is_worker: role.is_none(),
        };
    warns(
        |f| {
            let setting = sets(Some("app"), "search_path", "app, \"Odd, one\"");
            source(f).catalog_settings = Seen::Present(vec![setting]);
        },
        "settings_differ",
        "ALTER ROLE \"app\" IN DATABASE \"shop\" SET \"search_path\" TO 'app', 'Odd, one';",
    );
    warns(
        |f| {
            let setting = sets(None, "my.setting", "x");
            destination(f).catalog_settings = Seen::Present(vec![setting]);
        },
        "settings_differ",
        "ALTER DATABASE \"shop\" RESET \"my\".\"setting\";",
    );
    let of_the_fence = found_after(|f| {
        let setting = sets(Some("app"), "default_transaction_read_only", "on");
        destination(f).catalog_settings = Seen::Present(vec![setting]);
    });
    assert_eq!(of_the_fence, []);
    let both = |name: &'static str, value: &'static str| {
        move |f: &mut PreflightFacts| {
            for node in [source, destination] {
                node(f).catalog_settings = Seen::Present(vec![sets(None, name, value)]);
            }
        }
    };
    for (name, value, code) in [
        ("default_transaction_read_only", "on", "database_read_only"),
        ("pglogical.conflict_resolution", "keep_local", "conflict_resolution"),
        ("lock_timeout", "5s", "lock_timeout_for_worker"),
    ] {
        assert_eq!(codes(&found_after(both(name, value))), [code, code]);
    }
    assert_eq!(found_after(both("lock_timeout", "0")), []);
}

#[test]
fn blocks_come_before_warnings_and_all_come_at_once() {
    let findings = found_after(|f| {
        alter(&mut source(f).uncarried, |u| u.event_triggers = vec!["guard".into()]);
        alter(&mut source(f).uncarried, |u| u.large_objects = 1);
        alter(&mut destination(f).settings, |s| s.insert("wal_level".into(), "minimal".into()));
    });
    assert_eq!(codes(&findings), ["wal_level_not_logical", "large_objects", "event_triggers"]);
    assert!(findings.iter().all(|finding| !finding.hint.contains(" SUPERUSER")));
    assert_eq!(policy().progress, Progress::default());
}
