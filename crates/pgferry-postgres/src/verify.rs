//! Verification: every row of both sides compared while the application writes on.
//!
//! Runs beside the loop, one at a time, asked for or in the background. Reads both sides and writes nothing but the active side's marker
//! and, on the destination, what it has compared already. What its result means is judged in
//! `pgferry-plan`. Beside digests it takes out of the databases the keys of rows that differ.

mod background;
mod compare;
mod marker;
mod mend;
mod others;
mod record;
mod repairs;
mod row_hash;
mod rows;
mod run;
mod shown;
mod sql;
mod strays;
mod written;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use pgferry_engine::Fault;
use pgferry_plan::verify::{Difference, Verified, VerifyView};
use pgferry_plan::{Blocker, MigrationName, Seen, Side};
use tokio::task::JoinHandle;
use tokio_postgres::error::SqlState;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::cluster::{Inner, PgCluster};
use crate::node::{describe, is_missing};
use crate::verify::repairs::Repairs;

/// Differences that are told one by one.
pub const MOST_TOLD: usize = 1000;

/// First pause after a failure of a step's verification, doubled by each further one.
const FIRST_PAUSE: SignedDuration = SignedDuration::from_secs(2);
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_secs(60);
/// A statement that was cancelled ends within this, or its session is dropped.
const STOPPING: Duration = Duration::from_secs(3);

/// How far a verification is, and what it found so far.
#[derive(Clone, Debug, Default)]
pub struct VerifyFigures {
    /// The operation that asked for it; None before the first of this process.
    pub run: Option<Uuid>,
    /// Whether it is at work.
    pub running: bool,
    /// When it began.
    pub began_at: Option<Timestamp>,
    /// Tables to compare; None while it is not planned.
    pub tables_total: Option<u64>,
    /// Tables compared to their end.
    pub tables_done: u64,
    /// Rows compared.
    pub rows: u64,
    /// Rows that differ.
    pub mismatched_rows: u64,
    /// Rows that never held still.
    pub unsettled_rows: u64,
    /// Rows that differed and were copied again.
    pub mended_rows: u64,
    /// Bytes of the tables to compare, on one side.
    pub bytes_total: u64,
    /// Bytes compared.
    pub bytes_done: u64,
    /// What differs, at most [`MOST_TOLD`].
    pub differences: Vec<Difference>,
}

impl VerifyFigures {
    /// Seconds until everything is compared, at the pace so far.
    #[must_use]
    pub fn seconds_left(&self, now: Timestamp) -> Option<u64> {
        let began = self.began_at.filter(|_| self.running && self.bytes_done > 0)?;
        let took = now.duration_since(began).as_secs_f64().max(0.0);
        let left = self.bytes_total.saturating_sub(self.bytes_done);
        Some((took * left as f64 / self.bytes_done as f64).round() as u64)
    }

    fn words(&self) -> String {
        match self.tables_total {
            None => "comparing the rows of both sides".to_owned(),
            Some(total) => format!(
                "comparing the rows of both sides: {} of {total} tables, {} rows",
                self.tables_done, self.rows
            ),
        }
    }
}

/// What a person wants of a verification beside its result.
#[derive(Clone, Copy, Debug, Default)]
struct Wish {
    /// The values that differ, beside the names of their columns. Kept in memory only: after a restart
    /// the verification goes on without it.
    show_values: bool,
    /// Rows that are proven to differ are copied again from the active side. The journal has it.
    repair: bool,
}

/// The verification of one cluster.
#[derive(Debug, Default)]
pub(crate) struct Verifier {
    state: Mutex<State>,
    figures: Arc<Mutex<VerifyFigures>>,
    /// The run of which a person wants to see the values.
    shows_values: Mutex<Option<Uuid>>,
    /// The rows that wait to be copied again.
    pub(crate) repairs: Repairs,
    rounds: background::Rounds,
    writes: written::Writes,
    strays: strays::Strays,
}

#[derive(Debug, Default)]
struct State {
    running: Option<Running>,
    ended: Option<Ended>,
    failures: u32,
}

#[derive(Debug)]
struct Running {
    run: Uuid,
    /// The side whose rows count as right in a round in the background; None when it was asked for.
    round: Option<Side>,
    handle: JoinHandle<Result<Verified, Blocker>>,
    cancel: CancellationToken,
}

#[derive(Debug)]
struct Ended {
    run: Uuid,
    result: Result<Verified, Blocker>,
    retry_at: Timestamp,
}

/// The replication origin of this migration's repairs: at rest the subscription's own belongs to the
/// apply worker.
pub(crate) fn repair_origin(name: &MigrationName) -> String {
    format!("pgferry_{name}_repair")
}

impl PgCluster {
    /// Begins a verification, or goes on with it; another one that runs is given up.
    pub(crate) async fn verify(
        &self,
        run: Uuid,
        active: Side,
        epoch: i64,
        at_rest: bool,
        repair: bool,
    ) {
        if self.verifier.take_in().running.as_ref().is_some_and(|running| running.run == run) {
            return;
        }
        self.stop_verification().await;
        let shown = lock(&self.verifier.shows_values).take_if(|of| *of == run);
        let wish = Wish { show_values: shown.is_some(), repair };
        let figures = Arc::clone(&self.verifier.figures);
        self.set_to_work(figures, |figures, cancel| run::Run {
            cluster: self.clone(),
            run,
            active,
            epoch,
            at_rest,
            wish,
            gently: None,
            figures,
            cancel,
        });
    }

    fn set_to_work(
        &self,
        figures: Arc<Mutex<VerifyFigures>>,
        work: impl FnOnce(Arc<Mutex<VerifyFigures>>, CancellationToken) -> run::Run,
    ) {
        let cancel = CancellationToken::new();
        let work = work(Arc::clone(&figures), cancel.clone());
        let (run, round) = (work.run, work.gently.map(|_| work.active));
        *lock(&figures) = VerifyFigures {
            run: Some(run),
            running: true,
            began_at: Some(Timestamp::now()),
            ..VerifyFigures::default()
        };
        let ended = self.job_ended();
        let handle = tokio::spawn(async move {
            let result = work.carry_through().await;
            lock(&figures).running = false;
            ended.notify_one();
            result
        });
        lock(&self.verifier.state).running = Some(Running { run, round, handle, cancel });
    }

    /// How the verification of this process stands.
    pub(crate) fn verification_view(&self) -> Seen<VerifyView> {
        let what = lock(&self.verifier.figures).words();
        let mut state = self.verifier.take_in();
        if let Some(running) = state.running.as_ref().filter(|running| running.round.is_none()) {
            return Seen::Present(VerifyView::Running { run: running.run, what });
        }
        match &mut state.ended {
            None => Seen::Absent,
            Some(Ended { run, result: Ok(verified), .. }) => {
                Seen::Present(VerifyView::Ended { run: *run, verified: verified.clone() })
            }
            Some(Ended { run, result: Err(blocker), retry_at }) => {
                Seen::Present(VerifyView::Failed {
                    run: *run,
                    blocker: blocker.clone(),
                    retry_at: *retry_at,
                })
            }
        }
    }

    /// How far the one that was asked for is, and what the last one found, whoever asked for it.
    pub fn verify_figures(&self) -> Arc<Mutex<VerifyFigures>> {
        Arc::clone(&self.verifier.figures)
    }

    /// How far the round in the background is.
    pub fn background_figures(&self) -> Arc<Mutex<VerifyFigures>> {
        Arc::clone(&self.verifier.rounds.figures)
    }

    /// A person wants to see the values of this run, which was accepted and has not begun.
    pub fn show_values_of_verification(&self, run: Uuid) {
        *lock(&self.verifier.shows_values) = Some(run);
    }

    /// Reads what an earlier process found in this run, so that it can still be told.
    pub async fn recall_verification(&self, run: Uuid) {
        let node = self.node(Side::Destination);
        let found = match node.client().await {
            Ok(client) => record::differences(&client, run).await,
            Err(error) => return tracing::debug!(%error, "the last verification was not read"),
        };
        match found {
            Ok(mut differences) => {
                differences.truncate(MOST_TOLD);
                let mut figures = lock(&self.verifier.figures);
                if figures.run.is_none() {
                    *figures =
                        VerifyFigures { run: Some(run), differences, ..VerifyFigures::default() };
                }
            }
            Err(error) if is_missing(&error) => {}
            Err(error) => tracing::debug!(%error, "the last verification was not read"),
        }
    }
}

impl Inner {
    /// Gives up the verification that runs; returns when nothing of it is at work.
    pub(crate) async fn stop_verification(&self) {
        self.stop_comparing_strays().await;
        let Some(mut running) = self.verifier.take_in().running.take() else { return };
        running.cancel.cancel();
        if tokio::time::timeout(STOPPING, &mut running.handle).await.is_err() {
            running.handle.abort();
        }
        if let Some(active) = running.round {
            self.verifier.rounds.given_up(running.run, active);
        }
        self.verifier.repairs.forget();
        lock(&self.verifier.figures).running = false;
        lock(&self.verifier.rounds.figures).running = false;
    }

    /// The same, when it is a round in the background; and the comparison of what strays left.
    pub(crate) async fn give_up_background(&self) {
        self.stop_comparing_strays().await;
        let round = self.verifier.take_in().running.as_ref().is_some_and(|it| it.round.is_some());
        if round {
            self.stop_verification().await;
        }
    }
}

impl Verifier {
    /// The state after taking in a run that has ended.
    fn take_in(&self) -> MutexGuard<'_, State> {
        let mut state = lock(&self.state);
        if state.running.as_ref().is_some_and(|running| running.handle.is_finished())
            && let Some(Running { run, round, handle, .. }) = state.running.take()
        {
            // It is finished, so this is at hand.
            let result = futures_util::FutureExt::now_or_never(handle);
            let result = match result {
                Some(Ok(result)) => result,
                Some(Err(_)) | None => Err(Blocker::new(
                    "verification_died",
                    "the verification ended without a result",
                    "look into the daemon's log; it can be asked for again",
                )),
            };
            if result.is_ok() {
                self.writes.ended(run);
            }
            if round.is_some() {
                if self.rounds.ended(result) {
                    let found = lock(&self.rounds.figures).clone();
                    *lock(&self.figures) = found;
                }
                return state;
            }
            state.failures = if result.is_ok() { 0 } else { state.failures.saturating_add(1) };
            let retry_at = Timestamp::now() + retry_after(state.failures);
            state.ended = Some(Ended { run, result, retry_at });
        }
        state
    }
}

/// The pause after so many failures in a row.
fn retry_after(failures: u32) -> SignedDuration {
    FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(6)).min(LONGEST_PAUSE)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why a comparison stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VerifyError {
    /// A connection, or a mutation.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// A statement that only looks.
    #[error("the {side}: {}", describe(.error))]
    Statement {
        /// Where.
        side: Side,
        /// The server's answer.
        #[source]
        error: tokio_postgres::Error,
    },
    /// A person has to do something.
    #[error("{}", .0.message)]
    Blocked(Blocker),
    /// It was given up.
    #[error("the verification was stopped")]
    Stopped,
}

impl VerifyError {
    fn on(side: Side) -> impl Fn(tokio_postgres::Error) -> Self + Copy {
        move |error| Self::Statement { side, error }
    }

    /// The side on which a statement did not find its table, or the table's schema.
    fn not_found_on(&self) -> Option<Side> {
        let Self::Statement { side, error } = self else { return None };
        error
            .code()
            .filter(|code| {
                **code == SqlState::UNDEFINED_TABLE || **code == SqlState::INVALID_SCHEMA_NAME
            })
            .map(|_| *side)
    }

    fn into_blocker(self) -> Blocker {
        let message = self.to_string();
        match self {
            Self::Fault(Fault::Failed(blocker)) | Self::Blocked(blocker) => blocker,
            Self::Fault(Fault::EpochRaised) => Blocker::new("epoch_raised", message, ""),
            Self::Statement { .. } => Blocker::new(
                "statement_failed",
                message,
                "look into that server's log; without a comparison set cutover.require_verification = false",
            ),
            Self::Stopped => Blocker::new("stopped", message, ""),
        }
    }
}
