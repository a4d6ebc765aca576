//! The fault matrix on real servers: every step of cutover and rollback, every fault, clients that
//! remember; and random schedules on top.
//!
//! Ends non-zero unless every case is whole. Progress goes to stderr, the table to stdout; the logs
//! of a case that is not whole are kept. Leaves no server running, however it ends.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a table for people, and progress")]

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use pgferry_plan::Side;
use pgferry_tests::chaos::{Case, Dice, Fault, JournalIn, Outcome, Schedule, World, WorldOptions};
use pgferry_tests::{Profile, expect};

mod arguments;
mod report;

use arguments::Arguments;
use report::{Ended, Line};

fn main() -> ExitCode {
    let arguments = match Arguments::parse() {
        Ok(arguments) => arguments,
        Err(usage) => {
            println!("{usage}");
            return ExitCode::from(64);
        }
    };
    if arguments.list {
        for case in &arguments.cases {
            println!("{case}");
        }
        return ExitCode::SUCCESS;
    }
    expect::unwind_on_interrupt();
    Profile::Test.build();
    let tried = Tried::default();
    let queue = Mutex::new(work(&arguments));
    let total = lock(&queue).len();
    thread::scope(|scope| {
        for _ in 0..arguments.jobs {
            scope.spawn(|| Worker { arguments: &arguments, tried: &tried, total }.run(&queue));
        }
    });
    let mut lines = tried.lines.into_inner().unwrap_or_else(PoisonError::into_inner);
    lines.sort_by_key(|(number, _)| *number);
    let lines: Vec<Line> = lines.into_iter().map(|(_, line)| line).collect();
    print!("{}", report::table(&lines));
    print!("{}", report::take_overs(&lock(&tried.took_over)));
    if lines.len() == total && lines.iter().all(Line::is_whole) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// What a world has to be made of for a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Surroundings {
    journal: JournalIn,
    pgbouncer: bool,
}

/// One thing to try, with its place in the table.
#[derive(Clone, Copy, Debug)]
struct Work {
    number: usize,
    what: What,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Case(Case),
    /// The schedule of this number of a seed.
    Schedule(u64),
    RoundTrips(u32),
}

fn work(arguments: &Arguments) -> Vec<Work> {
    let what: Vec<What> = if arguments.round_trips > 0 {
        vec![What::RoundTrips(arguments.round_trips)]
    } else if arguments.random > 0 {
        eprintln!("seed {}", arguments.seed);
        (0..arguments.random).map(What::Schedule).collect()
    } else {
        arguments.cases.iter().copied().map(What::Case).collect()
    };
    what.into_iter().enumerate().map(|(number, what)| Work { number, what }).collect()
}

#[derive(Default)]
struct Tried {
    lines: Mutex<Vec<(usize, Line)>>,
    took_over: Mutex<Vec<(&'static str, Duration)>>,
}

/// One thread with one world at a time.
struct Worker<'a> {
    arguments: &'a Arguments,
    tried: &'a Tried,
    total: usize,
}

impl Worker<'_> {
    fn run(&self, queue: &Mutex<Vec<Work>>) {
        let mut world: Option<(World, Surroundings, usize)> = None;
        while !expect::interrupted() {
            let here = world.as_ref().map(|(world, around, _)| (world.rest_or_none(), *around));
            let Some(work) = self.take(queue, here) else { break };
            let around = self.surroundings_for(&work);
            if world
                .as_ref()
                .is_some_and(|(_, at, tried)| *at != around || *tried >= self.arguments.per_world)
            {
                self.retire(world.take());
            }
            let ended = self.attempt(&mut world, &work, around);
            self.tell(&work, ended);
        }
        self.retire(world.take());
    }

    /// The next thing to try, best one for which the writes are where it begins.
    fn take(
        &self,
        queue: &Mutex<Vec<Work>>,
        here: Option<(Option<Side>, Surroundings)>,
    ) -> Option<Work> {
        let mut queue = lock(queue);
        let fits = |work: &Work| {
            let (Some((side, around)), What::Case(case)) = (here, work.what) else { return true };
            around == self.surroundings_for(work)
                && side.is_none_or(|side| case.kind.from() == side)
        };
        let index = queue.iter().position(fits).unwrap_or(0);
        (!queue.is_empty()).then(|| queue.remove(index))
    }

    fn surroundings_for(&self, work: &Work) -> Surroundings {
        let fault = match work.what {
            What::Case(case) => Some(case.fault),
            What::Schedule(number) => Some(self.schedule(number).case.fault),
            What::RoundTrips(_) => None,
        };
        // One world for every schedule that needs no PgBouncer.
        let third = self.arguments.third_place
            || matches!(work.what, What::Schedule(_))
            || fault.is_some_and(Fault::needs_third_place);
        Surroundings {
            journal: if third { JournalIn::ThirdPlace } else { JournalIn::Destination },
            pgbouncer: fault.is_some_and(Fault::needs_pgbouncer),
        }
    }

    fn attempt(
        &self,
        slot: &mut Option<(World, Surroundings, usize)>,
        work: &Work,
        around: Surroundings,
    ) -> Ended {
        let tried = catch_unwind(AssertUnwindSafe(|| {
            let (world, _, tried) = slot.get_or_insert_with(|| {
                let Surroundings { journal, pgbouncer } = around;
                let options = WorldOptions { journal, pgbouncer, ..WorldOptions::default() };
                (World::new(options), around, 0)
            });
            *tried += 1;
            self.try_in(world, work)
        }));
        let ended = match tried {
            Ok(Some(outcome)) => Ended::Looked(outcome),
            Ok(None) => Ended::NotReached,
            Err(panic) => Ended::Broke(said(&*panic)),
        };
        let whole = match &ended {
            Ended::Looked(outcome) => outcome.is_whole(),
            Ended::NotReached => true,
            Ended::Broke(_) => false,
        };
        if !whole && !expect::interrupted() {
            if let Some((world, _, _)) = slot.as_ref() {
                self.keep_logs(work, world, &ended);
            }
            // Nobody knows what it is worth now.
            self.retire(slot.take());
        }
        ended
    }

    fn try_in(&self, world: &mut World, work: &Work) -> Option<Outcome> {
        match work.what {
            What::Case(case) => {
                // A sequence that nobody drew from between warming and fence needs no setting.
                (0..3).find_map(|_| world.try_case(&case, self.arguments.lasting))
            }
            What::Schedule(number) => {
                let schedule = self.schedule(number);
                eprintln!("schedule {number} of seed {}: {schedule:?}", self.arguments.seed);
                world.try_schedule(&schedule)
            }
            What::RoundTrips(trips) => Some(world.round_trips(trips)),
        }
    }

    fn schedule(&self, number: u64) -> Schedule {
        // Each from a seed of its own, so that one can be tried alone.
        let mut dice = Dice::new(self.arguments.seed.wrapping_add(number));
        Schedule::roll(&mut dice, &self.arguments.cases)
    }

    fn tell(&self, work: &Work, ended: Ended) {
        let line = Line { name: self.name(work), ended };
        let mut lines = lock(&self.tried.lines);
        lines.push((work.number, line));
        if let Some((_, line)) = lines.last() {
            eprintln!("{}/{} {}", lines.len(), self.total, line.text(0));
        }
    }

    fn name(&self, work: &Work) -> String {
        match work.what {
            What::Case(case) => case.to_string(),
            What::Schedule(number) => {
                format!("seed {}", self.arguments.seed.wrapping_add(number))
            }
            What::RoundTrips(trips) => format!("{trips} round trips"),
        }
    }

    fn keep_logs(&self, work: &Work, world: &World, ended: &Ended) {
        let dir = PathBuf::from("target/chaos");
        let path = dir.join(format!("{}.log", self.name(work).replace([' ', ':'], "-")));
        let text = format!("{ended:?}\n{}", world.logs());
        match fs::create_dir_all(&dir).and_then(|()| fs::write(&path, text)) {
            Ok(()) => eprintln!("logs: {}", path.display()),
            Err(error) => eprintln!("logs could not be kept: {error}"),
        }
        let again = match work.what {
            What::Case(case) => format!("--only {case}"),
            What::Schedule(number) => {
                format!("--random 1 --seed {}", self.arguments.seed.wrapping_add(number))
            }
            What::RoundTrips(trips) => format!("--round-trips {trips}"),
        };
        eprintln!("again: make chaos ARGS=\"{again}\"");
    }

    fn retire(&self, world: Option<(World, Surroundings, usize)>) {
        if let Some((world, _, _)) = world {
            lock(&self.tried.took_over).extend(world.took_over.iter().copied());
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn said(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string))
        .unwrap_or_else(|| "it panicked without a word".to_owned())
}
