//! How many bytes of rows leave the source, counted on the wire.
//!
//! The daemon's own counters die with it, and the server's skip what was rolled back. So the
//! daemon that is to be killed reaches the source through this: it passes on every byte, reads the
//! headers of what the server sends, and adds up the `CopyData`.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// A port that leads to the source. It stays open as long as the process runs.
#[derive(Debug)]
pub(crate) struct Wire {
    port: u16,
    bytes: Arc<AtomicU64>,
}

impl Wire {
    /// Opens a port of its own that leads to `target` on this machine.
    pub(crate) fn to(target: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0))
            .unwrap_or_else(|e| panic!("cannot listen for the daemon: {e}"));
        let port = listener.local_addr().map(|a| a.port()).unwrap_or_else(|e| panic!("{e}"));
        let bytes = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&bytes);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(("127.0.0.1", target)) else { continue };
                let _ = client.set_nodelay(true);
                let _ = server.set_nodelay(true);
                let counted = Arc::clone(&counted);
                if let (Ok(from_client), Ok(to_server)) = (client.try_clone(), server.try_clone()) {
                    thread::spawn(move || pass(from_client, to_server, |_| {}));
                    thread::spawn(move || {
                        let mut frames = Frames::default();
                        pass(server, client, |sent| {
                            counted.fetch_add(frames.copy_bytes(sent), Ordering::Relaxed);
                        });
                    });
                }
            }
        });
        Self { port, bytes }
    }

    /// Where the daemon finds it.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Bytes of rows that have gone through so far.
    pub(crate) fn copy_bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// Passes on what comes until one end is closed, and then closes the other for good: a session of
/// PostgreSQL is of no use with one direction.
fn pass(mut from: TcpStream, mut to: TcpStream, mut seen: impl FnMut(&[u8])) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
        seen(&buffer[..length]);
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

/// The server's messages, followed across the borders of what was read at a time.
#[derive(Debug, Default)]
struct Frames {
    begun: bool,
    header: Vec<u8>,
    left: usize,
    is_copy: bool,
}

/// A type byte and a length, which counts itself and not the type.
const HEADER: usize = 5;

impl Frames {
    /// How many of these bytes are rows of COPY.
    fn copy_bytes(&mut self, mut data: &[u8]) -> u64 {
        let mut counted = 0;
        while let Some(first) = data.first() {
            if self.left > 0 {
                let here = self.left.min(data.len());
                self.left -= here;
                counted += if self.is_copy { here as u64 } else { 0 };
                data = &data[here..];
            } else if !self.begun && *first == b'N' {
                // The one byte that answers the question for TLS; a notice cannot come so early.
                data = &data[1..];
            } else {
                self.begun = true;
                self.header.push(*first);
                data = &data[1..];
                if let [kind, a, b, c, d] = self.header[..] {
                    let length = u32::from_be_bytes([a, b, c, d]) as usize;
                    self.left = (length + 1).saturating_sub(HEADER);
                    self.is_copy = kind == b'd';
                    self.header.clear();
                }
            }
        }
        counted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap();
        [&[kind][..], &length.to_be_bytes()[..], body].concat()
    }

    #[test]
    fn only_rows_are_counted_wherever_the_stream_is_cut() {
        let stream = [
            b"N".to_vec(),
            message(b'R', &[0; 8]),
            message(b'd', b"a row"),
            message(b'N', b"dddd a notice"),
            message(b'c', b""),
            message(b'd', b"another"),
        ]
        .concat();
        for size in 1..=stream.len() {
            let mut frames = Frames::default();
            let counted: u64 = stream.chunks(size).map(|part| frames.copy_bytes(part)).sum();
            assert_eq!(counted, 12, "in parts of {size}");
        }
    }
}
