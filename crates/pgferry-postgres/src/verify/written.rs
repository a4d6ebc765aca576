//! The active side's counters of rows written, looked at now and then.
//!
//! One statement for all tables. They are the server's statistics: they come up to a minute late, a
//! crash resets them, and what was rolled back is in them; so they order the reading and tell people,
//! and decide nothing.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use pgferry_plan::scope::TableView;
use pgferry_plan::verify::activity::{Activity, Freshness, Mark};
use pgferry_plan::verify::background::{Written, latest};
use pgferry_plan::{Facts, Seen, Side, TableName, World};
use uuid::Uuid;

use super::lock;
use crate::cluster::PgCluster;
use crate::node::LookError;

/// Between two looks at rest.
const EVERY: Duration = Duration::from_secs(15);

/// The look at rest goes on without them: nothing is decided by them.
const LOOK_TIME: Duration = Duration::from_secs(3);

const COUNTERS: &str = "\
    SELECT c.oid, coalesce(pg_catalog.pg_stat_get_tuples_inserted(c.oid) \
        + pg_catalog.pg_stat_get_tuples_updated(c.oid) \
        + pg_catalog.pg_stat_get_tuples_deleted(c.oid), 0) \
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    WHERE c.relkind = 'r' AND n.nspname !~ '^pg_' \
    AND n.nspname NOT IN ('information_schema', 'pgferry', 'pglogical')";

/// What was seen of the counters, and where they stood when a verification began.
#[derive(Debug, Default)]
pub(super) struct Writes(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Of this side; those of the other one say nothing of it.
    side: Option<Side>,
    activity: Activity,
    looked_at: Option<Instant>,
    /// Of the verification at hand, and of the last one that came to its end.
    at_hand: Option<(Uuid, Mark)>,
    last: Option<(Uuid, Mark)>,
}

impl Writes {
    /// The verification came to its end: from its mark on is what was written since.
    pub(super) fn ended(&self, run: Uuid) {
        let mut state = lock(&self.0);
        state.last = state.at_hand.take_if(|(of, _)| *of == run);
    }
}

impl PgCluster {
    /// Looks at the counters right before a verification reads, and returns how fresh each table is.
    /// `anew`: nothing was compared before, so that what it says holds from here.
    pub(super) async fn mark_writes(
        &self,
        run: Uuid,
        side: Side,
        tables: &[TableView],
        anew: bool,
    ) -> HashMap<TableName, Freshness> {
        if let Err(error) = self.look_at_counters(side).await {
            tracing::debug!(%error, "the counters of rows written were not seen");
            return HashMap::new();
        }
        let mut state = lock(&self.verifier.writes.0);
        let last = state.last.as_ref().map(|(_, mark)| mark);
        let fresh = tables
            .iter()
            .map(|view| (view.name.clone(), state.activity.freshness(view.oid, last)))
            .collect();
        if state.at_hand.as_ref().is_none_or(|(of, _)| *of != run) {
            let mark = state.activity.mark(tables.iter().map(|view| view.oid));
            state.at_hand = anew.then_some((run, mark));
        }
        fresh
    }

    /// What was written since the verification that counts now.
    pub(crate) async fn see_written(&self, facts: &Facts, world: &World) -> Seen<Written> {
        if facts.lost.is_some() {
            return Seen::Absent;
        }
        let due = {
            let state = lock(&self.verifier.writes.0);
            state.looked_at.is_none_or(|at| at.elapsed() >= EVERY)
        };
        if due && let Err(error) = self.look_at_counters(facts.active).await {
            return Seen::Unknown(error.to_string());
        }
        let Some(verified) = latest(facts, world) else { return Seen::Absent };
        let state = lock(&self.verifier.writes.0);
        let mut marks = [&state.at_hand, &state.last].into_iter().flatten();
        match marks.find(|(run, _)| *run == verified.run) {
            Some((run, mark)) if state.side == Some(facts.active) => {
                let (rows, tables) = state.activity.since(mark);
                Seen::Present(Written { run: *run, rows, tables })
            }
            Some(_) | None => Seen::Absent,
        }
    }

    async fn look_at_counters(&self, side: Side) -> Result<(), LookError> {
        let node = self.node(side);
        let counters = async {
            let client = node.client().await?;
            let rows = client.query(COUNTERS, &[]).await?;
            rows.iter()
                .map(|row| {
                    let rows = u64::try_from(row.try_get::<_, i64>(1)?).unwrap_or(0);
                    Ok((row.try_get::<_, u32>(0)?, rows))
                })
                .collect::<Result<Vec<_>, LookError>>()
        };
        let looked = tokio::time::timeout(LOOK_TIME, counters).await;
        lock(&self.verifier.writes.0).looked_at = Some(Instant::now());
        let look = match looked {
            Ok(look) => look?,
            Err(_) => {
                // What is asked for next must not queue behind it.
                node.forget_connections();
                return Err(LookError::Said("the counters were not answered in time".to_owned()));
            }
        };
        let mut state = lock(&self.verifier.writes.0);
        if state.side != Some(side) {
            *state = State { side: Some(side), ..State::default() };
        }
        state.activity.take_in(look);
        state.looked_at = Some(Instant::now());
        Ok(())
    }
}
