//! Measures a migration of many small tables, from two empty servers to a switchover.
//!
//! What is slow with many tables is not the rows but everything that is done once per table, and
//! worse, once per pair of tables. So each step is timed, and the daemon is asked for its state all
//! the while, as `pgferry status` would. Leaves no server running, however it ends.
#![expect(clippy::print_stdout, reason = "the measurements are what this program is for")]

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use pgferry_plan::Side;
use pgferry_tests::{
    ConfigFile, Daemon, MIGRATION, Pair, PairOptions, Profile, eventually, expect,
};
use serde_json::{Value, json};

const USAGE: &str = "usage: many-tables [--tables N] [--schemas N] [--deadline SECONDS] \
[--locks N] [--copy-jobs N] [--rest SECONDS] [--fsync 1]";

/// The tables of one transaction while they are made.
const BATCH: u32 = 250;

/// How often the daemon is asked for its state.
const ASK_EVERY: Duration = Duration::from_millis(100);

struct Arguments {
    tables: u32,
    schemas: u32,
    /// `max_locks_per_transaction` of both servers; by default what this many tables need.
    locks: Option<u32>,
    copy_jobs: Option<u32>,
    /// How long the migration is left at rest before the cutover.
    rest: Duration,
    /// Whether commits reach the disk: what is done once per table then costs a flush each.
    fsync: bool,
    /// From `start` to `ready`.
    deadline: Duration,
}

impl Arguments {
    fn parse() -> Option<Self> {
        let mut arguments = Self {
            tables: 10_000,
            schemas: 8,
            locks: None,
            copy_jobs: None,
            rest: Duration::from_secs(10),
            fsync: false,
            deadline: Duration::from_secs(900),
        };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let number: u32 = words.next()?.parse().ok().filter(|number| *number > 0)?;
            match word.as_str() {
                "--tables" => arguments.tables = number,
                "--schemas" => arguments.schemas = number,
                "--locks" => arguments.locks = Some(number),
                "--copy-jobs" => arguments.copy_jobs = Some(number),
                "--rest" => arguments.rest = Duration::from_secs(number.into()),
                "--fsync" => arguments.fsync = true,
                "--deadline" => arguments.deadline = Duration::from_secs(number.into()),
                _ => return None,
            }
        }
        Some(arguments)
    }
}

fn main() -> ExitCode {
    let Some(arguments) = Arguments::parse() else {
        println!("{USAGE}");
        return ExitCode::from(64);
    };
    expect::unwind_on_interrupt();
    Profile::Release.build();

    // A hundred connections' worth of the shared table hold a table with all that belongs to it.
    let locks = arguments.locks.unwrap_or(64 + arguments.tables / 10);
    println!("two servers, max_locks_per_transaction = {locks}");
    let settings = [
        ("max_locks_per_transaction", locks.to_string()),
        // Checkpoints of this many files are no part of what is measured.
        ("max_wal_size", "8GB".to_owned()),
        ("checkpoint_timeout", "1h".to_owned()),
    ];
    let pair = Pair::start_with(
        PairOptions { fsync: arguments.fsync, ..PairOptions::default() },
        &settings,
    );
    let made = Instant::now();
    make_tables(&pair, &arguments);
    println!("{} tables made in {:.1} s", arguments.tables, made.elapsed().as_secs_f64());

    let mut config = ConfigFile::for_pair(&pair);
    if let Some(jobs) = arguments.copy_jobs {
        config.set(&format!("migrations.{MIGRATION}.copy.jobs"), i64::from(jobs));
    }
    let mut daemon = Daemon::prepare(&config, Profile::Release);
    daemon.serve();
    let pids =
        [daemon.pid(), pair.source.pid(), pair.destination.pid()].map(Option::unwrap_or_default);
    let measured = watched(&daemon, || run(&daemon, &arguments, &Cpu(pids)));
    println!("\n{measured}");
    ExitCode::SUCCESS
}

/// Plans, starts, waits for `ready`, rests, switches over; prints each as it comes.
fn run(daemon: &Daemon, arguments: &Arguments, cpu: &Cpu) {
    let mut used = cpu.used();
    let began = Instant::now();
    let preflight = daemon.carry_out("preflight");
    assert_eq!(preflight["state"], "succeeded", "{preflight}");
    let findings = daemon.get(&format!("/v1/migrations/{MIGRATION}/preflight")).body;
    println!("preflight            {:>8.2} s  {findings}", began.elapsed().as_secs_f64());

    let began = Instant::now();
    let accepted = daemon.order("start");
    assert_eq!(accepted.status, 202, "start was refused: {}", accepted.body);
    println!("start accepted       {:>8.2} s", began.elapsed().as_secs_f64());
    used = cpu.say_since(used, "planning");

    let mut last = String::new();
    eventually("the migration to be ready", arguments.deadline, || {
        let migration = daemon.try_get(&format!("/v1/migrations/{MIGRATION}"))?.body;
        let condition = &migration["condition"];
        assert_ne!(condition["kind"], "blocked", "blocked: {migration:#}");
        let now = format!(
            "{} {}",
            migration["step"].as_str().unwrap_or("-"),
            condition["message"].as_str().unwrap_or_default()
        );
        if now != last {
            println!("  {:>6.1} s  {now}", began.elapsed().as_secs_f64());
            last = now;
        }
        if migration["phase"] == "ready" { Ok(()) } else { Err(migration.to_string()) }
    });
    println!("ready                {:>8.2} s after start", began.elapsed().as_secs_f64());
    let peak_mib = daemon.peak_memory_kib() as f64 / 1024.0;
    println!("  peak memory of the daemon: {peak_mib:.1} MiB");
    used = cpu.say_since(used, "the way to ready");

    let rested = Instant::now();
    eventually("the rest to be over", arguments.rest * 2, || {
        if rested.elapsed() >= arguments.rest { Ok(()) } else { Err("not yet".to_owned()) }
    });
    used = cpu.say_since(used, &format!("{} s at rest", arguments.rest.as_secs()));
    let began = Instant::now();
    let verdict =
        daemon.post(&format!("/v1/migrations/{MIGRATION}/cutover?dry_run=true"), &json!({})).body;
    println!("fresh verdict        {:>8.2} s  {verdict}", began.elapsed().as_secs_f64());
    let began = Instant::now();
    let cutover = daemon.carry_out("cutover");
    println!("cutover              {:>8.2} s  {}", began.elapsed().as_secs_f64(), cutover["state"]);
    println!(
        "writes were held     {:>8} ms",
        daemon.migration()["last_switchover"]["write_stall_ms"]
    );
    used = cpu.say_since(used, "the switchover");
    let began = Instant::now();
    let finish = daemon.carry_out("finish");
    println!("finish               {:>8.2} s  {finish}", began.elapsed().as_secs_f64());
    cpu.say_since(used, "the end");
    print_steps(daemon);
}

/// Processor time, which a machine that is shared does not blur as it does the clock.
struct Cpu([u32; 3]);

impl Cpu {
    /// Seconds of the daemon, the source and the destination, with all that they started. What a
    /// client of the daemon's leaves to its own parent is in it once it has ended.
    fn used(&self) -> [f64; 3] {
        self.0.map(|root| {
            let Ok(processes) = std::fs::read_dir("/proc") else { return f64::NAN };
            let own = processes
                .flatten()
                .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
                .filter_map(|pid: u32| {
                    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
                    // "pid (name) state ppid …": the times are the 14th to the 17th, in hundredths.
                    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
                    let parent: u32 = fields.get(1)?.parse().ok()?;
                    (pid == root || parent == root).then(|| {
                        fields
                            .get(11..15)
                            .into_iter()
                            .flatten()
                            .filter_map(|t| t.parse::<f64>().ok())
                            .sum::<f64>()
                    })
                });
            own.sum::<f64>() / 100.0
        })
    }

    fn say_since(&self, before: [f64; 3], what: &str) -> [f64; 3] {
        let now = self.used();
        let [daemon, source, destination] = [0, 1, 2].map(|i: usize| now[i] - before[i]);
        println!(
            "  processor time for {what}: daemon and its tools {daemon:.1} s, source {source:.1} s, destination {destination:.1} s"
        );
        now
    }
}

/// What the journal says of each step: from the completion before it to its own.
fn print_steps(daemon: &Daemon) {
    let events = daemon.get(&format!("/v1/migrations/{MIGRATION}/events")).body;
    let mut before: Option<Timestamp> = None;
    println!("\n{:<32} seconds", "step");
    for event in events["events"].as_array().into_iter().flatten() {
        let at: Option<Timestamp> = event["at"].as_str().and_then(|at| at.parse().ok());
        let word = event["event"].as_str().unwrap_or_default();
        if word == "completed"
            && let (Some(before), Some(at)) = (before, at)
        {
            let seconds = at.duration_since(before).as_secs_f64();
            println!("{:<32} {seconds:>7.2}", event["step"].as_str().unwrap_or_default());
        }
        if matches!(word, "completed" | "requested" | "took_over") {
            before = at;
        }
    }
}

/// Does something while the daemon is asked for its state, and tells how long the answers took.
fn watched(daemon: &Daemon, work: impl FnOnce()) -> String {
    let over = AtomicBool::new(false);
    let path = format!("/v1/migrations/{MIGRATION}");
    thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut took: Vec<(f64, Value)> = Vec::new();
            while !over.load(Ordering::Relaxed) {
                let began = Instant::now();
                let step = match daemon.try_get(&path) {
                    Ok(answer) => answer.body["step"].clone(),
                    Err(error) => json!(error),
                };
                took.push((began.elapsed().as_secs_f64() * 1000.0, step));
                thread::sleep(ASK_EVERY.saturating_sub(began.elapsed()));
            }
            took
        });
        // Told also when the work panics: the scope waits for the thread before it unwinds.
        struct Over<'a>(&'a AtomicBool);
        impl Drop for Over<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let end = Over(&over);
        work();
        drop(end);
        let mut took = asking.join().unwrap_or_default();
        took.sort_by(|a, b| a.0.total_cmp(&b.0));
        let at = |share: usize| took.get((took.len() * share / 1000).min(took.len() - 1));
        let ms = |share| at(share).map_or(f64::NAN, |(ms, _)| *ms);
        let slowest = took.last().map(|(_, step)| step.clone()).unwrap_or_default();
        format!(
            "GET {path}: {} answers, median {:.1} ms, p99 {:.1} ms, max {:.1} ms (at {slowest})",
            took.len(),
            ms(500),
            ms(990),
            ms(1000)
        )
    })
}

/// Tables as applications have them: keys of three kinds with their sequences, a secondary index,
/// text that may be stored out of line, a few rows, references to an earlier table.
fn make_tables(pair: &Pair, arguments: &Arguments) {
    let session = pair.admin(Side::Source);
    session.run("SET ROLE owner");
    for schema in 0..arguments.schemas {
        session.run(&format!("CREATE SCHEMA s{schema}; GRANT USAGE ON SCHEMA s{schema} TO app"));
    }
    let schemas = arguments.schemas;
    for first in (1..=arguments.tables).step_by(BATCH as usize) {
        let last = (first + BATCH - 1).min(arguments.tables);
        let mut script = String::new();
        for table in first..=last {
            let name = format!("s{}.t{table}", table % schemas);
            let key = match table % 3 {
                0 => "id serial PRIMARY KEY",
                1 => "id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
                _ => "id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY",
            };
            // Within a batch, so that every hundredth transaction does not need them all.
            let reference = if table % 10 == 0 && table > first {
                let other = table - 1;
                let kind = if other % 3 == 0 { "int" } else { "bigint" };
                format!(", other {kind} REFERENCES s{}.t{other} (id)", other % schemas)
            } else {
                String::new()
            };
            script.push_str(&format!(
                "CREATE TABLE {name} ({key}, name text NOT NULL, body text, amount numeric(12,2) \
                 DEFAULT 0, created_at timestamptz DEFAULT now(){reference}); \
                 CREATE INDEX ON {name} (name); \
                 INSERT INTO {name} (name, body) SELECT 'row ' || i, repeat('x', i * 20) \
                 FROM generate_series(1, 3) i; \
                 GRANT SELECT, INSERT, UPDATE, DELETE ON {name} TO app; "
            ));
        }
        session.run(&script);
    }
}
