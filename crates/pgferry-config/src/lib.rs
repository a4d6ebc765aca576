//! Configuration: a TOML file and the environment in, a valid [`Config`] or every problem at once out.
//!
//! Nothing here connects to anything, writes a file or logs. The only files opened are those that
//! the configuration names (passwords, root certificates) and the only judgement is whether what is
//! written can be meant: what a server thinks of it is for preflight to find out.

mod config;
mod dsn;
mod load;
mod lookup;
mod nearest;
mod pgbouncer_entry;
mod problem;
mod secret;

pub use config::{
    BackgroundConfig, CommandConfig, Config, CopyConfig, CopyMethod, CutoverConfig, FenceConfig,
    FenceMethod, JournalConfig, Login, MigrationConfig, NodeConfig, PgbouncerConfig,
    PgbouncersConfig, Rewrite, SchemaConfig, SchemaMode, ScopeConfig, SequencesConfig,
    ServerConfig, TrafficConfig, VerifyConfig, WebhookConfig,
};
pub use dsn::{Dsn, DsnFault, InvalidDsn, SslMode};
pub use load::{load, parse};
pub use lookup::{Lookup, ProcessEnv};
pub use pgbouncer_entry::PgbouncerEntry;
pub use problem::{LoadError, Problem};
pub use secret::Secret;
