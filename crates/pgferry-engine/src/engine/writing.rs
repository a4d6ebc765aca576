//! Writing down: events folded into the facts at once, and appended before anything is done.
//!
//! Decides nothing but how long an append is waited for.

use std::time::Duration;

use jiff::Timestamp;
use pgferry_plan::Step;
use pgferry_plan::decide::stall_left;
use pgferry_plan::journal::{Entry, Event};

use super::Engine;
use crate::failpoint;
use crate::ports::{Cluster, Journal, LeadershipLost, Traffic};

/// The last of them tell how the journal does now.
const APPENDS_TO_REMEMBER: usize = 9;

/// A journal that is well answers within this, also one that is far away or on a busy machine. Less
/// would make a short budget, or one that is used up already, a loss of the journal.
const LEAST_FOR_APPEND: Duration = Duration::from_secs(1);
/// Behind the line, where there is no budget and the other side is still closed.
const APPEND_BEHIND_LINE: Duration = Duration::from_secs(2);

impl<C: Cluster, T: Traffic, J: Journal> Engine<C, T, J> {
    /// Folds an event into the facts, to be written by the next flush.
    pub(super) fn note(&mut self, epoch: i64, event: Event) -> Result<(), LeadershipLost> {
        let entry = Entry { seq: self.facts.next_seq, at: Timestamp::now(), epoch, event };
        self.facts.fold(&entry).map_err(|illegal| LeadershipLost(illegal.to_string()))?;
        self.unwritten.push(entry);
        Ok(())
    }

    pub(super) async fn flush(&mut self) -> Result<(), LeadershipLost> {
        if !self.unwritten.is_empty() {
            // The last act has removed the journal; what remains is told from memory.
            if !self.journal_dropped {
                failpoint::reach("before_append", self.facts.step()).await;
                self.append(self.longest_append()).await?;
            }
            self.entries.append(&mut self.unwritten);
        }
        Ok(())
    }

    /// For how long an append is waited for while writes are held: whoever has lost the journal opens
    /// the side that is to be open without it. None where nobody waits.
    fn longest_append(&self) -> Option<Duration> {
        let switchover = self.facts.switchover()?;
        if matches!(switchover.step, Step::OpenOther | Step::ResumeTraffic) {
            return Some(APPEND_BEHIND_LINE);
        }
        let held = switchover.fenced_at.is_some() && switchover.opened_at.is_none();
        let left = || stall_left(&self.facts, Timestamp::now(), self.policy.stall_budget);
        (held && switchover.step.before_line())
            .then(|| left().unwrap_or_default().max(LEAST_FOR_APPEND))
    }

    pub(super) async fn append(&mut self, limit: Option<Duration>) -> Result<(), LeadershipLost> {
        let began = tokio::time::Instant::now();
        let append = self.journal.append(&self.unwritten);
        match limit {
            None => append.await?,
            Some(limit) => tokio::time::timeout(limit, append).await.unwrap_or_else(|_| {
                Err(LeadershipLost("the journal did not answer while writes are held".into()))
            })?,
        }
        self.appends.truncate(APPENDS_TO_REMEMBER - 1);
        self.appends.push_front(began.elapsed());
        Ok(())
    }
}
