//! What the binary wires to the server: for each migration the state to show, and the channel that
//! takes commands to its loop.
//!
//! Only types and channels. Nothing here knows HTTP, and nothing here knows the engine.

use std::collections::BTreeMap;
use std::sync::Arc;

use pgferry_api::{
    Blocker, CopyReport, CopyState, Difference, Event, Finding, Migration, MigrationName,
    Operation, Verb, Verdict,
};
use tokio::sync::{mpsc, oneshot, watch};

/// Everything that the routes answer from.
#[derive(Clone)]
pub struct App {
    /// Every configured migration.
    pub migrations: Arc<BTreeMap<MigrationName, MigrationHandle>>,
    /// What `/metrics` prints.
    pub registry: prometheus::Registry,
}

impl App {
    /// An application over these migrations and this registry.
    pub fn new(
        migrations: impl IntoIterator<Item = MigrationHandle>,
        registry: prometheus::Registry,
    ) -> Self {
        let migrations =
            migrations.into_iter().map(|handle| (handle.name.clone(), handle)).collect();
        Self { migrations: Arc::new(migrations), registry }
    }
}

/// One migration as the server sees it.
#[derive(Clone)]
pub struct MigrationHandle {
    /// Its name in the configuration.
    pub name: MigrationName,
    /// What the loop saw last. The sender lives as long as the loop: once it is dropped,
    /// `/livez` says that the loop has ended.
    pub state: watch::Receiver<MigrationState>,
    /// Reads the copy's figures when asked. Beside the state and not in it: ten thousand tables are
    /// not to be composed each time that the loop says something.
    pub copy: Arc<dyn CopyFigures>,
    /// Reads what the last verification found, when asked.
    pub differences: Arc<dyn FoundDifferences>,
    /// Takes commands to the loop.
    pub commands: mpsc::Sender<Command>,
}

/// The copy's figures at the moment they are asked for.
///
/// Read from counters in memory: no database is asked, and the loop is not waited for.
pub trait CopyFigures: Send + Sync {
    /// The sums over all tables, and the tables that are in one of these states.
    fn read(&self, states: &[CopyState]) -> CopyReport;
}

/// What the last verification found, at the moment it is asked for. From memory.
pub trait FoundDifferences: Send + Sync {
    /// One by one, the first thousand.
    fn read(&self) -> Vec<Difference>;
}

/// All that a GET answers about one migration, from memory.
#[derive(Clone, Debug)]
pub struct MigrationState {
    /// The migration as the API shows it.
    pub migration: Migration,
    /// The verdict on the switchover that is the next one possible: a cutover while the source is
    /// active, a rollback while the destination is.
    pub verdict: Verdict,
    /// Every operation that is known.
    pub operations: Vec<Operation>,
    /// What the last preflight found; none before the first one has ended.
    pub findings: Option<Vec<Finding>>,
    /// Why the daemon cannot serve this migration now; empty when it can.
    pub readiness: Vec<NotReady>,
    /// The journal, oldest first.
    pub events: Arc<Vec<Event>>,
}

/// One reason why a migration is not ready to be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotReady {
    /// A stable word, `snake_case`.
    pub code: String,
    /// One sentence for people.
    pub message: String,
}

impl NotReady {
    /// The code of a daemon that another one leads; with it every POST is answered 503.
    pub const NOT_LEADER: &'static str = "not_leader";

    /// A reason from its two parts.
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into() }
    }
}

/// One request to the loop.
#[derive(Debug)]
pub struct Command {
    /// What is asked.
    pub verb: Verb,
    /// Whether `finish` or `abandon` also lifts the fence of the side left behind.
    pub open_passive: bool,
    /// Whether `cutover` or `rollback` goes away from a side that is lost.
    pub force: bool,
    /// Whether `verify` also tells the values that differ.
    pub show_values: bool,
    /// Whether `verify` also copies again what differs.
    pub repair: bool,
    /// Whether only the verdict is asked for; nothing may be changed then.
    pub dry_run: bool,
    /// Takes the answer: as soon as the request is accepted or refused, not when it is carried out.
    pub reply: oneshot::Sender<Result<Accepted, Refusal>>,
}

/// The loop took the request.
#[derive(Clone, Debug, PartialEq)]
pub enum Accepted {
    /// And carries it out as this operation.
    Operation(Operation),
    /// And answers a dry run with this.
    Verdict(Verdict),
}

/// The loop did not take the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Of which sort the refusal is.
    pub status: RefusalStatus,
    /// A stable word, `snake_case`.
    pub code: String,
    /// One sentence for people.
    pub detail: String,
    /// What to do about it.
    pub hint: String,
    /// Everything that stands in the way, at once.
    pub blockers: Vec<Blocker>,
}

/// The sorts of refusal, each an HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalStatus {
    /// 409: as the migration stands now, this cannot be done.
    Conflict,
    /// 503: this daemon cannot take commands now.
    Unavailable,
    /// 404: what is asked for does not exist.
    NotFound,
}
