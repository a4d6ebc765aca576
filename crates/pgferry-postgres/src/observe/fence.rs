//! Looks at the fence of one side: roles, sessions, and backends that are still starting up.
//!
//! A backend reads its settings while it starts and appears in `pg_stat_activity` only when it is
//! through; until then its lock on the database object is all there is to see. So those locks are
//! read first, the sessions after them, and a backend that was starting at the first look after a
//! change counts until it was seen gone.

use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::sync::{Mutex, PoisonError};

use deadpool_postgres::Object;
use pgferry_plan::roles::ApplicationRole;
use pgferry_plan::world::{FenceView, NodeRecord, SessionView};
use pgferry_plan::{RoleName, Seen, SessionId, Side, World};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::Look;
use super::node::{RECORD, prepared};
use super::strays::WRITERS;
use crate::cluster::PgCluster;
use crate::node::LookError;
use crate::roles::application_roles;
use crate::statements::{FencedRole, lift};

/// What earlier looks saw of the backends that were starting up, since one change of the record.
/// Observation only: after a restart it begins anew, and more backends count than need to.
#[derive(Debug, Default)]
pub(crate) struct StartupWatch(Mutex<Watched>);

#[derive(Debug, Default)]
struct Watched {
    changed_us: Option<i64>,
    starting: Option<HashSet<String>>,
    /// The server's clock when nobody was starting any more who had been before, in microseconds.
    settled_us: Option<i64>,
}

impl StartupWatch {
    /// How many still count, and up to when a session counts as older.
    fn update(&self, changed_us: i64, now_starting: HashSet<String>, now_us: i64) -> (u64, i64) {
        let mut watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if watched.changed_us != Some(changed_us) {
            *watched = Watched { changed_us: Some(changed_us), ..Watched::default() };
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
    /// With every role that may write, fenced or not: reads every ACL, so never within the stall.
    pub(crate) async fn see_fence_and_roles(&self, world: &mut World, side: Side) {
        let roles = self.roles_of_both().await.map_err(|error| error.to_string());
        self.see_fence_with(world, side, &roles).await;
    }

    /// The same of both sides: their roles are the same, and are read once.
    pub(crate) async fn see_fences_and_roles(&self, world: &mut World) {
        let roles = self.roles_of_both().await.map_err(|error| error.to_string());
        for side in Side::BOTH {
            self.see_fence_with(world, side, &roles).await;
        }
    }

    pub(super) async fn see_fence_with(
        &self,
        world: &mut World,
        side: Side,
        of_both: &Result<[Vec<ApplicationRole>; 2], String>,
    ) {
        let look = async {
            let client = self.node(side).client().await?;
            prepare(&client).await;
            let Some((revision, mut view)) = self.fence_by(side, &client).await? else {
                return Ok(None);
            };
            let of_both = of_both.as_ref().map_err(|said| LookError::Said(said.clone()))?;
            let (roles, _) = self.roles_to_fence(side, of_both);
            let sessions = sessions_of(&roles, &client).await?;
            self.add_roles(side, of_both, &sessions, &mut view)?;
            Ok(Some((revision, view)))
        };
        let look: Look<(i64, FenceView)> = look.await;
        let node = world.node_mut(side);
        node.fence = of_this_record(Seen::from_look(look), &node.record);
    }

    /// The recorded roles and their sessions, in one round trip, and the revision of the record that
    /// they were seen under. Within the stall they are enough: no role appears without a look at rest
    /// finding it.
    pub(super) async fn fence_by(&self, side: Side, client: &Object) -> Look<(i64, FenceView)> {
        let ours = self.our_roles();
        let roles_of_ours: [&(dyn ToSql + Sync); 1] = [&ours];
        // Sent in this order, and so carried out in this order: a backend that is through with its
        // start when the locks are read is in the list of sessions that is read after them.
        let (roles, starting, summary, sessions) = tokio::join!(
            biased;
            prepared(client, FENCED_ROLES, &[]),
            prepared(client, STARTING_BACKENDS, &[]),
            prepared(client, SUMMARY, &[]),
            prepared(client, SESSIONS, &roles_of_ours),
        );
        let (Some(roles), Some(starting), Some(summary), Some(sessions)) =
            (roles?, starting?, summary?, sessions?)
        else {
            return Ok(None);
        };
        let Some(summary) = summary.first() else { return Ok(None) };
        // Without it every other session looks like none at all.
        if !summary.try_get::<_, bool>("sees_all")? {
            return Err(LookError::Said(
                "sessions of others cannot be seen: this role needs pg_monitor".to_owned(),
            ));
        }
        let since_us: i64 = summary.try_get("since_us")?;
        let mut now_starting = HashSet::new();
        for row in &starting {
            now_starting.insert(row.try_get::<_, String>(0)?);
        }
        let (starting, settled_us) = self.watch(side).update(
            summary.try_get("changed_us")?,
            now_starting,
            summary.try_get("now_us")?,
        );
        let mut view = FenceView {
            starting,
            prepared: unsigned(summary.try_get("prepared")?),
            since_change_ms: unsigned(summary.try_get("since_change_ms")?),
            ..FenceView::default()
        };
        for row in &roles {
            add_role(row, self.node(side).database(), &mut view)?;
        }
        for row in &sessions {
            add_session(row, since_us..=settled_us, &mut view)?;
        }
        Ok(Some((summary.try_get("revision")?, view)))
    }

    /// The roles that are in no record yet, and their sessions among those of all that may write.
    pub(super) fn add_roles(
        &self,
        side: Side,
        of_both: &[Vec<ApplicationRole>; 2],
        sessions: &[Row],
        view: &mut FenceView,
    ) -> Result<(), LookError> {
        let known: HashSet<RoleName> = view.fenced.iter().chain(&view.unfenced).cloned().collect();
        let (roles, missing) = self.roles_to_fence(side, of_both);
        let new: Vec<RoleName> = roles.into_iter().filter(|role| !known.contains(role)).collect();
        for row in sessions {
            if new.contains(&row.try_get("role")?) {
                add_session(row, 0..=i64::MAX, view)?;
            }
        }
        if self.locks_out() {
            lock_out_unless_used_elsewhere(&of_both[side as usize], &new, view);
        }
        view.unfenced.extend(new);
        view.missing = missing;
        Ok(())
    }

    pub(super) async fn roles_of_both(&self) -> Result<[Vec<ApplicationRole>; 2], LookError> {
        let ours = self.our_roles();
        let of = async |side: Side| {
            let client = self.node(side).client().await?;
            Ok::<_, LookError>(application_roles(&client, &ours, self.locks_out()).await?)
        };
        let (source, destination) = tokio::try_join!(of(Side::Source), of(Side::Destination))?;
        Ok([source, destination])
    }

    /// The roles of both sides that may write: those that exist on this one, and those that do not.
    pub(super) fn roles_to_fence(
        &self,
        side: Side,
        of_both: &[Vec<ApplicationRole>; 2],
    ) -> (Vec<RoleName>, Vec<RoleName>) {
        let mut wanted: HashSet<RoleName> = HashSet::new();
        for role in of_both.iter().flatten() {
            let named = self.config.fence.roles.as_ref();
            let fence = named.map_or_else(|| role.may_write(), |named| named.contains(&role.name));
            if fence && !self.config.fence.exclude_roles.contains(&role.name) {
                wanted.insert(role.name.clone());
            }
        }
        let here: HashSet<&RoleName> =
            of_both[side as usize].iter().map(|role| &role.name).collect();
        let (mut roles, mut missing): (Vec<RoleName>, Vec<RoleName>) =
            wanted.into_iter().partition(|role| here.contains(role));
        roles.sort();
        missing.sort();
        (roles, missing)
    }
}

/// Has a connection know the statements of a look at a fence, and of the record that it belongs to,
/// before it sends the first: their order is part of what is concluded from them.
pub(super) async fn prepare(client: &Object) {
    let statements = [RECORD, WRITERS, FENCED_ROLES, STARTING_BACKENDS, SUMMARY, SESSIONS];
    // What is missing says so when it is sent.
    futures_util::future::join_all(statements.map(|sql| client.prepare_cached(sql))).await;
}

/// Two statements may stand on both sides of a change of the record: then neither is believed.
pub(super) fn of_this_record(
    fence: Seen<(i64, FenceView)>,
    record: &Seen<NodeRecord>,
) -> Seen<FenceView> {
    match (fence, record) {
        (Seen::Present((revision, _)), Seen::Present(record)) if record.revision != revision => {
            Seen::Unknown("the record changed during the look".to_owned())
        }
        (Seen::Present((_, view)), _) => Seen::Present(view),
        (Seen::Absent, _) => Seen::Absent,
        (Seen::Unknown(reason), _) => Seen::Unknown(reason),
    }
}

pub(super) async fn sessions_of(
    roles: &[RoleName],
    client: &Object,
) -> Result<Vec<Row>, LookError> {
    Ok(prepared(client, SESSIONS_OF_ROLES, &[&roles]).await?.unwrap_or_default())
}

/// NOLOGIN is the whole server's: a role that another database uses is made read-only alone, here
/// at the last, where preflight and verdict have said so before.
fn lock_out_unless_used_elsewhere(
    roles: &[ApplicationRole],
    new: &[RoleName],
    view: &mut FenceView,
) {
    for role in roles.iter().filter(|role| new.contains(&role.name)) {
        if role.other_databases.is_empty() {
            view.to_lock_out.push(role.name.clone());
        } else {
            view.used_elsewhere.push(format!(
                "{} ({})",
                role.name,
                role.other_databases.join(", ")
            ));
        }
    }
}

fn add_role(row: &Row, database: &str, view: &mut FenceView) -> Result<(), LookError> {
    let role = FencedRole {
        name: row.try_get("role")?,
        previous_setting: row.try_get("previous_setting")?,
        locked_out: row.try_get("locked_out")?,
    };
    // One that was dropped behind the fence has nothing to lift.
    let (exists, read_only): (bool, bool) = (row.try_get("exists")?, row.try_get("read_only")?);
    let may_log_in: bool = row.try_get("may_log_in")?;
    if row.try_get("lifted")? {
        if exists && read_only {
            view.still_read_only.push(role.name.clone());
        }
        if exists && role.locked_out && !may_log_in {
            view.still_locked_out.push(role.name);
        }
        return Ok(());
    }
    if !read_only || (role.locked_out && may_log_in) {
        view.unfenced.push(role.name.clone());
    }
    if exists {
        view.lift_statements.push(lift(database, &role) + ";");
        if let Some(statements) = row.try_get("cannot_lift")? {
            view.cannot_lift.push((role.name.clone(), statements));
        }
        view.fenced.push(role.name);
    }
    Ok(())
}

fn add_session(
    row: &Row,
    in_question: RangeInclusive<i64>,
    view: &mut FenceView,
) -> Result<(), LookError> {
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
        return Ok(());
    }
    let open_for: Option<f64> = row.try_get("transaction_seconds")?;
    view.longest_transaction_seconds =
        view.longest_transaction_seconds.into_iter().chain(open_for).reduce(f64::max);
    let late_until: Option<i64> = row.try_get("late_until_us")?;
    match late_until {
        Some(until) if (*in_question.start()..=until).contains(&session.id.started_us) => {
            view.late_sessions.push(session.clone());
        }
        None if in_question.contains(&session.id.started_us) => {
            view.older_sessions.push(session.clone());
        }
        Some(_) | None => {}
    }
    if writes {
        view.writers.push(session);
    }
    Ok(())
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// Those that are lifted, of the last opening alone: what an earlier one lifted is the application's
/// affair. By way of JSON, because a record that an older version made lacks the column.
///
/// Whether this role may alter one is what ALTER ROLE asks for: a superuser for a superuser, CREATEROLE,
/// from 16 on ADMIN on it, and below 16 a superuser for the LOGIN of one with REPLICATION.
const FENCED_ROLES: &str = "\
    SELECT f.role::text AS role, f.previous_setting, \
    coalesce((to_jsonb(f) ->> 'had_login')::boolean, false) AS locked_out, \
    coalesce(r.rolcanlogin, false) AS may_log_in, r.oid IS NOT NULL AS exists, f.lifted_at IS NOT NULL AS lifted, \
    r.oid IS NULL OR EXISTS (SELECT FROM pg_catalog.pg_db_role_setting s \
        WHERE s.setrole = r.oid \
        AND s.setdatabase = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()) \
        AND 'default_transaction_read_only=on' = ANY (s.setconfig)) AS read_only, \
    CASE WHEN NOT me.rolsuper THEN nullif(concat_ws(' ', \
        CASE WHEN r.rolsuper THEN format('ALTER ROLE %I NOSUPERUSER;', r.rolname) END, \
        CASE WHEN NOT me.rolcreaterole THEN format('ALTER ROLE %I CREATEROLE;', me.rolname) END, \
        CASE WHEN current_setting('server_version_num')::int < 160000 THEN \
            CASE WHEN r.rolreplication AND (to_jsonb(f) ->> 'had_login')::boolean \
                THEN format('ALTER ROLE %I NOREPLICATION;', r.rolname) END \
        WHEN NOT pg_catalog.pg_has_role(me.oid, r.oid, 'MEMBER WITH ADMIN OPTION') \
            THEN format('GRANT %I TO %I WITH ADMIN OPTION;', r.rolname, me.rolname) END), '') \
    END AS cannot_lift \
    FROM pgferry.fenced_role f CROSS JOIN pgferry.node n \
    LEFT JOIN pg_catalog.pg_roles r ON r.rolname = f.role \
    LEFT JOIN pg_catalog.pg_roles me ON me.rolname = current_user \
    WHERE f.lifted_at IS NULL OR f.lifted_at > coalesce(n.fenced_at, '-infinity')";

/// InitPostgres takes this lock before it reads the settings, and keeps it until it is through.
const STARTING_BACKENDS: &str = "\
    SELECT l.pid || '/' || coalesce(l.virtualtransaction, '') FROM pg_catalog.pg_locks l \
    WHERE l.locktype = 'object' AND l.classid = 'pg_catalog.pg_database'::regclass \
    AND l.objid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()) \
    AND l.mode = 'RowExclusiveLock' AND l.pid <> pg_backend_pid()";

/// On an open side only sessions of the time of its last fence are in question (`since_us`, less
/// the seconds that a backend may take to start): they would stay read-only.
const SUMMARY: &str = "\
    SELECT (extract(epoch FROM n.changed_at) * 1000000)::bigint AS changed_us, \
    pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE') AS sees_all, \
    CASE WHEN n.state = 'open' THEN coalesce( \
        (extract(epoch FROM n.fenced_at) * 1000000)::bigint - 5000000, 9223372036854775807) \
        ELSE 0 END AS since_us, \
    (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now_us, \
    (extract(epoch FROM clock_timestamp() - n.changed_at) * 1000)::bigint AS since_change_ms, \
    n.revision, \
    (SELECT count(*) FROM pg_catalog.pg_prepared_xacts WHERE database = current_database()) AS prepared \
    FROM pgferry.node n";

/// Sessions of the recorded roles; and of superusers and our own roles, when somebody else uses
/// them to write.
///
/// A role that could not be altered when its side was opened is lifted later (`lifted_at` past
/// `changed_at`). Until then its sessions are in no question: who is ended comes back as read-only as
/// before. Then they are, once none can be starting with the old settings, all at once: the end of
/// each one earlier would be a client that comes back to be ended again. A superuser's session can
/// be ended by superusers alone, and stays.
const SESSIONS: &str = "\
    SELECT a.pid, (extract(epoch FROM a.backend_start) * 1000000)::bigint AS started_us, \
    a.usename::text AS role, coalesce(a.state = 'idle', false) AS idle, \
    a.backend_xid IS NOT NULL AS writes, f.role IS NOT NULL AS application, \
    extract(epoch FROM clock_timestamp() - a.xact_start)::float8 AS transaction_seconds, \
    CASE WHEN n.state = 'open' AND (f.lifted_at IS NULL OR f.lifted_at > n.changed_at) THEN \
        CASE WHEN f.lifted_at <= clock_timestamp() - interval '5 s' \
            AND (NOT r.rolsuper OR current_setting('is_superuser')::boolean) \
        THEN (extract(epoch FROM f.lifted_at) * 1000000)::bigint + 5000000 ELSE 0 END \
    END AS late_until_us \
    FROM pg_catalog.pg_stat_activity a JOIN pg_catalog.pg_roles r ON r.oid = a.usesysid \
    CROSS JOIN pgferry.node n \
    LEFT JOIN pgferry.fenced_role f ON f.role = a.usename \
    WHERE a.datname = current_database() AND a.backend_type = 'client backend' \
    AND a.pid <> pg_backend_pid() \
    AND (f.role IS NOT NULL OR ((r.rolsuper OR a.usename::text = ANY ($1::text[])) \
        AND a.application_name NOT LIKE 'pgferry%' AND a.backend_xid IS NOT NULL))";

const SESSIONS_OF_ROLES: &str = "\
    SELECT a.pid, (extract(epoch FROM a.backend_start) * 1000000)::bigint AS started_us, \
    a.usename::text AS role, coalesce(a.state = 'idle', false) AS idle, \
    a.backend_xid IS NOT NULL AS writes, true AS application, \
    extract(epoch FROM clock_timestamp() - a.xact_start)::float8 AS transaction_seconds, \
    NULL::bigint AS late_until_us \
    FROM pg_catalog.pg_stat_activity a \
    WHERE a.datname = current_database() AND a.backend_type = 'client backend' \
    AND a.pid <> pg_backend_pid() AND a.usename::text = ANY ($1::text[])";

#[cfg(test)]
mod tests {
    use super::*;

    fn starting(names: &[&str]) -> HashSet<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_fence_of_another_revision_than_the_records_is_not_seen() {
        let record = |revision| {
            Seen::Present(NodeRecord {
                side: Side::Source,
                id: uuid::Uuid::nil(),
                epoch: 1,
                state: pgferry_plan::world::NodeState::Fenced,
                revision,
            })
        };
        let fence = || Seen::Present((7, FenceView { starting: 3, ..FenceView::default() }));
        let seen = of_this_record(fence(), &record(7));
        assert_eq!(seen.present().map(|view| view.starting), Some(3));
        assert!(matches!(of_this_record(fence(), &record(8)), Seen::Unknown(_)));
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
