//! Looks at how far the columns are that sequences fill, for a side that is to go on alone.
//!
//! An index on the column answers at once, and a column that a sequence fills nearly always has one.
//! Without it the table is read for a few seconds and no longer.

use std::time::{Duration, Instant};

use pgferry_plan::SequenceName;
use pgferry_plan::scope::ScopeRules;
use tokio_postgres::Client;

use super::Look;
use crate::node::Node;
use crate::quote::{ident, table};

/// For each sequence that is owned by a column, or in a column's default, and that was seen in a row.
pub(super) async fn column_values(
    node: &Node,
    rules: &ScopeRules,
) -> Look<Vec<(SequenceName, i64)>> {
    let mut client = node.client().await?;
    let mut columns = Vec::new();
    for row in client.query(SEQUENCE_COLUMNS, &[&rules.schemas]).await? {
        let sequence = SequenceName::new(
            row.try_get::<_, String>("sequence_schema")?,
            row.try_get::<_, String>("sequence_name")?,
        );
        let of = SequenceName::new(
            row.try_get::<_, String>("table_schema")?,
            row.try_get::<_, String>("table_name")?,
        );
        let farthest = if row.try_get::<_, bool>("descending")? { "min" } else { "max" };
        let column = ident(&row.try_get::<_, String>("column_name")?);
        columns
            .push((sequence, format!("SELECT {farthest}({column})::bigint FROM {}", table(&of))));
    }
    let mut values = Vec::new();
    let began = Instant::now();
    for batch in columns.chunks(BATCH) {
        match read(&mut client, batch).await {
            Ok(some) => values.extend(some),
            // One of them cannot be read, or has no index and is large: the others are.
            Err(_) => {
                for column in batch {
                    if began.elapsed() > ALTOGETHER {
                        break;
                    }
                    match read(&mut client, std::slice::from_ref(column)).await {
                        Ok(some) => values.extend(some),
                        Err(error) => tracing::warn!(
                            sequence = %column.0,
                            %error,
                            "its column could not be read: it is raised by the headroom alone"
                        ),
                    }
                }
            }
        }
        if began.elapsed() > ALTOGETHER {
            tracing::warn!("the remaining sequences are raised by the headroom alone");
            break;
        }
    }
    Ok(Some(values))
}

type Column = (SequenceName, String);

/// Within a time of its own, which the server keeps: writes are held meanwhile.
async fn read(
    client: &mut Client,
    columns: &[Column],
) -> Result<Vec<(SequenceName, i64)>, tokio_postgres::Error> {
    let reads: Vec<String> = columns
        .iter()
        .enumerate()
        .map(|(index, (_, select))| format!("SELECT {index}, ({select})"))
        .collect();
    let transaction = client.transaction().await?;
    transaction.batch_execute(TIME).await?;
    let mut values = Vec::new();
    for row in transaction.query(&reads.join(" UNION ALL "), &[]).await? {
        let index = usize::try_from(row.try_get::<_, i32>(0)?).unwrap_or(usize::MAX);
        let value: Option<i64> = row.try_get(1)?;
        if let (Some((sequence, _)), Some(value)) = (columns.get(index), value) {
            values.push((sequence.clone(), value));
        }
    }
    transaction.rollback().await?;
    Ok(values)
}

/// A person has forced it, and the application stands still: what takes longer is left to the headroom.
const TIME: &str = "SET LOCAL statement_timeout = '3s'; SET LOCAL lock_timeout = '1s'";
/// The whole look has twenty seconds.
const ALTOGETHER: Duration = Duration::from_secs(10);

/// A UNION of thousands takes the server's planner seconds.
const BATCH: usize = 100;

/// Both ways that a column is tied to its sequence: ownership (serial and identity columns) and a
/// default that names it. Only integer columns: others are filled by something around nextval().
const SEQUENCE_COLUMNS: &str = "\
    SELECT DISTINCT sn.nspname::text AS sequence_schema, s.relname::text AS sequence_name, \
    tn.nspname::text AS table_schema, t.relname::text AS table_name, \
    a.attname::text AS column_name, p.seqincrement < 0 AS descending \
    FROM pg_catalog.pg_class s \
    JOIN pg_catalog.pg_sequence p ON p.seqrelid = s.oid \
    JOIN pg_catalog.pg_namespace sn ON sn.oid = s.relnamespace \
    JOIN ( \
        SELECT d.objid AS sequence, d.refobjid AS relation, d.refobjsubid AS attnum \
        FROM pg_catalog.pg_depend d \
        WHERE d.classid = 'pg_catalog.pg_class'::regclass \
        AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.deptype IN ('a', 'i') \
        AND d.refobjsubid > 0 \
        UNION \
        SELECT d.refobjid, f.adrelid, f.adnum \
        FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_attrdef f ON f.oid = d.objid \
        WHERE d.classid = 'pg_catalog.pg_attrdef'::regclass \
        AND d.refclassid = 'pg_catalog.pg_class'::regclass \
    ) tied ON tied.sequence = s.oid \
    JOIN pg_catalog.pg_class t ON t.oid = tied.relation AND t.relkind IN ('r', 'p') \
    JOIN pg_catalog.pg_namespace tn ON tn.oid = t.relnamespace \
    JOIN pg_catalog.pg_attribute a ON a.attrelid = t.oid AND a.attnum = tied.attnum \
        AND NOT a.attisdropped \
        AND a.atttypid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype) \
    WHERE s.relkind = 'S' AND s.relpersistence = 'p' AND sn.nspname NOT LIKE 'pg\\_%' \
    AND sn.nspname NOT IN ('information_schema', 'pgferry', 'pglogical') \
    AND ($1::text[] IS NULL OR sn.nspname = ANY ($1)) ORDER BY 1, 2";
