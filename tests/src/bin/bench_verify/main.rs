//! How long each tool takes to compare both sides of a migration at rest: pgferry, data-diff,
//! reladiff and pgcopydb, in turn, on the reference set of `benches/copy`.
//!
//! Progress goes to stderr, the table to stdout. `benches/README.md` says what is measured and how.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for a terminal")]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use pgferry_plan::Side;
use pgferry_tests::config::migration;
use pgferry_tests::{Cluster, ConfigFile, DATABASE, Daemon, Profile, eventually, expect, install};

#[expect(dead_code, reason = "what has arrived is compared here by the tools themselves")]
#[path = "../bench_copy/reference.rs"]
mod reference;
#[expect(dead_code, reason = "one destination serves every round")]
#[path = "../bench_copy/servers.rs"]
mod servers;

mod peers;

/// A line of progress.
macro_rules! say {
    ($($words:tt)*) => { eprintln!("[{}] {}", $crate::clock(), format_args!($($words)*)) };
}
pub(crate) use say;

/// The time of day, for lines of progress.
fn clock() -> String {
    jiff::Timestamp::now().strftime("%H:%M:%S").to_string()
}

const USAGE: &str = "\
usage: benches/verify [options]
  --rounds N          measured rounds after a cold one (5)
  --scale N           pgbench's scale (100)
  --docs ROWS         rows of the table docs (3000000)
  --only TOOL[,TOOL]  of pgferry, data-diff, reladiff, pgcopydb (all)
  --jobs N            ranges or tables at a time (the number of cores, at least 2)
  --shared-buffers SIZE   of each server (3GB, which holds the set)";

const SETTLED: Duration = Duration::from_secs(3600);
const VERIFY: &str = "/v1/migrations/shop/verify";

struct Arguments {
    rounds: u32,
    scale: u32,
    docs: u64,
    jobs: usize,
    shared_buffers: String,
    tools: Vec<Tool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tool {
    Pgferry,
    DataDiff,
    Reladiff,
    Pgcopydb,
}

impl Tool {
    const ALL: [Self; 4] = [Self::Pgferry, Self::DataDiff, Self::Reladiff, Self::Pgcopydb];

    fn name(self) -> &'static str {
        match self {
            Self::Pgferry => "pgferry",
            Self::DataDiff => "data-diff",
            Self::Reladiff => "reladiff",
            Self::Pgcopydb => "pgcopydb",
        }
    }
}

fn main() -> ExitCode {
    let arguments = match parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(wrong) => {
            eprintln!("{wrong}");
            return ExitCode::from(64);
        }
    };
    expect::unwind_on_interrupt();
    match run(&arguments) {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(wrong) => {
            eprintln!("{wrong}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let cores = std::thread::available_parallelism().map_or(2, usize::from).max(2);
    let mut arguments = Arguments {
        rounds: 5,
        scale: 100,
        docs: 3_000_000,
        jobs: cores,
        shared_buffers: "3GB".to_owned(),
        tools: Tool::ALL.to_vec(),
    };
    while let Some(option) = words.next() {
        let value = words.next().ok_or(format!("{option} needs a value\n{USAGE}"))?;
        let wrong = || format!("{option} {value}: not understood\n{USAGE}");
        match option.as_str() {
            "--rounds" => arguments.rounds = value.parse().map_err(|_| wrong())?,
            "--scale" => arguments.scale = value.parse().map_err(|_| wrong())?,
            "--docs" => arguments.docs = value.parse().map_err(|_| wrong())?,
            "--jobs" => arguments.jobs = value.parse().map_err(|_| wrong())?,
            "--shared-buffers" => arguments.shared_buffers = value,
            "--only" => {
                arguments.tools = value
                    .split(',')
                    .map(|word| Tool::ALL.into_iter().find(|tool| tool.name() == word.trim()))
                    .collect::<Option<Vec<_>>>()
                    .ok_or_else(wrong)?;
            }
            _ => return Err(format!("unknown option {option}\n{USAGE}")),
        }
    }
    Ok(arguments)
}

fn run(arguments: &Arguments) -> Result<String, String> {
    say!("building pgferry");
    Profile::Release.build();
    let source = servers::start(Side::Source, arguments.jobs, &arguments.shared_buffers);
    let set = reference::load(&source, arguments.scale, arguments.docs);
    let destination = servers::start(Side::Destination, arguments.jobs, &arguments.shared_buffers);
    for side in [&source, &destination] {
        servers::add_pglogical(side);
    }
    let daemon = carry(&source, &destination, arguments);
    let mut measured: Vec<(Tool, Vec<f64>, Vec<String>)> =
        arguments.tools.iter().map(|tool| (*tool, Vec::new(), Vec::new())).collect();
    let mut absent: Vec<(Tool, String)> = Vec::new();
    measured.retain(|(tool, ..)| match peers::version(*tool, &source) {
        Ok(version) => {
            say!("{}: {version}", tool.name());
            true
        }
        Err(why) => {
            absent.push((*tool, why));
            false
        }
    });
    for round in 0..=arguments.rounds {
        for (tool, seconds, troubles) in &mut measured {
            servers::settle(&source, &destination);
            let began = Instant::now();
            let result = compare(*tool, &daemon, &source, &destination, arguments);
            let took = began.elapsed().as_secs_f64();
            say!("round {round}: {} took {took:.2} s {result:?}", tool.name());
            match result {
                // The first round warms caches, and does not count.
                Ok(()) if round > 0 => seconds.push(took),
                Ok(()) => {}
                Err(why) => troubles.push(why),
            }
        }
    }
    let reference = measured
        .iter()
        .find(|(tool, ..)| *tool == Tool::Pgferry)
        .map_or(f64::NAN, |(_, seconds, _)| median(seconds));
    let mut text =
        format!("{set}\n\n{:<10} {:>5} {:>9} {:>7}\n", "tool", "runs", "median s", "ratio");
    for (tool, seconds, troubles) in &measured {
        let middle = median(seconds);
        text.push_str(&format!(
            "{:<10} {:>5} {middle:>9.2} {:>7.2}{}\n",
            tool.name(),
            seconds.len(),
            middle / reference,
            troubles.first().map(|why| format!("  FAILED: {why}")).unwrap_or_default()
        ));
    }
    for (tool, why) in &absent {
        text.push_str(&format!("{:<10} not run: {why}\n", tool.name()));
    }
    let peak_mib = daemon.peak_memory_kib() as f64 / 1024.0;
    text.push_str(&format!("\npeak memory of the daemon: {peak_mib:.1} MiB"));
    Ok(text)
}

/// A migration at rest whose daemon has compared nothing and copied nothing: it is started anew, so
/// that its peak memory is that of comparing.
fn carry(source: &Cluster, destination: &Cluster, arguments: &Arguments) -> Daemon {
    let dsn = |cluster: &Cluster| {
        let port = cluster.port();
        format!("host=127.0.0.1 port={port} dbname={DATABASE} user=pgferry sslmode=disable")
    };
    let jobs = i64::try_from(arguments.jobs).unwrap_or(2);
    let mut config = ConfigFile::for_dsns(&dsn(source), &dsn(destination))
        .insert_only(&["public.pgbench_history"])
        .with(&migration("cutover.require_verification"), false)
        .with(&migration("verify.jobs"), jobs);
    if install::chosen() {
        let bin = source.bin().to_string_lossy().into_owned();
        config.set(&migration("schema.pg_bindir"), bin);
    }
    let mut daemon = Daemon::prepare(&config, Profile::Release);
    daemon.serve();
    say!("copying");
    let accepted = daemon.order("start");
    assert_eq!(accepted.status, 202, "start was refused: {}", accepted.body);
    daemon.wait_for_phase_within("ready", SETTLED);
    destination.sql(DATABASE, "VACUUM (FREEZE, ANALYZE)");
    daemon.terminate();
    daemon.serve();
    daemon
}

fn compare(
    tool: Tool,
    daemon: &Daemon,
    source: &Cluster,
    destination: &Cluster,
    arguments: &Arguments,
) -> Result<(), String> {
    let (from, to) = (servers::uri(source), servers::uri(destination));
    match tool {
        Tool::Pgferry => {
            let accepted = eventually("verify to be taken", SETTLED, || {
                let answer = daemon.try_post(VERIFY, &serde_json::json!({}))?;
                if answer.status == 202 { Ok(answer) } else { Err(answer.body.to_string()) }
            });
            let ended = daemon.wait_for_operation(&accepted);
            if ended["state"] == "succeeded" { Ok(()) } else { Err(ended.to_string()) }
        }
        Tool::DataDiff | Tool::Reladiff | Tool::Pgcopydb => {
            peers::compare(tool, source, &from, &to, arguments.jobs)
        }
    }
}

/// NaN of nothing: what was not measured is not zero.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}
