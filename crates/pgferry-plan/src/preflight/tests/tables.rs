//! Findings about tables and what stands beside them, on both sides.

use super::*;

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
