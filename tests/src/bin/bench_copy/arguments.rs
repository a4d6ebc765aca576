//! What the benchmark can be told on its command line.

use std::thread;

use crate::tools::Tool;

/// What is measured, on how much data, how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Arguments {
    /// Measured rounds; a cold one, which does not count, comes before them.
    pub(crate) rounds: u32,
    /// pgbench's scale: 100,000 rows of about 13 MB each.
    pub(crate) scale: u32,
    /// Rows of the table `docs`.
    pub(crate) docs: u64,
    /// The tools, in the order in which each round runs them.
    pub(crate) tools: Vec<Tool>,
    /// Tables and indexes at a time. Absent: the number of cores but at least 2, and pgferry's
    /// own default for pgferry.
    pub(crate) jobs: Option<usize>,
    /// Acknowledged transactions per second on the source while pgferry copies; 0 for none.
    pub(crate) writes_per_second: u32,
    /// Whether one more migration is killed in the middle of its copy.
    pub(crate) kill_at_half: bool,
}

/// How it is called.
pub(crate) const USAGE: &str = "\
usage: benches/copy [options]
  --rounds N             measured rounds after a cold one (5)
  --scale N              pgbench's scale (100)
  --docs ROWS            rows of the table docs (3000000)
  --only TOOL[,TOOL]     of pgferry, pglogical, pg_dump, native, pgcopydb (all)
  --jobs N               tables and indexes at a time, for every tool that has such an option
                         (the number of cores, at least 2; pgferry: its own default)
  --writes-per-second N  while pgferry copies, write to the source and compare every row (0)
  --kill-at-half         one more migration by pgferry, killed and resumed in the middle";

impl Arguments {
    /// Reads the command line; the error is what to print.
    pub(crate) fn parse() -> Result<Self, String> {
        Self::from(std::env::args().skip(1))
    }

    /// How many jobs the tools get that have no default worth measuring.
    pub(crate) fn jobs_or_cores(&self) -> usize {
        self.jobs.unwrap_or_else(|| thread::available_parallelism().map_or(2, usize::from).max(2))
    }

    fn from(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut arguments = Self {
            rounds: 5,
            scale: 100,
            docs: 3_000_000,
            tools: Tool::ALL.to_vec(),
            jobs: None,
            writes_per_second: 0,
            kill_at_half: false,
        };
        while let Some(option) = words.next() {
            let mut value = || words.next().ok_or(format!("{option} needs a value\n{USAGE}"));
            match option.as_str() {
                "--rounds" => arguments.rounds = number(&option, &value()?)?,
                "--scale" => arguments.scale = number(&option, &value()?)?,
                "--docs" => arguments.docs = number(&option, &value()?)?,
                "--only" => arguments.tools = tools(&value()?)?,
                "--jobs" => arguments.jobs = Some(number(&option, &value()?)?),
                "--writes-per-second" => {
                    let rate = value()?;
                    arguments.writes_per_second =
                        if rate == "0" { 0 } else { number(&option, &rate)? };
                }
                "--kill-at-half" => arguments.kill_at_half = true,
                "--help" | "-h" => return Err(USAGE.to_owned()),
                _ => return Err(format!("unknown option {option}\n{USAGE}")),
            }
        }
        Ok(arguments)
    }
}

fn number<N: std::str::FromStr + PartialOrd + From<u8>>(
    option: &str,
    text: &str,
) -> Result<N, String> {
    text.parse()
        .ok()
        .filter(|number| *number >= N::from(1))
        .ok_or_else(|| format!("{option} {text}: a whole number from 1 is needed\n{USAGE}"))
}

fn tools(text: &str) -> Result<Vec<Tool>, String> {
    text.split(',')
        .map(|word| {
            let known = Tool::ALL.into_iter().find(|tool| tool.name() == word.trim());
            known.ok_or_else(|| format!("--only {text}: there is no tool {word:?}\n{USAGE}"))
        })
        .collect()
}
