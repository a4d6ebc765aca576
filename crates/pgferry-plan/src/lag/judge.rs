//! From what both ends said, and what they said before, to a report of the stream.
//!
//! One look proves little: a stall is a position that stands still, a crash loop is a process that
//! is another one each time. The window carries exactly that memory, and nothing else.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;

use crate::lsn::Lsn;
use crate::seen::Seen;

use super::{
    Beat, ProviderLook, SlotSeen, StreamReport, StreamSample, StreamStatus, SubscriberLook,
    SubscriptionSeen, WorkerSeen,
};

/// What was seen of one stream so far; judges each new sample against it.
#[derive(Clone, Debug)]
pub struct StreamWindow {
    limits: StreamLimits,
    slot_name: Option<String>,
    not_carrying_since: Option<Timestamp>,
    progress: Option<Progress>,
    worker: Option<WorkerSeen>,
    restarts: VecDeque<Timestamp>,
    restarts_total: u64,
    lags: VecDeque<f64>,
}

/// How long is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamLimits {
    /// A heartbeat older than this, by its writer's clock, has no writer: it says nothing.
    pub heartbeat_silence: Duration,
    /// Positions that stand still for this long are stalled.
    pub stall_after: Duration,
    /// A stream that carries nothing for this long after it was enabled is not starting any more.
    pub start_within: Duration,
    /// Restarts of the apply worker are counted over this time.
    pub restart_window: Duration,
}

impl StreamLimits {
    /// The limits that go with a heartbeat interval.
    #[must_use]
    pub fn for_heartbeat(interval: Duration) -> Self {
        Self {
            // A second at least: a checkpoint or a busy disk may hold a single commit that long.
            heartbeat_silence: (interval * 10).max(Duration::from_secs(1)),
            // The receiver confirms within milliseconds of its WAL flush; ten seconds are far
            // beyond that, and short enough to be seen before a switchover is asked for.
            stall_after: Duration::from_secs(10),
            // pglogical starts a worker again after 5 s, and needs two tries at a slot in use.
            start_within: Duration::from_secs(30),
            restart_window: Duration::from_secs(60),
        }
    }
}

/// Where the stream last was when it moved.
#[derive(Clone, Debug)]
struct Progress {
    confirmed: Option<Lsn>,
    received: Option<i64>,
    wal: Option<Lsn>,
    at: Timestamp,
}

/// Worker starts within the window that make a crash loop; one alone is an ordinary restart.
const CRASH_LOOP_RESTARTS: u32 = 2;

/// Samples that the lag is taken from, see [`StreamWindow::lag_seconds`].
const LAGS_KEPT: usize = 10;

impl StreamWindow {
    /// A window that has seen nothing.
    #[must_use]
    pub fn new(limits: StreamLimits) -> Self {
        Self {
            limits,
            slot_name: None,
            not_carrying_since: None,
            progress: None,
            worker: None,
            restarts: VecDeque::new(),
            restarts_total: 0,
            lags: VecDeque::with_capacity(LAGS_KEPT),
        }
    }

    /// Judges `sample`, taken at `now` by the observer's own clock, and remembers it.
    pub fn observe(&mut self, sample: &StreamSample, now: Timestamp) -> StreamReport {
        let provider = sample.provider.present();
        let subscriber = sample.subscriber.present();
        let subscription = match subscriber {
            Some(look) => look.subscription.as_ref(),
            None => Seen::Unknown("the subscriber was not seen".to_owned()),
        };

        self.remember_worker(&subscription, now);
        if let Seen::Present(seen) = &subscription {
            self.slot_name = Some(seen.slot_name.clone());
        }
        let slot = provider.and_then(|look| self.slot(look, &subscription));
        let status = self.status(provider, subscriber, &subscription, slot, now);

        let wal_lsn = provider.and_then(|look| look.wal_lsn);
        let bytes_to = |position: Option<Lsn>| Some(wal_lsn?.bytes_since(position?));
        let has_subscription = !subscription.is_absent();
        StreamReport {
            status,
            lag_seconds: match (provider, subscriber) {
                (Some(provider), Some(subscriber)) if has_subscription => {
                    self.lag_seconds(provider, subscriber)
                }
                _unseen_or_absent => None,
            },
            lag_bytes: slot
                .filter(|_| has_subscription)
                .and_then(|slot| bytes_to(slot.confirmed_flush_lsn)),
            retained_wal_bytes: slot.and_then(|slot| bytes_to(slot.restart_lsn)),
            safe_wal_bytes: slot.and_then(|slot| slot.safe_wal_bytes),
            wal_status: slot.and_then(|slot| slot.wal_status.clone()),
            heartbeat_received_at: subscriber.and_then(|look| look.received).map(|beat| beat.at),
            slot_active: slot.map(|slot| slot.active),
            apply_worker: subscription.present().and_then(|seen| seen.worker.present().copied()),
            worker_restarts: self.recent_restarts(),
        }
    }

    /// Restarts of the apply worker since the window was made; never falls.
    #[must_use]
    pub fn restarts_total(&self) -> u64 {
        self.restarts_total
    }

    /// The slot's name is known from the other side only. When that side cannot be seen, the WAL
    /// its slot holds back matters most: then the last known name serves, or the only slot.
    fn slot<'a>(
        &self,
        provider: &'a ProviderLook,
        subscription: &Seen<&SubscriptionSeen>,
    ) -> Option<&'a SlotSeen> {
        if let Some(name) = &self.slot_name {
            return provider.slots.iter().find(|slot| slot.name == *name);
        }
        match (subscription, provider.slots.as_slice()) {
            (Seen::Unknown(_), [only]) => Some(only),
            (Seen::Unknown(_) | Seen::Absent | Seen::Present(_), _) => None,
        }
    }

    fn remember_worker(&mut self, subscription: &Seen<&SubscriptionSeen>, now: Timestamp) {
        match subscription {
            Seen::Unknown(_) => {}
            Seen::Absent => self.worker = None,
            // Enabled again it is served by another process; that is no restart.
            Seen::Present(seen) if !seen.enabled => self.worker = None,
            Seen::Present(seen) => {
                if let Seen::Present(worker) = seen.worker {
                    if self.worker.is_some_and(|before| before != worker) {
                        self.restarts.push_back(now);
                        self.restarts_total += 1;
                    }
                    self.worker = Some(worker);
                }
            }
        }
        let window = self.limits.restart_window;
        self.restarts.retain(|at| !has_passed(*at, now, window));
    }

    fn recent_restarts(&self) -> u32 {
        u32::try_from(self.restarts.len()).unwrap_or(u32::MAX)
    }

    fn status(
        &mut self,
        provider: Option<&ProviderLook>,
        subscriber: Option<&SubscriberLook>,
        subscription: &Seen<&SubscriptionSeen>,
        slot: Option<&SlotSeen>,
        now: Timestamp,
    ) -> StreamStatus {
        let seen = match subscription {
            Seen::Unknown(_) => return StreamStatus::Unknown,
            Seen::Absent => {
                self.forget_movement();
                return StreamStatus::Absent;
            }
            Seen::Present(seen) if !seen.enabled => {
                self.forget_movement();
                return StreamStatus::Disabled;
            }
            Seen::Present(seen) => seen,
        };
        let ready = seen.sync_status == Some(READY);
        if seen.worker.is_absent() {
            return if ready {
                StreamStatus::Down
            } else {
                self.not_carrying(StreamStatus::Down, now)
            };
        }
        let Some(provider) = provider else {
            return StreamStatus::Unknown;
        };
        match slot {
            Some(slot) if slot.is_lost() => StreamStatus::Down,
            Some(slot) if slot.active && ready => {
                self.not_carrying_since = None;
                let received = subscriber.and_then(|look| look.received);
                if self.stands_still(provider, slot, received, now) {
                    StreamStatus::Stalled
                } else {
                    StreamStatus::Streaming
                }
            }
            // Whether anything is there to carry changes cannot be told.
            Some(_) | None if matches!(seen.worker, Seen::Unknown(_)) => StreamStatus::Unknown,
            Some(_) | None if self.recent_restarts() >= CRASH_LOOP_RESTARTS => StreamStatus::Down,
            Some(_) | None => self.not_carrying(StreamStatus::Stalled, now),
        }
    }

    fn not_carrying(&mut self, after: StreamStatus, now: Timestamp) -> StreamStatus {
        let since = *self.not_carrying_since.get_or_insert(now);
        if has_passed(since, now, self.limits.start_within) {
            after
        } else {
            StreamStatus::Starting
        }
    }

    fn forget_movement(&mut self) {
        self.progress = None;
        self.not_carrying_since = None;
        self.lags.clear();
    }

    /// Whether neither the confirmed position nor the received heartbeat moved for too long while
    /// there was something to carry. Either one moving is a stream that works: the heartbeat is
    /// not in it while the first subscription runs on an empty set, and a position may wait for
    /// a flush on the other side. A worker that comes and goes does not count as movement, so a
    /// crash loop caught while it is connected is not called streaming.
    fn stands_still(
        &mut self,
        provider: &ProviderLook,
        slot: &SlotSeen,
        received: Option<Beat>,
        now: Timestamp,
    ) -> bool {
        let confirmed = slot.confirmed_flush_lsn;
        let received = received.map(|beat| beat.beat);
        match &self.progress {
            Some(last) if last.confirmed == confirmed && last.received == received => {
                provider.wal_lsn > last.wal && has_passed(last.at, now, self.limits.stall_after)
            }
            Some(_) | None => {
                let wal = provider.wal_lsn;
                self.progress = Some(Progress { confirmed, received, wal, at: now });
                false
            }
        }
    }

    /// Lag by one clock alone, the writer's: how long ago it wrote the oldest heartbeat that is
    /// not on the other side yet.
    ///
    /// A single sample only bounds the lag. When heartbeats are missing, the first missing one was
    /// written one beat after the newest received, and has been under way since: at least that.
    /// When none is missing, the lag is at most the age of the newest. So the largest lower bound
    /// of the last samples is reported, as far as this sample's upper bound still allows it: it
    /// comes within milliseconds of the truth, where the plain difference of the two heartbeats
    /// would jump between zero and the heartbeat interval.
    fn lag_seconds(&mut self, provider: &ProviderLook, subscriber: &SubscriberLook) -> Option<f64> {
        let (own, received) = (provider.heartbeat?, subscriber.received?);
        let age = |at: Timestamp| provider.now.duration_since(at).as_secs_f64().max(0.0);
        let missing = own.beat.saturating_sub(received.beat);
        let (at_least, at_most) = if missing > 0 {
            let span = own.at.duration_since(received.at).as_secs_f64().max(0.0);
            // Above 2^53 beats the division is inexact; at ten a second that is 28 million years.
            let one_beat = span / missing as f64;
            let since_received = age(received.at);
            ((since_received - one_beat).max(0.0), since_received)
        } else if age(own.at) > self.limits.heartbeat_silence.as_secs_f64() {
            // Everything written has arrived, but nothing has been written: no news of now.
            self.lags.clear();
            return None;
        } else {
            (0.0, age(own.at))
        };
        self.lags.retain(|lag| *lag <= at_most);
        if self.lags.len() == LAGS_KEPT {
            self.lags.pop_front();
        }
        self.lags.push_back(at_least);
        self.lags.iter().copied().reduce(f64::max)
    }
}

/// `sync_status` of a subscription that may stream.
const READY: char = 'r';

fn has_passed(since: Timestamp, now: Timestamp, limit: Duration) -> bool {
    now.duration_since(since).unsigned_abs() >= limit && now >= since
}

#[cfg(test)]
mod tests;
