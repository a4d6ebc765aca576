//! When a drain may end: judged between its cheap look and the one that the next steps go on from.

use pgferry_plan::world::FenceView;
use pgferry_plan::{Facts, World};

/// Whether a drain may end with one more look, at what the next steps need: everything before the fence
/// has arrived, and this look found nobody who writes. A writer that was seen is not looked at again: it
/// may be gone by then, and have committed behind the marker.
pub(super) fn may_end_drain(facts: &Facts, world: &World) -> bool {
    let from = facts.kind().from();
    let arrived = world.node(from.other()).marker.present().map(|marker| marker.other);
    let is_closed = |fence: &FenceView| {
        fence.writers.is_empty() && fence.prepared == 0 && fence.unfenced.is_empty()
    };
    facts.intended_marker(from).is_some_and(|token| arrived >= Some(token))
        && world.node(from).fence.present().is_some_and(is_closed)
}

#[cfg(test)]
mod tests {
    use pgferry_plan::journal::Intent;
    use pgferry_plan::world::{MarkerView, SessionView};
    use pgferry_plan::{Course, Seen, SessionId, Side};

    use super::*;

    fn check(arrived: u64, fence: Seen<FenceView>, expected: bool) {
        let facts = Facts {
            course: Course::AtRest,
            active: Side::Source,
            intents: vec![Intent::WriteMarker { side: Side::Source, token: 7 }],
            ..Facts::default()
        };
        let mut world = World::default();
        world.source.fence = fence;
        world.destination.marker =
            Seen::Present(MarkerView { other: arrived, ..MarkerView::default() });
        assert_eq!(may_end_drain(&facts, &world), expected);
    }

    #[test]
    fn a_writer_seen_where_the_marker_arrives_is_not_forgotten_by_another_look() {
        check(7, Seen::Present(FenceView::default()), true);
        check(6, Seen::Present(FenceView::default()), false);
        check(7, Seen::Unknown(String::new()), false);
        let writer = SessionView {
            id: SessionId { pid: 1, started_us: 1 },
            role: "app".into(),
            idle: false,
        };
        let writes = FenceView { writers: vec![writer], ..FenceView::default() };
        check(7, Seen::Present(writes), false);
        check(7, Seen::Present(FenceView { prepared: 1, ..FenceView::default() }), false);
        let broken = FenceView { unfenced: vec!["app".into()], ..FenceView::default() };
        check(7, Seen::Present(broken), false);
    }
}
