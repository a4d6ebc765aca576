//! Waiting for an operation to end, and saying on the way what it is doing.
//!
//! The operation does not depend on who waits for it: an interrupt ends the waiting and nothing else.

use pgferry_api::{MigrationName, Operation, OperationState};

use super::Failure;
use super::session::Session;
use crate::render;

/// Looks until the operation is no longer running.
pub(super) fn for_end(
    session: &mut Session<'_>,
    name: &MigrationName,
    mut operation: Operation,
) -> Result<Operation, Failure> {
    session.console.talk(&render::accepted(&operation));
    if session.console.interactive {
        session.console.talk(&format!("(Ctrl-C ends the waiting, not the {})", operation.verb));
    }
    let mut last = None;
    while operation.state == OperationState::Running {
        let now = session.patiently(|client| client.migration(name))?;
        for line in render::changes(last.as_ref(), &now) {
            session.console.talk(&line);
        }
        last = Some(now);
        session.pause();
        operation = session.patiently(|client| client.operation(name, operation.id))?;
    }
    Ok(operation)
}
