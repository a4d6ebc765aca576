//! Looking at one side for preflight: reads only, each look apart, so that one that fails hides
//! no other.
//!
//! The statements read catalogs and take no lock that a session could wait for, but for the sizes
//! of the destination's files. What they return is judged in `pgferry_plan::preflight`, never here.

use std::collections::BTreeMap;
use std::error::Error as _;

use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Row};

use pgferry_plan::preflight::{NodeFacts, PreflightFacts, PreflightPolicy, RoleFacts};
use pgferry_plan::{RoleName, Seen};

use crate::roles::{application_roles, locked_out};
use crate::row_by_row::all;
use crate::scope::{Sizes, tables_in_scope};

mod rows;

const SERVER: &str = include_str!("preflight/server.sql");
const SETTINGS: &str = include_str!("preflight/settings.sql");
const CATALOG_SETTINGS: &str = include_str!("preflight/catalog_settings.sql");
const EXTENSIONS: &str = include_str!("preflight/extensions.sql");
const CAPACITY: &str = include_str!("preflight/capacity.sql");
const PRIVILEGES: &str = include_str!("preflight/privileges.sql");
const PGLOGICAL: &str = include_str!("preflight/pglogical.sql");
const ROLES: &str = include_str!("preflight/roles.sql");
const REFERENCED_ROLES: &str = include_str!("preflight/referenced_roles.sql");
const SCHEMAS: &str = include_str!("preflight/schemas.sql");
const OBJECTS: &str = include_str!("preflight/objects.sql");
const RELATIONS: &str = include_str!("preflight/relations.sql");
const UNCARRIED: &str = include_str!("preflight/uncarried.sql");
const TRIGGERS: &str = include_str!("preflight/triggers.sql");
const LEFTOVERS: &str = include_str!("preflight/leftovers.sql");
const PGLOGICAL_NODES: &str = include_str!("preflight/pglogical_nodes.sql");
const TRANSACTIONS: &str = include_str!("preflight/transactions.sql");
const JOBS: &str = include_str!("preflight/jobs.sql");
const UNFENCED_SESSIONS: &str = include_str!("preflight/unfenced_sessions.sql");

/// Looks at both sides, as far as each is reached; `Err` carries the scrubbed reason.
pub async fn observe(
    source: Result<&Client, String>,
    destination: Result<&Client, String>,
    policy: &PreflightPolicy,
    ours: &[RoleName],
) -> PreflightFacts {
    let side = async |client: Result<&Client, String>| match client {
        Ok(client) => Seen::Present(observe_node(client, policy, ours).await),
        Err(reason) => Seen::Unknown(reason),
    };
    let (source, destination) = tokio::join!(side(source), side(destination));
    PreflightFacts {
        source,
        destination,
        existing: Seen::Absent,
        native: Seen::Absent,
        policy: policy.clone(),
    }
}

/// Looks at one side. `ours` are the roles that pgferry and its replication log in as.
///
/// The looks are sent together and answered in turn: one connection, about one round trip.
pub async fn observe_node(
    client: &Client,
    policy: &PreflightPolicy,
    ours: &[RoleName],
) -> NodeFacts {
    let rules = &policy.scope;
    let schemas: [&(dyn ToSql + Sync); 1] = [&rules.schemas];
    let our_roles: [&(dyn ToSql + Sync); 1] = [&ours];
    let (server, settings, catalog_settings, extensions, in_use, privileges, pglogical) = tokio::join!(
        one(client, SERVER, &[], rows::server),
        all(client, SETTINGS, &[], rows::setting),
        all(client, CATALOG_SETTINGS, &[], rows::catalog_setting),
        all(client, EXTENSIONS, &[], rows::extension),
        one(client, CAPACITY, &[], rows::in_use),
        one(client, PRIVILEGES, &[], rows::privileges),
        one(client, PGLOGICAL, &[], rows::pglogical),
    );
    let (roles, referenced_roles, application_roles, in_schemas, tables, objects) = tokio::join!(
        roles(client),
        all(client, REFERENCED_ROLES, &schemas, rows::referenced_role),
        application_roles(client, ours, policy.locks_out),
        all(client, SCHEMAS, &[], rows::schema),
        tables_in_scope(client, rules, Sizes::Estimated),
        all(client, OBJECTS, &schemas, rows::object),
    );
    let (
        relations,
        uncarried,
        triggers,
        leftovers,
        pglogical_nodes,
        transactions,
        jobs,
        unfenced_sessions,
    ) = tokio::join!(
        one(client, RELATIONS, &schemas, rows::relations),
        one(client, UNCARRIED, &[], rows::uncarried),
        all(client, TRIGGERS, &[], rows::trigger),
        one(client, LEFTOVERS, &[], rows::leftovers),
        one(client, PGLOGICAL_NODES, &[], rows::pglogical_nodes),
        all(client, TRANSACTIONS, &[], rows::transaction),
        one(client, JOBS, &[], rows::jobs),
        all(client, UNFENCED_SESSIONS, &our_roles, rows::unfenced_sessions),
    );
    NodeFacts {
        server: seen(server),
        settings: map(settings),
        catalog_settings: list(catalog_settings),
        extensions: map(extensions),
        in_use: seen(in_use),
        privileges: seen(privileges),
        pglogical: seen(pglogical),
        roles: map(roles),
        referenced_roles: map(referenced_roles),
        application_roles: list(application_roles),
        schemas: map(in_schemas),
        tables: list(tables),
        objects: list(objects),
        relations: seen(relations),
        uncarried: seen(uncarried),
        triggers: list(triggers),
        leftovers: seen(leftovers),
        pglogical_nodes: seen_unless_missing(pglogical_nodes),
        transactions: list(transactions),
        jobs: seen_unless_missing(jobs),
        unfenced_sessions: list(unfenced_sessions),
    }
}

async fn roles(client: &Client) -> Result<Vec<(RoleName, RoleFacts)>, Error> {
    let locked_out = locked_out(client).await?;
    all(client, ROLES, &[&locked_out], rows::role).await
}

async fn one<T>(
    client: &Client,
    statement: &str,
    parameters: &[&(dyn ToSql + Sync)],
    convert: impl Fn(&Row) -> Result<T, Error>,
) -> Result<Option<T>, Error> {
    client.query_opt(statement, parameters).await?.as_ref().map(convert).transpose()
}

fn seen<T>(look: Result<Option<T>, Error>) -> Seen<T> {
    Seen::from_look(look.map_err(|error| reason(&error)))
}

fn list<T>(look: Result<Vec<T>, Error>) -> Seen<Vec<T>> {
    seen(look.map(Some))
}

fn map<K: Ord, V>(look: Result<Vec<(K, V)>, Error>) -> Seen<BTreeMap<K, V>> {
    list(look).map(|pairs| pairs.into_iter().collect())
}

/// For a look at an extension's own tables: that they do not exist is an answer.
fn seen_unless_missing<T>(look: Result<Option<T>, Error>) -> Seen<T> {
    match &look {
        Err(error)
            if error.code() == Some(&SqlState::UNDEFINED_TABLE)
                || error.code() == Some(&SqlState::INVALID_SCHEMA_NAME) =>
        {
            Seen::Absent
        }
        _ => seen(look),
    }
}

/// The server's own words: tokio-postgres says only "db error" and keeps them in the source.
fn reason(error: &Error) -> String {
    match error.as_db_error() {
        Some(refusal) => refusal.message().to_owned(),
        None => match error.source() {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        },
    }
}
