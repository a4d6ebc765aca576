//! What the benchmark can be told on its command line.

use std::fmt;
use std::time::Duration;

/// A way of moving the writes from one server to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// pgferry; clients know both hosts.
    MultiHost,
    /// pgferry; clients know a PgBouncer.
    Pgbouncer,
    /// What scripts and peers do over pglogical: role read-only, sessions ended, wait for equal
    /// positions, sequences one by one.
    ReadOnlyRole,
    /// The same over PostgreSQL's own logical replication, which has to be turned round each time.
    Native,
}

impl Way {
    /// Every way, in the order of the table.
    pub(crate) const ALL: [Way; 4] =
        [Way::MultiHost, Way::Pgbouncer, Way::ReadOnlyRole, Way::Native];

    fn as_str(self) -> &'static str {
        match self {
            Way::MultiHost => "multi_host",
            Way::Pgbouncer => "pgbouncer",
            Way::ReadOnlyRole => "read_only_role",
            Way::Native => "native",
        }
    }

    /// Whether pgferry builds the road that this way goes over.
    pub(crate) fn over_pglogical(self) -> bool {
        match self {
            Way::MultiHost | Way::Pgbouncer | Way::ReadOnlyRole => true,
            Way::Native => false,
        }
    }

    /// Whether it is pgferry's.
    pub(crate) fn is_ours(self) -> bool {
        match self {
            Way::MultiHost | Way::Pgbouncer => true,
            Way::ReadOnlyRole | Way::Native => false,
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How much is measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Arguments {
    /// Switchovers of pgferry at each rate, there and back in turn.
    pub(crate) switchovers: u32,
    /// The same of each other way.
    pub(crate) by_hand: u32,
    /// Acknowledged writes a second that the clients aim at.
    pub(crate) rates: Vec<u32>,
    /// What is measured.
    pub(crate) ways: Vec<Way>,
    /// Milliseconds added to every round trip between the destination and source, daemon and PgBouncer;
    /// the clients stay where they are.
    pub(crate) delay_ms: u32,
    /// What a client waits between two transactions; the shorter, the fewer clients make a rate. It is part of
    /// every gap that is measured.
    pub(crate) pause: Duration,
    /// How soon a client that was refused tries again.
    pub(crate) reconnect_after: Duration,
    /// Tables beside those that are written.
    pub(crate) tables: u32,
    /// Sequences beside those of the tables that are written; the clients use one of them each.
    pub(crate) sequences: u32,
}

const USAGE: &str = "usage: bench-switchover [--switchovers N] [--by-hand N] [--rates N,…] \
[--ways multi_host,pgbouncer,read_only_role,native] [--delay-ms N] [--pause-ms N] \
[--reconnect-ms N] [--tables N] [--sequences N]";

impl Arguments {
    /// Reads the command line; the error is what to print.
    pub(crate) fn parse() -> Result<Self, String> {
        Self::from(std::env::args().skip(1))
    }

    fn from(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut arguments = Self {
            switchovers: 100,
            by_hand: 20,
            rates: vec![500, 2500],
            ways: Way::ALL.to_vec(),
            delay_ms: 0,
            pause: Duration::from_millis(12),
            reconnect_after: Duration::from_millis(25),
            tables: 500,
            sequences: 200,
        };
        while let Some(word) = words.next() {
            let value = words.next().ok_or(USAGE)?;
            let number = || value.parse::<u32>().map_err(|_| USAGE);
            match word.as_str() {
                "--switchovers" => arguments.switchovers = number()?,
                "--by-hand" => arguments.by_hand = number()?,
                "--delay-ms" => arguments.delay_ms = number()?,
                "--pause-ms" => arguments.pause = Duration::from_millis(number()?.into()),
                "--reconnect-ms" => {
                    arguments.reconnect_after = Duration::from_millis(number()?.into());
                }
                "--tables" => arguments.tables = number()?,
                "--sequences" => arguments.sequences = number()?,
                "--rates" => {
                    let rates: Result<Vec<u32>, _> = value.split(',').map(str::parse).collect();
                    arguments.rates = rates.map_err(|_| USAGE)?;
                }
                "--ways" => {
                    let known = |word: &str| Way::ALL.into_iter().find(|way| way.as_str() == word);
                    let ways: Option<Vec<Way>> = value.split(',').map(known).collect();
                    arguments.ways = ways.ok_or(USAGE)?;
                }
                _ => return Err(USAGE.to_owned()),
            }
        }
        if arguments.switchovers == 0 || arguments.by_hand == 0 || arguments.rates.contains(&0) {
            return Err(USAGE.to_owned());
        }
        Ok(arguments)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_is_taken_whole_or_not_at_all() {
        let parse = |line: &str| Arguments::from(line.split_whitespace().map(str::to_owned));
        assert_eq!(parse("").unwrap().switchovers, 100);
        let some = parse("--ways native --rates 10,20 --switchovers 3").unwrap();
        assert_eq!((some.ways, some.rates, some.switchovers), (vec![Way::Native], vec![10, 20], 3));
        for wrong in ["--ways fast", "--rates 0", "--switchovers", "--switchovers x", "--help"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
