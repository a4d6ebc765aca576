//! Looks at the fence of one side: roles, sessions, and backends that are still starting up.
//!
//! A backend reads its settings while it starts and appears in `pg_stat_activity` only when it is
//! through; until then its lock on the database object is all there is to see. So those locks are
//! read first, the sessions after them, and a backend that was starting at the first look after a
//! change counts until it was seen gone.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use pgferry_plan::world::{FenceView, SessionView};
use pgferry_plan::{RoleName, SessionId, Side};
use tokio_postgres::Client;

use super::Look;
use crate::cluster::PgCluster;
use crate::node::{LookError, Node, is_missing};
use crate::roles::application_roles;
use crate::statements::lift;

/// What earlier looks saw of the backends that were starting up, since one change of the record.
/// Observation only: after a restart it begins anew, and more backends count than need to.
#[derive(Debug, Default)]
pub(crate) struct StartupWatch(Mutex<Watched>);

#[derive(Debug, Default)]
struct Watched {
    revision: Option<i64>,
    starting: Option<HashSet<String>>,
    /// The server's clock when nobody was starting any more who had been before, in microseconds.
    settled_us: Option<i64>,
}

impl StartupWatch {
    /// How many still count, and up to when a session counts as older.
    fn update(&self, revision: i64, now_starting: HashSet<String>, now_us: i64) -> (u64, i64) {
        let mut watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if watched.revision != Some(revision) {
            *watched = Watched { revision: Some(revision), ..Watched::default() };
        }
        let left: HashSet<String> = match watched.starting.take() {
            None => now_starting,
            Some(before) => before.intersection(&now_starting).cloned().collect(),
        };
        let count = left.len() as u64;
        watched.starting = Some(left);
        if count == 0 {
            watched.settled_us.get_or_insert(now_us);
        }
        (count, watched.settled_us.unwrap_or(now_us))
    }
}

impl PgCluster {
    /// `all_roles`: also look for roles that are not fenced yet, which reads every ACL. Within the
    /// stall the recorded roles are enough: no role appears without a look at rest finding it.
    pub(crate) async fn see_fence(
        &self,
        world: &mut pgferry_plan::World,
        side: Side,
        all_roles: bool,
    ) {
        let look = self.fence_view(side, all_roles).await;
        world.node_mut(side).fence = pgferry_plan::Seen::from_look(look);
    }

    async fn fence_view(&self, side: Side, all_roles: bool) -> Look<FenceView> {
        let node = self.node(side);
        let client = node.client().await?;
        let fenced = match client.query(FENCED_ROLES, &[]).await {
            Ok(rows) => rows,
            Err(error) if is_missing(&error) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut recorded: Vec<(RoleName, Option<String>)> = Vec::new();
        let mut unfenced: Vec<RoleName> = Vec::new();
        for row in &fenced {
            let role: RoleName = row.try_get("role")?;
            if !row.try_get::<_, bool>("read_only")? {
                unfenced.push(role.clone());
            }
            recorded.push((role, row.try_get("previous_setting")?));
        }
        if all_roles {
            let known: HashSet<RoleName> = recorded.iter().map(|(role, _)| role.clone()).collect();
            let roles = self.roles_to_fence(side).await?;
            unfenced.extend(roles.into_iter().filter(|role| !known.contains(role)));
        }
        let mut watched: Vec<RoleName> = recorded.iter().map(|(role, _)| role.clone()).collect();
        watched.extend(unfenced.iter().cloned());
        let mut view = self.sessions(&client, node, &watched).await?;
        view.lift_statements =
            recorded.iter().map(|role| lift(node.database(), role) + ";").collect();
        view.fenced = recorded.into_iter().map(|(role, _)| role).collect();
        view.unfenced = unfenced;
        Ok(Some(view))
    }

    async fn sessions(
        &self,
        client: &Client,
        node: &Node,
        roles: &[RoleName],
    ) -> Result<FenceView, LookError> {
        let starting = client.query(STARTING_BACKENDS, &[]).await?;
        let mut now_starting = HashSet::new();
        for row in &starting {
            now_starting.insert(row.try_get::<_, String>(0)?);
        }
        let summary = client.query_one(SUMMARY, &[]).await?;
        let (starting, settled_us) = self.watch(node.side()).update(
            summary.try_get("revision")?,
            now_starting,
            summary.try_get("now_us")?,
        );
        let mut view = FenceView {
            starting,
            prepared: unsigned(summary.try_get("prepared")?),
            since_change_ms: unsigned(summary.try_get("since_change_ms")?),
            ..FenceView::default()
        };
        let ours = self.our_roles();
        for row in client.query(SESSIONS, &[&roles, &ours]).await? {
            let role: RoleName = row.try_get("role")?;
            let session = SessionView {
                id: SessionId { pid: row.try_get("pid")?, started_us: row.try_get("started_us")? },
                role: role.clone(),
                idle: row.try_get("idle")?,
            };
            let writes: bool = row.try_get("writes")?;
            if !row.try_get::<_, bool>("application")? {
                if writes {
                    view.unfenceable_writers.push(format!("pid {} of role {role}", session.id.pid));
                }
                continue;
            }
            let open_for: Option<f64> = row.try_get("transaction_seconds")?;
            view.longest_transaction_seconds = view
                .longest_transaction_seconds
                .into_iter()
                .chain(open_for)
                .reduce(f64::max);
            if session.id.started_us <= settled_us {
                view.older_sessions.push(session.clone());
            }
            if writes {
                view.writers.push(session);
            }
        }
        Ok(view)
    }

    /// The roles of both sides that may write, as far as they exist on this one.
    async fn roles_to_fence(&self, side: Side) -> Result<Vec<RoleName>, LookError> {
        let ours = self.our_roles();
        let mut wanted: HashSet<RoleName> = HashSet::new();
        let mut here: HashSet<RoleName> = HashSet::new();
        for of in Side::BOTH {
            let client = self.node(of).client().await?;
            for role in application_roles(&client, &ours).await? {
                let named = self.config.fence.roles.as_ref();
                let fence = named.map_or_else(|| role.may_write(), |named| named.contains(&role.name));
                if fence && !self.config.fence.exclude_roles.contains(&role.name) {
                    wanted.insert(role.name.clone());
                }
                if of == side {
                    here.insert(role.name);
                }
            }
        }
        let mut roles: Vec<RoleName> = wanted.intersection(&here).cloned().collect();
        roles.sort();
        Ok(roles)
    }
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

const FENCED_ROLES: &str = "\
    SELECT f.role::text AS role, f.previous_setting, \
    r.oid IS NULL OR EXISTS (SELECT FROM pg_catalog.pg_db_role_setting s \
        WHERE s.setrole = r.oid \
        AND s.setdatabase = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()) \
        AND 'default_transaction_read_only=on' = ANY (s.setconfig)) AS read_only \
    FROM pgferry.fenced_role f LEFT JOIN pg_catalog.pg_roles r ON r.rolname = f.role";

/// InitPostgres takes this lock before it reads the settings, and keeps it until it is through.
const STARTING_BACKENDS: &str = "\
    SELECT l.pid || '/' || coalesce(l.virtualtransaction, '') FROM pg_catalog.pg_locks l \
    WHERE l.locktype = 'object' AND l.classid = 'pg_catalog.pg_database'::regclass \
    AND l.objid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()) \
    AND l.mode = 'RowExclusiveLock' AND l.pid <> pg_backend_pid()";

const SUMMARY: &str = "\
    SELECT n.revision, \
    (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now_us, \
    (extract(epoch FROM clock_timestamp() - n.changed_at) * 1000)::bigint AS since_change_ms, \
    (SELECT count(*) FROM pg_catalog.pg_prepared_xacts WHERE database = current_database()) AS prepared \
    FROM pgferry.node n";

/// Sessions of the roles; and of superusers and our own roles, when somebody else uses them.
const SESSIONS: &str = "\
    SELECT a.pid, (extract(epoch FROM a.backend_start) * 1000000)::bigint AS started_us, \
    a.usename::text AS role, coalesce(a.state = 'idle', false) AS idle, \
    a.backend_xid IS NOT NULL AS writes, a.usename = ANY ($1::text[]) AS application, \
    extract(epoch FROM clock_timestamp() - a.xact_start)::float8 AS transaction_seconds \
    FROM pg_catalog.pg_stat_activity a JOIN pg_catalog.pg_roles r ON r.oid = a.usesysid \
    WHERE a.datname = current_database() AND a.backend_type = 'client backend' \
    AND a.pid <> pg_backend_pid() \
    AND (a.usename = ANY ($1::text[]) \
        OR ((r.rolsuper OR a.usename = ANY ($2::text[])) \
            AND a.application_name NOT LIKE 'pgferry%' \
            AND a.backend_xid IS NOT NULL))";

#[cfg(test)]
mod tests {
    use super::*;

    fn starting(names: &[&str]) -> HashSet<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_backend_counts_until_it_was_seen_gone_and_later_ones_never_do() {
        let watch = StartupWatch::default();
        assert_eq!(watch.update(1, starting(&["1/a", "2/b"]), 100), (2, 100));
        assert_eq!(watch.update(1, starting(&["2/b", "3/c"]), 200), (1, 200));
        assert_eq!(watch.update(1, starting(&["3/c", "4/d"]), 300), (0, 300));
        assert_eq!(watch.update(1, starting(&["5/e"]), 400), (0, 300), "settled once");
        assert_eq!(watch.update(2, starting(&["5/e"]), 500), (1, 500), "another change");
    }
}
