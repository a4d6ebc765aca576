//! The heartbeat of one side, on a connection of its own: a look that hangs must not silence it.
//!
//! Beats only while it is told an epoch, and the node itself refuses any other.

use std::time::Duration;

use pgferry_plan::Side;
use pgferry_postgres::connect::Session;
use pgferry_postgres::heartbeat;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::Watched;
use crate::link::{Backoff, described, open};

/// Beats on `side` until `cancel`, whenever `epoch` holds one.
pub(crate) async fn beat(
    watched: &Watched,
    side: Side,
    epoch: watch::Receiver<Option<i64>>,
    cancel: &CancellationToken,
) {
    let mut heart = Heart { watched, side, epoch, silence: None };
    cancel.run_until_cancelled(heart.beat_while_told()).await;
}

/// A beat that takes longer has not happened, as far as anybody watching is concerned.
const BEAT_LIMIT: Duration = Duration::from_secs(2);

/// Pause after the node refused a beat: its tables may not be there yet, or another leader holds
/// it and this one will soon be told.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);

struct Heart<'a> {
    watched: &'a Watched,
    side: Side,
    epoch: watch::Receiver<Option<i64>>,
    /// Why it does not beat, when it should: said once, not ten times a second.
    silence: Option<String>,
}

impl Heart<'_> {
    async fn beat_while_told(&mut self) {
        let mut backoff = Backoff::new();
        loop {
            if self.epoch.wait_for(Option::is_some).await.is_err() {
                // Whoever tells is gone, and this side's last word was not to beat.
                return std::future::pending().await;
            }
            match self.open().await {
                Ok(session) => {
                    backoff = Backoff::new();
                    if let Err(reason) = self.beat_on(&session).await {
                        self.report_silence(reason);
                    }
                }
                Err(reason) => self.report_silence(reason),
            }
            tokio::time::sleep(backoff.next()).await;
        }
    }

    async fn open(&self) -> Result<Session, String> {
        let connector = self.watched.connector(self.side);
        let session = open(connector, &self.watched.session_name("heartbeat"), BEAT_LIMIT).await?;
        match tokio::time::timeout(BEAT_LIMIT, heartbeat::prepare(&session, self.side)).await {
            Ok(Ok(())) => Ok(session),
            Ok(Err(error)) => Err(described(&error)),
            Err(_elapsed) => Err(format!("no answer within {BEAT_LIMIT:?}")),
        }
    }

    /// Beats until told to stop, or until the connection is not worth keeping.
    async fn beat_on(&mut self, session: &Session) -> Result<(), String> {
        let mut tick = tokio::time::interval(self.watched.heartbeat_interval);
        // After a pause the next beat, not all the missed ones: each is a commit on a live server.
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let Some(epoch) = *self.epoch.borrow() else {
                self.silence = None;
                return Ok(());
            };
            let beat = heartbeat::beat(session, self.side, epoch);
            match tokio::time::timeout(BEAT_LIMIT, beat).await {
                Ok(Ok(true)) => self.silence = None,
                Ok(Ok(false)) => {
                    self.report_silence(format!("epoch {epoch} does not govern the node"));
                    tokio::time::sleep(REFUSED_PAUSE).await;
                }
                Ok(Err(error)) if session.is_closed() => return Err(described(&error)),
                Ok(Err(error)) => {
                    self.report_silence(described(&error));
                    tokio::time::sleep(REFUSED_PAUSE).await;
                }
                Err(_elapsed) => return Err(format!("no answer within {BEAT_LIMIT:?}")),
            }
        }
    }

    fn report_silence(&mut self, reason: String) {
        if self.silence.as_ref() != Some(&reason) {
            let migration = &self.watched.migration;
            tracing::warn!(%migration, side = %self.side, %reason, "no heartbeat");
            self.silence = Some(reason);
        }
    }
}
