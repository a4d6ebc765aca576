//! The pure core of pgferry: what a migration is, which step comes next, and what to do about
//! what was seen.
//!
//! Nothing here performs I/O, reads a clock, or is async. Every judgement is a function from data
//! to data, so that it can be tested without a server and printed before it is carried out.

pub mod action;
pub mod decide;
pub mod existing;
pub mod facts;
pub mod finding;
pub mod forced;
pub mod journal;
pub mod lag;
pub mod lsn;
pub mod name;
pub mod pglogical;
pub mod pieces;
pub mod predict;
pub mod preflight;
mod quote;
pub mod request;
pub mod roles;
pub mod scope;
pub mod seen;
pub mod sequences;
pub mod side;
pub mod steps;
pub mod strays;
pub mod traffic;
pub mod verdict;
pub mod verify;
pub mod world;

pub use action::{Action, SessionId, SetAddition};
pub use decide::{Decision, Policy, decide};
pub use facts::{Course, Facts};
pub use finding::{Blocker, Finding, Severity};
pub use forced::Loss;
pub use journal::{Entry, Event, Evidence, Intent, OperationState, Verb};
pub use lag::{LagReport, StreamReport, StreamStatus, WorkerSeen};
pub use lsn::Lsn;
pub use name::{InvalidMigrationName, MigrationName, RoleName, SequenceName, TableName};
pub use request::{Order, Refusal, admit};
pub use seen::Seen;
pub use side::{Direction, Kind, Side};
pub use steps::{Phase, Step};
pub use verdict::verdict;
pub use world::World;
