//! Findings about the two servers: versions, locales, settings, limits.

use super::*;

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
