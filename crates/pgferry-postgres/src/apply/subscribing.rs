//! Creating a subscription that copies nothing: by pglogical alone where it can, and with a slot of
//! pgferry's making where an old release cannot ask a newer server for one.
//!
//! pglogical's own program for standbys marks a subscription as initialised in the same way.

use pgferry_engine::Fault;
use pgferry_plan::{Direction, pglogical};

use crate::cluster::PgCluster;
use crate::node::{LookError, Node};
use crate::quote::literal;
use crate::statements::{self, Guard};

impl PgCluster {
    /// Creates the subscription of a direction on these sets.
    pub(super) async fn create_subscription(
        &self,
        direction: Direction,
        sets: &[String],
        guard: Guard,
    ) -> Result<(), Fault> {
        let conninfo = self.peer_conninfo(direction.from());
        let as_text = self.has_oid_columns().await?;
        let name = self.config.name.subscription(direction);
        let create = statements::create_subscription(&name, conninfo.expose(), sets, as_text);
        let subscriber = self.node(direction.to());
        if self.begins_by_itself(direction).await? {
            return subscriber.mutate(guard, &create).await;
        }
        let slot = self.generated_slot_name(direction).await?;
        let from = self.make_slot(direction, &slot, guard).await?;
        subscriber.mutate(guard, &statements::with_slot_made(&create, &name, &slot, &from)).await
    }

    async fn begins_by_itself(&self, direction: Direction) -> Result<bool, Fault> {
        let release: String = ask(self.node(direction.to()), RELEASE).await?;
        let major: i32 = ask(self.node(direction.from()), MAJOR).await?;
        Ok(pglogical::begins_by_itself(&release, major))
    }

    async fn generated_slot_name(&self, direction: Direction) -> Result<String, Fault> {
        let subscriber = self.node(direction.to());
        let name = &self.config.name;
        let sql = format!(
            "SELECT pglogical.pglogical_gen_slot_name({}::name, {}::name, {}::name)::text",
            literal(subscriber.database()),
            literal(&name.node(direction.from())),
            literal(&name.subscription(direction))
        );
        ask(subscriber, &sql).await
    }

    /// Makes the slot anew and says where it begins: one that a try before this left behind would
    /// begin earlier.
    async fn make_slot(
        &self,
        direction: Direction,
        slot: &str,
        guard: Guard,
    ) -> Result<String, Fault> {
        let provider = self.node(direction.from());
        provider.mutate(guard, &statements::drop_slot(slot)).await?;
        ask(provider, &statements::create_slot(slot, guard.epoch)).await
    }
}

/// One value of a server's; no row means that the statement's condition on the epoch did not hold.
async fn ask<T: for<'a> tokio_postgres::types::FromSql<'a>>(
    node: &Node,
    sql: &str,
) -> Result<T, Fault> {
    let look = async {
        let client = node.client().await?;
        let row = client.query_opt(sql, &[]).await?;
        row.map(|row| row.try_get::<_, T>(0)).transpose().map_err(LookError::from)
    };
    match look.await {
        Ok(Some(value)) => Ok(value),
        Ok(None) => Err(Fault::EpochRaised),
        Err(error) => Err(node.fault(&error)),
    }
}

/// The extension's version. A server that runs an older library than this refuses to replicate.
const RELEASE: &str = "SELECT coalesce((SELECT extversion FROM pg_catalog.pg_extension \
    WHERE extname = 'pglogical'), '')";

const MAJOR: &str = "SELECT current_setting('server_version_num')::int / 10000";
