//! The copy table by table, as `GET /v1/migrations/{name}/copy` shows it.
//!
//! For people who look on: nothing is decided by it. Every field is always present in the JSON; what
//! is not known is null.

use serde::{Deserialize, Serialize};

use crate::words::CopyState;

/// The copy of the rows: its sums, and its tables.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CopyReport {
    /// Tables to copy; null before the copy begins.
    pub tables_total: Option<u64>,
    /// Tables whose every row has arrived and is committed.
    pub tables_done: Option<u64>,
    /// Rows sent so far, by runs before a restart too.
    pub rows: Option<u64>,
    /// Bytes sent so far in COPY's form, likewise.
    pub bytes: Option<u64>,
    /// Bytes expected in all, in COPY's form: an estimate, by the size of the tables' files and by
    /// what was read of them so far. Never below `bytes`.
    pub bytes_expected: Option<u64>,
    /// Indexes that are built table by table; null when no run of the copy is known.
    pub indexes_total: Option<u64>,
    /// Those that are there.
    pub indexes_done: Option<u64>,
    /// Bytes in COPY's form per second of late; null while no rows are on their way.
    pub bytes_per_second: Option<f64>,
    /// Rows per second of late; null while no rows are on their way.
    pub rows_per_second: Option<f64>,
    /// Seconds until the last row has arrived, at the speed of late. Building indexes comes on top,
    /// and is not foretold: null while nothing but indexes is left.
    pub seconds_left: Option<f64>,
    /// How long the copying took, or has taken so far.
    pub seconds: Option<f64>,
    /// Those at work first, then those that wait, the largest first, then those that are done.
    /// Empty before the copy begins and after it has ended.
    pub tables: Vec<CopyTable>,
}

/// One table of the copy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CopyTable {
    /// Its schema, as the catalog holds it.
    pub schema: String,
    /// Its name, as the catalog holds it.
    pub table: String,
    /// What is done with it.
    pub state: CopyState,
    /// Rows sent so far.
    pub rows: u64,
    /// Bytes sent so far in COPY's form.
    pub bytes: u64,
    /// Bytes expected in all: an estimate until its last row has arrived. Never below `bytes`.
    pub bytes_expected: u64,
    /// Indexes that are built for it.
    pub indexes_total: u64,
    /// Those that are there.
    pub indexes_done: u64,
    /// Seconds until its last row has arrived; null while it is not being copied or that is not
    /// known.
    pub seconds_left: Option<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = r#"{
        "tables_total": 11, "tables_done": 3, "rows": 4000, "bytes": 204800, "bytes_expected": 901120,
        "indexes_total": 40, "indexes_done": 7, "bytes_per_second": 512000.0, "rows_per_second": 10000.0,
        "seconds_left": 1.36, "seconds": 0.4,
        "tables": [{"schema": "public", "table": "orders", "state": "copying", "rows": 1000, "bytes": 4096,
                    "bytes_expected": 8192, "indexes_total": 2, "indexes_done": 0, "seconds_left": null}]}"#;

    #[test]
    fn the_document_survives_the_round_trip() {
        let report: CopyReport = serde_json::from_str(DOCUMENT).unwrap();
        let expected: serde_json::Value = serde_json::from_str(DOCUMENT).unwrap();
        assert_eq!(serde_json::to_value(&report).unwrap(), expected);
    }

    #[test]
    fn what_is_not_known_is_null_and_never_left_out() {
        let report = serde_json::to_value(CopyReport::default()).unwrap();
        let fields = report.as_object().unwrap();
        assert_eq!(fields.len(), 12);
        assert_eq!(fields["tables"], serde_json::json!([]));
        assert_eq!(fields.values().filter(|value| value.is_null()).count(), 11);
    }
}
