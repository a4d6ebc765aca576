//! One PgBouncer: looked at over a console that stays open, and brought to a goal in the background.
//!
//! A goal is pursued on consoles of its own, because a PAUSE holds its console until the last
//! transaction has ended. Dropping that console does not take the PAUSE back (seen in 1.18); only
//! RESUME does, or a restart, which forgets it.

mod console;
mod include_file;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use pgferry_config::{PgbouncerConfig, Rewrite};
use pgferry_engine::Fault;
use pgferry_plan::traffic::{PoolerState, PoolerView, TrafficFailure, TrafficGoal};
use pgferry_plan::{Blocker, MigrationName, Seen, Side};
use pgferry_postgres::connect::{ConnectError, Connector};
use tokio::task::JoinHandle;
use uuid::Uuid;

use self::console::{AdminConsole, Entry};
use self::include_file::Prepared;
use crate::leadership::Leadership;
use crate::process::{self, Order};

/// Less than a look within the stall is given.
const LOOK_TIME: Duration = Duration::from_secs(1);

/// How long a PgBouncer that was away is not asked again.
const AWAY: SignedDuration = SignedDuration::from_millis(100);

/// How long the entry of SHOW DATABASES may take to change after RELOAD was answered.
const RELOAD_TIME: Duration = Duration::from_millis(500);
const RELOAD_LOOK: Duration = Duration::from_millis(10);
/// Between two looks for the last connection of one that holds its clients, or that logs in.
const QUIET_LOOK: Duration = Duration::from_millis(1);
/// Logins that hang, or that come one after another, keep no switchover from beginning.
const LOGIN_TIME: Duration = Duration::from_millis(200);

/// After a failure; doubled each time, up to the longest.
const FIRST_RETRY: SignedDuration = SignedDuration::from_millis(250);
const LONGEST_RETRY: SignedDuration = SignedDuration::from_secs(2);

/// What a PgBouncer is to be brought to, for whom, and under which leadership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Errand {
    /// The switchover; None at rest.
    pub(crate) operation: Option<Uuid>,
    /// Asked for before each change.
    pub(crate) epoch: i64,
    /// To be reached.
    pub(crate) goal: TrafficGoal,
}

/// One PgBouncer of a migration.
#[derive(Debug)]
pub(crate) struct Pgbouncer<L> {
    inner: Arc<Inner<L>>,
    work: Mutex<Work>,
    console: tokio::sync::Mutex<LookConsole>,
}

#[derive(Debug)]
struct Inner<L> {
    migration: MigrationName,
    config: PgbouncerConfig,
    connector: Connector,
    leadership: L,
    failed: Mutex<Option<(Errand, u32, TrafficFailure)>>,
    /// Open before it is needed: a login takes longer than what is said then.
    spare: Mutex<Option<AdminConsole>>,
}

#[derive(Debug, Default)]
struct Work(Option<(Errand, JoinHandle<Result<(), Fault>>)>);

#[derive(Debug, Default)]
struct LookConsole {
    open: Option<AdminConsole>,
    away: Option<(Timestamp, String)>,
}

impl Drop for Work {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Work {
    fn stop(&mut self) {
        if let Some((_, running)) = self.0.take() {
            running.abort();
        }
    }

    fn running(&self) -> Option<Errand> {
        self.0.as_ref().filter(|(_, running)| !running.is_finished()).map(|(errand, _)| *errand)
    }
}

impl<L: Leadership> Pgbouncer<L> {
    pub(crate) fn new(
        migration: &MigrationName,
        config: &PgbouncerConfig,
        leadership: L,
    ) -> Result<Self, ConnectError> {
        let inner = Inner {
            migration: migration.clone(),
            connector: Connector::to_console(&config.login)?,
            config: config.clone(),
            leadership,
            failed: Mutex::default(),
            spare: Mutex::default(),
        };
        Ok(Self {
            inner: Arc::new(inner),
            work: Mutex::default(),
            console: tokio::sync::Mutex::default(),
        })
    }

    /// Looks at the entry; `thorough`: also at what would keep it from being changed.
    pub(crate) async fn look(&self, thorough: bool) -> Seen<PoolerState> {
        let mut console = self.console.lock().await;
        if let Some((at, reason)) = &console.away
            && Timestamp::now().duration_since(*at) < AWAY
        {
            return Seen::Unknown(reason.clone());
        }
        let look = async {
            let open = match console.open.take().filter(|open| !open.is_closed()) {
                Some(open) => open,
                None => self.inner.connect().await?,
            };
            let entry = open.entry(&self.inner.config.database).await?;
            Ok::<_, String>((open, entry))
        };
        // A look that is dropped in the middle takes its console with it.
        let looked = tokio::time::timeout(LOOK_TIME, look)
            .await
            .unwrap_or_else(|_| Err(format!("no answer within {} s", LOOK_TIME.as_secs())));
        match looked {
            Ok((open, entry)) => {
                let is_admin = open.is_admin();
                *console = LookConsole { open: Some(open), away: None };
                drop(console);
                match entry {
                    None => Seen::Absent,
                    Some(entry) => Seen::Present(self.inner.state(&entry, thorough, is_admin)),
                }
            }
            Err(reason) => {
                *console =
                    LookConsole { open: None, away: Some((Timestamp::now(), reason.clone())) };
                Seen::Unknown(reason)
            }
        }
    }

    /// Opens what the switchover that begins will need.
    pub(crate) async fn warm_up(&self) {
        let warm = lock(&self.inner.spare).as_ref().is_some_and(|spare| !spare.is_closed());
        if !warm && let Ok(Ok(open)) = tokio::time::timeout(LOOK_TIME, self.inner.connect()).await {
            lock(&self.inner.spare).replace(open);
        }
    }

    /// What was seen, with what is being done and what failed in this switchover, or at this rest.
    pub(crate) fn view(&self, state: Seen<PoolerState>, operation: Option<Uuid>) -> PoolerView {
        let working = lock(&self.work).running().filter(|errand| errand.operation == operation);
        let failed = lock(&self.inner.failed)
            .as_ref()
            .filter(|(errand, ..)| errand.operation == operation)
            .map(|(.., failure)| failure.clone());
        PoolerView {
            name: self.inner.config.name.clone(),
            state,
            working: working.map(|errand| errand.goal),
            failed,
        }
    }

    /// Begins to pursue a goal, unless that is being done, and waits for it a little.
    pub(crate) async fn pursue(&self, errand: Errand, wait: Duration) -> Result<(), Fault> {
        let mut running = {
            let mut work = lock(&self.work);
            if work.running() == Some(errand) {
                return Ok(());
            }
            work.stop();
            let inner = Arc::clone(&self.inner);
            let (told, ended) = tokio::sync::oneshot::channel();
            let task = tokio::spawn(async move {
                let result = inner.pursue(errand).await;
                inner.remember(errand, &result);
                // Nobody waits any more when it took long.
                let _ = told.send(result.clone());
                result
            });
            work.0 = Some((errand, task));
            ended
        };
        match tokio::time::timeout(wait, &mut running).await {
            Ok(Ok(result)) => result,
            // It goes on, or was stopped: the next look tells.
            Ok(Err(_)) | Err(_) => Ok(()),
        }
    }

    pub(crate) fn forget_failure(&self) {
        lock(&self.inner.failed).take();
    }

    pub(crate) fn stop(&self) {
        lock(&self.work).stop();
    }
}

impl<L: Leadership> Inner<L> {
    async fn connect(&self) -> Result<AdminConsole, String> {
        let name = format!("pgferry/{}", self.migration);
        AdminConsole::open(&self.connector, &name).await.map_err(|error| error.to_string())
    }

    fn state(&self, entry: &Entry, thorough: bool, is_admin: bool) -> PoolerState {
        let mut blockers = Vec::new();
        if thorough {
            if !is_admin {
                blockers.push(Blocker::new(
                    "pgbouncer_not_admin",
                    format!("pgferry may look at PgBouncer {} and not PAUSE it", self.config.name),
                    "name the user of its dsn in admin_users of pgbouncer.ini, then RELOAD",
                ));
            }
            if let Rewrite::IncludeFile(file) = &self.config.rewrite {
                blockers.extend(include_file::blockers(&self.config, file, entry));
            }
        }
        PoolerState {
            points_at: self.side_of(entry),
            address: format!("{}:{}/{}", entry.host, entry.port, entry.dbname),
            paused: entry.paused,
            connections: entry.connections,
            blockers,
        }
    }

    fn side_of(&self, entry: &Entry) -> Option<Side> {
        Side::BOTH.into_iter().find(|side| {
            let wanted = &self.config.entries[*side as usize];
            (wanted.host.as_str(), wanted.port, wanted.dbname.as_str())
                == (entry.host.as_str(), entry.port, entry.dbname.as_str())
        })
    }

    async fn pursue(&self, errand: Errand) -> Result<(), Fault> {
        let console = self.console().await?;
        let result = self.pursue_over(&console, errand).await;
        // One that was dropped in the middle, or that failed, is not used again.
        if result.is_ok() {
            lock(&self.spare).replace(console);
        }
        result
    }

    async fn pursue_over(&self, console: &AdminConsole, errand: Errand) -> Result<(), Fault> {
        match errand.goal {
            TrafficGoal::HoldFor(side) => {
                self.await_logins(console).await?;
                self.leads(errand).await?;
                // A PAUSE is answered when the last transaction has ended; that it holds is seen at
                // once. Meanwhile the disk is waited for.
                let (paused, prepared) =
                    tokio::join!(self.say(console, "PAUSE"), self.prepare(side));
                paused?;
                if self.is_quiet(console).await? {
                    self.point(console, side, prepared, errand).await?;
                }
                Ok(())
            }
            TrafficGoal::PointAt(side) => {
                let prepared = self.prepare(side).await;
                self.point(console, side, prepared, errand).await
            }
            TrafficGoal::LetGo(side) => {
                let mut entry = self.entry(console).await?;
                let points_at = self.side_of(&entry);
                // At rest one that leads to neither side was led there by somebody, and stays.
                let ours = errand.operation.is_some() || points_at.is_some() || entry.paused;
                // A file that was changed and not read yet would be by whoever reloads next.
                let led = points_at == Some(side)
                    && (errand.operation.is_none() || self.file_leads_to(side));
                if !led && ours {
                    let prepared = self.prepare(side).await;
                    self.point(console, side, prepared, errand).await?;
                    entry = self.entry(console).await?;
                }
                if entry.paused {
                    self.leads(errand).await?;
                    self.say(console, "RESUME").await?;
                }
                Ok(())
            }
        }
    }

    /// Waits a little until no connection to the server is logging in. A PAUSE ends such a login, which
    /// counts as failed: for `server_login_retry`, 15 s by default, its clients would then be kept
    /// waiting behind the RESUME too.
    async fn await_logins(&self, console: &AdminConsole) -> Result<(), Fault> {
        let deadline = tokio::time::Instant::now() + LOGIN_TIME;
        loop {
            let looked = console.logging_in(&self.config.database).await;
            let logging_in = looked.map_err(|why| self.refused("SHOW POOLS", &why))?;
            if logging_in == 0 || tokio::time::Instant::now() >= deadline {
                return Ok(());
            }
            tokio::time::sleep(QUIET_LOOK).await;
        }
    }

    /// Waits until it holds no connection to the server; false when it holds its clients no more: one
    /// that is ended because its entry has changed would be a failed login, as above.
    async fn is_quiet(&self, console: &AdminConsole) -> Result<bool, Fault> {
        loop {
            let entry = self.entry(console).await?;
            if !entry.paused || entry.connections == 0 {
                return Ok(entry.paused);
            }
            tokio::time::sleep(QUIET_LOOK).await;
        }
    }

    /// Leads it to a side: the entry is changed, read again, and seen changed.
    async fn point(
        &self,
        console: &AdminConsole,
        side: Side,
        prepared: Result<Option<Prepared>, String>,
        errand: Errand,
    ) -> Result<(), Fault> {
        let not_rewritten = |why: String| {
            failed(
                "pgbouncer_rewrite_failed",
                format!("the entry of PgBouncer {} could not be changed: {why}", self.config.name),
                "look at include_file or rewrite_command of this PgBouncer; nothing was let go",
            )
        };
        let prepared = prepared.map_err(not_rewritten)?;
        self.leads(errand).await?;
        self.rewrite(side, prepared, errand).await.map_err(not_rewritten)?;
        self.leads(errand).await?;
        console.say("RELOAD").await.map_err(|why| self.refused("RELOAD", &why))?;
        let deadline = tokio::time::Instant::now() + RELOAD_TIME;
        loop {
            let entry = self.entry(console).await?;
            if self.side_of(&entry) == Some(side) {
                return Ok(());
            }
            if tokio::time::Instant::now() >= deadline {
                return Err(failed(
                    "pgbouncer_not_led",
                    format!(
                        "PgBouncer {} leads to {}:{}/{} after its entry was changed and RELOAD was answered",
                        self.config.name, entry.host, entry.port, entry.dbname
                    ),
                    "its log says what it could not read; pgbouncer.ini has to %include the include_file, behind any other entry of this name",
                ));
            }
            tokio::time::sleep(RELOAD_LOOK).await;
        }
    }

    /// The whole include file for a side.
    fn text(&self, side: Side) -> String {
        let entry = &self.config.entries[side as usize].text;
        include_file::text(&self.migration.to_string(), &self.config.database, entry)
    }

    /// Whether the include file, where there is one, leads to this side.
    fn file_leads_to(&self, side: Side) -> bool {
        match &self.config.rewrite {
            Rewrite::IncludeFile(file) => include_file::says(file, &self.text(side)),
            Rewrite::Command { .. } => true,
        }
    }

    /// What can be done beforehand to lead it to a side.
    async fn prepare(&self, side: Side) -> Result<Option<Prepared>, String> {
        let Rewrite::IncludeFile(file) = &self.config.rewrite else { return Ok(None) };
        let (file, text) = (file.clone(), self.text(side));
        blocking(move || Prepared::write(&file, &text)).await.map(Some)
    }

    async fn rewrite(
        &self,
        side: Side,
        prepared: Option<Prepared>,
        errand: Errand,
    ) -> Result<(), String> {
        let entry = &self.config.entries[side as usize];
        match &self.config.rewrite {
            Rewrite::IncludeFile(file) => {
                // Within this task, which may be stopped: nothing is put in place behind its back.
                prepared.map_or(Ok(()), Prepared::put_in_place).map_err(|e| e.to_string())?;
                let file = file.clone();
                // Nobody waits for it: what a crash of the machine takes back here, upkeep mends.
                tokio::task::spawn_blocking(move || include_file::keep(&file));
                Ok(())
            }
            Rewrite::Command { argv, deadline } => {
                let operation = errand.operation.map(|id| id.to_string()).unwrap_or_default();
                let variables = [
                    ("PGFERRY_MIGRATION", self.migration.to_string()),
                    ("PGFERRY_PGBOUNCER", self.config.name.clone()),
                    ("PGFERRY_DATABASE", self.config.database.clone()),
                    ("PGFERRY_ENTRY", entry.text.clone()),
                    ("PGFERRY_SIDE", side.to_string()),
                    ("PGFERRY_HOST", entry.host.clone()),
                    ("PGFERRY_PORT", entry.port.to_string()),
                    ("PGFERRY_DBNAME", entry.dbname.clone()),
                    ("PGFERRY_OPERATION", operation),
                    ("PGFERRY_EPOCH", errand.epoch.to_string()),
                ];
                let order = Order { argv, variables: &variables, pass: &[], deadline: *deadline };
                process::run(&order).await
            }
        }
    }

    async fn console(&self) -> Result<AdminConsole, Fault> {
        if let Some(spare) = lock(&self.spare).take().filter(|spare| !spare.is_closed()) {
            return Ok(spare);
        }
        self.connect().await.map_err(|reason| {
            failed(
                "pgbouncer_unreachable",
                format!("PgBouncer {}: {reason}", self.config.name),
                "start it, or mend its dsn",
            )
        })
    }

    async fn entry(&self, console: &AdminConsole) -> Result<Entry, Fault> {
        let looked = tokio::time::timeout(LOOK_TIME, console.entry(&self.config.database)).await;
        match looked {
            Ok(Ok(Some(entry))) => Ok(entry),
            Ok(Ok(None)) => Err(self.refused("SHOW DATABASES", "the entry is gone")),
            Ok(Err(why)) => Err(self.refused("SHOW DATABASES", &why)),
            Err(_) => Err(self.refused("SHOW DATABASES", "no answer")),
        }
    }

    async fn say(&self, console: &AdminConsole, command: &str) -> Result<(), Fault> {
        let said = format!("{command} {}", pgferry_postgres::quote::ident(&self.config.database));
        console.say(&said).await.map_err(|why| self.refused(command, &why))
    }

    fn refused(&self, command: &str, why: &str) -> Fault {
        failed(
            "pgbouncer_refused",
            format!("PgBouncer {}: {command}: {why}", self.config.name),
            "look into its log; it is tried again",
        )
    }

    async fn leads(&self, errand: Errand) -> Result<(), Fault> {
        self.leadership.still_leads(errand.epoch).await
    }

    fn remember(&self, errand: Errand, result: &Result<(), Fault>) {
        let mut last = lock(&self.failed);
        let Err(Fault::Failed(blocker)) = result else {
            *last = None;
            return;
        };
        let times = last.as_ref().filter(|(before, ..)| *before == errand).map_or(0, |l| l.1);
        let pause = FIRST_RETRY.checked_mul(1 << times.min(8)).unwrap_or(LONGEST_RETRY);
        let retry_at = Timestamp::now() + pause.min(LONGEST_RETRY);
        tracing::warn!(code = blocker.code, message = blocker.message, "a PgBouncer is not led");
        let failure = TrafficFailure { goal: errand.goal, blocker: blocker.clone(), retry_at };
        *last = Some((errand, times + 1, failure));
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, String> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

fn failed(code: &str, message: String, hint: &str) -> Fault {
    Fault::Failed(Blocker::new(code, message, hint))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
