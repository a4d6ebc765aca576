//! A router over made-up state for the tests beside the routes: no loop, no database, no socket.

use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::http::{HeaderMap, Request};
use jiff::Timestamp;
use pgferry_api::{
    CopyReport, CopyState, Difference, Event, Kind, Migration, Operation, OperationState,
    PROBLEM_CONTENT_TYPE, Phase, Sequences, Side, Stream, StreamStatus, Verb, Verdict,
};
use serde_json::{Map, Value};
use tokio::sync::{mpsc, watch};
use tower::ServiceExt;
use uuid::Uuid;

use crate::handle::{App, Command, CopyFigures, FoundDifferences, MigrationHandle, MigrationState};
use crate::routes::router;

/// One migration named `orders`, ready, and both ends of its channels.
pub(crate) struct Fixture {
    pub(crate) registry: prometheus::Registry,
    pub(crate) commands: Option<mpsc::Receiver<Command>>,
    handle: MigrationHandle,
    copy: Arc<ScriptedCopy>,
    differences: Arc<ScriptedDifferences>,
    state: Option<watch::Sender<MigrationState>>,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let (state, receiver) = watch::channel(ready_state());
        let (sender, commands) = mpsc::channel(1);
        let copy = Arc::new(ScriptedCopy::default());
        let differences = Arc::new(ScriptedDifferences::default());
        let handle = MigrationHandle {
            name: name(),
            state: receiver,
            copy: Arc::clone(&copy) as Arc<dyn CopyFigures>,
            differences: Arc::clone(&differences) as Arc<dyn FoundDifferences>,
            commands: sender,
        };
        Self {
            registry: prometheus::Registry::new(),
            commands: Some(commands),
            handle,
            copy,
            differences,
            state: Some(state),
        }
    }

    pub(crate) fn app(&self) -> App {
        App::new([self.handle.clone()], self.registry.clone())
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut MigrationState)) {
        self.state.as_ref().expect("the loop runs").send_modify(change);
    }

    /// What the last verification found from now on.
    pub(crate) fn set_differences(&self, found: Vec<Difference>) {
        *self.differences.0.lock().unwrap() = found;
    }

    /// What the copy's counters say from now on.
    pub(crate) fn set_copy(&self, report: CopyReport) {
        *self.copy.0.lock().unwrap() = report;
    }

    pub(crate) fn end_loop(&mut self) {
        self.state = None;
        self.commands = None;
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], "").await
    }

    pub(crate) async fn post(&self, path: &str) -> Answer {
        self.send("POST", path, &[], "").await
    }

    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let response = router(self.app()).oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: String::from_utf8(bytes.to_vec()).unwrap(),
        }
    }
}

/// Counters that say what they were told.
#[derive(Default)]
struct ScriptedCopy(Mutex<CopyReport>);

impl CopyFigures for ScriptedCopy {
    fn read(&self, states: &[CopyState]) -> CopyReport {
        let mut report = self.0.lock().unwrap().clone();
        report.tables.retain(|table| states.contains(&table.state));
        report
    }
}

/// Differences as they were told.
#[derive(Default)]
struct ScriptedDifferences(Mutex<Vec<Difference>>);

impl FoundDifferences for ScriptedDifferences {
    fn read(&self) -> Vec<Difference> {
        self.0.lock().unwrap().clone()
    }
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
    headers: HeaderMap,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    #[track_caller]
    pub(crate) fn is_json(&self, status: u16, body: Value) {
        assert_eq!((self.status, self.header("content-type")), (status, "application/json"));
        assert_eq!(self.json(), body);
    }

    #[track_caller]
    pub(crate) fn is_problem(&self, status: u16, code: &str) {
        assert_eq!((self.status, self.header("content-type")), (status, PROBLEM_CONTENT_TYPE));
        let problem = self.json();
        assert_eq!((&problem["status"], &problem["code"]), (&status.into(), &code.into()));
        for member in ["type", "title", "status", "code", "detail", "hint", "blockers"] {
            assert!(!problem[member].is_null(), "{member} is missing: {problem}");
        }
    }
}

pub(crate) fn operation(verb: Verb) -> Operation {
    Operation {
        id: Uuid::now_v7(),
        migration: name(),
        verb,
        state: OperationState::Running,
        requested_at: Timestamp::UNIX_EPOCH,
        finished_at: None,
        problem: None,
        remains: vec![],
    }
}

fn name() -> pgferry_api::MigrationName {
    "orders".parse().unwrap()
}

fn ready_state() -> MigrationState {
    let event = |seq| Event {
        seq,
        at: Timestamp::UNIX_EPOCH,
        epoch: 1,
        event: "completed".to_owned(),
        fields: Map::new(),
    };
    MigrationState {
        migration: Migration {
            name: name(),
            phase: Phase::Ready,
            step: None,
            active: Side::Source,
            condition: None,
            forward: Stream::without_figures(StreamStatus::Streaming),
            reverse: Stream::without_figures(StreamStatus::Unknown),
            copy: None,
            sequences: Sequences::default(),
            verification: None,
            last_switchover: None,
            leader: true,
            epoch: Some(1),
        },
        verdict: Verdict::of(Kind::Cutover, vec![]),
        operations: vec![],
        findings: None,
        readiness: vec![],
        events: Arc::new(vec![event(1), event(2), event(5)]),
    }
}
