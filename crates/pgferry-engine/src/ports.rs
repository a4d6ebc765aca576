//! What the engine needs of the world: servers and traffic to look at and act on, and something to
//! write to. No default implementations, so that a test's stand-in is seen to be one.

use std::future::Future;

use jiff::Timestamp;
use pgferry_plan::traffic::TrafficView;
use pgferry_plan::{Action, Blocker, Entry, Facts, Seen, World};

/// Both servers.
pub trait Cluster: Send + Sync {
    /// Looks at what the step at hand needs, or, at rest, at what a verdict needs. Never fails:
    /// what was not seen is Unknown.
    fn observe(&self, facts: &Facts) -> impl Future<Output = World> + Send;

    /// Looks at both records alone, each within a time of its own: one side may be lost, and the look
    /// of a step would wait for it. Never fails.
    fn observe_records(&self) -> impl Future<Output = World> + Send;

    /// Carries out one action under the leadership of `facts.epoch`. Its result is only for
    /// people: what it did is seen by the next look.
    fn apply(
        &self,
        action: &Action,
        facts: &Facts,
    ) -> impl Future<Output = Result<(), Fault>> + Send;
}

/// What stands between the clients and both servers: poolers, or hooks that are told.
pub trait Traffic: Send + Sync {
    /// Looks where a step, or upkeep at rest, needs it. Never fails, and takes no longer than a look
    /// within the stall may; Absent when the clients find the active side by themselves.
    fn observe(&self, facts: &Facts) -> impl Future<Output = Seen<TrafficView>> + Send;

    /// Begins what a traffic action says, and may go on with it after the return. There is no epoch
    /// that a pooler or a hook could check: whoever implements this asks a node for it before each
    /// change. Its result is only for people.
    fn apply(
        &self,
        action: &Action,
        facts: &Facts,
    ) -> impl Future<Output = Result<(), Fault>> + Send;
}

/// The journal of one migration, written by one leader.
pub trait Journal: Send {
    /// Appends entries durably, all or none, if this leadership still holds.
    ///
    /// # Errors
    /// Whenever it is not certain that they were written. The leader then has to begin anew:
    /// take over, load, look.
    fn append(
        &mut self,
        entries: &[Entry],
    ) -> impl Future<Output = Result<(), LeadershipLost>> + Send;

    /// Whether it is known already that the next append would fail. Asks nobody.
    fn is_lost(&self) -> bool;
}

/// This daemon may not act any more, or cannot know whether it may.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("leadership lost: {0}")]
pub struct LeadershipLost(pub String);

/// Why an action failed, for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The node's epoch is not ours: another daemon has taken over.
    #[error("another daemon leads this migration now")]
    EpochRaised,
    /// It did not work; what the next look sees decides.
    #[error("{}", .0.message)]
    Failed(Blocker),
}

/// What a migration waits for, beside its phase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Waiting, blocked or paused.
    pub kind: ConditionKind,
    /// Code, message and hint.
    pub blocker: Blocker,
    /// All reasons, when there are several.
    pub all: Vec<Blocker>,
    /// Since when.
    pub since: Timestamp,
}

/// The kinds of condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConditionKind {
    /// It goes on by itself.
    Waiting,
    /// A person has to do something.
    Blocked,
    /// A person has asked for it.
    Paused,
}
