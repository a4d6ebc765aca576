//! For how long a switchover would hold writes, told beforehand from parts that were measured.
//!
//! A forecast for people: nothing is decided by it. It is a lower bound: what the load adds, and the ending
//! of many sessions, is in none of the parts (seen: 11 ms told, 71 ms held, eight clients on two cores).

use std::time::Duration;

/// What a stall is made of, as measured a moment ago on the way that a switchover would go.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Parts {
    /// An append to the journal, flushed, in milliseconds.
    pub append_ms: Option<f64>,
    /// A look at both sides as they are looked at within a stall, in milliseconds.
    pub look_ms: Option<f64>,
    /// From a write on the active side to its arrival on the other, in milliseconds.
    pub arrival_ms: Option<f64>,
}

/// Entries that are flushed between fence and opening: the marker's intent, the yield's, the opening's.
const APPENDS: f64 = 3.0;
/// Commits on either side that are waited for: fence, marker, yield, opening. Each is flushed as an
/// append is, and is taken to last as long.
const COMMITS: f64 = 4.0;
/// Looks: after the fence, after its sessions are ended, two until the marker is there, at the
/// sequences, at the yield, at the opening.
const LOOKS: f64 = 7.0;

/// The forecast in milliseconds; None while a part of it was not measured.
#[must_use]
pub fn stall_ms(parts: &Parts) -> Option<f64> {
    let flushed = parts.append_ms? * (APPENDS + COMMITS);
    Some(flushed + parts.look_ms? * LOOKS + parts.arrival_ms?)
}

/// The middle one of a few measurements, in milliseconds.
#[must_use]
pub fn median_ms(measured: &[Duration]) -> Option<f64> {
    let mut sorted: Vec<Duration> = measured.to_vec();
    sorted.sort();
    sorted.get(sorted.len() / 2).map(|middle| middle.as_secs_f64() * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forecast_needs_every_part() {
        let parts = Parts { append_ms: Some(2.0), look_ms: Some(1.0), arrival_ms: Some(5.0) };
        assert_eq!(stall_ms(&parts), Some(26.0));
        assert_eq!(stall_ms(&Parts { append_ms: None, ..parts }), None);
        assert_eq!(stall_ms(&Parts { look_ms: None, ..parts }), None);
        assert_eq!(stall_ms(&Parts { arrival_ms: None, ..parts }), None);
    }

    #[test]
    fn one_slow_measurement_does_not_make_the_forecast() {
        let ms = |all: &[u64]| {
            let all: Vec<_> = all.iter().map(|ms| Duration::from_millis(*ms)).collect();
            median_ms(&all)
        };
        assert_eq!(ms(&[3, 200, 2]), Some(3.0));
        assert_eq!(ms(&[]), None);
    }
}
