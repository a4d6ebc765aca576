//! Sizes as PostgreSQL writes them: `64kB`, `512MB`, `100GB`, each unit 1024 of the one below.
//!
//! `MiB` and its like are taken as well, because that is what the same number is called elsewhere.
//! Only whole numbers: what cannot be said in one unit can in the next smaller one.

/// Units by their names, the largest first, with their bytes.
const UNITS: [(&str, &str, u64); 5] = [
    ("TB", "TiB", 1 << 40),
    ("GB", "GiB", 1 << 30),
    ("MB", "MiB", 1 << 20),
    ("kB", "KiB", 1 << 10),
    ("B", "B", 1),
];

/// Bytes; none when it is not a number with a unit, or more than 64 bits hold.
pub(super) fn parse(text: &str) -> Option<u64> {
    let text = text.trim();
    let unit_at = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(unit_at);
    let unit = unit.trim_start();
    let (_, _, bytes) = UNITS.iter().find(|(name, other, _)| unit == *name || unit == *other)?;
    number.parse::<u64>().ok()?.checked_mul(*bytes)
}

/// The same in the largest unit that leaves a whole number.
pub(super) fn write(bytes: u64) -> String {
    let fits = |unit: u64| bytes >= unit && bytes.is_multiple_of(unit);
    UNITS
        .iter()
        .find(|(_, _, unit)| fits(*unit))
        .map_or_else(|| format!("{bytes}B"), |(name, _, unit)| format!("{}{name}", bytes / unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_those_of_postgresql() {
        for (text, bytes) in [
            ("64kB", Some(65_536)),
            ("50MB", Some(52_428_800)),
            ("50 MiB", Some(52_428_800)),
            ("1GiB", Some(1 << 30)),
            ("2TB", Some(2 << 40)),
            ("512B", Some(512)),
            // PostgreSQL takes neither of these; a number alone has no unit.
            ("64KB", None),
            ("64mb", None),
            ("64", None),
            ("MB", None),
            ("", None),
            ("-1MB", None),
            ("1.5GB", None),
            ("99999999999TB", None),
        ] {
            assert_eq!(parse(text), bytes, "{text}");
        }
    }

    #[test]
    fn a_size_is_written_as_it_would_be_read() {
        for text in ["64kB", "16MB", "2047GB", "3TB", "1025kB", "7B"] {
            assert_eq!(parse(text).map(write).as_deref(), Some(text));
        }
        assert_eq!(write(0), "0B");
    }
}
