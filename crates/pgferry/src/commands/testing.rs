//! A daemon in this process for the tests of the commands: the real router on a loopback socket,
//! over a loop that follows a script.

use std::cell::RefCell;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::Parser;
use pgferry_api::{CopyReport, CopyState, Kind, Migration, Verdict};
use pgferry_server::{
    Accepted, App, Command, CopyFigures, FoundDifferences, MigrationHandle, MigrationState, Refusal,
};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::console::Console;
use super::session::Session;
use super::{Exit, conclude, dispatch};
use crate::args::{Args, Command as Parsed};
use crate::client::Client;

/// A running daemon; it ends when it is dropped.
pub(super) struct Daemon {
    runtime: Runtime,
    app: App,
    address: SocketAddr,
    states: Vec<watch::Sender<MigrationState>>,
    copies: Vec<Arc<ScriptedCopy>>,
    serving: RefCell<Option<(CancellationToken, JoinHandle<io::Result<()>>)>>,
}

/// What a command printed and how it ended.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) exit: Exit,
    pub(super) out: String,
    pub(super) err: String,
}

struct NoDifferences;

impl FoundDifferences for NoDifferences {
    fn read(&self) -> Vec<pgferry_api::Difference> {
        Vec::new()
    }
}

impl Daemon {
    /// Serves these migrations; `react` is the loop's answer to each command, and may change what is
    /// shown afterwards.
    pub(super) fn of(
        migrations: Vec<Migration>,
        react: fn(&Command, &mut MigrationState) -> Result<Accepted, Refusal>,
    ) -> Self {
        let runtime = Runtime::new().unwrap();
        let mut handles = Vec::new();
        let mut states = Vec::new();
        let mut copies = Vec::new();
        for migration in migrations {
            let name = migration.name.clone();
            let (state, receiver) = watch::channel(state(migration));
            let (commands, mut queue) = mpsc::channel::<Command>(8);
            let copy = Arc::new(ScriptedCopy::default());
            copies.push(Arc::clone(&copy));
            let differences = Arc::new(NoDifferences);
            handles.push(MigrationHandle { name, state: receiver, copy, differences, commands });
            states.push(state.clone());
            runtime.spawn(async move {
                while let Some(command) = queue.recv().await {
                    let mut answer = None;
                    state.send_modify(|state| answer = Some(react(&command, state)));
                    let _ = command.reply.send(answer.unwrap());
                }
            });
        }
        let app = App::new(handles, prometheus::Registry::new());
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut daemon =
            Self { runtime, app, address, states, copies, serving: RefCell::new(None) };
        daemon.address = daemon.start();
        daemon
    }

    /// Listens, after a stop on the same port as before.
    pub(super) fn start(&self) -> SocketAddr {
        let listener = self.runtime.block_on(TcpListener::bind(self.address)).unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let server = pgferry_server::serve(listener, self.app.clone(), stop.clone());
        *self.serving.borrow_mut() = Some((stop, self.runtime.spawn(server)));
        address
    }

    /// Returns when nothing listens any longer.
    pub(super) fn stop(&self) {
        let (stop, serving) = self.serving.take().unwrap();
        stop.cancel();
        self.runtime.block_on(serving).unwrap().unwrap();
    }

    /// Changes what is shown of the first migration.
    pub(super) fn change(&self, change: impl FnOnce(&mut MigrationState)) {
        self.states[0].send_modify(change);
    }

    /// What the counters of the first migration's copy say from now on.
    pub(super) fn set_copy(&self, report: CopyReport) {
        *self.copies[0].0.lock().unwrap() = report;
    }

    pub(super) fn run(&self, line: &str) -> Ran {
        self.run_and(line, |_| {})
    }

    /// Runs a command line; `heard` is called with each thing it prints, before it goes on: the
    /// daemon's own progress, in step with what the command has seen of it.
    pub(super) fn run_and(&self, line: &str, heard: impl Fn(&str)) -> Ran {
        run_at(&format!("http://{}", self.address), line, heard)
    }
}

/// Runs one command line against the daemon at `url`.
pub(super) fn run_at(url: &str, line: &str, heard: impl Fn(&str)) -> Ran {
    let args = Args::try_parse_from(["pgferry"].into_iter().chain(line.split(' '))).unwrap();
    let (out, err) = (RefCell::default(), RefCell::default());
    let console = Console::new(
        Box::new(Tape { text: &out, heard: &heard }),
        Box::new(Tape { text: &err, heard: &heard }),
        args.remote.output,
        false,
    );
    let client = Client::new(url, None).unwrap();
    let mut session = Session { client, console, interval: Duration::from_millis(1) };
    let Parsed::Client(command) = args.command else { panic!("{line} is no client command") };
    let result = dispatch(&mut session, command);
    let exit = conclude(&mut session.console, result);
    drop(session);
    Ran { exit, out: out.into_inner(), err: err.into_inner() }
}

fn state(migration: Migration) -> MigrationState {
    MigrationState {
        migration,
        verdict: Verdict::of(Kind::Cutover, vec![]),
        operations: vec![],
        findings: None,
        readiness: vec![],
        events: Arc::new(vec![]),
    }
}

/// Counters that say what they were told.
#[derive(Default)]
struct ScriptedCopy(Mutex<CopyReport>);

impl CopyFigures for ScriptedCopy {
    fn read(&self, states: &[CopyState]) -> CopyReport {
        let mut report = self.0.lock().unwrap().clone();
        report.tables.retain(|table| states.contains(&table.state));
        report
    }
}

/// Output that can be read again, and is heard as it comes.
struct Tape<'a> {
    text: &'a RefCell<String>,
    heard: &'a dyn Fn(&str),
}

impl Write for Tape<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = std::str::from_utf8(bytes).unwrap();
        self.text.borrow_mut().push_str(text);
        (self.heard)(text);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
