//! Looks whether each server reaches the other and itself, with the DSNs that pglogical will use.
//!
//! By a `create_subscription` that is rolled back: pglogical opens all its connections within the
//! call, from inside the server, and a transaction that does not commit leaves nothing.

use pgferry_plan::{Blocker, Direction, Facts};

use super::Look;
use crate::cluster::PgCluster;
use crate::node::{LookError, describe};
use crate::statements::{Guard, create_subscription, guarded};

impl PgCluster {
    pub(crate) async fn peers(&self, facts: &Facts) -> Look<Vec<Blocker>> {
        let mut failures = Vec::new();
        for direction in Direction::BOTH {
            failures.extend(self.peer_failure(direction, facts.epoch).await?);
        }
        Ok(Some(failures))
    }

    async fn peer_failure(
        &self,
        direction: Direction,
        epoch: i64,
    ) -> Result<Option<Blocker>, LookError> {
        let name = &self.config.name;
        let subscription = name.subscription(direction);
        let node = self.node(direction.to());
        // A session of its own, thrown away at once: after a rolled-back create_subscription the
        // next commit of the same session can crash the whole server (pglogical 2.4.2, seen). And
        // dropped in the middle of the probe it ends with its transaction, and pglogical's lock.
        let client =
            node.connector().session(&node.application_name()).await.map_err(LookError::Connect)?;
        if client.query_opt(SUBSCRIPTION_EXISTS, &[&subscription]).await?.is_some() {
            return Ok(None);
        }
        let probe = create_subscription(
            &subscription,
            self.peer_conninfo(direction.from()).expose(),
            &[name.empty_set()],
            false,
        );
        let sql = guarded(direction.to(), Guard::of_epoch(epoch), &probe);
        client.batch_execute("BEGIN").await?;
        let result = client.batch_execute(&sql).await;
        drop(client);
        Ok(result.err().map(|error| {
            Blocker::new(
                "peer_unreachable",
                format!(
                    "the {} server cannot work with both databases as replication will: {}",
                    direction.to(),
                    describe(&error)
                ),
                format!(
                    "let the {} server reach the {} and itself: security groups, pg_hba.conf, and in the configuration peer_dsn, self_dsn and the password that goes with them",
                    direction.to(),
                    direction.from()
                ),
            )
        }))
    }
}

const SUBSCRIPTION_EXISTS: &str =
    "SELECT 1 FROM pglogical.subscription WHERE sub_name = $1::text::name";
