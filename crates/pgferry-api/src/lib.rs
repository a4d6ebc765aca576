//! The words and shapes of the HTTP interface, shared by the daemon and its command line.
//!
//! Only data: nothing here knows a socket, a clock or a database, and nothing decides. A field that
//! is null in the contract is an `Option` here; a figure that is not known is null, never zero.

mod copy;
mod migration;
mod operation;
mod problem;
mod words;

pub use copy::{CopyReport, CopyTable};
pub use migration::{
    Condition, Copy, LastSwitchover, Migration, Migrations, Sequences, StepTime, Stream,
    Verification, VerificationReport,
};
pub use operation::{Event, Events, Findings, Operation, Verdict};
pub use problem::{PROBLEM_CONTENT_TYPE, Problem};
pub use words::{
    ConditionKind, CopyState, OperationState, Outcome, Phase, StreamStatus, UnknownWord, Verb,
};

pub use pgferry_plan::verify::{Difference, DifferenceKind, KeyPart, ValuePair, rounds::Wrong};
pub use pgferry_plan::{Blocker, Direction, Finding, Kind, MigrationName, Severity, Side};
