//! Findings about pglogical and the other extensions.

use super::*;

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
fn an_old_pglogical_cannot_copy_from_a_newer_server() {
    let told = |change: fn(&mut PreflightFacts)| {
        let found = found_after(|f| {
            f.policy.native_copy = true;
            f.native = Seen::Present(NativeCopyFacts {
                role: "pgferry".to_owned(),
                may_set_replication_role: true,
                may_use_origins: true,
            });
            change(f);
        });
        found.into_iter().find(|f| f.code == "native_copy_cannot_begin").map(|f| f.hint)
    };
    fn is_17(facts: &mut NodeFacts) {
        alter(&mut facts.server, |server| server.version_num = 170_011);
    }
    let hint = told(|f| is_17(source(f)));
    assert!(hint.is_some_and(|hint| hint.contains("copy.method = \"parallel\"")));
    assert_eq!(told(|f| is_17(destination(f))), None, "the stream back copies nothing");
    let with_a_newer_one = |f: &mut PreflightFacts| {
        is_17(source(f));
        alter(&mut destination(f).extensions, |e| {
            e.insert("pglogical".into(), extension(Some("2.4.5"), Some("2.4.5")))
        });
    };
    assert_eq!(told(with_a_newer_one), None);
    let with_our_own_copy = |f: &mut PreflightFacts| {
        is_17(source(f));
        f.policy.native_copy = false;
    };
    assert_eq!(told(with_our_own_copy), None);
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
