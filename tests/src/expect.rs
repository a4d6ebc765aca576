//! Waiting for a condition with a deadline.
//!
//! Never a bare sleep: what is awaited is named, and the last thing seen is told when it does not
//! come.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};

use crate::session::runtime;

/// How often a condition is looked at. Short, because tests add up, and long enough that two cores
/// are left to the servers.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Looks until `look` answers `Ok`, and returns that; panics with the last `Err` at the deadline.
pub fn eventually<T>(
    what: &str,
    deadline: Duration,
    mut look: impl FnMut() -> Result<T, String>,
) -> T {
    let started = Instant::now();
    loop {
        assert!(!interrupted(), "interrupted while waiting for {what}");
        match look() {
            Ok(seen) => return seen,
            Err(last) if started.elapsed() >= deadline => {
                panic!("waited {:.1} s for {what}; last seen: {last}", deadline.as_secs_f64())
            }
            Err(_) => thread::sleep(LOOK_EVERY),
        }
    }
}

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Makes the first SIGINT or SIGTERM end every wait with a panic, so that destructors stop what
/// was started. The second ends the process at once; then the children's parent-death signal does
/// it.
pub fn unwind_on_interrupt() {
    runtime().spawn(async {
        let (Ok(mut int), Ok(mut term)) =
            (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
        else {
            panic!("cannot listen for signals");
        };
        loop {
            tokio::select! { _ = int.recv() => {}, _ = term.recv() => {} }
            if INTERRUPTED.swap(true, Ordering::Relaxed) {
                std::process::exit(130);
            }
        }
    });
}

/// Whether somebody asked this process to end: then a failure needs no explanation.
#[must_use]
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn returns_what_was_seen_at_last() {
        let mut looks = 0;
        let seen = eventually("three looks", Duration::from_secs(5), || {
            looks += 1;
            if looks == 3 { Ok(looks) } else { Err(format!("{looks} looks")) }
        });
        assert_eq!(seen, 3);
    }

    #[test]
    #[should_panic(expected = "last seen: nothing")]
    fn says_what_it_last_saw() {
        eventually("a miracle", Duration::from_millis(1), || Err::<(), _>("nothing".to_owned()));
    }
}
