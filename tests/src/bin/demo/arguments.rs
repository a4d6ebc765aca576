//! What the demo can be told on its command line.

/// How long and how large the demo is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arguments {
    /// Cutover and rollback in turn; an odd number ends on the destination.
    pub(crate) switchovers: u32,
    /// pgbench's scale: 100,000 rows of about 13 MB each.
    pub(crate) scale: u32,
}

const USAGE: &str = "usage: demo [--switchovers N] [--scale N]";

impl Arguments {
    /// Reads the command line; the error is what to print.
    pub(crate) fn parse() -> Result<Self, String> {
        Self::from(std::env::args().skip(1))
    }

    fn from(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut arguments = Self { switchovers: 3, scale: 20 };
        while let Some(word) = words.next() {
            let number = words.next().and_then(|n| n.parse().ok()).filter(|n| *n > 0);
            match (word.as_str(), number) {
                ("--switchovers", Some(n)) => arguments.switchovers = n,
                ("--scale", Some(n)) => arguments.scale = n,
                _ => return Err(USAGE.to_owned()),
            }
        }
        Ok(arguments)
    }
}
