//! Where output goes: data to stdout, talk to stderr.
//!
//! Nothing else in the client writes to either, so that a script can rely on stdout holding data
//! and nothing but data.

use std::io::{self, Write};

use serde::Serialize;

use crate::args::Format;

/// Both outputs, and the form that data takes.
pub(super) struct Console<'a> {
    out: Box<dyn Write + 'a>,
    err: Box<dyn Write + 'a>,
    format: Format,
    /// Whether a person looks at stderr.
    pub(super) interactive: bool,
}

impl<'a> Console<'a> {
    pub(super) fn new(
        out: Box<dyn Write + 'a>,
        err: Box<dyn Write + 'a>,
        format: Format,
        interactive: bool,
    ) -> Self {
        Self { out, err, format, interactive }
    }

    pub(super) fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Prints one document: as JSON, or as the text that `render` makes of it.
    pub(super) fn data<T: Serialize>(
        &mut self,
        document: &T,
        render: impl FnOnce(&T) -> String,
    ) -> io::Result<()> {
        match self.format {
            Format::Json => self.json(document),
            Format::Text => {
                let text = render(document);
                writeln!(self.out, "{}", text.trim_end())?;
                self.out.flush()
            }
        }
    }

    /// Prints one document on one line when JSON was asked for, else nothing.
    pub(super) fn json<T: Serialize>(&mut self, document: &T) -> io::Result<()> {
        match self.format {
            Format::Json => {
                let line = serde_json::to_string(document)?;
                writeln!(self.out, "{line}")?;
                self.out.flush()
            }
            Format::Text => Ok(()),
        }
    }

    /// Says something to the person at the terminal. That stderr cannot be written is no reason to
    /// end a command that waits for a cutover.
    pub(super) fn talk(&mut self, text: &str) {
        let _ = writeln!(self.err, "{}", text.trim_end());
    }
}
