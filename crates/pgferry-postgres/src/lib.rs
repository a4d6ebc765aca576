//! The only crate that speaks to databases: connections, looks, guarded mutations, the copy, the
//! schema, the journal.
//!
//! Nothing here judges. What was seen goes to `pgferry-plan` as data, and what it decides comes
//! back as an action; every mutation of a node checks the epoch in its own transaction.

mod apply;
pub mod cluster;
pub mod connect;
pub mod console;
pub mod copy;
pub mod heartbeat;
mod jobs;
pub mod journal;
pub mod large_objects;
pub mod migrate;
pub mod node;
mod observe;
pub mod preflight;
pub mod quote;
pub mod roles;
mod row_by_row;
pub mod schema;
pub mod scope;
mod statements;
pub mod streams;
pub mod verify;
mod walsender;
mod wire;

pub use cluster::PgCluster;
