//! How clients come to the active side, as a look saw it: poolers that hold them, or hooks that are
//! told. Data only; what follows from it is decided in `decide/traffic.rs`.
//!
//! Clients that know both hosts need neither: for them the look says Absent.

use std::time::Duration;

use jiff::Timestamp;

use crate::finding::Blocker;
use crate::seen::Seen;
use crate::side::Side;

/// What the operator wants of the traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrafficPolicy {
    /// For how long a pooler may wait for transactions before `on_pause_deadline` counts.
    pub pause_deadline: Duration,
    /// What follows when it is over.
    pub on_pause_deadline: OnPauseDeadline,
}

impl Default for TrafficPolicy {
    fn default() -> Self {
        Self { pause_deadline: Duration::from_secs(2), on_pause_deadline: OnPauseDeadline::Abort }
    }
}

/// What follows when a transaction keeps a pooler from having paused in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnPauseDeadline {
    /// Everybody goes on where they were, and the switchover is aborted.
    Abort,
    /// On to the fence, which ends that transaction after its grace.
    Fence,
}

/// How the traffic stands.
#[derive(Clone, Debug, PartialEq)]
pub enum TrafficView {
    /// Poolers, each by itself.
    Poolers(Vec<PoolerView>),
    /// Hooks of the switchover at hand. At rest none has run.
    Hooks(Box<HooksView>),
}

/// One pooler.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolerView {
    /// Its name in the configuration.
    pub name: String,
    /// Its entry for the database; Absent when it has none.
    pub state: Seen<PoolerState>,
    /// What is being done to it.
    pub working: Option<TrafficGoal>,
    /// What was last tried on it in this switchover, or at this rest, and did not work.
    pub failed: Option<TrafficFailure>,
}

/// An entry of a pooler.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PoolerState {
    /// The side that it leads to; None when to neither.
    pub points_at: Option<Side>,
    /// Where it leads, for people.
    pub address: String,
    /// It lets no transaction begin.
    pub paused: bool,
    /// Its connections to the server: none once every transaction has ended.
    pub connections: u64,
    /// What would keep it from being moved, as far as that can be seen beforehand.
    pub blockers: Vec<Blocker>,
}

/// What is to be reached at a pooler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrafficGoal {
    /// It lets no transaction begin, and once none runs any more it leads to this side.
    HoldFor(Side),
    /// It leads to this side, and goes on holding.
    PointAt(Side),
    /// It leads to this side, and lets go.
    LetGo(Side),
}

/// Something that did not work.
#[derive(Clone, Debug, PartialEq)]
pub struct TrafficFailure {
    /// What was to be reached.
    pub goal: TrafficGoal,
    /// Why it was not.
    pub blocker: Blocker,
    /// Not again before then.
    pub retry_at: Timestamp,
}

/// The hooks of the switchover at hand.
#[derive(Clone, Debug, PartialEq)]
pub struct HooksView {
    /// Before anything is stopped; may veto.
    pub before_line: HookState,
    /// When the other side is open.
    pub after_line: HookState,
    /// When the switchover was taken back.
    pub aborted: HookState,
}

/// One hook, as far as this process remembers: a daemon that came back runs it again.
#[derive(Clone, Debug, PartialEq)]
pub enum HookState {
    /// There is none.
    None,
    /// It has not run for this switchover.
    NotRun,
    /// It runs.
    Running,
    /// It said yes.
    Succeeded,
    /// It said no, or nothing in time.
    Failed {
        /// Why.
        blocker: Blocker,
        /// Not again before then.
        retry_at: Timestamp,
    },
}
