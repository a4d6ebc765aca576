//! Two servers, two daemons, clients that remember, and wires that can be cut.
//!
//! One world tries many cases, cutover and rollback in turn, because making one costs seconds. A
//! case that panics leaves a world that nobody should use again.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use pgferry_plan::{Kind, Side};
use toml::Value;

use super::case::Case;
use super::fault::{Fault, Reach};
use super::order::{Ordered, Outcome, SOON_AFTER, active_of};
use super::random::Schedule;
use crate::cluster::{Cluster, ClusterOptions};
use crate::config::{ConfigFile, PASSWORD_VARIABLE, migration};
use crate::content;
use crate::daemon::{AtFailpoint, Daemon, PHASE_DEADLINE, Profile};
use crate::expect::eventually;
use crate::ledger::{Ledger, LedgerOptions};
use crate::leftovers;
use crate::pair::{DATABASE, Pair, PairOptions, provision};
use crate::pgbouncer::{PgBouncer, in_front};
use crate::proxy::{Proxy, Wire};
use crate::session::Session;

/// Where the journal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JournalIn {
    /// In the destination's database.
    Destination,
    /// On a third server.
    ThirdPlace,
}

/// What a world is made of.
#[derive(Clone, Copy, Debug)]
pub struct WorldOptions {
    /// Where the journal is.
    pub journal: JournalIn,
    /// Clients that write.
    pub clients: LedgerOptions,
    /// Whether they come through a PgBouncer, and know nothing else.
    pub pgbouncer: bool,
    /// For how long writes may be held.
    pub stall_budget: &'static str,
    /// For how long a transaction may go on behind the fence.
    pub grace: &'static str,
    /// How far sequences are set ahead.
    pub headroom: u32,
}

impl Default for WorldOptions {
    fn default() -> Self {
        Self {
            journal: JournalIn::Destination,
            // Enough that a sequence moves between its warming and the fence.
            clients: LedgerOptions {
                writers: 4,
                pause: Duration::from_millis(10),
                ..LedgerOptions::SLOW
            },
            pgbouncer: false,
            stall_budget: "5s",
            grace: "200ms",
            // So little that something is left to set within the stall.
            headroom: 1,
        }
    }
}

/// Everything that runs, in the order in which it must end: clients, daemons, wires, servers.
#[derive(Debug)]
pub struct World {
    /// The clients.
    pub ledger: Ledger,
    /// The daemon that orders are given to.
    pub first: Daemon,
    /// The one that takes over; it runs only while a case needs it.
    pub second: Daemon,
    /// How long each take-over took, from the loss of the leader to the lead of the other.
    pub took_over: Vec<(&'static str, Duration)>,
    /// Where the first daemon dies once more when it is let go.
    pub(super) dies_again: Option<&'static str>,
    /// When it had done so, and was started again.
    pub(super) died_again: Option<Instant>,
    pub(super) frozen: bool,
    to: [Proxy; 2],
    between: [Proxy; 2],
    journal: Option<(Proxy, Cluster)>,
    pgbouncer: Option<PgBouncer>,
    /// The two servers.
    pub pair: Pair,
    made: [BTreeSet<String>; 2],
}

/// What is on its way when clients hold, or what a cut has kept back.
const SETTLE: Duration = Duration::from_secs(60);

impl World {
    /// Makes servers and daemons, and brings the migration to ready under writing clients.
    #[must_use]
    pub fn new(options: WorldOptions) -> Self {
        // A server that is restarted loses every commit that nobody waited for.
        let pair =
            Pair::start_with(PairOptions::default(), &[("wal_writer_delay", "10s".to_owned())]);
        pair.load_bank();
        let to = Side::BOTH.map(|side| Proxy::to(pair.cluster(side).port()));
        let between = Side::BOTH.map(|side| Proxy::to(pair.cluster(side).port()));
        let journal = (options.journal == JournalIn::ThirdPlace).then(|| {
            let third = Cluster::start(Side::Destination, &ClusterOptions::default());
            provision(&third, false);
            (Proxy::to(third.port()), third)
        });
        let dsn = |port| format!("host=127.0.0.1 port={port} dbname={DATABASE} user=pgferry");
        let pgbouncer = options.pgbouncer.then(|| PgBouncer::start(&pair));
        // The second daemon has ways of its own, which nobody cuts.
        let direct = match &pgbouncer {
            Some(one) => in_front(&pair, &[one]),
            None => ConfigFile::for_pair(&pair).insert_only(&["bank.ledger_keyless"]),
        };
        let mut direct = direct
            .with(&migration("sequences.headroom"), i64::from(options.headroom))
            .with(&migration("cutover.stall_budget"), options.stall_budget)
            .with(&migration("cutover.grace"), options.grace);
        for side in Side::BOTH {
            let own = |key: &str| migration(&format!("{side}.{key}"));
            direct.set(&own("peer_dsn"), dsn(between[side as usize].port()));
            direct.set(&own("self_dsn"), dsn(pair.cluster(side).port()));
        }
        let mut config = direct.clone();
        for side in Side::BOTH {
            let port = to[side as usize].port();
            config.set(&migration(&format!("{side}.dsn")), dsn(port));
        }
        if let Some(one) = &pgbouncer {
            // It knows the servers as they are, and not by the first daemon's wires.
            let mut section = one.section();
            for side in Side::BOTH {
                let port = pair.cluster(side).port();
                let entry = format!("host=127.0.0.1 port={port} dbname={DATABASE}");
                section.insert(format!("{side}_entry"), entry.into());
            }
            let sections = Value::Array(vec![Value::Table(section)]);
            config.set(&migration("traffic.pgbouncers"), sections);
        }
        if let Some((proxy, third)) = &journal {
            for (of, port) in [(&mut direct, third.port()), (&mut config, proxy.port())] {
                of.set("journal.dsn", dsn(port));
                of.set("journal.password_env", PASSWORD_VARIABLE);
            }
        }
        let first = Daemon::start(&config);
        let second = Daemon::prepare(&direct, Profile::Test);
        let ledger = match &pgbouncer {
            Some(one) => Ledger::with_configs(&[one.app_config()], options.clients),
            None => Ledger::start(&pair, options.clients),
        };
        first.bring_to_ready();
        let made = Side::BOTH.map(|side| leftovers::inventory(pair.cluster(side)));
        Self {
            ledger,
            first,
            second,
            took_over: Vec::new(),
            dies_again: None,
            died_again: None,
            frozen: false,
            to,
            between,
            journal,
            pgbouncer,
            pair,
            made,
        }
    }

    /// Tries a schedule, from wherever the writes are.
    pub fn try_schedule(&mut self, schedule: &Schedule) -> Option<Outcome> {
        self.dies_again = schedule.dies_again;
        let outcome = self.try_case(&schedule.case, schedule.lasting);
        self.dies_again = None;
        outcome
    }

    /// Tries a case: holds the daemon at the point, strikes, and looks at how it ends.
    ///
    /// `None` when the switchover never came to the point.
    pub fn try_case(&mut self, case: &Case, lasting: Duration) -> Option<Outcome> {
        let point = case.failpoint();
        let silent = Some(case.kind.to()).filter(|to| case.fault == Fault::Restart(*to));
        let (order, _no_beats) = self.hold(case.kind, &point, silent)?;
        let (since, ended) = self.strike(case.fault, lasting, &order);
        Some(self.outcome(&order, since, ended))
    }

    /// Orders a switchover and holds the first daemon at a point of it, such as
    /// `before_effect:yield`; [`World::let_go`] lets it go on. `None` when it never came there.
    pub fn hold_at(&mut self, kind: Kind, point: &str) -> Option<Ordered> {
        self.hold(kind, point, None).map(|(order, _)| order)
    }

    /// The same, and the side that writes move to flushes nothing with its own heartbeats that a crash is
    /// to take back: as long as the session is there, and no longer than ten seconds.
    pub fn hold_without_beats(&mut self, kind: Kind, point: &str) -> Option<(Ordered, Session)> {
        let (order, beats) = self.hold(kind, point, Some(kind.to()))?;
        beats.map(|beats| (order, beats))
    }

    fn hold(
        &mut self,
        kind: Kind,
        point: &str,
        silent: Option<Side>,
    ) -> Option<(Ordered, Option<Session>)> {
        self.bring_to(kind.from());
        self.first.failpoint().arm(point, AtFailpoint::Hold);
        // Right before the order: a second without a beat stands against a switchover.
        let beats = silent.map(|side| {
            let session = self.pair.admin(side);
            session.run(&format!(
                "SET idle_in_transaction_session_timeout = '10s'; BEGIN; \
                 SELECT FROM pgferry.heartbeat WHERE side = '{side}' FOR UPDATE"
            ));
            session
        });
        let order = self.order(kind);
        if self.comes_to_point(&order) {
            return Some((order, beats));
        }
        self.first.failpoint().disarm();
        None
    }

    /// Moves the writes to a side, without a fault, unless they are there.
    pub fn bring_to(&mut self, side: Side) {
        self.first_leads_alone();
        let active = self.rest();
        if active != side {
            let kind = if active == Side::Source { Kind::Cutover } else { Kind::Rollback };
            let order = self.order(kind);
            self.wait_for_end(&order);
            assert_eq!(self.rest(), side, "an ordinary {} was taken back", kind.as_str());
        }
        self.wait_for_go();
    }

    /// Where the writes are, at rest.
    pub fn rest(&self) -> Side {
        let migration = self.first.wait_until("the migration to rest", |migration| {
            let phase = migration["phase"].as_str().unwrap_or_default();
            matches!(phase, "ready" | "cut_over")
                && migration["condition"].is_null()
                && migration["leader"] == true
        });
        active_of(&migration).unwrap_or_else(|e| panic!("{e}"))
    }

    /// The same without waiting: None while it does not rest.
    #[must_use]
    pub fn rest_or_none(&self) -> Option<Side> {
        self.leader().and_then(|(_, migration)| active_of(&migration).ok())
    }

    /// Round trips without a fault, both sides compared after each.
    pub fn round_trips(&mut self, trips: u32) -> Outcome {
        let mut last = None;
        for _ in 0..trips {
            for kind in Kind::BOTH {
                self.bring_to(kind.from());
                let order = self.order(kind);
                let ended = self.wait_for_end(&order);
                let outcome = self.outcome(&order, ended, Some(ended));
                assert!(outcome.finished, "an ordinary {} was taken back", kind.as_str());
                if !outcome.is_whole() {
                    return outcome;
                }
                last = Some(outcome);
            }
        }
        last.unwrap_or_else(|| panic!("no round trip was asked for"))
    }

    fn wait_for_go(&self) {
        eventually("the verdict to go", PHASE_DEADLINE, || {
            let verdict = self.first.try_get("/v1/migrations/shop/verdict")?.body;
            if verdict["go"] == true { Ok(()) } else { Err(verdict.to_string()) }
        });
        self.first.wait_until("the lag of both streams", |m| {
            m["forward"]["lag_seconds"].is_number() && m["reverse"]["lag_seconds"].is_number()
        });
    }

    fn first_leads_alone(&mut self) {
        self.heal();
        if self.second.pid().is_some() {
            self.second.kill();
        }
        if self.first.has_ended().is_some() {
            self.first.wait_for_end(PHASE_DEADLINE);
        }
        if self.first.pid().is_none() {
            self.first.serve();
        }
        self.first.failpoint().disarm();
    }

    fn comes_to_point(&self, order: &Ordered) -> bool {
        let failpoint = self.first.failpoint();
        eventually("the point, or the end", PHASE_DEADLINE, || {
            if failpoint.is_reached() {
                Ok(true)
            } else if self.has_ended(order) {
                Ok(false)
            } else {
                Err(self.first.migration().to_string())
            }
        })
    }

    /// Starts the second daemon and waits until it stands by.
    pub fn stand_by(&mut self) {
        self.second.serve();
        eventually("the second daemon to stand by", PHASE_DEADLINE, || {
            let answer = self.second.try_get("/readyz")?;
            if answer.body.to_string().contains("not_leader") {
                Ok(())
            } else {
                Err(answer.body.to_string())
            }
        });
    }

    /// Waits until the second daemon leads.
    pub fn wait_for_lead_of_second(&self) {
        self.second
            .wait_until("the second daemon to lead", |migration| migration["leader"] == true);
    }

    /// Looks at how the ordered switchover ends, which is waited for unless it did, and at all that
    /// must hold then. `since` is when the fault ended.
    pub fn outcome(&mut self, order: &Ordered, since: Instant, ended: Option<Instant>) -> Outcome {
        let ended = ended.unwrap_or_else(|| self.wait_for_end(order));
        // The clients come back by themselves once a side is open.
        self.ledger.wait_for_writes(3, SETTLE);
        let worst_gap = self.ledger.worst_gap(order.given_at, Instant::now());
        let since = self.died_again.take().map_or(since, |again| since.max(again));
        let after = ended.saturating_duration_since(since);
        let mut wrong = Vec::new();
        if after > SOON_AFTER {
            wrong.push(format!("ended only {:.1} s after the fault", after.as_secs_f64()));
        }
        let (_, told) = self.leader().unwrap_or_else(|| panic!("nobody leads"));
        let active = active_of(&told).unwrap_or_else(|e| panic!("{e}"));
        let finished = active == order.kind.to();

        self.ledger.hold();
        let settling = Instant::now();
        content::wait_until_settled(&self.pair, SETTLE);
        let settled = settling.elapsed();
        wrong.extend(content::differences(&self.pair.source, &self.pair.destination));
        let report = self.ledger.check(self.pair.cluster(active));
        if !report.is_clean() || report.acknowledged == 0 {
            wrong.push(format!("the ledger is not clean: {report:?}"));
        }
        let (used, passive) = (self.pair.cluster(active), self.pair.cluster(active.other()));
        if finished {
            wrong.extend(content::sequences_behind(used, passive));
        }
        wrong.extend(self.left_behind());
        wrong.extend(self.led_astray(active));
        for side in Side::BOTH {
            if self.pair.is_open(side) != (side == active) {
                wrong.push(format!("the {side} is open: {}", self.pair.is_open(side)));
            }
        }
        self.ledger.resume();
        let (lost, doubled, errors) = (report.lost, report.duplicated, self.ledger.errors());
        Outcome { finished, after, settled, worst_gap, lost, doubled, wrong, errors }
    }

    /// Slots, origins and sessions that nobody owns any more, looked for until they are gone.
    fn left_behind(&self) -> Vec<String> {
        let deadline = Instant::now() + SOON_AFTER;
        loop {
            let mut found = Vec::new();
            for side in Side::BOTH {
                let now = leftovers::inventory(self.pair.cluster(side));
                let made = &self.made[side as usize];
                found.extend(now.symmetric_difference(made).map(|what| format!("{side}: {what}")));
                found.extend(self.pair.admin(side).column(OLD_SESSIONS).into_iter().map(|name| {
                    format!("{side}: a session of an older leadership is left: {name}")
                }));
            }
            if found.is_empty() || Instant::now() >= deadline {
                return found;
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Whether the PgBouncer holds its clients, or leads them elsewhere.
    fn led_astray(&self, active: Side) -> Option<String> {
        let wanted = (self.pair.cluster(active).port(), false);
        let seen = self.pgbouncer.as_ref()?.leads_to();
        (seen != wanted).then(|| {
            format!(
                "the PgBouncer leads to port {}, paused {}, not to the {active}",
                seen.0, seen.1
            )
        })
    }

    /// The PgBouncer of a world that has one.
    pub(super) fn pgbouncer_mut(&mut self) -> &mut PgBouncer {
        self.pgbouncer.as_mut().unwrap_or_else(|| panic!("this world has no PgBouncer"))
    }

    pub(super) fn to(&self, side: Side) -> &Proxy {
        &self.to[side as usize]
    }

    /// Changes the wires of a reach.
    pub fn set_wires(&self, reach: Reach, wire: Wire) {
        let wires: Vec<&Proxy> = match reach {
            Reach::Servers => self.between.iter().collect(),
            Reach::Source => vec![self.to(Side::Source)],
            Reach::Destination => vec![self.to(Side::Destination)],
            Reach::Both => self.to.iter().collect(),
            Reach::Journal => self.journal.iter().map(|(proxy, _)| proxy).collect(),
        };
        for proxy in wires {
            proxy.set(wire);
        }
    }

    /// The host of a side dies as far as the other one can tell: it hears nothing more of the streams
    /// that there are, and new connections are whole.
    pub fn forsake_streams(&self) {
        for proxy in &self.between {
            proxy.forsake();
        }
    }

    /// The administrator's session where the journal is.
    pub(super) fn journal_admin(&self) -> Session {
        match &self.journal {
            Some((_, third)) => third.admin(DATABASE),
            None => self.pair.admin(Side::Destination),
        }
    }

    /// Everything both daemons and both servers have said so far.
    #[must_use]
    pub fn logs(&self) -> String {
        let server = |side: Side| self.pair.cluster(side).log_tail(200);
        format!(
            "--- first daemon ---\n{}\n--- second daemon ---\n{}\n--- source (end) ---\n{}\n--- \
             destination (end) ---\n{}\n",
            self.first.log(),
            self.second.log(),
            server(Side::Source),
            server(Side::Destination)
        )
    }
}

const OLD_SESSIONS: &str = "
SELECT application_name || ', ' || coalesce(a.state, '') || ', ' || left(a.query, 80)
  FROM pg_stat_activity a, pgferry.node n
 WHERE application_name ~ '^pgferry/shop/[0-9]+'
   AND substring(application_name from '^pgferry/shop/([0-9]+)')::bigint BETWEEN 1 AND n.epoch - 1";
