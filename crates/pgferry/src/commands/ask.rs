//! The verbs: ask once, and wait for the end unless told not to.

use pgferry_api::{MigrationName, Operation, OperationState, Severity, Verb};

use super::session::Session;
use super::{Exit, Failure, wait};
use crate::args::{Named, Request};
use crate::render;

/// Asks the daemon for what the request says and ends with how that ended.
pub(super) fn ask(
    session: &mut Session<'_>,
    named: Named,
    request: Request,
) -> Result<Exit, Failure> {
    let name = session.resolve(named)?;
    if request.dry_run {
        return dry_run(session, &name, request);
    }
    if request.force {
        let verdict = session.client.dry_run(&name, request)?;
        if !verdict.go || !request.yes {
            session.console.data(&verdict, |verdict| render::verdict(&name, verdict))?;
            if verdict.go {
                session.console.talk(&render::error("nothing was done", "add --yes to accept it"));
            }
            return Ok(Exit::Blocked);
        }
        session.console.talk(verdict.may_be_lost.as_deref().unwrap_or_default());
    }
    let operation = session.client.ask(&name, request)?;
    if !request.wait {
        session.console.data(&operation, render::accepted)?;
        return Ok(Exit::Done);
    }
    let operation = wait::for_end(session, &name, operation)?;
    if request.verb == Verb::Preflight && looked(&operation) {
        return findings(session, &name);
    }
    let exit = conclude(session, &name, &operation)?;
    if request.verb == Verb::Verify && !session.console.is_json() {
        let report = session.patiently(|client| client.verification(&name))?;
        session.console.data(&report, render::differences)?;
    }
    Ok(exit)
}

fn dry_run(
    session: &mut Session<'_>,
    name: &MigrationName,
    request: Request,
) -> Result<Exit, Failure> {
    let verdict = session.client.dry_run(name, request)?;
    session.console.data(&verdict, |verdict| render::verdict(name, verdict))?;
    Ok(if verdict.go { Exit::Done } else { Exit::Blocked })
}

/// Whether a preflight came to a result, good or bad: then its findings say more than its state.
fn looked(operation: &Operation) -> bool {
    match operation.state {
        OperationState::Succeeded | OperationState::Blocked => true,
        OperationState::Running | OperationState::Failed | OperationState::Aborted => false,
    }
}

fn findings(session: &mut Session<'_>, name: &MigrationName) -> Result<Exit, Failure> {
    let findings = session.patiently(|client| client.findings(name))?;
    session.console.data(&findings, |all| render::findings(name, &all.findings))?;
    let blocks = findings.findings.iter().any(|finding| finding.severity == Severity::Block);
    Ok(if blocks { Exit::Blocked } else { Exit::Done })
}

/// Prints how it ended, with where the time went when it was a switchover.
fn conclude(
    session: &mut Session<'_>,
    name: &MigrationName,
    operation: &Operation,
) -> Result<Exit, Failure> {
    let migration = session.patiently(|client| client.migration(name))?;
    session.console.data(operation, |operation| render::outcome(operation, &migration))?;
    if let Some(problem) = &operation.problem {
        session.console.talk(&render::problem(problem));
    }
    Ok(exit_of(operation.state))
}

fn exit_of(state: OperationState) -> Exit {
    match state {
        OperationState::Succeeded => Exit::Done,
        // Nobody waits for a running operation's exit code; should it come to that, it is not done.
        OperationState::Running | OperationState::Failed | OperationState::Aborted => Exit::Failed,
        OperationState::Blocked => Exit::Blocked,
    }
}
