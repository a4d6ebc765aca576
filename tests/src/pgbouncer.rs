//! A PgBouncer in front of a pair of servers, made for one test.
//!
//! Transaction pooling, the one entry in a file of its own that pgferry owns. It listens on 127.0.0.1
//! alone, and is ended by its own process id.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

use pgferry_plan::Side;
use tokio_postgres::Config;
use toml::{Table, Value};

use crate::cluster::free_port;
use crate::config::{ConfigFile, PASSWORD_VARIABLE, migration};
use crate::expect::{eventually, interrupted};
use crate::pair::{APP_PASSWORD, DATABASE, PGFERRY_PASSWORD, Pair};
use crate::process;
use crate::session::{Row, Session};
use crate::tempdir::TempDir;

/// A running PgBouncer, or a killed one that can be started again on the same port.
#[derive(Debug)]
pub struct PgBouncer {
    dir: TempDir,
    port: u16,
    process: Option<Child>,
}

/// Where Debian's package puts it; it is in no ordinary user's PATH.
const PROGRAMS: [&str; 3] =
    ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer", "/usr/local/bin/pgbouncer"];

const START_DEADLINE: Duration = Duration::from_secs(20);

impl PgBouncer {
    /// Starts one that leads to the source.
    #[must_use]
    pub fn start(pair: &Pair) -> Self {
        let dir = TempDir::new("pgbouncer");
        let mut pgbouncer = Self { port: free_port(), dir, process: None };
        let included = pgbouncer.include_file();
        fs::create_dir(pgbouncer.dir.path().join("own")).unwrap_or_else(|e| panic!("{e}"));
        process::give_to_server_user(&pgbouncer.dir.path().join("own"));
        pgbouncer.write("users.txt", &format!(
            "\"app\" \"{APP_PASSWORD}\"\n\"pgferry\" \"{PGFERRY_PASSWORD}\"\n\"looker\" \"looker\"\n"
        ));
        pgbouncer.point_by_hand(pair, Side::Source);
        pgbouncer.write("pgbouncer.ini", &format!(
            "[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {}\nunix_socket_dir =\n\
             auth_type = scram-sha-256\nauth_file = {}\nadmin_users = pgferry\nstats_users = looker\n\
             pool_mode = transaction\nserver_login_retry = 1\n%include {}\n",
            pgbouncer.port,
            pgbouncer.dir.path().join("users.txt").display(),
            included.display()
        ));
        pgbouncer.start_again();
        pgbouncer
    }

    /// Starts it on the port and files it had.
    pub fn start_again(&mut self) {
        assert!(self.process.is_none(), "the PgBouncer runs already");
        let program = PROGRAMS.iter().find(|path| std::path::Path::new(path).is_file());
        let program = program.unwrap_or_else(|| {
            panic!("no PgBouncer was found: run `make deps` (apt-get install pgbouncer)")
        });
        let log = File::options().create(true).append(true).open(self.log_file());
        let log = log.unwrap_or_else(|e| panic!("cannot open the log: {e}"));
        let errors = log.try_clone().unwrap_or_else(|e| panic!("cannot share the log: {e}"));
        let mut command = process::as_server_user(program, "KILL");
        command.arg(self.dir.path().join("pgbouncer.ini")).stdout(log).stderr(errors);
        let mut child = process::spawn(command).unwrap_or_else(|e| panic!("cannot start it: {e}"));
        eventually("the PgBouncer to start", START_DEADLINE, || {
            if let Ok(Some(status)) = child.try_wait() {
                panic!("the PgBouncer ended with {status}\n{}", self.log());
            }
            self.try_console().map(drop)
        });
        self.process = Some(child);
    }

    /// Ends it as a power cut would.
    pub fn kill(&mut self) {
        let Some(mut child) = self.process.take() else { return };
        process::signal(child.id(), "KILL");
        process::wait_for_end(&mut child, "the PgBouncer", START_DEADLINE);
    }

    /// The file that its configuration includes, and that pgferry owns.
    #[must_use]
    pub fn include_file(&self) -> PathBuf {
        self.dir.path().join("own").join("entry.ini")
    }

    /// Writes the included file for a side, as an administrator would.
    pub fn point_by_hand(&self, pair: &Pair, side: Side) {
        let port = pair.cluster(side).port();
        let entry =
            format!("[databases]\n{DATABASE} = host=127.0.0.1 port={port} dbname={DATABASE}\n");
        self.write("own/entry.ini", &entry);
    }

    /// How an application reaches the active side through it.
    #[must_use]
    pub fn app_config(&self) -> Config {
        let mut config = Config::new();
        config.host("127.0.0.1").port(self.port).dbname(DATABASE);
        config.user("app").password(APP_PASSWORD).connect_timeout(Duration::from_secs(2));
        config
    }

    /// A session of the application through it.
    #[must_use]
    pub fn app(&self) -> Session {
        Session::connect(&self.app_config()).unwrap_or_else(|e| panic!("through PgBouncer: {e}"))
    }

    /// Says something on the admin console.
    pub fn say(&self, command: &str) -> Vec<Row> {
        self.console().rows(command)
    }

    /// The port of the server that it leads to, and whether it holds its clients.
    #[must_use]
    pub fn leads_to(&self) -> (u16, bool) {
        let console = self.try_console().unwrap_or_else(|e| panic!("the console: {e}"));
        let rows = console.rows("SHOW DATABASES");
        let row = rows.iter().find(|row| row[0].as_deref() == Some(DATABASE));
        let row = row.unwrap_or_else(|| panic!("no entry among {rows:?}"));
        let text = |column: usize| row[column].clone().unwrap_or_default();
        // 1.18: …, max_connections, current_connections, paused, disabled. Later ones add columns
        // in the middle and at the end, so the harness asks for the names where it has to.
        (text(2).parse().unwrap_or_default(), text(11) == "1")
    }

    /// Its section of a configuration.
    #[must_use]
    pub fn section(&self) -> Table {
        self.section_of("pgferry", Some(PASSWORD_VARIABLE))
    }

    /// The same for another user of the console.
    #[must_use]
    pub fn section_of(&self, user: &str, password_env: Option<&str>) -> Table {
        let dsn = format!(
            "host=127.0.0.1 port={} dbname=pgbouncer user={user} sslmode=disable",
            self.port
        );
        let mut table = Table::new();
        table.insert("dsn".to_owned(), dsn.into());
        if let Some(variable) = password_env {
            table.insert("password_env".to_owned(), variable.into());
        }
        table.insert("database".to_owned(), DATABASE.into());
        let file = self.include_file().to_string_lossy().into_owned();
        table.insert("include_file".to_owned(), file.into());
        table
    }

    /// What it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn console(&self) -> Session {
        self.try_console().unwrap_or_else(|e| panic!("the console: {e}"))
    }

    fn try_console(&self) -> Result<Session, String> {
        let mut config = Config::new();
        config.host("127.0.0.1").port(self.port).dbname("pgbouncer");
        config.user("pgferry").password(PGFERRY_PASSWORD).connect_timeout(Duration::from_secs(2));
        Session::connect(&config).map_err(|e| e.to_string())
    }

    fn log_file(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.dir.path().join(name);
        fs::write(&path, text).unwrap_or_else(|e| panic!("cannot write {}: {e}", path.display()));
        process::give_to_server_user(&path);
    }
}

/// The pair's configuration with these PgBouncers in front of it.
#[must_use]
pub fn in_front(pair: &Pair, pgbouncers: &[&PgBouncer]) -> ConfigFile {
    let sections = pgbouncers.iter().map(|one| Value::Table(one.section())).collect();
    ConfigFile::for_pair(pair)
        .insert_only(&["bank.ledger_keyless"])
        .with(&migration("traffic.method"), "pgbouncer")
        .with(&migration("traffic.pgbouncers"), Value::Array(sections))
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        if let Some(child) = self.process.take() {
            process::put_down(child, "KILL");
        }
        if std::thread::panicking() && !interrupted() {
            eprintln!("--- the PgBouncer's log ---\n{}", self.log());
        }
    }
}
