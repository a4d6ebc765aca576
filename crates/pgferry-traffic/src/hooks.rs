//! Commands and webhooks: what each is told, and how it went, for the switchover at hand.
//!
//! How it went is remembered here and nowhere else, because there is nothing to look at. A daemon that
//! came back tells it again, with the operation's id, by which a hook knows what it has done already.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use pgferry_config::{CommandConfig, MigrationConfig, TrafficConfig};
use pgferry_engine::Fault;
use pgferry_plan::facts::Switchover;
use pgferry_plan::traffic::{HookState, HooksView};
use pgferry_plan::{Blocker, Facts, Side, Step};
use pgferry_postgres::connect::ConnectError;
use serde::Serialize;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::leadership::Leadership;
use crate::process::{self, Order};
use crate::webhook::Webhook;

/// After a failure; doubled each time, up to the longest.
const FIRST_RETRY: SignedDuration = SignedDuration::from_millis(500);
const LONGEST_RETRY: SignedDuration = SignedDuration::from_secs(5);

/// What a hook is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum HookEvent {
    /// Nothing is stopped yet; it may veto.
    BeforeLine,
    /// The other side is open.
    AfterLine,
    /// The switchover was taken back.
    Aborted,
}

impl HookEvent {
    fn as_str(self) -> &'static str {
        match self {
            HookEvent::BeforeLine => "before_line",
            HookEvent::AfterLine => "after_line",
            HookEvent::Aborted => "aborted",
        }
    }
}

/// One side's address, without a user and without a password.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Address {
    host: String,
    port: u16,
    dbname: String,
}

/// What is told: the body of a webhook, and as variables what a command gets.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Message {
    migration: String,
    kind: String,
    pub(crate) event: HookEvent,
    from: Side,
    to: Side,
    operation: Uuid,
    epoch: i64,
    /// Against a message that is sent again by somebody else, later.
    sent_at: Timestamp,
    source: Address,
    destination: Address,
}

impl Message {
    fn variables(&self) -> Vec<(&'static str, String)> {
        vec![
            ("PGFERRY_MIGRATION", self.migration.clone()),
            ("PGFERRY_KIND", self.kind.clone()),
            ("PGFERRY_EVENT", self.event.as_str().to_owned()),
            ("PGFERRY_FROM", self.from.to_string()),
            ("PGFERRY_TO", self.to.to_string()),
            ("PGFERRY_OPERATION", self.operation.to_string()),
            ("PGFERRY_EPOCH", self.epoch.to_string()),
            ("PGFERRY_SOURCE_HOST", self.source.host.clone()),
            ("PGFERRY_SOURCE_PORT", self.source.port.to_string()),
            ("PGFERRY_SOURCE_DBNAME", self.source.dbname.clone()),
            ("PGFERRY_DESTINATION_HOST", self.destination.host.clone()),
            ("PGFERRY_DESTINATION_PORT", self.destination.port.to_string()),
            ("PGFERRY_DESTINATION_DBNAME", self.destination.dbname.clone()),
        ]
    }
}

/// How a message gets there.
#[derive(Debug)]
enum Carrier {
    Command(CommandConfig),
    Webhook(Webhook),
}

impl Carrier {
    /// None when nobody wants to hear of it.
    fn listens(&self, event: HookEvent) -> bool {
        self.argv(event).is_some() || matches!(self, Carrier::Webhook(_))
    }

    fn argv(&self, event: HookEvent) -> Option<&Vec<String>> {
        let Carrier::Command(command) = self else { return None };
        match event {
            HookEvent::BeforeLine => command.before_line.as_ref(),
            HookEvent::AfterLine => command.after_line.as_ref(),
            HookEvent::Aborted => command.aborted.as_ref(),
        }
    }

    async fn carry(&self, message: &Message) -> Result<(), String> {
        match (self, self.argv(message.event)) {
            (Carrier::Webhook(webhook), _) => webhook.send(message).await,
            (Carrier::Command(command), Some(argv)) => {
                let variables = message.variables();
                let order = Order {
                    argv,
                    variables: &variables,
                    pass: &command.pass_env,
                    deadline: command.deadline,
                };
                process::run(&order).await
            }
            (Carrier::Command(_), None) => Ok(()),
        }
    }
}

/// The hooks of one migration.
#[derive(Debug)]
pub(crate) struct Hooks<L> {
    migration: String,
    addresses: [Address; 2],
    carrier: Arc<Carrier>,
    leadership: L,
    told: Arc<Mutex<Told>>,
    running: Mutex<Option<(HookEvent, JoinHandle<()>)>>,
}

/// What was told in one switchover.
#[derive(Debug, Default)]
struct Told {
    operation: Option<Uuid>,
    outcomes: Vec<Outcome>,
}

/// How the last telling of an event went.
#[derive(Debug)]
struct Outcome {
    event: HookEvent,
    /// Why it failed, how often in a row, and when it may be told again.
    failed: Option<(Blocker, u32, Timestamp)>,
}

impl Told {
    fn outcome(&self, of: HookEvent) -> Option<&Outcome> {
        self.outcomes.iter().find(|outcome| outcome.event == of)
    }

    fn remember(&mut self, event: HookEvent, result: Result<(), Blocker>) {
        let before = self.outcome(event).and_then(|outcome| outcome.failed.as_ref());
        let times = before.map_or(0, |(_, times, _)| *times);
        let pause = FIRST_RETRY.checked_mul(1 << times.min(8)).unwrap_or(LONGEST_RETRY);
        let retry_at = Timestamp::now() + pause.min(LONGEST_RETRY);
        let failed = result.err().map(|blocker| (blocker, times + 1, retry_at));
        self.outcomes.retain(|outcome| outcome.event != event);
        self.outcomes.push(Outcome { event, failed });
    }
}

impl<L: Leadership> Hooks<L> {
    pub(crate) fn new(config: &MigrationConfig, leadership: L) -> Result<Self, ConnectError> {
        let carrier = match &config.traffic {
            TrafficConfig::Webhook(webhook) => Carrier::Webhook(Webhook::new(webhook)?),
            TrafficConfig::Command(command) => Carrier::Command(command.clone()),
            TrafficConfig::MultiHost | TrafficConfig::Pgbouncer(_) => {
                let reason = "this method of traffic has no hooks".to_owned();
                return Err(ConnectError::Configuration { reason });
            }
        };
        let addresses = Side::BOTH.map(|side| {
            let dsn = &config.node(side).login.dsn;
            Address {
                host: dsn.host().to_owned(),
                port: dsn.port(),
                dbname: dsn.dbname().to_owned(),
            }
        });
        Ok(Self {
            migration: config.name.to_string(),
            addresses,
            carrier: Arc::new(carrier),
            leadership,
            told: Arc::default(),
            running: Mutex::default(),
        })
    }

    /// How each hook stands in this switchover.
    pub(crate) fn view(&self, operation: Option<Uuid>) -> HooksView {
        let told = lock(&self.told);
        let running = lock(&self.running)
            .as_ref()
            .filter(|(_, task)| !task.is_finished())
            .map(|(event, _)| *event);
        let same = operation.is_some() && told.operation == operation;
        let state = |event| {
            if !self.carrier.listens(event) {
                return HookState::None;
            }
            if !same {
                return HookState::NotRun;
            }
            match told.outcome(event) {
                _ if running == Some(event) => HookState::Running,
                None => HookState::NotRun,
                Some(Outcome { failed: None, .. }) => HookState::Succeeded,
                Some(Outcome { failed: Some((blocker, _, retry_at)), .. }) => {
                    HookState::Failed { blocker: blocker.clone(), retry_at: *retry_at }
                }
            }
        };
        HooksView {
            before_line: state(HookEvent::BeforeLine),
            after_line: state(HookEvent::AfterLine),
            aborted: state(HookEvent::Aborted),
        }
    }

    /// Begins to tell what the step at hand is about, and waits a little for the answer.
    pub(crate) async fn tell(&self, facts: &Facts, wait: Duration) -> Result<(), Fault> {
        let Some(switchover) = facts.switchover() else { return Ok(()) };
        let event = event_of(switchover);
        let (operation, epoch) = (switchover.operation, facts.epoch);
        // A hook that is no longer wanted is killed before the next one begins.
        self.stop();
        self.leadership.still_leads(epoch).await?;
        let [source, destination] = self.addresses.clone();
        let message = Message {
            migration: self.migration.clone(),
            kind: switchover.kind.to_string(),
            event,
            from: switchover.kind.from(),
            to: switchover.kind.to(),
            operation,
            epoch,
            sent_at: Timestamp::now(),
            source,
            destination,
        };
        {
            let mut told = lock(&self.told);
            if told.operation != Some(operation) {
                *told = Told { operation: Some(operation), outcomes: Vec::new() };
            }
        }
        let (carrier, told) = (Arc::clone(&self.carrier), Arc::clone(&self.told));
        let (ending, ended) = tokio::sync::oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            let result = carrier.carry(&message).await.map_err(|why| refused(event, &why));
            if let Err(blocker) = &result {
                tracing::warn!(message = blocker.message, "a hook failed");
            }
            lock(&told).remember(event, result);
            drop(ending);
        });
        *lock(&self.running) = Some((event, task));
        // Ended or not: the next look tells.
        let _ = tokio::time::timeout(wait, ended).await;
        Ok(())
    }

    pub(crate) fn forget_failure(&self) {
        lock(&self.told).outcomes.retain(|outcome| outcome.failed.is_none());
    }

    pub(crate) fn stop(&self) {
        if let Some((_, task)) = lock(&self.running).take() {
            task.abort();
        }
    }
}

impl<L> Drop for Hooks<L> {
    fn drop(&mut self) {
        if let Some((_, task)) = lock(&self.running).take() {
            task.abort();
        }
    }
}

/// What the switchover is about to tell.
fn event_of(switchover: &Switchover) -> HookEvent {
    if switchover.unwinding.is_some() {
        HookEvent::Aborted
    } else if switchover.step == Step::PauseTraffic {
        HookEvent::BeforeLine
    } else {
        HookEvent::AfterLine
    }
}

fn refused(event: HookEvent, why: &str) -> Blocker {
    let hint = match event {
        HookEvent::BeforeLine => "it vetoed: mend what it complains of, then try again",
        HookEvent::AfterLine | HookEvent::Aborted => {
            "it is repeated until it succeeds; `pgferry resume` repeats it at once"
        }
    };
    Blocker::new("hook_failed", format!("the hook {}: {why}", event.as_str()), hint)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
