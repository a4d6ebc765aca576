//! Holding a copy to so many bytes per second, over all of its workers.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A pace that workers keep together.
#[derive(Debug)]
pub(crate) struct Pace {
    bytes_per_second: Option<u64>,
    /// When the bytes that were let through are used up.
    due: Mutex<Instant>,
}

/// What may be caught up after a pause, so that a slow moment is not lost for good.
const BURST: Duration = Duration::from_millis(100);

impl Pace {
    /// None lets everything through.
    pub(crate) fn new(bytes_per_second: Option<u64>) -> Self {
        Self { bytes_per_second, due: Mutex::new(Instant::now()) }
    }

    /// Waits until so many bytes more are within the pace.
    pub(crate) async fn keep(&self, bytes: u64) {
        if let Some(until) = self.due_after(bytes, Instant::now()) {
            tokio::time::sleep_until(until).await;
        }
    }

    fn due_after(&self, bytes: u64, now: Instant) -> Option<Instant> {
        let rate = self.bytes_per_second?;
        let cost = Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64);
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        *due = (*due).max(now.checked_sub(BURST).unwrap_or(now)) + cost;
        Some(*due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_keep_one_pace_together() {
        let pace = Pace::new(Some(1_000_000));
        let now = Instant::now();
        let last = (0..20).filter_map(|_| pace.due_after(100_000, now)).last().unwrap();
        let seconds = last.duration_since(now).as_secs_f64();
        assert!((1.8..=2.0).contains(&seconds), "2 MB at 1 MB/s are due after {seconds} s");
        let later = last + Duration::from_secs(60);
        let due = pace.due_after(100_000, later).unwrap();
        assert!(due >= later, "a minute of rest is not caught up");
    }

    #[test]
    fn without_a_limit_nothing_waits() {
        assert_eq!(Pace::new(None).due_after(u64::MAX, Instant::now()), None);
    }
}
