//! Counts the rows of a COPY stream as it passes, and knows whether the stream came to its end.
//!
//! tokio-postgres does not hand out the command tag of COPY TO. Counting in the stream is as
//! strict, because what is counted is what was sent on. Never looks at a value.

/// Why a stream is not one that COPY writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadStream {
    #[error("the stream does not begin like a binary COPY")]
    Header,
    #[error("the stream holds a length that cannot be")]
    Length,
    #[error("the stream goes on after its end")]
    PastEnd,
    #[error("the stream ended in the middle of a row")]
    Truncated,
}

/// Counts rows in whatever pieces the stream arrives.
#[derive(Debug)]
pub(super) enum RowCounter {
    Text { rows: u64, at_line_start: bool },
    Binary { rows: u64, state: Binary, partial: u32, have: u8 },
}

/// What a binary stream's next byte belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Binary {
    Signature {
        seen: u8,
    },
    Flags,
    ExtensionLength,
    /// Bytes to pass over, then the next row's field count.
    Extension {
        left: u32,
    },
    FieldCount,
    FieldLength {
        fields_left: u16,
    },
    Field {
        left: u32,
        fields_left: u16,
    },
    End,
}

const SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";

impl RowCounter {
    /// A counter for COPY's text or binary form.
    pub(super) fn new(text: bool) -> Self {
        if text {
            Self::Text { rows: 0, at_line_start: true }
        } else {
            Self::Binary { rows: 0, state: Binary::Signature { seen: 0 }, partial: 0, have: 0 }
        }
    }

    /// Rows begun so far.
    pub(super) fn rows(&self) -> u64 {
        match self {
            Self::Text { rows, .. } | Self::Binary { rows, .. } => *rows,
        }
    }

    /// Takes the next piece of the stream.
    pub(super) fn feed(&mut self, piece: &[u8]) -> Result<(), BadStream> {
        match self {
            Self::Text { rows, at_line_start } => {
                // COPY writes a newline inside a value as backslash and n, so each one ends a row.
                *rows += piece.iter().filter(|byte| **byte == b'\n').count() as u64;
                if let Some(last) = piece.last() {
                    *at_line_start = *last == b'\n';
                }
                Ok(())
            }
            Self::Binary { rows, state, partial, have } => {
                feed_binary(rows, state, partial, have, piece)
            }
        }
    }

    /// The number of rows, when the stream came to its proper end.
    pub(super) fn finish(self) -> Result<u64, BadStream> {
        match self {
            Self::Text { rows, at_line_start: true } => Ok(rows),
            Self::Binary { rows, state: Binary::End, .. } => Ok(rows),
            Self::Text { at_line_start: false, .. } | Self::Binary { .. } => {
                Err(BadStream::Truncated)
            }
        }
    }
}

fn feed_binary(
    rows: &mut u64,
    state: &mut Binary,
    partial: &mut u32,
    have: &mut u8,
    mut piece: &[u8],
) -> Result<(), BadStream> {
    while let Some((&byte, rest)) = piece.split_first() {
        let width = match *state {
            Binary::Signature { seen } => {
                if SIGNATURE.get(usize::from(seen)) != Some(&byte) {
                    return Err(BadStream::Header);
                }
                let seen = seen + 1;
                *state = if usize::from(seen) == SIGNATURE.len() {
                    Binary::Flags
                } else {
                    Binary::Signature { seen }
                };
                piece = rest;
                continue;
            }
            Binary::Extension { left } => {
                let (passed, left) = pass(left, piece);
                *state = if left == 0 { Binary::FieldCount } else { Binary::Extension { left } };
                piece = passed;
                continue;
            }
            Binary::Field { left, fields_left } => {
                let (passed, left) = pass(left, piece);
                *state = if left == 0 {
                    after_field(fields_left)
                } else {
                    Binary::Field { left, fields_left }
                };
                piece = passed;
                continue;
            }
            Binary::End => return Err(BadStream::PastEnd),
            Binary::FieldCount => 2,
            Binary::Flags | Binary::ExtensionLength | Binary::FieldLength { .. } => 4,
        };
        // A number in network order, which pieces may cut anywhere.
        *partial = (*partial << 8) | u32::from(byte);
        *have += 1;
        piece = rest;
        if *have < width {
            continue;
        }
        let number = std::mem::take(partial);
        *have = 0;
        *state = match *state {
            Binary::Flags => Binary::ExtensionLength,
            Binary::ExtensionLength if number == 0 => Binary::FieldCount,
            Binary::ExtensionLength => Binary::Extension { left: number },
            Binary::FieldCount if number == 0xFFFF => Binary::End,
            Binary::FieldCount if number > 0x7FFF => return Err(BadStream::Length),
            Binary::FieldCount => {
                *rows += 1;
                after_field(u16::try_from(number).map_err(|_| BadStream::Length)?)
            }
            // Minus one is NULL: no bytes follow.
            Binary::FieldLength { fields_left } if number == u32::MAX => {
                after_field(fields_left - 1)
            }
            Binary::FieldLength { .. } if number > i32::MAX as u32 => {
                return Err(BadStream::Length);
            }
            Binary::FieldLength { fields_left } if number == 0 => after_field(fields_left - 1),
            Binary::FieldLength { fields_left } => {
                Binary::Field { left: number, fields_left: fields_left - 1 }
            }
            same @ (Binary::Signature { .. }
            | Binary::Extension { .. }
            | Binary::Field { .. }
            | Binary::End) => same,
        };
    }
    Ok(())
}

fn after_field(fields_left: u16) -> Binary {
    if fields_left == 0 { Binary::FieldCount } else { Binary::FieldLength { fields_left } }
}

/// Passes over up to `left` bytes; what remains of the piece, and of them.
fn pass(left: u32, piece: &[u8]) -> (&[u8], u32) {
    let taken = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
    // `taken` is at most `left`, so it fits.
    (&piece[taken..], left - u32::try_from(taken).unwrap_or(left))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binary(rows: &[&[Option<&[u8]>]]) -> Vec<u8> {
        let mut stream = SIGNATURE.to_vec();
        stream.extend([0; 8]);
        for row in rows {
            stream.extend(u16::try_from(row.len()).unwrap().to_be_bytes());
            for field in *row {
                match field {
                    Some(value) => {
                        stream.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
                        stream.extend(*value);
                    }
                    None => stream.extend((-1i32).to_be_bytes()),
                }
            }
        }
        stream.extend((-1i16).to_be_bytes());
        stream
    }

    fn count(text: bool, stream: &[u8], piece: usize) -> Result<u64, BadStream> {
        let mut counter = RowCounter::new(text);
        for piece in stream.chunks(piece) {
            counter.feed(piece)?;
        }
        counter.finish()
    }

    #[test]
    fn binary_rows_are_counted_however_the_stream_is_cut() {
        let stream = binary(&[
            &[Some(b"abc"), None, Some(b"")],
            &[],
            &[Some(b"\xff\xff"), Some(&[0; 300]), None],
        ]);
        for piece in 1..=stream.len() {
            assert_eq!(count(false, &stream, piece), Ok(3), "in pieces of {piece}");
        }
        assert_eq!(count(false, &binary(&[]), 4), Ok(0));
    }

    #[test]
    fn a_stream_that_stops_early_is_not_complete() {
        let stream = binary(&[&[Some(b"abc")]]);
        for length in 0..stream.len() {
            assert_eq!(count(false, &stream[..length], 8), Err(BadStream::Truncated), "{length}");
        }
        assert_eq!(count(true, b"1\tx\n2", 3), Err(BadStream::Truncated));
    }

    #[test]
    fn what_is_not_a_copy_stream_is_refused() {
        assert_eq!(count(false, b"PGCOPX", 6), Err(BadStream::Header));
        let mut longer = binary(&[]);
        longer.push(0);
        assert_eq!(count(false, &longer, 5), Err(BadStream::PastEnd));
    }

    #[test]
    fn text_rows_end_with_a_newline() {
        assert_eq!(count(true, b"1\ta\\nb\n2\t\\N\n", 2), Ok(2));
        assert_eq!(count(true, b"", 1), Ok(0));
    }
}
