//! Every error answer of the server, made in this one place.
//!
//! No handler builds a status or a problem by itself; each names what went wrong, and the words,
//! the status and the content type follow from that here.

use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use pgferry_api::{MigrationName, PROBLEM_CONTENT_TYPE, Problem, Verb};

use crate::handle::{NotReady, Refusal, RefusalStatus};

/// Why a request is answered with a problem.
#[derive(Debug)]
pub(crate) enum ApiError {
    /// No route has this path.
    RouteNotFound,
    /// The path exists, not with this method.
    MethodNotAllowed,
    /// No migration has this name; these exist.
    MigrationNotFound { name: String, known: Vec<MigrationName> },
    /// No operation of this migration has this id.
    OperationNotFound { id: String },
    /// No preflight has ended yet, so nothing is known: an empty list would claim the opposite.
    PreflightNotRun { name: MigrationName },
    /// The query string is not what the route takes.
    InvalidQuery(QueryRejection),
    /// The body could not be read, or is longer than any body that makes sense.
    UnreadableBody(BytesRejection),
    /// The body is not JSON (400), or not the JSON that the route takes (422).
    InvalidBody(serde_json::Error),
    /// A dry run of something that has none.
    DryRunNotSupported(Verb),
    /// `open_passive` for something that leaves no side behind.
    OpenPassiveNotSupported(Verb),
    /// `force` for something that moves no active side.
    ForceNotSupported(Verb),
    /// A browser sends this from a page that is not ours.
    CrossOrigin,
    /// `show_values` for something that shows none.
    ShowValuesNotSupported(Verb),
    /// `repair` for something that repairs nothing.
    RepairNotSupported(Verb),
    /// Another daemon leads this migration.
    NotLeader(NotReady),
    /// The loop has a full queue of commands.
    Busy,
    /// The loop has ended.
    LoopEnded,
    /// The loop took the command and has said nothing for the whole deadline.
    NoAnswer,
    /// The loop refused.
    Refused(Refusal),
    /// The metrics cannot be printed.
    Metrics(prometheus::Error),
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let problem = self.into_problem();
        let status =
            StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if status.is_server_error() {
            tracing::warn!(status = problem.status, code = problem.code, "{}", problem.detail);
        }
        let mut response = (status, axum::Json(problem)).into_response();
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_CONTENT_TYPE));
        response
    }
}

impl ApiError {
    fn into_problem(self) -> Problem {
        match self {
            ApiError::RouteNotFound => Problem::new(
                404,
                "route_not_found",
                "no route has this path",
                "migrations are listed at /v1/migrations",
            ),
            ApiError::MethodNotAllowed => Problem::new(
                405,
                "method_not_allowed",
                "this path does not take this method",
                "the Allow header names the methods it takes",
            ),
            ApiError::MigrationNotFound { name, known } => {
                let hint = match known.as_slice() {
                    [] => "no migration is configured".to_owned(),
                    names => format!("configured: {}", list(names)),
                };
                Problem::new(
                    404,
                    "migration_not_found",
                    format!("no migration is named \"{name}\""),
                    hint,
                )
            }
            ApiError::OperationNotFound { id } => Problem::new(
                404,
                "operation_not_found",
                format!("this migration has no operation \"{id}\""),
                "the answer to the request that started an operation carries its id",
            ),
            ApiError::PreflightNotRun { name } => Problem::new(
                404,
                "preflight_not_run",
                format!("no preflight of \"{name}\" has ended since the daemon was started"),
                format!("POST /v1/migrations/{name}/preflight, and wait for its operation to end"),
            ),
            ApiError::InvalidQuery(rejection) => {
                Problem::new(400, "invalid_query", rejection.body_text(), "")
            }
            ApiError::UnreadableBody(rejection) => match rejection.status() {
                StatusCode::PAYLOAD_TOO_LARGE => {
                    Problem::new(413, "body_too_large", "the body is longer than 4096 bytes", "")
                }
                _ => Problem::new(400, "invalid_body", rejection.body_text(), ""),
            },
            ApiError::InvalidBody(error) => invalid_body(&error),
            ApiError::DryRunNotSupported(verb) => Problem::new(
                400,
                "dry_run_not_supported",
                format!("{verb} has no dry run"),
                "only cutover and rollback have one",
            ),
            ApiError::OpenPassiveNotSupported(verb) => Problem::new(
                400,
                "open_passive_not_supported",
                format!("{verb} leaves no side behind that could be opened"),
                "only finish and abandon take open_passive",
            ),
            ApiError::ForceNotSupported(verb) => Problem::new(
                400,
                "force_not_supported",
                format!("{verb} moves no active side, and has nothing to force"),
                "only cutover and rollback take force",
            ),
            ApiError::CrossOrigin => Problem::new(
                403,
                "cross_origin",
                "the request comes from a web page of another origin",
                "use the command line, or a client that sends no Origin header",
            ),
            ApiError::ShowValuesNotSupported(verb) => Problem::new(
                400,
                "show_values_not_supported",
                format!("{verb} shows no values"),
                "only verify takes show_values",
            ),
            ApiError::RepairNotSupported(verb) => Problem::new(
                400,
                "repair_not_supported",
                format!("{verb} repairs nothing"),
                "only verify takes repair",
            ),
            ApiError::NotLeader(reason) => Problem::new(
                503,
                reason.code,
                reason.message,
                "send the request to the daemon that leads this migration",
            ),
            ApiError::Busy => Problem::new(
                503,
                "busy",
                "more requests are waiting than the loop takes",
                "ask again in a moment",
            ),
            ApiError::LoopEnded => Problem::new(
                503,
                "loop_ended",
                "the loop of this migration has ended; the daemon is stopping or must be restarted",
                "restart the daemon: it goes on where the journal ends",
            ),
            ApiError::NoAnswer => Problem::new(
                503,
                "no_answer",
                "the loop has the request and has not answered it in time; it may still carry it out",
                "look at the migration and its events before asking again",
            ),
            ApiError::Refused(refusal) => {
                let status = match refusal.status {
                    RefusalStatus::Conflict => 409,
                    RefusalStatus::Unavailable => 503,
                    RefusalStatus::NotFound => 404,
                };
                Problem::new(status, refusal.code, refusal.detail, refusal.hint)
                    .with_blockers(refusal.blockers)
            }
            ApiError::Metrics(error) => Problem::new(
                500,
                "metrics_unprintable",
                format!("the metrics cannot be printed: {error}"),
                "",
            ),
        }
    }
}

/// Text that is no JSON is the sender's transport at fault (400); JSON of the wrong shape is its
/// content (422).
fn invalid_body(error: &serde_json::Error) -> Problem {
    let status = match error.classify() {
        serde_json::error::Category::Data => 422,
        serde_json::error::Category::Io
        | serde_json::error::Category::Syntax
        | serde_json::error::Category::Eof => 400,
    };
    Problem::new(
        status,
        "invalid_body",
        format!("the body cannot be used: {error}"),
        "the body may be empty, {}, {\"open_passive\": true} for finish and abandon, {\"force\": true} for cutover and rollback, {\"show_values\": true} or {\"repair\": true} for verify",
    )
}

fn list(names: &[MigrationName]) -> String {
    names.iter().map(MigrationName::as_str).collect::<Vec<_>>().join(", ")
}
