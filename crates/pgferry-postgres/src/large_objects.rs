//! Large objects: all of the database's, copied with oid, owner, grants and comment under the
//! snapshot of the rows that refer to them.
//!
//! Nothing streams them, and no look can tell what is in them afterwards, so what was copied is
//! compared before it is committed: a hash of each object's content, computed by both servers. A
//! repeated copy first takes away what an earlier one left; that the destination had none of its own
//! is preflight's to see to. Never more of an object in memory than one piece. Who granted what is not
//! kept (every grant comes from the owner), and security labels are not carried.

use std::collections::BTreeMap;
use std::pin::pin;

use futures_util::TryStreamExt;
use pgferry_plan::Lsn;
use tokio_postgres::types::{PgLsn, ToSql};
use tokio_postgres::{Client, Row, Statement};
use tokio_util::sync::CancellationToken;

use crate::quote::{ident, literal};

/// Bytes that are read, sent and written at a time.
const PIECE: i32 = 1 << 20;

/// Objects of one transaction: each takes an entry of the server's lock table until its end.
const BATCH: i64 = 200;

const LIST: &str = include_str!("large_objects/list.sql");
const CONTENTS: &str = include_str!("large_objects/contents.sql");
const READ_FIRST: &str = "\
    SELECT o, pg_catalog.lo_get(o, 0, $2) FROM pg_catalog.unnest($1::oid[]) AS o";
const READ: &str = "SELECT pg_catalog.lo_get($1, $2, $3)";
const CREATE: &str = "SELECT pg_catalog.lo_create(o) FROM pg_catalog.unnest($1::oid[]) AS o";
const WRITE: &str = "SELECT pg_catalog.lo_put($1, $2, $3)";
const UNLINK: &str = "\
    SELECT count(pg_catalog.lo_unlink(oid)) FROM (SELECT oid \
    FROM pg_catalog.pg_largeobject_metadata ORDER BY oid LIMIT $1) AS o";
const COUNT: &str = "SELECT count(*) FROM pg_catalog.pg_largeobject_metadata";
/// The side too: were this the source by a name that moved, the unlinking would be a disaster.
const CHECK_EPOCH: &str =
    "SELECT 1 FROM pgferry.node WHERE epoch = $1 AND side = 'destination' FOR SHARE";
/// As for a table, so that the same look finds it: one row stands for all large objects.
const FORGET: &str = "DELETE FROM pgferry.copied
WHERE schema_name = 'pg_catalog' AND table_name = 'pg_largeobject'";
const RECORD: &str = "INSERT INTO pgferry.copied
    (schema_name, table_name, snapshot_lsn, row_count, byte_count, analyzed_at)
VALUES ('pg_catalog', 'pg_largeobject', $1, $2, $3, now())";

/// Copies every large object of the database, and records it in `pgferry.copied` under the name of
/// `pg_catalog.pg_largeobject`; how many there were. May be repeated.
///
/// `source` is in a transaction that has imported the snapshot of `snapshot_lsn`, `destination` in
/// none. After an error both are to be thrown away: what they were doing may still be going on.
///
/// # Errors
/// At the first object that could not be read, written, or compared.
pub async fn copy_large_objects(
    source: &Client,
    destination: &Client,
    snapshot_lsn: Lsn,
    epoch: i64,
    cancel: &CancellationToken,
) -> Result<u64, LargeObjectError> {
    let copying = async {
        let copier = Copier::prepare(source, destination, epoch).await?;
        copier.unlink_all().await?;
        copier.copy_all(snapshot_lsn).await
    };
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(LargeObjectError::Cancelled),
        copied = copying => copied,
    }
}

/// Both sessions with what is asked of them again and again.
struct Copier<'a> {
    source: &'a Client,
    destination: &'a Client,
    epoch: i64,
    read_first: Statement,
    read: Statement,
    write: Statement,
}

/// One object as the source's catalog has it.
struct LargeObject {
    oid: u32,
    owner: String,
    comment: Option<String>,
    /// Privileges other than the default ones: of whom (`None` for PUBLIC), which, WITH GRANT OPTION.
    grants: Option<Vec<(Option<String>, String, bool)>>,
}

impl<'a> Copier<'a> {
    async fn prepare(
        source: &'a Client,
        destination: &'a Client,
        epoch: i64,
    ) -> Result<Self, LargeObjectError> {
        let here = |error| LargeObjectError::on_source("preparing", &error);
        let there = |error| LargeObjectError::on_destination("preparing", &error);
        Ok(Self {
            read_first: source.prepare(READ_FIRST).await.map_err(here)?,
            read: source.prepare(READ).await.map_err(here)?,
            write: destination.prepare(WRITE).await.map_err(there)?,
            source,
            destination,
            epoch,
        })
    }

    /// What an earlier try left, also of objects that the source no longer has.
    async fn unlink_all(&self) -> Result<(), LargeObjectError> {
        let failed = |error| LargeObjectError::on_destination("unlinking", &error);
        loop {
            self.begin().await?;
            self.destination.execute(FORGET, &[]).await.map_err(failed)?;
            let unlinked: i64 = self
                .destination
                .query_one(UNLINK, &[&BATCH])
                .await
                .and_then(|row| row.try_get(0))
                .map_err(failed)?;
            self.destination.batch_execute("COMMIT").await.map_err(failed)?;
            if unlinked < BATCH {
                return Ok(());
            }
        }
    }

    async fn copy_all(&self, snapshot_lsn: Lsn) -> Result<u64, LargeObjectError> {
        let (mut copied, mut bytes, mut last) = (0_u64, 0_i64, 0_u32);
        loop {
            let batch = self.list(last).await?;
            let Some(end) = batch.last().map(|object| object.oid) else { break };
            self.begin().await?;
            let sizes = self.copy(&batch).await?;
            self.compare(&sizes).await?;
            let failed = |error| LargeObjectError::on_destination("committing", &error);
            self.destination.batch_execute("COMMIT").await.map_err(failed)?;
            copied += batch.len() as u64;
            bytes = sizes.values().fold(bytes, |sum, size| sum.saturating_add(*size));
            last = end;
        }
        self.record(snapshot_lsn, copied, bytes).await?;
        tracing::info!(copied, bytes, "large objects copied");
        Ok(copied)
    }

    /// Opens a transaction on the destination under the epoch.
    async fn begin(&self) -> Result<(), LargeObjectError> {
        let failed = |error| LargeObjectError::on_destination("beginning", &error);
        self.destination.batch_execute("BEGIN").await.map_err(failed)?;
        let led = self.destination.query_opt(CHECK_EPOCH, &[&self.epoch]).await.map_err(failed)?;
        led.map(drop).ok_or(LargeObjectError::EpochRaised(self.epoch))
    }

    async fn list(&self, after: u32) -> Result<Vec<LargeObject>, LargeObjectError> {
        let failed = |error| LargeObjectError::on_source("listing", &error);
        let rows = self.source.query(LIST, &[&after, &BATCH]).await.map_err(failed)?;
        rows.iter().map(large_object).collect::<Result<_, _>>().map_err(failed)
    }

    /// Makes the objects of a batch with all that belongs to them; their sizes.
    async fn copy(&self, batch: &[LargeObject]) -> Result<BTreeMap<u32, i64>, LargeObjectError> {
        let oids: Vec<u32> = batch.iter().map(|object| object.oid).collect();
        let creating = |error| LargeObjectError::on_destination("creating", &error);
        self.destination.query(CREATE, &[&oids]).await.map_err(creating)?;
        let mut sizes = BTreeMap::new();
        let mut longer = Vec::new();
        {
            let reading = |error| LargeObjectError::on_source("reading", &error);
            let parameters: [&(dyn ToSql + Sync); 2] = [&oids, &PIECE];
            let rows =
                self.source.query_raw(&self.read_first, parameters).await.map_err(reading)?;
            let mut rows = pin!(rows);
            while let Some(row) = rows.try_next().await.map_err(reading)? {
                let oid: u32 = row.try_get(0).map_err(reading)?;
                let piece: &[u8] = row.try_get(1).map_err(reading)?;
                self.write(oid, 0, piece).await?;
                sizes.insert(oid, size_of(piece));
                if size_of(piece) == i64::from(PIECE) {
                    longer.push(oid);
                }
            }
        }
        for oid in longer {
            sizes.insert(oid, self.copy_rest(oid).await?);
        }
        let describing = |error| LargeObjectError::on_destination("granting", &error);
        let statements: String = batch.iter().map(describe).collect();
        self.destination.batch_execute(&statements).await.map_err(describing)?;
        Ok(sizes)
    }

    /// Everything behind the first piece; the size of the whole.
    async fn copy_rest(&self, oid: u32) -> Result<i64, LargeObjectError> {
        let mut at = i64::from(PIECE);
        loop {
            let reading = |error| LargeObjectError::on_source(format!("reading {oid}"), &error);
            let row =
                self.source.query_one(&self.read, &[&oid, &at, &PIECE]).await.map_err(reading)?;
            let piece: &[u8] = row.try_get(0).map_err(reading)?;
            self.write(oid, at, piece).await?;
            at += size_of(piece);
            if size_of(piece) < i64::from(PIECE) {
                return Ok(at);
            }
        }
    }

    async fn write(&self, oid: u32, at: i64, piece: &[u8]) -> Result<(), LargeObjectError> {
        if piece.is_empty() {
            return Ok(());
        }
        self.destination
            .query(&self.write, &[&oid, &at, &piece])
            .await
            .map(drop)
            .map_err(|error| LargeObjectError::on_destination(format!("writing {oid}"), &error))
    }

    /// Both servers' own words on what they hold, side by side.
    async fn compare(&self, sizes: &BTreeMap<u32, i64>) -> Result<(), LargeObjectError> {
        let oids: Vec<u32> = sizes.keys().copied().collect();
        let lengths: Vec<i64> = sizes.values().copied().collect();
        let of = async |client: &Client| {
            let rows = client.query(CONTENTS, &[&oids, &lengths, &PIECE]).await?;
            let known =
                rows.iter().map(|row| Ok((row.try_get(0)?, (row.try_get(1)?, row.try_get(2)?))));
            known
                .collect::<Result<BTreeMap<u32, (String, Option<String>)>, tokio_postgres::Error>>()
        };
        let (here, there) = tokio::join!(of(self.source), of(self.destination));
        let here = here.map_err(|error| LargeObjectError::on_source("comparing", &error))?;
        let there = there.map_err(|error| LargeObjectError::on_destination("comparing", &error))?;
        match oids
            .into_iter()
            .find(|oid| !here.contains_key(oid) || here.get(oid) != there.get(oid))
        {
            Some(oid) => Err(LargeObjectError::Differs { oid }),
            None => Ok(()),
        }
    }

    async fn record(&self, lsn: Lsn, copied: u64, bytes: i64) -> Result<(), LargeObjectError> {
        let failed = |error| LargeObjectError::on_destination("recording", &error);
        let here = count(self.source)
            .await
            .map_err(|error| LargeObjectError::on_source("counting", &error))?;
        self.begin().await?;
        let there = count(self.destination).await.map_err(failed)?;
        // More of them than a signed 64-bit number do not exist: an oid has 32 bits.
        let copied = i64::try_from(copied).unwrap_or(i64::MAX);
        if here != there || here != copied {
            return Err(LargeObjectError::CountsDiffer { here, there });
        }
        self.destination.execute(FORGET, &[]).await.map_err(failed)?;
        self.destination
            .execute(RECORD, &[&PgLsn::from(lsn.0), &copied, &bytes])
            .await
            .map_err(failed)?;
        self.destination.batch_execute("COMMIT").await.map_err(failed)
    }
}

async fn count(client: &Client) -> Result<i64, tokio_postgres::Error> {
    client.query_one(COUNT, &[]).await?.try_get(0)
}

/// Never above [`PIECE`].
fn size_of(piece: &[u8]) -> i64 {
    i64::try_from(piece.len()).unwrap_or(i64::MAX)
}

fn large_object(row: &Row) -> Result<LargeObject, tokio_postgres::Error> {
    let grantees: Vec<Option<String>> = row.try_get("grantees")?;
    let privileges: Vec<String> = row.try_get("privileges")?;
    let grantable: Vec<bool> = row.try_get("grantable")?;
    let grants = grantees.into_iter().zip(privileges).zip(grantable);
    let grants = grants.map(|((grantee, privilege), option)| (grantee, privilege, option));
    let granted: bool = row.try_get("granted")?;
    Ok(LargeObject {
        oid: row.try_get("oid")?,
        owner: row.try_get("owner")?,
        comment: row.try_get("comment")?,
        grants: granted.then(|| grants.collect()),
    })
}

/// The statements that make a new object what it is on the source, the owner before the grants:
/// they are to come from the owner.
fn describe(object: &LargeObject) -> String {
    let (oid, owner) = (object.oid, ident(&object.owner));
    let mut sql = String::new();
    if let Some(comment) = &object.comment {
        sql.push_str(&format!("COMMENT ON LARGE OBJECT {oid} IS {}; ", literal(comment)));
    }
    sql.push_str(&format!("ALTER LARGE OBJECT {oid} OWNER TO {owner}; "));
    if let Some(grants) = &object.grants {
        sql.push_str(&format!("REVOKE ALL ON LARGE OBJECT {oid} FROM {owner}; "));
        for (grantee, privilege, option) in grants {
            let grantee = grantee.as_deref().map_or_else(|| "PUBLIC".to_owned(), ident);
            let option = if *option { " WITH GRANT OPTION" } else { "" };
            // The word is the server's own: SELECT or UPDATE.
            sql.push_str(&format!(
                "GRANT {privilege} ON LARGE OBJECT {oid} TO {grantee}{option}; "
            ));
        }
    }
    sql
}

/// Why the large objects were not copied.
#[derive(Debug, thiserror::Error)]
pub enum LargeObjectError {
    /// A statement failed on the source.
    #[error("source, {doing} large objects: {message}")]
    OnSource {
        /// What was being done.
        doing: String,
        /// What the server or the driver said.
        message: String,
    },
    /// A statement failed on the destination.
    #[error("destination, {doing} large objects: {message}")]
    OnDestination {
        /// What was being done.
        doing: String,
        /// What the server or the driver said.
        message: String,
    },
    /// What arrived is not what was read.
    #[error("large object {oid} is not the same on both servers after its copy")]
    Differs {
        /// Which.
        oid: u32,
    },
    /// There are others than those that were copied.
    #[error("the source has {here} large objects under the snapshot, and the destination {there}")]
    CountsDiffer {
        /// On the source.
        here: i64,
        /// On the destination.
        there: i64,
    },
    /// Another daemon leads this migration now.
    #[error("the destination's record is not of epoch {0}: another daemon leads now")]
    EpochRaised(i64),
    /// The caller stopped it.
    #[error("the copy of the large objects was cancelled")]
    Cancelled,
}

impl LargeObjectError {
    /// The word for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::OnSource { .. } => "copy_failed_on_source",
            Self::OnDestination { .. } => "copy_failed_on_destination",
            Self::Differs { .. } | Self::CountsDiffer { .. } => "large_objects_differ",
            Self::EpochRaised(_) => "epoch_raised",
            Self::Cancelled => "cancelled",
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::OnSource { .. } => {
                "check that pgferry's role is a member of every owner of large objects, and the \
                 source server's log"
            }
            Self::OnDestination { .. } => {
                "check that pgferry's role is a member of every owner of large objects there, free \
                 disk space, and the destination server's log"
            }
            Self::Differs { .. } | Self::CountsDiffer { .. } => {
                "see that nobody makes or changes large objects on the destination; they are copied \
                 again"
            }
            Self::EpochRaised(_) => "leave it to the daemon that leads",
            Self::Cancelled => "",
        }
    }

    fn on_source(doing: impl Into<String>, error: &tokio_postgres::Error) -> Self {
        Self::OnSource { doing: doing.into(), message: said(error) }
    }

    fn on_destination(doing: impl Into<String>, error: &tokio_postgres::Error) -> Self {
        Self::OnDestination { doing: doing.into(), message: said(error) }
    }
}

/// The message without its DETAIL and CONTEXT, which may show content.
fn said(error: &tokio_postgres::Error) -> String {
    error.as_db_error().map_or_else(|| error.to_string(), |answer| answer.message().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_described_with_its_owner_before_its_grants() {
        let object = LargeObject {
            oid: 16_500,
            owner: "Odd \"one\"".to_owned(),
            comment: Some("it's".to_owned()),
            grants: Some(vec![
                (None, "SELECT".to_owned(), false),
                (Some("app".to_owned()), "UPDATE".to_owned(), true),
            ]),
        };
        assert_eq!(
            describe(&object),
            "COMMENT ON LARGE OBJECT 16500 IS 'it''s'; \
             ALTER LARGE OBJECT 16500 OWNER TO \"Odd \"\"one\"\"\"; \
             REVOKE ALL ON LARGE OBJECT 16500 FROM \"Odd \"\"one\"\"\"; \
             GRANT SELECT ON LARGE OBJECT 16500 TO PUBLIC; \
             GRANT UPDATE ON LARGE OBJECT 16500 TO \"app\" WITH GRANT OPTION; "
        );
    }

    #[test]
    fn default_privileges_stay_the_default_ones() {
        let object = LargeObject { oid: 7, owner: "app".to_owned(), comment: None, grants: None };
        assert_eq!(describe(&object), "ALTER LARGE OBJECT 7 OWNER TO \"app\"; ");
    }
}
