//! The whole crossing, shown: two servers, eight writers, a move forth, back and forth again.
//!
//! Everything goes through the commands a person would type. Nothing is believed: what counts is
//! what the two databases hold afterwards. Leaves no server running, however it ends.
#![expect(clippy::print_stdout, reason = "telling a story is what this program is for")]

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use pgferry_plan::{Kind, Side};
use pgferry_tests::daemon::CommandOutput;
use pgferry_tests::pair::STORE_TRAFFIC;
use pgferry_tests::{
    ConfigFile, Daemon, Ledger, MIGRATION, Pair, PairOptions, Profile, Session, content,
    eventually, expect, install, leftovers,
};
use serde_json::Value;

mod arguments;
mod report;

use arguments::Arguments;
use report::{Report, Switchover, grouped};

/// Copying a few hundred megabytes, also on a machine with a slow disk.
const COPY_DEADLINE: Duration = Duration::from_secs(900);

/// What is on its way when the writers hold is a few transactions.
const SETTLE_DEADLINE: Duration = Duration::from_secs(60);

/// Commits of each client between two acts: enough that a lost one would show.
const WRITE_ON: usize = 150;

fn main() -> ExitCode {
    let arguments = match Arguments::parse() {
        Ok(arguments) => arguments,
        Err(usage) => {
            println!("{usage}");
            return ExitCode::from(64);
        }
    };
    expect::unwind_on_interrupt();

    let mut stage = Stage::set(&arguments);
    let ready = stage.go_to_ready();
    let mut report = Report::of_copy(&ready);
    println!("  copied {}", report.copy);
    for number in 0..arguments.switchovers {
        let kind = if number % 2 == 0 { Kind::Cutover } else { Kind::Rollback };
        report.switchovers.push(stage.switch_over(kind));
    }
    stage.end(&mut report);

    println!("\n{}", report.table());
    match report.write() {
        Ok(path) => println!("written to {}", path.display()),
        Err(error) => {
            println!("cannot write the report: {error}");
            return ExitCode::FAILURE;
        }
    }
    if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Everything that runs, in the order in which it must end: clients, daemon, servers.
struct Stage {
    ledger: Ledger,
    daemon: Daemon,
    pair: Pair,
    before: [BTreeSet<String>; 2],
    active: Side,
}

impl Stage {
    fn set(arguments: &Arguments) -> Self {
        let scale = arguments.scale;
        println!("Building pgferry.");
        Profile::Release.build();
        println!("Two servers, commits reach the disk, nobody is superuser.");
        let pair = Pair::start(PairOptions { fsync: true, ..PairOptions::default() });
        for side in Side::BOTH {
            let cluster = pair.cluster(side);
            let version = install::version_text(cluster.bin());
            println!("  {:<12} 127.0.0.1:{}  {version}", side.as_str(), cluster.port());
        }
        println!(
            "The source gets pgbench at scale {scale}, a small store, and a bank for the writers."
        );
        pair.load_pgbench(scale);
        pair.load_store();
        pair.load_bank();
        let before = Side::BOTH.map(|side| leftovers::inventory(pair.cluster(side)));

        let config = ConfigFile::for_pair(&pair).insert_only(&[
            "bank.ledger_keyless",
            "public.pgbench_history",
            "store.visits",
        ]);
        let mut daemon = Daemon::prepare(&config, Profile::Release);
        println!("$ pgferry serve --config pgferry.toml &");
        daemon.serve();
        println!(
            "Eight clients write from now on. Each knows both hosts, and remembers every answer."
        );
        let ledger = Ledger::over(&pair);
        ledger.wait_for_writes(10, SETTLE_DEADLINE);
        Self { ledger, daemon, pair, before, active: Side::Source }
    }

    fn go_to_ready(&self) -> Value {
        let _ = self.command("start");
        let started = Instant::now();
        let mut last = String::new();
        let ready = eventually("the migration to be ready", COPY_DEADLINE, || {
            let migration = self.status();
            let word = |key: &str| migration[key].as_str().unwrap_or_default().to_owned();
            let at = format!("{} {}", word("phase"), word("step"));
            if at != last {
                println!("  {:>6.1} s  {at}", started.elapsed().as_secs_f64());
                last = at;
            }
            assert_ne!(migration["condition"]["kind"], "blocked", "blocked: {migration:#}");
            if word("phase") == "ready" { Ok(migration) } else { Err(migration.to_string()) }
        });
        let _ = self.command("status");
        ready
    }

    fn switch_over(&mut self, kind: Kind) -> Switchover {
        self.traffic();
        self.ledger.wait_for_writes(WRITE_ON, SETTLE_DEADLINE);
        let from = Instant::now();
        let _ = self.command(kind.as_str());
        self.ledger.wait_for_writes(WRITE_ON, SETTLE_DEADLINE);
        let gap = self.ledger.worst_gap(from, Instant::now());
        self.active = kind.to();

        let switchover = Switchover::of(&self.status(), kind, gap);
        println!("  {switchover}");
        self.compare();
        switchover
    }

    /// Holds the writers, waits until both streams have brought everything, compares all tables.
    fn compare(&self) {
        self.ledger.hold();
        content::wait_until_settled(&self.pair, SETTLE_DEADLINE);
        let differences = content::differences(&self.pair.source, &self.pair.destination);
        assert!(differences.is_empty(), "the sides differ:\n{}", differences.join("\n"));
        let (active, passive) = (self.cluster(self.active), self.cluster(self.active.other()));
        let behind = content::sequences_behind(active, passive);
        assert!(behind.is_empty(), "sequences would repeat values:\n{}", behind.join("\n"));
        let ledger = self.ledger.check(active);
        assert!(ledger.is_clean(), "the ledger is not clean: {ledger:?}");
        println!(
            "  {} tables equal on both sides, {} acknowledged commits are all there once",
            content::table_count(active),
            grouped(ledger.acknowledged)
        );
        self.ledger.resume();
    }

    /// Takes everything down: by `finish` where the destination is active, else by `abandon`.
    fn end(&mut self, report: &mut Report) {
        self.traffic();
        self.ledger.wait_for_writes(WRITE_ON, SETTLE_DEADLINE);
        match self.active {
            Side::Source => drop(self.command("abandon")),
            Side::Destination => drop(self.command("finish")),
        }
        self.ledger.wait_for_writes(WRITE_ON, SETTLE_DEADLINE);
        let _ = self.command("status");
        self.ledger.stop();
        report.ledger(&self.ledger.check(self.cluster(self.active)));
        report.leftovers = Side::BOTH
            .into_iter()
            .zip(&self.before)
            .flat_map(|(side, before)| {
                let left = leftovers::since(before, self.cluster(side));
                left.into_iter().map(move |what| format!("{side}: {what}"))
            })
            .collect();
    }

    /// An application's statements on the store, wherever writes are taken now.
    fn traffic(&self) {
        let session = Session::connect(&self.pair.app_config())
            .unwrap_or_else(|e| panic!("no side takes writes: {e}"));
        session.run(STORE_TRAFFIC);
    }

    /// Runs a command as a person would, and shows what it prints.
    fn command(&self, verb: &str) -> CommandOutput {
        println!("\n$ pgferry {verb} {MIGRATION}");
        let output = self.daemon.command(&[verb, MIGRATION]);
        // The talk comes before the result, whichever stream it takes.
        for line in output.stderr.lines().chain(output.stdout.lines()) {
            println!("  {line}");
        }
        assert_eq!(output.code, Some(0), "pgferry {verb} failed; {}", self.status());
        output
    }

    fn status(&self) -> Value {
        self.daemon.command(&["status", MIGRATION, "--output", "json"]).json()
    }

    fn cluster(&self, side: Side) -> &pgferry_tests::Cluster {
        self.pair.cluster(side)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if thread::panicking() {
            println!("\nThe demo failed; its servers and the daemon are being stopped.");
        }
    }
}
