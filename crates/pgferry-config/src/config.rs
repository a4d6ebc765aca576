//! The valid configuration, and nothing about how it was written down.
//!
//! Plain data with everything filled in: whoever holds one of these types checks nothing again.
//! Only [`crate::parse`] makes a whole [`Config`]; none of it is `Deserialize` or `Default`, because
//! both would be a way around the checks.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use pgferry_plan::traffic::OnPauseDeadline;
use pgferry_plan::{MigrationName, RoleName, Side, TableName};

use crate::{Dsn, PgbouncerEntry, Secret};

/// Everything that the file and the environment say.
#[derive(Clone, Debug)]
pub struct Config {
    /// The listener.
    pub server: ServerConfig,
    /// Where the journal lives, and where it is archived.
    pub journal: JournalConfig,
    /// At least one migration.
    pub migrations: BTreeMap<MigrationName, MigrationConfig>,
}

/// `[server]`
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// The address for health, metrics, API and page; a loopback address.
    pub listen: SocketAddr,
}

/// `[journal]`
#[derive(Clone, Debug)]
pub struct JournalConfig {
    /// A third place for the journal; none means the destination database of each migration.
    pub place: Option<Login>,
    /// The directory that takes the journal's archive at the end.
    pub archive_dir: PathBuf,
}

/// A DSN and the password that goes with it.
#[derive(Clone, Debug)]
pub struct Login {
    /// Where and as whom.
    pub dsn: Dsn,
    /// None when the server asks for none: trust, peer or certificate authentication.
    pub password: Option<Secret>,
}

/// `[migrations.NAME]`
#[derive(Clone, Debug)]
pub struct MigrationConfig {
    /// Its key in the file.
    pub name: MigrationName,
    /// Whether `serve` starts it without being told to.
    pub autostart: bool,
    /// How often each side rewrites its heartbeat.
    pub heartbeat_interval: Duration,
    /// How often both sides are looked at while nothing happens.
    pub poll_interval: Duration,
    /// Where the database is.
    pub source: NodeConfig,
    /// Where it goes.
    pub destination: NodeConfig,
    /// What goes along.
    pub scope: ScopeConfig,
    /// How the schema comes over.
    pub schema: SchemaConfig,
    /// How the rows come over.
    pub copy: CopyConfig,
    /// How both sides are compared.
    pub verify: VerifyConfig,
    /// How sequences are carried.
    pub sequences: SequencesConfig,
    /// The limits of a switchover.
    pub cutover: CutoverConfig,
    /// How writes are stopped.
    pub fence: FenceConfig,
    /// How clients find the active side.
    pub traffic: TrafficConfig,
}

impl MigrationConfig {
    /// The node of one side.
    #[must_use]
    pub fn node(&self, side: Side) -> &NodeConfig {
        match side {
            Side::Source => &self.source,
            Side::Destination => &self.destination,
        }
    }
}

/// `[migrations.NAME.source]` and `[migrations.NAME.destination]`: one database, seen from three places.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// How the daemon reaches it.
    pub login: Login,
    /// How the other server reaches it: `peer_dsn`, else as the daemon does.
    pub peer: Login,
    /// How its own server reaches it: `self_dsn`, else as the daemon does, as the peer's role.
    pub own: Login,
}

/// `[migrations.NAME.scope]`
#[derive(Clone, Debug)]
pub struct ScopeConfig {
    /// Schemas by their catalog names; none means every schema that is not the system's.
    pub schemas: Option<Vec<String>>,
    /// Tables that stay behind.
    pub exclude_tables: Vec<TableName>,
    /// Tables without a key, of which only inserts are replicated.
    pub insert_only: Vec<TableName>,
}

/// `[migrations.NAME.schema]`
#[derive(Clone, Debug)]
pub struct SchemaConfig {
    /// Who makes the tables of the destination.
    pub mode: SchemaMode,
    /// The directory of `pg_dump` and `pg_restore`; none means search for them.
    pub pg_bindir: Option<PathBuf>,
}

/// `[migrations.NAME.copy]`
#[derive(Clone, Debug)]
pub struct CopyConfig {
    /// Who copies the rows.
    pub method: CopyMethod,
    /// How many tables are copied, and how many indexes are built, at a time.
    pub jobs: usize,
    /// Bytes of rows read from the source per second, all jobs together; none means as fast as it goes.
    pub max_bytes_per_second: Option<u64>,
    /// Bytes of `maintenance_work_mem` for each index build; none means by the destination's settings.
    pub maintenance_work_mem: Option<u64>,
    /// Bytes of WAL that the forward slot may hold back on the source until the rows and indexes are
    /// there; none means that only the server's own `max_slot_wal_keep_size` bounds it.
    pub max_retained_wal: Option<u64>,
    /// How long the snapshot on the source outlives a daemon that is gone.
    pub snapshot_grace: Duration,
}

/// `[migrations.NAME.verify]`
#[derive(Clone, Debug)]
pub struct VerifyConfig {
    /// How many ranges are compared at a time; each is a session on both servers.
    pub jobs: usize,
    /// Bytes of tables read on each side per second, all jobs together; none means as fast as it goes.
    pub max_bytes_per_second: Option<u64>,
}

/// `[migrations.NAME.sequences]`
#[derive(Clone, Debug)]
pub struct SequencesConfig {
    /// How many increments each sequence is set ahead, at least one.
    ///
    /// Zero is refused: headroom is what covers values cached by a session that the fence ended.
    pub headroom: i64,
}

/// `[migrations.NAME.cutover]`: for both kinds of switchover.
#[derive(Clone, Debug)]
pub struct CutoverConfig {
    /// The heartbeat lag below which a side counts as caught up; above the heartbeat interval.
    pub max_lag: Duration,
    /// How long writes may stall before the line; then the active side is opened again.
    pub stall_budget: Duration,
    /// How long a working session may go on before the fence ends it; may be zero.
    pub grace: Duration,
    /// Whether a cutover needs a clean verification.
    pub require_verification: bool,
    /// For how long a verification counts, from when it began.
    pub verification_max_age: Duration,
}

/// `[migrations.NAME.fence]`
#[derive(Clone, Debug)]
pub struct FenceConfig {
    /// What stops writes.
    pub method: FenceMethod,
    /// The login roles to fence; none means every role found that may write.
    pub roles: Option<Vec<RoleName>>,
    /// Roles never fenced, although they may write.
    pub exclude_roles: Vec<RoleName>,
}

/// `[migrations.NAME.traffic]`: how clients come to the other side.
#[derive(Clone, Debug)]
pub enum TrafficConfig {
    /// Clients know both hosts and follow the fence by themselves.
    MultiHost,
    /// PgBouncers hold them meanwhile.
    Pgbouncer(PgbouncersConfig),
    /// A command is told.
    Command(CommandConfig),
    /// A web server is told.
    Webhook(WebhookConfig),
}

/// `traffic.method = "pgbouncer"`
#[derive(Clone, Debug)]
pub struct PgbouncersConfig {
    /// How long a transaction may keep them from having paused.
    pub pause_deadline: Duration,
    /// What follows when one does for longer.
    pub on_pause_deadline: OnPauseDeadline,
    /// At least one, each under another name.
    pub pgbouncers: Vec<PgbouncerConfig>,
}

/// `[[migrations.NAME.traffic.pgbouncers]]`
#[derive(Clone, Debug)]
pub struct PgbouncerConfig {
    /// For people: the given name, else host and port.
    pub name: String,
    /// Its admin console.
    pub login: Login,
    /// The name of the entry in its `[databases]`.
    pub database: String,
    /// How the entry is changed.
    pub rewrite: Rewrite,
    /// The entry's text for each side, source first.
    pub entries: [PgbouncerEntry; 2],
}

/// How the entry of a PgBouncer is changed.
#[derive(Clone, Debug)]
pub enum Rewrite {
    /// A file that its configuration includes, and that pgferry owns whole.
    IncludeFile(PathBuf),
    /// A program with its arguments, and the time that it may take.
    Command {
        /// Never empty.
        argv: Vec<String>,
        /// Then it is killed.
        deadline: Duration,
    },
}

/// `traffic.method = "command"`: programs with their arguments, none of them empty.
#[derive(Clone, Debug)]
pub struct CommandConfig {
    /// Before anything is stopped.
    pub before_line: Option<Vec<String>>,
    /// When the other side is open.
    pub after_line: Option<Vec<String>>,
    /// When the switchover was taken back.
    pub aborted: Option<Vec<String>>,
    /// How long each may take; then its process group is killed.
    pub deadline: Duration,
    /// Variables of the daemon's environment that are passed on.
    pub pass_env: Vec<String>,
}

/// `traffic.method = "webhook"`
#[derive(Clone, Debug)]
pub struct WebhookConfig {
    /// Begins with `http://` or `https://`.
    pub url: String,
    /// The key of the signature.
    pub secret: Secret,
    /// How long an answer may take.
    pub deadline: Duration,
    /// Certificates to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
}

/// A setting that takes one of a few words.
pub(crate) trait Choice: Copy + 'static {
    /// Every word of the file with its meaning.
    const WORDS: &'static [(&'static str, Self)];
}

/// `schema.mode`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SchemaMode {
    /// pgferry copies it.
    Copy,
    /// It is already there, without rows.
    Existing,
}

impl Choice for SchemaMode {
    const WORDS: &'static [(&'static str, Self)] =
        &[("copy", SchemaMode::Copy), ("existing", SchemaMode::Existing)];
}

/// `copy.method`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyMethod {
    /// pgferry's own copy, several tables at once.
    Parallel,
    /// pglogical's initial synchronisation.
    Pglogical,
}

impl Choice for CopyMethod {
    const WORDS: &'static [(&'static str, Self)] =
        &[("parallel", CopyMethod::Parallel), ("pglogical", CopyMethod::Pglogical)];
}

/// `fence.method`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FenceMethod {
    /// `default_transaction_read_only` per role and database.
    ReadOnly,
    /// The same and `NOLOGIN`, which is the whole server's.
    NoLogin,
}

impl Choice for FenceMethod {
    const WORDS: &'static [(&'static str, Self)] =
        &[("read_only", FenceMethod::ReadOnly), ("no_login", FenceMethod::NoLogin)];
}

/// `traffic.method`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TrafficMethod {
    /// Clients know both hosts and follow the fence by themselves.
    MultiHost,
    /// PgBouncers hold them meanwhile.
    Pgbouncer,
    /// A command is told.
    Command,
    /// A web server is told.
    Webhook,
}

impl Choice for TrafficMethod {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("multi_host", TrafficMethod::MultiHost),
        ("pgbouncer", TrafficMethod::Pgbouncer),
        ("command", TrafficMethod::Command),
        ("webhook", TrafficMethod::Webhook),
    ];
}

impl Choice for OnPauseDeadline {
    const WORDS: &'static [(&'static str, Self)] =
        &[("abort", OnPauseDeadline::Abort), ("fence", OnPauseDeadline::Fence)];
}
