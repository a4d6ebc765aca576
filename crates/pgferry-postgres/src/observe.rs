//! Looking: what the step at hand needs, both servers side by side, nothing written.
//!
//! A look never fails. A server that is away, a privilege that is missing, a query that times out
//! make the part that they concern Unknown, and nothing else.

pub(crate) mod columns;
pub(crate) mod copy;
mod definitions;
mod drain;
pub(crate) mod end;
mod existing;
pub(crate) mod fence;
pub(crate) mod known_roles;
pub(crate) mod native;
pub(crate) mod node;
pub(crate) mod peers;
pub(crate) mod sequences;
mod strays;
pub(crate) mod streams;
pub(crate) mod tables;
pub(crate) mod uncarried;

use std::time::Duration;

use jiff::Timestamp;
use pgferry_plan::journal::Intent;
use pgferry_plan::strays::watched;
use pgferry_plan::world::{NodeRecord, NodeState, NodeView};
use pgferry_plan::{Course, Direction, Facts, Seen, Side, Step, World};

use self::known_roles::StillKnown;
use self::strays::Watched;
use crate::cluster::PgCluster;
use crate::node::LookError;

/// What was looked for: there, not there, or not seen.
pub(crate) type Look<T> = Result<Option<T>, LookError>;

impl PgCluster {
    pub(crate) async fn look(&self, facts: &Facts) -> World {
        let mut world = World { now: Timestamp::now(), ..World::default() };
        world.job = self.jobs.view();
        // In this order: what has ended before the verification did is seen to have ended.
        world.verification = self.verification_view();
        world.background = self.background_view();
        world.repairs = Seen::Present(self.verifier.repairs.views());
        world.stray_comparison = self.stray_comparison();
        world.lag = Seen::Present(self.lag());
        match (&facts.course, facts.step()) {
            (Course::Switchover(switchover), Some(_)) if switchover.unwinding.is_some() => {
                // The other side is not asked: it may be what is away, and nothing depends on it.
                let from = switchover.kind.from();
                *world.node_mut(from) = self.node_view_within(NODE_LOOK_TIME, from, FENCE).await.0;
            }
            (_, Some(step)) => Box::pin(self.look_for(step, facts, &mut world)).await,
            (Course::AtRest, None) => {
                world.background = self.see_rounds().await;
                world.written = self.see_written(facts, &world).await;
                Box::pin(self.look_for(Step::CheckVerdict, facts, &mut world)).await
            }
            (_, None) => {}
        }
        if watched(facts).is_some() {
            self.see_fates(facts, &mut world).await;
        }
        world
    }

    async fn look_for(&self, step: Step, facts: &Facts, world: &mut World) {
        if self.copies_by_pglogical() {
            self.see_for_native_copy(step, world).await;
        }
        let from = facts.kind().from();
        match step {
            Step::CheckPrerequisites => {
                world.findings = Seen::Present(self.preflight(facts).await);
            }
            Step::InstallPglogical => {
                for side in Side::BOTH {
                    self.see_record(world, side).await;
                    world.node_mut(side).install =
                        Seen::from_look(node::install(self.node(side)).await);
                }
            }
            Step::FenceDestination => {
                self.see_record(world, Side::Destination).await;
                self.see_fence_and_roles(world, Side::Destination).await;
            }
            Step::CreateNodes => self.see_pglogical_nodes(world).await,
            Step::CheckPeers => world.peers = Seen::from_look(self.peers(facts).await),
            Step::CopySchema if self.takes_existing_schema() => {
                if self.jobs.is_idle() {
                    world.existing = Seen::from_look(self.existing().await);
                }
            }
            Step::CopySchema => {
                world.existing = Seen::Absent;
                if self.jobs.is_idle() {
                    world.schema = Seen::from_look(self.schema().await);
                }
            }
            Step::CreateSourceSets => self.see_to_replicate(world, Side::Source).await,
            Step::CreateForwardSubscription => self.see_stream(world, Direction::Forward).await,
            Step::CopyRows if self.copies_by_pglogical() => {}
            Step::CopyRows => {
                if self.jobs.is_idle() {
                    self.see_stream(world, Direction::Forward).await;
                    world.copy = Seen::from_look(self.copy_view(facts.copy_lsn).await);
                    world.schema = Seen::from_look(self.schema().await);
                }
            }
            Step::BuildIndexes => {
                if self.jobs.is_idle() {
                    world.missing_indexes = Seen::from_look(self.missing_indexes().await);
                }
            }
            Step::StartForwardStream => {
                self.see_stream(world, Direction::Forward).await;
                self.see_origin(world, Direction::Forward).await;
            }
            Step::AwaitCatchUp => self.see_resting_streams(world).await,
            Step::ResumeTraffic | Step::LeadTraffic => {}
            Step::AnalyzeDestination => {
                if self.jobs.is_idle() {
                    world.tables_to_analyze = Seen::from_look(self.tables_to_analyze().await);
                }
            }
            // What it needs is seen with every look.
            Step::VerifyRows => {}
            Step::CreateDestinationSets => self.see_to_replicate(world, Side::Destination).await,
            Step::CreateReverseSubscription => self.see_stream(world, Direction::Reverse).await,
            Step::ProveBothDirections => {
                for direction in Direction::BOTH {
                    self.see_stream(world, direction).await;
                }
                self.see_markers(world).await;
            }
            Step::CheckVerdict => Box::pin(self.see_all_for_verdict(facts, world)).await,
            Step::WarmSequences => {
                // More than the step needs: the connections of the stall have every statement
                // prepared before it begins.
                self.see_within(NODE_LOOK_TIME_AT_REST, world, EVERYTHING, EVERYTHING).await;
            }
            Step::PauseTraffic => {
                // Writes are held from then on, and the fence goes on from the look that sees it.
                let holds = Intent::PauseTraffic { side: from, holds: true };
                if facts.intents.contains(&holds) {
                    self.see_for_fence(facts, world, from).await;
                }
            }
            Step::FenceActive => self.see_for_fence(facts, world, from).await,
            Step::Drain => {
                let of_from = Wants { fence: true, marker: true, ..RECORD };
                self.see_pair(world, from, of_from, MARKER).await;
                if drain::may_end_drain(facts, world) {
                    let of_to = Wants { fence: false, roles: false, ..EVERYTHING };
                    let catalogs = self.see_pair(world, from, EVERYTHING, of_to).await;
                    let fingerprints = catalogs.each_ref().map(|catalogs| catalogs.fingerprint);
                    if catalogs[from as usize].roles.is_none() {
                        self.see_fence_and_roles(world, from).await;
                    }
                    world.drift = Seen::from_look(self.drift_since_verdict(fingerprints).await);
                }
            }
            Step::SetSequences => {
                let of_from = Wants { fence: true, sequences: true, ..RECORD };
                let of_to = Wants { sequences: true, ..MARKER };
                self.see_pair(world, from, of_from, of_to).await;
            }
            Step::Yield => {
                self.see_pair(world, from, FENCE, MARKER).await;
            }
            Step::OpenOther => {
                // The side that has yielded may be away; nobody waits for it longer than it takes
                // to see that it was opened by hand.
                let to = from.other();
                let (of_from, of_to) = tokio::join!(
                    self.node_view_within(LOOK_TIME_AT_YIELDED, from, RECORD),
                    self.node_view_within(NODE_LOOK_TIME, to, Wants { marker: true, ..FENCE }),
                );
                (*world.node_mut(from), *world.node_mut(to)) = (of_from.0, of_to.0);
                let last = facts.switchover().and_then(|switchover| switchover.last_marker);
                let arrived = world.node(to).marker.present().map(|marker| marker.other);
                if arrived.is_some() && arrived < last {
                    // Why it does not come again; the side that has yielded may be away.
                    let stream = self.see_stream(world, Direction::leaving(from));
                    let _in_time = tokio::time::timeout(NODE_LOOK_TIME, stream).await;
                }
            }
            Step::Confirm => {
                let of_to = Wants { fence: true, marker: true, ..RECORD };
                self.see_pair(
                    world,
                    from,
                    Wants { strays: Some(Watched::BehindTheLine), ..of_to },
                    of_to,
                )
                .await;
                self.see_resting_streams(world).await;
            }
            Step::CutStream => self.see_subscription(world, Direction::leaving(from)).await,
            Step::RaiseSequences => {
                let survivor = from.other();
                let wants = Wants { sequences: true, ..RECORD };
                self.see_survivor(world, survivor, wants).await;
                world.node_mut(survivor).column_values =
                    Seen::from_look(columns::column_values(self.node(survivor), &self.rules).await);
            }
            Step::OpenSurvivor => self.see_survivor(world, from.other(), FENCE).await,
            Step::DropStreams => {
                let survivor = from.other();
                self.see_subscription(world, Direction::leaving(from)).await;
                world.node_mut(survivor).orphans =
                    Seen::from_look(self.orphans(survivor, facts).await);
            }
            Step::DrainBoth => {
                for direction in Direction::BOTH {
                    self.see_stream(world, direction).await;
                }
                self.see_markers(world).await;
            }
            Step::DisableSubscriptions | Step::DropSubscriptions => {
                for direction in Direction::BOTH {
                    self.see_stream(world, direction).await;
                }
            }
            Step::CheckSlotsAndOrigins => {
                for side in Side::BOTH {
                    world.node_mut(side).orphans = Seen::from_look(self.orphans(side, facts).await);
                }
            }
            Step::DropNodes => {
                if facts.set_aside && self.jobs.is_idle() {
                    world.still_aside = Seen::from_look(self.still_aside().await);
                }
                self.see_pglogical_nodes(world).await;
                let mut seen = World::default();
                self.see(&mut seen, FENCE, FENCE).await;
                for side in Side::BOTH {
                    let node = seen.node_mut(side);
                    node.pglogical_node = std::mem::take(&mut world.node_mut(side).pglogical_node);
                    *world.node_mut(side) = std::mem::take(node);
                }
            }
            Step::RemovePglogical => {
                for side in Side::BOTH {
                    self.see_record(world, side).await;
                    world.node_mut(side).removable =
                        Seen::from_look(self.removable(side, facts).await);
                }
            }
            Step::LeftoverScan => world.leftovers = Seen::from_look(self.leftovers(facts).await),
            Step::ArchiveJournal | Step::DropJournal => {
                world.journal = Seen::from_look(self.journal_view().await);
            }
        }
    }

    /// Who may still write on the active side, with the marker: it is the next step's, which goes on
    /// from the look that ends the fence.
    async fn see_for_fence(&self, facts: &Facts, world: &mut World, from: Side) {
        let open = !facts.intents.contains(&Intent::Fence { side: from });
        let of_from = Wants { fence: true, marker: true, roles: open, ..RECORD };
        let catalogs = self.see_pair(world, from, of_from, RECORD).await;
        let still_open = |record: &NodeRecord| record.state == NodeState::Open;
        if world.node(from).record.present().is_some_and(still_open) {
            self.add_known_roles(world, from, catalogs[from as usize].roles.as_ref()).await;
        }
    }

    async fn see_all_for_verdict(&self, facts: &Facts, world: &mut World) {
        let of = |side| {
            let strays = (watched(facts) == Some(side)).then_some(Watched::AtRest);
            Wants { sequences: true, strays, ..RECORD }
        };
        let (source, destination) = (of(Side::Source), of(Side::Destination));
        self.see_within(NODE_LOOK_TIME_AT_REST, world, source, destination).await;
        for direction in Direction::BOTH {
            self.see_stream(world, direction).await;
        }
        // A switchover begins with the whole comparison, and keeps what its stall has no time for.
        let drift = match facts.switchover() {
            Some(_) => {
                self.see_fences_and_keep_roles(world, facts.kind().from()).await;
                self.drift().await
            }
            None => {
                self.see_fences_and_roles(world).await;
                self.drift_at_rest().await
            }
        };
        world.drift = Seen::from_look(drift);
    }

    /// Looks at both nodes at once, each over one connection in one round trip.
    async fn see(&self, world: &mut World, source: Wants, destination: Wants) -> [Catalogs; 2] {
        self.see_within(NODE_LOOK_TIME, world, source, destination).await
    }

    async fn see_within(
        &self,
        limit: Duration,
        world: &mut World,
        source: Wants,
        destination: Wants,
    ) -> [Catalogs; 2] {
        // Each within its own time: one server that hangs must not blind the look at the other.
        let (source, destination) = tokio::join!(
            self.node_view_within(limit, Side::Source, source),
            self.node_view_within(limit, Side::Destination, destination)
        );
        world.source = source.0;
        world.destination = destination.0;
        [source.1, destination.1]
    }

    /// Looks at one side only: the other is lost.
    async fn see_survivor(&self, world: &mut World, side: Side, wants: Wants) {
        *world.node_mut(side) = self.node_view_within(NODE_LOOK_TIME_AT_REST, side, wants).await.0;
    }

    async fn node_view_within(
        &self,
        limit: Duration,
        side: Side,
        wants: Wants,
    ) -> (NodeView, Catalogs) {
        let node = self.node(side);
        let look = Box::pin(self.node_view(side, wants));
        match tokio::time::timeout(limit * node.patience(), look).await {
            Ok(view) => {
                node.answered();
                view
            }
            Err(_) => {
                node.gave_up();
                Default::default()
            }
        }
    }

    async fn see_pair(
        &self,
        world: &mut World,
        from: Side,
        of_from: Wants,
        of_to: Wants,
    ) -> [Catalogs; 2] {
        match from {
            Side::Source => self.see(world, of_from, of_to).await,
            Side::Destination => self.see(world, of_to, of_from).await,
        }
    }

    async fn node_view(&self, side: Side, wants: Wants) -> (NodeView, Catalogs) {
        let mut view = NodeView::default();
        let client = match self.node(side).client().await {
            Ok(client) => client,
            Err(error) => {
                let reason = error.to_string();
                view.record = Seen::Unknown(reason.clone());
                view.fence = Seen::Unknown(reason.clone());
                view.strays = Seen::Unknown(reason.clone());
                view.marker = Seen::Unknown(reason.clone());
                view.sequences = Seen::Unknown(reason);
                return (view, Catalogs::default());
            }
        };
        if wants.fence {
            // Or a statement that this connection has yet to prepare would overtake another.
            fence::prepare(&client).await;
        }
        let (record, strays, fence, marker, sequences, roles, fingerprint) = tokio::join!(
            biased;
            node::record_by(&client),
            // Before what is prepared is counted: a writer that prepares in between is in one of the two.
            wanted(wants.strays.is_some(), async {
                match wants.strays {
                    Some(watched) => strays::writers_by(side, &client, watched).await,
                    None => Ok(None),
                }
            }),
            wanted(wants.fence, self.fence_by(side, &client)),
            wanted(wants.marker, node::marker_by(side, &client)),
            wanted(wants.sequences, async {
                sequences::sequences_by(&client, &self.rules).await.map(Some)
            }),
            wanted(wants.roles, self.roles_by(side, &client)),
            wanted(wants.fingerprint, tables::fingerprint_by(&client)),
        );
        view.record = Seen::from_look(record);
        view.fence = fence::of_this_record(fence, &view.record);
        view.strays = strays;
        view.marker = marker;
        view.sequences = sequences;
        let catalogs = Catalogs {
            fingerprint: fingerprint.present().copied(),
            roles: match roles {
                Seen::Present(roles) => Some(roles),
                Seen::Absent | Seen::Unknown(_) => None,
            },
        };
        (view, catalogs)
    }

    async fn see_record(&self, world: &mut World, side: Side) {
        world.node_mut(side).record = Seen::from_look(node::record(self.node(side)).await);
    }

    async fn see_markers(&self, world: &mut World) {
        let (source, destination) = tokio::join!(
            node::marker(self.node(Side::Source)),
            node::marker(self.node(Side::Destination))
        );
        world.source.marker = Seen::from_look(source);
        world.destination.marker = Seen::from_look(destination);
    }

    async fn see_pglogical_nodes(&self, world: &mut World) {
        for side in Side::BOTH {
            world.node_mut(side).pglogical_node =
                Seen::from_look(node::pglogical_node(self.node(side)).await);
        }
    }
}

/// Less than a whole look is given while writes are held.
pub(crate) const NODE_LOOK_TIME: Duration = Duration::from_millis(1500);
/// Behind the line, at the side that has yielded.
const LOOK_TIME_AT_YIELDED: Duration = Duration::from_millis(500);
/// While nobody waits: the first look at ten thousand sequences on a connection takes longer than
/// the above, because the server opens each of them anew.
const NODE_LOOK_TIME_AT_REST: Duration = Duration::from_secs(8);

/// What a look at a node is to see beside its record.
#[derive(Clone, Copy, Default)]
struct Wants {
    fence: bool,
    /// Who writes there although it is closed.
    strays: Option<Watched>,
    marker: bool,
    sequences: bool,
    /// Whether the roles that were read before the stall are still all.
    roles: bool,
    /// What stands for the comparison of all tables.
    fingerprint: bool,
}

/// What of a side's catalogs stands for reading them whole, beside the view of a node.
#[derive(Default)]
struct Catalogs {
    fingerprint: Option<i64>,
    /// None when something about them has changed, or was not seen.
    roles: Option<StillKnown>,
}

const RECORD: Wants = Wants {
    fence: false,
    strays: None,
    marker: false,
    sequences: false,
    roles: false,
    fingerprint: false,
};
const EVERYTHING: Wants =
    Wants { fence: true, marker: true, sequences: true, roles: true, fingerprint: true, ..RECORD };
const FENCE: Wants = Wants { fence: true, ..RECORD };
const MARKER: Wants = Wants { marker: true, ..RECORD };

async fn wanted<T>(is: bool, look: impl Future<Output = Look<T>>) -> Seen<T> {
    if is { Seen::from_look(look.await) } else { Seen::default() }
}
