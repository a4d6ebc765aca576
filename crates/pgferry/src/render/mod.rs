//! Text for people, out of the documents of the API.
//!
//! Pure: each function turns data into a string, so that what an operator reads is tested without a
//! daemon. Nothing here prints, and no text of the daemon reaches a terminal with its control
//! characters: object names come from databases.

mod copy;
mod event;
mod obstacle;
mod outcome;
mod progress;
mod status;
mod table;
mod units;
mod verification;

#[cfg(test)]
pub(crate) mod sample;

pub(crate) use copy::{Bar, table_bars, total_bar};
pub(crate) use event::{event, events};
pub(crate) use obstacle::{error, findings, problem, verdict};
pub(crate) use outcome::{accepted, outcome};
pub(crate) use progress::{changes, line, tenths};
pub(crate) use status::{overview, status, status_with_tables};
pub(crate) use verification::{differences, verification};

/// The text without control characters but line ends.
fn plain(text: &str) -> String {
    let shown = |c: char| if c.is_control() && c != '\n' { '\u{fffd}' } else { c };
    text.chars().map(shown).collect()
}

/// Every line of the text behind the same margin.
fn indented(margin: &str, text: &str) -> String {
    plain(text).lines().map(|line| format!("{margin}{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_control_character_passes() {
        assert_eq!(plain("a\x1b[2Jb\nc\r"), "a\u{fffd}[2Jb\nc\u{fffd}");
        assert_eq!(indented("  ", "a\nb"), "  a\n  b\n");
    }
}
