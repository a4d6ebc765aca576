//! Takes a COPY stream apart into its rows, and nothing else: what opens and closes a binary stream is
//! taken off, so that any number of rows makes a stream of its own.
//!
//! Relies on the protocol's word that a server sends one message per row in COPY OUT. Looks at no more
//! of a row than its first two bytes. Knows no socket.

use crate::wire::WireError;

/// What opens a binary stream: the signature, no flags, and no extension.
pub(super) const HEADER: &[u8; 19] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// What closes one, in the place of a row's number of columns.
pub(super) const TRAILER: &[u8; 2] = b"\xff\xff";

/// `d` and the length, which a message begins with.
const MESSAGE_HEAD: usize = 5;

/// How far into a stream of messages one is.
#[derive(Debug)]
pub(super) struct Cutter {
    is_binary: bool,
    at: At,
    /// Rows that have been begun.
    pub(super) rows: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// Before the message that opens a binary stream.
    Opening,
    /// Before a message.
    Message,
    /// Within a message, before what is a row, or closes the stream: so many bytes are left of it.
    Content(usize),
    /// Within a row of which so many bytes are left.
    Row(usize),
    /// Behind what closes a binary stream.
    Closed,
}

/// Why no more was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// Everything that can be told of what has arrived is taken.
    NeedsMore,
    /// There is no more room.
    Full,
    /// The next row would be beyond what was asked for. There is one.
    Enough,
    /// Something that is not of the stream comes next.
    OtherMessage,
}

impl Cutter {
    pub(super) fn new(is_binary: bool) -> Self {
        let at = if is_binary { At::Opening } else { At::Message };
        Self { is_binary, at, rows: 0 }
    }

    /// Moves rows from what has arrived to `to`, until that is `full` bytes long; begins no row when
    /// `enough` are there. Returns how much of what has arrived is used up.
    pub(super) fn take(
        &mut self,
        arrived: &[u8],
        to: &mut Vec<u8>,
        full: usize,
        enough: bool,
    ) -> Result<(usize, Stop), WireError> {
        let mut used = 0;
        let stop = loop {
            let rest = &arrived[used..];
            match self.at {
                At::Row(0) => self.at = At::Message,
                At::Row(left) => {
                    let size = left.min(rest.len()).min(full.saturating_sub(to.len()));
                    if size == 0 {
                        break if rest.is_empty() { Stop::NeedsMore } else { Stop::Full };
                    }
                    to.extend_from_slice(&rest[..size]);
                    used += size;
                    self.at = At::Row(left - size);
                }
                At::Content(0) if self.is_binary => self.at = At::Message,
                At::Content(left) => {
                    if !self.is_binary {
                        // Text has nothing that opens or closes it: each message is a row.
                    } else if left < TRAILER.len() {
                        return Err(nonsense("a row without a number of columns"));
                    } else if rest.len() < TRAILER.len() {
                        break Stop::NeedsMore;
                    } else if rest.starts_with(TRAILER) {
                        if left > TRAILER.len() {
                            return Err(nonsense("something behind the end of a binary stream"));
                        }
                        used += left;
                        self.at = At::Closed;
                        continue;
                    }
                    if enough {
                        break Stop::Enough;
                    }
                    if to.len() >= full {
                        break Stop::Full;
                    }
                    self.rows += 1;
                    self.at = At::Row(left);
                }
                At::Opening | At::Message | At::Closed => {
                    let [kind, length @ ..] = rest else { break Stop::NeedsMore };
                    if *kind != b'd' {
                        break Stop::OtherMessage;
                    }
                    let [a, b, c, d, content @ ..] = length else { break Stop::NeedsMore };
                    let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
                    let length = length.checked_sub(4).ok_or_else(|| nonsense("a length"))?;
                    match self.at {
                        At::Closed => return Err(nonsense("a row behind the end of the stream")),
                        At::Opening => {
                            if content.len() < HEADER.len() {
                                break Stop::NeedsMore;
                            }
                            if length < HEADER.len() || !content.starts_with(HEADER) {
                                return Err(nonsense("the beginning of a binary stream"));
                            }
                            used += MESSAGE_HEAD + HEADER.len();
                            self.at = At::Content(length - HEADER.len());
                        }
                        At::Message | At::Content(_) | At::Row(_) => {
                            used += MESSAGE_HEAD;
                            self.at = At::Content(length);
                        }
                    }
                }
            }
        };
        Ok((used, stop))
    }

    /// Whether the stream may end here: nothing of a row is left, and a binary one was closed.
    pub(super) fn is_at_end(&self) -> bool {
        match self.at {
            At::Closed => self.is_binary,
            At::Message | At::Row(0) => !self.is_binary,
            At::Opening | At::Content(_) | At::Row(_) => false,
        }
    }
}

fn nonsense(what: &str) -> WireError {
    WireError::Protocol(format!("{what}, in a COPY"))
}

#[cfg(test)]
mod tests;
