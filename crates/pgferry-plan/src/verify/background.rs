//! Verification in the background: when a round is due, what of it is told, and what stands now.
//!
//! Pure. A round reads every table once, at a low rate, while a migration rests; nobody waits for
//! it, and everything that a person asks for goes before it. The journal is told only when the
//! outcome changes: a line for every round would make it grow for ever.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use super::{NAMED, Verified};
use crate::action::Action;
use crate::decide::Policy;
use crate::facts::{Course, Facts, milliseconds};
use crate::finding::Blocker;
use crate::journal::{Event, OperationState, Verb};
use crate::lag::StreamStatus;
use crate::seen::Seen;
use crate::side::{Direction, Side};
use crate::world::World;

/// The verification in the background, as a look sees it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BackgroundView {
    /// The round that runs.
    pub running: Option<Round>,
    /// A round that was begun and has not come to its end, by this process or an earlier one, and the
    /// side whose rows counted as right in it.
    pub unfinished: Option<(Uuid, Side)>,
    /// The last round that came to its end.
    pub last: Option<Verified>,
    /// Why the last try did not, and when; forgotten with the next round that does.
    pub failed: Option<(Blocker, Timestamp)>,
}

/// A round that runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Round {
    /// Which.
    pub run: Uuid,
    /// The side whose rows count as right.
    pub active: Side,
    /// How far it is, in words.
    pub progress: String,
    /// What it came to so far, once something differs.
    pub found: Option<Verified>,
}

/// What was written to the active side since the verification `run` began, by its statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// The verification.
    pub run: Uuid,
    /// Rows inserted, updated and deleted.
    pub rows: u64,
    /// Tables that they are of.
    pub tables: u64,
}

/// What the background asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum InBackground {
    /// Nothing now.
    Nothing,
    /// To be carried out.
    Do(Action),
    /// The outcome is another one than the journal has.
    Tell(Event),
}

/// Judges the verification in the background. `fresh` is the id of a round that would begin.
#[must_use]
pub fn in_background(facts: &Facts, world: &World, policy: &Policy, fresh: Uuid) -> InBackground {
    let Seen::Present(view) = &world.background else { return InBackground::Nothing };
    let rests = facts.course == Course::AtRest && !facts.paused && facts.lost.is_none();
    if let Some(round) = &view.running
        && (!rests || round.active != facts.active)
    {
        return InBackground::Do(Action::GiveUpBackground);
    }
    if facts.course != Course::AtRest {
        return InBackground::Nothing;
    }
    if let Some(verified) = news(facts, view) {
        return InBackground::Tell(Event::Verified { verified: verified.clone() });
    }
    let asked_for = facts.running(Verb::Verify).is_some();
    if !rests || asked_for || view.running.is_some() || !is_due(facts, view, world.now, policy) {
        return InBackground::Nothing;
    }
    if !carried(facts.active, world, policy.max_lag) {
        return InBackground::Nothing;
    }
    let run = match view.unfinished {
        Some((run, active)) if active == facts.active && !has_moved_since(facts, run) => run,
        Some(_) | None => fresh,
    };
    // What the last one found stays to be told while the next one runs.
    let keep = latest(facts, world).map(|latest| latest.run).filter(|latest| *latest != run);
    InBackground::Do(Action::VerifyInBackground { run, active: facts.active, keep })
}

/// Whether the active side has moved since a round began, back perhaps: what it read before says
/// nothing of what was written on the other side. Its id tells when it began.
fn has_moved_since(facts: &Facts, run: Uuid) -> bool {
    let began = run.get_timestamp().map(|began| began.to_unix());
    facts.operations.iter().any(|operation| {
        matches!(operation.verb, Verb::Cutover | Verb::Rollback)
            && operation.state == OperationState::Succeeded
            && operation.finished_at.is_some_and(|at| {
                began.is_none_or(|(seconds, _)| {
                    u64::try_from(at.as_second()).is_ok_and(|at| at >= seconds)
                })
            })
    })
}

/// What the journal has not been told, and is another outcome than it knows.
fn news<'a>(facts: &Facts, view: &'a BackgroundView) -> Option<&'a Verified> {
    let told = facts.verification.as_ref();
    let found = view.running.as_ref().and_then(|round| round.found.as_ref());
    // In the middle of a round only that there is something; all of it at the round's end.
    if let Some(found) = found
        && found.active == facts.active
        && told.is_none_or(Verified::is_clean)
    {
        return Some(found);
    }
    view.last.as_ref().filter(|last| {
        last.active == facts.active
            && told
                .is_none_or(|told| last.finished_at > told.finished_at && !same_outcome(told, last))
    })
}

/// Whether two verifications say the same, but for how many rows and when.
fn same_outcome(one: &Verified, other: &Verified) -> bool {
    let objects = |verified: &Verified| -> BTreeSet<String> {
        // A sequence's value, or a table's words, are no other outcome.
        let object = |name: &str| name.split(": ").next().unwrap_or(name).to_owned();
        verified.differing.iter().map(|differing| object(&differing.name)).collect()
    };
    // Which of many are named changes with every row.
    let many = one.differing.len() >= NAMED && other.differing.len() >= NAMED;
    one.active == other.active
        && one.is_clean() == other.is_clean()
        && (many || objects(one) == objects(other))
}

/// Whether a round may begin: so long after whatever was last done that it is no burden.
fn is_due(facts: &Facts, view: &BackgroundView, now: Timestamp, policy: &Policy) -> bool {
    let Some(pause) = policy.background_pause else { return false };
    let asked_for = facts.operations.iter().filter_map(|operation| operation.finished_at);
    let ended = view.last.iter().chain(&facts.verification).map(|verified| verified.finished_at);
    let failed = view.failed.iter().map(|(_, at)| *at);
    let last = asked_for.chain(ended).chain(failed).max();
    last.is_none_or(|last| milliseconds(last, now) >= pause.as_secs_f64() * 1000.0)
}

/// Whether the stream to the passive side carries: a round reads behind markers, and a stream that is
/// behind has enough to do.
fn carried(active: Side, world: &World, max_lag: Duration) -> bool {
    world.lag.present().map(|lag| lag.stream(Direction::leaving(active))).is_some_and(|stream| {
        stream.status == StreamStatus::Streaming
            && stream.lag_seconds.is_some_and(|lag| lag <= max_lag.as_secs_f64())
    })
}

/// The verification that counts now: the last one that came to its end, whoever asked for it, or the
/// round that runs once it has found more than that one.
#[must_use]
pub fn latest<'a>(facts: &'a Facts, world: &'a World) -> Option<&'a Verified> {
    let view = world.background.present();
    let last = view.and_then(|view| view.last.as_ref());
    let ended = facts.verification.iter().chain(last).max_by_key(|verified| verified.finished_at);
    let found = view.and_then(|view| view.running.as_ref()).and_then(|round| round.found.as_ref());
    let found = found.filter(|found| {
        ended.is_none_or(|ended| {
            ended.is_clean()
                || ended.run == found.run
                || found.mismatched_rows > ended.mismatched_rows
        })
    });
    found.or(ended)
}

/// What a person should know of the rounds: how far one is, or why the last try ended.
#[must_use]
pub fn told_of(view: &BackgroundView) -> Option<String> {
    match (&view.running, &view.failed) {
        (Some(round), _) => Some(round.progress.clone()),
        (None, Some((blocker, _))) => Some(format!("the last round failed: {}", blocker.message)),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::super::tests::{now, operation, policy, resting, verified};
    use super::*;
    use crate::journal::Entry;
    use crate::lag::{LagReport, StreamReport};
    use crate::verify::{Differing, gate, since};

    const FRESH: Uuid = Uuid::from_u128(70);
    const OLD: Uuid = Uuid::from_u128(71);

    fn ago(seconds: i64) -> Timestamp {
        now() - SignedDuration::from_secs(seconds)
    }

    fn patient() -> Policy {
        Policy { background_pause: Some(Duration::from_secs(600)), ..policy() }
    }

    /// A round that ended so long ago.
    fn round(mismatched: u64, seconds: i64) -> Verified {
        Verified {
            run: OLD,
            background: true,
            began_at: ago(seconds + 10),
            finished_at: ago(seconds),
            ..verified(mismatched)
        }
    }

    fn world(view: BackgroundView) -> World {
        let stream = StreamReport {
            status: StreamStatus::Streaming,
            lag_seconds: Some(0.1),
            ..StreamReport::default()
        };
        let lag = LagReport { forward: stream.clone(), reverse: stream, observed_at: Some(now()) };
        World {
            now: now(),
            background: Seen::Present(view),
            lag: Seen::Present(lag),
            ..World::default()
        }
    }

    fn running(active: Side, found: Option<Verified>) -> BackgroundView {
        let progress = "1 of 2 tables".to_owned();
        let round = Round { run: OLD, active, progress, found };
        BackgroundView { running: Some(round), ..BackgroundView::default() }
    }

    fn begun(run: Uuid, active: Side) -> InBackground {
        InBackground::Do(Action::VerifyInBackground { run, active, keep: Some(verified(0).run) })
    }

    fn judge(facts: &Facts, world: &World) -> InBackground {
        in_background(facts, world, &patient(), FRESH)
    }

    fn long_verified() -> Facts {
        resting(Some(Verified { finished_at: ago(700), ..verified(0) }))
    }

    #[test]
    fn a_round_begins_when_everything_has_been_quiet_for_the_pause() {
        let idle = || world(BackgroundView::default());
        assert_eq!(judge(&long_verified(), &idle()), begun(FRESH, Side::Source));
        assert_eq!(judge(&resting(Some(verified(0))), &idle()), InBackground::Nothing, "just now");
        let mut facts = long_verified();
        let ended = Some(ago(30));
        let cutover = operation(Verb::Cutover);
        facts.operations = vec![crate::facts::Operation {
            state: OperationState::Aborted,
            finished_at: ended,
            ..cutover
        }];
        assert_eq!(judge(&facts, &idle()), InBackground::Nothing, "a switchover has just ended");
        let lately = BackgroundView { last: Some(round(0, 30)), ..BackgroundView::default() };
        assert_eq!(judge(&long_verified(), &world(lately)), InBackground::Nothing);
        let blocker = Blocker::new("statement_failed", "m", "h");
        let failed =
            BackgroundView { failed: Some((blocker, ago(30))), ..BackgroundView::default() };
        assert_eq!(judge(&long_verified(), &world(failed)), InBackground::Nothing);
        let off = Policy { background_pause: None, ..patient() };
        assert_eq!(in_background(&long_verified(), &idle(), &off, FRESH), InBackground::Nothing);
        // Never verified, because nobody wanted it before `ready`.
        let first = InBackground::Do(Action::VerifyInBackground {
            run: FRESH,
            active: Side::Source,
            keep: None,
        });
        assert_eq!(judge(&resting(None), &idle()), first);
    }

    #[test]
    fn what_a_restart_left_is_gone_on_with_unless_the_active_side_has_moved() {
        let view = |active| BackgroundView {
            unfinished: Some((OLD, active)),
            ..BackgroundView::default()
        };
        let facts = long_verified();
        assert_eq!(judge(&facts, &world(view(Side::Source))), begun(OLD, Side::Source));
        assert_eq!(judge(&facts, &world(view(Side::Destination))), begun(FRESH, Side::Source));
        let over = Facts { active: Side::Destination, ..facts };
        assert_eq!(judge(&over, &world(view(Side::Source))), begun(FRESH, Side::Destination));
    }

    /// There and back again: what was read before says nothing of what was written on the other side.
    #[test]
    fn a_round_is_not_gone_on_with_across_a_crossing() {
        let began = u64::try_from(ago(300).as_millisecond()).unwrap();
        let run = uuid::Builder::from_unix_timestamp_millis(began, &[0; 10]).into_uuid();
        let view =
            BackgroundView { unfinished: Some((run, Side::Source)), ..BackgroundView::default() };
        let crossed = |seconds, state| {
            let mut facts = long_verified();
            facts.operations = [Verb::Cutover, Verb::Rollback]
                .map(|verb| crate::facts::Operation {
                    state,
                    finished_at: Some(ago(seconds)),
                    ..operation(verb)
                })
                .to_vec();
            let impatient = Policy { background_pause: Some(Duration::from_secs(60)), ..policy() };
            in_background(&facts, &world(view.clone()), &impatient, FRESH)
        };
        assert_eq!(crossed(100, OperationState::Succeeded), begun(FRESH, Side::Source));
        assert_eq!(crossed(100, OperationState::Aborted), begun(run, Side::Source));
        assert_eq!(crossed(400, OperationState::Succeeded), begun(run, Side::Source));
    }

    #[test]
    fn nothing_begins_where_it_would_be_in_the_way_or_cannot_be_known() {
        let idle = || world(BackgroundView::default());
        let nothing = |facts: &Facts, world: &World, why| {
            assert_eq!(judge(facts, world), InBackground::Nothing, "{why}");
        };
        nothing(&Facts { paused: true, ..long_verified() }, &idle(), "paused");
        nothing(&Facts { lost: Some(Side::Source), ..long_verified() }, &idle(), "lost");
        let verifies = Facts { operations: vec![operation(Verb::Verify)], ..long_verified() };
        nothing(&verifies, &idle(), "a person's runs");
        let step = Course::SetUp(crate::steps::Step::VerifyRows);
        nothing(&Facts { course: step, ..long_verified() }, &idle(), "not at rest");
        let unknown = World { background: Seen::Unknown("away".into()), ..idle() };
        nothing(&long_verified(), &unknown, "Unknown never leads to anything");
        let mut behind = idle();
        if let Seen::Present(lag) = &mut behind.lag {
            lag.forward.lag_seconds = Some(3.0);
        }
        nothing(&long_verified(), &behind, "the stream is behind");
        let blind = World { lag: Seen::Absent, ..idle() };
        nothing(&long_verified(), &blind, "the stream was not seen");
    }

    #[test]
    fn a_round_that_runs_goes_on_only_while_the_migration_rests_on_that_side() {
        let here = || world(running(Side::Source, None));
        assert_eq!(judge(&long_verified(), &here()), InBackground::Nothing);
        let gives_up = InBackground::Do(Action::GiveUpBackground);
        assert_eq!(judge(&Facts { paused: true, ..long_verified() }, &here()), gives_up);
        let over = Facts { active: Side::Destination, ..long_verified() };
        assert_eq!(judge(&over, &here()), gives_up);
        let switching = Facts {
            course: Course::imagined(crate::side::Kind::Cutover, crate::steps::Step::CheckVerdict),
            ..long_verified()
        };
        assert_eq!(judge(&switching, &here()), gives_up);
    }

    #[test]
    fn the_journal_is_told_of_another_outcome_and_of_nothing_else() {
        let told = |facts: &Facts, view| match judge(facts, &world(view)) {
            InBackground::Tell(Event::Verified { verified }) => Some(verified),
            InBackground::Tell(other) => panic!("{other:?}"),
            InBackground::Nothing | InBackground::Do(_) => None,
        };
        let ended = |verified| BackgroundView { last: Some(verified), ..BackgroundView::default() };
        let clean = resting(Some(Verified { finished_at: ago(700), ..verified(0) }));
        assert_eq!(told(&clean, ended(round(0, 5))), None, "clean as before");
        assert_eq!(told(&clean, ended(round(3, 5))), Some(round(3, 5)));
        assert_eq!(told(&clean, ended(round(3, 900))), None, "older than what the journal has");
        let damaged = resting(Some(round(3, 700)));
        assert_eq!(told(&damaged, ended(round(4, 5))), None, "more rows of the same table");
        let other = |name: &str| Verified {
            differing: vec![Differing { name: name.to_owned(), rows: 3 }],
            ..round(3, 5)
        };
        assert!(told(&damaged, ended(other("public.items"))).is_some(), "another table");
        assert!(told(&damaged, ended(round(0, 5))).is_some(), "clean again");
        assert!(told(&resting(None), ended(round(0, 5))).is_some(), "the first");
        // Found in the middle of a round: told at once, and once.
        let found = || running(Side::Source, Some(round(1, 0)));
        assert_eq!(told(&clean, found()), Some(round(1, 0)));
        assert_eq!(told(&damaged, found()), None);
        let value = |number: u32| Verified {
            other_differences: 1,
            differing: vec![Differing { name: format!("s: behind {number}"), rows: 0 }],
            ..round(0, 700)
        };
        let moved = Verified { finished_at: ago(5), ..value(2) };
        assert_eq!(told(&resting(Some(value(1))), ended(moved)), None, "the same sequence");
    }

    #[test]
    fn what_is_told_can_be_folded_and_only_at_rest() {
        let mut facts = Facts { epoch: 1, ..long_verified() };
        let event = Event::Verified { verified: round(3, 5) };
        let entry = |facts: &Facts| Entry {
            seq: facts.next_seq,
            at: now(),
            epoch: 1,
            event: event.clone(),
        };
        facts.fold(&entry(&facts)).unwrap();
        assert_eq!(facts.verification, Some(round(3, 5)));
        let mut over = Facts { active: Side::Destination, ..facts.clone() };
        assert!(over.fold(&entry(&over)).is_err(), "it compared the other way round");
        let course = Course::SetUp(crate::steps::Step::VerifyRows);
        let mut early = Facts { course, ..facts };
        assert!(early.fold(&entry(&early)).is_err());
    }

    #[test]
    fn the_gate_goes_by_the_newest_whoever_asked_for_it() {
        let old =
            resting(Some(Verified { began_at: ago(7200), finished_at: ago(7100), ..verified(0) }));
        let code = |view| gate(&old, &world(view), &policy()).map(|blocker| blocker.code);
        let idle = BackgroundView::default();
        assert_eq!(code(idle.clone()).as_deref(), Some("verification_too_old"));
        let kept_fresh = BackgroundView { last: Some(round(0, 60)), ..idle.clone() };
        assert_eq!(code(kept_fresh), None);
        let damaged = BackgroundView { last: Some(round(2, 60)), ..idle.clone() };
        assert_eq!(code(damaged).as_deref(), Some("verification_mismatched"));
        let found = running(Side::Source, Some(round(1, 0)));
        assert_eq!(code(found).as_deref(), Some("verification_mismatched"), "not at its end yet");
        let repaired = resting(Some(verified(0)));
        let before = world(BackgroundView { last: Some(round(2, 60)), ..idle });
        assert_eq!(gate(&repaired, &before, &policy()), None, "a person has mended it since");
        let unseen =
            World { background: Seen::Unknown("away".into()), ..world(BackgroundView::default()) };
        assert_eq!(gate(&repaired, &unseen, &policy()), None, "the journal's own is enough");
    }

    #[test]
    fn the_worse_of_two_findings_is_shown() {
        let ended =
            |rows| BackgroundView { last: Some(round(rows, 60)), ..BackgroundView::default() };
        let run = Uuid::from_u128(99);
        let with = |last, now_found| {
            let found = Verified { run, ..round(now_found, 0) };
            BackgroundView { running: running(Side::Source, Some(found)).running, ..ended(last) }
        };
        let rows =
            |view| latest(&resting(None), &world(view)).map(|verified| verified.mismatched_rows);
        assert_eq!(
            [rows(with(5, 2)), rows(with(5, 6)), rows(with(0, 1))],
            [Some(5), Some(6), Some(1)]
        );
    }

    #[test]
    fn what_was_written_since_is_said_as_far_as_it_was_measured() {
        let facts = resting(Some(verified(0)));
        let said = |written| {
            let world = World { written, ..world(BackgroundView::default()) };
            since(&facts, &verified(0), &world)
        };
        assert_eq!(said(Seen::Absent), "the source has been active since");
        let of = |run, rows, tables| Seen::Present(Written { run, rows, tables });
        assert_eq!(said(of(FRESH, 9, 1)), "the source has been active since", "of another one");
        let run = verified(0).run;
        assert_eq!(
            said(of(run, 1204, 3)),
            "the source has been active since, and by its statistics 1204 rows in 3 tables were written"
        );
        assert!(said(of(run, 0, 0)).ends_with("nothing was written"), "{}", said(of(run, 0, 0)));
    }
}
