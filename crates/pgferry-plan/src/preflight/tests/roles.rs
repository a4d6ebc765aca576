//! Findings about roles: ours, those of the schema, those of the application, and their settings.

use super::*;

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
