//! The HTTP face of the daemon: health, metrics, and the API under `/v1`.
//!
//! Reads are answered from memory, out of watch channels that the binary fills: no request opens a
//! database connection. Commands go to the loop over a channel, and only the loop judges them;
//! nothing here decides whether a migration may move.

mod extract;
mod handle;
mod problem;
mod routes;
mod serve;

#[cfg(test)]
mod fixture;

pub use handle::{
    Accepted, App, Command, CopyFigures, FoundDifferences, MigrationHandle, MigrationState,
    NotReady, Refusal, RefusalStatus,
};
pub use routes::router;
pub use serve::serve;
