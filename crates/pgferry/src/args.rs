//! The command line: its grammar and the help that teaches it.
//!
//! Nothing is carried out here. What a verb does, what it waits for and how it ends stands in its
//! own help, so that nobody needs the manual in the middle of a cutover.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use pgferry_api::{MigrationName, Phase, Verb};

const ABOUT: &str = "\
Carries a live PostgreSQL database to another server with pglogical, in both directions at once, \
so that the move can be taken back without losing a write.

`pgferry serve` is the daemon: it stays beside the migration for days. All other commands but \
`check-config` are clients that talk to it over HTTP.";

const EXAMPLES: &str = "\
A migration from beginning to end:
  pgferry check-config pgferry.toml      is the configuration good?
  pgferry serve --config pgferry.toml    the daemon; leave it running
  pgferry preflight                      what would stand in the way?
  pgferry start                          copy, follow, keep both directions in step
  pgferry watch                          look on until it is ready
  pgferry cutover --dry-run              could it cut over now?
  pgferry cutover                        move the writes to the destination
  pgferry rollback                       … and back, as often as needed
  pgferry finish                         clean up; the destination stays

Exit codes:
  0   done (a dry run: nothing stands in the way)
  1   failed or aborted, or the daemon cannot be asked
  2   blocked: something has to be done first, and the output says what
  64  the command line or the configuration is wrong

Data goes to stdout, talk and progress to stderr. The client commands read PGFERRY_URL, and send \
PGFERRY_TOKEN as a bearer token when it is set.";

const NAME_HELP: &str = "The migration; may be left out when there is exactly one";

#[derive(Debug, Parser)]
#[command(name = "pgferry", version, about = ABOUT, after_help = EXAMPLES, max_term_width = 100)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) remote: Remote,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Which daemon a client command asks, and how it prints the answer.
#[derive(Debug, clap::Args)]
pub(crate) struct Remote {
    /// Where the daemon listens
    #[arg(
        long,
        global = true,
        env = "PGFERRY_URL",
        default_value = "http://127.0.0.1:8432",
        value_name = "URL"
    )]
    pub(crate) url: String,

    /// How data is printed: for people, or one JSON document a line
    #[arg(long, global = true, value_enum, default_value_t = Format::Text, value_name = "FORMAT")]
    pub(crate) output: Format,
}

/// How data goes to stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Tables and sentences.
    Text,
    /// The documents of the HTTP interface, one a line.
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the daemon
    ///
    /// Serves health, metrics and the API, and drives every migration of the configuration. It
    /// writes nothing to any database before `start`. After a crash, start it again: it goes on
    /// where its journal ends. Only a bad configuration ends it (64); a server that is away leaves
    /// it running and not ready. SIGTERM stops it in order.
    Serve {
        /// The configuration file
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },

    /// Check a configuration file, and print every problem at once
    ///
    /// Reads the file and the environment, and connects to nothing. Exits 0 when it is good, and 64
    /// when it is not.
    CheckConfig {
        /// The configuration file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },

    #[command(flatten)]
    Client(ClientCommand),
}

/// The commands that ask a running daemon.
#[derive(Debug, Subcommand)]
pub(crate) enum ClientCommand {
    /// Look for everything that would stand in the way
    ///
    /// Asks both servers, changes nothing, waits for the result and prints each finding with its
    /// remedy. Exits 0 when nothing blocks (warnings do not), 2 when something does; a server that
    /// cannot be reached does. Exits 1 when the daemon could not be asked.
    Preflight(Waited),

    /// Begin: prepare, copy, and follow until ready
    ///
    /// Returns as soon as the daemon has accepted it (0), or refused it (2); `pgferry watch` shows
    /// the rest. The source stays active throughout.
    Start(Named),

    /// Show where a migration stands
    ///
    /// Answered from the daemon's memory, at most a second old. While the copy runs it also shows
    /// how fast it goes, when its last row will have arrived, and the tables at work. Exits 0 whatever
    /// the state is.
    Status {
        #[command(flatten)]
        named: Named,
        /// Show every migration, one line each
        #[arg(long, conflicts_with = "name")]
        all: bool,
        /// List every table of the copy; with `--output json` print the copy's document instead
        #[arg(long, conflicts_with = "all")]
        tables: bool,
    },

    /// Look on while a migration moves
    ///
    /// Shows phase, step, copy and lag as they move: on stderr, or with `--output json` as one
    /// migration document a line on stdout. At a terminal the copy is a bar, with its speed and the
    /// time left, and so is each table at work. Ends (0) at ready, cut_over, finished or abandoned, or
    /// at the phase given with --until, also when that was passed already; 1 when it can no longer
    /// come, because the migration is over or being ended otherwise. A blocked migration is looked on at, since it goes on once the cause is removed.
    #[command(after_help = "Example: in a script, give it a limit:
  timeout 1h pgferry watch --until ready && pgferry cutover")]
    Watch {
        #[command(flatten)]
        named: Named,
        /// End at this phase instead
        #[arg(long, value_name = "PHASE")]
        until: Option<Phase>,
    },

    /// Compare every row of both sides, while the application writes on
    ///
    /// Also compares sequences, large objects and definitions. Waits for the end and prints what
    /// differs: each row by its key, with the names of the columns. Exits 0 when nothing differs, 1
    /// when something does or the comparison failed. A cutover needs a clean and recent one, unless
    /// cutover.require_verification is false.
    Verify(Verified),

    /// Move the writes to the destination
    ///
    /// Fences the source, waits until everything written there is on the destination, sets the
    /// sequences, and opens the destination. Waits for the end and prints how long writes were held
    /// and where the time went. When it cannot be done in time the source is opened again by
    /// itself, and the exit code is 1. Exits 2, with everything that stands in the way, when it
    /// cannot begin.
    Cutover(Switched),

    /// Move the writes back to the source
    ///
    /// The same as cutover with the sides exchanged: every write made on the destination is on the
    /// source before the source is opened. Can be taken back by another cutover.
    Rollback(Switched),

    /// End a running cutover or rollback before the line
    ///
    /// The side that was active is opened again. Exits 2 once the line has been passed: from there
    /// a switchover only goes forward.
    Abort(Waited),

    /// Begin no further step
    ///
    /// The step at work comes to its end, the streams stay as they are. Refused (2) during a
    /// switchover, which is aborted instead.
    Pause(Waited),

    /// Go on after a pause, or try a blocked step again
    Resume(Waited),

    /// Clean up, with the destination active for good
    ///
    /// Removes everything of pgferry and pglogical from both servers and proves it. There is no way
    /// back afterwards. The source stays fenced, so that no client writes to a dead copy; the
    /// output names the statements that lift the fence.
    Finish(Ended),

    /// Clean up, with the source active as it was before
    ///
    /// Ends the migration at any phase in which the source is active. The destination stays fenced.
    Abandon(Ended),

    /// Print the journal: what was intended, and what was seen to be done
    ///
    /// One event a line. With `--output json` one document with all of them, or with --follow one
    /// event a line.
    Events {
        #[command(flatten)]
        named: Named,
        /// Only events after this sequence number
        #[arg(long, value_name = "SEQ", default_value_t = 0)]
        after: u64,
        /// Go on printing as events come, until interrupted
        #[arg(long)]
        follow: bool,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct Named {
    #[arg(value_name = "NAME", help = NAME_HELP)]
    pub(crate) name: Option<MigrationName>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Waited {
    #[command(flatten)]
    pub(crate) named: Named,
    /// Return once it is accepted, instead of waiting for its end
    #[arg(long)]
    pub(crate) no_wait: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Verified {
    #[command(flatten)]
    pub(crate) waited: Waited,
    /// Print the values that differ, too: they are sent, and shown, as they are
    #[arg(long)]
    pub(crate) show_values: bool,
    /// Print which rows would be copied again from the active side; with --yes do it
    #[arg(long)]
    pub(crate) repair: bool,
    /// Carry the repair out
    #[arg(long, requires = "repair")]
    pub(crate) yes: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Switched {
    #[command(flatten)]
    pub(crate) waited: Waited,
    /// Change nothing; print whether it could begin now (0), or all that stands in the way (2)
    #[arg(long, conflicts_with = "no_wait")]
    pub(crate) dry_run: bool,
    /// The active side is lost for good: open the other one without it
    ///
    /// Only while the active side cannot be reached. Prints what may be lost, and goes on only with
    /// --yes. There is no way back: the lost side's stream is cut for good.
    #[arg(long)]
    pub(crate) force: bool,
    /// With --force: accept what may be lost
    #[arg(long, requires = "force", conflicts_with = "dry_run")]
    pub(crate) yes: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Ended {
    #[command(flatten)]
    pub(crate) waited: Waited,
    /// Lift the fence of the side left behind too: clients can then write to a dead copy
    #[arg(long)]
    pub(crate) open_passive: bool,
}

/// One of the verbs that a migration can be told, with all of its options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) verb: Verb,
    pub(crate) wait: bool,
    pub(crate) dry_run: bool,
    pub(crate) open_passive: bool,
    pub(crate) force: bool,
    /// What a forced switchover may lose is accepted.
    pub(crate) yes: bool,
    pub(crate) show_values: bool,
    pub(crate) repair: bool,
}

impl Request {
    fn new(verb: Verb, wait: bool) -> Self {
        Self {
            verb,
            wait,
            dry_run: false,
            open_passive: false,
            force: false,
            yes: false,
            show_values: false,
            repair: false,
        }
    }

    /// `start` takes hours: it returns when it is accepted.
    pub(crate) fn start() -> Self {
        Self::new(Verb::Start, false)
    }

    pub(crate) fn waited(verb: Verb, args: &Waited) -> Self {
        Self::new(verb, !args.no_wait)
    }

    pub(crate) fn verify(args: &Verified) -> Self {
        let repair = args.repair && args.yes;
        Self { show_values: args.show_values, repair, ..Self::waited(Verb::Verify, &args.waited) }
    }

    pub(crate) fn switchover(verb: Verb, args: &Switched) -> Self {
        Self {
            dry_run: args.dry_run,
            force: args.force,
            yes: args.yes,
            ..Self::waited(verb, &args.waited)
        }
    }

    pub(crate) fn end(verb: Verb, args: &Ended) -> Self {
        Self { open_passive: args.open_passive, ..Self::waited(verb, &args.waited) }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    use super::*;

    #[test]
    fn the_grammar_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn every_verb_of_the_api_is_a_command() {
        let command = Args::command();
        for verb in Verb::ALL {
            assert!(command.find_subcommand(verb.as_str()).is_some(), "{verb}");
        }
    }

    #[test]
    fn global_options_stand_before_or_after_the_command() {
        for line in [
            "pgferry --output json --url http://h status",
            "pgferry status --output json --url http://h",
        ] {
            let args = Args::try_parse_from(line.split(' ')).unwrap();
            let remote = args.remote;
            assert_eq!((remote.url.as_str(), remote.output), ("http://h", Format::Json));
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (line, kind) in [
            ("pgferry", ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand),
            ("pgferry explode", ErrorKind::InvalidSubcommand),
            ("pgferry cutover Not-A-Name", ErrorKind::ValueValidation),
            ("pgferry cutover --dry-run --no-wait", ErrorKind::ArgumentConflict),
            ("pgferry cutover --yes", ErrorKind::MissingRequiredArgument),
            ("pgferry finish --force", ErrorKind::UnknownArgument),
            ("pgferry start --dry-run", ErrorKind::UnknownArgument),
            ("pgferry cutover --open-passive", ErrorKind::UnknownArgument),
            ("pgferry watch --until done", ErrorKind::ValueValidation),
            ("pgferry status --tables --all", ErrorKind::ArgumentConflict),
            ("pgferry status --output xml", ErrorKind::InvalidValue),
            ("pgferry serve", ErrorKind::MissingRequiredArgument),
            ("pgferry events --after -1", ErrorKind::UnknownArgument),
        ] {
            let error = Args::try_parse_from(line.split(' ')).unwrap_err();
            assert_eq!(error.kind(), kind, "{line}");
            assert!(error.use_stderr(), "{line} must end with 64");
        }
        assert!(!Args::try_parse_from(["pgferry", "--help"]).unwrap_err().use_stderr());
    }

    #[test]
    fn the_help_teaches_examples_and_exit_codes() {
        let help = Args::command().render_long_help().to_string();
        for word in ["pgferry cutover --dry-run", "Exit codes:", "PGFERRY_URL", "64"] {
            assert!(help.contains(word), "{word}");
        }
    }
}
