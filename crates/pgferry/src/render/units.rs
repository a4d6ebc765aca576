//! Figures with units. A figure that is not known says so, and is never shown as zero.

/// What stands for a figure that is not known.
const UNKNOWN: &str = "?";

/// `4.0 KiB`
pub(super) fn bytes(bytes: Option<u64>) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let Some(bytes) = bytes else { return UNKNOWN.to_owned() };
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    // 1023.95 would be printed as 1024.0.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// `12 ms`, `4.2 s`, `3 min 20 s`, `2 h 5 min`
pub(super) fn seconds(seconds: Option<f64>) -> String {
    let Some(seconds) = seconds.filter(|seconds| seconds.is_finite()) else {
        return UNKNOWN.to_owned();
    };
    let whole = seconds.max(0.0) as u64;
    match whole {
        0 => format!("{:.0} ms", seconds * 1000.0),
        1..=59 => format!("{seconds:.1} s"),
        60..=3599 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

/// `31.2 ms`: a write stall is compared to the tenth, whatever its size.
pub(super) fn milliseconds(ms: f64) -> String {
    format!("{ms:.1} ms")
}

/// `15,607`
pub(super) fn count(count: Option<u64>) -> String {
    let Some(count) = count else { return UNKNOWN.to_owned() };
    let digits = count.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_the_unit_that_suits_them() {
        for (value, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (16_777_216, "16.0 MiB"),
            (1_048_570, "1.0 MiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(bytes(Some(value)), text);
        }
        assert_eq!(bytes(None), "?");
    }

    #[test]
    fn durations_have_the_unit_that_suits_them() {
        for (value, text) in [
            (0.012, "12 ms"),
            (0.0, "0 ms"),
            (4.25, "4.2 s"),
            (200.0, "3 min 20 s"),
            (7500.0, "2 h 5 min"),
        ] {
            assert_eq!(seconds(Some(value)), text);
        }
        assert_eq!(seconds(None), "?");
        assert_eq!(seconds(Some(f64::NAN)), "?");
        assert_eq!(milliseconds(31.24), "31.2 ms");
    }

    #[test]
    fn counts_are_grouped_by_thousands() {
        for (value, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (15_607_123, "15,607,123")] {
            assert_eq!(count(Some(value)), text);
        }
        assert_eq!(count(None), "?");
    }
}
