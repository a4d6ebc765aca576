//! Eyes: how far both streams are, whether their workers live, how much WAL they hold back.
//!
//! Nothing here changes a node, except for the heartbeat, and that only under a given epoch.
//! Nothing here decides: it publishes what it saw, and says so when it saw nothing.

mod heart;
mod link;
pub mod metrics;
mod watcher;

use std::sync::Arc;
use std::time::Duration;

use pgferry_plan::{Direction, LagReport, MigrationName, Side};
use pgferry_postgres::connect::Connector;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

pub use metrics::{Metrics, MigrationMetrics};

/// What to watch, and how often.
#[derive(Clone, Debug)]
pub struct Watched {
    /// The migration; it names the sessions on the servers.
    pub migration: MigrationName,
    /// The subscription that carries source to destination.
    pub forward_subscription: String,
    /// The subscription that carries destination to source.
    pub reverse_subscription: String,
    /// How to reach the source.
    pub source: Connector,
    /// How to reach the destination.
    pub destination: Connector,
    /// Time between two looks.
    pub poll_interval: Duration,
    /// Time between two heartbeats of a side.
    pub heartbeat_interval: Duration,
    /// Told when somebody waits for the next look: it is taken at once.
    pub look_sooner: Arc<Notify>,
}

/// Where the monitor publishes what it saw.
#[derive(Debug)]
pub struct Outlets {
    /// Both streams, renewed with every look.
    pub lag: watch::Sender<LagReport>,
    /// Both nodes, renewed when something changed.
    pub nodes: watch::Sender<NodesReport>,
    /// The same for Prometheus.
    pub metrics: MigrationMetrics,
}

/// Whether the nodes can be reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodesReport {
    /// The source.
    pub source: NodeReach,
    /// The destination.
    pub destination: NodeReach,
}

impl NodesReport {
    /// The reach of one side.
    #[must_use]
    pub fn node(&self, side: Side) -> &NodeReach {
        match side {
            Side::Source => &self.source,
            Side::Destination => &self.destination,
        }
    }
}

/// Whether one node can be reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NodeReach {
    /// The first connection is still being made.
    #[default]
    NotYet,
    /// It answers.
    Up,
    /// It does not, for this reason.
    Down(String),
}

/// Watches one migration until `cancel`, and beats on both sides while `epoch` holds one.
///
/// Each side has connections of its own, so that a server that hangs holds up nothing but what is
/// asked of it.
pub async fn run(
    watched: Watched,
    epoch: watch::Receiver<Option<i64>>,
    outlets: Outlets,
    cancel: CancellationToken,
) {
    tokio::join!(
        watcher::watch(&watched, outlets, &cancel),
        heart::beat(&watched, Side::Source, epoch.clone(), &cancel),
        heart::beat(&watched, Side::Destination, epoch, &cancel),
    );
}

impl Watched {
    fn connector(&self, side: Side) -> &Connector {
        match side {
            Side::Source => &self.source,
            Side::Destination => &self.destination,
        }
    }

    fn subscription(&self, direction: Direction) -> &str {
        match direction {
            Direction::Forward => &self.forward_subscription,
            Direction::Reverse => &self.reverse_subscription,
        }
    }

    fn session_name(&self, purpose: &str) -> String {
        format!("pgferry {} {purpose}", self.migration)
    }
}
