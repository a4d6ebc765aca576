//! One migration in the daemon: it seeks the lead, runs the engine while it has it, and shows
//! what it knows while it has not.
//!
//! Start, restart, a lost lease and a lost journal all go the same way: take over, raise the
//! epoch on both nodes, load, look.

use std::sync::Arc;
use std::time::Duration;

use pgferry_api as api;
use pgferry_config::{Config, MigrationConfig};
use pgferry_engine::{Engine, LeadershipLost, Turn};
use pgferry_monitor::{MigrationMetrics, NodesReport, Outlets, Watched};
use pgferry_plan::{
    Blocker, Course, Direction, Entry, Facts, Finding, LagReport, Policy, Severity, Side, Step,
    Verb,
};
use pgferry_postgres::PgCluster;
use pgferry_postgres::connect::ConnectError;
use pgferry_postgres::journal::{JournalError, Lead, Leader, Place};
use pgferry_server::{Accepted, Command, MigrationHandle, MigrationState, Refusal, RefusalStatus};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::state::Notes;
use super::view::{self, Sources};

/// How often a daemon without the lead looks whether it may have it.
const SEEK: Duration = Duration::from_millis(300);
/// Between two looks while something is waited for that nobody's writes depend on.
const WAIT: Duration = Duration::from_millis(150);
/// The same while writes are held: a look itself takes about as long.
const WAIT_IN_STALL: Duration = Duration::from_millis(1);
/// How often `autostart` tries again after something stood in the way.
const AUTOSTART: Duration = Duration::from_secs(30);
/// For how long a stop waits until a switchover is back or through.
const FAREWELL: Duration = Duration::from_secs(20);

/// One migration.
pub(super) struct Daemon {
    config: MigrationConfig,
    policy: Policy,
    cluster: PgCluster,
    place: Place,
    holder: Uuid,
    lag: watch::Receiver<LagReport>,
    nodes: watch::Receiver<NodesReport>,
    beat: watch::Sender<Option<i64>>,
    state: watch::Sender<MigrationState>,
    commands: mpsc::Receiver<Command>,
    preflights: JoinSet<(Uuid, Vec<Finding>)>,
    notes: Notes,
    shown: Shown,
    metrics: MigrationMetrics,
    shutdown: CancellationToken,
    next_autostart: Option<tokio::time::Instant>,
    known: Facts,
    /// The side, epoch and time of a fence whose switchover lost its journal before the line.
    stranded: Option<(Side, i64, jiff::Timestamp)>,
    monitor: Option<(Watched, watch::Receiver<Option<i64>>, Outlets)>,
}

/// What was shown last, so that each publication adds only what is new.
#[derive(Default)]
struct Shown {
    events: Arc<Vec<api::Event>>,
    sequences: api::Sequences,
    copy_expected: Option<(u64, Option<u64>)>,
    switchover: Option<Uuid>,
    counted_to: Option<u64>,
}

type PgEngine = Engine<PgCluster, Leader>;

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
        let cluster = PgCluster::new(migration.clone(), place.clone(), lag.clone())?;
        let watched = Watched {
            migration: migration.name.clone(),
            forward_subscription: migration.name.subscription(Direction::Forward),
            reverse_subscription: migration.name.subscription(Direction::Reverse),
            source: cluster.node(Side::Source).connector().clone(),
            destination: cluster.node(Side::Destination).connector().clone(),
            poll_interval: migration.poll_interval,
            heartbeat_interval: migration.heartbeat_interval,
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
                sequences: api::Sequences::default(),
                notes: &notes,
            },
            Arc::default(),
        );
        let (state_tx, state) = watch::channel(first);
        let (commands_tx, commands) = mpsc::channel(16);
        let daemon = Self {
            policy: Policy {
                migration: migration.name.clone(),
                max_lag: migration.cutover.max_lag,
                stall_budget: migration.cutover.stall_budget,
                grace: migration.cutover.grace,
                headroom: migration.sequences.headroom,
            },
            config: migration.clone(),
            cluster,
            place,
            holder: Uuid::new_v4(),
            lag,
            nodes,
            beat,
            state: state_tx,
            commands,
            preflights: JoinSet::new(),
            notes,
            shown: Shown::default(),
            metrics,
            shutdown,
            next_autostart: None,
            known: Facts::default(),
            stranded: None,
            monitor: Some((watched, beats, outlets)),
        };
        let handle = MigrationHandle { name: migration.name.clone(), state, commands: commands_tx };
        Ok((daemon, handle))
    }

    /// Runs until the shutdown.
    pub(super) async fn run(mut self) {
        let stop_monitor = CancellationToken::new();
        let monitor = self.monitor.take().map(|(watched, beats, outlets)| {
            tokio::spawn(pgferry_monitor::run(watched, beats, outlets, stop_monitor.clone()))
        });
        while !self.shutdown.is_cancelled() {
            match self.place.lead(&self.config.name, self.holder, false).await {
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
        if self.config.autostart && self.next_autostart.is_none_or(|at| now >= at) {
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
            self.place.lead(&self.config.name, self.holder, true).await
        };
        match led.await {
            Ok((Lead::Ours(_), Some(leader))) => {
                self.notes.condition = None;
                self.led(leader, Some(reply)).await;
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
        match self.load().await {
            Ok((facts, entries)) => self.show(&facts, &entries, None, Vec::new()),
            Err(error) => tracing::warn!(%error, "could not read the journal"),
        }
        if let Next::Command(command) = self.next_command(SEEK).await {
            answer(Some(command.reply), Err(not_leader()));
        }
    }

    async fn without_journal(&mut self, error: &JournalError) {
        let blocker = journal_blocker(error);
        self.notes.unavailable(&blocker.code, blocker.message.clone());
        self.show_known();
        if let Next::Command(command) = self.next_command(SEEK).await {
            // Before the start there is no journal to ask, and preflight says what is away.
            match command.verb {
                api::Verb::Preflight => self.answer_without_engine(command),
                api::Verb::Start => {
                    self.start(Some(command.reply)).await;
                }
                api::Verb::Verify
                | api::Verb::Cutover
                | api::Verb::Rollback
                | api::Verb::Abort
                | api::Verb::Pause
                | api::Verb::Resume
                | api::Verb::Finish
                | api::Verb::Abandon => {
                    let refusal = Refusal {
                        status: RefusalStatus::Unavailable,
                        code: blocker.code.clone(),
                        detail: blocker.message.clone(),
                        hint: blocker.hint.clone(),
                        blockers: vec![blocker],
                    };
                    answer(Some(command.reply), Err(refusal));
                }
            }
        }
    }

    /// The lead is ours: the epoch goes up on both nodes, then the engine runs.
    async fn led(
        &mut self,
        leader: Leader,
        start: Option<Option<oneshot::Sender<Result<Accepted, Refusal>>>>,
    ) {
        let epoch = leader.epoch();
        let renewal =
            tokio::spawn(Leader::renew(self.place.clone(), self.config.name.clone(), epoch));
        self.lead_until_lost(leader, epoch, start, &renewal).await;
        renewal.abort();
        self.beat.send_replace(None);
        self.cluster.shut_down().await;
    }

    async fn lead_until_lost(
        &mut self,
        leader: Leader,
        epoch: i64,
        start: Option<Option<oneshot::Sender<Result<Accepted, Refusal>>>>,
        renewal: &tokio::task::JoinHandle<LeadershipLost>,
    ) {
        let (facts, entries) = match self.load().await {
            Ok(loaded) => loaded,
            Err(error) => {
                tracing::error!(%error, "could not load the journal");
                self.notes.blocked(vec![journal_blocker(&error)]);
                self.next_command(SEEK).await;
                return leader.release().await;
            }
        };
        for side in Side::BOTH {
            self.cluster.node(side).expect(facts.node_id(side));
        }
        for side in Side::BOTH {
            while let Err(error) = self.cluster.node(side).raise_epoch(epoch).await {
                let (code, hint) = error.code_and_hint();
                let message = format!("the {side}: {error}");
                self.notes.available(true);
                self.notes.blocked(vec![Blocker::new(code, message, hint)]);
                self.show(&facts, &entries, None, Vec::new());
                if renewal.is_finished() || self.shutdown.is_cancelled() {
                    return leader.release().await;
                }
                if let Next::Command(command) = self.next_command(SEEK).await {
                    self.answer_without_engine(command);
                }
            }
        }
        let engine = Engine::take_over(
            self.cluster.clone(),
            leader,
            self.policy.clone(),
            facts,
            entries,
            epoch,
        );
        let mut engine = match engine.await {
            Ok(engine) => engine,
            Err(lost) => return tracing::warn!(%lost, "could not take over"),
        };
        self.notes.available(true);
        self.notes.condition = None;
        self.stranded = None;
        tracing::info!(migration = %self.config.name, epoch, phase = %engine.facts().phase(), "leading");
        let result = self.run_engine(&mut engine, start, renewal).await;
        match result {
            Ok(()) => engine.into_journal().release().await,
            Err(lost) => {
                tracing::warn!(%lost, migration = %self.config.name, "not leading any more");
                self.stranded = stranded(engine.facts(), epoch);
            }
        }
    }

    /// A switchover that lost its journal before the line must not hold writes for longer than it
    /// was allowed to. Seeking the lead again comes first, and usually is in time.
    async fn open_what_is_stranded(&mut self) {
        let Some((side, epoch, fenced_at)) = self.stranded else { return };
        let held = pgferry_plan::facts::milliseconds(fenced_at, jiff::Timestamp::now());
        if held <= self.policy.stall_budget.as_secs_f64() * 1000.0 {
            return;
        }
        match self.cluster.open_without_journal(side, epoch).await {
            Ok(()) => {
                tracing::warn!(%side, held_ms = held, "opened again without the journal");
                self.stranded = None;
            }
            Err(error) => tracing::warn!(%side, error, "could not be opened again yet"),
        }
    }

    async fn run_engine(
        &mut self,
        engine: &mut PgEngine,
        start: Option<Option<oneshot::Sender<Result<Accepted, Refusal>>>>,
        renewal: &tokio::task::JoinHandle<LeadershipLost>,
    ) -> Result<(), LeadershipLost> {
        if let Some(reply) = start {
            self.request(engine, Verb::Start, false, reply).await?;
        }
        let job_ended = self.cluster.job_ended();
        loop {
            if renewal.is_finished() {
                return Err(LeadershipLost("the lease was lost".to_owned()));
            }
            let turn = engine.tick().await?;
            self.show_engine(engine).await;
            let beat = beats(engine.facts()).then_some(engine.facts().epoch);
            self.beat.send_if_modified(|now| std::mem::replace(now, beat) != beat);
            for side in Side::BOTH {
                self.cluster.node(side).expect(engine.facts().node_id(side));
            }
            if turn == Turn::Ended {
                return self.ended(engine).await;
            }
            if self.shutdown.is_cancelled() {
                return self.farewell(engine).await;
            }
            let pause = pause_after(&turn, engine.facts(), self.config.poll_interval);
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => {}
                command = self.commands.recv() => {
                    let Some(command) = command else { return Ok(()) };
                    self.handle(engine, command).await?;
                    self.show_engine(engine).await;
                }
                Some(ended) = self.preflights.join_next() => self.preflight_ended(ended),
                () = job_ended.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn handle(
        &mut self,
        engine: &mut PgEngine,
        command: Command,
    ) -> Result<(), LeadershipLost> {
        let Command { verb, open_passive, dry_run, reply } = command;
        if dry_run {
            let kind = engine.facts().kind();
            let mut blockers = engine.fresh_verdict().await.to_vec();
            if Verb::of_switchover(kind).as_str() != verb.as_str() && blockers.is_empty() {
                blockers.push(pgferry_plan::verdict::not_ready(engine.facts().phase()));
            }
            let asked = if verb == api::Verb::Rollback {
                pgferry_plan::Kind::Rollback
            } else {
                pgferry_plan::Kind::Cutover
            };
            answer(Some(reply), Ok(Accepted::Verdict(api::Verdict::of(asked, blockers))));
            return Ok(());
        }
        let Some(verb) = journaled(verb) else {
            self.answer_without_engine(Command { verb, open_passive, dry_run, reply });
            return Ok(());
        };
        if verb == Verb::Resume {
            self.cluster.forget_failure();
        }
        self.request(engine, verb, open_passive, Some(reply)).await
    }

    async fn request(
        &mut self,
        engine: &mut PgEngine,
        verb: Verb,
        open_passive: bool,
        reply: Option<oneshot::Sender<Result<Accepted, Refusal>>>,
    ) -> Result<(), LeadershipLost> {
        let result = match engine.request(verb, open_passive).await? {
            Ok(id) => {
                tracing::info!(migration = %self.config.name, verb = verb.as_str(), %id, "accepted");
                let facts = engine.facts();
                let accepted = facts.operations.iter().find(|operation| operation.id == id);
                accepted
                    .map(|operation| {
                        Accepted::Operation(view::operation_view(&self.config.name, operation, facts))
                    })
                    .ok_or_else(not_leader)
            }
            Err(refusal) => {
                let mut refused = conflict(refusal.blockers);
                refused.code = refusal.reason.code;
                refused.detail = refusal.reason.message;
                refused.hint = refusal.reason.hint;
                Err(refused)
            }
        };
        // The state that a client asks for next must know what it was just told.
        self.show_engine(engine).await;
        answer(reply, result);
        Ok(())
    }

    /// Everything is taken away; the daemon goes on answering that.
    async fn ended(&mut self, engine: &mut PgEngine) -> Result<(), LeadershipLost> {
        self.beat.send_replace(None);
        self.show_engine(engine).await;
        while !self.shutdown.is_cancelled() {
            match self.next_command(Duration::from_secs(3600)).await {
                Next::Command(command) => self.handle(engine, command).await?,
                Next::Nothing => {}
            }
            self.show_engine(engine).await;
        }
        Ok(())
    }

    /// A stop in the middle of a switchover first brings it to one open side.
    async fn farewell(&mut self, engine: &mut PgEngine) -> Result<(), LeadershipLost> {
        let deadline = tokio::time::Instant::now() + FAREWELL;
        if engine.facts().switchover().is_some_and(|s| s.unwinding.is_none()) {
            // Refused behind the line, where the only way is forward.
            if engine.request(Verb::Abort, false).await?.is_ok() {
                tracing::info!("taking the switchover back before stopping");
            }
        }
        while engine.facts().switchover().is_some() && tokio::time::Instant::now() < deadline {
            let turn = engine.tick().await?;
            self.show_engine(engine).await;
            tokio::time::sleep(pause_after(&turn, engine.facts(), WAIT)).await;
        }
        Ok(())
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
            api::Verb::Verify => Err(conflict(vec![Blocker::new(
                "not_built",
                "verification is not built yet",
                "compare the sides with a tool of your own",
            )])),
            _ if command.dry_run => {
                let blockers = vec![pgferry_plan::verdict::not_ready(pgferry_plan::Phase::Planned)];
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

    async fn show_engine(&mut self, engine: &PgEngine) {
        if let Some(sequences) = view::sequences_view(engine.facts(), engine.world()) {
            self.shown.sequences = sequences;
        }
        if engine.facts().step() == Some(Step::CopyRows) && self.shown.copy_expected.is_none() {
            self.shown.copy_expected = self.cluster.copy_expected().await;
            self.metrics.set_copy_expected(self.shown.copy_expected.and_then(|(_, bytes)| bytes));
        }
        let verdict = match engine.facts().course {
            Course::AtRest => engine.verdict().to_vec(),
            Course::Planned
            | Course::SetUp(_)
            | Course::Switchover(_)
            | Course::End { .. }
            | Course::Ended(_) => {
                vec![pgferry_plan::verdict::not_ready(engine.facts().phase())]
            }
        };
        self.show(engine.facts(), engine.entries(), engine.condition(), verdict);
    }

    fn show(
        &mut self,
        facts: &Facts,
        entries: &[Entry],
        condition: Option<&pgferry_engine::Condition>,
        verdict: Vec<Blocker>,
    ) {
        let known = self.shown.events.len();
        if entries.len() != known {
            let mut events = Vec::clone(&self.shown.events);
            events.truncate(entries.len());
            events.extend(entries[events.len()..].iter().map(view::event));
            self.shown.events = Arc::new(events);
        }
        if self.known != *facts {
            self.known = facts.clone();
        }
        self.publish(condition, verdict);
        self.measure(facts, entries, condition);
    }

    /// Shows what is known already, with what changed around it.
    fn show_known(&mut self) {
        self.publish(None, vec![pgferry_plan::verdict::not_ready(self.known.phase())]);
    }

    fn publish(&self, condition: Option<&pgferry_engine::Condition>, verdict: Vec<Blocker>) {
        let facts = &self.known;
        let verdict = match facts.course {
            Course::Planned => vec![pgferry_plan::verdict::not_ready(facts.phase())],
            Course::SetUp(_)
            | Course::AtRest
            | Course::Switchover(_)
            | Course::End { .. }
            | Course::Ended(_) => verdict,
        };
        let copy = self.copy_so_far(facts);
        let state = view::state(
            &Sources {
                name: &self.config.name,
                facts,
                condition,
                verdict,
                lag: &self.lag.borrow(),
                nodes: &self.nodes.borrow(),
                copy,
                sequences: self.shown.sequences,
                notes: &self.notes,
            },
            Arc::clone(&self.shown.events),
        );
        self.state.send_replace(state);
    }

    fn copy_so_far(&self, facts: &Facts) -> Option<api::Copy> {
        let (tables, bytes_expected) = self.shown.copy_expected?;
        let progress = self.cluster.copy_progress();
        let began = facts.copy_began_at?;
        Some(api::Copy {
            tables_total: Some(tables),
            tables_done: Some(progress.tables_done()),
            rows: Some(progress.rows()),
            bytes: Some(progress.bytes()),
            bytes_expected,
            seconds: Some(pgferry_plan::facts::milliseconds(began, jiff::Timestamp::now()) / 1000.0),
        })
    }

    fn measure(
        &mut self,
        facts: &Facts,
        entries: &[Entry],
        condition: Option<&pgferry_engine::Condition>,
    ) {
        let all = pgferry_plan::Phase::ALL.map(pgferry_plan::Phase::as_str);
        self.metrics.set_phase(facts.phase().as_str(), &all);
        let condition = condition.or(self.notes.condition.as_ref());
        self.metrics
            .set_blocked(condition.is_some_and(|c| c.kind == pgferry_engine::ConditionKind::Blocked));
        self.metrics.set_leader(self.notes.leader);
        self.metrics.set_epoch(facts.epoch);
        match &facts.copied {
            Some(pgferry_plan::Evidence::Copied { rows, bytes, .. }) => {
                self.metrics.set_copied(*rows, *bytes);
                self.metrics.set_copy_expected(Some(*bytes));
            }
            Some(_) | None => {
                let progress = self.cluster.copy_progress();
                self.metrics.set_copied(progress.rows(), progress.bytes());
            }
        }
        self.count_steps(entries);
        if let Some(report) = &facts.last_switchover
            && self.shown.switchover != Some(report.operation)
        {
            // What ended before this process began was counted by the one before it.
            if self.shown.counted_to.is_some() {
                let stall = report.write_stall_ms.map(|ms| Duration::from_secs_f64(ms / 1000.0));
                self.metrics.observe_switchover(report.kind, report.outcome.as_str(), stall);
            }
            self.shown.switchover = Some(report.operation);
        }
        self.shown.counted_to = Some(entries.last().map_or(0, |entry| entry.seq));
    }

    fn count_steps(&self, entries: &[Entry]) {
        use pgferry_plan::Event;
        let Some(counted_to) = self.shown.counted_to else { return };
        let mut began = None;
        for entry in entries {
            if let Event::Completed { step, .. } = &entry.event
                && entry.seq > counted_to
                && let Some(began) = began
            {
                let ms = pgferry_plan::facts::milliseconds(began, entry.at);
                self.metrics.observe_step(step.as_str(), Duration::from_secs_f64(ms / 1000.0));
            }
            match entry.event {
                Event::Completed { .. } | Event::Requested { .. } | Event::TookOver => {
                    began = Some(entry.at);
                }
                Event::Intended { .. }
                | Event::Unwinding { .. }
                | Event::Undone { .. }
                | Event::LineCrossed
                | Event::OperationEnded { .. } => {}
            }
        }
    }
}

/// Whether both nodes have a heartbeat to write: from their installation to their removal.
fn beats(facts: &Facts) -> bool {
    match facts.course {
        Course::Planned | Course::Ended(_) => false,
        Course::SetUp(step) => step > Step::InstallPglogical,
        Course::AtRest | Course::Switchover(_) => true,
        // Abandoned in the middle of the installation, there may be none.
        Course::End { step, verb, .. } => verb == Verb::Finish && step == Step::DrainBoth,
    }
}

/// The fence that would be left behind if nobody led from here on.
fn stranded(facts: &Facts, epoch: i64) -> Option<(Side, i64, jiff::Timestamp)> {
    let switchover = facts.switchover().filter(|switchover| switchover.step.before_line())?;
    Some((switchover.kind.from(), epoch, switchover.fenced_at?))
}

enum Next {
    Command(Command),
    Nothing,
}

fn pause_after(turn: &Turn, facts: &Facts, poll: Duration) -> Duration {
    match turn {
        Turn::Progressed => Duration::ZERO,
        Turn::Waiting if facts.switchover().is_some() => WAIT_IN_STALL,
        Turn::Waiting => WAIT.min(poll),
        Turn::AtRest | Turn::Ended => poll,
    }
}

/// Facts of a migration that was started, for a preflight while no engine is at hand.
fn started() -> Facts {
    Facts { course: Course::AtRest, ..Facts::default() }
}

/// The engine's verb; None for those that need no journal.
fn journaled(verb: api::Verb) -> Option<Verb> {
    match verb {
        api::Verb::Preflight | api::Verb::Verify => None,
        api::Verb::Start => Some(Verb::Start),
        api::Verb::Cutover => Some(Verb::Cutover),
        api::Verb::Rollback => Some(Verb::Rollback),
        api::Verb::Abort => Some(Verb::Abort),
        api::Verb::Pause => Some(Verb::Pause),
        api::Verb::Resume => Some(Verb::Resume),
        api::Verb::Finish => Some(Verb::Finish),
        api::Verb::Abandon => Some(Verb::Abandon),
    }
}

fn answer(
    reply: Option<oneshot::Sender<Result<Accepted, Refusal>>>,
    result: Result<Accepted, Refusal>,
) {
    if let Some(reply) = reply {
        // Whoever asked may have gone; the operation goes on all the same.
        let _ = reply.send(result);
    }
}

fn conflict(blockers: Vec<Blocker>) -> Refusal {
    let first = blockers.first();
    let text = |part: fn(&Blocker) -> &String| first.map(part).cloned().unwrap_or_default();
    Refusal {
        status: RefusalStatus::Conflict,
        code: text(|blocker| &blocker.code),
        detail: text(|blocker| &blocker.message),
        hint: text(|blocker| &blocker.hint),
        blockers,
    }
}

fn not_leader() -> Refusal {
    Refusal {
        status: RefusalStatus::Unavailable,
        code: "not_leader".to_owned(),
        detail: "another daemon leads this migration".to_owned(),
        hint: "ask the daemon that leads".to_owned(),
        blockers: Vec::new(),
    }
}

fn refused_before_start(verb: api::Verb) -> Refusal {
    conflict(vec![Blocker::new(
        "not_ready",
        format!("{verb} needs a migration that was started"),
        "run `pgferry start` first",
    )])
}

fn journal_blocker(error: &JournalError) -> Blocker {
    let (code, hint) = match error {
        JournalError::Connect(connect) => ("journal_unreachable", connect.hint()),
        JournalError::Statement(_) => ("journal_failed", "look into the log of its server"),
        JournalError::Migrate(_) => (
            "journal_failed",
            "give the role CREATE on the database, or name another place under [journal]",
        ),
        JournalError::Illegal(_) | JournalError::NotUnderstood { .. } => {
            ("journal_illegal", "run the pgferry that wrote it, or a newer one")
        }
        JournalError::NotLeader => ("not_leader", "ask the daemon that leads"),
        JournalError::Archive { .. } => ("journal_failed", "make journal.archive_dir writable"),
    };
    Blocker::new(code, error.to_string(), hint)
}
