//! How clients come to the active side where they do not find it by themselves: PgBouncers that hold
//! and lead them, commands and webhooks that are told.
//!
//! Decides nothing: it looks, and does one thing of what `pgferry-plan` decided, in the background,
//! so that a person's abort is heard meanwhile. Neither a pooler nor a hook can check an epoch, so a
//! node is asked before each change. What a daemon that was frozen right behind that question does
//! is put right by the leader's upkeep; no write depends on it, because the fence by role stands.

mod hooks;
mod leadership;
mod pgbouncer;
mod process;
mod traffic;
mod webhook;

pub use leadership::Leadership;
pub use traffic::MigrationTraffic;
