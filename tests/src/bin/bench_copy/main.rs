//! How long each tool takes to carry a database over: pgferry and four others, in turn, on the same
//! data and the same settings, from the start to *caught up with every index valid*.
//!
//! Progress goes to stderr, the table to stdout. `benches/README.md` says what is measured and how.
//! Leaves no server running, however it ends.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for a terminal")]

use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;

use pgferry_plan::Side;
use pgferry_tests::{Cluster, Profile, expect};

mod arguments;
mod cpu;
mod ferry;
mod reference;
mod report;
mod servers;
mod tools;
mod wire;
mod writer;

use arguments::{Arguments, USAGE};
use cpu::Cpu;
use ferry::{Cross, Crossing, Figures};
use reference::Expected;
use report::Report;
use tools::Tool;

/// A line of progress.
macro_rules! say {
    ($($words:tt)*) => { eprintln!("[{}] {}", $crate::clock(), format_args!($($words)*)) };
}
pub(crate) use say;

/// The time of day, for lines of progress.
fn clock() -> String {
    jiff::Timestamp::now().strftime("%H:%M:%S").to_string()
}

fn main() -> ExitCode {
    let arguments = match Arguments::parse() {
        Ok(arguments) => arguments,
        Err(help) if help == USAGE => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(wrong) => {
            eprintln!("{wrong}");
            return ExitCode::from(64);
        }
    };
    expect::unwind_on_interrupt();
    match Bench::set(arguments).and_then(Bench::run) {
        Ok(report) => {
            println!("{}", report.text());
            if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(wrong) => {
            eprintln!("{wrong}");
            ExitCode::FAILURE
        }
    }
}

/// The source with its data, and what a copy of it must hold.
struct Bench {
    arguments: Arguments,
    source: Cluster,
    expected: Expected,
    report: Report,
}

/// What a run gives back.
#[derive(Debug)]
struct Ran {
    seconds: f64,
    /// What the source and the destination have computed, to the end of the run.
    cpu: [Cpu; 2],
    /// Present for pgferry.
    figures: Option<Figures>,
}

/// Of each server. What is copied passes through it once: three times as much made no difference.
const SHARED_BUFFERS: &str = "1GB";

impl Bench {
    fn set(mut arguments: Arguments) -> Result<Self, String> {
        if arguments.tools.contains(&Tool::Pgferry) || arguments.kill_at_half {
            say!("building pgferry");
            Profile::Release.build();
        }
        let source = servers::start(Side::Source, arguments.jobs_or_cores(), SHARED_BUFFERS);
        let mut report = Report::default();
        arguments.tools.retain(|tool| match tool.version(&source) {
            Ok(version) => {
                report.add_tool(*tool, version);
                true
            }
            Err(why) => {
                say!("{} is not run: {why}", tool.name());
                report.add_absent(*tool, why);
                false
            }
        });
        report.set = reference::load(&source, arguments.scale, arguments.docs);
        let expected = Expected::of(&source);
        Ok(Self { arguments, source, expected, report })
    }

    fn run(mut self) -> Result<Report, String> {
        // The first round warms caches and the file system, and does not count.
        for round in 0..=self.arguments.rounds {
            for tool in self.arguments.tools.clone() {
                let when = if round == 0 { "cold".to_owned() } else { format!("round {round}") };
                self.turn(tool, round > 0, &when)?;
            }
        }
        if self.arguments.kill_at_half {
            say!("one more by pgferry, killed at half");
            match self.attempt(Tool::Pgferry, Crossing::run_killed)? {
                Ok(Ran { figures: Some(figures), .. }) => self.report.add_notes("killed", &figures),
                Ok(Ran { figures: None, .. }) => {}
                Err(why) => self.report.add_trouble(format!("pgferry, killed: {why}")),
            }
        }
        Ok(self.report)
    }

    /// One tool's turn in a round.
    fn turn(&mut self, tool: Tool, counts: bool, when: &str) -> Result<(), String> {
        let name = tool.name();
        match self.attempt(tool, Crossing::run)? {
            Ok(ran) => {
                let [source, destination] = ran.cpu;
                say!(
                    "{when}: {name} took {:.2} s; CPU seconds (user + system): source {source}, \
                     destination {destination}",
                    ran.seconds
                );
                if counts {
                    self.report.add(tool, ran.seconds);
                }
                if let Some(figures) = &ran.figures {
                    self.report.add_notes(when, figures);
                    if counts {
                        self.report.add_steps(figures);
                    }
                }
            }
            Err(why) => {
                say!("{when}: {name} failed: {why}");
                self.report.add_failure(tool);
                self.report.add_trouble(format!("{name}, {when}: {why}"));
            }
        }
        Ok(())
    }

    /// Runs a tool against a destination of its own and checks what has arrived there. The inner
    /// error is that tool's; the outer one says that nobody can be measured any more.
    fn attempt(&mut self, tool: Tool, cross: Cross) -> Result<Result<Ran, String>, String> {
        let outcome = panic::catch_unwind(AssertUnwindSafe(|| {
            let destination =
                servers::start(Side::Destination, self.arguments.jobs_or_cores(), SHARED_BUFFERS);
            if tool.needs_pglogical() {
                servers::add_pglogical(&self.source);
                servers::add_pglogical(&destination);
            }
            servers::settle(&self.source, &destination);
            self.carry(tool, &destination, cross)
        }));
        let outcome = outcome.unwrap_or_else(|panic| {
            if expect::interrupted() {
                panic::resume_unwind(panic);
            }
            let words = panic.downcast_ref::<String>().cloned();
            Err(words.map_or("it failed, see above".to_owned(), |words| words.trim().to_owned()))
        });
        servers::cleanse(&self.source)?;
        Ok(outcome)
    }

    fn carry(&mut self, tool: Tool, destination: &Cluster, cross: Cross) -> Result<Ran, String> {
        let (source, jobs) = (&self.source, self.arguments.jobs_or_cores());
        let servers = [source, destination];
        let before = servers.map(Cpu::of);
        let mut crossing = None;
        let seconds = match tool {
            Tool::Pgferry => {
                let done = cross(source, destination, &self.arguments)?;
                crossing.insert(done).figures.seconds
            }
            Tool::Pglogical => tools::pglogical(source, destination),
            Tool::PgDump => tools::pg_dump(source, destination, jobs),
            Tool::Native => tools::native(source, destination),
            Tool::Pgcopydb => tools::pgcopydb(source, destination, jobs),
        };
        let after = servers.map(Cpu::of);
        let cpu = [after[0].since(before[0]), after[1].since(before[1])];
        if crossing.is_some() && self.arguments.writes_per_second > 0 {
            self.expected = Expected::of(source);
        }
        self.expected.check(&Expected::of(destination))?;
        Ok(Ran { seconds, cpu, figures: crossing.map(Crossing::take_down) })
    }
}
