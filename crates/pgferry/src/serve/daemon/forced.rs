//! Forcing a switchover where there is no engine: the lost side keeps this daemon from leading, or the
//! journal was lost with it.
//!
//! Decides nothing: what stands against it and what it may cost is the plan's word, and a person's
//! order is what lets a side be given up.

use pgferry_api as api;
use pgferry_engine::Cluster as _;
use pgferry_plan::{Blocker, Course, Facts, Kind, Loss, Order, Side, Verb, forced};
use pgferry_postgres::journal::{JournalError, Lead};
use pgferry_server::{Accepted, Command};

use super::answers::{answer, conflict, journal_blocker, not_leader, refused_before_start};
use super::lead::journaled;
use super::{Daemon, First};

/// How far the epoch of a journal that takes a migration up is past the last one that the surviving
/// side knows: no daemon that still follows the lost journal gets there.
const FAR_PAST: i64 = 1_000_000;

impl Daemon {
    /// A forced order while the epoch cannot be raised on a side; Some when it is to be carried out.
    pub(super) async fn force_without_engine(
        &mut self,
        command: Command,
        facts: &Facts,
    ) -> Option<First> {
        let Some(verb) = journaled(command.verb) else {
            self.answer_without_engine(command);
            return None;
        };
        let world = self.cluster.observe_records().await;
        if facts.course == Course::Planned {
            return self.adoption(command, verb).await;
        }
        let blockers = forced::blockers(facts, &world, verb);
        let Command { dry_run, force, open_passive, reply, .. } = command;
        if dry_run {
            let loss = forced::loss(facts, &world, None);
            answer(Some(reply), Ok(forced_answer(verb, blockers, &loss)));
            return None;
        }
        if !blockers.is_empty() {
            answer(Some(reply), Err(conflict(blockers)));
            return None;
        }
        Some(First::order(Order { verb, open_passive, force, repair: false }, Some(reply)))
    }

    /// A forced order while there is no journal: where its place has been moved after it was lost with
    /// the active side, the migration is taken up from what the surviving side's record says.
    pub(super) async fn take_up(&mut self, command: Command) {
        let Some(verb) = journaled(command.verb) else {
            return self.answer_without_engine(command);
        };
        let Some(mut first) = self.adoption(command, verb).await else { return };
        let led = async {
            self.place.create().await?;
            self.place.lead(&self.config.name, self.holder, first.lease).await
        };
        match led.await {
            Ok((Lead::Ours(_), Some(leader))) => self.led(leader, Some(first)).await,
            Ok(_) => answer(first.reply.take(), Err(not_leader())),
            Err(error) => {
                answer(first.reply.take(), Err(conflict(vec![journal_blocker(&error)])));
            }
        }
    }

    /// What a leadership over an empty journal begins with: also one that was killed right behind its
    /// lease finds the journal empty, and the order is given again.
    async fn adoption(&mut self, command: Command, verb: Verb) -> Option<First> {
        let kind = if verb == Verb::Rollback { Kind::Rollback } else { Kind::Cutover };
        let (lost, survivor) = (kind.from(), kind.to());
        let facts = Facts { course: Course::AtRest, active: lost, ..Facts::default() };
        let world = self.cluster.observe_records().await;
        let Some(record) = world.node(survivor).record.present() else {
            answer(Some(command.reply), Err(refused_before_start(command.verb)));
            return None;
        };
        let mut blockers = forced::blockers(&facts, &world, verb);
        if self.place.side() == Some(lost) {
            blockers.push(journal_lost(lost, survivor));
        }
        if command.dry_run {
            let loss = forced::loss(&facts, &world, None);
            answer(Some(command.reply), Ok(forced_answer(verb, blockers, &loss)));
            return None;
        }
        if !blockers.is_empty() {
            answer(Some(command.reply), Err(conflict(blockers)));
            return None;
        }
        Some(First {
            order: Order { verb, open_passive: command.open_passive, force: true, repair: false },
            adopts: Some((lost, record.id)),
            lease: Some(record.epoch.saturating_add(FAR_PAST)),
            reply: Some(command.reply),
        })
    }

    /// What a forced order is answered while the journal's database is away.
    pub(super) fn journal_away(&self, error: &JournalError) -> Blocker {
        match self.place.side() {
            Some(side) => journal_lost(side, side.other()),
            None => journal_blocker(error),
        }
    }
}

fn journal_lost(lost: Side, survivor: Side) -> Blocker {
    Blocker::new(
        "journal_lost",
        format!("the journal is in the {lost}'s database, and goes with it"),
        format!(
            "if the {lost} is lost for good: name the {survivor}'s database under [journal] (dsn and password), restart pgferry, and force again"
        ),
    )
}

/// The side that a person has declared lost, before or just now.
pub(super) fn given_up(facts: &Facts, first: Option<&First>) -> Option<Side> {
    let forced = first.filter(|first| first.order.force).map(|first| match first.adopts {
        Some((lost, _)) => lost,
        None => facts.kind().from(),
    });
    facts.lost.or(forced)
}

pub(super) fn forced_answer(verb: Verb, blockers: Vec<Blocker>, loss: &Loss) -> Accepted {
    let kind = if verb == Verb::Rollback { Kind::Rollback } else { Kind::Cutover };
    let mut verdict = api::Verdict::of(kind, blockers);
    verdict.may_be_lost = Some(loss.sentence());
    Accepted::Verdict(verdict)
}
