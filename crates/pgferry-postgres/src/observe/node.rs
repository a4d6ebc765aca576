//! Looks at one node: its record, what is installed, its name with pglogical, its markers.

use deadpool_postgres::Object;
use pgferry_plan::Blocker;
use pgferry_plan::side::Side;
use pgferry_plan::world::{InstallView, MarkerView, NodeRecord};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::Look;
use crate::node::{LookError, Node, is_missing};
use crate::quote::ident;
use crate::statements::state_from;

/// The row of `pgferry.node`.
pub(crate) async fn record(node: &Node) -> Look<NodeRecord> {
    record_by(&node.client().await?).await
}

pub(super) async fn record_by(client: &Object) -> Look<NodeRecord> {
    let Some(rows) = prepared(client, RECORD, &[]).await? else { return Ok(None) };
    let Some(row) = rows.first() else { return Ok(None) };
    let side: String = row.try_get("side")?;
    let state: String = row.try_get("state")?;
    Ok(Some(NodeRecord {
        side: if side == Side::Source.as_str() { Side::Source } else { Side::Destination },
        id: row.try_get("id")?,
        epoch: row.try_get("epoch")?,
        state: state_from(&state)
            .ok_or_else(|| LookError::Said(format!("pgferry.node says \"{state}\"")))?,
        revision: row.try_get("revision")?,
    }))
}

pub(super) const RECORD: &str = "SELECT side, id, epoch, state, revision FROM pgferry.node";

/// Extension, schema and tables, and what an administrator would have to do first.
pub(crate) async fn install(node: &Node) -> Look<InstallView> {
    let client = node.client().await?;
    let row = client.query_one(INSTALL, &[]).await?;
    let (extension, superuser): (bool, bool) =
        (row.try_get("extension")?, row.try_get("superuser")?);
    let (schema, may_create): (bool, bool) = (row.try_get("schema")?, row.try_get("may_create")?);
    let role: String = row.try_get("role")?;
    let mut blockers = Vec::new();
    if !extension && !superuser {
        blockers.push(Blocker::new(
            "pglogical_missing",
            format!("the extension pglogical is not in the {} database, and this role may not create it", node.side()),
            administrator_statements(&role),
        ));
    }
    if !schema && !may_create {
        blockers.push(Blocker::new(
            "may_not_create_schema",
            format!("role {role} may not create schema pgferry in the {} database", node.side()),
            format!("GRANT CREATE ON DATABASE {} TO {};", ident(node.database()), ident(&role)),
        ));
    }
    Ok(Some(InstallView {
        extension,
        may_create_extension: superuser,
        tables: row.try_get("tables")?,
        blockers,
    }))
}

/// What an administrator runs so that a role which is no superuser can work with pglogical.
pub(crate) fn administrator_statements(role: &str) -> String {
    let role = ident(role);
    format!(
        "CREATE EXTENSION pglogical; GRANT USAGE ON SCHEMA pglogical TO PUBLIC; \
         REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA pglogical FROM PUBLIC; \
         GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA pglogical TO {role}; \
         GRANT SELECT ON ALL TABLES IN SCHEMA pglogical TO {role};"
    )
}

const INSTALL: &str = "\
    SELECT EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = 'pglogical') AS extension, \
    EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE (r.rolname = current_user AND r.rolsuper) \
        OR (r.rolname = 'rds_superuser' AND pg_has_role(current_user, r.oid, 'MEMBER'))) AS superuser, \
    to_regnamespace('pgferry') IS NOT NULL AS schema, \
    has_database_privilege(current_database(), 'CREATE') AS may_create, \
    to_regclass('pgferry.copied') IS NOT NULL AND to_regclass('pgferry.marker') IS NOT NULL AS tables, \
    current_user::text AS role";

/// Rows of a statement that the connection keeps prepared; None when what it reads is not there.
///
/// Statements of one connection that are awaited together are sent together: within the stall a
/// look costs one round trip.
pub(super) async fn prepared(
    client: &Object,
    sql: &str,
    parameters: &[&(dyn ToSql + Sync)],
) -> Look<Vec<Row>> {
    let rows = async {
        let statement = client.prepare_cached(sql).await?;
        client.query(&statement, parameters).await
    };
    match rows.await {
        Ok(rows) => Ok(Some(rows)),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The name under which the database is registered with pglogical.
pub(crate) async fn pglogical_node(node: &Node) -> Look<String> {
    let client = node.client().await?;
    match client.query_opt(LOCAL_NODE, &[]).await {
        Ok(Some(row)) => Ok(Some(row.try_get(0)?)),
        Ok(None) => Ok(None),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

const LOCAL_NODE: &str = "SELECT n.node_name::text FROM pglogical.local_node l \
    JOIN pglogical.node n USING (node_id)";

/// Both markers as this node has them.
pub(crate) async fn marker(node: &Node) -> Look<MarkerView> {
    marker_by(node.side(), &node.client().await?).await
}

pub(super) async fn marker_by(side: Side, client: &Object) -> Look<MarkerView> {
    let Some(rows) = prepared(client, MARKERS, &[]).await? else { return Ok(None) };
    let own = side;
    let mut view = MarkerView::default();
    for row in rows {
        let side: String = row.try_get("side")?;
        let token = u64::try_from(row.try_get::<_, i64>("token")?).unwrap_or(0);
        if side == own.as_str() {
            view.own = token;
            view.own_came_back = row.try_get("came_back")?;
        } else {
            view.other = token;
        }
    }
    Ok(Some(view))
}

/// The transaction that wrote a side's own row is in the row: a change that came back through
/// both streams rewrote it under another.
const MARKERS: &str = "SELECT side, token, \
    coalesce(writer::xid::text <> xmin::text, false) AS came_back FROM pgferry.marker";
