//! The daemon as a process, driven as its users drive it: over HTTP and by the command line.
//!
//! It is built here, so that a test never runs yesterday's binary. Its log is collected and shown
//! when the test fails.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cluster::free_port;
use crate::config::{ConfigFile, PASSWORD_VARIABLE};
use crate::expect::{eventually, interrupted};
use crate::pair::{MIGRATION, PGFERRY_PASSWORD, Pair};
use crate::process;
use crate::tempdir::TempDir;

mod build;
mod failpoint;

pub use build::Profile;
pub use failpoint::{AtFailpoint, Failpoint};

/// A daemon that was started, and that can be killed and started again with the same files.
#[derive(Debug)]
pub struct Daemon {
    dir: TempDir,
    config: PathBuf,
    profile: Profile,
    environment: Vec<(String, String)>,
    port: u16,
    agent: ureq::Agent,
    child: Option<Child>,
    log: Arc<Mutex<Vec<String>>>,
}

/// An HTTP answer; a body that is not JSON is its text.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body.
    pub body: Value,
}

/// What a command of the binary printed and how it ended.
#[derive(Clone, Debug)]
pub struct CommandOutput {
    /// The exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// From the start of the process to its first answer; nothing of it waits for a database.
const START_DEADLINE: Duration = Duration::from_secs(30);

/// An orderly stop ends what is in flight first.
const STOP_DEADLINE: Duration = Duration::from_secs(60);

/// Copying a small database, both streams and every proof, on a loaded machine.
pub const PHASE_DEADLINE: Duration = Duration::from_secs(120);

impl Daemon {
    /// Starts a daemon for the pair's smallest configuration, the ledger's tables included.
    #[must_use]
    pub fn for_bank(pair: &Pair) -> Self {
        Self::start(&ConfigFile::for_pair(pair).insert_only(&["bank.ledger_keyless"]))
    }

    /// Starts a daemon with this configuration and waits until it answers.
    #[must_use]
    pub fn start(config: &ConfigFile) -> Self {
        let mut daemon = Self::prepare(config, Profile::Test);
        daemon.serve();
        daemon
    }

    /// Writes a daemon's files without starting it.
    #[must_use]
    pub fn prepare(config: &ConfigFile, profile: Profile) -> Self {
        let dir = TempDir::new("daemon");
        let port = free_port();
        let config = config
            .clone()
            .with("server.listen", format!("127.0.0.1:{port}"))
            .with("journal.archive_dir", dir.path().to_string_lossy().into_owned())
            .write(dir.path());
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(30)))
            .build()
            .into();
        let environment = vec![(PASSWORD_VARIABLE.to_owned(), PGFERRY_PASSWORD.to_owned())];
        let log = Arc::default();
        Self { dir, config, profile, environment, port, agent, child: None, log }
    }

    /// Sets a variable for every later start of this daemon.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Starts `pgferry serve` without a failpoint and waits until it answers.
    pub fn serve(&mut self) {
        self.failpoint().disarm();
        self.serve_armed();
    }

    /// The same with a failpoint: the process aborts where it names, once.
    pub fn serve_until(&mut self, failpoint: &str) {
        self.failpoint().arm(failpoint, AtFailpoint::Die);
        self.serve_armed();
    }

    /// The failpoint of this daemon, which may be set while it runs.
    #[must_use]
    pub fn failpoint(&self) -> Failpoint {
        Failpoint::in_dir(self.dir.path())
    }

    fn serve_armed(&mut self) {
        assert!(self.child.is_none(), "the daemon runs already");
        let mut command = process::bound(build::binary(self.profile), "KILL");
        command.args(["serve", "--config"]).arg(&self.config);
        command.current_dir(self.dir.path()).envs(self.environment.iter().cloned());
        command.env(failpoint::VARIABLE, self.failpoint().file());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child =
            process::spawn(command).unwrap_or_else(|e| panic!("cannot start the daemon: {e}"));
        if let Some(stdout) = child.stdout.take() {
            collect(stdout, &self.log);
        }
        if let Some(stderr) = child.stderr.take() {
            collect(stderr, &self.log);
        }
        self.child = Some(child);
        eventually("the daemon to answer", START_DEADLINE, || {
            if let Some(status) = self.has_ended() {
                panic!("the daemon ended with {status}");
            }
            match self.try_get("/livez")?.status {
                200 => Ok(()),
                other => Err(format!("/livez answers {other}")),
            }
        });
    }

    /// Its process id, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// The most memory that its process has had (`VmHWM`), in KiB.
    #[must_use]
    pub fn peak_memory_kib(&self) -> u64 {
        let pid = self.pid().unwrap_or_else(|| panic!("the daemon does not run"));
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))
            .unwrap_or_else(|e| panic!("the daemon's memory: {e}"));
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        peak.and_then(|rest| rest.split_whitespace().next()?.parse().ok())
            .unwrap_or_else(|| panic!("no VmHWM in the daemon's status"))
    }

    /// Its address.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The directory of its configuration and of the journal's archive.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Everything it logged so far, over all its starts.
    #[must_use]
    pub fn log(&self) -> String {
        lines(&self.log).join("\n")
    }

    /// Asks, and panics when there is no answer.
    #[must_use]
    pub fn get(&self, path: &str) -> Answer {
        self.try_get(path).unwrap_or_else(|e| panic!("GET {path}: {e}"))
    }

    /// Asks; no answer is an error.
    pub fn try_get(&self, path: &str) -> Result<Answer, String> {
        answer(self.agent.get(format!("{}{path}", self.url())).call())
    }

    /// Tells, and panics when there is no answer.
    #[must_use]
    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.try_post(path, body).unwrap_or_else(|e| panic!("POST {path}: {e}"))
    }

    /// Tells; no answer is an error, which a test that kills the daemon expects.
    pub fn try_post(&self, path: &str, body: &Value) -> Result<Answer, String> {
        answer(self.agent.post(format!("{}{path}", self.url())).send_json(body))
    }

    /// The migration as the daemon tells it.
    #[must_use]
    pub fn migration(&self) -> Value {
        self.get(&format!("/v1/migrations/{MIGRATION}")).body
    }

    /// Gives an order, such as `cutover`.
    #[must_use]
    pub fn order(&self, verb: &str) -> Answer {
        self.post(&format!("/v1/migrations/{MIGRATION}/{verb}"), &json!({}))
    }

    /// Gives an order, waits for its end and returns the operation. Panics when it is refused.
    #[must_use]
    pub fn carry_out(&self, verb: &str) -> Value {
        let accepted = self.order(verb);
        assert_eq!(accepted.status, 202, "{verb} was refused: {}", accepted.body);
        self.wait_for_operation(&accepted)
    }

    /// Gives an order and panics unless it succeeds.
    pub fn succeed(&self, verb: &str) {
        let operation = self.carry_out(verb);
        assert_eq!(operation["state"], "succeeded", "{operation}\n{}", self.migration());
    }

    /// Waits for the end of an accepted operation.
    #[must_use]
    pub fn wait_for_operation(&self, accepted: &Answer) -> Value {
        self.wait_for_operation_within(accepted, PHASE_DEADLINE)
    }

    /// The same with a deadline for what takes long beside other work.
    #[must_use]
    pub fn wait_for_operation_within(&self, accepted: &Answer, deadline: Duration) -> Value {
        let id = accepted.body["id"].as_str().unwrap_or_default().to_owned();
        let path = format!("/v1/migrations/{MIGRATION}/operations/{id}");
        eventually("the operation to end", deadline, || {
            let operation = self.try_get(&path)?.body;
            match operation["state"].as_str() {
                Some("running") | None => Err(format!("{operation}; {}", self.migration())),
                Some(_) => Ok(operation),
            }
        })
    }

    /// Waits for a phase; a migration that is blocked on its way fails the test at once.
    pub fn wait_for_phase(&self, phase: &str) {
        self.wait_for_phase_within(phase, PHASE_DEADLINE);
    }

    /// The same with a deadline for larger databases.
    pub fn wait_for_phase_within(&self, phase: &str, deadline: Duration) {
        eventually(&format!("phase {phase}"), deadline, || {
            self.check_alive();
            let migration = self.try_get(&format!("/v1/migrations/{MIGRATION}"))?.body;
            if migration["phase"] == phase {
                return Ok(());
            }
            assert_ne!(migration["condition"]["kind"], "blocked", "blocked: {migration}");
            Err(migration.to_string())
        });
    }

    /// Waits until the migration's description satisfies `wanted`.
    pub fn wait_until(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        eventually(what, PHASE_DEADLINE, || {
            self.check_alive();
            let migration = self.try_get(&format!("/v1/migrations/{MIGRATION}"))?.body;
            if wanted(&migration) { Ok(migration) } else { Err(migration.to_string()) }
        })
    }

    /// Starts the migration and waits until it can be cut over.
    pub fn bring_to_ready(&self) {
        let accepted = self.order("start");
        assert_eq!(accepted.status, 202, "start was refused: {}", accepted.body);
        self.wait_for_phase("ready");
    }

    /// Runs a client command of the same binary against this daemon.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> CommandOutput {
        let mut command = self.client();
        command.args(arguments);
        CommandOutput::of(command)
    }

    /// The same as a command that the caller runs itself.
    #[must_use]
    pub fn client(&self) -> Command {
        let mut command = Command::new(build::binary(self.profile));
        command.env("PGFERRY_URL", self.url()).current_dir(self.dir.path());
        command
    }

    /// Ends it as a power cut would.
    pub fn kill(&mut self) {
        self.signal("KILL");
        self.wait_for_end(STOP_DEADLINE);
    }

    /// Asks it to stop and returns how it ended.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait_for_end(STOP_DEADLINE)
    }

    /// Freezes it, as a stopped virtual machine is frozen.
    pub fn freeze(&self) {
        self.signal("STOP");
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal("CONT");
    }

    /// Waits until it has ended by itself, as at a failpoint.
    pub fn wait_for_end(&mut self, deadline: Duration) -> ExitStatus {
        let Some(mut child) = self.child.take() else { panic!("the daemon does not run") };
        process::wait_for_end(&mut child, "the daemon", deadline)
    }

    fn signal(&self, name: &str) {
        let Some(child) = &self.child else { panic!("the daemon does not run") };
        process::signal(child.id(), name);
    }

    /// How it ended, when it did while nobody waited for it.
    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut().and_then(|child| child.try_wait().ok().flatten())
    }

    /// A daemon that died is a failure to be told now, not at the deadline.
    fn check_alive(&self) {
        let Some(child) = &self.child else { panic!("the daemon does not run") };
        let stat =
            std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap_or_default();
        // "pid (name) state …": Z is a process that ended and was not waited for.
        let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
        assert!(!matches!(state, None | Some('Z')), "the daemon has ended");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(child) = self.child.take() {
            process::put_down(child, "KILL");
        }
        if thread::panicking() && !interrupted() {
            let log = lines(&self.log);
            let end = &log[log.len().saturating_sub(200)..];
            eprintln!("--- log of the daemon (end) ---\n{}", end.join("\n"));
        }
    }
}

/// Runs the binary by itself, without a daemon, in an environment without our password.
#[must_use]
pub fn pgferry(arguments: &[&str], environment: &[(&str, &str)]) -> CommandOutput {
    let mut command = Command::new(build::binary(Profile::Test));
    command.args(arguments).env_remove(PASSWORD_VARIABLE).envs(environment.iter().copied());
    CommandOutput::of(command)
}

/// Starts a daemon whose log comes through a pipe that the caller may close.
#[must_use]
pub fn serve_into_pipe(config: &Path, environment: &[(&str, &str)]) -> Child {
    let mut command = process::bound(build::binary(Profile::Test), "KILL");
    command.args(["serve", "--config"]).arg(config).envs(environment.iter().copied());
    command.stderr(std::process::Stdio::piped());
    process::spawn(command).unwrap_or_else(|e| panic!("cannot start pgferry: {e}"))
}

impl CommandOutput {
    /// Runs a command to its end.
    #[must_use]
    pub fn of(command: Command) -> Self {
        let shown = format!("{command:?}");
        let Output { status, stdout, stderr } =
            process::output(command).unwrap_or_else(|e| panic!("cannot run {shown}: {e}"));
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
    }

    /// Standard output as JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e} in {self:?}"))
    }
}

fn answer(reply: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<Answer, String> {
    let mut response = reply.map_err(|e| e.to_string())?;
    let text = response.body_mut().read_to_string().map_err(|e| e.to_string())?;
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Ok(Answer { status: response.status().as_u16(), body })
}

fn collect(stream: impl Read + Send + 'static, log: &Arc<Mutex<Vec<String>>>) {
    let log = Arc::clone(log);
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            log.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(line);
        }
    });
}

fn lines(log: &Mutex<Vec<String>>) -> Vec<String> {
    log.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
}
