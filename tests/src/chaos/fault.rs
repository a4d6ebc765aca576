//! What can go wrong: how it is begun, how long it lasts, how it ends.
//!
//! A fault is applied while the daemon holds at a point; then the daemon is let go into it.

use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

use pgferry_plan::Side;

use super::order::Ordered;
use super::world::World;
use crate::cluster::Shutdown;
use crate::daemon::AtFailpoint;
use crate::expect::eventually;
use crate::pair::DATABASE;
use crate::proxy::Wire;

/// Which wires are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// Between the two servers, both ways.
    Servers,
    /// From the daemon to the source.
    Source,
    /// From the daemon to the destination, where the journal may be.
    Destination,
    /// From the daemon to both.
    Both,
    /// From the daemon to the journal, when it is in a third place.
    Journal,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The daemon is killed, and started again.
    Kill,
    /// It is frozen, and goes on later as if nothing had been.
    Freeze,
    /// The same, and a second daemon takes over meanwhile.
    FreezeTakenOver,
    /// It is killed, and a second daemon takes over.
    KillTakenOver,
    /// Its network swallows everything, and a second daemon, whose network does not, takes over.
    CutTakenOver,
    /// A server stops as in a crash, and starts again.
    Restart(Side),
    /// A network swallows everything.
    Cut(Reach),
    /// Every connection is reset, and none comes about.
    Reset(Reach),
    /// A server carries out what it is told, and its answers do not arrive.
    AnswersLost(Side),
    /// A server's commits wait for a standby that is not there.
    CommitsHeld(Side),
    /// The same, and the daemon is killed and started again meanwhile.
    CommitsHeldKill(Side),
    /// A second daemon is started.
    SecondDaemon,
    /// The journal's sessions are ended, on whichever server it is.
    JournalSessionsEnded,
    /// A person says abort.
    Abort,
    /// The PgBouncer that every client comes through is killed, and started again later.
    PgbouncerKilled,
}

impl Fault {
    /// Every fault.
    pub const ALL: [Fault; 27] = [
        Fault::Kill,
        Fault::KillTakenOver,
        Fault::Freeze,
        Fault::FreezeTakenOver,
        Fault::CutTakenOver,
        Fault::Restart(Side::Source),
        Fault::Restart(Side::Destination),
        Fault::Cut(Reach::Servers),
        Fault::Cut(Reach::Source),
        Fault::Cut(Reach::Destination),
        Fault::Cut(Reach::Both),
        Fault::Cut(Reach::Journal),
        Fault::Reset(Reach::Servers),
        Fault::Reset(Reach::Source),
        Fault::Reset(Reach::Destination),
        Fault::Reset(Reach::Both),
        Fault::Reset(Reach::Journal),
        Fault::AnswersLost(Side::Source),
        Fault::AnswersLost(Side::Destination),
        Fault::CommitsHeld(Side::Source),
        Fault::CommitsHeld(Side::Destination),
        Fault::CommitsHeldKill(Side::Source),
        Fault::CommitsHeldKill(Side::Destination),
        Fault::SecondDaemon,
        Fault::JournalSessionsEnded,
        Fault::Abort,
        Fault::PgbouncerKilled,
    ];

    /// Its word on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Fault::Kill => "kill",
            Fault::KillTakenOver => "kill-taken-over",
            Fault::Freeze => "freeze",
            Fault::FreezeTakenOver => "freeze-taken-over",
            Fault::CutTakenOver => "cut-taken-over",
            Fault::Restart(Side::Source) => "restart-source",
            Fault::Restart(Side::Destination) => "restart-destination",
            Fault::Cut(Reach::Servers) => "cut-servers",
            Fault::Cut(Reach::Source) => "cut-source",
            Fault::Cut(Reach::Destination) => "cut-destination",
            Fault::Cut(Reach::Both) => "cut-both",
            Fault::Cut(Reach::Journal) => "cut-journal",
            Fault::Reset(Reach::Servers) => "reset-servers",
            Fault::Reset(Reach::Source) => "reset-source",
            Fault::Reset(Reach::Destination) => "reset-destination",
            Fault::Reset(Reach::Both) => "reset-both",
            Fault::Reset(Reach::Journal) => "reset-journal",
            Fault::AnswersLost(Side::Source) => "answers-lost-source",
            Fault::AnswersLost(Side::Destination) => "answers-lost-destination",
            Fault::CommitsHeld(Side::Source) => "commits-held-source",
            Fault::CommitsHeld(Side::Destination) => "commits-held-destination",
            Fault::CommitsHeldKill(Side::Source) => "commits-held-source-kill",
            Fault::CommitsHeldKill(Side::Destination) => "commits-held-destination-kill",
            Fault::SecondDaemon => "second-daemon",
            Fault::JournalSessionsEnded => "journal-sessions-ended",
            Fault::Abort => "abort",
            Fault::PgbouncerKilled => "pgbouncer-killed",
        }
    }

    /// Whether it needs a journal in a third place.
    #[must_use]
    pub fn needs_third_place(self) -> bool {
        matches!(self, Fault::Cut(Reach::Journal) | Fault::Reset(Reach::Journal))
    }

    /// Whether it needs clients that come through a PgBouncer.
    #[must_use]
    pub fn needs_pgbouncer(self) -> bool {
        self == Fault::PgbouncerKilled
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl World {
    /// Strikes while the first daemon holds, lets it go into the fault, and ends the fault after
    /// `lasting`. Returns since when the switchover must come to its end by itself, and when it
    /// did if that was waited for already.
    pub(super) fn strike(
        &mut self,
        fault: Fault,
        lasting: Duration,
        order: &Ordered,
    ) -> (Instant, Option<Instant>) {
        match fault {
            Fault::Kill => {
                self.first.kill();
                self.first.serve();
            }
            Fault::KillTakenOver => {
                self.stand_by();
                self.first.kill();
                let killed = Instant::now();
                self.wait_for_lead_of_second();
                self.took_over.push(("kill", killed.elapsed()));
                self.first.serve();
                return (killed, None);
            }
            Fault::Freeze => {
                self.first.freeze();
                self.let_go();
                thread::sleep(lasting);
                self.first.thaw();
            }
            Fault::FreezeTakenOver => {
                self.stand_by();
                let frozen = Instant::now();
                self.first.freeze();
                self.frozen = true;
                self.let_go();
                self.wait_for_lead_of_second();
                self.took_over.push(("freeze", frozen.elapsed()));
                // The second needs no thaw.
                let ended = self.wait_for_end(order);
                thread::sleep(lasting.saturating_sub(frozen.elapsed()));
                self.first.thaw();
                self.frozen = false;
                return (frozen, Some(ended));
            }
            Fault::CutTakenOver => {
                self.stand_by();
                let cut = Instant::now();
                for reach in [Reach::Both, Reach::Journal] {
                    self.set_wires(reach, Wire::Silent);
                }
                self.let_go();
                self.wait_for_lead_of_second();
                self.took_over.push(("cut", cut.elapsed()));
                let ended = self.wait_for_end(order);
                thread::sleep(lasting.saturating_sub(cut.elapsed()));
                self.heal();
                return (cut, Some(ended));
            }
            Fault::Restart(side) => {
                self.pair.cluster_mut(side).stop(Shutdown::Immediate);
                self.let_go();
                self.pair.cluster_mut(side).start_again();
            }
            Fault::Cut(reach) => self.cut(reach, Wire::Silent, lasting),
            Fault::Reset(reach) => self.cut(reach, Wire::Reset, lasting),
            Fault::AnswersLost(side) => {
                let before = self.pair.admin(side).value(NOW);
                self.to(side).set(Wire::Deaf);
                self.let_go();
                self.wait_for_statement(side, &carried_out_since(before.as_deref()));
                self.to(side).set(Wire::Reset);
                self.to(side).set(Wire::Whole);
            }
            Fault::CommitsHeld(side) => {
                self.hold_commits(side, true);
                self.let_go();
                thread::sleep(lasting);
                self.hold_commits(side, false);
            }
            Fault::CommitsHeldKill(side) => {
                self.hold_commits(side, true);
                self.let_go();
                self.wait_for_statement(side, HANGS_IN_ITS_COMMIT);
                self.first.kill();
                self.first.serve();
                thread::sleep(lasting);
                self.hold_commits(side, false);
            }
            Fault::SecondDaemon => {
                self.second.serve();
                self.let_go();
            }
            Fault::JournalSessionsEnded => {
                let journal = self.journal_admin();
                journal.run(END_JOURNAL_SESSIONS);
                self.let_go();
            }
            Fault::Abort => {
                let url = format!("{}/v1/migrations/shop/abort", self.first.url());
                let heard = || self.first.log().matches(ABORT_ASKED_FOR).count();
                let before = heard();
                // Taken by the loop, which holds: the answer comes after it is let go.
                let asked = thread::spawn(move || {
                    let _ = ureq::post(url).send_json(serde_json::json!({}));
                });
                eventually("the abort to be heard", STRUCK, || {
                    if heard() > before { Ok(()) } else { Err("not yet".to_owned()) }
                });
                self.let_go();
                let _ = asked.join();
            }
            Fault::PgbouncerKilled => {
                self.pgbouncer_mut().kill();
                self.let_go();
                thread::sleep(lasting);
                self.pgbouncer_mut().start_again();
            }
        }
        (Instant::now(), None)
    }

    /// Waits until a statement of the daemon has come so far on a side, or it is plain that it says
    /// nothing of the kind there at this point.
    fn wait_for_statement(&self, side: Side, has_come: &str) {
        let admin = self.pair.admin(side);
        let deadline = Instant::now() + SAYS_NOTHING;
        while admin.number(has_come) == 0 && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn cut(&mut self, reach: Reach, wire: Wire, lasting: Duration) {
        self.set_wires(reach, wire);
        self.let_go();
        thread::sleep(lasting);
        self.set_wires(reach, Wire::Whole);
    }

    /// Lets the first daemon go on from the point; to its next death, when there is to be one.
    pub fn let_go(&self) {
        match &self.dies_again {
            Some(point) => self.first.failpoint().arm(point, AtFailpoint::Die),
            None => self.first.failpoint().release(),
        }
    }

    /// Heals everything that a fault which was not ended may have left.
    pub(super) fn heal(&mut self) {
        for reach in [Reach::Servers, Reach::Both, Reach::Journal] {
            self.set_wires(reach, Wire::Whole);
        }
    }

    fn hold_commits(&self, side: Side, held: bool) {
        let session = self.pair.cluster(side).admin("postgres");
        // A session of the administrator's own must not wait.
        session.run("SET synchronous_commit = local");
        session.run(if held {
            "ALTER SYSTEM SET synchronous_standby_names = 'nobody'"
        } else {
            "ALTER SYSTEM RESET synchronous_standby_names"
        });
        session.run("SELECT pg_reload_conf()");
        let wanted = if held { "nobody" } else { "" };
        eventually("the setting to be read", Duration::from_secs(10), || {
            let now =
                self.pair.cluster(side).admin(DATABASE).value("SHOW synchronous_standby_names");
            if now.as_deref() == Some(wanted) { Ok(()) } else { Err(format!("{now:?}")) }
        });
    }
}

/// Within this a fault that was begun is seen to have struck.
const STRUCK: Duration = Duration::from_secs(10);
/// A daemon that was let go says what it has to say sooner than this.
const SAYS_NOTHING: Duration = Duration::from_secs(1);

/// What the daemon logs when the order waits for its loop.
const ABORT_ASKED_FOR: &str = "asked for migration=shop verb=abort";

const NOW: &str = "SELECT clock_timestamp()";

/// Sessions of the leader that have carried out a statement since an instant of their server's clock.
fn carried_out_since(instant: Option<&str>) -> String {
    format!(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name ~ '^pgferry/shop/[0-9]+$' \
         AND state = 'idle' AND query_start > '{}'::timestamptz",
        instant.unwrap_or("-infinity")
    )
}

const HANGS_IN_ITS_COMMIT: &str = "SELECT count(*) FROM pg_stat_activity \
    WHERE application_name ~ '^pgferry/shop/[0-9]+$' AND wait_event = 'SyncRep'";

const END_JOURNAL_SESSIONS: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
    WHERE application_name = 'pgferry/shop/journal'";
