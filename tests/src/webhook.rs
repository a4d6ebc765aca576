//! A receiver of webhooks that checks each signature by itself, and answers as a test wants it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::Sha256;

/// A running receiver; it ends with the process.
#[derive(Debug)]
pub struct Receiver {
    port: u16,
    seen: Arc<Mutex<Vec<Call>>>,
    refusals: Arc<Mutex<Vec<(String, usize)>>>,
}

/// One POST.
#[derive(Clone, Debug)]
pub struct Call {
    /// The body.
    pub body: Value,
    /// Whether its signature was made with the key, over these very bytes.
    pub signed: bool,
}

impl Receiver {
    /// Starts one that knows this key.
    #[must_use]
    pub fn start(key: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap_or_else(|e| panic!("{e}"));
        let port = listener.local_addr().unwrap_or_else(|e| panic!("{e}")).port();
        let receiver = Self { port, seen: Arc::default(), refusals: Arc::default() };
        let (seen, refusals) = (Arc::clone(&receiver.seen), Arc::clone(&receiver.refusals));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that hangs up is for its own test to find out.
                let _ = answer(stream, key, &seen, &refusals);
            }
        });
        receiver
    }

    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/hook?for=test", self.port)
    }

    /// Answers the next `times` calls of this event with 503.
    pub fn refuse(&self, event: &str, times: usize) {
        lock(&self.refusals).push((event.to_owned(), times));
    }

    /// Every call so far.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        lock(&self.seen).clone()
    }

    /// The events of every call so far.
    #[must_use]
    pub fn events(&self) -> Vec<String> {
        let event = |call: &Call| call.body["event"].as_str().unwrap_or_default().to_owned();
        lock(&self.seen).iter().map(event).collect()
    }
}

fn answer(
    mut stream: TcpStream,
    key: &str,
    seen: &Mutex<Vec<Call>>,
    refusals: &Mutex<Vec<(String, usize)>>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut length, mut signature) = (0, String::new());
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().unwrap_or_default(),
            "x-pgferry-signature" => signature = value.trim().to_owned(),
            _ => {}
        }
    }
    let mut bytes = vec![0; length];
    reader.read_exact(&mut bytes)?;
    let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let event = body["event"].as_str().unwrap_or_default().to_owned();
    lock(seen).push(Call { body, signed: signature == signed(key, &bytes) });
    let refused = lock(refusals)
        .iter_mut()
        .find(|(wanted, left)| *wanted == event && *left > 0)
        .map(|(_, left)| *left -= 1)
        .is_some();
    let status = if refused { "503 Service Unavailable" } else { "204 No Content" };
    let said = if refused { "the deployment is locked" } else { "" };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{said}",
        said.len()
    )
}

fn signed(key: &str, body: &[u8]) -> String {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(key.as_bytes()).unwrap_or_else(|e| panic!("the key: {e}"));
    mac.update(body);
    let digest = mac.finalize().into_bytes();
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256={hex}")
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
