//! Looks at the copy that pglogical makes: how it says that it stands, and how many tables have
//! been counted since.

use std::collections::HashMap;

use pgferry_config::CopyMethod;
use pgferry_plan::preflight::NativeCopyFacts;
use pgferry_plan::world::NativeCopyView;
use pgferry_plan::{Direction, Seen, Side, Step, TableName, World};

use super::Look;
use crate::cluster::PgCluster;
use crate::node::{LookError, is_missing};
use crate::schema::{SchemaScope, missing_keys};

impl PgCluster {
    /// pglogical copies the rows, by the configuration.
    pub fn copies_by_pglogical(&self) -> bool {
        match self.config.copy.method {
            CopyMethod::Pglogical => true,
            CopyMethod::Parallel => false,
        }
    }

    /// What the steps look at beside, or instead of, what they look at for a copy of ours.
    pub(crate) async fn see_for_native_copy(&self, step: Step, world: &mut World) {
        if !self.jobs.is_idle() {
            return;
        }
        if step == Step::CopySchema {
            world.missing_indexes = Seen::from_look(self.missing_keys().await);
        }
        if step == Step::CreateForwardSubscription {
            world.schema = Seen::from_look(self.schema().await);
        }
        if step == Step::CopyRows {
            world.native = Seen::from_look(self.native_copy().await);
        }
    }

    /// As whom the destination's server logs in to itself, and what that role may do.
    pub(crate) async fn native_copy_facts(&self) -> Look<NativeCopyFacts> {
        let client = self.node(Side::Destination).client().await?;
        let role = self.config.node(Side::Destination).own.dsn.user().to_owned();
        // Grants on settings came with version 15; RDS lets its stand-in for a superuser set this one.
        let granted: bool = client.query_one(KNOWS_GRANTS_ON_SETTINGS, &[]).await?.try_get(0)?;
        let sql = if granted { MAY_SET_BY_GRANT } else { MAY_SET };
        let Some(row) = client.query_opt(sql, &[&role]).await? else {
            return Err(LookError::Said(format!("role {role} is not there")));
        };
        Ok(Some(NativeCopyFacts {
            role,
            may_set_replication_role: row.try_get(0)?,
            may_use_origins: row.try_get(1)?,
        }))
    }

    async fn native_copy(&self) -> Look<NativeCopyView> {
        let client = self.node(Side::Destination).client().await?;
        let name = self.config.name.subscription(Direction::Forward);
        let Some(row) = client.query_opt(STATUS, &[&name]).await? else { return Ok(None) };
        let status: Option<String> = row.try_get("status")?;
        let pid: Option<i32> = row.try_get("pid")?;
        let wanted = self.tables_to_copy().await?;
        let counted: Vec<u64> = self
            .counted()
            .await?
            .into_iter()
            .filter(|(table, _)| wanted.contains(table))
            .map(|(_, rows)| rows)
            .collect();
        Ok(Some(NativeCopyView {
            status: status.and_then(|status| status.chars().next()),
            worker: pid.is_some(),
            progress: match client.query_opt(PROGRESS, &[&pid.unwrap_or_default()]).await {
                Ok(row) => row.map(|row| row.try_get(0)).transpose()?,
                // Before version 14 there is no such view.
                Err(error) if is_missing(&error) => None,
                Err(error) => return Err(error.into()),
            },
            tables: wanted.len() as u64,
            counted: counted.len() as u64,
            rows: counted.iter().sum(),
        }))
    }

    /// Tables whose rows were counted and found equal, with how many.
    pub(crate) async fn counted(&self) -> Result<HashMap<TableName, u64>, LookError> {
        let client = self.node(Side::Destination).client().await?;
        let mut counted = HashMap::new();
        for row in client.query(COUNTED, &[]).await? {
            let table = TableName::new(row.try_get::<_, String>(0)?, row.try_get::<_, String>(1)?);
            counted.insert(table, u64::try_from(row.try_get::<_, i64>(2)?).unwrap_or(0));
        }
        Ok(counted)
    }

    /// Indexes of tables, keys among them, that the destination lacks.
    pub(crate) async fn missing_keys(&self) -> Look<Vec<String>> {
        let source = self.node(Side::Source).client().await?;
        let destination = self.node(Side::Destination).client().await?;
        let scope = SchemaScope { schemas: self.rules.schemas.clone() };
        missing_keys(&source, &destination, &scope)
            .await
            .map(Some)
            .map_err(|error| LookError::Said(crate::node::scrub(&error.to_string())))
    }
}

/// The worker that copies is the one that applies later.
const STATUS: &str = "\
    SELECT (SELECT y.sync_status::text FROM pglogical.local_sync_status y \
        WHERE y.sync_subid = s.sub_id AND y.sync_relname IS NULL LIMIT 1) AS status, \
    (SELECT a.pid FROM pg_catalog.pg_stat_activity a WHERE a.backend_type = format( \
        'pglogical apply %s:%s', (SELECT oid FROM pg_catalog.pg_database \
        WHERE datname = current_database()), s.sub_id) LIMIT 1) AS pid \
    FROM pglogical.subscription s WHERE s.sub_name = $1::text::name";

const KNOWS_GRANTS_ON_SETTINGS: &str =
    "SELECT current_setting('server_version_num')::int >= 150000";

const MAY_SET_BY_GRANT: &str = "\
    SELECT has_parameter_privilege(r.oid, 'session_replication_role', 'SET') \
        OR EXISTS (SELECT FROM pg_catalog.pg_roles m WHERE m.rolname = 'rds_superuser' \
            AND pg_has_role(r.oid, m.oid, 'MEMBER')), \
    has_function_privilege(r.oid, 'pg_catalog.pg_replication_origin_session_setup(text)', 'EXECUTE') \
    FROM pg_catalog.pg_roles r WHERE r.rolname = $1";

const MAY_SET: &str = "\
    SELECT r.rolsuper \
        OR EXISTS (SELECT FROM pg_catalog.pg_roles m WHERE m.rolname = 'rds_superuser' \
            AND pg_has_role(r.oid, m.oid, 'MEMBER')), \
    has_function_privilege(r.oid, 'pg_catalog.pg_replication_origin_session_setup(text)', 'EXECUTE') \
        AND (r.rolsuper OR current_setting('server_version_num')::int >= 140000) \
    FROM pg_catalog.pg_roles r WHERE r.rolname = $1";

const PROGRESS: &str = "\
    SELECT format('%s rows of %s', p.tuples_processed, p.relid::regclass) \
    FROM pg_catalog.pg_stat_progress_copy p WHERE p.pid = $1 AND p.relid <> 0 LIMIT 1";

const COUNTED: &str = "SELECT schema_name, table_name, row_count FROM pgferry.copied";
