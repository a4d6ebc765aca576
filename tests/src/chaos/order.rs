//! A switchover that was ordered, and how it ended.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use pgferry_plan::{Kind, Side};
use serde_json::Value;

use super::world::World;
use crate::daemon::Daemon;
use crate::expect::eventually;
use crate::pair::MIGRATION;

/// From the end of a fault to a migration at rest, one side open and clients that write.
pub const SOON_AFTER: Duration = Duration::from_secs(10);

/// For how long an end is waited for, so that a late one is told as late and not as none.
const PATIENCE: Duration = Duration::from_secs(90);

/// An order that was given.
#[derive(Clone, Debug)]
pub struct Ordered {
    pub(super) kind: Kind,
    pub(super) given_at: Instant,
    /// The last switchover before it.
    before: Value,
}

/// How a case ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Whether the writes moved; else the switchover was taken back.
    pub finished: bool,
    /// From the fault's end to one open side with clients that write.
    pub after: Duration,
    /// From there until both sides held the same.
    pub settled: Duration,
    /// The longest time that one client waited between two acknowledged commits.
    pub worst_gap: Duration,
    /// Acknowledged and gone.
    pub lost: u64,
    /// There twice.
    pub doubled: u64,
    /// What does not hold; empty when the case is whole.
    pub wrong: Vec<String>,
    /// Errors that clients saw since the world began.
    pub errors: BTreeMap<String, u64>,
}

impl Outcome {
    /// Whether everything held.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.wrong.is_empty()
    }

    /// How it ended, in words.
    #[must_use]
    pub fn word(&self) -> &'static str {
        if self.finished { "finished" } else { "taken back" }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {:.1} s after, equal {:.1} s later, gap {} ms, lost {}, doubled {}",
            self.word(),
            self.after.as_secs_f64(),
            self.settled.as_secs_f64(),
            self.worst_gap.as_millis(),
            self.lost,
            self.doubled
        )?;
        if !self.wrong.is_empty() {
            write!(f, "; WRONG: {}", self.wrong.join("; "))?;
        }
        Ok(())
    }
}

impl World {
    /// Orders a switchover of the first daemon; tried again while the verdict is not yet to go.
    pub fn order(&mut self, kind: Kind) -> Ordered {
        let given_at = Instant::now();
        let before = self.first.migration()["last_switchover"]["id"].clone();
        let path = format!("/v1/migrations/{MIGRATION}/{}", kind.as_str());
        eventually("the order to be taken", PATIENCE, || {
            match self.first.try_post(&path, &serde_json::json!({})) {
                // It died before it could answer: the order was taken.
                Err(_) => Ok(()),
                Ok(answer) if answer.status == 202 => Ok(()),
                Ok(answer) => Err(answer.body.to_string()),
            }
        });
        Ordered { kind, given_at, before }
    }

    /// Waits until a daemon that leads says that the switchover has ended, one side is open and
    /// the clients write there.
    ///
    /// The first daemon is started again when it died where it was to, as a supervisor would.
    pub fn wait_for_end(&mut self, order: &Ordered) -> Instant {
        eventually("the switchover to end", PATIENCE, || {
            if let Some(status) = self.first.has_ended() {
                assert!(self.dies_again.is_some(), "the daemon ended by itself: {status}");
                self.dies_again = None;
                self.first.wait_for_end(PATIENCE);
                self.first.serve();
            }
            self.is_at_end(order)
        });
        Instant::now()
    }

    /// Whether it ended without reaching the point it was to hold at.
    pub(super) fn has_ended(&self, order: &Ordered) -> bool {
        self.leader().is_some_and(|(_, migration)| order.is_over(&migration))
    }

    fn is_at_end(&self, order: &Ordered) -> Result<(), String> {
        let (_, migration) = self.leader().ok_or("nobody leads")?;
        if !order.is_over(&migration) {
            return Err(migration.to_string());
        }
        let active = active_of(&migration)?;
        let open = Side::BOTH.map(|side| self.pair.is_open(side));
        if open[active as usize] && !open[active.other() as usize] {
            Ok(())
        } else {
            Err(format!("source open {}, destination open {}: {migration}", open[0], open[1]))
        }
    }

    /// The daemon that leads, with what it says.
    pub(super) fn leader(&self) -> Option<(&Daemon, Value)> {
        // One that is frozen would be waited for.
        let first = (!self.frozen).then_some(&self.first);
        let running = first.into_iter().chain([&self.second]).filter(|d| d.pid().is_some());
        let leading = running.filter_map(|daemon| {
            let answer = daemon.try_get(&format!("/v1/migrations/{MIGRATION}")).ok()?;
            (answer.body["leader"] == true).then_some((daemon, answer.body))
        });
        // One that was frozen until now has not heard yet that it leads no more.
        leading.max_by_key(|(_, migration)| migration["epoch"].as_i64())
    }
}

impl Ordered {
    fn is_over(&self, migration: &Value) -> bool {
        let at_gate = matches!(migration["phase"].as_str(), Some("ready" | "cut_over"));
        at_gate && migration["last_switchover"]["id"] != self.before
    }
}

/// The side that a migration calls active.
pub(super) fn active_of(migration: &Value) -> Result<Side, String> {
    match migration["active"].as_str() {
        Some("source") => Ok(Side::Source),
        Some("destination") => Ok(Side::Destination),
        other => Err(format!("active is {other:?}")),
    }
}
