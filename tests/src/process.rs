//! Child processes that cannot outlive this one, run as the right user.
//!
//! A killed test run must leave no server behind, and a destructor does not run when the process
//! is killed. So every long-lived child is given a parent-death signal by `setpriv`. The kernel
//! sends it when the *thread* that started the child ends, which is why one thread, that never
//! ends, starts them all.

use std::ffi::OsStr;
use std::io;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;
use std::process::{Child, Command, Output};
use std::sync::{LazyLock, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use crate::expect::eventually;

/// The longest command is a release build on a slow machine; a hung one must not hang the tests.
const COMMAND_DEADLINE: Duration = Duration::from_secs(1800);

/// Starts a child from the thread that lives as long as the process does.
pub fn spawn(command: Command) -> io::Result<Child> {
    type Request = (Command, mpsc::Sender<io::Result<Child>>);
    static SPAWNER: LazyLock<Mutex<mpsc::Sender<Request>>> = LazyLock::new(|| {
        let (requests, inbox) = mpsc::channel::<Request>();
        thread::spawn(move || {
            for (mut command, reply) in inbox {
                // The caller waits for the reply, so a closed channel means that it died.
                let _ = reply.send(command.spawn());
            }
        });
        Mutex::new(requests)
    });

    let (reply, answer) = mpsc::channel();
    SPAWNER
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .send((command, reply))
        .map_err(io::Error::other)?;
    answer.recv().map_err(io::Error::other)?
}

/// A command that runs as this user and gets `signal` when this process ends.
#[must_use]
pub fn bound(program: impl AsRef<OsStr>, signal: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.arg(format!("--pdeathsig={signal}")).arg("--").arg(program);
    command
}

/// A command that runs as the user the servers run as: `postgres` when this is root, because
/// PostgreSQL refuses root, and otherwise whoever runs the tests.
#[must_use]
pub fn as_server_user(program: impl AsRef<OsStr>, signal: &str) -> Command {
    let mut command = Command::new("setpriv");
    if let Some(user) = *SERVER_USER {
        command.arg(format!("--reuid={}", user.uid)).arg(format!("--regid={}", user.gid));
        command.arg("--init-groups");
    }
    command.arg(format!("--pdeathsig={signal}")).arg("--").arg(program);
    // Both may be closed to that user: PostgreSQL complains about the directory, and libpq in a
    // server looks for a client certificate at home and fails when it may not look.
    command.current_dir("/").env("HOME", "/");
    command
}

/// Makes a file or directory the property of the user the servers run as.
pub fn give_to_server_user(path: &Path) {
    if let Some(user) = *SERVER_USER {
        chown(path, Some(user.uid), Some(user.gid))
            .unwrap_or_else(|e| panic!("cannot give {} to postgres: {e}", path.display()));
    }
}

/// Runs a command to its end and returns its output; panics with everything it said when it fails.
pub fn run(command: Command) -> Output {
    let shown = format!("{command:?}");
    let output = output(command).unwrap_or_else(|e| panic!("cannot run {shown}: {e}"));
    assert!(
        output.status.success(),
        "{shown} ended with {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    output
}

/// Runs a command to its end, on a thread of its own, so that an interrupt need not wait for it.
pub fn output(mut command: Command) -> io::Result<Output> {
    let running = thread::spawn(move || command.output());
    eventually("a command to end", COMMAND_DEADLINE, || {
        if running.is_finished() { Ok(()) } else { Err("it still runs".to_owned()) }
    });
    running.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Sends a signal, by its short name, to one process.
///
/// By the shell's own `kill`, because the program of that name is missing on small installations.
pub fn signal(pid: u32, name: &str) {
    run(kill(pid, name));
}

/// Ends a child for good and reaps it. For destructors: it never panics, because the child may
/// have ended already and a panic while another unwinds aborts everything.
pub fn put_down(mut child: Child, signal: &str) {
    let _ = kill(child.id(), signal).output();
    let _ = child.wait();
}

fn kill(pid: u32, signal: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "kill -s \"$1\" \"$2\"", "sh", signal, &pid.to_string()]);
    command
}

/// Waits until the child has ended by itself.
pub fn wait_for_end(child: &mut Child, what: &str, deadline: Duration) -> std::process::ExitStatus {
    eventually(&format!("{what} to end"), deadline, || match child.try_wait() {
        Ok(Some(status)) => Ok(status),
        Ok(None) => Err("it still runs".to_owned()),
        Err(e) => Err(e.to_string()),
    })
}

#[derive(Clone, Copy, Debug)]
struct User {
    uid: u32,
    gid: u32,
}

/// `None` when the tests do not run as root: then the servers run as the same user.
static SERVER_USER: LazyLock<Option<User>> = LazyLock::new(|| {
    let me = std::fs::metadata("/proc/self").map(|m| m.uid()).unwrap_or_default();
    (me == 0).then(|| User { uid: id_of_postgres("-u"), gid: id_of_postgres("-g") })
});

fn id_of_postgres(flag: &str) -> u32 {
    let output = Command::new("id").args([flag, "postgres"]).output();
    output
        .ok()
        .and_then(|o| String::from_utf8(o.stdout).ok())
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or_else(|| {
            panic!("the tests run as root and there is no user \"postgres\": run `make deps`")
        })
}
