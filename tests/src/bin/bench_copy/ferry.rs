//! pgferry's own run: timed over HTTP, from the order `start` to the journal's word that the stream
//! has caught up, which stands behind the valid indexes.

use std::thread;
use std::time::{Duration, Instant};

use jiff::{Timestamp, Unit};
use pgferry_tests::config::migration;
use pgferry_tests::{
    Cluster, ConfigFile, DATABASE, Daemon, MIGRATION, Profile, content, eventually, install,
};
use serde_json::Value;

use crate::arguments::Arguments;
use crate::cpu::Cpu;
use crate::say;
use crate::tools::{ASK_EVERY, RUN_DEADLINE};
use crate::wire::Wire;
use crate::writer::{Writer, Written};

/// The step whose completion ends the measured time.
const LAST_STEP: &str = "await_catch_up";

/// What arrives after the writers have stopped is seconds of work, unless something is broken.
const SETTLE_DEADLINE: Duration = Duration::from_secs(600);

/// A way to carry a database over: undisturbed or killed.
pub(crate) type Cross = fn(&Cluster, &Cluster, &Arguments) -> Result<Crossing, String>;

/// One migration, up to its caught-up stream; the daemon goes on with it.
#[derive(Debug)]
pub(crate) struct Crossing {
    daemon: Daemon,
    /// What was measured.
    pub(crate) figures: Figures,
}

/// What one migration has shown.
#[derive(Clone, Debug)]
pub(crate) struct Figures {
    /// From the order to the last event.
    pub(crate) seconds: f64,
    /// Seconds by step, in order: from the end of the step before it.
    pub(crate) steps: Vec<(String, f64)>,
    /// The largest resident set of any of its daemons, in KiB.
    pub(crate) peak_rss_kib: u64,
    /// Present when somebody wrote meanwhile.
    pub(crate) writes: Option<Writes>,
    /// Present when it was killed on its way.
    pub(crate) killed: Option<Killed>,
}

/// What became of the writes.
#[derive(Clone, Debug)]
pub(crate) struct Writes {
    /// How many there were.
    pub(crate) written: Written,
    /// Tables compared row by row.
    pub(crate) tables: usize,
    /// Those that differ; empty when every row is the same.
    pub(crate) differences: Vec<String>,
}

/// What being killed has cost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Killed {
    /// Bytes of rows that had left the source when the daemon was killed.
    pub(crate) before: u64,
    /// Bytes of rows that left it afterwards.
    pub(crate) after: u64,
    /// Bytes of rows that the finished copy consists of, as the journal says.
    pub(crate) needed: u64,
    /// From the start of the second daemon to the last event.
    pub(crate) seconds: f64,
}

impl Killed {
    /// Bytes that left the source more than once, in percent of those that were needed.
    pub(crate) fn twice_percent(self) -> f64 {
        let sent = (self.before + self.after) as f64;
        (sent - self.needed as f64) * 100.0 / self.needed as f64
    }
}

impl Crossing {
    /// A migration that nothing disturbs but the writers that were asked for.
    pub(crate) fn run(
        source: &Cluster,
        destination: &Cluster,
        arguments: &Arguments,
    ) -> Result<Self, String> {
        Self::carry(source, destination, arguments, None)
    }

    /// The same, killed when half of the bytes are over, and started again.
    pub(crate) fn run_killed(
        source: &Cluster,
        destination: &Cluster,
        arguments: &Arguments,
    ) -> Result<Self, String> {
        Self::carry(source, destination, arguments, Some(&Wire::to(source.port())))
    }

    fn carry(
        source: &Cluster,
        destination: &Cluster,
        arguments: &Arguments,
        wire: Option<&Wire>,
    ) -> Result<Self, String> {
        let config = configuration(source, destination, arguments, wire);
        let mut daemon = Daemon::prepare(&config, Profile::Release);
        daemon.serve();
        let rate = arguments.writes_per_second;
        let writer = (rate > 0).then(|| Writer::start(source, rate));

        let started = Instant::now();
        let accepted = daemon.order("start");
        if accepted.status != 202 {
            return Err(format!("start was refused: {}", accepted.body));
        }
        let mut peak_before = 0;
        let mut kill = None;
        if let Some(wire) = wire {
            wait_for_half(&daemon)?;
            peak_before = daemon.peak_memory_kib();
            daemon.kill();
            let before = wire.copy_bytes();
            say!("killed after {} MB of rows", before / 1_000_000);
            kill = Some((before, Instant::now()));
            daemon.serve();
        }
        let events = wait_for_last_step(&daemon)?;
        let seconds = started.elapsed().as_secs_f64();
        let peak_rss_kib = daemon.peak_memory_kib().max(peak_before);
        if let Some(pid) = daemon.pid() {
            say!("the daemon's own CPU seconds (user + system): {}", Cpu::of_process(pid));
        }
        let killed = match (wire, kill) {
            (Some(wire), Some((before, since))) => Some(Killed {
                before,
                after: wire.copy_bytes() - before,
                needed: copied_bytes(&events)?,
                seconds: since.elapsed().as_secs_f64(),
            }),
            (None, _) | (_, None) => None,
        };
        let writes = match writer {
            None => None,
            Some(writer) => Some(compare(source, destination, writer.stop()?)),
        };
        let figures = Figures { seconds, steps: steps(&events), peak_rss_kib, writes, killed };
        Ok(Self { daemon, figures })
    }

    /// Takes the migration away, so that the next run finds the source as this one did.
    pub(crate) fn take_down(self) -> Figures {
        self.daemon.wait_for_phase_within("ready", SETTLE_DEADLINE);
        self.daemon.succeed("abandon");
        self.figures
    }
}

fn configuration(
    source: &Cluster,
    destination: &Cluster,
    arguments: &Arguments,
    wire: Option<&Wire>,
) -> ConfigFile {
    let dsn = |port: u16| {
        format!("host=127.0.0.1 port={port} dbname={DATABASE} user=pgferry sslmode=disable")
    };
    let direct = dsn(source.port());
    let seen = wire.map_or_else(|| direct.clone(), |wire| dsn(wire.port()));
    let mut config = ConfigFile::for_dsns(&seen, &dsn(destination.port()))
        .insert_only(&["public.pgbench_history"]);
    if wire.is_some() {
        // The servers talk to each other without the counter between them.
        config.set(&migration("source.peer_dsn"), direct.clone());
        config.set(&migration("source.self_dsn"), direct);
    }
    if let Some(jobs) = arguments.jobs.and_then(|jobs| i64::try_from(jobs).ok()) {
        config.set(&migration("copy.jobs"), jobs);
    }
    if install::chosen() {
        let bin = source.bin().to_string_lossy().into_owned();
        config.set(&migration("schema.pg_bindir"), bin);
    }
    config
}

/// Waits for the journal's word that the last measured step is done, and returns all its events.
fn wait_for_last_step(daemon: &Daemon) -> Result<Vec<Value>, String> {
    eventually("the stream to catch up", RUN_DEADLINE, || {
        let events = events(daemon)?;
        if completed(&events, LAST_STEP).is_some() {
            return Ok(Ok(events));
        }
        match blocked(daemon) {
            Some(why) => Ok(Err(why)),
            None => {
                thread::sleep(ASK_EVERY);
                Err(events.last().map(Value::to_string).unwrap_or_default())
            }
        }
    })
}

/// Waits until half of the expected bytes are over; an error when the copy ended before.
fn wait_for_half(daemon: &Daemon) -> Result<(), String> {
    eventually("half of the bytes", RUN_DEADLINE, || {
        let body = daemon.try_get(&format!("/v1/migrations/{MIGRATION}"))?.body;
        let figure = |key: &str| body["copy"][key].as_u64().unwrap_or_default();
        let (bytes, expected) = (figure("bytes"), figure("bytes_expected"));
        if expected > 0 && bytes * 2 >= expected {
            return Ok(Ok(()));
        }
        if completed(&events(daemon)?, "copy_rows").is_some() {
            return Ok(Err("the copy was over before half of it was seen: it takes a larger set \
                           to kill the daemon in the middle"
                .to_owned()));
        }
        blocked(daemon).map_or(Err(format!("{bytes} of {expected}")), |why| Ok(Err(why)))
    })
}

fn events(daemon: &Daemon) -> Result<Vec<Value>, String> {
    let body = daemon.try_get(&format!("/v1/migrations/{MIGRATION}/events"))?.body;
    body["events"].as_array().cloned().ok_or_else(|| body.to_string())
}

fn blocked(daemon: &Daemon) -> Option<String> {
    let body = daemon.try_get(&format!("/v1/migrations/{MIGRATION}")).ok()?.body;
    (body["condition"]["kind"] == "blocked").then(|| format!("blocked: {}", body["condition"]))
}

fn completed<'a>(events: &'a [Value], step: &str) -> Option<&'a Value> {
    events.iter().find(|event| event["event"] == "completed" && event["step"] == step)
}

/// What the finished copy consists of.
fn copied_bytes(events: &[Value]) -> Result<u64, String> {
    events
        .iter()
        .filter(|event| event["event"] == "completed" && event["evidence"]["kind"] == "copied")
        .find_map(|event| event["evidence"]["bytes"].as_u64())
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| "the journal does not tell how many bytes were copied".to_owned())
}

/// Each completed step up to the last measured one, with the time since the one before it.
fn steps(events: &[Value]) -> Vec<(String, f64)> {
    let at = |event: &Value| event["at"].as_str().and_then(|at| at.parse::<Timestamp>().ok());
    let mut before = events.iter().find(|event| event["event"] == "requested").and_then(at);
    let mut steps = Vec::new();
    for event in events.iter().filter(|event| event["event"] == "completed") {
        let step = event["step"].as_str().unwrap_or_default();
        let now = at(event);
        let seconds = before
            .zip(now)
            .and_then(|(before, now)| now.since(before).ok()?.total(Unit::Second).ok());
        steps.push((step.to_owned(), seconds.unwrap_or(f64::NAN)));
        before = now;
        if step == LAST_STEP {
            break;
        }
    }
    steps
}

/// With the writers gone, waits until all of it has been applied, and compares every row.
fn compare(source: &Cluster, destination: &Cluster, written: Written) -> Writes {
    let session = source.admin(DATABASE);
    let end = session.value("SELECT pg_current_wal_insert_lsn()").unwrap_or_default();
    let applied = format!(
        "SELECT coalesce(bool_and(confirmed_flush_lsn >= '{end}'), false)
           FROM pg_replication_slots WHERE slot_type = 'logical' AND NOT temporary"
    );
    eventually("the writes to arrive", SETTLE_DEADLINE, || match session.value(&applied) {
        Some(yes) if yes == "t" => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let differences = content::differences(source, destination);
    Writes { written, tables: content::table_count(source), differences }
}
