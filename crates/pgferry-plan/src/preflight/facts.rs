//! What preflight was told: each look apart, because each can fail apart.
//!
//! Plain values as a server's catalogs give them. A look that failed is Unknown and blocks by
//! that alone; nothing here is ever filled in with a guess.

use std::collections::{BTreeMap, BTreeSet};

use crate::existing::ExistingView;
use crate::name::{MigrationName, RoleName, TableName};
use crate::roles::ApplicationRole;
use crate::scope::{ScopeRules, TableView};
use crate::seen::Seen;

/// Everything that [`check`](super::check) judges.
#[derive(Clone, Debug)]
pub struct PreflightFacts {
    /// The source; Unknown, with the reason, when it could not be reached at all.
    pub source: Seen<NodeFacts>,
    /// The destination; Unknown, with the reason, when it could not be reached at all.
    pub destination: Seen<NodeFacts>,
    /// How the schema that is on the destination compares, where the migration is to take it.
    pub existing: Seen<ExistingView>,
    /// What pglogical's own copy needs on the destination, where it is to copy.
    pub native: Seen<NativeCopyFacts>,
    /// What the configuration says.
    pub policy: PreflightPolicy,
}

/// What pglogical's own copy needs of the role that the destination's server logs in to itself as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NativeCopyFacts {
    /// That role.
    pub role: RoleName,
    /// It may set `session_replication_role`, as the copy does first of all.
    pub may_set_replication_role: bool,
    /// It may execute `pg_replication_origin_session_setup`, as the copy does.
    pub may_use_origins: bool,
}

/// What the configuration and the journal say beforehand.
#[derive(Clone, Debug)]
pub struct PreflightPolicy {
    /// Whose preflight it is.
    pub migration: MigrationName,
    /// What is carried.
    pub scope: ScopeRules,
    /// The destination has its schema already (`schema.mode = "existing"`).
    pub existing_schema: bool,
    /// pglogical copies the rows (`copy.method = "pglogical"`).
    pub native_copy: bool,
    /// Roles that the configuration says to fence; `None` for every role that may write.
    pub fence_roles: Option<Vec<RoleName>>,
    /// The fence takes the roles' LOGIN away too (`fence.method = "no_login"`).
    pub locks_out: bool,
    /// Roles that the configuration says not to fence.
    pub fence_exclusions: Vec<RoleName>,
    /// Bytes of WAL that the copy may make the source keep; `None` when nobody said.
    pub max_retained_wal: Option<u64>,
    /// What is ours already, and no leftover of an earlier run.
    pub progress: Progress,
}

/// How far this migration has come, by its journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// A journal of this migration exists: schema `pgferry` is ours on both sides.
    pub started: bool,
    /// Nodes may exist: pglogical's nodes, subscriptions, slots and origins are ours, and what
    /// they need is taken already.
    pub nodes: bool,
    /// The schema copy may have begun: objects on the destination are ours.
    pub schema: bool,
}

/// One side, each look apart.
#[derive(Clone, Debug, Default)]
pub struct NodeFacts {
    /// The server and the database.
    pub server: Seen<ServerFacts>,
    /// Server settings by name; what is hidden or unknown to this version has no entry.
    pub settings: Seen<BTreeMap<String, String>>,
    /// Settings kept for the database and for roles.
    pub catalog_settings: Seen<Vec<CatalogSetting>>,
    /// Extensions by name, installed or available.
    pub extensions: Seen<BTreeMap<String, ExtensionFacts>>,
    /// What is in use of the server's limits.
    pub in_use: Seen<InUse>,
    /// What our role may do.
    pub privileges: Seen<PrivilegeFacts>,
    /// What the extension's schema lets our role do; Absent without that schema.
    pub pglogical: Seen<PglogicalFacts>,
    /// Every role of the server by name.
    pub roles: Seen<BTreeMap<RoleName, RoleFacts>>,
    /// Roles that the schema names, and whether they own something in it.
    pub referenced_roles: Seen<BTreeMap<RoleName, bool>>,
    /// Login roles that are neither superuser nor ours.
    pub application_roles: Seen<Vec<ApplicationRole>>,
    /// Schemas by name, with the roles that may create in them (superusers always may).
    pub schemas: Seen<BTreeMap<String, BTreeSet<RoleName>>>,
    /// Tables in scope.
    pub tables: Seen<Vec<TableView>>,
    /// Everything in the schemas in scope that a copied schema would collide with.
    pub objects: Seen<Vec<ObjectFacts>>,
    /// How many relations the schemas in scope hold.
    pub relations: Seen<RelationCounts>,
    /// What no replication set carries.
    pub uncarried: Seen<Uncarried>,
    /// Triggers that fire for replicated rows.
    pub triggers: Seen<Vec<TriggerFacts>>,
    /// What pgferry, or somebody's pglogical, left behind.
    pub leftovers: Seen<Leftovers>,
    /// What pglogical's own tables hold; Absent without the extension.
    pub pglogical_nodes: Seen<PglogicalNodes>,
    /// Open transactions older than a minute, and prepared ones.
    pub transactions: Seen<Vec<TransactionFacts>>,
    /// Jobs of pg_cron; Absent without it.
    pub jobs: Seen<JobFacts>,
    /// Sessions that no fence ends.
    pub unfenced_sessions: Seen<Vec<UnfencedSessions>>,
}

/// A server and one of its databases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFacts {
    /// `server_version_num`
    pub version_num: i32,
    /// `server_version`, without the packager's words.
    pub version: String,
    /// The database's name.
    pub database: String,
    /// The database's OID.
    pub database_oid: u32,
    /// When the server was started, to the microsecond: with the OID it tells one database.
    pub started_at: String,
    /// Whether it is a standby.
    pub in_recovery: bool,
    /// Encoding.
    pub encoding: String,
    /// `LC_COLLATE`
    pub collate: String,
    /// `LC_CTYPE`
    pub ctype: String,
    /// `libc`, `icu` or `builtin`.
    pub locale_provider: String,
    /// The locale of a provider other than libc.
    pub provider_locale: Option<String>,
}

impl ServerFacts {
    /// The major version.
    #[must_use]
    pub fn major(&self) -> i32 {
        self.version_num / 10_000
    }
}

/// One setting that the catalog keeps for a database, a role, or a role in a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogSetting {
    /// In this database only.
    pub in_database: bool,
    /// For this role only.
    pub role: Option<RoleName>,
    /// The setting.
    pub name: String,
    /// Its value as the catalog has it.
    pub value: String,
    /// Whether pglogical's apply worker reads it.
    pub is_worker: bool,
}

/// One extension on one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtensionFacts {
    /// The version that `CREATE EXTENSION` would make; `None` when its files are not there.
    pub available: Option<String>,
    /// The version in this database.
    pub installed: Option<String>,
    /// Whether only a superuser may create it.
    pub needs_superuser: bool,
}

/// What is in use of the server's limits, by everybody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InUse {
    /// Replication slots.
    pub slots: i64,
    /// Walsenders.
    pub wal_senders: i64,
    /// Replication origins.
    pub origins: i64,
    /// Background workers.
    pub workers: i64,
}

/// What our role may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrivilegeFacts {
    /// Our role.
    pub role: RoleName,
    /// It is superuser.
    pub superuser: bool,
    /// BYPASSRLS, or superuser.
    pub bypasses_row_security: bool,
    /// REPLICATION, or `rds_replication`.
    pub replication: bool,
    /// CREATEROLE
    pub create_role: bool,
    /// `pg_monitor`, or what of it is needed.
    pub monitor: bool,
    /// `pg_signal_backend`
    pub signal_backend: bool,
    /// Superuser, or RDS's stand-in for it.
    pub creates_any_extension: bool,
    /// CREATE on the database.
    pub create_in_database: bool,
    /// Origin functions that it may not execute, with their arguments.
    pub origin_functions_refused: Vec<String>,
}

/// What the schema `pglogical` lets our role and everybody do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PglogicalFacts {
    /// Our role has USAGE.
    pub usage: bool,
    /// PUBLIC has USAGE.
    pub usage_for_everybody: bool,
    /// PUBLIC may create subscriptions.
    pub execute_for_everybody: bool,
    /// Functions that our role needs and may not execute.
    pub functions_refused: Vec<String>,
    /// Tables that our role needs and may not read.
    pub tables_refused: Vec<String>,
    /// Our role may write `local_sync_status.sync_status`.
    pub may_mark_initialised: bool,
}

/// A role of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoleFacts {
    /// It may log in.
    pub login: bool,
    /// It is superuser.
    pub superuser: bool,
    /// Our role has its rights.
    pub usable_by_us: bool,
    /// It may connect to this database.
    pub may_connect: bool,
}

/// Something in a schema in scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectFacts {
    /// `table`, `view`, `sequence`, `function`, `type` and so on.
    pub kind: String,
    /// Its schema and name.
    pub name: TableName,
    /// The role that owns it.
    pub owner: RoleName,
    /// The arguments that tell a function from others of its name.
    pub arguments: Option<String>,
    /// It is a table that holds rows, or did since it was last truncated.
    pub has_storage: bool,
}

/// Relations in the schemas in scope, by what a transaction that makes or dumps them must lock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RelationCounts {
    /// Tables, partitioned ones too.
    pub tables: i64,
    /// Tables and materialized views that have a TOAST table, which has an index.
    pub toast_tables: i64,
    /// Sequences, those of identity columns too.
    pub sequences: i64,
    /// Views, materialized views, foreign tables and composite types.
    pub others: i64,
}

/// What no replication set carries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uncarried {
    /// How many large objects there are, counted up to 1000.
    pub large_objects: i64,
    /// Those of them that our role may not read, counted up to 1000.
    pub large_objects_refused: i64,
    /// The roles that own large objects.
    pub large_object_owners: Vec<RoleName>,
    /// Event triggers that no extension owns.
    pub event_triggers: Vec<String>,
    /// Enabled subscriptions of PostgreSQL's own logical replication: writers of their own.
    pub subscriptions: Vec<String>,
}

/// A trigger that fires for replicated rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TriggerFacts {
    /// Its table.
    pub table: TableName,
    /// Its name.
    pub name: String,
    /// ENABLE ALWAYS; otherwise ENABLE REPLICA.
    pub always: bool,
}

/// What is there outside pglogical's own tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leftovers {
    /// Schema `pgferry` exists.
    pub pgferry_schema: bool,
    /// Slots of this database that pglogical decodes.
    pub slots: Vec<String>,
    /// Origins named after this database.
    pub origins: Vec<String>,
}

/// What pglogical's own tables hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PglogicalNodes {
    /// Nodes, the local one last.
    pub nodes: Vec<String>,
    /// Subscriptions.
    pub subscriptions: Vec<String>,
}

/// A transaction that would be waited for.
#[derive(Clone, Debug, PartialEq)]
pub struct TransactionFacts {
    /// Open or prepared.
    pub kind: TransactionKind,
    /// The database it is in.
    pub database: String,
    /// Whose it is.
    pub role: String,
    /// It is in the database that is carried.
    pub here: bool,
    /// Its age.
    pub seconds: f64,
}

/// Where a transaction stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransactionKind {
    /// Open in this backend.
    Open {
        /// The backend.
        pid: i32,
    },
    /// Prepared under this name.
    Prepared {
        /// Its global identifier.
        gid: String,
    },
}

/// Jobs that run inside the database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobFacts {
    /// Row security hides other roles' jobs from our role.
    pub hidden: bool,
    /// Active jobs that are seen.
    pub jobs: Vec<i64>,
}

/// Sessions of a role that no fence touches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnfencedSessions {
    /// The role.
    pub role: RoleName,
    /// It is superuser; otherwise it is ours.
    pub superuser: bool,
    /// `application_name`
    pub application: String,
    /// How many there are.
    pub sessions: i64,
}
