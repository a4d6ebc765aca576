//! The roles that may write, kept from before the stall: within it the question whether anything they
//! were read from has changed since stands for reading every ACL again.
//!
//! Nothing here judges. What is not known, or has changed, is read afresh.

use std::sync::PoisonError;

use pgferry_plan::roles::ApplicationRole;
use pgferry_plan::{Side, World};

use super::Look;
use super::node::prepared;
use crate::cluster::PgCluster;

/// What the verdict of a switchover read.
#[derive(Clone, Debug)]
pub(crate) struct KnownRoles {
    /// Of that side's catalogs, taken before the roles were read.
    side: Side,
    mark: Mark,
    of_both: [Vec<ApplicationRole>; 2],
}

/// A point in the life of the catalogs that say who may write.
#[derive(Clone, Debug)]
struct Mark {
    /// Every row version of a transaction before this one was seen (`xid`).
    since: String,
    /// What carries no transaction that may be read, or matters when it is gone.
    rest: i64,
}

/// Transactions of before the first: everything has changed since.
const NEVER: &str = "1";

impl PgCluster {
    /// Looks at both fences with every role, and keeps the roles for the fence of `from`.
    pub(crate) async fn see_fences_and_keep_roles(&self, world: &mut World, from: Side) {
        // Taken first: what changes during the look has changed since.
        let mark = self.mark_roles(from, NEVER).await;
        let roles = self.roles_of_both().await.map_err(|error| error.to_string());
        let known = match (mark, &roles) {
            (Ok(Some((mark, _))), Ok(of_both)) => {
                Some(KnownRoles { side: from, mark, of_both: of_both.clone() })
            }
            (Ok(_) | Err(_), _) => None,
        };
        *self.known_roles.lock().unwrap_or_else(PoisonError::into_inner) = known;
        for side in Side::BOTH {
            self.see_fence_with(world, side, &roles).await;
        }
    }

    /// The fence of the side that is to be closed: clients may be held already.
    pub(crate) async fn see_fence_and_known_roles(&self, world: &mut World, side: Side) {
        match self.unchanged_roles(side).await {
            Some(of_both) => self.see_fence_with(world, side, &Ok(of_both)).await,
            None => self.see_fence_and_roles(world, side).await,
        }
    }

    /// Behind the fence: a role that appeared since is found by reading all of them again, which
    /// happens only when something about roles and privileges has changed.
    pub(crate) async fn see_roles_that_appeared(&self, world: &mut World, side: Side) {
        if self.unchanged_roles(side).await.is_none() {
            self.see_fence_and_roles(world, side).await;
        }
    }

    /// Has the statement prepared where the stall will need it.
    pub(crate) async fn prepare_for_known_roles(&self, side: Side) {
        let _ = self.mark_roles(side, NEVER).await;
    }

    async fn unchanged_roles(&self, side: Side) -> Option<[Vec<ApplicationRole>; 2]> {
        let known = self.known_roles.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        let (now, changed) = self.mark_roles(side, &known.mark.since).await.ok()??;
        (known.side == side && !changed && known.mark.rest == now.rest).then_some(known.of_both)
    }

    /// The mark of now, and whether a row version has been made since another one.
    async fn mark_roles(&self, side: Side, since: &str) -> Look<(Mark, bool)> {
        let client = self.node(side).client().await?;
        let rows = prepared(&client, MARK, &[&since]).await?;
        let Some([row]) = rows.as_deref() else { return Ok(None) };
        let mark = Mark { since: row.try_get("since")?, rest: row.try_get("rest")? };
        Ok(Some((mark, row.try_get("changed")?)))
    }
}

/// Whether anything was made or changed that `application_roles.sql` concludes from about this side:
/// owners and ACLs of tables, columns, schemas, functions and the database, memberships, roles.
/// What was taken away can only lessen who may write, but for what an extension owned. Not the
/// roles' settings, and not the LOGIN that the fence has taken away: the fence itself must not
/// change it.
///
/// Only the age of a row version is asked of each, before any of its columns is: this is what grows
/// with the tables. With 10,000 of them it takes a fifth of what reading the ACLs takes.
const MARK: &str = "\
    SELECT pg_snapshot_xmin(pg_current_snapshot())::xid::text AS since, \
    EXISTS (SELECT FROM (SELECT c.oid, c.relkind, c.relpersistence FROM pg_catalog.pg_class c \
            WHERE age(c.xmin) <= k.span OFFSET 0) c \
        WHERE c.oid >= 16384 AND c.relkind IN ('r', 'p', 'v', 'm') AND c.relpersistence <> 't') \
    OR EXISTS (SELECT FROM (SELECT a.attacl FROM pg_catalog.pg_attribute a \
            WHERE age(a.xmin) <= k.span OFFSET 0) a WHERE a.attacl IS NOT NULL) \
    OR EXISTS (SELECT FROM pg_catalog.pg_namespace n WHERE age(n.xmin) <= k.span \
        AND n.nspname !~ '^pg_') \
    OR EXISTS (SELECT FROM pg_catalog.pg_proc p WHERE age(p.xmin) <= k.span) \
    OR EXISTS (SELECT FROM pg_catalog.pg_auth_members m WHERE age(m.xmin) <= k.span) \
    OR EXISTS (SELECT FROM pg_catalog.pg_database d WHERE age(d.xmin) <= k.span \
        AND d.datname = current_database()) AS changed, \
    hashtextextended( \
        (SELECT count(*) FROM pg_catalog.pg_depend e \
            WHERE e.refclassid = 'pg_catalog.pg_extension'::regclass AND e.deptype = 'e')::text || ' ' \
        || (SELECT string_agg(format('%s %s %s %s', r.oid, r.rolname, r.rolsuper, \
                r.rolcanlogin OR EXISTS (SELECT FROM pgferry.fenced_role f WHERE f.role = r.rolname \
                    AND f.lifted_at IS NULL AND (to_jsonb(f) ->> 'had_login')::boolean)), ',' ORDER BY r.oid) \
            FROM pg_catalog.pg_roles r), 0) AS rest \
    FROM (SELECT age($1::text::xid) AS span OFFSET 0) k";
