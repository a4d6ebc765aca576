//! One run of a PostgreSQL tool: started, watched, and ended with its workers when told to stop.
//!
//! A password goes into the child's environment: never into its arguments, where any user of the
//! machine reads them, nor into a file, which a killed daemon would leave behind.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use pgferry_config::Secret;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use super::{EPOCH_RAISED, SchemaError};
use crate::connect::Connector;

/// How long a tool has, after SIGTERM, to cancel its statements on the server.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is kept of a tool's complaints while it runs, and what of them is told.
const KEPT: usize = 64 * 1024;
const TOLD_LINES: usize = 12;

/// What the tools of 17 set in every session of theirs, and servers before it do not know.
const NEWER_SETTING: &str = "transaction_timeout";

/// A tool about to be run.
pub(super) struct Child {
    program: PathBuf,
    command: Command,
    password: Option<Secret>,
    forgives_newer_setting: bool,
}

impl Child {
    /// A run of `program`, without any of libpq's settings that the daemon's own environment has.
    pub(super) fn new(program: PathBuf) -> Self {
        let mut command = match setpriv() {
            // So that it does not outlive a killed daemon. Holds for as long as the thread that
            // starts it, which is one of the runtime's workers: nothing here may block in place.
            Some(setpriv) => {
                let mut command = Command::new(setpriv);
                command.args(["--pdeathsig", "KILL", "--"]).arg(&program);
                command
            }
            None => Command::new(&program),
        };
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PG") {
                command.env_remove(name);
            }
        }
        command
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Its workers are ended with it, and a terminal's Ctrl-C is for the daemon to handle.
            .process_group(0)
            .kill_on_drop(true);
        Self { program, command, password: None, forgives_newer_setting: false }
    }

    /// Lets the tool log in as the connector does, with the same settings.
    pub(super) fn connect_to(&mut self, to: &Connector, application_name: &str) {
        let login = to.login();
        let mut dsn = login
            .dsn
            .with("application_name", application_name)
            .with("options", to.options())
            .with("connect_timeout", &to.timeout().as_secs().max(1).to_string());
        for (word, value) in
            [("keepalives_idle", "20"), ("keepalives_interval", "20"), ("keepalives_count", "5")]
        {
            if dsn.get(word).is_none() {
                dsn = dsn.with(word, value);
            }
        }
        self.command.arg(format!("--dbname={}", dsn.to_conninfo_without_password()));
        if let Some(password) = &login.password {
            self.command.env("PGPASSWORD", password.expose());
            self.password = Some(password.clone());
        }
    }

    /// Takes a run for good that only failed to set what an older server does not know: pg_restore
    /// goes on after it, and says at its end that it failed.
    pub(super) fn forgive_newer_setting(&mut self) {
        self.forgives_newer_setting = true;
    }

    pub(super) fn arg(&mut self, argument: impl AsRef<OsStr>) -> &mut Self {
        self.command.arg(argument);
        self
    }

    pub(super) fn args<const N: usize>(&mut self, arguments: [&str; N]) -> &mut Self {
        self.command.args(arguments);
        self
    }

    /// Runs it to its end and returns what it printed; when cancelled, ends it and its workers.
    pub(super) async fn run(mut self, cancel: &CancellationToken) -> Result<String, SchemaError> {
        let tool = self.program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let starting = SchemaError::io(format!("starting {}", self.program.display()));
        let mut child = self.command.spawn().map_err(starting)?;
        let mut group = Group::of(&child);
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let ended = tokio::select! {
            ended = async {
                let (printed, said) =
                    tokio::join!(read(stdout, usize::MAX), read(stderr, KEPT));
                (child.wait().await, printed, said)
            } => Some(ended),
            () = cancel.cancelled() => None,
        };
        let Some((status, printed, said)) = ended else {
            group.signal(Signal::TERM);
            let _ = tokio::time::timeout(PATIENCE, child.wait()).await;
            return Err(SchemaError::Cancelled);
        };
        group.is_over();
        let status = status.map_err(SchemaError::io(format!("waiting for {tool}")))?;
        let said = scrub(&String::from_utf8_lossy(&said), self.password.as_ref());
        if status.success() {
            return Ok(String::from_utf8_lossy(&printed).into_owned());
        }
        if self.forgives_newer_setting && complains_of_newer_setting_alone(&said) {
            return Ok(String::from_utf8_lossy(&printed).into_owned());
        }
        if let Some(epoch) = refused_epoch(&said) {
            return Err(SchemaError::EpochRaised(epoch));
        }
        let said = match last_lines(&said) {
            silent if silent.is_empty() => status.to_string(),
            lines => lines,
        };
        Err(SchemaError::Tool { tool, said })
    }
}

/// A process group that is killed when its owner goes away before it has ended.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &tokio::process::Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Self(id.and_then(Pid::from_raw))
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.0 {
            // Gone already is as good.
            let _ = kill_process_group(group, signal);
        }
    }

    fn is_over(&mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// Reads to the end and keeps the last `keep` bytes.
async fn read(pipe: Option<impl AsyncRead + Unpin>, keep: usize) -> Vec<u8> {
    let Some(mut pipe) = pipe else { return Vec::new() };
    let mut kept = Vec::new();
    let mut buffer = [0; 8192];
    // A pipe that fails has nothing more to say; the exit status tells the rest.
    while let Ok(length @ 1..) = pipe.read(&mut buffer).await {
        kept.extend_from_slice(&buffer[..length]);
        let limit = keep.saturating_mul(2);
        if kept.len() > limit {
            kept.drain(..kept.len() - keep);
        }
    }
    kept
}

/// Takes out the login's own password, and whatever follows the word in a statement that the tool
/// quotes: a user mapping has one too.
fn scrub(said: &str, password: Option<&Secret>) -> String {
    let said = match password.map(Secret::expose) {
        Some(password) if !password.is_empty() => said.replace(password, "***"),
        Some(_) | None => said.to_owned(),
    };
    let mut clean = String::with_capacity(said.len());
    let mut rest = said.as_str();
    while let Some(start) = rest.to_ascii_lowercase().find("password") {
        let (before, after) = rest.split_at(start + "password".len());
        clean.push_str(before);
        let gap = after.len() - after.trim_start_matches([' ', '=']).len();
        rest = after;
        if let Some(quoted) = after[gap..].strip_prefix('\'') {
            clean.push_str(&after[..gap]);
            clean.push_str("***");
            rest = quoted.split_once('\'').map_or("", |(_, rest)| rest);
            // A doubled quote belongs to the value.
            while let Some(more) = rest.strip_prefix('\'') {
                rest = more.split_once('\'').map_or("", |(_, rest)| rest);
            }
        }
    }
    clean.push_str(rest);
    clean
}

fn complains_of_newer_setting_alone(said: &str) -> bool {
    let mut complaints = said.lines().filter(|line| line.contains("error:")).peekable();
    complaints.peek().is_some() && complaints.all(|line| line.contains(NEWER_SETTING))
}

/// A script of pg_restore's without what an older server would refuse. Only of its beginning: any
/// such line behind it is part of an object. Bytes, because the database's encoding is any.
pub(super) fn without_newer_setting(script: &[u8]) -> Vec<u8> {
    let unset = format!("SET {NEWER_SETTING} =");
    let mut beginning = true;
    script
        .split_inclusive(|byte| *byte == b'\n')
        .filter(|line| {
            beginning = beginning && !line.starts_with(b"-- Name: ");
            !(beginning && line.starts_with(unset.as_bytes()))
        })
        .flatten()
        .copied()
        .collect()
}

/// On one line, because errors here are.
fn last_lines(said: &str) -> String {
    let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(TOLD_LINES)..].join(" | ")
}

/// The epoch that psql was refused for, when that is why it failed.
fn refused_epoch(said: &str) -> Option<i64> {
    let after = said.split_once(EPOCH_RAISED)?.1.trim_start().strip_prefix("from ")?;
    after.lines().next()?.trim().parse().ok()
}

fn setpriv() -> Option<PathBuf> {
    ["/usr/bin/setpriv", "/bin/setpriv"]
        .map(Path::new)
        .into_iter()
        .find(|path| path.is_file())
        .map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_does_not_pass() {
        let secret = Secret::new("hunter2".to_owned());
        assert_eq!(scrub("password=hunter2 failed", Some(&secret)), "password=*** failed");
        let empty = Secret::new(String::new());
        assert_eq!(scrub("nothing", Some(&empty)), "nothing");
        let mapping = "OPTIONS (\"user\" 'bob', PASSWORD 'it''s secret', x 'y')";
        assert_eq!(scrub(mapping, None), "OPTIONS (\"user\" 'bob', PASSWORD ***, x 'y')");
        assert_eq!(scrub("password 'cut", None), "password ***");
        let failed = "password authentication failed for user \"a\"";
        assert_eq!(scrub(failed, None), failed);
    }

    #[test]
    fn the_last_lines_are_told_on_one() {
        assert_eq!(last_lines("a\n\n  b\n"), "a | b");
        let many: String = (0..20).map(|line| format!("{line}\n")).collect();
        assert!(last_lines(&many).starts_with("8 | 9"));
    }

    #[test]
    fn a_setting_that_an_older_server_does_not_know_is_no_failure_and_anything_else_is() {
        let unknown = "pg_restore: error: could not execute query: ERROR:  unrecognized \
                       configuration parameter \"transaction_timeout\"\n\
                       Command was: SET transaction_timeout = 0;\n";
        let end = "pg_restore: warning: errors ignored on restore: 2\n";
        assert!(complains_of_newer_setting_alone(&format!("{unknown}{unknown}{end}")));
        let other = "pg_restore: error: could not execute query: ERROR:  could not create index\n";
        assert!(!complains_of_newer_setting_alone(&format!("{unknown}{other}{end}")));
        assert!(!complains_of_newer_setting_alone("killed"));
    }

    #[test]
    fn only_the_beginning_of_a_script_loses_the_setting() {
        let script = "-- dump\nSET lock_timeout = 0;\nSET transaction_timeout = 0;\n\n--\n\
                      -- Name: f; Type: FUNCTION\n--\nSET transaction_timeout = 0;\n";
        let wanted = "-- dump\nSET lock_timeout = 0;\n\n--\n\
                      -- Name: f; Type: FUNCTION\n--\nSET transaction_timeout = 0;\n";
        assert_eq!(without_newer_setting(script.as_bytes()), wanted.as_bytes());
        assert_eq!(without_newer_setting(b"SET transaction_timeout = 0;\n\xff"), b"\xff");
    }

    #[test]
    fn a_refused_epoch_is_recognised() {
        let said = "psql:/tmp/epoch.sql:4: ERROR:  pgferry: epoch raised from 7\nCONTEXT:  PL";
        assert_eq!(refused_epoch(said), Some(7));
        assert_eq!(refused_epoch("ERROR:  something else"), None);
    }
}
