//! What is compared beside the rows of tables: definitions, sequences, large objects.
//!
//! Definitions are compared from the source to the destination, whichever side is active, because
//! one was made from the other.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use pgferry_plan::verify::definitions::Definition;
use pgferry_plan::verify::rounds::Wrong;
use pgferry_plan::verify::{Difference, DifferenceKind};
use pgferry_plan::world::SequenceView;
use pgferry_plan::{Side, sequences};
use tokio_postgres::Client;

use super::VerifyError;
use crate::cluster::PgCluster;
use crate::copy::pace::Pace;
use crate::node::LookError;
use crate::observe::sequences::sequences_by;

/// The passive side's sequences follow by upkeep, every few seconds.
const UPKEEP_PATIENCE: Duration = Duration::from_secs(20);
const UPKEEP_POLL: Duration = Duration::from_millis(500);

/// Large objects hashed in one statement.
const OBJECTS_AT_ONCE: usize = 100;
/// Bytes of an object that the server reads at a time.
const PIECE: i64 = 1 << 20;

const OIDS: &str = "SELECT oid FROM pg_catalog.pg_largeobject_metadata ORDER BY oid";
/// Each object is opened only to learn its size; INV_READ.
const SIZES: &str = "SELECT oid, pg_catalog.lo_lseek64(pg_catalog.lo_open(oid, 262144), 0, 2) \
    FROM (SELECT m.oid FROM pg_catalog.pg_largeobject_metadata AS m WHERE m.oid = ANY ($1) OFFSET 0) AS o";
const CONTENTS: &str = "SELECT o.oid, pg_catalog.md5(pg_catalog.string_agg( \
        pg_catalog.md5(pg_catalog.lo_get(o.oid, n * $3::bigint, ($3::bigint)::int)), '' ORDER BY n)) \
    FROM unnest($1::oid[], $2::bigint[]) AS o (oid, size) \
    CROSS JOIN LATERAL pg_catalog.generate_series(0, o.size / $3::bigint) AS n GROUP BY o.oid";

impl PgCluster {
    /// Compares everything but rows. `at_rest`: the passive side's sequences are kept up. Large objects
    /// are read at a pace, on each side.
    pub(super) async fn compare_others(
        &self,
        active: Side,
        at_rest: bool,
        bytes_per_second: Option<u64>,
    ) -> Result<Vec<Difference>, VerifyError> {
        let mut found = self.definitions_differ().await?;
        found.extend(self.sequences_differ(active, at_rest).await?);
        found.extend(self.large_objects_differ_in_content(active, bytes_per_second).await?);
        Ok(found)
    }

    async fn definitions_differ(&self) -> Result<Vec<Difference>, VerifyError> {
        let node = self.node(Side::Destination);
        let found = self.definitions().await.map_err(|error| node.fault(&error))?;
        let told = |kind| move |found: Definition| other(kind, found.object, found.text);
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
                for (names, message) in [
                    (sequences::absent(&here, &there), "it is not on the passive side"),
                    (
                        sequences::unlike(&here, &there),
                        "it is defined otherwise on the passive side: increment, bounds or cycle",
                    ),
                ] {
                    found.extend(names.into_iter().map(|name| {
                        other(DifferenceKind::Sequence, name.to_string(), message.to_owned())
                    }));
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
        bytes_per_second: Option<u64>,
    ) -> Result<Vec<Difference>, VerifyError> {
        let (here, there) = (active, active.other());
        let open = async |side: Side| {
            let node = self.node(side);
            let session = node.connector().session(&node.application_name()).await;
            Ok::<_, VerifyError>(session.map_err(|error| node.fault(&LookError::Connect(error)))?)
        };
        let (on_active, on_passive) = tokio::try_join!(open(here), open(there))?;
        let (left, right) = tokio::try_join!(oids(&on_active, here), oids(&on_passive, there))?;
        let told = |oid: &u32, wrong: Wrong| Difference {
            wrong,
            ..other(DifferenceKind::LargeObject, format!("large object {oid}"), String::new())
        };
        let mut found: Vec<Difference> =
            left.difference(&right).map(|oid| told(oid, Wrong::Missing)).collect();
        found.extend(right.difference(&left).map(|oid| told(oid, Wrong::Extra)));
        // What one side has alone is not read there: this role may not be let.
        let both: Vec<u32> = left.intersection(&right).copied().collect();
        let paces = [Pace::new(bytes_per_second), Pace::new(bytes_per_second)];
        for some in both.chunks(OBJECTS_AT_ONCE) {
            let (left, right) = tokio::try_join!(
                contents(&on_active, here, some, &paces[0]),
                contents(&on_passive, there, some, &paces[1])
            )?;
            let differ = some.iter().filter(|oid| left.get(oid) != right.get(oid));
            found.extend(differ.map(|oid| told(oid, Wrong::Different)));
        }
        Ok(found)
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

async fn oids(client: &Client, side: Side) -> Result<BTreeSet<u32>, VerifyError> {
    let rows = client.query(OIDS, &[]).await.map_err(VerifyError::on(side))?;
    rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>().map_err(VerifyError::on(side))
}

/// A hash of the content of each of these objects that is still there.
async fn contents(
    client: &Client,
    side: Side,
    wanted: &[u32],
    pace: &Pace,
) -> Result<BTreeMap<u32, String>, VerifyError> {
    let on = VerifyError::on(side);
    // Descriptors of objects live until the end of their transaction.
    client.batch_execute("BEGIN").await.map_err(&on)?;
    let listed = client.query(SIZES, &[&wanted]).await.map_err(&on)?;
    let sized = listed
        .iter()
        .map(|row| Ok((row.try_get::<_, u32>(0)?, row.try_get::<_, i64>(1)?)))
        .collect::<Result<Vec<_>, tokio_postgres::Error>>()
        .map_err(&on)?;
    let (oids, sizes): (Vec<u32>, Vec<i64>) = sized.into_iter().unzip();
    let rows = client.query(CONTENTS, &[&oids, &sizes, &PIECE]).await.map_err(&on)?;
    client.batch_execute("COMMIT").await.map_err(&on)?;
    // Behind the transaction: within it the wait would hold back vacuum.
    pace.keep(sizes.iter().map(|size| u64::try_from(*size).unwrap_or(0)).sum()).await;
    rows.iter()
        .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
        .collect::<Result<_, tokio_postgres::Error>>()
        .map_err(on)
}
