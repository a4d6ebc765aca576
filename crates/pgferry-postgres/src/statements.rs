//! Every mutation of a node, as text: what it does, and the guard that it begins with.
//!
//! Pure. A mutation is one message of several statements, and so one implicit transaction: the
//! guard refuses it when another leadership has raised the epoch, and whoever raises the epoch
//! waits for what is in flight. There is no BEGIN, because an error would leave the session
//! inside a failed transaction.

mod fence;

use pgferry_plan::existing::{AsideKind, SetAside};
use pgferry_plan::world::NodeState;
use pgferry_plan::{Lsn, MigrationName, SequenceName, SetAddition, Side, TableName};
use uuid::Uuid;

use crate::quote::{ident, literal, table};

pub(crate) use fence::{FencedRole, OPEN, YIELD, end_sessions, fence, lift};

/// SQLSTATE of a mutation that another leadership's epoch refused.
pub(crate) const EPOCH_RAISED: &str = "PF001";
/// SQLSTATE of a mutation whose record has changed since it was seen.
pub(crate) const RECORD_CHANGED: &str = "PF002";
/// SQLSTATE of a mutation for which the other side's marker has not arrived.
pub(crate) const MARKER_MISSING: &str = "PF003";

/// The leadership under which a mutation runs, and what it was decided on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Guard {
    /// The epoch that the node must carry.
    pub(crate) epoch: i64,
    revision: Option<i64>,
    after_marker: Option<u64>,
}

impl Guard {
    /// The node must carry this epoch.
    pub(crate) fn of_epoch(epoch: i64) -> Self {
        Self { epoch, revision: None, after_marker: None }
    }

    /// Its record must have this revision, too: for changes of state.
    pub(crate) fn of_record(epoch: i64, revision: i64) -> Self {
        Self { revision: Some(revision), ..Self::of_epoch(epoch) }
    }

    /// And the other side's marker must have arrived. What the same transaction sees committed stands
    /// before it in the WAL, and is on disk with it: no crash takes it back any more.
    pub(crate) fn after_marker(self, token: Option<u64>) -> Self {
        Self { after_marker: token, ..self }
    }
}

/// A mutation: the guard, then the statements.
pub(crate) fn guarded(side: Side, guard: Guard, body: &str) -> String {
    let Guard { epoch, revision, after_marker } = guard;
    let lock = if revision.is_some() { "UPDATE" } else { "SHARE" };
    let mut check = revision.map_or(String::new(), |revision| {
        format!(
            "PERFORM 1 FROM pgferry.node WHERE revision = {revision}; \
             IF NOT FOUND THEN RAISE EXCEPTION 'the record of this node has changed' \
             USING ERRCODE = '{RECORD_CHANGED}'; END IF; "
        )
    });
    if let Some(token) = after_marker {
        let other = side.other();
        check.push_str(&format!(
            "PERFORM 1 FROM pgferry.marker WHERE side = '{other}' AND token >= {token}; \
             IF NOT FOUND THEN RAISE EXCEPTION 'the last writes of the {other} are not here' \
             USING ERRCODE = '{MARKER_MISSING}'; END IF; "
        ));
    }
    format!(
        "DO $guard$ BEGIN \
         PERFORM 1 FROM pgferry.node WHERE epoch = {epoch} AND side = '{side}' FOR {lock}; \
         IF NOT FOUND THEN RAISE EXCEPTION 'this is not the {side} under epoch {epoch}' \
         USING ERRCODE = '{EPOCH_RAISED}'; END IF; \
         {check}END $guard$; {body}"
    )
}

/// The node's record, made once; the epoch of the leadership that installs it.
pub(crate) fn insert_record(migration: &MigrationName, side: Side, id: Uuid, epoch: i64) -> String {
    // A source is open when a migration starts. A destination too, until its fence says otherwise.
    format!(
        "INSERT INTO pgferry.node (migration, side, id, epoch, state) \
         VALUES ({}, {}, {}, {epoch}, 'open') ON CONFLICT DO NOTHING",
        literal(migration.as_str()),
        literal(side.as_str()),
        literal(&id.to_string()),
    )
}

/// The extension and who may use it. PUBLIC needs USAGE because any DROP or TRUNCATE of the
/// application looks into the schema; EXECUTE it must not have, because pglogical's functions
/// check no privilege and its workers are superuser.
pub(crate) const CREATE_EXTENSION: &str = "\
    CREATE EXTENSION IF NOT EXISTS pglogical; \
    GRANT USAGE ON SCHEMA pglogical TO PUBLIC; \
    REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA pglogical FROM PUBLIC";

/// Ends the walsender of one slot; only the one with this process id, where one is given. pglogical's worker
/// on the other end, if there is one, comes back after some seconds.
pub(crate) fn end_reader(slot: &str, pid: Option<i32>) -> String {
    let which = pid.map_or("IS NOT NULL".to_owned(), |pid| format!("= {pid}"));
    format!(
        "SET LOCAL synchronous_commit = off; \
         SELECT pg_catalog.pg_terminate_backend(active_pid) FROM pg_catalog.pg_replication_slots \
         WHERE slot_name = {} AND active_pid {which}",
        literal(slot)
    )
}

/// Writes a side's own marker; a token never goes back.
///
/// Its time only ever grows: a clock that is set back would let an older marker stand for this one.
pub(crate) fn write_marker(side: Side, token: u64) -> String {
    format!(
        "UPDATE pgferry.marker SET token = greatest(token, {token}), \
         written_at = greatest(clock_timestamp(), written_at + interval '1 microsecond'), \
         writer = pg_catalog.pg_current_xact_id() \
         WHERE side = {}",
        literal(side.as_str())
    )
}

/// Writes a side's own marker with the token that it has: its arrival alone is waited for.
pub(crate) fn touch_marker(side: Side) -> String {
    write_marker(side, 0)
}

/// Records that a table has this many rows on both sides.
pub(crate) fn record_counted(name: &TableName, rows: i64) -> String {
    // Not a position of anything: nothing is handed over at it.
    format!(
        "INSERT INTO pgferry.copied (schema_name, table_name, snapshot_lsn, row_count, byte_count) \
         VALUES ({}, {}, '0/0', {rows}, 0) ON CONFLICT DO NOTHING",
        literal(&name.schema),
        literal(&name.name)
    )
}

/// Sets the last values of sequences in one statement, and raises the revision, so that the same
/// of an earlier attempt that lands late is refused instead of setting them back.
///
/// `setval` is seen at once and by everybody, also by who would open this side for it; the revision
/// only when the commit is on disk. It must not be an asynchronous one: a server that crashes between
/// the setting and the opening would hand numbers out twice. Without a value, what was set by whose
/// commit was not seen is made to last.
pub(crate) fn set_sequences(values: &[(SequenceName, i64)]) -> String {
    const RAISE_REVISION: &str = "UPDATE pgferry.node SET revision = revision + 1";
    if values.is_empty() {
        return RAISE_REVISION.to_owned();
    }
    let rows: Vec<String> = values
        .iter()
        .map(|(name, value)| format!("({}::regclass, {value}::bigint)", literal(&table(name))))
        .collect();
    format!(
        "{RAISE_REVISION}; \
         SELECT pg_catalog.setval(wanted.sequence, wanted.value, true) \
         FROM (VALUES {}) AS wanted(sequence, value)",
        rows.join(", ")
    )
}

/// Registers the database with pglogical.
pub(crate) fn create_node(node: &str, own_conninfo: &str) -> String {
    format!("SELECT pglogical.create_node({}, {})", literal(node), literal(own_conninfo))
}

/// Makes a replication set unless it is there.
pub(crate) fn create_set(set: &str, insert_only: bool) -> String {
    let changes = !insert_only;
    format!(
        "SELECT pglogical.create_replication_set({name}, true, {changes}, {changes}, true) \
         WHERE NOT EXISTS (SELECT FROM pglogical.replication_set WHERE set_name = {name})",
        name = literal(set)
    )
}

/// Puts one table into a set: it locks the table against writers until the commit, so each has
/// a transaction of its own and gives up soon.
pub(crate) fn add_table(set: &str, name: &TableName, lock_timeout_ms: u32) -> String {
    format!(
        "SET LOCAL lock_timeout = {lock_timeout_ms}; \
         SELECT pglogical.replication_set_add_table({set}, {table}::regclass, false) \
         WHERE NOT EXISTS (SELECT FROM pglogical.replication_set_table t \
         JOIN pglogical.replication_set s USING (set_id) \
         WHERE s.set_name = {set} AND t.set_reloid = {table}::regclass)",
        set = literal(set),
        table = literal(&table(name))
    )
}

/// The set that a table goes into.
pub(crate) fn set_of(migration: &MigrationName, addition: &SetAddition) -> String {
    if addition.insert_only { migration.insert_only_set() } else { migration.set() }
}

/// Creates a subscription that copies nothing and forwards nothing; `as_text` where a column's
/// binary form is an OID, which means something else on the other server. `forward_origins` is never
/// left at its default: it would make a loop of the two streams.
pub(crate) fn create_subscription(
    subscription: &str,
    provider_conninfo: &str,
    sets: &[String],
    as_text: bool,
) -> String {
    subscription_on(subscription, provider_conninfo, sets, false, as_text)
}

/// Creates a subscription that begins with a copy of every row, by pglogical. That of pgferry's own
/// tables too: a row of theirs in its way would be one that the copy breaks at, in silence.
pub(crate) fn create_copying_subscription(
    subscription: &str,
    provider_conninfo: &str,
    sets: &[String],
    as_text: bool,
) -> String {
    format!(
        "DELETE FROM pgferry.heartbeat; DELETE FROM pgferry.marker; {}",
        subscription_on(subscription, provider_conninfo, sets, true, as_text)
    )
}

fn subscription_on(
    subscription: &str,
    provider_conninfo: &str,
    sets: &[String],
    copy: bool,
    as_text: bool,
) -> String {
    let sets: Vec<String> = sets.iter().map(|set| literal(set)).collect();
    format!(
        "SELECT pglogical.create_subscription({}, {}, ARRAY[{}]::text[], false, {copy}, \
         '{{}}', '0'::interval, {as_text})",
        literal(subscription),
        literal(provider_conninfo),
        sets.join(", ")
    )
}

/// Completes the creation of a subscription whose slot was made at `from`: the origin stands
/// there, and pglogical has nothing left to prepare. Fails when pglogical names the slot otherwise.
pub(crate) fn with_slot_made(create: &str, subscription: &str, slot: &str, from: &str) -> String {
    let (subscription, slot) = (literal(subscription), literal(slot));
    format!(
        "{create}; \
         SELECT pg_catalog.pg_replication_origin_create({slot}) WHERE NOT EXISTS \
         (SELECT FROM pg_catalog.pg_replication_origin WHERE roname = {slot}); \
         SELECT pg_catalog.pg_replication_origin_advance({slot}, {}::pg_lsn); \
         DO $ready$ BEGIN \
         UPDATE pglogical.local_sync_status AS y SET sync_status = 'r' \
         FROM pglogical.subscription s WHERE s.sub_name = {subscription} \
         AND s.sub_slot_name = {slot} AND y.sync_subid = s.sub_id \
         AND y.sync_nspname IS NULL AND y.sync_relname IS NULL; \
         IF NOT FOUND THEN RAISE EXCEPTION 'pglogical has not made the subscription as expected'; \
         END IF; END $ready$",
        literal(from)
    )
}

/// Makes a slot of pglogical's and returns its position, under an epoch. Not guarded: a
/// transaction that has locked a row may not make one.
pub(crate) fn create_slot(slot: &str, epoch: i64) -> String {
    format!(
        "SELECT (pg_catalog.pg_create_logical_replication_slot({}, 'pglogical_output')).lsn::text \
         FROM pgferry.node WHERE epoch = {epoch}",
        literal(slot)
    )
}

/// Switches a subscription off.
pub(crate) fn disable_subscription(subscription: &str) -> String {
    format!("SELECT pglogical.alter_subscription_disable({}, false)", literal(subscription))
}

/// Switches a subscription on.
pub(crate) fn enable_subscription(subscription: &str) -> String {
    format!("SELECT pglogical.alter_subscription_enable({}, false)", literal(subscription))
}

/// Wakes pglogical's manager for a subscription that is enabled, and does nothing to another.
pub(crate) fn wake_subscription(subscription: &str) -> String {
    format!(
        "SELECT pglogical.alter_subscription_enable(sub_name, false) \
         FROM pglogical.subscription WHERE sub_name = {} AND sub_enabled",
        literal(subscription)
    )
}

/// Replaces the empty set of a subscription by the real ones.
pub(crate) fn swap_sets(subscription: &str, migration: &MigrationName) -> String {
    let subscription = literal(subscription);
    format!(
        "SELECT pglogical.alter_subscription_add_replication_set({subscription}, {}); \
         SELECT pglogical.alter_subscription_add_replication_set({subscription}, {}); \
         SELECT pglogical.alter_subscription_remove_replication_set({subscription}, {})",
        literal(&migration.set()),
        literal(&migration.insert_only_set()),
        literal(&migration.empty_set())
    )
}

/// Advances a slot that nobody reads, on its provider.
pub(crate) fn advance_slot(slot: &str, to: Lsn) -> String {
    format!("SELECT pg_catalog.pg_replication_slot_advance({}, '{to}'::pg_lsn)", literal(slot))
}

/// Begins a stream at a position. The origin's advance is not flushed by itself; the commit of
/// the same transaction flushes it.
pub(crate) fn start_stream(subscription: &str, slot: &str, at: Lsn, with_origin: bool) -> String {
    let enable = enable_subscription(subscription);
    if with_origin {
        format!(
            "SELECT pg_catalog.pg_replication_origin_advance({}, '{at}'::pg_lsn); {enable}",
            literal(slot)
        )
    } else {
        enable
    }
}

/// Drops a subscription that is at rest, and its slot and origin with it, as far as it can.
pub(crate) fn drop_subscription(subscription: &str) -> String {
    format!("SELECT pglogical.drop_subscription({}, true)", literal(subscription))
}

/// Drops a slot that its subscription left behind.
pub(crate) fn drop_slot(slot: &str) -> String {
    format!(
        "SELECT pg_catalog.pg_drop_replication_slot(slot_name) \
         FROM pg_catalog.pg_replication_slots WHERE slot_name = {}",
        literal(slot)
    )
}

/// Drops an origin that its subscription left behind.
pub(crate) fn drop_origin(origin: &str) -> String {
    format!(
        "SELECT pg_catalog.pg_replication_origin_drop(roname) \
         FROM pg_catalog.pg_replication_origin WHERE roname = {}",
        literal(origin)
    )
}

/// Unregisters the database.
pub(crate) fn drop_node(node: &str) -> String {
    format!("SELECT pglogical.drop_node({}, true)", literal(node))
}

/// The extension leaves its schema behind, where it goes on breaking the application's DDL.
pub(crate) const DROP_EXTENSION: &str = "SET LOCAL lock_timeout = '2s'; \
     DROP EXTENSION IF EXISTS pglogical; DROP SCHEMA IF EXISTS pglogical";

/// Removes a node's tables, by name, and the schema when nothing else is in it: the journal may
/// be, of this migration or of others, under whatever host name it is configured.
pub(crate) const REMOVE: &str = "\
    DROP TABLE IF EXISTS pgferry.set_aside; \
    DROP TABLE IF EXISTS pgferry.verified, pgferry.background; \
    DROP TABLE pgferry.fenced_role, pgferry.heartbeat, pgferry.marker, pgferry.copied, \
    pgferry.node_history, pgferry.node; \
    DO $empty$ BEGIN \
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_class WHERE relnamespace = 'pgferry'::regnamespace) \
    THEN DROP SCHEMA pgferry; END IF; END $empty$";

/// Takes objects of one table out of the way, and records how they are made again.
pub(crate) fn set_aside(objects: &[&SetAside], lock_timeout_ms: u32) -> String {
    let rows: Vec<String> = objects
        .iter()
        .map(|object| {
            format!(
                "({}, {}, {}, {}, {})",
                literal(object.kind.as_str()),
                literal(&object.table.schema),
                literal(&object.table.name),
                literal(&object.name),
                object.definition.as_deref().map_or("NULL".to_owned(), literal)
            )
        })
        .collect();
    // What goes with the object of a table above has no definition, and may be gone already.
    let drops: Vec<String> = objects
        .iter()
        .filter(|object| object.definition.is_some())
        .map(|object| {
            let (on, name) = (table(&object.table), ident(&object.name));
            match object.kind {
                AsideKind::Constraint => {
                    format!("; ALTER TABLE {on} DROP CONSTRAINT IF EXISTS {name}")
                }
                AsideKind::Trigger => format!("; DROP TRIGGER IF EXISTS {name} ON {on}"),
                AsideKind::Content => format!("; REFRESH MATERIALIZED VIEW {on} WITH NO DATA"),
            }
        })
        .collect();
    format!(
        "SET LOCAL lock_timeout = {lock_timeout_ms}; SET LOCAL client_min_messages = warning; \
         INSERT INTO pgferry.set_aside (kind, schema_name, table_name, name, definition) \
         VALUES {} ON CONFLICT (kind, schema_name, table_name, name) \
         DO UPDATE SET definition = excluded.definition, set_aside_at = now(){}",
        rows.join(", "),
        drops.concat()
    )
}

/// The words of a state, for people and for SQL.
pub(crate) fn state_from(word: &str) -> Option<NodeState> {
    [NodeState::Open, NodeState::Fenced, NodeState::Yielded]
        .into_iter()
        .find(|state| state.as_str() == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_of_state_locks_the_record_and_states_the_revision_it_saw() {
        let sql = guarded(Side::Source, Guard::of_record(3, 7), YIELD);
        assert!(
            sql.contains("epoch = 3 AND side = 'source' FOR UPDATE")
                && sql.contains("revision = 7")
        );
        let sql = guarded(Side::Source, Guard::of_epoch(3), "SELECT 1");
        assert!(sql.contains("side = 'source' FOR SHARE") && !sql.contains(RECORD_CHANGED));
    }

    #[test]
    fn names_from_the_database_are_quoted_wherever_they_go() {
        let nasty = "a\"b'c".to_owned();
        let sql = fence(&nasty, std::slice::from_ref(&nasty), std::slice::from_ref(&nasty));
        assert!(sql.contains("ALTER ROLE \"a\"\"b'c\" IN DATABASE \"a\"\"b'c\" SET"));
        assert!(sql.contains("IN ('a\"b''c')"));
        let sql = set_sequences(&[(SequenceName::new("s'", "q\""), 5)]);
        assert!(sql.contains("'\"s''\".\"q\"\"\"'::regclass"), "{sql}");
        assert!(!sql.contains("synchronous_commit"), "{sql}");
    }

    #[test]
    fn what_is_set_aside_is_recorded_in_the_same_transaction() {
        let object = SetAside {
            kind: AsideKind::Trigger,
            table: TableName::new("s'", "t\""),
            name: "n'".to_owned(),
            definition: Some("CREATE TRIGGER 'x'".to_owned()),
        };
        let child = SetAside { definition: None, ..object.clone() };
        let sql = set_aside(&[&object, &child], 200);
        assert!(sql.contains("'s''', 't\"', 'n''', 'CREATE TRIGGER ''x'''"), "{sql}");
        assert!(sql.ends_with("; DROP TRIGGER IF EXISTS \"n'\" ON \"s'\".\"t\"\"\""), "{sql}");
        assert_eq!(sql.matches("DROP TRIGGER").count(), 1, "{sql}");
    }
}
