//! Answers of many rows, read one row after another: what a catalog says of ten thousand tables is never in
//! memory as rows and as what is made of them at once.

use std::pin::pin;

use futures_util::TryStreamExt;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Row};

/// Hands each row to `take`.
///
/// # Errors
/// Those of the statement, and the first of `take`, behind which no row is taken.
pub(crate) async fn each(
    client: &Client,
    statement: &str,
    parameters: &[&(dyn ToSql + Sync)],
    mut take: impl FnMut(&Row) -> Result<(), Error>,
) -> Result<(), Error> {
    let rows = client.query_raw(statement, parameters.iter().copied()).await?;
    let mut rows = pin!(rows);
    while let Some(row) = rows.try_next().await? {
        take(&row)?;
    }
    Ok(())
}

/// What `read` makes of each row.
///
/// # Errors
/// As [`each`].
pub(crate) async fn all<T>(
    client: &Client,
    statement: &str,
    parameters: &[&(dyn ToSql + Sync)],
    mut read: impl FnMut(&Row) -> Result<T, Error>,
) -> Result<Vec<T>, Error> {
    let mut all = Vec::new();
    each(client, statement, parameters, |row| {
        all.push(read(row)?);
        Ok(())
    })
    .await?;
    Ok(all)
}
