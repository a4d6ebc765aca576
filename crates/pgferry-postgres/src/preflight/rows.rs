//! From a row of each look to the value that is judged. Nothing here decides anything.

use std::collections::BTreeSet;

use tokio_postgres::{Error, Row};

use pgferry_plan::preflight::{
    CatalogSetting, ExtensionFacts, InUse, JobFacts, Leftovers, ObjectFacts, PglogicalFacts,
    PglogicalNodes, PrivilegeFacts, RelationCounts, RoleFacts, ServerFacts, TransactionFacts,
    TransactionKind, TriggerFacts, Uncarried, UnfencedSessions,
};
use pgferry_plan::{RoleName, TableName};

pub(super) fn server(row: &Row) -> Result<ServerFacts, Error> {
    Ok(ServerFacts {
        version_num: row.try_get("version_num")?,
        version: row.try_get("version")?,
        database: row.try_get("database_name")?,
        database_oid: row.try_get("database_oid")?,
        started_at: row.try_get("started_at")?,
        in_recovery: row.try_get("in_recovery")?,
        encoding: row.try_get("encoding")?,
        collate: row.try_get("collate_locale")?,
        ctype: row.try_get("ctype_locale")?,
        locale_provider: row.try_get("locale_provider")?,
        provider_locale: row.try_get("provider_locale")?,
    })
}

pub(super) fn setting(row: &Row) -> Result<(String, String), Error> {
    let value: Option<String> = row.try_get("value")?;
    Ok((row.try_get("name")?, value.unwrap_or_default()))
}

pub(super) fn catalog_setting(row: &Row) -> Result<CatalogSetting, Error> {
    Ok(CatalogSetting {
        in_database: row.try_get("in_database")?,
        role: row.try_get("role")?,
        name: row.try_get("name")?,
        value: row.try_get("value")?,
        is_worker: row.try_get("is_worker")?,
    })
}

pub(super) fn extension(row: &Row) -> Result<(String, ExtensionFacts), Error> {
    let needs_superuser: Option<bool> = row.try_get("needs_superuser")?;
    let facts = ExtensionFacts {
        available: row.try_get("default_version")?,
        installed: row.try_get("installed_version")?,
        needs_superuser: needs_superuser.unwrap_or(true),
    };
    Ok((row.try_get("name")?, facts))
}

pub(super) fn in_use(row: &Row) -> Result<InUse, Error> {
    Ok(InUse {
        slots: row.try_get("slots")?,
        wal_senders: row.try_get("wal_senders")?,
        origins: row.try_get("origins")?,
        workers: row.try_get("workers")?,
    })
}

pub(super) fn privileges(row: &Row) -> Result<PrivilegeFacts, Error> {
    Ok(PrivilegeFacts {
        role: row.try_get("role")?,
        superuser: row.try_get("superuser")?,
        bypasses_row_security: row.try_get("bypasses_row_security")?,
        replication: row.try_get("replication")?,
        create_role: row.try_get("create_role")?,
        monitor: row.try_get("monitor")?,
        signal_backend: row.try_get("signal_backend")?,
        creates_any_extension: row.try_get("creates_any_extension")?,
        create_in_database: row.try_get("create_in_database")?,
        origin_functions_refused: row.try_get("origin_functions_refused")?,
    })
}

pub(super) fn pglogical(row: &Row) -> Result<PglogicalFacts, Error> {
    Ok(PglogicalFacts {
        usage: row.try_get("usage")?,
        usage_for_everybody: row.try_get("usage_for_everybody")?,
        execute_for_everybody: row.try_get("execute_for_everybody")?,
        functions_refused: row.try_get("functions_refused")?,
        tables_refused: row.try_get("tables_refused")?,
        may_mark_initialised: row.try_get("may_mark_initialised")?,
    })
}

pub(super) fn role(row: &Row) -> Result<(RoleName, RoleFacts), Error> {
    let facts = RoleFacts {
        login: row.try_get("login")?,
        superuser: row.try_get("superuser")?,
        usable_by_us: row.try_get("usable_by_us")?,
        may_connect: row.try_get("may_connect")?,
    };
    Ok((row.try_get("name")?, facts))
}

pub(super) fn referenced_role(row: &Row) -> Result<(RoleName, bool), Error> {
    Ok((row.try_get("name")?, row.try_get("owns")?))
}

pub(super) fn schema(row: &Row) -> Result<(String, BTreeSet<RoleName>), Error> {
    let creators: Vec<RoleName> = row.try_get("creators")?;
    Ok((row.try_get("name")?, creators.into_iter().collect()))
}

pub(super) fn object(row: &Row) -> Result<ObjectFacts, Error> {
    Ok(ObjectFacts {
        kind: row.try_get("kind")?,
        name: TableName {
            schema: row.try_get("object_schema")?,
            name: row.try_get("object_name")?,
        },
        owner: row.try_get("owner")?,
        arguments: row.try_get("arguments")?,
        has_storage: row.try_get("has_storage")?,
    })
}

pub(super) fn relations(row: &Row) -> Result<RelationCounts, Error> {
    Ok(RelationCounts {
        tables: row.try_get("tables")?,
        toast_tables: row.try_get("toast_tables")?,
        sequences: row.try_get("sequences")?,
        others: row.try_get("others")?,
    })
}

pub(super) fn uncarried(row: &Row) -> Result<Uncarried, Error> {
    Ok(Uncarried {
        large_objects: row.try_get("large_objects")?,
        large_objects_refused: row.try_get("large_objects_refused")?,
        large_object_owners: row.try_get("large_object_owners")?,
        event_triggers: row.try_get("event_triggers")?,
        subscriptions: row.try_get("subscriptions")?,
    })
}

pub(super) fn trigger(row: &Row) -> Result<TriggerFacts, Error> {
    Ok(TriggerFacts {
        table: TableName { schema: row.try_get("table_schema")?, name: row.try_get("table_name")? },
        name: row.try_get("trigger_name")?,
        always: row.try_get("always")?,
    })
}

pub(super) fn leftovers(row: &Row) -> Result<Leftovers, Error> {
    Ok(Leftovers {
        pgferry_schema: row.try_get("pgferry_schema")?,
        slots: row.try_get("slots")?,
        origins: row.try_get("origins")?,
    })
}

pub(super) fn pglogical_nodes(row: &Row) -> Result<PglogicalNodes, Error> {
    Ok(PglogicalNodes {
        nodes: row.try_get("nodes")?,
        subscriptions: row.try_get("subscriptions")?,
    })
}

pub(super) fn transaction(row: &Row) -> Result<TransactionFacts, Error> {
    let kind = match (row.try_get("pid")?, row.try_get("gid")?) {
        (_, Some(gid)) => TransactionKind::Prepared { gid },
        (pid, None) => TransactionKind::Open { pid: <Option<i32>>::unwrap_or_default(pid) },
    };
    // A background worker without a database still has a transaction that is waited for.
    let database: Option<String> = row.try_get("database_name")?;
    let role: Option<String> = row.try_get("role")?;
    Ok(TransactionFacts {
        kind,
        database: database.unwrap_or_default(),
        role: role.unwrap_or_default(),
        here: row.try_get::<_, Option<bool>>("here")?.unwrap_or(false),
        seconds: row.try_get("seconds")?,
    })
}

pub(super) fn jobs(row: &Row) -> Result<JobFacts, Error> {
    Ok(JobFacts { hidden: row.try_get("hidden")?, jobs: row.try_get("jobs")? })
}

pub(super) fn unfenced_sessions(row: &Row) -> Result<UnfencedSessions, Error> {
    Ok(UnfencedSessions {
        role: row.try_get("role")?,
        superuser: row.try_get("superuser")?,
        application: row.try_get("application")?,
        sessions: row.try_get("sessions")?,
    })
}
