//! The two servers, the streams between them, and clients that write wherever they may.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use jiff::Timestamp;
use pgferry_plan::lag::{LagReport, StreamStatus};
use pgferry_plan::strays::{Fate, Writer};
use pgferry_plan::traffic::{PoolerState, PoolerView, TrafficView};
use pgferry_plan::world::{
    FenceView, MarkerView, NodeRecord, NodeState, SequenceView, SessionView, SlotView,
    SubscriptionView, World,
};
use pgferry_plan::{Action, Blocker, Direction, Lsn, Seen, SequenceName, SessionId, Side};
use uuid::Uuid;

/// One side of the model.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) state: NodeState,
    pub(super) revision: i64,
    pub(super) epoch: i64,
    /// The role's default: what a session that begins now gets.
    read_only: bool,
    /// Sessions by pid, and whether each may write: decided when it began.
    sessions: BTreeMap<i32, bool>,
    changed_at_pid: i32,
    pub(super) rows: BTreeMap<u64, u32>,
    markers: [u64; 2],
    sequence: Option<i64>,
    /// What was applied by commits that nobody waited for, since the last one that was waited for: each
    /// with the marker before it.
    unflushed: Vec<(Change, u64)>,
}

/// A pooler, which knows of no epoch: what is said to it happens.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pooler {
    pub(super) paused: bool,
    points_at: Side,
}

/// Both sides, both streams, and what was promised to clients.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) nodes: [Node; 2],
    /// Changes under way, each with the look at which it arrives.
    streams: [VecDeque<(u64, Change)>; 2],
    pub(super) poolers: [Pooler; 2],
    pub(super) acknowledged: BTreeSet<u64>,
    handed_out: BTreeSet<i64>,
    next_row: u64,
    next_pid: i32,
    pub(super) looks: u64,
    pub(super) strays: Vec<Stray>,
}

/// A transaction that passes the fence right behind the line, and goes on until it is ended.
#[derive(Clone, Debug)]
pub(super) struct Stray {
    writer: Writer,
    pub(super) goes_on: bool,
}

/// Looks that a change is under way: more than a switchover would need if it did not wait.
const LATENCY: u64 = 12;

#[derive(Clone, Debug)]
enum Change {
    Row(u64),
    Marker(Side, u64),
}

/// Why a mutation was refused.
#[derive(Debug, PartialEq)]
pub(super) enum Refused {
    Epoch,
    Revision,
    Marker,
}

impl Model {
    /// As a migration rests after its set-up: the source open, the destination fenced.
    pub(super) fn at_rest() -> Self {
        let node = |state, read_only| Node {
            state,
            revision: 1,
            epoch: 0,
            read_only,
            sessions: BTreeMap::new(),
            changed_at_pid: 0,
            rows: BTreeMap::new(),
            markers: [0, 0],
            sequence: None,
            unflushed: Vec::new(),
        };
        Self {
            nodes: [node(NodeState::Open, false), node(NodeState::Fenced, true)],
            streams: [VecDeque::new(), VecDeque::new()],
            poolers: [Pooler { paused: false, points_at: Side::Source }; 2],
            acknowledged: BTreeSet::new(),
            handed_out: BTreeSet::new(),
            next_row: 1,
            next_pid: 1,
            looks: 0,
            strays: Vec::new(),
        }
    }

    fn node(&mut self, side: Side) -> &mut Node {
        &mut self.nodes[side as usize]
    }

    /// Time passes: clients connect and write, streams move by one change each.
    pub(super) fn pass(&mut self) {
        self.looks += 1;
        for side in Side::BOTH {
            if self.node(side).sessions.len() < 2 && !self.node(side).read_only {
                let pid = self.next_pid;
                self.next_pid += 1;
                self.node(side).sessions.insert(pid, true);
            }
            let writers = self.node(side).sessions.values().filter(|may| **may).count();
            for _ in 0..writers {
                self.write(side);
            }
        }
        for direction in Direction::BOTH {
            self.carry(direction);
        }
        self.check_always();
    }

    fn write(&mut self, side: Side) {
        let row = self.next_row;
        self.next_row += 1;
        let value = self.node(side).sequence.map_or(1, |last| last + 1);
        self.node(side).sequence = Some(value);
        assert!(self.handed_out.insert(value), "sequence value {value} handed out twice");
        *self.node(side).rows.entry(row).or_default() += 1;
        self.node(side).unflushed.clear();
        self.send(side, Change::Row(row));
        self.acknowledged.insert(row);
    }

    fn send(&mut self, from: Side, change: Change) {
        let arrives = self.looks + LATENCY;
        self.streams[Direction::leaving(from) as usize].push_back((arrives, change));
    }

    /// Applies what has arrived, in order.
    fn carry(&mut self, direction: Direction) {
        while let Some((arrives, _)) = self.streams[direction as usize].front()
            && *arrives <= self.looks
        {
            let Some((_, change)) = self.streams[direction as usize].pop_front() else { return };
            let node = self.node(direction.to());
            let before = match change {
                Change::Row(row) => {
                    *node.rows.entry(row).or_default() += 1;
                    0
                }
                Change::Marker(side, token) => {
                    std::mem::replace(&mut node.markers[side as usize], token)
                }
            };
            node.unflushed.push((change, before));
        }
    }

    /// A server crashes and is back: its sessions are gone, but for those who pass the fence, who come
    /// again; and so does what was applied last.
    pub(super) fn restart(&mut self, side: Side) {
        let arrives = self.looks + LATENCY;
        let node = self.node(side);
        node.sessions.clear();
        let mut again = Vec::new();
        for (change, before) in std::mem::take(&mut node.unflushed).into_iter().rev() {
            match change {
                Change::Row(row) => {
                    let count = node.rows.entry(row).or_default();
                    *count -= 1;
                    if *count == 0 {
                        node.rows.remove(&row);
                    }
                }
                Change::Marker(of, _) => node.markers[of as usize] = before,
            }
            again.push((arrives, change));
        }
        let stream = &mut self.streams[Direction::leaving(side.other()) as usize];
        for change in again {
            stream.push_front(change);
        }
    }

    /// A side that is opened has every write that was acknowledged anywhere.
    fn check_opened(&self, side: Side) {
        let rows = &self.nodes[side as usize].rows;
        let missing = self.acknowledged.iter().find(|row| !rows.contains_key(row));
        assert_eq!(missing, None, "the {side} was opened before it had every acknowledged row");
    }

    /// What must hold at any instant.
    fn check_always(&self) {
        let open = self.nodes.iter().filter(|node| !node.read_only).count();
        assert!(open <= 1, "both sides are open to application writes");
    }

    /// What must hold when a migration is at rest with `active` open.
    pub(super) fn check_at_rest(&mut self, active: Side) {
        self.looks += LATENCY;
        self.carry(Direction::Forward);
        self.carry(Direction::Reverse);
        let node = &self.nodes[active as usize];
        assert!(!node.read_only && node.state == NodeState::Open, "{active} is not open");
        let other = &self.nodes[active.other() as usize];
        assert!(other.read_only && other.state != NodeState::Open, "{} is open", active.other());
        for row in &self.acknowledged {
            assert_eq!(node.rows.get(row), Some(&1), "row {row} on the {active}");
            assert_eq!(other.rows.get(row), Some(&1), "row {row} on the {}", active.other());
        }
    }

    /// What must hold besides once nothing is late any more: clients are let go to the open side.
    pub(super) fn check_traffic(&self, active: Side) {
        for pooler in &self.poolers {
            assert!(!pooler.paused, "a pooler holds its clients at rest");
            assert_eq!(pooler.points_at, active, "a pooler leads its clients astray");
        }
    }

    /// Carries out an action on the poolers. The epoch was asked for before, or not at all when it
    /// lands late.
    pub(super) fn direct(&mut self, action: &Action) {
        for (number, pooler) in self.poolers.iter_mut().enumerate() {
            match action {
                // The first leads over as a part of holding; at the second that was cut short.
                Action::PauseTraffic { side, .. } if number == 0 => {
                    *pooler = Pooler { paused: true, points_at: side.other() };
                }
                Action::PauseTraffic { .. } => pooler.paused = true,
                Action::PointTraffic { side } => pooler.points_at = *side,
                Action::ResumeTraffic { side } => {
                    *pooler = Pooler { paused: false, points_at: *side };
                }
                other => panic!("poolers know no action {other:?}"),
            }
        }
    }

    /// A pooler is restarted: it forgets its PAUSE, and nothing else.
    pub(super) fn restart_pooler(&mut self) {
        self.poolers[0].paused = false;
    }

    pub(super) fn holds_epoch(&self, side: Side, epoch: i64) -> bool {
        self.nodes[side as usize].epoch == epoch
    }

    pub(super) fn look_at_traffic(&self) -> TrafficView {
        let view = |pooler: &Pooler| PoolerView {
            name: "pooler".to_owned(),
            state: Seen::Present(PoolerState {
                points_at: Some(pooler.points_at),
                paused: pooler.paused,
                ..PoolerState::default()
            }),
            working: None,
            failed: None,
        };
        TrafficView::Poolers(self.poolers.iter().map(view).collect())
    }

    /// A new leadership raises the epoch before anything else.
    pub(super) fn raise(&mut self, epoch: i64) {
        for node in &mut self.nodes {
            node.epoch = epoch;
        }
    }

    /// Carries out an action under an epoch, as one transaction.
    pub(super) fn mutate(&mut self, action: &Action, epoch: i64) -> Result<(), Refused> {
        let guard = |node: &Node, revision: Option<i64>| {
            if node.epoch != epoch {
                Err(Refused::Epoch)
            } else if revision.is_some_and(|revision| node.revision != revision) {
                Err(Refused::Revision)
            } else {
                Ok(())
            }
        };
        match action {
            Action::Fence { side, revision, .. } => {
                let pid = self.next_pid;
                let node = self.node(*side);
                guard(node, Some(*revision))?;
                node.read_only = true;
                if node.state == NodeState::Open {
                    node.state = NodeState::Fenced;
                }
                node.revision += 1;
                node.changed_at_pid = pid;
            }
            Action::EndSessions { side, sessions } => {
                let node = self.node(*side);
                guard(node, None)?;
                for session in sessions {
                    node.sessions.remove(&session.pid);
                }
                for stray in self.strays.iter_mut().filter(|stray| stray.writer.side == *side) {
                    stray.goes_on &= !sessions.iter().any(|it| it.pid == stray.writer.pid);
                }
            }
            Action::WriteMarker { side, token } => {
                let node = self.node(*side);
                guard(node, None)?;
                let own = &mut node.markers[*side as usize];
                *own = (*own).max(*token);
                let token = node.markers[*side as usize];
                self.send(*side, Change::Marker(*side, token));
            }
            Action::SetSequences { side, revision, values } => {
                let node = self.node(*side);
                guard(node, Some(*revision))?;
                node.revision += 1;
                for (_, value) in values {
                    node.sequence = node.sequence.max(Some(*value));
                }
            }
            Action::Yield { side, revision } => {
                let node = self.node(*side);
                guard(node, Some(*revision))?;
                node.state = NodeState::Yielded;
                node.revision += 1;
                self.stray_on(*side);
            }
            Action::Open { side, revision, after_marker } => {
                let pid = self.next_pid;
                let node = self.node(*side);
                guard(node, Some(*revision))?;
                if after_marker.is_some_and(|token| node.markers[side.other() as usize] < token) {
                    return Err(Refused::Marker);
                }
                node.read_only = false;
                node.state = NodeState::Open;
                node.revision += 1;
                node.changed_at_pid = pid;
                self.check_opened(*side);
            }
            other => panic!("a switchover has no action {other:?}"),
        }
        // Nobody waits for the commit of the others.
        if let Action::Fence { side, .. }
        | Action::WriteMarker { side, .. }
        | Action::SetSequences { side, .. }
        | Action::Yield { side, .. }
        | Action::Open { side, .. } = action
        {
            self.node(*side).unflushed.clear();
        }
        self.check_always();
        Ok(())
    }

    /// Everything that a step of a switchover may look at.
    pub(super) fn look(&self) -> World {
        let mut world = World { now: Timestamp::now(), ..World::default() };
        for side in Side::BOTH {
            let node = &self.nodes[side as usize];
            let view = world.node_mut(side);
            view.record = Seen::Present(NodeRecord {
                side,
                id: Uuid::nil(),
                epoch: node.epoch,
                state: node.state,
                revision: node.revision,
            });
            view.fence = Seen::Present(self.fence_view(side));
            let own = self.strays.iter().filter(|stray| stray.writer.side == side);
            let (go_on, over): (Vec<_>, Vec<_>) = own.partition(|stray| stray.goes_on);
            let xid = |stray: &Stray| (stray.writer.xid, Fate::RolledBack);
            view.fates = Seen::Present(over.into_iter().map(xid).collect());
            view.strays =
                Seen::Present(go_on.into_iter().map(|stray| stray.writer.clone()).collect());
            view.marker = Seen::Present(MarkerView {
                own: node.markers[side as usize],
                other: node.markers[side.other() as usize],
                own_came_back: false,
            });
            view.sequences = Seen::Present(vec![SequenceView {
                name: SequenceName::new("public", "s"),
                last: node.sequence,
                increment: 1,
                min: 1,
                max: i64::MAX,
                cycle: false,
            }]);
        }
        for direction in Direction::BOTH {
            let stream = world.stream_mut(direction);
            stream.subscription = Seen::Present(SubscriptionView {
                enabled: true,
                initialized: true,
                worker: true,
                real_sets: true,
                forwards_nothing: true,
                slot: "slot".to_owned(),
            });
            stream.slot = Seen::Present(SlotView {
                active_pid: Some(9),
                confirmed_flush: Lsn(1),
                lost: false,
            });
        }
        let mut lag = LagReport { observed_at: Some(world.now), ..LagReport::default() };
        for stream in [&mut lag.forward, &mut lag.reverse] {
            stream.status = StreamStatus::Streaming;
            stream.lag_seconds = Some(0.0);
        }
        world.lag = Seen::Present(lag);
        world.drift = Seen::Present(Vec::<Blocker>::new());
        world.job = Seen::Absent;
        world
    }

    fn stray_on(&mut self, side: Side) {
        let xid = self.strays.len() as u64 + 1;
        let pid = self.next_pid;
        self.next_pid += 1;
        let role = "app".to_owned();
        let writer = Writer { side, role, pid, started_us: 0, xid, tables: Vec::new() };
        self.strays.push(Stray { writer, goes_on: true });
    }

    fn fence_view(&self, side: Side) -> FenceView {
        let node = &self.nodes[side as usize];
        let roles = |yes: bool| if yes { vec!["app".to_owned()] } else { Vec::new() };
        let older_sessions = node
            .sessions
            .keys()
            .filter(|pid| **pid < node.changed_at_pid)
            .map(|pid| SessionView {
                id: SessionId { pid: *pid, started_us: 0 },
                role: "app".to_owned(),
                idle: true,
            })
            .collect();
        FenceView {
            unfenced: roles(!node.read_only),
            fenced: roles(node.read_only),
            older_sessions,
            since_change_ms: 1000,
            ..FenceView::default()
        }
    }
}
