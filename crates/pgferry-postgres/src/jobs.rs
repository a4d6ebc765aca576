//! The background job of a step: what takes minutes runs beside the loop, which goes on looking.
//!
//! At most one at a time. That it ended without an error concludes nothing: the step's look does.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use pgferry_plan::world::JobView;
use pgferry_plan::{Blocker, Seen};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// First pause after a failure, doubled by each further one up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The job at hand, and how often it has failed.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    state: Mutex<State>,
    /// Told when a job ends, so that the loop looks at once.
    pub(crate) ended: Arc<Notify>,
}

#[derive(Debug, Default)]
struct State {
    running: Option<Running>,
    failed: Option<(Blocker, Timestamp)>,
    /// Failures of each job since it last succeeded: a job that succeeds in between does not
    /// shorten the pause of the one that fails.
    failures: HashMap<&'static str, u32>,
    /// The last job that ended well, until another one starts.
    done: Option<&'static str>,
}

#[derive(Debug)]
struct Running {
    what: &'static str,
    handle: JoinHandle<()>,
    result: Arc<Mutex<Option<Result<(), Blocker>>>>,
    cancel: CancellationToken,
}

impl Jobs {
    /// Starts a job unless one runs.
    pub(crate) fn start<F>(&self, what: &'static str, work: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = Result<(), Blocker>> + Send + 'static,
    {
        let mut state = self.settled();
        if state.running.is_some() {
            return;
        }
        let cancel = CancellationToken::new();
        let result = Arc::new(Mutex::new(None));
        let (slot, ended, work) =
            (Arc::clone(&result), Arc::clone(&self.ended), work(cancel.clone()));
        let handle = tokio::spawn(async move {
            let outcome = work.await;
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
            ended.notify_one();
        });
        state.failed = None;
        state.done = None;
        state.running = Some(Running { what, handle, result, cancel });
    }

    /// How the job stands.
    pub(crate) fn view(&self) -> Seen<JobView> {
        let state = self.settled();
        match (&state.running, &state.failed) {
            (Some(running), _) => Seen::Present(JobView::Running(running.what.to_owned())),
            (None, Some((blocker, retry_at))) => {
                Seen::Present(JobView::Failed { blocker: blocker.clone(), retry_at: *retry_at })
            }
            (None, None) => match state.done {
                Some(what) => Seen::Present(JobView::Done(what.to_owned())),
                None => Seen::Absent,
            },
        }
    }

    /// Whether no job runs, so that a look at what it changes is worth its price.
    pub(crate) fn is_idle(&self) -> bool {
        self.settled().running.is_none()
    }

    /// Lets a failed job be tried again at once.
    pub(crate) fn forget_failure(&self) {
        let mut state = self.settled();
        state.failed = None;
        state.done = None;
    }

    /// Ends the job; returns when its task is gone.
    pub(crate) async fn stop(&self) {
        let running = self.settled().running.take();
        let Some(mut running) = running else { return };
        running.cancel.cancel();
        // It undoes what it can in order; one that hangs is dropped, sessions and all.
        if tokio::time::timeout(Duration::from_secs(5), &mut running.handle).await.is_err() {
            running.handle.abort();
        }
        *self.settled() = State::default();
    }

    /// The state after taking in a job that has ended.
    fn settled(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.running.as_ref().is_some_and(|running| running.handle.is_finished()) {
            let Some(running) = state.running.take() else { return state };
            let what = running.what;
            let result = running.result.lock().unwrap_or_else(PoisonError::into_inner).take();
            match result {
                Some(Ok(())) => {
                    state.failures.remove(what);
                    state.done = Some(what);
                }
                Some(Err(blocker)) => state.fail(what, blocker),
                None => state.fail(
                    what,
                    Blocker::new(
                        "job_died",
                        "the background job ended without a word",
                        "look into the daemon's log; it is tried again",
                    ),
                ),
            }
        }
        state
    }
}

impl State {
    fn fail(&mut self, what: &'static str, blocker: Blocker) {
        let failures = self.failures.entry(what).or_default();
        let pause = FIRST_PAUSE.saturating_mul(1 << (*failures).min(5)).min(LONGEST_PAUSE);
        *failures += 1;
        tracing::warn!(
            code = blocker.code,
            message = blocker.message,
            ?pause,
            "background job failed"
        );
        let now = Timestamp::now();
        self.failed = Some((blocker, now.checked_add(pause).unwrap_or(now)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failed_job_is_told_and_may_be_tried_again() {
        let jobs = Jobs::default();
        jobs.start("fails", |_| async { Err(Blocker::new("broken", "it broke", "")) });
        jobs.ended.notified().await;
        while !matches!(jobs.view(), Seen::Present(JobView::Failed { .. })) {
            tokio::task::yield_now().await;
        }
        assert!(jobs.is_idle());
        jobs.forget_failure();
        assert_eq!(jobs.view(), Seen::Absent);
    }

    #[tokio::test]
    async fn a_job_that_is_stopped_leaves_no_failure() {
        let jobs = Jobs::default();
        jobs.start("waits", |cancel| async move {
            cancel.cancelled().await;
            Err(Blocker::new("cancelled", "", ""))
        });
        assert!(!jobs.is_idle());
        jobs.stop().await;
        assert_eq!(jobs.view(), Seen::Absent);
    }
}
