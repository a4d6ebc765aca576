//! Looking: what the step at hand needs, both servers side by side, nothing written.
//!
//! A look never fails. A server that is away, a privilege that is missing, a query that times out
//! make the part that they concern Unknown, and nothing else.

pub(crate) mod copy;
pub(crate) mod end;
pub(crate) mod fence;
pub(crate) mod node;
pub(crate) mod peers;
pub(crate) mod sequences;
pub(crate) mod streams;
pub(crate) mod tables;

use jiff::Timestamp;
use pgferry_plan::{Course, Direction, Facts, Seen, Side, Step, World};

use crate::cluster::PgCluster;
use crate::node::LookError;

/// What was looked for: there, not there, or not seen.
pub(crate) type Look<T> = Result<Option<T>, LookError>;

impl PgCluster {
    pub(crate) async fn look(&self, facts: &Facts) -> World {
        let mut world = World { now: Timestamp::now(), ..World::default() };
        world.job = self.jobs.view();
        world.lag = Seen::Present(self.lag());
        match (&facts.course, facts.step()) {
            (Course::Switchover(switchover), Some(_)) if switchover.unwinding.is_some() => {
                let from = switchover.kind.from();
                self.see_record(&mut world, from).await;
                self.see_fence(&mut world, from, false).await;
            }
            (_, Some(step)) => self.look_for(step, facts, &mut world).await,
            (Course::AtRest, None) => self.look_for(Step::CheckVerdict, facts, &mut world).await,
            (_, None) => {}
        }
        world
    }

    async fn look_for(&self, step: Step, facts: &Facts, world: &mut World) {
        let (from, to) = (facts.kind().from(), facts.kind().to());
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
                self.see_fence(world, Side::Destination, true).await;
            }
            Step::CreateNodes => self.see_pglogical_nodes(world).await,
            Step::CheckPeers => world.peers = Seen::from_look(self.peers(facts).await),
            Step::CopySchema => {
                if self.jobs.is_idle() {
                    world.schema = Seen::from_look(self.schema().await);
                }
            }
            Step::CreateSourceSets => self.see_to_replicate(world, Side::Source).await,
            Step::CreateForwardSubscription => self.see_stream(world, Direction::Forward).await,
            Step::CopyRows => {
                if self.jobs.is_idle() {
                    self.see_stream(world, Direction::Forward).await;
                    world.copy = Seen::from_look(self.copy_view(facts.copy_lsn).await);
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
            Step::AwaitCatchUp | Step::PauseTraffic | Step::ResumeTraffic => {}
            Step::AnalyzeDestination => {
                if self.jobs.is_idle() {
                    world.tables_to_analyze = Seen::from_look(self.tables_to_analyze().await);
                }
            }
            Step::CreateDestinationSets => self.see_to_replicate(world, Side::Destination).await,
            Step::CreateReverseSubscription => self.see_stream(world, Direction::Reverse).await,
            Step::ProveBothDirections => {
                for direction in Direction::BOTH {
                    self.see_stream(world, direction).await;
                }
                self.see_markers(world).await;
            }
            Step::CheckVerdict => self.see_all_for_verdict(facts, world).await,
            Step::WarmSequences => {
                self.see_record(world, to).await;
                self.see_sequences(world).await;
            }
            Step::FenceActive => {
                self.see_records(world).await;
                self.see_fence(world, from, true).await;
            }
            Step::Drain => {
                self.see_records(world).await;
                self.see_fence(world, from, false).await;
                self.see_markers(world).await;
                // The comparison of all tables is the longest look of the stall: once is enough,
                // when everything before the fence has arrived.
                if marker_has_arrived(facts, world) {
                    world.drift = Seen::from_look(self.drift().await);
                }
            }
            Step::SetSequences => {
                self.see_records(world).await;
                self.see_fence(world, from, false).await;
                self.see_sequences(world).await;
            }
            Step::Yield => {
                self.see_records(world).await;
                self.see_fence(world, from, false).await;
            }
            Step::OpenOther => {
                self.see_records(world).await;
                self.see_fence(world, to, false).await;
            }
            Step::Confirm => {
                for side in Side::BOTH {
                    self.see_record(world, side).await;
                    self.see_fence(world, side, false).await;
                }
                self.see_markers(world).await;
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
                    world.node_mut(side).orphans =
                        Seen::from_look(self.orphans(side, facts).await);
                }
            }
            Step::DropNodes => {
                self.see_pglogical_nodes(world).await;
                let passive = facts.active.other();
                self.see_record(world, passive).await;
                self.see_fence(world, passive, false).await;
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

    async fn see_all_for_verdict(&self, facts: &Facts, world: &mut World) {
        let (from, to) = (facts.kind().from(), facts.kind().to());
        self.see_records(world).await;
        for direction in Direction::BOTH {
            self.see_stream(world, direction).await;
        }
        self.see_fence(world, from, true).await;
        self.see_fence(world, to, true).await;
        self.see_sequences(world).await;
        world.drift = Seen::from_look(self.drift().await);
    }

    async fn see_record(&self, world: &mut World, side: Side) {
        world.node_mut(side).record = Seen::from_look(node::record(self.node(side)).await);
    }

    async fn see_records(&self, world: &mut World) {
        let (source, destination) = tokio::join!(
            node::record(self.node(Side::Source)),
            node::record(self.node(Side::Destination))
        );
        world.source.record = Seen::from_look(source);
        world.destination.record = Seen::from_look(destination);
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

    async fn see_sequences(&self, world: &mut World) {
        let (source, destination) = tokio::join!(
            sequences::sequences(self.node(Side::Source), &self.rules),
            sequences::sequences(self.node(Side::Destination), &self.rules)
        );
        world.source.sequences = Seen::from_look(source.map(Some));
        world.destination.sequences = Seen::from_look(destination.map(Some));
    }
}

fn marker_has_arrived(facts: &Facts, world: &World) -> bool {
    let from = facts.kind().from();
    let arrived = world.node(from.other()).marker.present().map(|marker| marker.other);
    facts.intended_marker(from).is_some_and(|token| arrived >= Some(token))
}
