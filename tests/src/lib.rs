//! The harness: real PostgreSQL servers with pglogical, the daemon as a process, and clients that
//! remember what they were promised.
//!
//! Nothing here knows how pgferry works inside: it is driven over HTTP and the command line, and
//! judged by what the two databases hold. A helper that cannot do its work panics with the reason,
//! because its caller is a test. No server outlives the process that started it.

#![expect(
    clippy::print_stderr,
    reason = "a failing test shows the logs of its servers and of the daemon"
)]

pub mod chaos;
pub mod cluster;
pub mod config;
pub mod content;
pub mod daemon;
pub mod expect;
pub mod far;
pub mod install;
pub mod ledger;
pub mod leftovers;
pub mod pair;
pub mod pgbouncer;
pub mod process;
pub mod proxy;
pub mod session;
pub mod tempdir;
pub mod tls;
pub mod webhook;

pub use cluster::{Cluster, ClusterOptions, Shutdown};
pub use config::ConfigFile;
pub use daemon::{
    Answer, AtFailpoint, CommandOutput, Daemon, Failpoint, Profile, pgferry, serve_into_pipe,
};
pub use expect::eventually;
pub use far::Far;
pub use ledger::{Ledger, LedgerOptions, LedgerReport};
pub use pair::{DATABASE, MIGRATION, Pair, PairOptions};
pub use pgbouncer::PgBouncer;
pub use proxy::{Proxy, Wire};
pub use session::Session;
