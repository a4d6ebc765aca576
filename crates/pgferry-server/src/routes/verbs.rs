//! `POST …/{name}/{verb}`: a request is handed to the loop, and the loop's word is the answer.
//!
//! Nothing here judges whether a migration may move. What is refused here is refused for its form,
//! or because there is no loop to ask.

use std::time::Duration;

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use pgferry_api::{MigrationName, Operation, Verb};
use serde::Deserialize;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::oneshot;

use crate::extract::{VerbBody, VerbRequest};
use crate::handle::{Accepted, Command, MigrationHandle};
use crate::problem::ApiError;

/// How long the loop may take to accept or refuse. It answers between two actions, and the slowest
/// of those that it waits for is a look at two servers; much later than that it hangs.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

/// Asks the loop for `verb` and answers 202 with the operation, or 200 with a dry run's verdict.
pub(super) async fn ask(
    verb: Verb,
    VerbRequest { handle, parameters: flags, body }: VerbRequest<Flags>,
) -> Result<Response, ApiError> {
    if flags.dry_run && !verb.takes_dry_run() {
        return Err(ApiError::DryRunNotSupported(verb));
    }
    if body.open_passive && !verb.takes_open_passive() {
        return Err(ApiError::OpenPassiveNotSupported(verb));
    }
    if body.force && !verb.takes_force() {
        return Err(ApiError::ForceNotSupported(verb));
    }
    if body.show_values && verb != Verb::Verify {
        return Err(ApiError::ShowValuesNotSupported(verb));
    }
    if body.repair && verb != Verb::Verify {
        return Err(ApiError::RepairNotSupported(verb));
    }
    match hand_over(&handle, verb, &body, flags.dry_run).await? {
        Accepted::Operation(operation) => {
            tracing::info!(migration = %handle.name, %verb, operation = %operation.id, "accepted");
            Ok(accepted(&handle.name, operation))
        }
        Accepted::Verdict(verdict) => Ok(Json(verdict).into_response()),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Flags {
    #[serde(default)]
    dry_run: bool,
}

async fn hand_over(
    handle: &MigrationHandle,
    verb: Verb,
    body: &VerbBody,
    dry_run: bool,
) -> Result<Accepted, ApiError> {
    let (reply, answer) = oneshot::channel();
    let VerbBody { open_passive, force, show_values, repair } = *body;
    let command = Command { verb, open_passive, force, show_values, repair, dry_run, reply };
    handle.commands.try_send(command).map_err(|error| match error {
        TrySendError::Full(_) => ApiError::Busy,
        TrySendError::Closed(_) => ApiError::LoopEnded,
    })?;
    if !dry_run {
        tracing::info!(migration = %handle.name, %verb, "asked for");
    }
    match tokio::time::timeout(ANSWER_DEADLINE, answer).await {
        Ok(Ok(answer)) => answer.map_err(ApiError::Refused),
        Ok(Err(_dropped)) => Err(ApiError::LoopEnded),
        Err(_elapsed) => Err(ApiError::NoAnswer),
    }
}

fn accepted(name: &MigrationName, operation: Operation) -> Response {
    let location = format!("/v1/migrations/{name}/operations/{}", operation.id);
    (StatusCode::ACCEPTED, [(header::LOCATION, location)], Json(operation)).into_response()
}

#[cfg(test)]
mod tests {
    use pgferry_api::{Blocker, Kind, Verdict};
    use serde_json::json;

    use super::*;
    use crate::fixture::{Answer, Fixture, operation};
    use crate::handle::{NotReady, Refusal, RefusalStatus};

    /// Sends the request while a loop gives `answer`; returns what the loop was asked, too.
    async fn exchange(
        path: &str,
        body: &str,
        answer: Result<Accepted, Refusal>,
    ) -> (Answer, (Verb, bool, bool)) {
        let mut fixture = Fixture::new();
        let mut commands = fixture.commands.take().unwrap();
        let one_turn = async {
            let command = commands.recv().await.unwrap();
            command.reply.send(answer).unwrap();
            (command.verb, command.open_passive, command.dry_run)
        };
        tokio::join!(fixture.send("POST", path, &[], body), one_turn)
    }

    #[tokio::test]
    async fn every_verb_becomes_an_operation() {
        for &verb in Verb::ALL {
            let operation = operation(verb);
            let path = format!("/v1/migrations/orders/{verb}");
            let (answer, asked) =
                exchange(&path, "", Ok(Accepted::Operation(operation.clone()))).await;
            assert_eq!(asked, (verb, false, false));
            let location = format!("/v1/migrations/orders/operations/{}", operation.id);
            assert_eq!(answer.header("location"), location);
            answer.is_json(202, serde_json::to_value(&operation).unwrap());
        }
    }

    #[tokio::test]
    async fn show_values_reaches_the_loop() {
        for (body, shown) in [("{\"show_values\": true}", true), ("", false)] {
            let mut fixture = Fixture::new();
            let mut commands = fixture.commands.take().unwrap();
            let one_turn = async {
                let command = commands.recv().await.unwrap();
                let accepted = Accepted::Operation(operation(Verb::Verify));
                command.reply.send(Ok(accepted)).unwrap();
                command.show_values
            };
            let path = "/v1/migrations/orders/verify";
            let (answer, asked) = tokio::join!(fixture.send("POST", path, &[], body), one_turn);
            assert_eq!((answer.status, asked), (202, shown));
        }
    }

    #[tokio::test]
    async fn open_passive_reaches_the_loop_whatever_the_content_type() {
        for (body, open_passive) in
            [("{\"open_passive\": true}", true), ("{}", false), (" \n", false)]
        {
            let accepted = Accepted::Operation(operation(Verb::Finish));
            let (answer, asked) =
                exchange("/v1/migrations/orders/finish", body, Ok(accepted)).await;
            assert_eq!((answer.status, asked), (202, (Verb::Finish, open_passive, false)));
        }
    }

    #[tokio::test]
    async fn a_dry_run_answers_200_whatever_the_verdict() {
        for blockers in [vec![], vec![Blocker::new("lag_too_high", "m", "h")]] {
            let verdict = Verdict::of(Kind::Rollback, blockers);
            let path = "/v1/migrations/orders/rollback?dry_run=true";
            let (answer, asked) = exchange(path, "", Ok(Accepted::Verdict(verdict.clone()))).await;
            assert_eq!(asked, (Verb::Rollback, false, true));
            answer.is_json(200, serde_json::to_value(&verdict).unwrap());
        }
    }

    #[tokio::test]
    async fn a_refusal_keeps_its_words_and_blockers() {
        for (sort, status) in [
            (RefusalStatus::Conflict, 409),
            (RefusalStatus::Unavailable, 503),
            (RefusalStatus::NotFound, 404),
        ] {
            let refusal = Refusal {
                status: sort,
                code: "not_ready".to_owned(),
                detail: "the copy runs".to_owned(),
                hint: "wait".to_owned(),
                blockers: vec![Blocker::new("lag_too_high", "m", "h")],
            };
            let (answer, _) = exchange("/v1/migrations/orders/cutover", "", Err(refusal)).await;
            answer.is_problem(status, "not_ready");
            assert_eq!(answer.json()["detail"], "the copy runs");
            assert_eq!(
                answer.json()["blockers"],
                json!([{"code": "lag_too_high", "message": "m", "hint": "h"}])
            );
        }
    }

    #[tokio::test]
    async fn malformed_requests_never_reach_the_loop() {
        for (path, body, status, code) in [
            ("start?dry_run=true", "", 400, "dry_run_not_supported"),
            ("cutover?dry_run=maybe", "", 400, "invalid_query"),
            ("cutover?dryrun=true", "", 400, "invalid_query"),
            ("cutover", "{\"open_passive\": true}", 400, "open_passive_not_supported"),
            ("finish", "{\"force\": true}", 400, "force_not_supported"),
            ("cutover", "{\"show_values\": true}", 400, "show_values_not_supported"),
            ("abort", "{\"repair\": true}", 400, "repair_not_supported"),
            ("finish", "{\"open_passive\": \"yes\"}", 422, "invalid_body"),
            ("finish", "{\"open\": true}", 422, "invalid_body"),
            ("finish", "[1]", 422, "invalid_body"),
            ("finish", "[true]", 422, "invalid_body"),
            ("start", "[]", 422, "invalid_body"),
            ("finish", "{\"open_passive\"", 400, "invalid_body"),
            ("finish", "open", 400, "invalid_body"),
        ] {
            let mut fixture = Fixture::new();
            let path = format!("/v1/migrations/orders/{path}");
            fixture.send("POST", &path, &[], body).await.is_problem(status, code);
            assert!(fixture.commands.take().unwrap().try_recv().is_err(), "{path} {body}");
        }
    }

    #[tokio::test]
    async fn a_long_body_is_refused() {
        let body = " ".repeat(5000);
        let answer = Fixture::new().send("POST", "/v1/migrations/orders/finish", &[], &body).await;
        answer.is_problem(413, "body_too_large");
    }

    #[tokio::test]
    async fn a_page_of_another_origin_cannot_ask_for_anything() {
        let headers = [("host", "127.0.0.1:8432"), ("origin", "https://evil.example")];
        let fixture = Fixture::new();
        let answer = fixture.send("POST", "/v1/migrations/orders/cutover", &headers, "").await;
        answer.is_problem(403, "cross_origin");
    }

    #[tokio::test]
    async fn a_daemon_that_is_not_leader_says_so_to_every_post() {
        let fixture = Fixture::new();
        fixture.change(|state| {
            state.readiness = vec![
                NotReady::new("node_unreachable", "away"),
                NotReady::new(NotReady::NOT_LEADER, "another daemon leads"),
            ];
        });
        for &verb in Verb::ALL {
            for rest in ["", "?dry_run=true", "?nonsense=1"] {
                let path = format!("/v1/migrations/orders/{verb}{rest}");
                fixture.send("POST", &path, &[], "{").await.is_problem(503, "not_leader");
            }
        }
        assert_eq!(fixture.get("/v1/migrations/orders").await.status, 200);
    }

    #[tokio::test]
    async fn a_loop_that_has_ended_or_drops_the_question_is_unavailable() {
        let mut fixture = Fixture::new();
        let mut commands = fixture.commands.take().unwrap();
        let drop_it = async { drop(commands.recv().await) };
        let path = "/v1/migrations/orders/pause";
        let (answer, ()) = tokio::join!(fixture.post(path), drop_it);
        answer.is_problem(503, "loop_ended");
        drop(commands);
        fixture.post(path).await.is_problem(503, "loop_ended");
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_does_not_answer_is_said_to_be_silent_and_a_full_queue_to_be_busy() {
        let fixture = Fixture::new();
        let path = "/v1/migrations/orders/pause";
        fixture.post(path).await.is_problem(503, "no_answer");
        fixture.post(path).await.is_problem(503, "busy");
    }
}
