//! COPY from one session straight into another: the source's rows are passed on as they arrive, in
//! frames of the destination's liking, without a look at what is in them. One COPY of the source may
//! fill several of the destination, one after the other, each of which begins with a row.
//!
//! tokio-postgres hands out every row as a message of its own and keeps the tag of COPY TO to
//! itself; with ten million rows the first is a third of the work, and the second is the only word
//! of the source on how many there were.

mod cutter;

use std::task::Poll;

use bytes::Buf;
use postgres_protocol::message::backend::Message;

use self::cutter::{Cutter, HEADER, Stop, TRAILER};
use super::{Wire, WireError, error_fields, unexpected};

/// A row costs the destination a message otherwise, and this daemon a system call.
const FRAME_BYTES: usize = 128 * 1024;

/// `d` and the length, which a frame begins with.
const FRAME_HEAD: usize = 5;

/// What one COPY into the destination came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Carried {
    /// Rows that were passed on.
    pub(crate) sent: u64,
    /// Rows that the destination says it took.
    pub(crate) written: u64,
    /// Bytes in COPY's form.
    pub(crate) bytes: u64,
    /// Whether the source has come to its end.
    pub(crate) is_end: bool,
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
    /// Told of rows and of bytes each time a frame has gone out; the next one waits until it returns.
    fn pass(&self, rows: u64, bytes: u64) -> impl Future<Output = ()> + Send;
}

/// One COPY TO that is under way on the source's session.
pub(crate) struct Pump {
    cutter: Cutter,
    is_binary: bool,
    frame: Vec<u8>,
}

impl Pump {
    /// Passes over the answers of what stands before a COPY TO, until it begins.
    pub(crate) async fn begin(source: &mut Wire, is_binary: bool) -> Result<Self, PumpError> {
        source.until_copy_begins().await.map_err(PumpError::Source)?;
        let frame = Vec::with_capacity(FRAME_BYTES + FRAME_HEAD + TRAILER.len());
        Ok(Self { cutter: Cutter::new(is_binary), is_binary, frame })
    }

    /// Fills the COPY FROM that comes next on the destination, whose query was sent: with `enough`
    /// bytes and a little more, up to the end of a row, or with whatever is left.
    pub(crate) async fn carry(
        &mut self,
        source: &mut Wire,
        destination: &mut Wire,
        enough: u64,
        gate: &impl Gate,
    ) -> Result<Carried, PumpError> {
        let on_destination = |error| PumpError::Destination(error, true);
        destination
            .until_copy_begins()
            .await
            .map_err(|error| PumpError::Destination(error, false))?;
        let before = self.cutter.rows;
        let (mut told, mut bytes) = (before, 0);
        self.start_frame();
        if self.is_binary {
            self.frame.extend_from_slice(HEADER);
        }
        let is_end = loop {
            let is_enough = bytes + self.payload() >= enough;
            let (used, stop) = self
                .cutter
                .take(&source.unread, &mut self.frame, FRAME_BYTES, is_enough)
                .map_err(PumpError::Source)?;
            source.unread.advance(used);
            match stop {
                Stop::Full => {
                    let size = self.payload();
                    self.send_frame(destination).await?;
                    bytes += size;
                    gate.pass(self.cutter.rows - told, size).await;
                    told = self.cutter.rows;
                    destination.refuses().map_err(on_destination)?;
                }
                Stop::Enough => break false,
                Stop::NeedsMore => source.fill().await.map_err(PumpError::Source)?,
                Stop::OtherMessage => {
                    if self.has_ended(source).await.map_err(PumpError::Source)? {
                        break true;
                    }
                }
            }
        };
        if self.is_binary {
            self.frame.extend_from_slice(TRAILER);
        }
        let size = self.payload();
        self.send_frame(destination).await?;
        bytes += size;
        gate.pass(self.cutter.rows - told, size).await;
        destination.write(b"c\0\0\0\x04").await.map_err(on_destination)?;
        let sent = self.cutter.rows - before;
        if is_end {
            let read = source.copy_tag().await.map_err(PumpError::Source)?;
            if read != self.cutter.rows {
                let words = format!("{read} rows were sent in {} messages", self.cutter.rows);
                return Err(PumpError::Source(WireError::Protocol(words)));
            }
        }
        let written = destination.copy_tag().await.map_err(on_destination)?;
        Ok(Carried { sent, written, bytes, is_end })
    }

    /// Takes a message that is no row: whether it ends the stream.
    async fn has_ended(&self, source: &mut Wire) -> Result<bool, WireError> {
        match source.receive().await? {
            Message::CopyDone if self.cutter.is_at_end() => Ok(true),
            Message::NoticeResponse(_) | Message::ParameterStatus(_) => Ok(false),
            Message::ErrorResponse(body) => {
                let (state, message) = error_fields(&body);
                Err(WireError::Refused { state, message })
            }
            _ => Err(unexpected("COPY")),
        }
    }

    fn start_frame(&mut self) {
        self.frame.clear();
        self.frame.extend_from_slice(b"d\0\0\0\0");
    }

    /// Bytes that wait to be sent.
    fn payload(&self) -> u64 {
        (self.frame.len() - FRAME_HEAD) as u64
    }

    async fn send_frame(&mut self, destination: &mut Wire) -> Result<(), PumpError> {
        if self.payload() > 0 {
            // A frame is far below what the length field holds.
            let length = u32::try_from(self.frame.len() - 1).unwrap_or(u32::MAX);
            self.frame[1..FRAME_HEAD].copy_from_slice(&length.to_be_bytes());
            let sent = destination.write(&self.frame).await;
            sent.map_err(|error| PumpError::Destination(error, true))?;
        }
        self.start_frame();
        Ok(())
    }
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

    /// Reads a query to its end.
    pub(crate) async fn until_ready(&mut self) -> Result<(), WireError> {
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
