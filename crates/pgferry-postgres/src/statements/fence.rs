//! Closing a side to application writes and opening it again, as text.
//!
//! What is restored is read from the record where it is: nothing is carried through this process.

use pgferry_plan::SessionId;

use crate::quote::{ident, literal};

/// What the record keeps of a fenced role: what lifting its fence restores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FencedRole {
    /// `pg_roles.rolname`
    pub(crate) name: String,
    /// `default_transaction_read_only` of the role in this database before the fence.
    pub(crate) previous_setting: Option<String>,
    /// It might log in before the fence, which has taken that away.
    pub(crate) locked_out: bool,
}

/// Closes a side: what was before into the record, the roles read-only, the state. `lock_out` are
/// those of the roles that may not log in any more either.
///
/// The setting is there with NOLOGIN too: a session whose login was checked right before reads its
/// settings only afterwards, and is read-only.
pub(crate) fn fence(database: &str, roles: &[String], lock_out: &[String]) -> String {
    let mut body = String::new();
    if !roles.is_empty() {
        let list = |roles: &[String]| roles.iter().map(|role| literal(role)).collect::<Vec<_>>();
        let named = list(roles).join(", ");
        // A record that an older version made lacks the column, and does without.
        let (column, had_login) = if lock_out.is_empty() {
            (String::new(), String::new())
        } else {
            let locked = list(lock_out).join(", ");
            (
                ", had_login".to_owned(),
                format!(", CASE WHEN r.rolname IN ({locked}) THEN r.rolcanlogin END"),
            )
        };
        body.push_str(&format!(
            "DELETE FROM pgferry.fenced_role WHERE lifted_at IS NOT NULL AND role IN ({named}); \
             INSERT INTO pgferry.fenced_role (role, previous_setting{column}) \
             SELECT r.rolname, (SELECT split_part(c.item, '=', 2) \
             FROM pg_catalog.pg_db_role_setting s, unnest(s.setconfig) AS c(item) \
             WHERE s.setrole = r.oid AND s.setdatabase = (SELECT oid FROM pg_catalog.pg_database \
             WHERE datname = current_database()) AND c.item LIKE 'default_transaction_read_only=%')\
             {had_login} \
             FROM pg_catalog.pg_roles r WHERE r.rolname IN ({named}) ON CONFLICT (role) DO NOTHING; "
        ));
        for role in roles {
            body.push_str(&format!(
                "ALTER ROLE {} IN DATABASE {} SET default_transaction_read_only = on; ",
                ident(role),
                ident(database)
            ));
        }
        body.push_str(LOCK_OUT);
    }
    // A side that has yielded stays so when a new role is closed out.
    body.push_str(
        "UPDATE pgferry.node SET revision = revision + 1, changed_at = clock_timestamp(), \
         fenced_at = CASE WHEN state = 'open' THEN clock_timestamp() ELSE fenced_at END, \
         state = CASE WHEN state = 'open' THEN 'fenced' ELSE state END",
    );
    body
}

/// By the record and not by name: one that somebody let in again is locked out again, and nothing
/// is taken away that the record would not give back.
const LOCK_OUT: &str = "DO $lock_out$ DECLARE locked name; BEGIN \
    FOR locked IN SELECT f.role FROM pgferry.fenced_role f \
        JOIN pg_catalog.pg_roles r ON r.rolname = f.role \
        WHERE f.lifted_at IS NULL AND (to_jsonb(f) ->> 'had_login')::boolean AND r.rolcanlogin \
    LOOP EXECUTE format('ALTER ROLE %I NOLOGIN', locked); END LOOP; END $lock_out$; ";

/// Opens a side: every recorded setting restored, the record lifted, the state. The roles stay in
/// the record, because their sessions of the time of the fence are still to be ended.
///
/// A role that cannot be altered, because this one has lost the right since the fence, does not keep
/// the others closed out. It stays in the record as it is, to be lifted by this statement once it can
/// be, or once an administrator has: then neither the time of the opening changes, nor that of the
/// fence, and `lifted_at` is later than `changed_at`; in an opening they are the same.
///
/// One message, like everything within the stall: the settings are read from the record where it is.
/// A role that was dropped behind the fence has none to restore.
pub(crate) const OPEN: &str = "DO $lift$ DECLARE \
    fenced record; lifted name[] := '{}'; late boolean; moment timestamptz; BEGIN \
    SELECT n.state = 'open' AND EXISTS (SELECT FROM pgferry.fenced_role f \
        JOIN pg_catalog.pg_roles r ON r.rolname = f.role WHERE f.lifted_at IS NULL) \
        INTO late FROM pgferry.node n; \
    FOR fenced IN SELECT f.role, f.previous_setting AS setting, \
        (to_jsonb(f) ->> 'had_login')::boolean AS locked_out \
        FROM pgferry.fenced_role f JOIN pg_catalog.pg_roles r ON r.rolname = f.role \
        WHERE f.lifted_at IS NULL \
    LOOP \
        BEGIN \
            EXECUTE format('ALTER ROLE %I IN DATABASE %I ', fenced.role, current_database()) \
                || CASE WHEN fenced.setting IS NULL THEN 'RESET default_transaction_read_only' \
                   ELSE format('SET default_transaction_read_only = %L', fenced.setting) END; \
            IF fenced.locked_out THEN EXECUTE format('ALTER ROLE %I LOGIN', fenced.role); END IF; \
            lifted := lifted || fenced.role; \
        EXCEPTION WHEN insufficient_privilege OR undefined_object THEN \
            IF EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.rolname = fenced.role \
                AND (r.rolcanlogin OR fenced.locked_out IS NOT TRUE) \
                AND NOT EXISTS (SELECT FROM pg_catalog.pg_db_role_setting s WHERE s.setrole = r.oid \
                    AND s.setdatabase = (SELECT oid FROM pg_catalog.pg_database \
                        WHERE datname = current_database()) \
                    AND 'default_transaction_read_only=on' = ANY (s.setconfig))) \
            THEN lifted := lifted || fenced.role; END IF; \
        END; \
    END LOOP; \
    moment := clock_timestamp(); \
    UPDATE pgferry.fenced_role f SET lifted_at = moment WHERE f.lifted_at IS NULL \
        AND (f.role = ANY (lifted) \
        OR NOT EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.rolname = f.role)); \
    UPDATE pgferry.node SET revision = revision + 1, \
        changed_at = CASE WHEN late THEN changed_at ELSE moment END, \
        fenced_at = CASE WHEN state = 'open' AND NOT late THEN NULL ELSE fenced_at END, \
        state = 'open'; \
    END $lift$";

/// The statements by which a person restores what one role had: what [`OPEN`] does.
pub(crate) fn lift(database: &str, role: &FencedRole) -> String {
    let (name, database) = (ident(&role.name), ident(database));
    let setting = match &role.previous_setting {
        Some(value) => format!("SET default_transaction_read_only = {}", literal(value)),
        None => "RESET default_transaction_read_only".to_owned(),
    };
    let setting = format!("ALTER ROLE {name} IN DATABASE {database} {setting}");
    if role.locked_out { format!("{setting}; ALTER ROLE {name} LOGIN") } else { setting }
}

/// Writes that this side has yielded. This is the line.
pub(crate) const YIELD: &str = "UPDATE pgferry.node SET state = 'yielded', \
     revision = revision + 1, changed_at = clock_timestamp()";

/// Ends client sessions that are still the ones that were seen, but for those of superusers, unless we
/// are one: that is an error, and would spare all others in the same statement.
pub(crate) fn end_sessions(sessions: &[SessionId]) -> String {
    let wanted: Vec<String> =
        sessions.iter().map(|s| format!("({}, {}::bigint)", s.pid, s.started_us)).collect();
    // Whether the guard's lock on the record survives a crash matters to nobody.
    format!(
        "SET LOCAL synchronous_commit = off; \
         SELECT pg_catalog.pg_terminate_backend(a.pid) FROM pg_catalog.pg_stat_activity a \
         JOIN (VALUES {}) AS wanted(pid, started_us) ON wanted.pid = a.pid \
         AND wanted.started_us = (extract(epoch FROM a.backend_start) * 1000000)::bigint \
         WHERE a.backend_type = 'client backend' AND NOT EXISTS ( \
            SELECT FROM pg_catalog.pg_roles r, pg_catalog.pg_roles us WHERE r.oid = a.usesysid \
            AND r.rolsuper AND us.rolname = current_user AND NOT us.rolsuper)",
        wanted.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifting_restores_exactly_what_was() {
        let name = "app".to_owned();
        let before = |previous_setting, locked_out| {
            lift("db", &FencedRole { name: name.clone(), previous_setting, locked_out })
        };
        assert!(
            before(Some("off".to_owned()), false)
                .ends_with("SET default_transaction_read_only = 'off'")
        );
        assert!(before(None, false).ends_with("RESET default_transaction_read_only"));
        assert!(
            before(None, true)
                .ends_with("RESET default_transaction_read_only; ALTER ROLE \"app\" LOGIN")
        );
    }

    #[test]
    fn a_record_of_an_older_version_is_not_asked_for_what_it_lacks() {
        let app = "app".to_owned();
        let sql = fence("db", std::slice::from_ref(&app), &[]);
        assert!(!sql.contains(", had_login"), "{sql}");
        let sql = fence("db", std::slice::from_ref(&app), std::slice::from_ref(&app));
        assert!(sql.contains("(role, previous_setting, had_login)"), "{sql}");
    }
}
