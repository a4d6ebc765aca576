//! The pure core of pgferry: what a migration is, which step comes next, and what to do about
//! what was seen.
//!
//! Nothing here performs I/O, reads a clock, or is async. Every judgement is a function from data
//! to data, so that it can be tested without a server and printed before it is carried out.

pub mod finding;
pub mod lsn;
pub mod name;
pub mod seen;
pub mod side;

pub use finding::{Blocker, Finding, Severity};
pub use lsn::Lsn;
pub use name::{InvalidMigrationName, MigrationName, RoleName, SequenceName, TableName};
pub use seen::Seen;
pub use side::{Direction, Kind, Side};
