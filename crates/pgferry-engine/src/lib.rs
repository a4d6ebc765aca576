//! The loop: observe, decide, journal the intent, do one idempotent thing, look again.
//!
//! No database, no HTTP, no judgement. The engine is handed three ports and a policy; start,
//! restart and retry are the same tick.

pub mod engine;
pub mod failpoint;
pub mod ports;
#[cfg(test)]
mod sim;

pub use engine::{Engine, Turn};
pub use ports::{Cluster, Condition, ConditionKind, Fault, Journal, LeadershipLost, Traffic};
