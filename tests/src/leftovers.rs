//! What of pgferry and pglogical is on a server, so that before and after can be compared.
//!
//! The extension itself is no leftover where an administrator made it beforehand: it is in both
//! lists.

use std::collections::BTreeSet;

use crate::cluster::Cluster;
use crate::pair::DATABASE;

/// One line for each object, as a person would name it.
#[must_use]
pub fn inventory(cluster: &Cluster) -> BTreeSet<String> {
    let session = cluster.admin(DATABASE);
    let mut found: BTreeSet<String> = session.column(ALWAYS).into_iter().collect();
    if session.value("SELECT to_regclass('pglogical.node')").is_some() {
        found.extend(session.column(IN_PGLOGICAL));
    }
    found
}

/// What is there now and was not there before.
#[must_use]
pub fn since(before: &BTreeSet<String>, cluster: &Cluster) -> Vec<String> {
    inventory(cluster).difference(before).cloned().collect()
}

/// `pg_replication_slots` and origins are of the whole server; a test server has one database.
const ALWAYS: &str = "
SELECT 'schema ' || nspname FROM pg_namespace WHERE nspname IN ('pgferry', 'pglogical')
UNION ALL SELECT 'extension ' || extname FROM pg_extension WHERE extname LIKE 'pglogical%'
UNION ALL SELECT 'slot ' || slot_name FROM pg_replication_slots
UNION ALL SELECT 'origin ' || roname FROM pg_replication_origin
UNION ALL SELECT 'trigger ' || tgname || ' on ' || tgrelid::regclass FROM pg_trigger
           WHERE tgname LIKE 'queue\\_truncate\\_trigger%'
UNION ALL SELECT 'role ' || rolname FROM pg_roles WHERE rolname LIKE 'pgferry\\_%'";

const IN_PGLOGICAL: &str = "
SELECT 'node ' || node_name FROM pglogical.node
UNION ALL SELECT 'subscription ' || sub_name FROM pglogical.subscription
UNION ALL SELECT 'replication set ' || set_name FROM pglogical.replication_set
UNION ALL SELECT 'sync status of ' || sync_subid FROM pglogical.local_sync_status
UNION ALL SELECT 'table in a set: ' || set_reloid::regclass FROM pglogical.replication_set_table";
