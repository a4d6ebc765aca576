//! `GET …/{name}/verification`: the last comparison of both sides, and what differs, one by one.

use axum::Json;
use pgferry_api::VerificationReport;

use crate::extract::Target;

/// The migration's verification, and the differences that were found.
pub(super) async fn show(Target(handle): Target) -> Json<VerificationReport> {
    let verification = handle.state.borrow().migration.verification.clone();
    Json(VerificationReport { verification, differences: handle.differences.read() })
}

#[cfg(test)]
mod tests {
    use pgferry_api::{Difference, DifferenceKind, KeyPart, Wrong};
    use serde_json::json;

    use crate::fixture::Fixture;

    const PATH: &str = "/v1/migrations/orders/verification";

    #[tokio::test]
    async fn before_the_first_there_is_nothing_to_tell() {
        let answer = Fixture::new().get(PATH).await;
        answer.is_json(200, json!({"verification": null, "differences": []}));
    }

    #[tokio::test]
    async fn a_row_is_told_by_its_key_and_its_columns_without_values() {
        let fixture = Fixture::new();
        fixture.set_differences(vec![Difference {
            kind: DifferenceKind::Row,
            object: "public.orders".to_owned(),
            key: Some(vec![KeyPart { column: "id".to_owned(), value: "7".to_owned() }]),
            wrong: Wrong::Different,
            rows: 1,
            columns: vec!["note".to_owned()],
            values: vec![],
            mended: false,
            message: String::new(),
        }]);
        let shown = fixture.get(PATH).await.json();
        let row = json!({"kind": "row", "object": "public.orders", "wrong": "different", "rows": 1,
            "key": [{"column": "id", "value": "7"}], "columns": ["note"]});
        assert_eq!(shown["differences"], json!([row]));
    }
}
