//! Findings about large objects, leftovers and transactions.

use super::*;

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
