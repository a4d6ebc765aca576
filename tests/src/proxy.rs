//! A wire between two processes that a test can cut, without root: a TCP proxy on loopback.
//!
//! It carries bytes and knows no protocol. Silent, it keeps every socket open and moves nothing,
//! as a network does that swallows packets; what was under way arrives when it is healed, as TCP
//! sends it again.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::cluster::free_port;
use crate::session::runtime;

/// What the wire does with what is put on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// It carries both ways.
    Whole,
    /// It carries nothing, and says nothing about it.
    Silent,
    /// Requests arrive, answers do not.
    Deaf,
    /// Every connection is reset, and none is accepted.
    Reset,
}

impl Wire {
    fn carries(self, answers: bool) -> bool {
        match self {
            Wire::Whole => true,
            Wire::Deaf => !answers,
            Wire::Silent | Wire::Reset => false,
        }
    }
}

/// A port on 127.0.0.1 that leads to another one.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    target: Arc<AtomicU16>,
    /// That of the connections that come, and before it those of the ones that were forsaken.
    wires: Arc<Mutex<Vec<watch::Sender<Wire>>>>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// A whole wire to a port on 127.0.0.1.
    #[must_use]
    pub fn to(target: u16) -> Self {
        let target = Arc::new(AtomicU16::new(target));
        let wires = Arc::new(Mutex::new(vec![watch::Sender::new(Wire::Whole)]));
        let listener = runtime().block_on(async {
            loop {
                // Somebody may have taken it between the look and this.
                let port = free_port();
                if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
                    return listener;
                }
            }
        });
        let port = listener.local_addr().as_ref().map_or(0, SocketAddr::port);
        let accepting = runtime().spawn(accept(listener, Arc::clone(&target), Arc::clone(&wires)));
        Self { port, target, wires, accepting }
    }

    /// The port to connect to.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Changes what the wire does, to the connections that there are as well.
    pub fn set(&self, wire: Wire) {
        if let Some(last) = lock(&self.wires).last() {
            last.send_replace(wire);
        }
    }

    /// The host at one end dies: nothing more is ever heard on the connections that there are, not
    /// even their end. Those that come are whole.
    pub fn forsake(&self) {
        self.set(Wire::Silent);
        lock(&self.wires).push(watch::Sender::new(Wire::Whole));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        for wire in lock(&self.wires).iter() {
            wire.send_replace(Wire::Reset);
        }
        self.accepting.abort();
        self.target.store(0, Ordering::Relaxed);
    }
}

async fn accept(
    listener: TcpListener,
    target: Arc<AtomicU16>,
    wires: Arc<Mutex<Vec<watch::Sender<Wire>>>>,
) {
    while let Ok((client, _)) = listener.accept().await {
        let Some(wire) = lock(&wires).last().map(watch::Sender::subscribe) else { return };
        tokio::spawn(carry(client, target.load(Ordering::Relaxed), wire));
    }
}

fn lock(wires: &Mutex<Vec<watch::Sender<Wire>>>) -> MutexGuard<'_, Vec<watch::Sender<Wire>>> {
    wires.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn carry(client: TcpStream, target: u16, mut wire: watch::Receiver<Wire>) {
    // A connection that is asked for over a silent wire comes about when it is healed.
    let asked = wire.wait_for(|wire| wire.carries(false) || *wire == Wire::Reset).await;
    let Ok(now) = asked.map(|now| *now) else { return };
    if now == Wire::Reset {
        let _ = client.set_zero_linger();
        return;
    }
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)).await else { return };
    for socket in [&client, &server] {
        let _ = socket.set_nodelay(true);
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let there = pump(from_client, to_server, false, wire.clone());
    let back = pump(from_server, to_client, true, wire);
    // One end that closes is told to the other, which may have something left to say.
    let _ = tokio::try_join!(there, back);
}

/// The connection is broken; the other way of it must end too.
struct Broken;

/// Moves bytes one way until that end closes; an error when the wire is reset or an end is gone.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    answers: bool,
    mut wire: watch::Receiver<Wire>,
) -> Result<(), Broken> {
    let mut bytes = vec![0; 64 << 10];
    loop {
        let filled = tokio::select! {
            biased;
            () = is_reset(wire.clone()) => return Err(reset(&from, &to)),
            filled = read_when_carried(&mut from, &mut bytes, answers, wire.clone()) => filled?,
        };
        if filled == 0 {
            return to.shutdown().await.map_err(|_| Broken);
        }
        if wire.wait_for(|w| w.carries(answers) || *w == Wire::Reset).await.is_err() {
            return Err(Broken);
        }
        tokio::select! {
            biased;
            () = is_reset(wire.clone()) => return Err(reset(&from, &to)),
            written = to.write_all(&bytes[..filled]) => written.map_err(|_| Broken)?,
        }
    }
}

/// Returns when the wire is reset, or its owner gone.
async fn is_reset(mut wire: watch::Receiver<Wire>) {
    let _ = wire.wait_for(|wire| *wire == Wire::Reset).await;
}

async fn read_when_carried(
    from: &mut OwnedReadHalf,
    bytes: &mut [u8],
    answers: bool,
    mut wire: watch::Receiver<Wire>,
) -> Result<usize, Broken> {
    loop {
        wire.wait_for(|wire| wire.carries(answers)).await.map_err(|_| Broken)?;
        tokio::select! {
            biased;
            // Silent from now on: what comes later waits in the socket.
            changed = wire.changed() => changed.map_err(|_| Broken)?,
            read = from.read(bytes) => return read.map_err(|_| Broken),
        }
    }
}

/// Closed so, both ends see a reset, and what was under way is lost.
fn reset(from: &OwnedReadHalf, to: &OwnedWriteHalf) -> Broken {
    let _ = from.as_ref().set_zero_linger();
    let _ = to.as_ref().set_zero_linger();
    Broken
}
