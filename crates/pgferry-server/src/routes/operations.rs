//! `GET …/{name}/operations/{id}`: how one accepted request stands.

use axum::Json;
use pgferry_api::Operation;

use crate::extract::{OperationId, Target};
use crate::problem::ApiError;

/// Shows one operation of this migration.
pub(super) async fn show(
    Target(handle): Target,
    OperationId(id): OperationId,
) -> Result<Json<Operation>, ApiError> {
    let operation = {
        let state = handle.state.borrow();
        state.operations.iter().find(|operation| operation.id.to_string() == id).cloned()
    };
    operation.map(Json).ok_or(ApiError::OperationNotFound { id })
}

#[cfg(test)]
mod tests {
    use crate::fixture::{Fixture, operation};
    use pgferry_api::Verb;

    #[tokio::test]
    async fn shows_an_operation_by_its_id() {
        let fixture = Fixture::new();
        let running = operation(Verb::Cutover);
        fixture.change(|state| state.operations.push(running.clone()));
        let path = format!("/v1/migrations/orders/operations/{}", running.id);
        fixture.get(&path).await.is_json(200, serde_json::to_value(&running).unwrap());
    }

    #[tokio::test]
    async fn an_unknown_id_and_what_is_no_id_do_not_exist() {
        let fixture = Fixture::new();
        for id in ["00000000-0000-0000-0000-000000000000", "7", "%20"] {
            let path = format!("/v1/migrations/orders/operations/{id}");
            fixture.get(&path).await.is_problem(404, "operation_not_found");
        }
    }
}
