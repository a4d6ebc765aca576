//! (skeleton)

pub mod heartbeat;
pub mod migrate;
pub mod roles;
pub mod scope;
pub mod streams;
pub mod connect;
pub mod quote;
pub mod walsender;
pub mod copy;
pub mod schema;
