//! The look at both directions, every poll interval.
//!
//! Both directions at once, each from the end that is read to the end that is written; a server
//! that does not answer costs its own limit and makes its part unknown, nothing else.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use pgferry_plan::lag::{StreamLimits, StreamSample, StreamWindow};
use pgferry_plan::{Direction, LagReport, Seen, Side};
use pgferry_postgres::connect::Session;
use pgferry_postgres::streams::{StreamLookError, look_at_provider, look_at_subscriber};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::link::Link;
use crate::{NodesReport, Outlets, Watched};

/// Looks until `cancel`.
pub(crate) async fn watch(watched: &Watched, outlets: Outlets, cancel: &CancellationToken) {
    let source = Link::new(watched.migration.clone(), Side::Source);
    let destination = Link::new(watched.migration.clone(), Side::Destination);
    let name = watched.session_name("monitor");
    let limit = look_limit(watched.poll_interval);
    let mut watcher = Watcher::new(watched, outlets, &source, &destination, limit);
    tokio::join!(
        source.keep_up(&watched.source, &name, limit, cancel),
        destination.keep_up(&watched.destination, &name, limit, cancel),
        cancel.run_until_cancelled(watcher.look_for_ever()),
    );
}

/// A server that takes longer than this for a few catalog rows is not answering.
fn look_limit(poll_interval: Duration) -> Duration {
    poll_interval.clamp(Duration::from_secs(1), Duration::from_secs(5))
}

/// A little less than the poll interval: looks that keep step with the heartbeats would always
/// meet them at the same point of their way, and always read the same part of the lag.
fn look_period(poll_interval: Duration, heartbeat_interval: Duration) -> Duration {
    poll_interval.saturating_sub(heartbeat_interval / 7).max(poll_interval / 2)
}

struct Watcher<'a> {
    watched: &'a Watched,
    outlets: Outlets,
    source: &'a Link,
    destination: &'a Link,
    limit: Duration,
    forward: StreamWindow,
    reverse: StreamWindow,
}

impl<'a> Watcher<'a> {
    fn new(
        watched: &'a Watched,
        outlets: Outlets,
        source: &'a Link,
        destination: &'a Link,
        limit: Duration,
    ) -> Self {
        let window = StreamWindow::new(StreamLimits::for_heartbeat(watched.heartbeat_interval));
        let (forward, reverse) = (window.clone(), window);
        Self { watched, outlets, source, destination, limit, forward, reverse }
    }

    async fn look_for_ever(&mut self) {
        let mut tick = tokio::time::interval(look_period(
            self.watched.poll_interval,
            self.watched.heartbeat_interval,
        ));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut source, mut destination) = (self.source.changes(), self.destination.changes());
        loop {
            // A node that came or went is news; it does not wait for the next interval. The
            // sender lives in the link, so `changed` cannot fail while this runs.
            tokio::select! {
                _ = tick.tick() => {}
                () = self.watched.look_sooner.notified() => {}
                _ = source.changed() => {}
                _ = destination.changed() => {}
            }
            source.mark_unchanged();
            destination.mark_unchanged();
            self.look().await;
        }
    }

    async fn look(&mut self) {
        let (forward, reverse) =
            tokio::join!(self.sample(Direction::Forward), self.sample(Direction::Reverse));
        let now = Timestamp::now();
        let restarts_before = (self.forward.restarts_total(), self.reverse.restarts_total());
        let report = LagReport {
            forward: self.forward.observe(&forward, now),
            reverse: self.reverse.observe(&reverse, now),
            observed_at: Some(now),
        };
        let nodes =
            NodesReport { source: self.source.reach(), destination: self.destination.reach() };

        let metrics = &self.outlets.metrics;
        metrics.set_streams(&report);
        metrics.set_nodes(&nodes);
        metrics.count_worker_restarts(
            Direction::Forward,
            self.forward.restarts_total() - restarts_before.0,
        );
        metrics.count_worker_restarts(
            Direction::Reverse,
            self.reverse.restarts_total() - restarts_before.1,
        );
        self.outlets.lag.send_replace(report);
        self.outlets.nodes.send_if_modified(|known| {
            let changed = *known != nodes;
            *known = nodes;
            changed
        });
    }

    async fn sample(&self, direction: Direction) -> StreamSample {
        let subscription = self.watched.subscription(direction);
        let provider = self
            .ask(direction.from(), async |session| {
                look_at_provider(session, subscription, direction).await
            })
            .await;
        let subscriber = self
            .ask(direction.to(), async |session| {
                look_at_subscriber(session, subscription, direction).await
            })
            .await;
        StreamSample { provider, subscriber }
    }

    async fn ask<T>(
        &self,
        side: Side,
        question: impl AsyncFnOnce(&Session) -> Result<T, StreamLookError>,
    ) -> Seen<T> {
        let link = match side {
            Side::Source => self.source,
            Side::Destination => self.destination,
        };
        let session: Arc<Session> = match link.session() {
            Ok(session) => session,
            Err(reason) => return Seen::Unknown(reason),
        };
        match tokio::time::timeout(self.limit, question(&session)).await {
            Ok(Ok(answer)) => Seen::Present(answer),
            Ok(Err(error)) => {
                let reason = error.described();
                if session.is_closed() {
                    link.discard(&session, reason.clone());
                }
                Seen::Unknown(reason)
            }
            Err(_elapsed) => {
                let reason = format!("the {side} did not answer within {:?}", self.limit);
                link.discard(&session, reason.clone());
                Seen::Unknown(reason)
            }
        }
    }
}

#[cfg(test)]
mod tests;
