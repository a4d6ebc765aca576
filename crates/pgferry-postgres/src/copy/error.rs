//! Why a copy stopped, and what a person can do about it.

use pgferry_plan::{Side, TableName};

use crate::node::{LookError, describe, scrub};
use crate::wire::WireError;

/// Why the copy stopped.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The exported snapshot is gone: the session that held it ended.
    #[error("the exported snapshot cannot be used any more: {0}")]
    SnapshotLost(String),
    /// Another daemon leads this migration now.
    #[error("the destination's record is not of epoch {0}: another daemon leads now")]
    EpochRaised(i64),
    /// The table is another one than under the snapshot, or its file was written anew.
    #[error("table {table} was rewritten or replaced on the source during the copy")]
    SourceRewritten {
        /// The table.
        table: TableName,
    },
    /// What arrived is not what was sent.
    #[error("table {table}: {read} rows left the source and {written} arrived")]
    RowsDiffer {
        /// The table.
        table: TableName,
        /// Rows by the source's count.
        read: u64,
        /// Rows by the destination's count.
        written: u64,
    },
    /// An index cannot be built.
    #[error("index {index} of {table} cannot be built: {message}")]
    IndexNotBuilt {
        /// The table.
        table: TableName,
        /// The index.
        index: String,
        /// The server's words.
        message: String,
        /// The server's SQLSTATE.
        state: String,
    },
    /// The pieces are entered as copied; see whether all of them are.
    #[error("some of the rows to be copied together are entered as copied already")]
    AlreadyCopied,
    /// A session of an earlier try does not end, and may still commit what it has copied.
    #[error("sessions of an earlier try do not end on the {0}, or it does not answer")]
    SessionStays(Side),
    /// A statement failed on the source.
    #[error("source, {doing}: {cause}")]
    OnSource {
        /// What was being done.
        doing: String,
        /// Why it failed.
        cause: Cause,
    },
    /// A statement failed on the destination.
    #[error("destination, {doing}: {cause}")]
    OnDestination {
        /// What was being done.
        doing: String,
        /// Why it failed.
        cause: Cause,
    },
    /// A worker ended without saying why.
    #[error("a copy worker failed: {0}")]
    Worker(String),
    /// The caller stopped it, or another worker's error did.
    #[error("the copy was cancelled")]
    Cancelled,
}

/// Why a statement failed, without a secret.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Cause {
    message: String,
    /// The server's SQLSTATE, when it was the server.
    state: Option<String>,
    is_passing: bool,
}

impl From<WireError> for Cause {
    fn from(error: WireError) -> Self {
        let state = error.state().map(str::to_owned);
        Self { message: scrub(&error.to_string()), state, is_passing: error.is_passing() }
    }
}

impl From<tokio_postgres::Error> for Cause {
    fn from(error: tokio_postgres::Error) -> Self {
        let state = error.code().map(|code| code.code().to_owned());
        // Without a code it is the connection that failed.
        Self { message: describe(&error), is_passing: state.is_none(), state }
    }
}

impl From<LookError> for Cause {
    fn from(error: LookError) -> Self {
        match error {
            LookError::Postgres(error) => error.into(),
            LookError::Connect(error) => WireError::Connect(error).into(),
            LookError::Said(said) => Self { message: said, state: None, is_passing: false },
        }
    }
}

impl CopyError {
    pub(super) fn on_source(doing: impl Into<String>, cause: Cause) -> Self {
        Self::OnSource { doing: doing.into(), cause }
    }

    pub(super) fn on_destination(doing: impl Into<String>, cause: Cause) -> Self {
        Self::OnDestination { doing: doing.into(), cause }
    }

    /// Whether the same work may well succeed on new sessions.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::OnSource { cause, .. } | Self::OnDestination { cause, .. } => cause.is_passing,
            Self::SnapshotLost(_)
            | Self::EpochRaised(_)
            | Self::SourceRewritten { .. }
            | Self::RowsDiffer { .. }
            | Self::IndexNotBuilt { .. }
            | Self::AlreadyCopied
            | Self::SessionStays(_)
            | Self::Worker(_)
            | Self::Cancelled => false,
        }
    }

    /// Whether a new snapshot would mend it: the present one knows tables by other columns, or its
    /// file of a table is gone.
    pub(crate) fn outdates_snapshot(&self) -> bool {
        match self {
            Self::SourceRewritten { .. } => true,
            Self::OnSource { cause, .. } => cause.state.as_deref() == Some(UNDEFINED_COLUMN),
            Self::SnapshotLost(_)
            | Self::EpochRaised(_)
            | Self::RowsDiffer { .. }
            | Self::IndexNotBuilt { .. }
            | Self::AlreadyCopied
            | Self::SessionStays(_)
            | Self::OnDestination { .. }
            | Self::Worker(_)
            | Self::Cancelled => false,
        }
    }

    /// The word for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::SnapshotLost(_) => "snapshot_lost",
            Self::EpochRaised(_) => "epoch_raised",
            Self::SourceRewritten { .. } => "source_rewritten",
            Self::RowsDiffer { .. } => "rows_differ",
            Self::IndexNotBuilt { .. } => "index_not_built",
            Self::AlreadyCopied => "already_copied",
            Self::SessionStays(_) => "session_stays",
            Self::OnSource { .. } => "copy_failed_on_source",
            Self::OnDestination { cause, .. } => match cause.state.as_deref() {
                Some(DISK_FULL) => "destination_disk_full",
                Some(_) | None => "copy_failed_on_destination",
            },
            Self::Worker(_) => "copy_worker_failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::SnapshotLost(_) => "the copy begins again with a new snapshot".to_owned(),
            Self::EpochRaised(_) => "leave it to the daemon that leads".to_owned(),
            Self::SourceRewritten { table } => format!(
                "the copy begins again with a new snapshot; hold ALTER TABLE, CLUSTER and VACUUM \
                 FULL of {table} back until it is done, or name it in scope.exclude_tables"
            ),
            Self::RowsDiffer { table, .. } => format!(
                "look for a trigger on the destination's {table} that drops rows; it is tried again"
            ),
            Self::IndexNotBuilt { table, index, state, .. } => match state.as_str() {
                UNIQUE_VIOLATION => format!(
                    "{table} holds a duplicate that index {index} does not allow; look for it on \
                     the source, where a corrupt index may hide it (REINDEX), or for rows that \
                     somebody else has put on the destination; then `pgferry resume`"
                ),
                DISK_FULL => "free disk space on the destination; then `pgferry resume`".to_owned(),
                _ => "make it possible on the destination, or drop the index on the source; then \
                      `pgferry resume`"
                    .to_owned(),
            },
            Self::AlreadyCopied | Self::Worker(_) => {
                "it is tried again by itself; see the servers' logs".to_owned()
            }
            Self::SessionStays(side) => format!(
                "it is tried again; see on the {side} what holds them: SELECT * FROM \
                 pg_stat_activity WHERE application_name LIKE 'pgferry/%/copy'"
            ),
            Self::OnSource { cause, .. } => match cause.state.as_deref() {
                Some("42501") => {
                    "run `pgferry preflight`: it prints the statements that grant what is missing"
                        .to_owned()
                }
                Some("42P01" | "42703") => {
                    "the table was changed or dropped: it is looked at again; `pgferry resume` \
                     goes on at once"
                        .to_owned()
                }
                Some("XX001") => "the source's data is corrupt there: repair the row, or exclude \
                                  the table; then `pgferry resume`"
                    .to_owned(),
                Some(_) | None => "see the source server's log; it is tried again by itself, and at \
                                   once after `pgferry resume`"
                    .to_owned(),
            },
            Self::OnDestination { cause, .. } => match cause.state.as_deref() {
                Some(DISK_FULL) => {
                    "free disk space on the destination; what has arrived stays; then `pgferry resume`"
                        .to_owned()
                }
                Some(_) | None => "check that the table is as on the source and that nothing on the \
                                   destination refuses its rows; see its log; `pgferry resume` goes \
                                   on at once"
                    .to_owned(),
            },
            Self::Cancelled => String::new(),
        }
    }
}

/// SQLSTATEs: <https://www.postgresql.org/docs/current/errcodes-appendix.html>
const DISK_FULL: &str = "53100";
const UNIQUE_VIOLATION: &str = "23505";
const UNDEFINED_COLUMN: &str = "42703";

impl From<(bool, tokio_postgres::Error)> for CopyError {
    /// An error of a look at indexes, and whether it was the source's.
    fn from((on_source, error): (bool, tokio_postgres::Error)) -> Self {
        let doing = "reading the definitions of indexes";
        if on_source {
            Self::on_source(doing, error.into())
        } else {
            Self::on_destination(doing, error.into())
        }
    }
}
