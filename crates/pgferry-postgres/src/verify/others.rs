//! What is compared beside the rows of tables: definitions, sequences, large objects.
//!
//! Definitions are compared from the source to the destination, whichever side is active, because
//! one was made from the other.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use pgferry_plan::verify::rounds::Wrong;
use pgferry_plan::verify::{Difference, DifferenceKind};
use pgferry_plan::world::SequenceView;
use pgferry_plan::{Side, sequences};
use tokio_postgres::Client;

use super::VerifyError;
use crate::cluster::PgCluster;
use crate::node::LookError;
use crate::observe::sequences::sequences_by;

/// The passive side's sequences follow by upkeep, every few seconds.
const UPKEEP_PATIENCE: Duration = Duration::from_secs(20);
const UPKEEP_POLL: Duration = Duration::from_millis(500);

/// Large objects hashed in one statement.
const OBJECTS_AT_ONCE: i64 = 100;
/// Bytes of an object that the server reads at a time.
const PIECE: i64 = 1 << 20;

/// Each object is opened only to learn its size; INV_READ.
const LIST: &str = "SELECT oid, pg_catalog.lo_lseek64(pg_catalog.lo_open(oid, 262144), 0, 2) \
    FROM (SELECT oid FROM pg_catalog.pg_largeobject_metadata WHERE oid > $1 ORDER BY oid LIMIT $2) AS o";
const CONTENTS: &str = "SELECT o.oid, pg_catalog.md5(pg_catalog.string_agg( \
        pg_catalog.md5(pg_catalog.lo_get(o.oid, n * $3::bigint, ($3::bigint)::int)), '' ORDER BY n)) \
    FROM unnest($1::oid[], $2::bigint[]) AS o (oid, size) \
    CROSS JOIN LATERAL pg_catalog.generate_series(0, o.size / $3::bigint) AS n GROUP BY o.oid";

impl PgCluster {
    /// Compares everything but rows. `at_rest`: the passive side's sequences are kept up.
    pub(super) async fn compare_others(
        &self,
        active: Side,
        at_rest: bool,
    ) -> Result<Vec<Difference>, VerifyError> {
        let mut found = self.definitions_differ().await?;
        found.extend(self.sequences_differ(active, at_rest).await?);
        found.extend(self.large_objects_differ_in_content(active).await?);
        Ok(found)
    }

    async fn definitions_differ(&self) -> Result<Vec<Difference>, VerifyError> {
        let node = self.node(Side::Destination);
        let found = self.definitions().await.map_err(|error| node.fault(&error))?;
        let told = |kind| {
            move |text: String| Difference {
                wrong: Wrong::Different,
                ..other(kind, "schema".to_owned(), text)
            }
        };
        let definitions = found.differing.into_iter().map(told(DifferenceKind::Definition));
        let privileges = found.privileges.into_iter().map(told(DifferenceKind::Privilege));
        let reworded = found.reworded.into_iter().map(told(DifferenceKind::Wording));
        Ok(definitions.chain(privileges).chain(reworded).collect())
    }

    async fn sequences_differ(
        &self,
        active: Side,
        at_rest: bool,
    ) -> Result<Vec<Difference>, VerifyError> {
        let here = self.sequences_of(active).await?;
        let began = Instant::now();
        loop {
            let there = self.sequences_of(active.other()).await?;
            let behind = behind(&here, &there, at_rest);
            // In what was handed out before this began; what came since is upkeep's to carry.
            if behind.is_empty() || began.elapsed() > UPKEEP_PATIENCE {
                let mut found = behind;
                for blocker in
                    [sequences::missing(&here, &there), sequences::differing(&here, &there)]
                        .into_iter()
                        .flatten()
                {
                    found.push(other(DifferenceKind::Sequence, blocker.code, blocker.message));
                }
                return Ok(found);
            }
            tokio::time::sleep(UPKEEP_POLL).await;
        }
    }

    async fn sequences_of(&self, side: Side) -> Result<Vec<SequenceView>, VerifyError> {
        let node = self.node(side);
        let client = node.client().await.map_err(|error| node.fault(&error))?;
        Ok(sequences_by(&client, &self.rules).await.map_err(|error| node.fault(&error))?)
    }

    /// Nothing streams large objects: what differs stays so.
    async fn large_objects_differ_in_content(
        &self,
        active: Side,
    ) -> Result<Vec<Difference>, VerifyError> {
        let (here, there) = (active, active.other());
        let open = async |side: Side| {
            let node = self.node(side);
            let session = node.connector().session(&node.application_name()).await;
            Ok::<_, VerifyError>(session.map_err(|error| node.fault(&LookError::Connect(error)))?)
        };
        let (on_active, on_passive) = tokio::try_join!(open(here), open(there))?;
        let (left, right) =
            tokio::try_join!(contents(&on_active, here), contents(&on_passive, there))?;
        let oids: std::collections::BTreeSet<&u32> = left.keys().chain(right.keys()).collect();
        Ok(oids
            .into_iter()
            .filter_map(|oid| {
                let wrong = match (left.get(oid), right.get(oid)) {
                    (Some(here), Some(there)) if here == there => return None,
                    (Some(_), Some(_)) => Wrong::Different,
                    (Some(_), None) => Wrong::Missing,
                    (None, _) => Wrong::Extra,
                };
                let object = format!("large object {oid}");
                Some(Difference {
                    wrong,
                    ..other(DifferenceKind::LargeObject, object, String::new())
                })
            })
            .collect())
    }
}

fn behind(here: &[SequenceView], there: &[SequenceView], at_rest: bool) -> Vec<Difference> {
    // Before it rests nothing carries values over, and nothing needs to: a switchover sets them.
    if !at_rest {
        return Vec::new();
    }
    sequences::behind(here, there, 0)
        .into_iter()
        .map(|(name, value)| {
            let message = format!("it is behind the active side's {value}");
            other(DifferenceKind::Sequence, name.to_string(), message)
        })
        .collect()
}

fn other(kind: DifferenceKind, object: String, message: String) -> Difference {
    Difference {
        kind,
        object,
        key: None,
        wrong: Wrong::Different,
        rows: 0,
        columns: Vec::new(),
        values: Vec::new(),
        mended: false,
        message,
    }
}

/// A hash of each object's content.
async fn contents(client: &Client, side: Side) -> Result<BTreeMap<u32, String>, VerifyError> {
    let on = VerifyError::on(side);
    let mut all = BTreeMap::new();
    let mut after = 0_u32;
    loop {
        // Descriptors of objects live until the end of their transaction.
        client.batch_execute("BEGIN").await.map_err(&on)?;
        let listed = client.query(LIST, &[&after, &OBJECTS_AT_ONCE]).await.map_err(&on)?;
        let sized = listed
            .iter()
            .map(|row| Ok((row.try_get::<_, u32>(0)?, row.try_get::<_, i64>(1)?)))
            .collect::<Result<Vec<_>, tokio_postgres::Error>>()
            .map_err(&on)?;
        let (oids, sizes): (Vec<u32>, Vec<i64>) = sized.into_iter().unzip();
        let Some(last) = oids.last().copied() else {
            client.batch_execute("COMMIT").await.map_err(&on)?;
            return Ok(all);
        };
        for row in client.query(CONTENTS, &[&oids, &sizes, &PIECE]).await.map_err(&on)? {
            let (oid, content) = (row.try_get(0).map_err(&on)?, row.try_get(1).map_err(&on)?);
            all.insert(oid, content);
        }
        client.batch_execute("COMMIT").await.map_err(&on)?;
        after = last;
    }
}
