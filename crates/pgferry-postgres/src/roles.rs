//! Looking at the application's login roles: who may write here, and who can be fenced.
//!
//! One statement over the ACLs, grouped by grantee before any role is asked about, so that its
//! cost grows with roles and grants and not with their product. Nothing here writes.

use tokio_postgres::{Client, Row};

use pgferry_plan::RoleName;
use pgferry_plan::roles::{ApplicationRole, WriteAccess};

const APPLICATION_ROLES: &str = include_str!("roles/application_roles.sql");

/// From this version on a membership says whether it may be inherited and set.
const MEMBERSHIP_HAS_OPTIONS: i32 = 160_000;

/// The login roles of this server that are neither superuser nor `ours`, ordered by name.
///
/// With `elsewhere`, which costs a look at every shared dependency, what they own or are granted in
/// other databases counts as a use of those. A role that the fence has locked out counts as one that may log in: it may when its side is
/// opened. Roles that may not write are listed too: on a destination that has no tables yet, the roles
/// that will write are known from the source only.
pub async fn application_roles(
    client: &Client,
    ours: &[RoleName],
    elsewhere: bool,
) -> Result<Vec<ApplicationRole>, tokio_postgres::Error> {
    let version: i32 = client
        .query_one("SELECT current_setting('server_version_num')::int", &[])
        .await?
        .try_get(0)?;
    let locked_out = locked_out(client).await?;
    let rows = client.query(&statement(version), &[&ours, &locked_out, &elsewhere]).await?;
    rows.iter().map(role_from).collect()
}

/// Roles of this server whose LOGIN the fence has taken away; none before there is a record.
pub(crate) async fn locked_out(client: &Client) -> Result<Vec<RoleName>, tokio_postgres::Error> {
    // Asked first, not found out by an error: each is a line in the server's log.
    if !client.query_one(RECORD_IS_THERE, &[]).await?.try_get::<_, bool>(0)? {
        return Ok(Vec::new());
    }
    client.query(LOCKED_OUT, &[]).await?.iter().map(|row| row.try_get(0)).collect()
}

/// A record that may not be read is another role's, and nothing of ours.
const RECORD_IS_THERE: &str = "SELECT EXISTS (SELECT FROM pg_catalog.pg_class c \
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    WHERE n.nspname = 'pgferry' AND c.relname = 'fenced_role' \
    AND has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT'))";

/// By way of JSON, because a record that an older version made lacks the column.
const LOCKED_OUT: &str = "SELECT f.role::text FROM pgferry.fenced_role f \
    WHERE f.lifted_at IS NULL AND (to_jsonb(f) ->> 'had_login')::boolean";

fn statement(server_version: i32) -> String {
    let membership = if server_version < MEMBERSHIP_HAS_OPTIONS { "MEMBER" } else { "USAGE, SET" };
    APPLICATION_ROLES.replace("{membership}", membership)
}

fn role_from(row: &Row) -> Result<ApplicationRole, tokio_postgres::Error> {
    let words: Vec<String> = row.try_get("writes")?;
    Ok(ApplicationRole {
        name: row.try_get("name")?,
        may_connect: row.try_get("may_connect")?,
        // A word that is not known would have to come from the statement above; it counts as a
        // grant rather than as nothing.
        writes: words
            .iter()
            .map(|word| WriteAccess::from_word(word).unwrap_or(WriteAccess::Grant))
            .collect(),
        read_only_here: row.try_get("read_only_here")?,
        read_only_everywhere: row.try_get("read_only_everywhere")?,
        alterable: row.try_get("alterable")?,
        login_alterable: row.try_get("login_alterable")?,
        sessions: u32::try_from(row.try_get::<_, i64>("sessions")?).unwrap_or(u32::MAX),
        other_databases: row.try_get("other_databases")?,
    })
}
