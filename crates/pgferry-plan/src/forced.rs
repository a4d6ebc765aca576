//! Whether a switchover may be forced away from a side that is lost, and what that may cost.
//!
//! Forcing is for a side that nobody can reach any more. One that answers is moved away from in the
//! ordinary way, which loses nothing.

use jiff::Timestamp;

use crate::facts::{Course, Facts, milliseconds};
use crate::finding::Blocker;
use crate::journal::Verb;
use crate::seen::Seen;
use crate::side::{Direction, Side};
use crate::verdict::{not_ready, unseen};
use crate::world::{NodeState, World};

/// What a forced switchover may lose: everything that the lost side acknowledged and that had not
/// arrived.
#[derive(Clone, Debug, PartialEq)]
pub struct Loss {
    /// The side that is lost.
    pub side: Side,
    /// Everything written there before this has arrived, by that side's clock.
    pub arrived_until: Option<Timestamp>,
    /// How long ago that was, by the daemon's clock.
    pub seconds: Option<f64>,
    /// WAL of it that had not been confirmed when both sides were last seen together, and when.
    pub unconfirmed_bytes: Option<(u64, Timestamp)>,
}

impl Loss {
    /// In one sentence for people.
    #[must_use]
    pub fn sentence(&self) -> String {
        let side = self.side;
        let time = match (self.arrived_until, self.seconds) {
            (Some(until), Some(seconds)) => format!(
                "what was written on the {side} after {until:.3} ({seconds:.1} s ago) may be lost"
            ),
            (Some(until), None) => {
                format!("what was written on the {side} after {until:.3} may be lost")
            }
            (None, _) => format!(
                "no heartbeat of the {side} has arrived: nothing says how much of it may be lost"
            ),
        };
        match self.unconfirmed_bytes {
            Some((bytes, at)) => format!(
                "{time}; {bytes} bytes of WAL were not confirmed when both sides were last seen, at {at:.3}"
            ),
            None => format!("{time}; how many bytes that is was not seen"),
        }
    }
}

/// What a forced switchover would lose now.
#[must_use]
pub fn loss(facts: &Facts, world: &World, last_lag: Option<(u64, Timestamp)>) -> Loss {
    let side = facts.kind().from();
    let report = world.lag.present().map(|lag| lag.stream(Direction::leaving(side)));
    let arrived_until = report.and_then(|stream| stream.heartbeat_received_at);
    Loss {
        side,
        arrived_until,
        seconds: arrived_until.map(|until| milliseconds(until, world.now) / 1000.0),
        unconfirmed_bytes: last_lag,
    }
}

/// Everything that stands against forcing; empty means that a person may.
#[must_use]
pub fn blockers(facts: &Facts, world: &World, verb: Verb) -> Vec<Blocker> {
    let kind = facts.kind();
    let not_open_yet = match &facts.course {
        Course::AtRest => true,
        Course::Switchover(switchover) => switchover.step.before_opening(),
        Course::Planned | Course::SetUp(_) | Course::End { .. } | Course::Ended(_) => false,
    };
    if !not_open_yet || Verb::of_switchover(kind) != verb || facts.lost.is_some() {
        return vec![not_ready(facts.phase())];
    }
    let (lost, survivor) = (kind.from(), kind.to());
    let mut blockers = Vec::new();
    if let Seen::Present(_) | Seen::Absent = world.node(lost).record {
        blockers.push(Blocker::new(
            "side_not_lost",
            format!("the {lost} answers: it is not lost"),
            format!("ask for an ordinary {kind}, which loses nothing; or shut the {lost} down for good first"),
        ));
    }
    match &world.node(survivor).record {
        Seen::Present(record) if record.state != NodeState::Open => {}
        Seen::Present(_) => blockers.push(Blocker::new(
            "unexpected_state",
            format!("the {survivor}'s record says open"),
            "there is nothing to open: compare both records before you go on",
        )),
        Seen::Absent => blockers.push(unseen(&format!("the {survivor}'s record"), "it is gone")),
        Seen::Unknown(reason) => blockers.push(unseen(&format!("the {survivor}"), reason)),
    }
    blockers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::side::Kind;
    use crate::steps::Step;
    use crate::world::NodeRecord;
    use uuid::Uuid;

    fn record(side: Side, state: NodeState) -> Seen<NodeRecord> {
        Seen::Present(NodeRecord { side, id: Uuid::nil(), epoch: 1, state, revision: 3 })
    }

    fn check(source: Seen<NodeRecord>, destination: Seen<NodeRecord>, expected: &[&str]) {
        let facts = Facts { course: Course::AtRest, ..Facts::default() };
        let mut world = World::default();
        world.source.record = source;
        world.destination.record = destination;
        let found = blockers(&facts, &world, Verb::Cutover);
        let codes: Vec<&str> = found.iter().map(|blocker| blocker.code.as_str()).collect();
        assert_eq!(codes, expected);
    }

    #[test]
    fn a_switchover_that_waits_behind_its_line_for_a_lost_side_may_be_forced_too() {
        let mut world = World::default();
        world.source.record = Seen::Unknown("refused".to_owned());
        world.destination.record = record(Side::Destination, NodeState::Fenced);
        for (step, may_be) in
            [(Step::Yield, true), (Step::OpenOther, true), (Step::ResumeTraffic, false)]
        {
            let course = Course::imagined(Kind::Cutover, step);
            let facts = Facts { course, ..Facts::default() };
            assert_eq!(blockers(&facts, &world, Verb::Cutover).is_empty(), may_be, "{step}");
        }
    }

    #[test]
    fn only_a_side_that_nobody_sees_is_lost_and_only_a_closed_one_that_is_seen_is_opened() {
        let away = || Seen::Unknown("refused".to_owned());
        let (source, destination) = (Side::Source, Side::Destination);
        check(away(), record(destination, NodeState::Fenced), &[]);
        check(away(), record(destination, NodeState::Yielded), &[]);
        check(away(), record(destination, NodeState::Open), &["unexpected_state"]);
        check(away(), away(), &["not_seen"]);
        check(away(), Seen::Absent, &["not_seen"]);
        check(
            record(source, NodeState::Open),
            record(destination, NodeState::Fenced),
            &["side_not_lost"],
        );
        // A server that answers without a record is there, whatever it has become.
        check(Seen::Absent, record(destination, NodeState::Fenced), &["side_not_lost"]);
    }

    #[test]
    fn the_loss_is_said_as_far_as_it_is_known() {
        let until: Timestamp = "2026-11-21T10:00:00Z".parse().unwrap();
        let loss = Loss {
            side: Side::Source,
            arrived_until: Some(until),
            seconds: Some(12.34),
            unconfirmed_bytes: Some((4096, until)),
        };
        let sentence = loss.sentence();
        for part in ["after 2026-11-21T10:00:00.000Z (12.3 s ago)", "4096 bytes"] {
            assert!(sentence.contains(part), "{sentence}");
        }
        let unknown =
            Loss { arrived_until: None, seconds: None, unconfirmed_bytes: None, ..loss }.sentence();
        assert!(unknown.contains("nothing says how much"), "{unknown}");
    }
}
