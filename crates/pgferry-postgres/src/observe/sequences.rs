//! Looks at every sequence in scope: one statement, and one more for those never called.

use deadpool_postgres::Object;
use pgferry_plan::SequenceName;
use pgferry_plan::scope::ScopeRules;
use pgferry_plan::world::SequenceView;

use crate::node::LookError;
use crate::quote::table;

pub(crate) async fn sequences_by(
    client: &Object,
    rules: &ScopeRules,
) -> Result<Vec<SequenceView>, LookError> {
    let statement = client.prepare_cached(SEQUENCES).await?;
    let mut views = Vec::new();
    let mut uncalled = Vec::new();
    for row in client.query(&statement, &[&rules.schemas]).await? {
        let name = SequenceName::new(
            row.try_get::<_, String>("schema_name")?,
            row.try_get::<_, String>("sequence_name")?,
        );
        // pg_sequence_last_value answers NULL for a sequence that may not be read, as for one
        // that was never called.
        if !row.try_get::<_, bool>("readable")? {
            return Err(LookError::Said(format!("sequence {name} may not be read by this role")));
        }
        let last: Option<i64> = row.try_get("last")?;
        if last.is_none() {
            uncalled.push((views.len(), row.try_get::<_, i64>("start")?));
        }
        views.push(SequenceView {
            name,
            last,
            increment: row.try_get("increment")?,
            min: row.try_get("min")?,
            max: row.try_get("max")?,
            cycle: row.try_get("cycle")?,
        });
    }
    if uncalled.is_empty() {
        return Ok(views);
    }
    // setval(…, false) leaves a sequence "never called" whose next value is not its start.
    for batch in uncalled.chunks(BATCH) {
        let reads: Vec<String> = batch
            .iter()
            .map(|(index, start)| {
                let name = table(&views[*index].name);
                format!("SELECT {index}, {start}::bigint, last_value, is_called FROM {name}")
            })
            .collect();
        for row in client.query_typed(&reads.join(" UNION ALL "), &[]).await? {
            let index = usize::try_from(row.try_get::<_, i32>(0)?).unwrap_or(usize::MAX);
            let Some(view) = views.get_mut(index) else { continue };
            let (start, value, called): (i64, i64, bool) =
                (row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
            let before = value.checked_sub(view.increment);
            view.last = match (called, value == start) {
                (true, _) => Some(value),
                (false, true) => None,
                (false, false) => before.filter(|last| (view.min..=view.max).contains(last)),
            };
        }
    }
    Ok(views)
}

/// A UNION of thousands takes the server's planner seconds, and one of ten thousand its stack.
const BATCH: usize = 200;

const SEQUENCES: &str = "\
    SELECT n.nspname::text AS schema_name, c.relname::text AS sequence_name, \
    s.seqstart AS start, s.seqincrement AS increment, s.seqmin AS min, s.seqmax AS max, \
    s.seqcycle AS cycle, \
    CASE WHEN p.readable THEN pg_catalog.pg_sequence_last_value(c.oid) END AS last, p.readable \
    FROM pg_catalog.pg_sequence s \
    JOIN pg_catalog.pg_class c ON c.oid = s.seqrelid \
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    CROSS JOIN LATERAL (SELECT has_sequence_privilege(c.oid, 'SELECT') \
        AND has_schema_privilege(n.oid, 'USAGE') AS readable) p \
    WHERE c.relpersistence = 'p' AND n.nspname NOT LIKE 'pg\\_%' \
    AND n.nspname NOT IN ('information_schema', 'pgferry', 'pglogical') \
    AND ($1::text[] IS NULL OR n.nspname = ANY ($1)) \
    AND c.oid NOT IN (SELECT d.objid FROM pg_catalog.pg_depend d \
        WHERE d.refclassid = 'pg_catalog.pg_extension'::regclass AND d.deptype = 'e' \
        AND d.classid = 'pg_catalog.pg_class'::regclass) \
    ORDER BY 1, 2";
