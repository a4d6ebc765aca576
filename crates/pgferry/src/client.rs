//! The daemon's HTTP interface from the outside: one method a route, typed answers.
//!
//! Nothing is printed and nothing is retried here: a POST that is sent twice could be carried out
//! twice.

use std::io;
use std::time::Duration;

use pgferry_api::{
    CopyReport, CopyState, Event, Events, Findings, Migration, MigrationName, Migrations,
    Operation, PROBLEM_CONTENT_TYPE, Problem, Verdict, VerificationReport,
};
use pgferry_config::Secret;
use serde::de::DeserializeOwned;
use ureq::http::{Response, StatusCode, Uri};
use ureq::{Agent, Body};
use uuid::Uuid;

use crate::args::Request;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longer than the daemon lets its loop think about a request (30 s), so that its answer, and not
/// this limit, is what people see.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(45);
/// A journal of a hundred thousand events stays below it.
const MAX_ANSWER_BYTES: u64 = 64 * 1024 * 1024;

/// A daemon, by its address.
pub(crate) struct Client {
    agent: Agent,
    base: String,
    token: Option<Secret>,
}

impl Client {
    pub(crate) fn new(url: &str, token: Option<Secret>) -> Result<Self, ClientError> {
        let base = base(url)?;
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_global(Some(ANSWER_TIMEOUT))
            .max_redirects(0)
            .max_redirects_will_error(false)
            // The daemon listens on loopback; a proxy of the environment would be asked for its own.
            .proxy(None)
            .user_agent(concat!("pgferry/", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(Self { agent: config.new_agent(), base, token })
    }

    pub(crate) fn migrations(&self) -> Result<Vec<Migration>, ClientError> {
        self.get("/v1/migrations").map(|all: Migrations| all.migrations)
    }

    pub(crate) fn migration(&self, name: &MigrationName) -> Result<Migration, ClientError> {
        self.get(&format!("/v1/migrations/{name}"))
    }

    /// The copy's sums, and its tables in these states.
    pub(crate) fn copy(
        &self,
        name: &MigrationName,
        states: &[CopyState],
    ) -> Result<CopyReport, ClientError> {
        let states: Vec<_> = states.iter().map(|state| state.as_str()).collect();
        self.get(&format!("/v1/migrations/{name}/copy?state={}", states.join(",")))
    }

    pub(crate) fn operation(
        &self,
        name: &MigrationName,
        id: Uuid,
    ) -> Result<Operation, ClientError> {
        self.get(&format!("/v1/migrations/{name}/operations/{id}"))
    }

    pub(crate) fn findings(&self, name: &MigrationName) -> Result<Findings, ClientError> {
        self.get(&format!("/v1/migrations/{name}/preflight"))
    }

    pub(crate) fn verification(
        &self,
        name: &MigrationName,
    ) -> Result<VerificationReport, ClientError> {
        self.get(&format!("/v1/migrations/{name}/verification"))
    }

    pub(crate) fn events(
        &self,
        name: &MigrationName,
        after: u64,
    ) -> Result<Vec<Event>, ClientError> {
        self.get(&format!("/v1/migrations/{name}/events?after={after}"))
            .map(|events: Events| events.events)
    }

    /// Asks for an operation. Never for a dry run: that answers a verdict.
    pub(crate) fn ask(
        &self,
        name: &MigrationName,
        request: Request,
    ) -> Result<Operation, ClientError> {
        self.post(&format!("/v1/migrations/{name}/{}", request.verb), &body(request))
    }

    pub(crate) fn dry_run(
        &self,
        name: &MigrationName,
        request: Request,
    ) -> Result<Verdict, ClientError> {
        self.post(&format!("/v1/migrations/{name}/{}?dry_run=true", request.verb), &body(request))
    }

    fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let mut request = self.agent.get(format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {}", token.expose()));
        }
        self.read(request.call())
    }

    fn post<T: DeserializeOwned>(&self, path: &str, body: &str) -> Result<T, ClientError> {
        let mut request = self.agent.post(format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {}", token.expose()));
        }
        if !body.is_empty() {
            request = request.header("content-type", "application/json");
        }
        self.read(request.send(body))
    }

    fn read<T: DeserializeOwned>(
        &self,
        answer: Result<Response<Body>, ureq::Error>,
    ) -> Result<T, ClientError> {
        let mut answer = answer.map_err(|error| self.not_reached(error))?;
        let status = answer.status();
        let is_problem = content_type(&answer) == PROBLEM_CONTENT_TYPE;
        let text = answer
            .body_mut()
            .with_config()
            .limit(MAX_ANSWER_BYTES)
            .read_to_string()
            .map_err(|error| self.not_reached(error))?;
        if status.is_success() {
            serde_json::from_str(&text).map_err(|error| self.not_understood(status, error))
        } else if is_problem {
            let problem = serde_json::from_str(&text);
            Err(match problem {
                Ok(problem) => ClientError::Problem(Box::new(problem)),
                Err(error) => self.not_understood(status, error),
            })
        } else {
            Err(ClientError::Stranger { url: self.base.clone(), status: status.as_u16() })
        }
    }

    fn not_reached(&self, source: ureq::Error) -> ClientError {
        ClientError::NotReached { url: self.base.clone(), source: Box::new(source) }
    }

    fn not_understood(&self, status: StatusCode, source: serde_json::Error) -> ClientError {
        ClientError::NotUnderstood { url: self.base.clone(), status: status.as_u16(), source }
    }
}

/// Why the daemon gave no answer that can be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error("\"{url}\" is not the address of a daemon: {reason}")]
    InvalidUrl { url: String, reason: &'static str },
    #[error("no answer from the daemon at {url}: {source}")]
    NotReached { url: String, source: Box<ureq::Error> },
    #[error("what answers at {url} is not a pgferry daemon (status {status})")]
    Stranger { url: String, status: u16 },
    #[error("the answer of {url} (status {status}) is not understood: {source}")]
    NotUnderstood { url: String, status: u16, source: serde_json::Error },
    #[error("{}: {}", .0.title, .0.detail)]
    Problem(Box<Problem>),
}

impl ClientError {
    /// What to do about it; empty when the error says it all.
    pub(crate) fn hint(&self) -> String {
        match self {
            ClientError::InvalidUrl { .. } => {
                "give --url or PGFERRY_URL like http://127.0.0.1:8432".to_owned()
            }
            ClientError::NotReached { source, .. } => match source.as_ref() {
                ureq::Error::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    "nothing listens there: start `pgferry serve --config FILE`, or give the right --url or PGFERRY_URL".to_owned()
                }
                _ => "look at the daemon's log, and at --url or PGFERRY_URL".to_owned(),
            },
            ClientError::Stranger { .. } => "look at --url or PGFERRY_URL".to_owned(),
            ClientError::NotUnderstood { .. } => {
                "the daemon may be of another version than this command".to_owned()
            }
            ClientError::Problem(problem) => problem.hint.clone(),
        }
    }

    /// Whether it may pass by itself, as when the daemon is being started again.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            ClientError::NotReached { .. } => true,
            ClientError::InvalidUrl { .. }
            | ClientError::Stranger { .. }
            | ClientError::NotUnderstood { .. }
            | ClientError::Problem(_) => false,
        }
    }
}

/// The address without what the routes add.
fn base(url: &str) -> Result<String, ClientError> {
    // What stands before an @ may be a password, and is not repeated.
    let shown = url.rsplit('@').next().unwrap_or_default();
    let invalid = |reason| ClientError::InvalidUrl { url: shown.to_owned(), reason };
    let uri: Uri = url.parse().map_err(|_| invalid("it is no URL"))?;
    match uri.scheme_str() {
        Some("http") => {}
        Some("https") => return Err(invalid("the daemon does not speak TLS yet; use http")),
        _ => return Err(invalid("it must begin with http://")),
    }
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(invalid("it must hold no user or password; set PGFERRY_TOKEN"));
    }
    if uri.query().is_some() {
        return Err(invalid("it must have no query"));
    }
    Ok(url.trim_end_matches('/').to_owned())
}

/// Without parameters such as `charset`.
fn content_type(answer: &Response<Body>) -> &str {
    let value = answer.headers().get("content-type").and_then(|value| value.to_str().ok());
    value.unwrap_or_default().split(';').next().unwrap_or_default().trim()
}

/// The flags of a verb as its body; empty when there is none.
fn body(request: Request) -> String {
    let set: Vec<&str> = [
        (request.open_passive, r#""open_passive":true"#),
        (request.force, r#""force":true"#),
        (request.show_values, r#""show_values":true"#),
        (request.repair, r#""repair":true"#),
    ]
    .into_iter()
    .filter_map(|(wanted, text)| wanted.then_some(text))
    .collect();
    if set.is_empty() { String::new() } else { format!("{{{}}}", set.join(",")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_http_and_nothing_more() {
        assert_eq!(base("http://127.0.0.1:8432/").unwrap(), "http://127.0.0.1:8432");
        assert_eq!(base("http://ferry.example/pg").unwrap(), "http://ferry.example/pg");
        for bad in ["", "127.0.0.1:8432", "https://h", "ftp://h", "http://", "http://h?x=1"] {
            assert!(base(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_address_with_a_password_is_refused_without_repeating_it() {
        let error = base("http://me:hunter2@h").unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }

    #[test]
    fn a_refused_connection_says_how_to_start_the_daemon() {
        // Port 1 is reserved; nothing listens there.
        let client = Client::new("http://127.0.0.1:1", None).unwrap();
        let error = client.migrations().unwrap_err();
        assert!(error.may_pass());
        assert!(error.hint().contains("pgferry serve"), "{error}");
    }
}
