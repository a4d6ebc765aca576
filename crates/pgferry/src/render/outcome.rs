//! How an operation was taken, and how it ended.

use std::fmt::Write;

use pgferry_api::{Finding, LastSwitchover, Migration, Operation, OperationState, Verb};

use super::table::{table, text};
use super::{indented, plain, units};

/// The daemon has taken a request.
pub(crate) fn accepted(operation: &Operation) -> String {
    let Operation { migration, verb, id, .. } = operation;
    format!("{migration}: {verb} accepted (operation {id})")
}

/// How an operation ended: a switchover with the time that writes were held, step by step.
pub(crate) fn outcome(operation: &Operation, migration: &Migration) -> String {
    let mut out = format!("{}: {} {}", operation.migration, operation.verb, operation.state);
    let _ = writeln!(out, "; {}", rest(operation, migration));
    if let Some(last) = own_switchover(operation, migration) {
        out.push_str(&switchover(last));
    }
    out.push_str(&remains(&operation.remains));
    out
}

/// What is true afterwards, whatever was asked.
fn rest(operation: &Operation, migration: &Migration) -> String {
    match operation.state {
        OperationState::Running => "it goes on".to_owned(),
        OperationState::Succeeded
        | OperationState::Failed
        | OperationState::Aborted
        | OperationState::Blocked => {
            format!("the {} is active, phase {}", migration.active, migration.phase)
        }
    }
}

/// The migration's last switchover, if it is this operation's and not an older one.
fn own_switchover<'a>(
    operation: &Operation,
    migration: &'a Migration,
) -> Option<&'a LastSwitchover> {
    match operation.verb {
        Verb::Cutover | Verb::Rollback => {
            migration.last_switchover.as_ref().filter(|last| last.id == operation.id)
        }
        Verb::Preflight
        | Verb::Start
        | Verb::Verify
        | Verb::Abort
        | Verb::Pause
        | Verb::Resume
        | Verb::Finish
        | Verb::Abandon => None,
    }
}

fn switchover(last: &LastSwitchover) -> String {
    let mut out = match last.write_stall_ms {
        Some(ms) => format!("write stall {}\n", units::milliseconds(ms)),
        None => "no write was held\n".to_owned(),
    };
    if !last.steps.is_empty() {
        let mut steps = table(&["step", "time"], &[1]);
        for step in &last.steps {
            steps.add_row(vec![plain(&step.step), units::milliseconds(step.ms)]);
        }
        out.push_str(&text(&steps));
    }
    out
}

fn remains(remains: &[Finding]) -> String {
    if remains.is_empty() {
        return String::new();
    }
    let mut out = "left behind:\n".to_owned();
    for finding in remains {
        let _ = writeln!(out, "- {}: {}", plain(&finding.subject), plain(&finding.message));
        out.push_str(&indented("  ", &finding.hint));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn a_switchover_ends_with_its_stall_and_its_steps() {
        let migration = sample::ready();
        let operation = sample::operation(Verb::Rollback, OperationState::Succeeded);
        let shown = outcome(&operation, &migration);
        let start =
            "orders: rollback succeeded; the source is active, phase ready\nwrite stall 31.2 ms\n";
        assert!(shown.starts_with(start), "{shown}");
        let words: Vec<_> = shown.split_whitespace().collect();
        for row in [["fence_active", "12.1", "ms"], ["drain", "4.0", "ms"]] {
            assert!(words.windows(3).any(|window| window == row), "{shown}");
        }
    }

    #[test]
    fn an_older_switchover_is_not_taken_for_this_one() {
        let mut operation = sample::operation(Verb::Cutover, OperationState::Blocked);
        operation.id = uuid::Uuid::nil();
        let shown = outcome(&operation, &sample::ready());
        assert_eq!(shown, "orders: cutover blocked; the source is active, phase ready\n");
    }

    #[test]
    fn what_is_left_behind_is_named_with_its_statement() {
        let mut operation = sample::operation(Verb::Finish, OperationState::Succeeded);
        let statement = "ALTER ROLE app IN DATABASE orders RESET default_transaction_read_only;";
        operation.remains =
            vec![Finding::warn("fence_stays", "role app on the source", "stays fenced", statement)];
        let shown = outcome(&operation, &sample::ready());
        let end = format!("left behind:\n- role app on the source: stays fenced\n  {statement}\n");
        assert!(shown.ends_with(&end), "{shown}");
    }
}
