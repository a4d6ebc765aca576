//! Reading migrations: all, one, its verdict, its findings, its events. From memory only.

use axum::Json;
use axum::extract::State;
use pgferry_api::{Event, Events, Findings, Migration, Migrations, Verdict};
use serde::Deserialize;

use crate::extract::{Parameters, Target};
use crate::handle::App;
use crate::problem::ApiError;

/// `GET /v1/migrations`
pub(super) async fn list(State(app): State<App>) -> Json<Migrations> {
    let migrations =
        app.migrations.values().map(|handle| handle.state.borrow().migration.clone()).collect();
    Json(Migrations { migrations })
}

/// `GET /v1/migrations/{name}`
pub(super) async fn show(Target(handle): Target) -> Json<Migration> {
    Json(handle.state.borrow().migration.clone())
}

/// `GET …/{name}/verdict`
pub(super) async fn verdict(Target(handle): Target) -> Json<Verdict> {
    Json(handle.state.borrow().verdict.clone())
}

/// `GET …/{name}/preflight`: what the last preflight found. Before the first one has ended the
/// answer is 404 and not an empty list, because an empty list says that nothing stands in the way.
pub(super) async fn findings(Target(handle): Target) -> Result<Json<Findings>, ApiError> {
    let findings = handle.state.borrow().findings.clone();
    match findings {
        Some(findings) => Ok(Json(Findings { findings })),
        None => Err(ApiError::PreflightNotRun { name: handle.name }),
    }
}

/// `GET …/{name}/events?after=SEQ`
pub(super) async fn events(
    Target(handle): Target,
    Parameters(range): Parameters<Range>,
) -> Json<Events> {
    let events = handle.state.borrow().events.clone();
    Json(Events { events: later_than(range.after, &events).to_vec() })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Range {
    /// Only events with a greater `seq`; the journal's first event has 1.
    #[serde(default)]
    after: u64,
}

fn later_than(after: u64, events: &[Event]) -> &[Event] {
    &events[events.partition_point(|event| event.seq <= after)..]
}

#[cfg(test)]
mod tests {
    use pgferry_api::{Blocker, Finding, Kind};
    use serde_json::json;

    use super::*;
    use crate::fixture::Fixture;

    #[tokio::test]
    async fn lists_and_shows_what_the_loop_said_last() {
        let fixture = Fixture::new();
        fixture.change(|state| state.migration.step = Some("copy_rows".to_owned()));
        let one = fixture.get("/v1/migrations/orders").await;
        assert_eq!((one.status, one.header("content-type")), (200, "application/json"));
        assert_eq!(one.json()["step"], "copy_rows");
        let all = fixture.get("/v1/migrations").await;
        all.is_json(200, json!({"migrations": [one.json()]}));
    }

    #[tokio::test]
    async fn an_unknown_migration_is_answered_with_the_known_ones() {
        let fixture = Fixture::new();
        for name in ["other", "Not-A-Name", "%FF"] {
            for rest in ["", "/copy", "/verdict", "/preflight", "/events", "/operations/1"] {
                let answer = fixture.get(&format!("/v1/migrations/{name}{rest}")).await;
                assert_eq!(answer.json()["hint"], "configured: orders");
                answer.is_problem(404, "migration_not_found");
            }
            let answer = fixture.post(&format!("/v1/migrations/{name}/start")).await;
            answer.is_problem(404, "migration_not_found");
        }
    }

    #[tokio::test]
    async fn shows_the_verdict_of_the_last_look() {
        let fixture = Fixture::new();
        let blockers = vec![Blocker::new("lag_too_high", "2.5 s behind", "wait")];
        fixture.change(|state| state.verdict = Verdict::of(Kind::Cutover, blockers));
        fixture.get("/v1/migrations/orders/verdict").await.is_json(
            200,
            json!({"go": false, "kind": "cutover", "blockers": [
                {"code": "lag_too_high", "message": "2.5 s behind", "hint": "wait"}]}),
        );
    }

    #[tokio::test]
    async fn findings_exist_once_a_preflight_has_ended() {
        let fixture = Fixture::new();
        let path = "/v1/migrations/orders/preflight";
        fixture.get(path).await.is_problem(404, "preflight_not_run");
        fixture.change(|state| state.findings = Some(vec![]));
        fixture.get(path).await.is_json(200, json!({"findings": []}));
        fixture.change(|state| {
            state.findings = Some(vec![Finding::block("wal_level", "source", "m", "h")]);
        });
        fixture.get(path).await.is_json(
            200,
            json!({"findings": [{"severity": "block", "code": "wal_level", "subject": "source",
                                 "message": "m", "hint": "h"}]}),
        );
    }

    #[tokio::test]
    async fn events_begin_after_the_given_one() {
        let fixture = Fixture::new();
        let seqs = async |query: &str| {
            let answer = fixture.get(&format!("/v1/migrations/orders/events{query}")).await;
            assert_eq!(answer.status, 200);
            let events = answer.json()["events"].as_array().unwrap().clone();
            events.iter().map(|event| event["seq"].as_u64().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(seqs("").await, [1, 2, 5]);
        assert_eq!(seqs("?after=0").await, [1, 2, 5]);
        assert_eq!(seqs("?after=2").await, [5]);
        assert_eq!(seqs("?after=3").await, [5]);
        assert_eq!(seqs("?after=18446744073709551615").await, [0_u64; 0]);
        for bad in ["?after=x", "?after=-1", "?after=", "?before=3", "?after=1&after=2"] {
            let answer = fixture.get(&format!("/v1/migrations/orders/events{bad}")).await;
            answer.is_problem(400, "invalid_query");
        }
    }
}
