//! COPY from one session straight into another: the source's rows are passed on as they arrive, in
//! frames of the destination's liking, without a look at what is in them.
//!
//! tokio-postgres hands out every row as a message of its own and keeps the tag of COPY TO to
//! itself; with ten million rows the first is a third of the work, and the second is the only word
//! of the source on how many there were.

use std::task::Poll;

use bytes::Buf;
use postgres_protocol::message::backend::Message;

use super::{Wire, WireError, error_fields, unexpected};

/// A row costs the destination a message otherwise, and this daemon a system call.
const FRAME_BYTES: usize = 128 * 1024;

/// `d` and the length, which a frame begins with.
const FRAME_HEAD: usize = 5;

/// What one COPY came to, by the servers' own counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Carried {
    /// Rows that the source says it sent.
    pub(crate) read: u64,
    /// Rows that the destination says it took.
    pub(crate) written: u64,
    /// Bytes in COPY's form.
    pub(crate) bytes: u64,
}

/// On which side a COPY failed, and why.
#[derive(Debug)]
pub(crate) enum PumpError {
    /// On the source.
    Source(WireError),
    /// On the destination, and whether it had begun to take rows.
    Destination(WireError, bool),
}

/// Stands in the way of what passes, and counts it.
pub(crate) trait Gate: Sync {
    /// Told of messages (a row each, and the end of a binary stream) and of bytes each time a frame
    /// has gone out; the next one waits until it returns.
    fn pass(&self, messages: u64, bytes: u64) -> impl Future<Output = ()> + Send;
}

/// Two sessions on which COPY TO and COPY FROM have been asked for, any number of them in turn.
pub(crate) struct Pump<'a> {
    source: &'a mut Wire,
    destination: &'a mut Wire,
    frame: Vec<u8>,
}

impl<'a> Pump<'a> {
    /// Asks both sides for the same COPYs, in the same order, as one query each; what stands
    /// before them in a query is carried out, and its answers are passed over.
    pub(crate) async fn begin(
        source: &'a mut Wire,
        copy_out: &str,
        destination: &'a mut Wire,
        copy_in: &str,
    ) -> Result<Self, PumpError> {
        source.begin_query(copy_out).await.map_err(PumpError::Source)?;
        let asked = destination.begin_query(copy_in).await;
        asked.map_err(|error| PumpError::Destination(error, false))?;
        Ok(Self { source, destination, frame: Vec::with_capacity(FRAME_BYTES + FRAME_HEAD) })
    }

    /// Carries the next COPY over.
    pub(crate) async fn carry(&mut self, gate: &impl Gate) -> Result<Carried, PumpError> {
        self.destination
            .until_copy_begins()
            .await
            .map_err(|error| PumpError::Destination(error, false))?;
        self.source.until_copy_begins().await.map_err(PumpError::Source)?;
        self.start_frame();
        let (mut rows, mut bytes) = (0, 0);
        // Of the source's message that is being passed on: it may be larger than any buffer.
        let mut left = 0;
        loop {
            let taken = self.take(&mut left, &mut rows)?;
            if taken == Taken::Ended || self.frame.len() >= FRAME_BYTES {
                let size = (self.frame.len() - FRAME_HEAD) as u64;
                self.send_frame().await?;
                bytes += size;
                gate.pass(std::mem::take(&mut rows), size).await;
                self.destination.refuses().map_err(|error| PumpError::Destination(error, true))?;
            }
            match taken {
                Taken::Ended => break,
                Taken::Full => {}
                Taken::All => self.source.fill().await.map_err(PumpError::Source)?,
            }
        }
        let on_destination = |error| PumpError::Destination(error, true);
        self.destination.write(b"c\0\0\0\x04").await.map_err(on_destination)?;
        let read = self.source.copy_tag().await.map_err(PumpError::Source)?;
        let written = self.destination.copy_tag().await.map_err(on_destination)?;
        Ok(Carried { read, written, bytes })
    }

    /// Reads both queries to their end.
    pub(crate) async fn end(self) -> Result<(), PumpError> {
        self.source.until_ready().await.map_err(PumpError::Source)?;
        let ended = self.destination.until_ready().await;
        ended.map_err(|error| PumpError::Destination(error, true))
    }

    /// Moves what has arrived into the frame.
    fn take(&mut self, left: &mut usize, rows: &mut u64) -> Result<Taken, PumpError> {
        let failed = |error: WireError| PumpError::Source(error);
        loop {
            let unread = &self.source.unread;
            let mut at = 0;
            while self.frame.len() < FRAME_BYTES {
                if *left > 0 {
                    let room = FRAME_BYTES - self.frame.len();
                    let size = room.min(*left).min(unread.len() - at);
                    if size == 0 {
                        break;
                    }
                    self.frame.extend_from_slice(&unread[at..at + size]);
                    *left -= size;
                    at += size;
                    continue;
                }
                match unread[at..] {
                    [b'd', a, b, c, d, ..] => {
                        let length = u32::from_be_bytes([a, b, c, d]) as usize;
                        *left = length.checked_sub(4).ok_or_else(|| {
                            failed(WireError::Protocol("a length that cannot be".to_owned()))
                        })?;
                        *rows += 1;
                        at += FRAME_HEAD;
                    }
                    _ => break,
                }
            }
            let full = self.frame.len() >= FRAME_BYTES;
            self.source.unread.advance(at);
            if full {
                return Ok(Taken::Full);
            }
            if *left > 0 || matches!(self.source.unread[..], [] | [b'd', ..]) {
                return Ok(Taken::All);
            }
            let message = Message::parse(&mut self.source.unread)
                .map_err(|error| failed(WireError::Protocol(error.to_string())))?;
            match message {
                None => return Ok(Taken::All),
                Some(Message::CopyDone) => return Ok(Taken::Ended),
                Some(Message::NoticeResponse(_) | Message::ParameterStatus(_)) => {}
                Some(Message::ErrorResponse(body)) => {
                    let (state, message) = error_fields(&body);
                    return Err(failed(WireError::Refused { state, message }));
                }
                Some(_) => return Err(failed(unexpected("COPY"))),
            }
        }
    }

    fn start_frame(&mut self) {
        self.frame.clear();
        self.frame.extend_from_slice(b"d\0\0\0\0");
    }

    async fn send_frame(&mut self) -> Result<(), PumpError> {
        if self.frame.len() > FRAME_HEAD {
            // A frame is far below what the length field holds.
            let length = u32::try_from(self.frame.len() - 1).unwrap_or(u32::MAX);
            self.frame[1..FRAME_HEAD].copy_from_slice(&length.to_be_bytes());
            let sent = self.destination.write(&self.frame).await;
            sent.map_err(|error| PumpError::Destination(error, true))?;
        }
        self.start_frame();
        Ok(())
    }
}

/// How far the source's buffer was moved on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Taken {
    /// The frame is full; there may be more.
    Full,
    /// Everything that has arrived.
    All,
    /// Everything there is.
    Ended,
}

impl Wire {
    /// Passes over the answers of what stands before a COPY, until it begins.
    async fn until_copy_begins(&mut self) -> Result<(), WireError> {
        loop {
            match self.receive().await? {
                Message::CopyOutResponse(_) | Message::CopyInResponse(_) => return Ok(()),
                Message::ErrorResponse(body) => {
                    let (state, message) = error_fields(&body);
                    return Err(WireError::Refused { state, message });
                }
                Message::CommandComplete(_)
                | Message::RowDescription(_)
                | Message::DataRow(_)
                | Message::NoticeResponse(_)
                | Message::ParameterStatus(_) => {}
                _ => return Err(unexpected("the beginning of COPY")),
            }
        }
    }

    /// The number of rows in the tag that ends a COPY.
    async fn copy_tag(&mut self) -> Result<u64, WireError> {
        loop {
            match self.receive().await? {
                Message::CommandComplete(body) => {
                    let tag = body.tag().unwrap_or_default();
                    return tag
                        .strip_prefix("COPY ")
                        .and_then(|rows| rows.parse().ok())
                        .ok_or_else(|| unexpected("the end of COPY"));
                }
                Message::ErrorResponse(body) => {
                    let (state, message) = error_fields(&body);
                    return Err(WireError::Refused { state, message });
                }
                Message::NoticeResponse(_) | Message::ParameterStatus(_) => {}
                _ => return Err(unexpected("the end of COPY")),
            }
        }
    }

    async fn until_ready(&mut self) -> Result<(), WireError> {
        let mut refused = None;
        loop {
            match self.receive().await? {
                Message::ReadyForQuery(_) => return refused.map_or(Ok(()), Err),
                Message::ErrorResponse(body) => {
                    let (state, message) = error_fields(&body);
                    refused = Some(WireError::Refused { state, message });
                }
                Message::CommandComplete(_)
                | Message::RowDescription(_)
                | Message::DataRow(_)
                | Message::NoticeResponse(_)
                | Message::ParameterStatus(_) => {}
                _ => return Err(unexpected("the end of a query")),
            }
        }
    }

    /// Whether an error has arrived while nothing was asked: a COPY FROM that failed goes on
    /// swallowing rows until its end, which for a large table is hours later.
    fn refuses(&mut self) -> Result<(), WireError> {
        let waker = std::task::Waker::noop();
        let mut context = std::task::Context::from_waker(waker);
        if let Poll::Ready(Err(error)) = std::pin::pin!(self.fill()).poll(&mut context) {
            return Err(error);
        }
        loop {
            let parsed = Message::parse(&mut self.unread)
                .map_err(|error| WireError::Protocol(error.to_string()))?;
            match parsed {
                None => return Ok(()),
                Some(Message::ErrorResponse(body)) => {
                    let (state, message) = error_fields(&body);
                    return Err(WireError::Refused { state, message });
                }
                Some(Message::NoticeResponse(_) | Message::ParameterStatus(_)) => {}
                Some(_) => return Err(unexpected("COPY")),
            }
        }
    }
}
