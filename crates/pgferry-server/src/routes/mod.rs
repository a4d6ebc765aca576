//! The routes, in one table.
//!
//! A handler extracts, calls once, and answers. What has no route, or not with this method, is
//! answered with a problem like everything else.

mod copy;
mod health;
mod metrics;
mod migrations;
mod operations;
mod verbs;
mod verification;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use pgferry_api::Verb;

use crate::handle::App;
use crate::problem::ApiError;

/// The longest body any route takes. The longest one with a meaning has some thirty bytes.
const MAX_BODY_BYTES: usize = 4096;

/// The whole HTTP interface over `app`.
pub fn router(app: App) -> Router {
    let mut router = Router::new()
        .route("/livez", get(health::alive))
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(metrics::text))
        .route("/v1/migrations", get(migrations::list))
        .route("/v1/migrations/{name}", get(migrations::show))
        .route("/v1/migrations/{name}/copy", get(copy::show))
        .route("/v1/migrations/{name}/verification", get(verification::show))
        .route("/v1/migrations/{name}/verdict", get(migrations::verdict))
        .route("/v1/migrations/{name}/preflight", get(migrations::findings))
        .route("/v1/migrations/{name}/events", get(migrations::events))
        .route("/v1/migrations/{name}/operations/{id}", get(operations::show));
    for &verb in Verb::ALL {
        let path = format!("/v1/migrations/{{name}}/{verb}");
        router = router.route(&path, post(move |request| verbs::ask(verb, request)));
    }
    router
        .fallback(async || ApiError::RouteNotFound)
        .method_not_allowed_fallback(async || ApiError::MethodNotAllowed)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(app)
}

#[cfg(test)]
mod tests {
    use crate::fixture::Fixture;

    #[tokio::test]
    async fn what_has_no_route_is_a_problem() {
        let fixture = Fixture::new();
        for path in ["/", "/v1", "/v1/migrations/", "/v1/migrations/orders/explode", "/livez/x"] {
            fixture.get(path).await.is_problem(404, "route_not_found");
        }
        fixture.post("/v1/migrations/orders/explode").await.is_problem(404, "route_not_found");
    }

    #[tokio::test]
    async fn a_wrong_method_is_a_problem_that_names_the_right_ones() {
        let fixture = Fixture::new();
        for (method, path, allowed) in [
            ("POST", "/v1/migrations", "GET,HEAD"),
            ("POST", "/livez", "GET,HEAD"),
            ("DELETE", "/v1/migrations/orders", "GET,HEAD"),
            ("GET", "/v1/migrations/orders/cutover", "POST"),
            ("PUT", "/v1/migrations/orders/preflight", "GET,HEAD,POST"),
        ] {
            let answer = fixture.send(method, path, &[], "").await;
            assert_eq!(answer.header("allow"), allowed, "{method} {path}");
            answer.is_problem(405, "method_not_allowed");
        }
    }
}
