//! What the fault matrix can be told on its command line.

use std::time::Duration;

use pgferry_tests::chaos::Case;

/// Which cases, and how they are tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Arguments {
    /// The cases, in the order of the matrix.
    pub(crate) cases: Vec<Case>,
    /// How long a freeze, a cut, a commit that is held lasts.
    pub(crate) lasting: Duration,
    /// Worlds beside each other.
    pub(crate) jobs: usize,
    /// After so many cases a world is made anew: what the clients wrote is compared every time.
    pub(crate) per_world: usize,
    /// Random schedules instead of the matrix.
    pub(crate) random: u64,
    /// What they are rolled from.
    pub(crate) seed: u64,
    /// Round trips without a fault, instead of the matrix.
    pub(crate) round_trips: u32,
    /// Every world has its journal in a third place.
    pub(crate) third_place: bool,
    /// Print the cases and end.
    pub(crate) list: bool,
}

/// How it is called.
pub(crate) const USAGE: &str = "\
usage: chaos [options]          (make chaos ARGS=\"…\")
  --only CASE[,CASE]     these cases, such as cutover:yield:before:kill
  --kinds, --steps, --places, --faults WORD[,WORD]
                         the cases of the matrix that have one of these words
  --list                 print the cases and end
  --lasting SECONDS      of a freeze, a cut, commits that are held (10)
  --random N             N random schedules of the cases instead
  --seed NUMBER          what the schedules are rolled from (another one each time)
  --round-trips N        N round trips under load without a fault instead, each compared
  --third-place          every journal in a third place, not only where a fault needs it
  --jobs N               worlds beside each other (2)
  --per-world N          cases until a world is made anew (20)";

impl Arguments {
    /// Reads the command line; the error is what to print.
    pub(crate) fn parse() -> Result<Self, String> {
        Self::from(std::env::args().skip(1), seed_of_now())
    }

    fn from(mut words: impl Iterator<Item = String>, seed: u64) -> Result<Self, String> {
        let mut arguments = Self {
            cases: Case::matrix(),
            lasting: Duration::from_secs(10),
            jobs: 2,
            per_world: 20,
            random: 0,
            seed,
            round_trips: 0,
            third_place: false,
            list: false,
        };
        while let Some(option) = words.next() {
            let mut value = || words.next().ok_or(format!("{option} needs a value\n{USAGE}"));
            match option.as_str() {
                "--only" => {
                    arguments.cases =
                        value()?.split(',').map(str::parse).collect::<Result<_, _>>()?;
                }
                "--kinds" => arguments.keep(0, &value()?)?,
                "--steps" => arguments.keep(1, &value()?)?,
                "--places" => arguments.keep(2, &value()?)?,
                "--faults" => arguments.keep(3, &value()?)?,
                "--list" => arguments.list = true,
                "--third-place" => arguments.third_place = true,
                "--lasting" => arguments.lasting = Duration::from_secs(number(&option, &value()?)?),
                "--random" => arguments.random = number(&option, &value()?)?,
                "--seed" => arguments.seed = number(&option, &value()?)?,
                "--round-trips" => arguments.round_trips = number(&option, &value()?)?,
                "--jobs" => arguments.jobs = number::<usize>(&option, &value()?)?.max(1),
                "--per-world" => arguments.per_world = number::<usize>(&option, &value()?)?.max(1),
                "--help" | "-h" => return Err(USAGE.to_owned()),
                _ => return Err(format!("unknown option {option}\n{USAGE}")),
            }
        }
        Ok(arguments)
    }

    /// Keeps the cases of which one part of the name is among these words.
    fn keep(&mut self, part: usize, words: &str) -> Result<(), String> {
        for word in words.split(',') {
            let known = Case::matrix().iter().any(|case| part_of(case, part) == word);
            if !known {
                return Err(format!("{word:?} is in no case\n{USAGE}"));
            }
        }
        self.cases.retain(|case| words.split(',').any(|word| part_of(case, part) == word));
        Ok(())
    }
}

fn part_of(case: &Case, part: usize) -> String {
    case.to_string().split(':').nth(part).unwrap_or_default().to_owned()
}

fn number<N: std::str::FromStr>(option: &str, text: &str) -> Result<N, String> {
    text.parse().map_err(|_| format!("{option} {text}: a whole number is needed\n{USAGE}"))
}

fn seed_of_now() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(1, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Arguments, String> {
        Arguments::from(line.split_whitespace().map(str::to_owned), 1)
    }

    #[test]
    fn filters_narrow_the_matrix_and_unknown_words_are_refused() {
        let all = read("").unwrap();
        let some = read("--kinds rollback --steps yield,drain --faults kill").unwrap();
        assert_eq!(some.cases.len(), 6, "two steps, three places");
        assert!(all.cases.len() > some.cases.len());
        assert!(read("--steps yeild").is_err());
        assert!(read("--only nothing").is_err());
        assert_eq!(read("--only cutover:yield:before:kill").unwrap().cases.len(), 1);
    }
}
