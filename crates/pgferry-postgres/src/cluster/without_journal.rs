//! Opening a side when nothing can be journaled: by what the last leadership knew, or by both records.
//!
//! Which side that may be is decided in [`pgferry_plan::decide`]; here it is done in one guarded transaction.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use pgferry_engine::Fault;
use pgferry_plan::decide::LeftFenced;
use pgferry_plan::world::{NodeRecord, NodeState};
use pgferry_plan::{Direction, Seen, Side};

use super::{ACTION_TIME_IN_STALL, PgCluster};
use crate::node::MISSES_MARKER;
use crate::observe::NODE_LOOK_TIME;
use crate::statements::{self, Guard};

/// Between two tries to wake a stream, as upkeep does in a switchover.
const BETWEEN_WAKES: Duration = Duration::from_secs(2);

impl PgCluster {
    /// Opens the side that a switchover has fenced, when the journal cannot be written any more and
    /// nothing was yielded. The node's own record is enough for that: nobody else leads while it
    /// carries our epoch, and a yield that lands late finds another revision.
    ///
    /// # Errors
    /// In words, when the side was not opened.
    pub async fn open_without_journal(&self, side: Side, epoch: i64) -> Result<(), String> {
        self.open_as_recorded(side, |record| match record.state {
            NodeState::Yielded => Err("it has yielded"),
            // Seen open too: a fence whose COMMIT hangs would close it for good afterwards.
            NodeState::Open | NodeState::Fenced => {
                Ok(Some(Guard::of_record(epoch, record.revision)))
            }
        })
        .await
    }

    /// Whether a side has yielded under this very leadership, and no newer one has been there.
    pub async fn has_yielded(&self, side: Side, epoch: i64) -> bool {
        self.record_in_time(side, NODE_LOOK_TIME)
            .await
            .present()
            .is_some_and(|record| record.state == NodeState::Yielded && record.epoch == epoch)
    }

    /// Opens the side that writes move to, when this leadership has seen the other one yielded and
    /// the journal cannot be written any more. Whoever leads next raises this side's epoch before
    /// it does anything, and then this is refused.
    ///
    /// # Errors
    /// In words, when the side was not opened.
    pub async fn open_behind_line(
        &self,
        side: Side,
        epoch: i64,
        last_marker: Option<u64>,
    ) -> Result<(), String> {
        self.open_as_recorded(side, |record| match record.state {
            NodeState::Open => Ok(None),
            NodeState::Fenced | NodeState::Yielded => {
                Ok(Some(Guard::of_record(epoch, record.revision).after_marker(last_marker)))
            }
        })
        .await
    }

    /// Opens a side that was left fenced, when nobody can be asked who leads. Under the epoch that
    /// the record carries: whoever leads is not kept out, but its yield finds another revision.
    ///
    /// # Errors
    /// In words, when the side was not opened.
    pub async fn open_left_fenced(&self, left: LeftFenced) -> Result<(), String> {
        let LeftFenced { side, revision, other_yielded } = left;
        let last_marker =
            if other_yielded { Some(self.own_marker_in_time(side.other()).await?) } else { None };
        self.open_as_recorded(side, |record| match record.state {
            NodeState::Fenced if record.revision == revision => {
                Ok(Some(Guard::of_record(record.epoch, revision).after_marker(last_marker)))
            }
            NodeState::Open | NodeState::Fenced | NodeState::Yielded => Ok(None),
        })
        .await
    }

    /// The token that a side has written last, behind everything else that it yielded.
    async fn own_marker_in_time(&self, side: Side) -> Result<u64, String> {
        let look = crate::observe::node::marker(self.node(side));
        match tokio::time::timeout(NODE_LOOK_TIME, look).await {
            Ok(Ok(Some(marker))) => Ok(marker.own),
            Ok(Ok(None)) => Err(format!("the {side} has no marker")),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => {
                self.node(side).forget_connections();
                Err(format!("the {side} does not answer"))
            }
        }
    }

    async fn open_as_recorded(
        &self,
        side: Side,
        guard: impl Fn(&NodeRecord) -> Result<Option<Guard>, &'static str>,
    ) -> Result<(), String> {
        let opening = async {
            let record = crate::observe::node::record(self.node(side))
                .await
                .map_err(|error| error.to_string())?
                .ok_or_else(|| "it has no record".to_owned())?;
            match guard(&record)? {
                None => Ok(()),
                Some(guard) => match self.node(side).mutate(guard, statements::OPEN).await {
                    Ok(()) => Ok(()),
                    Err(fault) => {
                        if matches!(&fault, Fault::Failed(why) if why.code == MISSES_MARKER) {
                            self.wake_arriving(side, guard.epoch).await;
                        }
                        Err(fault.to_string())
                    }
                },
            }
        };
        match tokio::time::timeout(ACTION_TIME_IN_STALL, opening).await {
            Ok(result) => result,
            Err(_) => {
                self.node(side).forget_connections();
                Err("it does not answer".to_owned())
            }
        }
    }

    /// The stream that is to bring what a side misses. While no engine runs nobody else wakes it, and
    /// pglogical's manager may sleep for minutes.
    async fn wake_arriving(&self, side: Side, epoch: i64) {
        let direction = Direction::leaving(side.other());
        let asleep = matches!(self.subscription(direction).await, Ok(Some(found)) if !found.worker);
        let due = {
            let mut woken = self.woken.lock().unwrap_or_else(PoisonError::into_inner);
            let due = asleep && woken.is_none_or(|at| at.elapsed() >= BETWEEN_WAKES);
            if due {
                *woken = Some(Instant::now());
            }
            due
        };
        if due {
            let sql = statements::wake_subscription(&self.config.name.subscription(direction));
            if let Err(fault) = self.node(side).mutate(Guard::of_epoch(epoch), &sql).await {
                tracing::warn!(%direction, %fault, "the stream could not be woken");
            }
        }
    }

    /// Both records, each within its own time; what a daemon without a journal can know.
    pub async fn records(&self) -> [Seen<NodeRecord>; 2] {
        self.records_within(NODE_LOOK_TIME).await
    }

    pub(super) async fn records_within(&self, limit: Duration) -> [Seen<NodeRecord>; 2] {
        let of = |side| self.record_in_time(side, limit);
        tokio::join!(of(Side::Source), of(Side::Destination)).into()
    }

    async fn record_in_time(&self, side: Side, limit: Duration) -> Seen<NodeRecord> {
        let look = crate::observe::node::record(self.node(side));
        match tokio::time::timeout(limit, look).await {
            Ok(record) => Seen::from_look(record),
            Err(_) => {
                self.node(side).forget_connections();
                Seen::Unknown("it does not answer".to_owned())
            }
        }
    }
}
