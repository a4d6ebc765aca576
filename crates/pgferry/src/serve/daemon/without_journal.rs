//! While the journal is away: what is shown, what is answered, and which side is opened again all
//! the same, so that a switchover that was under way does not hold writes until it is back.
//!
//! What may be opened is decided in `pgferry_plan::decide::stranded`, by what the last leadership
//! knew or by both records.

use std::time::Duration;

use pgferry_api as api;
use pgferry_plan::decide::{Stranded, left_fenced};
use pgferry_plan::{Course, Side};
use pgferry_postgres::journal::{JournalError, Lead, Leader};

use super::answers::{answer, conflict, journal_blocker, unavailable};
use super::{Daemon, Next, SEEK};

/// A switchover of another daemon is over within its stall budget and this.
const BEYOND_BUDGET: Duration = Duration::from_secs(1);

impl Daemon {
    /// Asks for the lead, for no longer than what is stranded may wait: the journal may not answer.
    pub(super) async fn seek(&mut self) -> Result<(Lead, Option<Leader>), JournalError> {
        let lead = self.place.lead(&self.config.name, self.holder, None);
        match self.stranded_for().filter(|left| !left.is_zero()) {
            None => lead.await,
            Some(left) => match tokio::time::timeout(left, lead).await {
                Ok(lead) => lead,
                Err(_) => {
                    self.place.forget_connections();
                    Err(JournalError::NoAnswer)
                }
            },
        }
    }

    /// For how much longer what is stranded may wait; None when nothing is.
    fn stranded_for(&self) -> Option<Duration> {
        match self.stranded?.0 {
            Stranded::BehindLine { .. } => Some(Duration::ZERO),
            Stranded::Fenced { since, .. } => {
                let held = pgferry_plan::facts::milliseconds(since, jiff::Timestamp::now());
                let held = Duration::from_secs_f64(held / 1000.0);
                Some(self.policy.stall_budget.saturating_sub(held))
            }
        }
    }

    /// A switchover that lost its journal must not hold writes for longer than it was allowed to.
    /// Before the line seeking the lead again comes first, and usually is in time.
    pub(super) async fn open_what_is_stranded(&mut self) {
        let Some((stranded, epoch)) = self.stranded else { return };
        if let Stranded::Fenced { side, last_marker, .. } = stranded
            && self.cluster.has_yielded(side, epoch).await
        {
            // Its answer or the entry was lost: nobody has led since, so it was this switchover.
            let behind = Stranded::BehindLine { side: side.other(), last_marker };
            self.stranded = Some((behind, epoch));
        }
        if self.stranded_for().is_none_or(|left| !left.is_zero()) {
            return;
        }
        let Some((stranded, epoch)) = self.stranded else { return };
        let (side, opened) = match stranded {
            Stranded::Fenced { side, .. } => {
                (side, self.cluster.open_without_journal(side, epoch).await)
            }
            Stranded::BehindLine { side, last_marker } => {
                (side, self.cluster.open_behind_line(side, epoch, last_marker).await)
            }
        };
        match opened {
            Ok(()) => {
                tracing::warn!(%side, "open without the journal");
                // Clients that a pooler holds would wait for the journal otherwise.
                if self.traffic.release(side, epoch).await {
                    self.stranded = None;
                }
            }
            Err(error) => tracing::warn!(%side, error, "could not be opened yet"),
        }
    }

    /// A daemon that was started while the journal is away knows of no switchover, but both records
    /// may tell of one that was left before its line.
    async fn open_what_is_left_fenced(&mut self) {
        let [source, destination] = self.cluster.records().await;
        let Some(left) = left_fenced(&source, &destination) else {
            self.left_fenced = None;
            return;
        };
        let since = match self.left_fenced {
            Some((known, since)) if known == left => since,
            Some(_) | None => tokio::time::Instant::now(),
        };
        self.left_fenced = Some((left, since));
        if since.elapsed() <= self.policy.stall_budget + BEYOND_BUDGET {
            return;
        }
        let side = left.side;
        match self.cluster.open_left_fenced(left).await {
            Ok(()) => {
                tracing::warn!(%side, "a switchover had left it fenced: opened, without the journal");
                let seen = if side == Side::Source { &source } else { &destination };
                if let Some(record) = seen.present() {
                    self.traffic.release(side, record.epoch).await;
                }
            }
            Err(error) => {
                tracing::warn!(%side, error, "what a switchover had left fenced could not be opened yet");
            }
        }
    }

    pub(super) async fn without_journal(&mut self, error: &JournalError) {
        let blocker = journal_blocker(error);
        self.notes.unavailable(&blocker.code, blocker.message.clone());
        self.notes.waiting_for(blocker.clone());
        self.show_known(blocker.clone());
        self.open_what_is_left_fenced().await;
        if let Next::Command(command) = self.next_command(SEEK).await {
            if command.force {
                let blocker = self.journal_away(error);
                return answer(Some(command.reply), Err(conflict(vec![blocker])));
            }
            // Before the start there is no journal to ask, and preflight says what is away.
            match command.verb {
                api::Verb::Preflight => self.answer_without_engine(command),
                // What is known of a migration that was started is not thrown away for it.
                api::Verb::Start if self.known.course == Course::Planned => {
                    self.start(Some(command.reply)).await;
                }
                api::Verb::Start
                | api::Verb::Verify
                | api::Verb::Cutover
                | api::Verb::Rollback
                | api::Verb::Abort
                | api::Verb::Pause
                | api::Verb::Resume
                | api::Verb::Finish
                | api::Verb::Abandon => {
                    answer(Some(command.reply), Err(unavailable(blocker)));
                }
            }
        }
    }
}
