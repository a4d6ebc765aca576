//! The fixed words of the interface, each an enum whose text is its name in `snake_case`.
//!
//! No word is spelled a second time anywhere else: JSON, metrics, routes and the command line all
//! take it from here.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The text is none of the words of its kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownWord {
    text: String,
    known: &'static [&'static str],
}

impl fmt::Display for UnknownWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" is none of: {}", self.text, self.known.join(", "))
    }
}

impl std::error::Error for UnknownWord {}

/// Spells each word once and derives list, text, parsing and JSON from that spelling.
macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($(#[$note:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$note])* #[serde(rename = $word)] $variant,)+
        }

        impl $name {
            /// Every word, in the order of the contract.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];

            /// The word itself.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $word,)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = UnknownWord;

            fn from_str(text: &str) -> Result<Self, UnknownWord> {
                match text {
                    $($word => Ok($name::$variant),)+
                    other => Err(UnknownWord { text: other.to_owned(), known: &[$($word),+] }),
                }
            }
        }
    };
}

words! {
    /// Where a migration stands in its life.
    Phase {
        /// Known from the configuration; nothing has been written anywhere.
        Planned = "planned",
        /// Both servers are made ready.
        Preparing = "preparing",
        /// Schema and rows are on their way.
        Copying = "copying",
        /// The destination catches up and the way back is built.
        Following = "following",
        /// Both directions are in step; the source is active.
        Ready = "ready",
        /// The active side moves to the destination.
        CuttingOver = "cutting_over",
        /// Both directions are in step; the destination is active.
        CutOver = "cut_over",
        /// The active side moves back to the source.
        RollingBack = "rolling_back",
        /// Everything of pgferry and pglogical is being removed; the destination stays active.
        Finishing = "finishing",
        /// The database lives on the destination, and nothing of pgferry is left.
        Finished = "finished",
        /// Everything of pgferry and pglogical is being removed; the source stays active.
        Abandoning = "abandoning",
        /// The database stayed on the source, and nothing of pgferry is left.
        Abandoned = "abandoned",
    }
}

words! {
    /// Why a migration does not move at the moment.
    ConditionKind {
        /// For something that comes by itself.
        Waiting = "waiting",
        /// Until a person has done something.
        Blocked = "blocked",
        /// Because a person asked for it.
        Paused = "paused",
    }
}

words! {
    /// How one direction's stream is.
    StreamStatus {
        /// It was looked for and is not there.
        Absent = "absent",
        /// It is being set up.
        Starting = "starting",
        /// Changes flow.
        Streaming = "streaming",
        /// Connected, and nothing moves although something should.
        Stalled = "stalled",
        /// Switched off on purpose.
        Disabled = "disabled",
        /// It should run and does not.
        Down = "down",
        /// It could not be looked at.
        Unknown = "unknown",
    }
}

words! {
    /// What is done with a table of the copy at the moment.
    CopyState {
        /// None of its rows has been sent.
        Waiting = "waiting",
        /// Its rows are on their way.
        Copying = "copying",
        /// Its rows have arrived; its indexes are being built, or wait to be.
        Indexing = "indexing",
        /// Rows and indexes are there.
        Done = "done",
    }
}

words! {
    /// How an operation stands.
    OperationState {
        /// Not ended yet.
        Running = "running",
        /// It did what was asked.
        Succeeded = "succeeded",
        /// It did not, and does not go on by itself.
        Failed = "failed",
        /// It was ended before its effect, and what it had begun is undone.
        Aborted = "aborted",
        /// It met something that a person has to remove first.
        Blocked = "blocked",
    }
}

words! {
    /// How a switchover ended.
    Outcome {
        /// The other side is active.
        Succeeded = "succeeded",
        /// It did not, and does not go on by itself.
        Failed = "failed",
        /// The side that was active is active again.
        Aborted = "aborted",
        /// Something stood in the way before anything was touched.
        Blocked = "blocked",
    }
}

words! {
    /// What a migration can be told.
    Verb {
        /// Look for everything that would stand in the way.
        Preflight = "preflight",
        /// Begin, up to the gate of the cutover.
        Start = "start",
        /// Compare the rows of both sides.
        Verify = "verify",
        /// Move the active side to the destination.
        Cutover = "cutover",
        /// Move the active side back to the source.
        Rollback = "rollback",
        /// End a running switchover before the line.
        Abort = "abort",
        /// Begin no further step.
        Pause = "pause",
        /// Go on after a pause, or try a blocked step again.
        Resume = "resume",
        /// Clean up with the destination active.
        Finish = "finish",
        /// Clean up with the source active.
        Abandon = "abandon",
    }
}

impl From<Outcome> for OperationState {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Succeeded => OperationState::Succeeded,
            Outcome::Failed => OperationState::Failed,
            Outcome::Aborted => OperationState::Aborted,
            Outcome::Blocked => OperationState::Blocked,
        }
    }
}

impl Phase {
    /// Whether the migration is over, for good.
    #[must_use]
    pub fn is_over(self) -> bool {
        match self {
            Phase::Finished | Phase::Abandoned => true,
            Phase::Planned
            | Phase::Preparing
            | Phase::Copying
            | Phase::Following
            | Phase::Ready
            | Phase::CuttingOver
            | Phase::CutOver
            | Phase::RollingBack
            | Phase::Finishing
            | Phase::Abandoning => false,
        }
    }
}

impl Verb {
    /// Whether it takes `?dry_run=true`.
    #[must_use]
    pub fn takes_dry_run(self) -> bool {
        match self {
            Verb::Cutover | Verb::Rollback => true,
            Verb::Preflight
            | Verb::Start
            | Verb::Verify
            | Verb::Abort
            | Verb::Pause
            | Verb::Resume
            | Verb::Finish
            | Verb::Abandon => false,
        }
    }

    /// Whether it takes `{"force": true}`: those that move the active side.
    #[must_use]
    pub fn takes_force(self) -> bool {
        self.takes_dry_run()
    }

    /// Whether it takes `{"open_passive": true}`.
    #[must_use]
    pub fn takes_open_passive(self) -> bool {
        match self {
            Verb::Finish | Verb::Abandon => true,
            Verb::Preflight
            | Verb::Start
            | Verb::Verify
            | Verb::Cutover
            | Verb::Rollback
            | Verb::Abort
            | Verb::Pause
            | Verb::Resume => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_the_same_in_json_in_text_and_when_parsed() {
        for phase in Phase::ALL {
            let json = serde_json::to_string(phase).unwrap();
            assert_eq!(json, format!("\"{phase}\""));
            assert_eq!(serde_json::from_str::<Phase>(&json).unwrap(), *phase);
            assert_eq!(phase.as_str().parse::<Phase>().unwrap(), *phase);
        }
        assert_eq!(Verb::ALL.len(), 10);
        assert_eq!(Phase::ALL.len(), 12);
    }

    #[test]
    fn an_unknown_word_is_answered_with_the_known_ones() {
        let error = "halted".parse::<ConditionKind>().unwrap_err();
        assert_eq!(error.to_string(), "\"halted\" is none of: waiting, blocked, paused");
    }
}
