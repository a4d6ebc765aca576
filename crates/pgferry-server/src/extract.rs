//! Extractors: what a handler needs, taken out of the request once, with a problem when it is not
//! there.
//!
//! Nothing here answers a request; a failed extraction names an [`ApiError`] and no status.

use std::collections::HashMap;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::handle::{App, MigrationHandle, NotReady};
use crate::problem::ApiError;

/// The migration that the path names.
pub(crate) struct Target(pub(crate) MigrationHandle);

impl FromRequestParts<App> for Target {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let name = path_part(parts, app, "name").await;
        let not_found = |name: String| ApiError::MigrationNotFound {
            name,
            known: app.migrations.keys().cloned().collect(),
        };
        match name.parse() {
            Ok(parsed) => app.migrations.get(&parsed).cloned().map(Target),
            Err(_) => None,
        }
        .ok_or_else(|| not_found(name))
    }
}

/// The migration that the path names, when this daemon leads it.
///
/// First among what a POST is refused for: a daemon that is not leader says so to every POST, whatever
/// else is wrong with it.
pub(crate) struct Led(pub(crate) MigrationHandle);

impl FromRequestParts<App> for Led {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let Target(handle) = Target::from_request_parts(parts, app).await?;
        let not_leader = {
            let state = handle.state.borrow();
            state.readiness.iter().find(|reason| reason.code == NotReady::NOT_LEADER).cloned()
        };
        match not_leader {
            None => Ok(Led(handle)),
            Some(reason) => Err(ApiError::NotLeader(reason)),
        }
    }
}

/// The operation's id that the path names, as text: one that is no id is one that does not exist.
pub(crate) struct OperationId(pub(crate) String);

impl FromRequestParts<App> for OperationId {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        Ok(OperationId(path_part(parts, app, "id").await))
    }
}

/// A part of the path; empty when it is not valid UTF-8, and an empty part names nothing.
async fn path_part(parts: &mut Parts, app: &App, key: &str) -> String {
    let path = Path::<HashMap<String, String>>::from_request_parts(parts, app).await;
    path.ok().and_then(|Path(mut all)| all.remove(key)).unwrap_or_default()
}

/// The query string, with unknown keys refused: `?dryrun=true` must not be a real cutover.
pub(crate) struct Parameters<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequestParts<App> for Parameters<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let query = Query::<T>::from_request_parts(parts, app).await;
        query.map(|Query(value)| Parameters(value)).map_err(ApiError::InvalidQuery)
    }
}

/// A POST of a verb: who is asked, how, and for what.
///
/// The body is read before anything is refused. A server that answers while the body is still on its
/// way must close the connection, and the client's next request on it is lost (seen).
pub(crate) struct VerbRequest<T> {
    pub(crate) handle: MigrationHandle,
    pub(crate) parameters: T,
    pub(crate) body: VerbBody,
}

impl<T: DeserializeOwned> FromRequest<App> for VerbRequest<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let (mut parts, body) = request.into_parts();
        let whole = Request::from_parts(parts.clone(), body);
        let bytes = Bytes::from_request(whole, app).await.map_err(ApiError::UnreadableBody);
        let SameOrigin = SameOrigin::from_request_parts(&mut parts, app).await?;
        let Led(handle) = Led::from_request_parts(&mut parts, app).await?;
        let Parameters(parameters) = Parameters::from_request_parts(&mut parts, app).await?;
        let body = VerbBody::parse(&bytes?)?;
        Ok(VerbRequest { handle, parameters, body })
    }
}

/// The body of a verb.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct VerbBody {
    pub(crate) open_passive: bool,
    pub(crate) force: bool,
    pub(crate) show_values: bool,
    pub(crate) repair: bool,
}

impl VerbBody {
    /// The content type is not looked at: `curl -X POST` sends none, and `-d` a wrong one.
    fn parse(bytes: &[u8]) -> Result<Self, ApiError> {
        if bytes.trim_ascii().is_empty() {
            return Ok(VerbBody::default());
        }
        // An object, and nothing that serde would also take for one: `[true]` is no request.
        let object: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(bytes).map_err(ApiError::InvalidBody)?;
        serde_json::from_value(object.into()).map_err(ApiError::InvalidBody)
    }
}

/// Proof that the request does not come from a web page of another origin.
///
/// The API takes a POST without a body and without a content type, which a browser sends to any
/// address without asking first: without this, any page that an operator opens could cut over.
pub(crate) struct SameOrigin;

impl FromRequestParts<App> for SameOrigin {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _app: &App) -> Result<Self, ApiError> {
        if is_same_origin(&parts.headers) { Ok(SameOrigin) } else { Err(ApiError::CrossOrigin) }
    }
}

fn is_same_origin(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let Some(origin) = text(header::ORIGIN) else { return true };
    let authority = origin.split_once("://").map(|(_scheme, authority)| authority);
    authority.is_some() && authority == text(header::HOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(origin: Option<&'static str>, host: &'static str, expected: bool) {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        assert_eq!(is_same_origin(&headers), expected, "{origin:?} to {host}");
    }

    #[test]
    fn only_a_page_of_another_origin_is_foreign() {
        check(None, "127.0.0.1:8432", true);
        check(Some("http://127.0.0.1:8432"), "127.0.0.1:8432", true);
        check(Some("https://ferry.example"), "ferry.example", true);
        check(Some("https://evil.example"), "127.0.0.1:8432", false);
        check(Some("http://127.0.0.1:3000"), "127.0.0.1:8432", false);
        check(Some("null"), "127.0.0.1:8432", false);
    }
}
