//! Some tables compared by themselves: nothing is written down, and nothing but their rows is looked at.

use std::collections::{BTreeMap, BTreeSet};

use pgferry_plan::TableName;

use super::Run;
use super::planning::pairs;
use crate::copy::pace::Pace;
use crate::verify::VerifyError;
use crate::verify::compare::{Compared, Worker};
use crate::verify::sql::TableSql;

/// The tables that are compared, and a session on each side.
pub(in crate::verify) struct Alone<'a> {
    pub(in crate::verify) worker: Worker<'a>,
    pub(in crate::verify) tables: BTreeMap<TableName, TableSql>,
    cuts: BTreeMap<TableName, (Vec<crate::verify::record::Part>, u64)>,
}

impl Run {
    /// Plans the comparison of those of these tables that both sides have in scope.
    pub(in crate::verify) async fn alone(
        &self,
        names: &BTreeSet<TableName>,
    ) -> Result<Alone<'_>, VerifyError> {
        let (here, there, hashing) = self.both().await?;
        let here: Vec<_> = here.into_iter().filter(|view| names.contains(&view.name)).collect();
        let tables = pairs(&here, &there, hashing);
        let worker = self.worker().await?;
        let mut cuts = BTreeMap::new();
        for view in &here {
            if let Some(table) = tables.get(&view.name) {
                let parts = self.cut(&worker, view, table).await?;
                cuts.insert(view.name.clone(), (parts, view.bytes));
            }
        }
        Ok(Alone { worker, tables, cuts })
    }

    /// Compares one of them.
    pub(in crate::verify) async fn compare_alone(
        &self,
        alone: &Alone<'_>,
        name: &TableName,
        table: &TableSql,
    ) -> Result<Compared, VerifyError> {
        let mut all = Compared::default();
        let Some((parts, bytes)) = alone.cuts.get(name) else { return Ok(all) };
        let pace = Pace::new(self.bytes_per_second());
        for part in parts {
            tokio::select! {
                biased;
                () = self.cancel.cancelled() => return Err(VerifyError::Stopped),
                () = pace.keep(bytes / parts.len().max(1) as u64) => {}
            }
            let compared = self.compared(&alone.worker, table, part, &self.cancel).await?;
            all.rows += compared.rows;
            all.mismatched += compared.mismatched;
            all.at_least |= compared.at_least;
        }
        Ok(all)
    }
}
