//! Answers to commands that were not taken, in the server's words.

use pgferry_api as api;
use pgferry_plan::Blocker;
use pgferry_postgres::journal::JournalError;
use pgferry_server::{Accepted, Refusal, RefusalStatus};
use tokio::sync::oneshot;

pub(super) fn answer(
    reply: Option<oneshot::Sender<Result<Accepted, Refusal>>>,
    result: Result<Accepted, Refusal>,
) {
    if let Some(reply) = reply {
        // Whoever asked may have gone; the operation goes on all the same.
        let _ = reply.send(result);
    }
}

pub(super) fn conflict(blockers: Vec<Blocker>) -> Refusal {
    let first = blockers.first();
    let text = |part: fn(&Blocker) -> &String| first.map(part).cloned().unwrap_or_default();
    Refusal {
        status: RefusalStatus::Conflict,
        code: text(|blocker| &blocker.code),
        detail: text(|blocker| &blocker.message),
        hint: text(|blocker| &blocker.hint),
        blockers,
    }
}

/// What keeps the daemon from carrying out anything now.
pub(super) fn unavailable(blocker: Blocker) -> Refusal {
    Refusal { status: RefusalStatus::Unavailable, ..conflict(vec![blocker]) }
}

pub(super) fn not_leader() -> Refusal {
    Refusal {
        status: RefusalStatus::Unavailable,
        code: "not_leader".to_owned(),
        detail: "another daemon leads this migration".to_owned(),
        hint: "ask the daemon that leads".to_owned(),
        blockers: Vec::new(),
    }
}

pub(super) fn refused_before_start(verb: api::Verb) -> Refusal {
    conflict(vec![Blocker::new(
        "not_ready",
        format!("{verb} needs a migration that was started"),
        "run `pgferry start` first",
    )])
}

pub(super) fn journal_blocker(error: &JournalError) -> Blocker {
    let (code, hint) = match error {
        JournalError::Connect(connect) => ("journal_unreachable", connect.hint()),
        JournalError::NoAnswer => {
            ("journal_unreachable", "look at the server that holds the journal")
        }
        JournalError::Statement(_) => ("journal_failed", "look into the log of its server"),
        JournalError::Migrate(_) => (
            "journal_failed",
            "give the role CREATE on the database, or name another place under [journal]",
        ),
        JournalError::Illegal(_) | JournalError::NotUnderstood { .. } => {
            ("journal_illegal", "run the pgferry that wrote it, or a newer one")
        }
        JournalError::NotLeader => ("not_leader", "ask the daemon that leads"),
        JournalError::Archive { .. } => ("journal_failed", "make journal.archive_dir writable"),
    };
    Blocker::new(code, error.to_string(), hint)
}
