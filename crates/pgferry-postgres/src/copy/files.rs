//! Whether what was copied is what the snapshot saw: COPY does not say so itself.

use super::queue::Piece;
use super::worker::copy_session;
use super::{CopyError, Shared, sql};
use crate::wire::WireError;

/// Files of tables as they are now, beside the snapshot.
const FILES: &str = "SELECT n.nspname::text, c.relname::text, c.oid, c.relfilenode
FROM unnest($1::text[], $2::text[]) AS wanted (nspname, relname)
JOIN pg_catalog.pg_namespace AS n ON n.nspname = wanted.nspname
JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relname = wanted.relname";

/// Whether somebody waits for a lock on a table: for one that a reader stands in the way of, or
/// behind who waits for such a one.
const IS_WAITED_FOR: &str = "SELECT EXISTS (SELECT FROM pg_catalog.pg_locks
    WHERE locktype = 'relation' AND relation = $1 AND NOT granted
      AND database = (SELECT oid FROM pg_catalog.pg_database
                      WHERE datname = pg_catalog.current_database()))";

/// Truncations that the stream will carry, by table: pglogical's triggers write them into its
/// queue (`pglogical.queue`, message type T). Counted under the snapshot and as it is now: one more
/// is one that the snapshot has not seen.
const TRUNCATIONS: &str = "SELECT pg_catalog.count(*) FROM pglogical.queue
WHERE message_type = 'T' AND message ->> 'schema_name' = $1 AND message ->> 'table_name' = $2";

/// A rewriting ALTER TABLE that committed between the snapshot and COPY's lock makes COPY
/// read nothing, without an error: its rows are newer than the snapshot.
///
/// While COPY held its lock nothing could rewrite the table; so when a fresh statement sees the
/// snapshot's file now, COPY has read it. TRUNCATE changes the file too, and COPY reads what came
/// after it, that is nothing; but the stream carries it, and so both sides come to the same
/// whatever was copied before. It is told from a rewrite by pglogical's own note of it.
pub(super) async fn check_same_files(shared: &Shared, pieces: &[Piece]) -> Result<(), CopyError> {
    let looking = |error| CopyError::on_source("looking at the copied tables", error);
    let client = shared.source.client().await.map_err(|error| looking(error.into()))?;
    let names = || pieces.iter().map(|piece| &shared.tables[piece.table].name);
    let schemas: Vec<&str> = names().map(|name| name.schema.as_str()).collect();
    let tables: Vec<&str> = names().map(|name| name.name.as_str()).collect();
    let rows = client.query(FILES, &[&schemas, &tables]).await;
    let rows = rows.map_err(|error| looking(error.into()))?;
    for piece in pieces {
        let table = &shared.tables[piece.table];
        let is_it = |row: &&tokio_postgres::Row| {
            row.get::<_, &str>(0) == table.name.schema && row.get::<_, &str>(1) == table.name.name
        };
        let now = rows.iter().find(is_it).map(|row| (row.get::<_, u32>(2), row.get::<_, u32>(3)));
        if now == Some(table.file) {
            continue;
        }
        if now.is_none_or(|(oid, _)| oid != table.file.0) {
            // What has its name now is in no set; the comparison of both sides names it.
            tracing::info!(table = %table.name, "it was dropped on the source meanwhile");
        } else if truncation_is_on_its_way(shared, piece).await? {
            tracing::info!(table = %table.name, "it was truncated: the stream brings that over");
        } else {
            return Err(CopyError::SourceRewritten { table: table.name.clone() });
        }
    }
    Ok(())
}

/// Whether the application waits for the table that a COPY is reading: a large one is read for hours.
pub(super) async fn is_waited_for(shared: &Shared, piece: &Piece) -> Result<bool, CopyError> {
    let table = &shared.tables[piece.table];
    let looking = |error| CopyError::on_source(format!("looking at {}", table.name), error);
    let client = shared.source.client().await.map_err(|error| looking(error.into()))?;
    let row = client.query_one(IS_WAITED_FOR, &[&table.file.0]).await;
    Ok(row.map_err(|error| looking(error.into()))?.get(0))
}

/// Whether a TRUNCATE that the snapshot has not seen was committed.
async fn truncation_is_on_its_way(shared: &Shared, piece: &Piece) -> Result<bool, CopyError> {
    let name = &shared.tables[piece.table].name;
    let looking = |error| CopyError::on_source(format!("looking at {name}"), error);
    let now = {
        let client = shared.source.client().await.map_err(|error| looking(error.into()))?;
        let row = client.query_one(TRUNCATIONS, &[&name.schema, &name.name]).await;
        row.map_err(|error| looking(error.into()))?.get::<_, i64>(0)
    };
    let Some(snapshot) = &shared.plan.snapshot else { return Ok(false) };
    let connector = shared.source.connector();
    let session = connector
        .session(&copy_session(&shared.source))
        .await
        .map_err(|error| looking(WireError::Connect(error).into()))?;
    let import = sql::import(snapshot);
    session.batch_execute(&import).await.map_err(|error| looking(error.into()))?;
    let row = session.query_one(TRUNCATIONS, &[&name.schema, &name.name]).await;
    let before = row.map_err(|error| looking(error.into()))?.get::<_, i64>(0);
    Ok(now > before)
}
