//! Looks for what is left of a migration, while it is taken away and afterwards.

use std::sync::atomic::Ordering;

use pgferry_plan::world::{JournalView, OrphansView};
use pgferry_plan::{Blocker, Direction, Facts, Side};
use tokio_postgres::Client;

use super::Look;
use crate::cluster::PgCluster;
use crate::node::{LookError, is_missing};
use crate::quote::literal;

impl PgCluster {
    /// Slots and origins of this migration on a side. Asked only once no subscription uses them.
    pub(crate) async fn orphans(&self, side: Side, facts: &Facts) -> Look<OrphansView> {
        let client = self.node(side).client().await?;
        let leaving = self.slot_names(&client, Direction::leaving(side), facts).await?;
        let mut arriving =
            self.slot_names(&client, Direction::leaving(side.other()), facts).await?;
        // A repair that was given up leaves it.
        arriving.push(crate::verify::repair_origin(&self.config.name));
        let mut view = OrphansView::default();
        for row in client.query(SLOTS, &[&leaving]).await? {
            view.slots.insert(row.try_get(0)?, row.try_get(1)?);
        }
        for row in client.query(ORIGINS, &[&arriving]).await? {
            view.origins.push(row.try_get(0)?);
        }
        Ok(Some(view))
    }

    /// The slot of a direction, as the journal has it and as pglogical would name it: a crash may
    /// have come between the subscription and the journal's word of it.
    async fn slot_names(
        &self,
        client: &Client,
        direction: Direction,
        facts: &Facts,
    ) -> Result<Vec<String>, LookError> {
        let mut names: Vec<String> = facts.slots[direction as usize].iter().cloned().collect();
        let subscriber = self.node(direction.to()).database();
        let provider = self.config.name.node(direction.from());
        let subscription = self.config.name.subscription(direction);
        match client.query_one(GENERATED_NAME, &[&subscriber, &provider, &subscription]).await {
            Ok(row) => names.push(row.try_get(0)?),
            Err(error) if is_missing(&error) => {}
            Err(error) => return Err(error.into()),
        }
        names.dedup();
        Ok(names)
    }

    /// Whether pgferry's own tables, or the extension it made, are still on a side.
    pub(crate) async fn removable(&self, side: Side, facts: &Facts) -> Look<()> {
        let client = self.node(side).client().await?;
        let row = client.query_one(REMOVABLE, &[]).await?;
        let (tables, extension): (bool, bool) = (row.try_get(0)?, row.try_get(1)?);
        let ours = extension && facts.made_extension[side as usize];
        Ok((tables || ours).then_some(()))
    }

    /// Everything that was not there before, each with the statement that removes it.
    pub(crate) async fn leftovers(&self, facts: &Facts) -> Look<Vec<Blocker>> {
        let mut left = Vec::new();
        for side in Side::BOTH {
            let client = match self.node(side).client().await {
                Err(_) if facts.lost == Some(side) => {
                    left.push(Blocker::new(
                        "side_lost",
                        format!("the {side} is lost, and was not cleaned up"),
                        "keep clients away from it; should it come back, drop its database",
                    ));
                    continue;
                }
                client => client?,
            };
            let orphans = self.orphans(side, facts).await?.unwrap_or_default();
            let mut leftover = |what: String, statement: String| {
                left.push(Blocker::new("leftover", format!("on the {side}: {what}"), statement));
            };
            for slot in orphans.slots.keys() {
                leftover(
                    format!("slot {slot}"),
                    format!("SELECT pg_drop_replication_slot({});", literal(slot)),
                );
            }
            for origin in &orphans.origins {
                leftover(
                    format!("origin {origin}"),
                    format!(
                        "SELECT pg_replication_origin_drop(roname) FROM pg_replication_origin WHERE roname = {};",
                        literal(origin)
                    ),
                );
            }
            let journal_here = self.journal_side == Some(side);
            for row in client.query(LEFT_BEHIND, &[&journal_here]).await? {
                leftover(row.try_get(0)?, row.try_get(1)?);
            }
            let pglogical: bool = client.query_one(PGLOGICAL_STATE, &[]).await?.try_get(0)?;
            if pglogical {
                let names =
                    [self.config.name.node(Side::Source), self.config.name.node(Side::Destination)];
                for row in client.query(PGLOGICAL_ROWS, &[&names.as_slice()]).await? {
                    leftover(row.try_get(0)?, row.try_get(1)?);
                }
            } else if facts.made_extension[side as usize]
                && client.query_one(PGLOGICAL_SCHEMA, &[]).await?.try_get::<_, bool>(0)?
            {
                leftover("schema pglogical".to_owned(), "DROP SCHEMA pglogical;".to_owned());
            }
        }
        Ok(Some(left))
    }

    pub(crate) async fn journal_view(&self) -> Look<JournalView> {
        let Some(side) = self.journal_side else {
            return Ok(Some(JournalView { in_a_node: false, archived: false }));
        };
        let client = self.node(side).client().await?;
        let name = self.config.name.as_str();
        let there = match client.query_opt(LEASE_THERE, &[&name]).await {
            Ok(lease) => lease.is_some(),
            Err(error) if is_missing(&error) => false,
            Err(error) => return Err(error.into()),
        };
        let archived = self.archived.load(Ordering::Relaxed);
        Ok(there.then_some(JournalView { in_a_node: true, archived }))
    }
}

const SLOTS: &str = "SELECT slot_name::text, active FROM pg_catalog.pg_replication_slots \
    WHERE slot_name = ANY ($1::text[]) AND database = current_database()";

const ORIGINS: &str =
    "SELECT roname FROM pg_catalog.pg_replication_origin WHERE roname = ANY ($1::text[])";

const GENERATED_NAME: &str = "SELECT pglogical.pglogical_gen_slot_name(\
    $1::text::name, $2::text::name, $3::text::name)::text";

/// An extension that this role does not own is for the leftover scan to name.
const REMOVABLE: &str = "SELECT to_regclass('pgferry.node') IS NOT NULL, \
    EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = 'pglogical' \
        AND pg_has_role(extowner, 'USAGE'))";

/// pgferry's schema but for the journal, and pglogical's triggers.
const LEFT_BEHIND: &str = "\
    SELECT format('table pgferry.%s', c.relname), format('DROP TABLE pgferry.%I;', c.relname) \
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    WHERE n.nspname = 'pgferry' AND c.relkind = 'r' \
    AND NOT ($1 AND c.relname IN ('journal', 'lease', 'journal_history')) \
    UNION ALL SELECT 'schema pgferry', 'DROP SCHEMA pgferry;' \
    FROM pg_catalog.pg_namespace WHERE nspname = 'pgferry' AND NOT $1 \
    UNION ALL SELECT format('trigger %s on %s', t.tgname, t.tgrelid::regclass), \
    format('DROP TRIGGER %I ON %s;', t.tgname, t.tgrelid::regclass) \
    FROM pg_catalog.pg_trigger t WHERE starts_with(t.tgname, 'queue_truncate_trigger_')";

const PGLOGICAL_STATE: &str = "SELECT to_regclass('pglogical.node') IS NOT NULL";

const PGLOGICAL_SCHEMA: &str = "SELECT to_regnamespace('pglogical') IS NOT NULL";

const PGLOGICAL_ROWS: &str = "\
    SELECT format('pglogical node %s', node_name), \
    format('SELECT pglogical.drop_node(%L);', node_name) \
    FROM pglogical.node WHERE node_name = ANY ($1::text[]::name[])";

/// The tables may stay for other migrations; without a lease this one has no journal.
const LEASE_THERE: &str = "SELECT 1 FROM pgferry.lease WHERE migration = $1";
