//! `/livez`, `/healthz` and `/readyz`. No database is asked: a server that is away must not make an
//! orchestrator restart the daemon.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use pgferry_api::MigrationName;
use serde::Serialize;
use serde_json::json;

use crate::handle::{App, MigrationHandle, NotReady};
use crate::problem::ApiError;

/// 200 while the loop of every migration runs.
pub(super) async fn alive(State(app): State<App>) -> Result<Response, ApiError> {
    if app.migrations.values().any(loop_has_ended) {
        return Err(ApiError::LoopEnded);
    }
    Ok(Json(json!({"live": true})).into_response())
}

/// 200 when this daemon leads every migration and reaches every node; else 503 with the reasons.
pub(super) async fn ready(State(app): State<App>) -> (StatusCode, Json<Readiness>) {
    let reasons: Vec<Reason> = app.migrations.values().flat_map(reasons).collect();
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Readiness { ready: reasons.is_empty(), reasons }))
}

#[derive(Serialize)]
pub(super) struct Readiness {
    ready: bool,
    reasons: Vec<Reason>,
}

#[derive(Serialize)]
struct Reason {
    migration: MigrationName,
    code: String,
    message: String,
}

fn reasons(handle: &MigrationHandle) -> Vec<Reason> {
    let mut found = handle.state.borrow().readiness.clone();
    if loop_has_ended(handle) {
        found.push(NotReady::new("loop_ended", "the loop of this migration has ended"));
    }
    let with_migration = |reason: NotReady| Reason {
        migration: handle.name.clone(),
        code: reason.code,
        message: reason.message,
    };
    found.into_iter().map(with_migration).collect()
}

/// The sender of the state lives in the loop, so its end is the loop's.
fn loop_has_ended(handle: &MigrationHandle) -> bool {
    handle.state.has_changed().is_err()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Fixture;

    #[tokio::test]
    async fn is_alive_while_the_loop_runs_and_whatever_it_says() {
        let fixture = Fixture::new();
        fixture.change(|state| state.readiness.push(NotReady::new("node_unreachable", "away")));
        for path in ["/livez", "/healthz"] {
            fixture.get(path).await.is_json(200, json!({"live": true}));
        }
    }

    #[tokio::test]
    async fn is_not_alive_once_the_loop_has_ended() {
        let mut fixture = Fixture::new();
        fixture.end_loop();
        fixture.get("/livez").await.is_problem(503, "loop_ended");
        let answer = fixture.get("/readyz").await;
        assert_eq!(answer.status, 503);
        assert_eq!(answer.json()["reasons"][0]["code"], "loop_ended");
    }

    #[tokio::test]
    async fn is_ready_when_nothing_speaks_against_it() {
        let fixture = Fixture::new();
        fixture.get("/readyz").await.is_json(200, json!({"ready": true, "reasons": []}));
    }

    #[tokio::test]
    async fn names_every_reason_when_it_is_not_ready() {
        let fixture = Fixture::new();
        fixture.change(|state| {
            state.readiness = vec![
                NotReady::new("not_leader", "b leads"),
                NotReady::new("node_unreachable", "x"),
            ];
        });
        fixture.get("/readyz").await.is_json(
            503,
            json!({"ready": false, "reasons": [
                {"migration": "orders", "code": "not_leader", "message": "b leads"},
                {"migration": "orders", "code": "node_unreachable", "message": "x"},
            ]}),
        );
    }
}
