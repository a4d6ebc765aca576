//! One connection that is made again, in the background, whenever it is lost.
//!
//! Asking for it never waits: whoever looks at two servers must not stand still because one of
//! them is away.

use std::sync::Arc;
use std::time::Duration;

use pgferry_plan::{MigrationName, Side};
use pgferry_postgres::connect::{Connector, Session};
use pgferry_postgres::streams::bound_statements;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::NodeReach;

/// A connection to one side, or the reason why there is none.
pub(crate) struct Link {
    migration: MigrationName,
    side: Side,
    state: watch::Sender<State>,
    lost: Notify,
}

/// What a link has at the moment.
#[derive(Clone)]
pub(crate) enum State {
    Connecting,
    Up(Arc<Session>),
    Down(String),
}

impl Link {
    pub(crate) fn new(migration: MigrationName, side: Side) -> Self {
        Self { migration, side, state: watch::Sender::new(State::Connecting), lost: Notify::new() }
    }

    /// The session, or why there is none. Give it back to [`Link::discard`] when it fails.
    pub(crate) fn session(&self) -> Result<Arc<Session>, String> {
        let state = self.state.borrow().clone();
        match state {
            State::Up(session) if session.is_closed() => {
                let reason = format!("the connection to the {} was lost", self.side);
                self.discard(&session, reason.clone());
                Err(reason)
            }
            State::Up(session) => Ok(session),
            State::Down(reason) => Err(reason),
            State::Connecting => Err(format!("still connecting to the {}", self.side)),
        }
    }

    /// Gives up `session` and has another made; does nothing when that has happened already.
    pub(crate) fn discard(&self, session: &Arc<Session>, reason: String) {
        let discarded = self.state.send_if_modified(|state| match state {
            State::Up(current) if Arc::ptr_eq(current, session) => {
                *state = State::Down(reason);
                true
            }
            State::Up(_) | State::Down(_) | State::Connecting => false,
        });
        if discarded {
            self.lost.notify_one();
        }
    }

    /// Whether the side can be reached, as far as this connection shows.
    pub(crate) fn reach(&self) -> NodeReach {
        match &*self.state.borrow() {
            State::Connecting => NodeReach::NotYet,
            State::Up(_) => NodeReach::Up,
            State::Down(reason) => NodeReach::Down(reason.clone()),
        }
    }

    /// Told of every change between up and down.
    pub(crate) fn changes(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// Keeps the connection up until `cancel`. `limit` bounds each of its statements.
    pub(crate) async fn keep_up(
        &self,
        connector: &Connector,
        session_name: &str,
        limit: Duration,
        cancel: &CancellationToken,
    ) {
        let mut backoff = Backoff::new();
        loop {
            let opened = cancel.run_until_cancelled(open(connector, session_name, limit)).await;
            match opened {
                None => return,
                Some(Ok(session)) => {
                    tracing::debug!(migration = %self.migration, side = %self.side, "connected");
                    backoff = Backoff::new();
                    self.state.send_replace(State::Up(Arc::new(session)));
                    if cancel.run_until_cancelled(self.lost.notified()).await.is_none() {
                        return;
                    }
                }
                Some(Err(reason)) => self.report_down(reason),
            }
            if cancel.run_until_cancelled(tokio::time::sleep(backoff.next())).await.is_none() {
                return;
            }
        }
    }

    /// Says it once, not at every attempt.
    fn report_down(&self, reason: String) {
        self.state.send_if_modified(|state| match state {
            State::Down(known) if *known == reason => false,
            State::Down(_) | State::Connecting | State::Up(_) => {
                tracing::warn!(migration = %self.migration, side = %self.side, %reason, "cannot be watched");
                *state = State::Down(reason);
                true
            }
        });
    }
}

/// Opens a session whose statements the server itself ends after `limit`.
pub(crate) async fn open(
    connector: &Connector,
    session_name: &str,
    limit: Duration,
) -> Result<Session, String> {
    let session = connector.session(session_name).await.map_err(|error| described(&error))?;
    match tokio::time::timeout(limit, bound_statements(&session, limit)).await {
        Ok(Ok(())) => Ok(session),
        Ok(Err(error)) => Err(described(&error)),
        Err(_elapsed) => Err(format!("no answer within {limit:?}")),
    }
}

/// An error with its causes, on one line.
pub(crate) fn described(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// Growing pauses between attempts: short at first, because a restarting server is back within a
/// second; never so long that a person who mended it would wait for the next.
pub(crate) struct Backoff(Duration);

impl Backoff {
    const FIRST: Duration = Duration::from_millis(250);
    const LONGEST: Duration = Duration::from_secs(2);

    pub(crate) fn new() -> Self {
        Self(Self::FIRST)
    }

    pub(crate) fn next(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(Self::LONGEST);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_longest_and_no_further() {
        let mut backoff = Backoff::new();
        let pauses: Vec<u128> = (0..7).map(|_| backoff.next().as_millis()).collect();
        assert_eq!(pauses, [250, 500, 1000, 2000, 2000, 2000, 2000]);
    }
}
