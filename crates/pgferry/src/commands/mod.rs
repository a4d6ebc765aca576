//! The client commands: each asks the daemon, prints what it says, and ends with the exit code of
//! the contract.
//!
//! No command judges a migration: what may be done and what stands in the way is the daemon's word.

mod ask;
mod check_config;
mod console;
mod look;
mod session;
mod wait;
mod watch;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::Duration;

use pgferry_api::{CopyState, Verb};
use pgferry_config::Secret;

use crate::args::{ClientCommand, Remote, Request};
use crate::client::{Client, ClientError};
use console::Console;
use session::Session;

pub(crate) use check_config::check_config;

/// How often a waiting command looks. The daemon answers from memory, so this costs it nothing.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// The tables of a copy that a person looks for first; a database may have ten thousand.
const AT_WORK: [CopyState; 2] = [CopyState::Copying, CopyState::Indexing];

/// The exit codes of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// What was asked is done; a dry run met nothing in its way.
    Done,
    /// It failed or was aborted, or the daemon could not be asked.
    Failed,
    /// A person has to do something first.
    Blocked,
    /// The command line or the configuration is wrong.
    Usage,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Blocked => 2,
            Exit::Usage => 64,
        })
    }
}

/// Carries out one client command.
pub(crate) fn run(remote: &Remote, command: ClientCommand) -> Exit {
    let (stdout, stderr) = (io::stdout(), io::stderr());
    let interactive = stderr.is_terminal();
    let mut console = Console::new(Box::new(stdout), Box::new(stderr), remote.output, interactive);
    let token = std::env::var("PGFERRY_TOKEN").ok().map(|token| token.trim().to_owned());
    let token = token.filter(|token| !token.is_empty()).map(Secret::new);
    match Client::new(&remote.url, token) {
        Ok(client) => {
            let mut session = Session { client, console, interval: LOOK_INTERVAL };
            let result = dispatch(&mut session, command);
            conclude(&mut session.console, result)
        }
        Err(error) => conclude(&mut console, Err(error.into())),
    }
}

fn dispatch(session: &mut Session<'_>, command: ClientCommand) -> Result<Exit, Failure> {
    let (named, request) = match command {
        ClientCommand::Status { named, all, tables } => {
            return look::status(session, named, all, tables);
        }
        ClientCommand::Watch { named, until } => return watch::watch(session, named, until),
        ClientCommand::Events { named, after, follow } => {
            return look::events(session, named, after, follow);
        }
        ClientCommand::Start(named) => (named, Request::start()),
        ClientCommand::Preflight(args) => {
            let request = Request::waited(Verb::Preflight, &args);
            (args.named, request)
        }
        ClientCommand::Verify(args) => {
            let request = Request::verify(&args);
            let told = args.repair && !args.yes && request.wait;
            let exit = ask::ask(session, args.waited.named, request)?;
            if told && exit == Exit::Failed {
                session.console.talk(
                    "`pgferry verify --repair --yes` copies each row that has a key again from the active side",
                );
            }
            return Ok(exit);
        }
        ClientCommand::Abort(args) => {
            let request = Request::waited(Verb::Abort, &args);
            (args.named, request)
        }
        ClientCommand::Pause(args) => {
            let request = Request::waited(Verb::Pause, &args);
            (args.named, request)
        }
        ClientCommand::Resume(args) => {
            let request = Request::waited(Verb::Resume, &args);
            (args.named, request)
        }
        ClientCommand::Cutover(args) => {
            let request = Request::switchover(Verb::Cutover, &args);
            (args.waited.named, request)
        }
        ClientCommand::Rollback(args) => {
            let request = Request::switchover(Verb::Rollback, &args);
            (args.waited.named, request)
        }
        ClientCommand::Finish(args) => {
            let request = Request::end(Verb::Finish, &args);
            (args.waited.named, request)
        }
        ClientCommand::Abandon(args) => {
            let request = Request::end(Verb::Abandon, &args);
            (args.waited.named, request)
        }
    };
    ask::ask(session, named, request)
}

/// Why a command did not come to an end of its own.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// The daemon could not be asked, or refused.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The command line does not say which migration is meant.
    #[error("{0}")]
    Usage(String),
    /// Nobody reads the output any longer, or it cannot be written.
    #[error("the output cannot be written: {0}")]
    Output(#[from] io::Error),
}

/// Says what went wrong, once and here, and turns it into an exit code.
fn conclude(console: &mut Console<'_>, result: Result<Exit, Failure>) -> Exit {
    let failure = match result {
        Ok(exit) => return exit,
        Err(failure) => failure,
    };
    match &failure {
        Failure::Client(ClientError::Problem(problem)) => {
            // A script that asked for JSON gets the problem as data, too.
            let _ = console.json(problem);
            console.talk(&crate::render::problem(problem));
            if problem.status == 409 { Exit::Blocked } else { Exit::Failed }
        }
        Failure::Client(error) => {
            console.talk(&crate::render::error(&error.to_string(), &error.hint()));
            match error {
                ClientError::InvalidUrl { .. } => Exit::Usage,
                ClientError::NotReached { .. }
                | ClientError::Stranger { .. }
                | ClientError::NotUnderstood { .. }
                | ClientError::Problem(_) => Exit::Failed,
            }
        }
        Failure::Usage(message) => {
            console.talk(&crate::render::error(message, ""));
            Exit::Usage
        }
        Failure::Output(error) => {
            if error.kind() != io::ErrorKind::BrokenPipe {
                console.talk(&crate::render::error(&failure.to_string(), ""));
            }
            Exit::Failed
        }
    }
}
