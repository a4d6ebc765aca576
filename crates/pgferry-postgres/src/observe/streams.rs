//! Looks at subscriptions, slots and origins, as far as steps depend on them. Lag is the
//! monitor's.

use pgferry_plan::decide::rests;
use pgferry_plan::world::{SlotView, SubscriptionView, World};
use pgferry_plan::{Direction, LagReport, Lsn, Seen};
use tokio_postgres::error::SqlState;

use super::Look;
use crate::cluster::PgCluster;
use crate::node::{LookError, is_missing};

impl PgCluster {
    /// The lag as the monitor last saw it; at most one poll interval old.
    pub(crate) fn lag(&self) -> LagReport {
        self.lag.borrow().clone()
    }

    pub(crate) async fn see_stream(&self, world: &mut World, direction: Direction) {
        let subscription = self.subscription(direction).await;
        let stream = world.stream_mut(direction);
        if let Ok(Some(seen)) = &subscription {
            stream.slot = Seen::from_look(self.slot(direction, &seen.slot).await);
        } else if let Ok(None) = &subscription {
            stream.slot = Seen::Absent;
        }
        // A walsender without a worker is one that nobody hears: not one whose worker came in between.
        let unheard = matches!(&subscription, Ok(Some(seen)) if !seen.worker)
            && stream.slot.present().is_some_and(SlotView::active);
        let again = if unheard { self.subscription(direction).await } else { subscription };
        stream.subscription = Seen::from_look(again);
    }

    /// Streams that carry nothing and that the step at hand does not look at: what upkeep goes by.
    pub(crate) async fn see_resting_streams(&self, world: &mut World) {
        for direction in Direction::BOTH {
            if rests(direction, world) {
                self.see_stream(world, direction).await;
            }
        }
    }

    /// The subscriber's end alone: the provider may be lost.
    pub(crate) async fn see_subscription(&self, world: &mut World, direction: Direction) {
        world.stream_mut(direction).subscription =
            Seen::from_look(self.subscription(direction).await);
    }

    pub(crate) async fn subscription(&self, direction: Direction) -> Look<SubscriptionView> {
        let client = self.node(direction.to()).client().await?;
        let name = self.config.name.subscription(direction);
        let empty_set = self.config.name.empty_set();
        let row = match client.query_opt(SUBSCRIPTION, &[&name, &empty_set]).await {
            Ok(Some(row)) => row,
            Ok(None) => return Ok(None),
            Err(error) if is_missing(&error) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        Ok(Some(SubscriptionView {
            enabled: row.try_get("enabled")?,
            initialized: row.try_get("initialized")?,
            worker: row.try_get("worker")?,
            real_sets: row.try_get("real_sets")?,
            forwards_nothing: row.try_get("forwards_nothing")?,
            slot: row.try_get("slot")?,
        }))
    }

    async fn slot(&self, direction: Direction, name: &str) -> Look<SlotView> {
        let client = self.node(direction.from()).client().await?;
        let Some(row) = client.query_opt(SLOT, &[&name]).await? else { return Ok(None) };
        let confirmed: String = row.try_get("confirmed_flush")?;
        Ok(Some(SlotView {
            active_pid: row.try_get("active_pid")?,
            confirmed_flush: lsn(&confirmed)?,
            lost: row.try_get("lost")?,
        }))
    }

    /// How far a subscription has been applied. Absent where the role may not ask.
    pub(crate) async fn see_origin(&self, world: &mut World, direction: Direction) {
        let look = self.origin(direction, world).await;
        world.stream_mut(direction).origin = Seen::from_look(look);
    }

    async fn origin(&self, direction: Direction, world: &World) -> Look<Lsn> {
        let Seen::Present(subscription) = &world.stream(direction).subscription else {
            return Ok(None);
        };
        let client = self.node(direction.to()).client().await?;
        match client.query_opt(ORIGIN, &[&subscription.slot]).await {
            Ok(Some(row)) => match row.try_get::<_, Option<String>>(0)? {
                Some(text) => Ok(Some(lsn(&text)?)),
                None => Ok(None),
            },
            Ok(None) => Ok(None),
            Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

pub(crate) fn lsn(text: &str) -> Result<Lsn, LookError> {
    text.parse().map_err(|error: pgferry_plan::lsn::InvalidLsn| LookError::Said(error.to_string()))
}

/// An empty list of forwarded origins is stored as NULL.
const SUBSCRIPTION: &str = "\
    SELECT s.sub_enabled AS enabled, s.sub_slot_name::text AS slot, \
    coalesce(cardinality(s.sub_forward_origins), 0) = 0 AS forwards_nothing, \
    NOT $2 = ANY (s.sub_replication_sets) AS real_sets, \
    coalesce((SELECT y.sync_status = 'r' FROM pglogical.local_sync_status y \
        WHERE y.sync_subid = s.sub_id AND y.sync_nspname IS NULL AND y.sync_relname IS NULL), \
        false) AS initialized, \
    EXISTS (SELECT FROM pg_catalog.pg_stat_activity a WHERE a.backend_type = format( \
        'pglogical apply %s:%s', (SELECT oid FROM pg_catalog.pg_database \
        WHERE datname = current_database()), s.sub_id)) AS worker \
    FROM pglogical.subscription s WHERE s.sub_name = $1::text::name";

const SLOT: &str = "\
    SELECT active_pid, coalesce(confirmed_flush_lsn, '0/0')::text AS confirmed_flush, \
    coalesce(wal_status = 'lost', false) AS lost \
    FROM pg_catalog.pg_replication_slots WHERE slot_name = $1::text::name";

const ORIGIN: &str = "SELECT pg_catalog.pg_replication_origin_progress($1, true)::text";
