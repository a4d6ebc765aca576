//! The two servers of a migration, with the roles a managed server has.
//!
//! pgferry's role is never superuser here. Where a test needs the administrator it says so, and
//! the statements are those an administrator would be told to run.

use std::path::Path;

use pgferry_plan::Side;
use tokio_postgres::Config;

use crate::cluster::{Cluster, ClusterOptions};
use crate::process;
use crate::session::Session;
use crate::tls::Authority;

/// The database that moves.
pub const DATABASE: &str = "shop";
/// The migration's name in every test configuration.
pub const MIGRATION: &str = "shop";
/// pgferry's role has this password; it appears nowhere but in the environment and on the wire.
pub const PGFERRY_PASSWORD: &str = "pgferry-password";
/// The application's role, which writes.
pub const APP_PASSWORD: &str = "app-password";

/// One batch of an application's work on the store.
pub const STORE_TRAFFIC: &str = include_str!("sql/store_traffic.sql");

/// What the two servers start with.
#[derive(Clone, Copy, Debug)]
pub struct PairOptions {
    /// Whether the administrator has made the extension and granted its use already.
    pub extension: bool,
    /// Whether the servers speak TLS and demand it of pgferry.
    pub tls: bool,
    /// Whether commits reach the disk.
    pub fsync: bool,
    /// `track_commit_timestamp` on both.
    pub commit_timestamps: bool,
}

impl Default for PairOptions {
    fn default() -> Self {
        Self { extension: true, tls: false, fsync: false, commit_timestamps: true }
    }
}

/// Source and destination, each with an empty database and the same roles.
#[derive(Debug)]
pub struct Pair {
    /// Where the database is.
    pub source: Cluster,
    /// Where it goes.
    pub destination: Cluster,
    authority: Option<Authority>,
}

impl Pair {
    /// Two servers as most tests want them, with the ledger's tables on the source.
    #[must_use]
    pub fn with_bank() -> Self {
        let pair = Self::start(PairOptions::default());
        pair.load_bank();
        pair
    }

    /// Two servers with empty databases.
    #[must_use]
    pub fn start(options: PairOptions) -> Self {
        Self::start_with(options, &[])
    }

    /// The same with further lines of both servers' `postgresql.conf`.
    #[must_use]
    pub fn start_with(options: PairOptions, settings: &[(&'static str, String)]) -> Self {
        let authority = options.tls.then(|| Authority::new("authority"));
        let server = ClusterOptions {
            fsync: options.fsync,
            commit_timestamps: options.commit_timestamps,
            certificate: authority.as_ref().map(Authority::sign_server),
            settings: settings.to_vec(),
        };
        let start = |side| {
            let cluster = Cluster::start(side, &server);
            provision(&cluster, options.extension);
            cluster
        };
        let source = start(Side::Source);
        let destination = start(Side::Destination);
        if options.extension && crate::install::major_version(destination.bin()) >= 17 {
            // What finding `stream_cannot_begin` prints where the source's pglogical is older
            // than 2.4.5; elsewhere it changes nothing. On both, to have the same grants.
            for cluster in [&source, &destination] {
                cluster.sql(
                    DATABASE,
                    "GRANT UPDATE (sync_status) ON pglogical.local_sync_status TO pgferry",
                );
            }
        }
        Self { source, destination, authority }
    }

    /// Whether both servers are of one major version, and so print a definition in the same words.
    #[must_use]
    pub fn same_major(&self) -> bool {
        let [source, destination] = [&self.source, &self.destination]
            .map(|cluster| crate::install::major_version(cluster.bin()));
        source == destination
    }

    /// The server of a side.
    #[must_use]
    pub fn cluster(&self, side: Side) -> &Cluster {
        match side {
            Side::Source => &self.source,
            Side::Destination => &self.destination,
        }
    }

    /// The server of a side, to stop and start it.
    pub fn cluster_mut(&mut self, side: Side) -> &mut Cluster {
        match side {
            Side::Source => &mut self.source,
            Side::Destination => &mut self.destination,
        }
    }

    /// The administrator's session in the database of a side.
    #[must_use]
    pub fn admin(&self, side: Side) -> Session {
        self.cluster(side).admin(DATABASE)
    }

    /// How pgferry reaches a side, without the password.
    #[must_use]
    pub fn dsn(&self, side: Side) -> String {
        let port = self.cluster(side).port();
        let whereto = match &self.authority {
            None => format!("host=127.0.0.1 port={port}"),
            Some(authority) => format!(
                "host=localhost port={port} sslmode=verify-full sslrootcert={}",
                authority.root_certificate().display()
            ),
        };
        format!("{whereto} dbname={DATABASE} user=pgferry")
    }

    /// How an application that knows both hosts connects: to whichever takes writes.
    #[must_use]
    pub fn app_config(&self) -> Config {
        multi_host(self.source.port(), self.destination.port())
    }

    /// A session of the application's role on one side, as a client that knows one host only.
    pub fn app_on(&self, side: Side) -> Result<Session, tokio_postgres::Error> {
        self.login_on(side, "app", APP_PASSWORD)
    }

    /// The same of any role.
    pub fn login_on(
        &self,
        side: Side,
        role: &str,
        password: &str,
    ) -> Result<Session, tokio_postgres::Error> {
        let mut config = Config::new();
        config.host("127.0.0.1").port(self.cluster(side).port());
        config.dbname(DATABASE).user(role).password(password);
        Session::connect(&config)
    }

    /// A session of pgferry's own role on one side, to see what that role may do. Without TLS.
    #[must_use]
    pub fn pgferry_on(&self, side: Side) -> Session {
        self.login_on(side, "pgferry", PGFERRY_PASSWORD)
            .unwrap_or_else(|e| panic!("pgferry on the {side}: {e}"))
    }

    /// Whether the application's role can write on a side, tried for real in a transaction that
    /// is rolled back.
    #[must_use]
    pub fn is_open(&self, side: Side) -> bool {
        self.app_on(side).is_ok_and(|session| {
            session
                .try_rows(
                    "BEGIN; UPDATE bank.balances SET amount = amount WHERE account = 1; ROLLBACK",
                )
                .is_ok()
        })
    }

    /// Makes new sessions of the application's role read-only on a side, by the administrator's
    /// hand and not by pgferry's.
    pub fn close(&self, side: Side) {
        self.cluster(side).sql(
            DATABASE,
            &format!(
                "ALTER ROLE app IN DATABASE {DATABASE} SET default_transaction_read_only = on"
            ),
        );
    }

    /// Creates the ledger's tables on the source.
    pub fn load_bank(&self) {
        self.load(include_str!("sql/bank.sql"));
    }

    /// Creates the store on the source: a schema with what real ones have.
    pub fn load_store(&self) {
        self.load(include_str!("sql/store.sql"));
    }

    /// Runs a script on the source in the owner's name.
    pub fn load(&self, sql: &str) {
        let session = self.admin(Side::Source);
        session.run("SET ROLE owner");
        session.run(sql);
    }

    /// Runs a psql script on the source in the owner's name.
    pub fn load_file(&self, file: &Path) {
        self.source.run_file(DATABASE, file, Some("owner"));
    }

    /// Fills the source with pgbench's tables at this scale.
    pub fn load_pgbench(&self, scale: u32) {
        let mut command = self.source.program("pgbench");
        command.args(["-i", "-q", "-s", &scale.to_string(), DATABASE]);
        command.env("PGOPTIONS", "-c role=owner");
        process::run(command);
        self.load("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO app");
    }
}

/// A client's view of both servers: the first that takes writes.
pub(crate) fn multi_host(source: u16, destination: u16) -> Config {
    let mut config = Config::new();
    for port in [source, destination] {
        config.host("127.0.0.1").port(port);
    }
    config
        .dbname(DATABASE)
        .user("app")
        .password(APP_PASSWORD)
        .connect_timeout(std::time::Duration::from_secs(2))
        .target_session_attrs(tokio_postgres::config::TargetSessionAttrs::ReadWrite);
    config
}

pub(crate) fn provision(cluster: &Cluster, extension: bool) {
    cluster.sql("postgres", include_str!("sql/roles.sql"));
    cluster.sql("postgres", &format!("CREATE DATABASE {DATABASE} OWNER owner"));
    cluster.sql("postgres", &format!("GRANT CREATE ON DATABASE {DATABASE} TO pgferry"));
    if crate::install::major_version(cluster.bin()) >= 16 {
        // From 16 on CREATEROLE reaches only roles that one has ADMIN on.
        cluster.sql("postgres", "GRANT app, reader TO pgferry WITH ADMIN TRUE, INHERIT FALSE");
    }
    if extension {
        cluster.sql(DATABASE, include_str!("sql/extension.sql"));
    }
}
