//! A program that is told what is happening: started without a shell, killed with all that it started
//! at its deadline, or when nobody waits for it any more.
//!
//! It gets none of the daemon's environment but what every program needs and what it is given by name,
//! because passwords stand there.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use pgferry_postgres::node::scrub;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

/// What no program can do without.
const PASSED: [&str; 8] = ["PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "TMPDIR"];

/// Of what it says, the end is kept: there stands why it failed.
const TAIL: usize = 1000;

/// A program that left something behind with its output open is not waited for.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// What to run.
pub(crate) struct Order<'a> {
    /// Never empty.
    pub(crate) argv: &'a [String],
    /// What it is told.
    pub(crate) variables: &'a [(&'a str, String)],
    /// Variables of the daemon that it gets.
    pub(crate) pass: &'a [String],
    /// From the start to the end.
    pub(crate) deadline: Duration,
}

/// Runs it to its end. Dropped meanwhile, it is killed.
pub(crate) async fn run(order: &Order<'_>) -> Result<(), String> {
    let Some((program, arguments)) = order.argv.split_first() else {
        return Err("no program is named".to_owned());
    };
    let mut command = Command::new(program);
    command.args(arguments).env_clear().process_group(0);
    for name in PASSED.into_iter().chain(order.pass.iter().map(String::as_str)) {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command.envs(order.variables.iter().map(|(name, value)| (name, value)));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child =
        command.spawn().map_err(|error| format!("{program} could not be started: {error}"))?;
    // Dropped before the child is, and so while its process id is its own.
    let mut group = Group(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)));
    let (stdout, stderr) = (tail(child.stdout.take()), tail(child.stderr.take()));
    let ended = tokio::time::timeout(order.deadline, wait(&mut child, &mut group)).await;
    let verdict = match ended {
        Ok(Ok(status)) if status.success() => return Ok(()),
        Ok(Ok(status)) => format!("{program} ended with {}", words(status)),
        Ok(Err(error)) => format!("{program} could not be waited for: {error}"),
        Err(_) => {
            drop(group);
            format!("{program} took longer than {} ms and was killed", order.deadline.as_millis())
        }
    };
    let (stdout, stderr) = (last_words(stdout).await, last_words(stderr).await);
    let said = if stderr.is_empty() { stdout } else { stderr };
    Err(if said.is_empty() { verdict } else { format!("{verdict}: {}", scrub(&said)) })
}

/// When the child is reaped its process id may be another's, and the group is let go.
async fn wait(child: &mut Child, group: &mut Group) -> std::io::Result<ExitStatus> {
    let status = child.wait().await;
    group.0 = None;
    status
}

/// A process group that is killed unless it is let go.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // It may have ended by itself: then there is nothing to kill.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

fn words(status: ExitStatus) -> String {
    match status.code() {
        Some(code) => format!("exit code {code}"),
        None => status.to_string(),
    }
}

fn tail(output: Option<impl AsyncRead + Unpin + Send + 'static>) -> Tail {
    let kept = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let keep = std::sync::Arc::clone(&kept);
    let reading = tokio::spawn(async move {
        let Some(mut output) = output else { return };
        let mut piece = [0; 4096];
        while let Ok(read @ 1..) = output.read(&mut piece).await {
            let mut kept = keep.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            kept.extend_from_slice(&piece[..read]);
            let excess = kept.len().saturating_sub(TAIL);
            kept.drain(..excess);
        }
    });
    Tail { kept, reading }
}

/// The end of what a program says, read while it runs so that it never waits for a reader.
struct Tail {
    kept: std::sync::Arc<std::sync::Mutex<Vec<u8>>>,
    reading: JoinHandle<()>,
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

async fn last_words(mut tail: Tail) -> String {
    // Read to its end or not: what is there is told.
    let _ = tokio::time::timeout(LAST_WORDS, &mut tail.reading).await;
    let kept = tail.kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    String::from_utf8_lossy(&kept).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    async fn sh(script: &str, deadline_ms: u64) -> Result<(), String> {
        let argv = ["/bin/sh", "-c", script].map(str::to_owned);
        let variables = [("PGFERRY_EVENT", "before_line".to_owned())];
        let deadline = Duration::from_millis(deadline_ms);
        run(&Order { argv: &argv, variables: &variables, pass: &[], deadline }).await
    }

    #[tokio::test]
    async fn what_it_is_told_is_in_its_environment_and_nothing_of_the_daemons() {
        assert_eq!(sh("test \"$PGFERRY_EVENT\" = before_line", 5000).await, Ok(()));
        // Set by cargo for every test.
        assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
        assert_eq!(sh("test -z \"$CARGO_MANIFEST_DIR\"", 5000).await, Ok(()));
    }

    #[tokio::test]
    async fn why_it_failed_is_the_end_of_what_it_said_without_a_password() {
        let said = sh("echo out; echo 'host=a password=hunter2 x' >&2; exit 3", 5000).await;
        let said = said.unwrap_err();
        assert!(said.contains("exit code 3") && said.contains("host=a"), "{said}");
        assert!(!said.contains("hunter2") && !said.contains("out"), "{said}");
        let said = sh("yes | head -c 100000; echo the end; exit 1", 5000).await.unwrap_err();
        assert!(said.ends_with("the end") && said.len() < 2 * TAIL, "{said}");
        let argv = ["/no/such/program".to_owned()];
        let order =
            Order { argv: &argv, variables: &[], pass: &[], deadline: Duration::from_secs(1) };
        assert!(run(&order).await.unwrap_err().contains("could not be started"));
    }

    #[tokio::test]
    async fn at_its_deadline_it_is_killed_with_all_that_it_started() {
        let file = std::env::temp_dir().join(format!("pgferry-group-{}", std::process::id()));
        let script = format!("(sleep 1; echo late > {}) & sleep 60", file.display());
        let began = Instant::now();
        let said = sh(&script, 100).await.unwrap_err();
        assert!(said.contains("was killed"), "{said}");
        assert!(began.elapsed() < Duration::from_secs(30), "it was waited for");
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert!(!file.exists(), "what it started went on");
    }

    #[tokio::test]
    async fn one_that_leaves_something_behind_is_not_waited_for() {
        let began = Instant::now();
        assert_eq!(sh("sleep 20 & exit 0", 5000).await, Ok(()));
        assert!(sh("sleep 20 & exit 1", 5000).await.is_err());
        assert!(began.elapsed() < Duration::from_secs(10));
    }
}
