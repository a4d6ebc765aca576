//! Filling the materialized views: a schema-only dump makes them empty, and the stream never
//! carries them.
//!
//! Only those that the source has filled, and only while they are empty here.

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use pgferry_plan::TableName;

use super::{SchemaCopy, SchemaError};
use crate::connect::Session;
use crate::quote;

const MATERIALIZED_VIEWS: &str = "SELECT n.nspname::text, c.relname::text
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind = 'm' AND c.relispopulated = $1
  AND ($2::text[] IS NULL OR n.nspname = ANY ($2))
ORDER BY 1, 2";
const CHECK_EPOCH: &str = "SELECT 1 FROM pgferry.node WHERE epoch = $1 FOR SHARE";

/// Fills them one after the other; one that reads another waits for a later round.
pub(super) async fn fill_materialized_views(
    copy: &SchemaCopy<'_>,
    source: &Client,
) -> Result<(), SchemaError> {
    let name = copy.application_name;
    let destination = copy.destination.session(name).await.map_err(SchemaError::Destination)?;
    let filled = views(source, "source", copy, true).await?;
    let mut empty = views(&destination, "destination", copy, false).await?;
    empty.retain(|view| filled.contains(view));
    while !empty.is_empty() {
        let mut left = Vec::new();
        let mut reason = None;
        for view in &empty {
            let filling = fill(&destination, view, copy.epoch);
            let outcome = tokio::select! {
                outcome = filling => outcome?,
                () = copy.cancel.cancelled() => {
                    destination.cancel_statement().await;
                    return Err(SchemaError::Cancelled);
                }
            };
            if let Err(error) = outcome {
                left.push(view.clone());
                reason = Some(error);
            }
        }
        if let Some(error) = reason.filter(|_| left.len() == empty.len()) {
            return Err(SchemaError::look("destination", &error));
        }
        empty = left;
    }
    Ok(())
}

/// The inner error: it reads a view that is empty itself.
async fn fill(
    destination: &Session,
    view: &TableName,
    epoch: i64,
) -> Result<Result<(), tokio_postgres::Error>, SchemaError> {
    let failed = |error| SchemaError::look("destination", &error);
    destination.batch_execute("BEGIN").await.map_err(failed)?;
    let led = destination.query_opt(CHECK_EPOCH, &[&epoch]).await.map_err(failed)?;
    if led.is_none() {
        return Err(SchemaError::EpochRaised(epoch));
    }
    let refresh = format!("REFRESH MATERIALIZED VIEW {}", quote::table(view));
    match destination.batch_execute(&refresh).await {
        Ok(()) => destination.batch_execute("COMMIT").await.map(Ok).map_err(failed),
        Err(error) if error.code() == Some(&SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE) => {
            destination.batch_execute("ROLLBACK").await.map_err(failed)?;
            Ok(Err(error))
        }
        Err(error) => Err(failed(error)),
    }
}

async fn views(
    client: &Client,
    side: &'static str,
    copy: &SchemaCopy<'_>,
    populated: bool,
) -> Result<Vec<TableName>, SchemaError> {
    let rows = client
        .query(MATERIALIZED_VIEWS, &[&populated, &copy.scope.schemas])
        .await
        .map_err(|error| SchemaError::look(side, &error))?;
    Ok(rows
        .iter()
        .map(|row| TableName::new(row.get::<_, String>(0), row.get::<_, String>(1)))
        .collect())
}
