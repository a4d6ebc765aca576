//! One PgBouncer: looked at over a console that stays open, and brought to a goal in the background.
//!
//! A goal is pursued on consoles of its own, because a PAUSE holds its console until the last
//! transaction has ended. Dropping that console does not take the PAUSE back (seen in 1.18); only
//! RESUME does, or a restart, which forgets it.

mod console;
mod errand;
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

/// Less than a look within the stall is given.
const LOOK_TIME: Duration = Duration::from_secs(1);

/// How long a PgBouncer that was away is not asked again.
const AWAY: SignedDuration = SignedDuration::from_millis(100);

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
    /// Written before it is needed: with clients held nobody waits for a disk that others are busy with.
    file: Mutex<Option<(Side, Prepared)>>,
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
            file: Mutex::default(),
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

    /// Opens and writes what the switchover to a side, which begins, will need. What fails here is done when
    /// it is needed, and told then.
    pub(crate) async fn warm_up(&self, to: Side) {
        let warm = lock(&self.inner.spare).as_ref().is_some_and(|spare| !spare.is_closed());
        if !warm && let Ok(Ok(open)) = tokio::time::timeout(LOOK_TIME, self.inner.connect()).await {
            lock(&self.inner.spare).replace(open);
        }
        let written = lock(&self.inner.file).as_ref().is_some_and(|(side, _)| *side == to);
        if !written
            && let Ok(Ok(Some(file))) =
                tokio::time::timeout(LOOK_TIME, self.inner.prepare(to)).await
        {
            lock(&self.inner.file).replace((to, file));
        }
    }

    /// Removes what a switchover that did not come so far had no need of.
    pub(crate) fn cool_down(&self) {
        let unneeded = lock(&self.inner.file).take();
        drop(unneeded);
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
        self.cool_down();
        lock(&self.work).stop();
    }
}

impl<L: Leadership> Inner<L> {
    async fn connect(&self) -> Result<AdminConsole, String> {
        let name = format!("pgferry/{}", self.migration);
        AdminConsole::open(&self.connector, &name).await.map_err(|error| error.to_string())
    }

    fn take_file(&self, to: Side) -> Option<Prepared> {
        lock(&self.file).take().filter(|(side, _)| *side == to).map(|(_, file)| file)
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
