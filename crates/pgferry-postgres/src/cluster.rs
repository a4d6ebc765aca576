//! Both servers of one migration, as the engine's port [`Cluster`].
//!
//! Holds connections and the background job; decides nothing.

mod without_journal;

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use deadpool_postgres::Object;
use jiff::Timestamp;
use pgferry_config::{FenceMethod, MigrationConfig, NodeConfig, Secret};
use pgferry_engine::{Cluster, Fault};
use pgferry_plan::decide::stall_left;
use pgferry_plan::preflight::{self, PreflightPolicy, Progress};
use pgferry_plan::scope::{ScopeRules, SetNames};
use pgferry_plan::{
    Action, Blocker, Course, Facts, Finding, LagReport, RoleName, Seen, Side, Step, World,
};
use tokio::sync::{Notify, watch};

use crate::connect::ConnectError;
use crate::copy::CopyProgress;
use crate::jobs::Jobs;
use crate::node::{LookError, Node};
use crate::observe::fence::StartupWatch;
use crate::observe::known_roles::KnownRoles;
use crate::observe::tables::Undrifted;
use crate::preflight::observe;
use crate::verify::Verifier;

/// Both servers of one migration. Clones share everything.
#[derive(Clone)]
pub struct PgCluster(Arc<Inner>);

/// What a cluster consists of.
pub struct Inner {
    pub(crate) config: MigrationConfig,
    pub(crate) rules: ScopeRules,
    pub(crate) sets: SetNames,
    nodes: [Node; 2],
    watches: [StartupWatch; 2],
    pub(crate) lag: watch::Receiver<LagReport>,
    pub(crate) jobs: Jobs,
    progress: CopyProgress,
    pub(crate) verifier: Verifier,
    /// Present when the last full comparison found nothing drifted.
    pub(crate) undrifted: Mutex<Option<Undrifted>>,
    /// The roles that the verdict of the running switchover found.
    pub(crate) known_roles: Mutex<Option<KnownRoles>>,
    /// The side whose database holds the journal; None when it is in a third place.
    pub(crate) journal_side: Option<Side>,
    pub(crate) journal: crate::journal::Place,
    pub(crate) archived: AtomicBool,
    /// When a stream was woken without an engine.
    woken: Mutex<Option<Instant>>,
}

impl std::ops::Deref for PgCluster {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl PgCluster {
    /// Prepares both servers' connections; does not connect.
    ///
    /// # Errors
    /// When a login cannot be used at all.
    pub fn new(
        config: MigrationConfig,
        journal: crate::journal::Place,
        lag: watch::Receiver<LagReport>,
    ) -> Result<Self, ConnectError> {
        let nodes = [
            Node::new(&config.name, Side::Source, config.node(Side::Source))?,
            Node::new(&config.name, Side::Destination, config.node(Side::Destination))?,
        ];
        let rules = ScopeRules {
            schemas: config.scope.schemas.clone(),
            exclude_tables: config.scope.exclude_tables.clone(),
            insert_only: config.scope.insert_only.iter().cloned().collect(),
        };
        Ok(Self(Arc::new(Inner {
            sets: SetNames::of(&config.name),
            rules,
            nodes,
            watches: Default::default(),
            lag,
            jobs: Jobs::default(),
            progress: CopyProgress::default(),
            verifier: Verifier::default(),
            undrifted: Mutex::default(),
            known_roles: Mutex::default(),
            journal_side: journal.side(),
            journal,
            archived: AtomicBool::new(false),
            woken: Mutex::default(),
            config,
        })))
    }

    /// What stands in the way of a migration, looked at afresh; writes nothing.
    pub async fn preflight(&self, facts: &Facts) -> Vec<Finding> {
        let started = facts.course != Course::Planned;
        let beyond =
            |step| facts.step().is_some_and(|at| at > step) || facts.step().is_none() && started;
        let progress = Progress {
            started,
            nodes: beyond(Step::FenceDestination),
            schema: beyond(Step::CheckPeers),
        };
        let policy = PreflightPolicy {
            migration: self.config.name.clone(),
            scope: self.rules.clone(),
            existing_schema: self.takes_existing_schema(),
            native_copy: self.copies_by_pglogical(),
            fence_roles: self.config.fence.roles.clone(),
            locks_out: self.locks_out(),
            fence_exclusions: self.config.fence.exclude_roles.clone(),
            max_retained_wal: self.config.copy.max_retained_wal,
            progress,
        };
        let (source, destination) =
            tokio::join!(self.node(Side::Source).client(), self.node(Side::Destination).client());
        let ours = self.our_roles();
        // Boxed, here and below: the futures of many looks side by side outgrow a thread's stack.
        let facts = Box::pin(observe(reached(&source), reached(&destination), &policy, &ours));
        let mut facts = facts.await;
        if policy.existing_schema && !progress.schema {
            facts.existing = Seen::from_look(Box::pin(self.existing()).await);
        }
        if policy.native_copy && !progress.schema {
            facts.native = Seen::from_look(self.native_copy_facts().await);
        }
        preflight::check(&facts)
    }
}

impl Inner {
    /// A side's server.
    pub fn node(&self, side: Side) -> &Node {
        &self.nodes[side as usize]
    }

    /// Told when the background job ends.
    pub fn job_ended(&self) -> Arc<Notify> {
        Arc::clone(&self.jobs.ended)
    }

    /// Rows, bytes and tables of the copy so far, committed or not.
    pub fn copy_progress(&self) -> CopyProgress {
        self.progress.clone()
    }

    /// Lets what failed be tried again at once, because a person said so.
    pub fn forget_failure(&self) {
        self.jobs.forget_failure();
    }

    /// Ends the background job. The snapshot of a copy stays, for whoever leads next.
    pub async fn shut_down(&self) {
        self.jobs.stop().await;
        self.stop_verification().await;
    }

    /// After a deadline that ran out, and when the lead is lost: what comes next goes over fresh
    /// connections.
    pub fn forget_connections(&self) {
        for node in &self.nodes {
            node.forget_connections();
        }
    }

    /// While writes are held before the line nothing is waited for longer than they may be.
    fn within_budget(&self, facts: &Facts, limit: Duration) -> Duration {
        let budget = self.config.cutover.stall_budget;
        match stall_left(facts, Timestamp::now(), budget) {
            Some(left) => limit.min(left + BEYOND_BUDGET),
            None => limit,
        }
    }

    pub(crate) fn watch(&self, side: Side) -> &StartupWatch {
        &self.watches[side as usize]
    }

    /// Whether the fence takes the roles' LOGIN away too.
    pub(crate) fn locks_out(&self) -> bool {
        match self.config.fence.method {
            FenceMethod::ReadOnly => false,
            FenceMethod::NoLogin => true,
        }
    }

    /// Roles that are never fenced: the daemon's and replication's.
    pub(crate) fn our_roles(&self) -> Vec<RoleName> {
        let mut roles: Vec<RoleName> = Side::BOTH
            .into_iter()
            .flat_map(|side| {
                let node = self.config.node(side);
                [&node.login, &node.peer, &node.own].map(|login| login.dsn.user().to_owned())
            })
            .collect();
        roles.sort();
        roles.dedup();
        roles
    }

    /// How the other server reaches a side: for pglogical only, password included.
    pub(crate) fn peer_conninfo(&self, side: Side) -> Secret {
        replication_conninfo(&self.config.node(side).peer)
    }

    /// How a side's server reaches itself.
    pub(crate) fn own_conninfo(&self, side: Side) -> Secret {
        let node: &NodeConfig = self.config.node(side);
        replication_conninfo(&node.own)
    }
}

fn reached(client: &Result<Object, LookError>) -> Result<&tokio_postgres::Client, String> {
    client.as_ref().map(|client| &***client).map_err(ToString::to_string)
}

/// pglogical's own sessions must not be cut off, or fenced, by a default of role or database. The
/// text is the same at each call: pglogical compares it with the one it has stored.
fn replication_conninfo(login: &pgferry_config::Login) -> Secret {
    const OPTIONS: &str = "-c statement_timeout=0 -c lock_timeout=0 \
        -c idle_in_transaction_session_timeout=0 -c default_transaction_read_only=off \
        -c wal_sender_timeout=600000";
    let own = login.dsn.options().unwrap_or_default();
    let options = format!("{OPTIONS} {own}");
    login.dsn.with("options", options.trim_end()).to_conninfo(login.password.as_ref())
}

/// A server that hangs must not hang the loop: what is not seen in time is not seen. While writes
/// are held it is given less, so that the stall budget can be kept.
/// Whoever is to be declared lost gets longer to answer than a look within a stall.
const RECORDS_TIME: Duration = Duration::from_secs(6);
const LOOK_TIME: Duration = Duration::from_secs(20);
const LOOK_TIME_IN_STALL: Duration = Duration::from_secs(7);
/// pglogical itself waits 30 seconds for each of its connections; two directions, three each.
const LOOK_TIME_AT_PEERS: Duration = Duration::from_secs(200);
const ACTION_TIME: Duration = Duration::from_secs(120);
const ACTION_TIME_IN_STALL: Duration = Duration::from_secs(3);
/// What is under way when the stall budget is used up is not given up for a few milliseconds: the
/// connections would be thrown away, and opening the side again would begin with new ones.
const BEYOND_BUDGET: Duration = Duration::from_millis(50);

impl Cluster for PgCluster {
    async fn observe_records(&self) -> World {
        let [source, destination] = self.records_within(RECORDS_TIME).await;
        let mut world = World { now: Timestamp::now(), ..World::default() };
        world.source.record = source;
        world.destination.record = destination;
        world.lag = Seen::Present(self.lag());
        world
    }

    async fn observe(&self, facts: &Facts) -> World {
        let limit = match facts.step() {
            Some(Step::CheckPeers) => LOOK_TIME_AT_PEERS,
            Some(_) if holds_writes(facts) => self.within_budget(facts, LOOK_TIME_IN_STALL),
            Some(_) | None => LOOK_TIME,
        };
        match tokio::time::timeout(limit, Box::pin(self.look(facts))).await {
            Ok(world) => world,
            Err(_) => {
                self.forget_connections();
                World { now: Timestamp::now(), ..World::default() }
            }
        }
    }

    async fn apply(&self, action: &Action, facts: &Facts) -> Result<(), Fault> {
        let limit = if holds_writes(facts) {
            self.within_budget(facts, ACTION_TIME_IN_STALL)
        } else {
            ACTION_TIME
        };
        match tokio::time::timeout(limit, Box::pin(self.carry_out(action, facts))).await {
            Ok(result) => result,
            Err(_) => {
                self.forget_connections();
                Err(Fault::Failed(Blocker::new(
                    "no_answer",
                    format!("no answer within {} ms", limit.as_millis()),
                    "it looks again: what was done is seen, what was not is done again",
                )))
            }
        }
    }
}

fn holds_writes(facts: &Facts) -> bool {
    facts.switchover().is_some_and(|switchover| switchover.fenced_at.is_some())
}
