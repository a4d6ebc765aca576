//! `/metrics`: the registry as Prometheus text. Nothing is measured here.

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use prometheus::TextEncoder;

use crate::handle::App;
use crate::problem::ApiError;

/// Prints every metric of the registry.
pub(super) async fn text(State(app): State<App>) -> Result<Response, ApiError> {
    let text =
        TextEncoder::new().encode_to_string(&app.registry.gather()).map_err(ApiError::Metrics)?;
    Ok(([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response())
}

#[cfg(test)]
mod tests {
    use crate::fixture::Fixture;

    #[tokio::test]
    async fn prints_the_registry_as_prometheus_text() {
        let fixture = Fixture::new();
        let gauge = prometheus::IntGauge::new("pgferry_epoch", "The present leadership.").unwrap();
        gauge.set(3);
        fixture.registry.register(Box::new(gauge)).unwrap();
        let answer = fixture.get("/metrics").await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4");
        assert!(answer.body.contains("\npgferry_epoch 3\n"), "{}", answer.body);
    }
}
