//! One PostgreSQL server with pglogical, made for one test.
//!
//! The data directory is copied from a template, so that a server is up in well under a second.
//! It listens on 127.0.0.1 and on a socket in a directory of its own, and is ended by its own
//! process id, never by name.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use pgferry_plan::Side;
use tokio_postgres::Config;

use crate::expect::{eventually, interrupted};
use crate::session::{Row, Session};
use crate::tempdir::TempDir;
use crate::tls::Certificate;
use crate::{install, process};

/// How a server is set up.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// Whether commits reach the disk: off for tests, on where time is measured.
    pub fsync: bool,
    /// `track_commit_timestamp`, which decides whether pglogical can see update conflicts.
    pub commit_timestamps: bool,
    /// Present: the server speaks TLS, and refuses pgferry's role without it.
    pub certificate: Option<Certificate>,
    /// Further lines of `postgresql.conf`.
    pub settings: Vec<(&'static str, String)>,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self { fsync: false, commit_timestamps: true, certificate: None, settings: Vec::new() }
    }
}

/// How a server is told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// Ends sessions, writes a checkpoint, lets walsenders send what is left.
    Fast,
    /// Stops at once, as a crash would; the next start recovers.
    Immediate,
}

/// A running server, or a stopped one that can be started again on the same port.
#[derive(Debug)]
pub struct Cluster {
    side: Side,
    bin: PathBuf,
    dir: TempDir,
    port: u16,
    process: Option<Child>,
}

/// Long enough for crash recovery on a loaded machine; a start takes a fraction of a second.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// A fast shutdown waits for a checkpoint and for every walsender.
const STOP_DEADLINE: Duration = Duration::from_secs(60);

impl Cluster {
    /// Starts a new and empty server for this side.
    #[must_use]
    pub fn start(side: Side, options: &ClusterOptions) -> Self {
        let bin = install::bin_dir(side);
        let dir = TempDir::new(side.as_str());
        let data = dir.path().join("data");
        let mut copy = process::as_server_user("cp", "KILL");
        copy.args(["-a", "--reflink=auto"]).arg(template(&bin)).arg(&data);
        process::run(copy);

        let mut cluster = Self { side, bin, dir, port: free_port(), process: None };
        cluster.write_settings(options);
        cluster.start_again();
        cluster
    }

    /// Starts the stopped server on the port and data it had.
    pub fn start_again(&mut self) {
        assert!(self.process.is_none(), "the {} runs already", self.side);
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_file())
            .unwrap_or_else(|e| panic!("cannot open {}: {e}", self.log_file().display()));
        let errors = log.try_clone().unwrap_or_else(|e| panic!("cannot share the log: {e}"));
        // QUIT is PostgreSQL's immediate shutdown: the backends go with the postmaster.
        let mut command = process::as_server_user(self.bin.join("postgres"), "QUIT");
        command.arg("-D").arg(self.data()).stdout(log).stderr(errors);
        let mut child = process::spawn(command)
            .unwrap_or_else(|e| panic!("cannot start the {}: {e}", self.side));

        let admin = self.admin_config("postgres");
        eventually(&format!("the {} to start", self.side), START_DEADLINE, || {
            if let Ok(Some(status)) = child.try_wait() {
                panic!("the {} ended with {status}\n{}", self.side, self.log_tail(40));
            }
            Session::connect(&admin).map(drop).map_err(|e| e.to_string())
        });
        self.process = Some(child);
    }

    /// Stops the server and waits until it is gone.
    pub fn stop(&mut self, how: Shutdown) {
        let Some(mut child) = self.process.take() else { return };
        let name = match how {
            Shutdown::Fast => "INT",
            Shutdown::Immediate => "QUIT",
        };
        process::signal(child.id(), name);
        process::wait_for_end(&mut child, self.side.as_str(), STOP_DEADLINE);
    }

    /// Stops the server and starts it again.
    pub fn restart(&mut self, how: Shutdown) {
        self.stop(how);
        self.start_again();
    }

    /// Which side of the migration it is.
    #[must_use]
    pub fn side(&self) -> Side {
        self.side
    }

    /// Its port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process id, for tests that stop and continue it.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// The directory of its programs.
    #[must_use]
    pub fn bin(&self) -> &Path {
        &self.bin
    }

    /// Where its socket, data and log are.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A new session of the administrator (superuser, over the socket).
    #[must_use]
    pub fn admin(&self, database: &str) -> Session {
        Session::connect(&self.admin_config(database))
            .unwrap_or_else(|e| panic!("cannot connect to the {}: {e}", self.side))
    }

    /// Runs statements as the administrator.
    pub fn sql(&self, database: &str, sql: &str) -> Vec<Row> {
        self.admin(database).rows(sql)
    }

    /// Runs a file with psql as the administrator, in one role's name when `role` is given, so
    /// that what it creates belongs to that role.
    pub fn run_file(&self, database: &str, file: &Path, role: Option<&str>) {
        let text = File::open(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let mut command = self.program("psql");
        command.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", database]).stdin(text);
        if let Some(role) = role {
            command.env("PGOPTIONS", format!("-c role={role}"));
        }
        process::run(command);
    }

    /// One of the server's companions, aimed at this server as the administrator.
    #[must_use]
    pub fn program(&self, name: &str) -> std::process::Command {
        let mut command = std::process::Command::new(self.bin.join(name));
        command
            .env("PGHOST", self.dir())
            .env("PGPORT", self.port.to_string())
            .env("PGUSER", ADMINISTRATOR);
        command
    }

    /// How the administrator connects.
    #[must_use]
    pub fn admin_config(&self, database: &str) -> Config {
        let mut config = Config::new();
        config.host_path(self.dir()).port(self.port).user(ADMINISTRATOR).dbname(database);
        config
    }

    /// The last lines of the server's log.
    #[must_use]
    pub fn log_tail(&self, lines: usize) -> String {
        let text = self.log();
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// The server's whole log.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read(self.log_file())
            .map(|b| String::from_utf8_lossy(&b).into_owned())
            .unwrap_or_default()
    }

    fn data(&self) -> PathBuf {
        self.dir().join("data")
    }

    fn log_file(&self) -> PathBuf {
        self.dir().join("server.log")
    }

    fn write_settings(&self, options: &ClusterOptions) {
        let mut conf = String::new();
        let mut set = |key: &str, value: &str| {
            let _ = writeln!(conf, "{key} = '{}'", value.replace('\'', "''"));
        };
        set("port", &self.port.to_string());
        set("listen_addresses", "127.0.0.1");
        set("unix_socket_directories", &self.dir().to_string_lossy());
        set("shared_preload_libraries", "pglogical");
        set("wal_level", "logical");
        set("max_replication_slots", "20");
        set("max_wal_senders", "20");
        set("max_worker_processes", "20");
        set("log_line_prefix", "%m [%p] %q%u@%d %a ");
        // Servers before 14 would make md5 of passwords, which the access file below refuses.
        set("password_encryption", "scram-sha-256");
        set("fsync", on(options.fsync));
        set("track_commit_timestamp", on(options.commit_timestamps));
        if install::lists_output_plugins(&self.bin) {
            set("output_plugin_libraries", "pgoutput, test_decoding, pglogical_output");
        }
        if let Some(certificate) = &options.certificate {
            let (cert, key) = certificate.install(self.dir());
            set("ssl", "on");
            set("ssl_cert_file", &cert.to_string_lossy());
            set("ssl_key_file", &key.to_string_lossy());
        }
        for (key, value) in &options.settings {
            set(key, value);
        }
        self.append("postgresql.conf", &conf);
        let access = match options.certificate {
            Some(_) => HBA_WITH_TLS,
            None => HBA,
        };
        fs::write(self.data().join("pg_hba.conf"), access)
            .unwrap_or_else(|e| panic!("cannot write pg_hba.conf: {e}"));
    }

    fn append(&self, file: &str, text: &str) {
        let path = self.data().join(file);
        let old = fs::read_to_string(&path).unwrap_or_default();
        fs::write(&path, old + text)
            .unwrap_or_else(|e| panic!("cannot write {}: {e}", path.display()));
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() && !interrupted() {
            eprintln!("--- log of the {} (end) ---\n{}", self.side, self.log_tail(60));
        }
        if let Some(child) = self.process.take() {
            // Immediate, because nothing of it is kept; waited for, so that its directory can go.
            process::put_down(child, "QUIT");
        }
    }
}

const ADMINISTRATOR: &str = "postgres";

/// The administrator over the socket, everybody else over TCP with a password.
const HBA: &str = "\
local all postgres trust
local replication postgres trust
host all all 127.0.0.1/32 scram-sha-256
";

/// As above, and pgferry's own role over TLS only. The application's clients need none here: what
/// is under test is the daemon.
const HBA_WITH_TLS: &str = "\
local all postgres trust
local replication postgres trust
hostssl all pgferry 127.0.0.1/32 scram-sha-256
hostnossl all pgferry all reject
host all all 127.0.0.1/32 scram-sha-256
";

fn on(yes: bool) -> &'static str {
    if yes { "on" } else { "off" }
}

/// A data directory fresh from initdb, made once for each version of the server and kept.
///
/// It is made under another name and renamed, so that two processes can do this at once: the
/// later one finds the name taken and uses what is there.
fn template(bin: &Path) -> PathBuf {
    static MAKING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = MAKING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);

    let version: String = install::version_text(bin)
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' })
        .collect();
    let kept = std::env::temp_dir().join(format!("pgferry-template-{version}"));
    if kept.join("PG_VERSION").is_file() {
        return kept;
    }
    let making = TempDir::new("template");
    let data = making.path().join("data");
    let mut initdb = process::as_server_user(bin.join("initdb"), "KILL");
    initdb.arg("-D").arg(&data).args([
        "-U",
        ADMINISTRATOR,
        "--auth=trust",
        "--no-sync",
        "-E",
        "UTF8",
        "--locale=C.UTF-8",
    ]);
    process::run(initdb);
    if let Err(error) = fs::rename(&data, &kept) {
        assert!(kept.join("PG_VERSION").is_file(), "cannot keep {}: {error}", kept.display());
    }
    kept
}

/// A port on which nothing listens.
///
/// Below the kernel's ephemeral range (32768 and up): a client that reconnects to a stopped
/// server inside that range can be given that very port for its own end, connect to itself, and
/// keep the server from starting. Starts at a place that differs by process, so that test
/// processes beside each other do not try the same ports.
pub(crate) fn free_port() -> u16 {
    const FIRST: u32 = 20_000;
    const COUNT: u32 = 12_000;
    static TRIED: AtomicU32 = AtomicU32::new(0);
    let start = std::process::id().wrapping_mul(97);
    for _ in 0..COUNT {
        let offset = start.wrapping_add(TRIED.fetch_add(1, Ordering::Relaxed)) % COUNT;
        let Ok(port) = u16::try_from(FIRST + offset) else { continue };
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port between {FIRST} and {}", FIRST + COUNT)
}
