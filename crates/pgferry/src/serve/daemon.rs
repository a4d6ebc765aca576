//! One migration in the daemon: it seeks the lead, runs the engine while it has it, and shows
//! what it knows while it has not.
//!
//! Start, restart, a lost lease and a lost journal all go the same way: take over, raise the
//! epoch on both nodes, load, look.

mod answers;
mod forced;
mod lead;
mod show;
mod without_journal;

use std::sync::Arc;
use std::time::Duration;

use pgferry_api as api;
use pgferry_config::{Config, MigrationConfig};
use pgferry_monitor::{MigrationMetrics, NodesReport, Outlets, Watched};
use pgferry_plan::decide::{LeftFenced, Stranded};
use pgferry_plan::{
    Blocker, Course, Direction, Entry, Facts, Finding, LagReport, Order, Policy, Severity, Side,
    Verb,
};
use pgferry_postgres::PgCluster;
use pgferry_postgres::connect::ConnectError;
use pgferry_postgres::journal::{JournalError, Lead, Place};
use pgferry_server::{Accepted, Command, MigrationHandle, MigrationState, Refusal, RefusalStatus};
use pgferry_traffic::MigrationTraffic;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::answers::{answer, conflict, journal_blocker, not_leader, refused_before_start};
use self::show::Differences;
use super::copy::LiveCopy;
use super::state::Notes;
use super::view::{self, Sources, Standing};

/// How often a daemon without the lead looks whether it may have it.
const SEEK: Duration = Duration::from_millis(300);

/// How often `autostart` tries again after something stood in the way.
const AUTOSTART: Duration = Duration::from_secs(30);

/// The epoch of a journal that `start` makes.
const FIRST_EPOCH: i64 = 1;

/// One migration.
pub(super) struct Daemon {
    config: MigrationConfig,
    policy: Policy,
    cluster: PgCluster,
    traffic: MigrationTraffic<PgCluster>,
    place: Place,
    holder: Uuid,
    lag: watch::Receiver<LagReport>,
    nodes: watch::Receiver<NodesReport>,
    beat: watch::Sender<Option<i64>>,
    /// Asks the monitor not to wait for its next interval.
    look_sooner: Arc<Notify>,
    state: watch::Sender<MigrationState>,
    commands: mpsc::Receiver<Command>,
    preflights: JoinSet<(Uuid, Vec<Finding>)>,
    notes: Notes,
    shown: Shown,
    copy: Arc<LiveCopy>,
    metrics: MigrationMetrics,
    shutdown: CancellationToken,
    next_autostart: Option<tokio::time::Instant>,
    known: Facts,
    /// What a switchover that lost its journal has left to do, and under which epoch.
    stranded: Option<(Stranded, i64)>,
    /// A side that both records call left fenced, and since when it is seen so.
    left_fenced: Option<(LeftFenced, tokio::time::Instant)>,
    monitor: Option<(Watched, watch::Receiver<Option<i64>>, Outlets)>,
}

/// What [`PgCluster::copy_expected`] finds.
type CopyExpected = (u64, Option<u64>);

/// What was shown last, so that each publication adds only what is new.
#[derive(Default)]
struct Shown {
    events: Arc<Vec<api::Event>>,
    sequences: api::Sequences,
    /// The verification as the engine last saw it; none while no engine runs.
    verification: Option<Standing>,
    /// Tables to copy and the bytes of their files; looked up once, beside the loop.
    copy_expected: Option<CopyExpected>,
    copy_expecting: JoinSet<Option<CopyExpected>>,
    switchover: Option<Uuid>,
    counted_to: Option<u64>,
}

impl Daemon {
    /// Prepares a migration; connects to nothing yet.
    pub(super) fn build(
        config: &Config,
        migration: &MigrationConfig,
        metrics: MigrationMetrics,
        shutdown: CancellationToken,
    ) -> Result<(Self, MigrationHandle), ConnectError> {
        let place = Place::new(config, migration)?;
        let (lag_tx, lag) = watch::channel(LagReport::default());
        let (nodes_tx, nodes) = watch::channel(NodesReport::default());
        let (beat, beats) = watch::channel(None);
        let look_sooner = Arc::new(Notify::new());
        let cluster = PgCluster::new(migration.clone(), place.clone(), lag.clone())?;
        let traffic = MigrationTraffic::new(migration, cluster.clone())?;
        let watched = Watched {
            migration: migration.name.clone(),
            forward_subscription: migration.name.subscription(Direction::Forward),
            reverse_subscription: migration.name.subscription(Direction::Reverse),
            source: cluster.node(Side::Source).connector().clone(),
            destination: cluster.node(Side::Destination).connector().clone(),
            poll_interval: migration.poll_interval,
            heartbeat_interval: migration.heartbeat_interval,
            look_sooner: Arc::clone(&look_sooner),
        };
        let outlets = Outlets { lag: lag_tx, nodes: nodes_tx, metrics: metrics.clone() };
        let notes = Notes::default();
        let first = view::state(
            &Sources {
                name: &migration.name,
                facts: &Facts::default(),
                condition: None,
                verdict: Vec::new(),
                lag: &LagReport::default(),
                nodes: &NodesReport::default(),
                copy: None,
                verification: None,
                sequences: api::Sequences::default(),
                notes: &notes,
            },
            Arc::default(),
        );
        let (state_tx, state) = watch::channel(first);
        let (commands_tx, commands) = mpsc::channel(16);
        let copy = Arc::new(LiveCopy::new(cluster.copy_progress()));
        let figures = Arc::clone(&copy);
        let daemon = Self {
            policy: Policy {
                migration: migration.name.clone(),
                max_lag: migration.cutover.max_lag,
                stall_budget: migration.cutover.stall_budget,
                grace: migration.cutover.grace,
                headroom: migration.sequences.headroom,
                max_retained_wal: migration.copy.max_retained_wal,
                native_copy: cluster.copies_by_pglogical(),
                traffic: MigrationTraffic::<PgCluster>::policy(migration),
                require_verification: migration.cutover.require_verification,
                verification_max_age: migration.cutover.verification_max_age,
                background_pause: migration.verify.background.map(|background| background.pause),
            },
            config: migration.clone(),
            cluster,
            traffic,
            place,
            holder: Uuid::new_v4(),
            lag,
            nodes,
            beat,
            look_sooner,
            state: state_tx,
            commands,
            preflights: JoinSet::new(),
            notes,
            shown: Shown::default(),
            copy,
            metrics,
            shutdown,
            next_autostart: None,
            known: Facts::default(),
            stranded: None,
            left_fenced: None,
            monitor: Some((watched, beats, outlets)),
        };
        let handle = MigrationHandle {
            name: migration.name.clone(),
            state,
            copy: figures,
            differences: Arc::new(Differences::of(&daemon.cluster)),
            commands: commands_tx,
        };
        Ok((daemon, handle))
    }

    /// Runs until the shutdown.
    pub(super) async fn run(mut self) {
        let stop_monitor = CancellationToken::new();
        let monitor = self.monitor.take().map(|(watched, beats, outlets)| {
            tokio::spawn(pgferry_monitor::run(watched, beats, outlets, stop_monitor.clone()))
        });
        while !self.shutdown.is_cancelled() {
            match self.seek().await {
                Ok((Lead::NotStarted, _)) => self.planned().await,
                Ok((Lead::Ours(_), Some(leader))) => self.led(leader, None).await,
                Ok((Lead::Other | Lead::Ours(_), _)) => self.stand_by().await,
                Err(error) => self.without_journal(&error).await,
            }
            self.open_what_is_stranded().await;
        }
        stop_monitor.cancel();
        if let Some(monitor) = monitor
            && monitor.await.is_err()
        {
            tracing::error!(migration = %self.config.name, "the monitor died");
        }
    }

    /// Nothing was started, here or by another daemon.
    async fn planned(&mut self) {
        self.notes.available(true);
        self.show(&Facts::default(), &[], None, Vec::new());
        let now = tokio::time::Instant::now();
        // What a person has ended is not begun again by a restart.
        if self.config.autostart
            && self.next_autostart.is_none_or(|at| now >= at)
            && !self.place.has_archive(&self.config.name)
        {
            self.next_autostart = Some(now + AUTOSTART);
            if self.start(None).await {
                return;
            }
        }
        // Another daemon may start it meanwhile: after a while the journal is asked again.
        match self.next_command(SEEK).await {
            Next::Command(command) if command.verb == api::Verb::Start => {
                self.start(Some(command.reply)).await;
            }
            Next::Command(command) if command.force => self.take_up(command).await,
            Next::Command(command) => self.answer_without_engine(command),
            Next::Nothing => {}
        }
    }

    /// Looks first, and creates the journal only when nothing stands in the way.
    async fn start(&mut self, reply: Option<oneshot::Sender<Result<Accepted, Refusal>>>) -> bool {
        let findings = self.cluster.preflight(&Facts::default()).await;
        let blockers: Vec<Blocker> = findings
            .iter()
            .filter(|finding| finding.severity == Severity::Block)
            .map(Blocker::from)
            .collect();
        self.notes.findings = Some(findings);
        if !blockers.is_empty() {
            self.notes.blocked(blockers.clone());
            self.show(&Facts::default(), &[], None, Vec::new());
            answer(reply, Err(conflict(blockers)));
            return false;
        }
        let led = async {
            self.place.create().await?;
            self.place.lead(&self.config.name, self.holder, Some(FIRST_EPOCH)).await
        };
        match led.await {
            Ok((Lead::Ours(_), Some(leader))) => {
                self.notes.condition = None;
                self.led(leader, Some(First::order(Verb::Start.into(), reply))).await;
                true
            }
            Ok(_) => {
                answer(reply, Err(not_leader()));
                false
            }
            Err(error) => {
                let blocker = journal_blocker(&error);
                self.notes.blocked(vec![blocker.clone()]);
                answer(reply, Err(conflict(vec![blocker])));
                false
            }
        }
    }

    /// Another daemon leads: shows what the journal says, and changes nothing.
    async fn stand_by(&mut self) {
        self.notes.unavailable("not_leader", "another daemon leads this migration");
        // What is fenced is the leader's to open.
        self.stranded = None;
        self.left_fenced = None;
        self.cluster.forget_connections();
        match self.load().await {
            Ok((facts, entries)) => {
                let blind = Blocker::new(
                    "not_leader",
                    "another daemon leads this migration, and this one has not looked",
                    "ask the daemon that leads",
                );
                self.show(&facts, &entries, None, vec![blind]);
            }
            Err(error) => {
                tracing::warn!(%error, "could not read the journal");
                self.show_known(journal_blocker(&error));
            }
        }
        if let Next::Command(command) = self.next_command(SEEK).await {
            answer(Some(command.reply), Err(not_leader()));
        }
    }

    /// Commands that need no engine, or cannot have one now.
    fn answer_without_engine(&mut self, command: Command) {
        let result = match command.verb {
            api::Verb::Preflight => {
                let operation = self.notes.preflight_began(&self.config.name);
                let (cluster, id) = (self.cluster.clone(), operation.id);
                let facts = if self.shown.events.is_empty() { Facts::default() } else { started() };
                self.preflights.spawn(async move { (id, cluster.preflight(&facts).await) });
                self.state.send_modify(|state| state.operations.push(operation.clone()));
                Ok(Accepted::Operation(operation))
            }
            _ if command.dry_run => {
                let blockers = match &self.notes.condition {
                    Some(condition) => condition.all.clone(),
                    None => vec![pgferry_plan::verdict::not_ready(self.known.phase())],
                };
                let kind = if command.verb == api::Verb::Rollback {
                    pgferry_plan::Kind::Rollback
                } else {
                    pgferry_plan::Kind::Cutover
                };
                Ok(Accepted::Verdict(api::Verdict::of(kind, blockers)))
            }
            verb => match self.notes.condition.clone().filter(|_| !self.shown.events.is_empty()) {
                Some(condition) => {
                    let mut refusal = conflict(condition.all);
                    refusal.status = RefusalStatus::Unavailable;
                    Err(refusal)
                }
                None => Err(refused_before_start(verb)),
            },
        };
        answer(Some(command.reply), result);
    }

    /// Waits for a command; a preflight that ends meanwhile is taken in.
    async fn next_command(&mut self, limit: Duration) -> Next {
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => Next::Nothing,
            command = self.commands.recv() => command.map_or(Next::Nothing, Next::Command),
            Some(ended) = self.preflights.join_next() => {
                self.preflight_ended(ended);
                Next::Nothing
            }
            () = tokio::time::sleep(limit) => Next::Nothing,
        }
    }

    fn preflight_ended(&mut self, ended: Result<(Uuid, Vec<Finding>), tokio::task::JoinError>) {
        if let Ok((id, findings)) = ended {
            self.notes.preflight_ended(id, findings.clone());
            let operations = &self.notes.operations;
            self.state.send_modify(|state| {
                state.findings = Some(findings);
                for operation in &mut state.operations {
                    if let Some(known) = operations.iter().find(|known| known.id == operation.id) {
                        operation.clone_from(known);
                    }
                }
            });
        }
    }

    async fn load(&self) -> Result<(Facts, Vec<Entry>), JournalError> {
        let entries = self.place.load(&self.config.name).await?.unwrap_or_default();
        Ok((Facts::replay(&entries)?, entries))
    }
}

/// What a leadership begins with.
struct First {
    order: Order,
    /// The journal is new, and takes a migration up from the surviving side's record: the lost side,
    /// and that record's id.
    adopts: Option<(Side, Uuid)>,
    /// The epoch of the lease that is made for it, where there is none.
    lease: Option<i64>,
    reply: Option<Reply>,
}

impl First {
    fn order(order: Order, reply: Option<Reply>) -> Self {
        Self { order, adopts: None, lease: None, reply }
    }
}

type Reply = oneshot::Sender<Result<Accepted, Refusal>>;

enum Next {
    Command(Command),
    Nothing,
}

/// Facts of a migration that was started, for a preflight while no engine is at hand.
fn started() -> Facts {
    Facts { course: Course::AtRest, ..Facts::default() }
}
