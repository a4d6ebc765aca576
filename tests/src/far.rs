//! A server that is farther away than it is: a TCP proxy on loopback that holds every byte for a while.
//!
//! It carries as much as comes and in order; only the time is added, each way. Namespaces with a
//! queueing discipline would do the same where the kernel has one.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::cluster::free_port;
use crate::session::runtime;

/// A port on 127.0.0.1 that leads to another one, with time added.
#[derive(Debug)]
pub struct Far {
    port: u16,
    accepting: JoinHandle<()>,
}

impl Far {
    /// A way to a port on 127.0.0.1 that takes this much longer each way.
    #[must_use]
    pub fn to(target: u16, each_way: Duration) -> Self {
        let listener = runtime().block_on(async {
            loop {
                // Somebody may have taken it between the look and this.
                if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, free_port())).await {
                    return listener;
                }
            }
        });
        let port = listener.local_addr().as_ref().map_or(0, SocketAddr::port);
        let delay = Delay::of(each_way);
        let accepting = runtime().spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, target, delay.clone()));
            }
        });
        Self { port, accepting }
    }

    /// The port to connect to.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Holds back by the same time whatever asks. On a thread of its own: the runtime's timers know whole
/// milliseconds, and would make two or three of one.
#[derive(Clone)]
struct Delay {
    by: Duration,
    asked: std::sync::mpsc::Sender<(Instant, oneshot::Sender<()>)>,
}

impl Delay {
    fn of(by: Duration) -> Self {
        let (asked, asking) = std::sync::mpsc::channel::<(Instant, oneshot::Sender<()>)>();
        // In the order in which they are due, because all wait equally long. Ends with the last that may ask.
        std::thread::spawn(move || {
            for (due, over) in asking {
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                // Nobody waits when the connection has ended meanwhile.
                let _ = over.send(());
            }
        });
        Self { by, asked }
    }

    /// Something that ends when the time from now on is over.
    fn begin(&self) -> oneshot::Receiver<()> {
        let (over, waiting) = oneshot::channel();
        // A thread that has ended lets everything through.
        let _ = self.asked.send((Instant::now() + self.by, over));
        waiting
    }
}

async fn carry(client: TcpStream, target: u16, delay: Delay) {
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)).await else { return };
    for socket in [&client, &server] {
        let _ = socket.set_nodelay(true);
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::join!(delayed(from_client, to_server, &delay), delayed(from_server, to_client, &delay));
}

/// Reading goes on while what was read waits, so that nothing but time is added.
async fn delayed(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: &Delay) {
    let (sender, mut under_way) = mpsc::channel::<(oneshot::Receiver<()>, Vec<u8>)>(1024);
    let reading = async move {
        let mut bytes = vec![0; 64 << 10];
        while let Ok(length @ 1..) = from.read(&mut bytes).await {
            if sender.send((delay.begin(), bytes[..length].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let writing = async move {
        while let Some((arrived, bytes)) = under_way.recv().await {
            let _ = arrived.await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    };
    tokio::join!(reading, writing);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_trip_takes_the_time_of_both_ways_at_the_least() {
        let echo = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let target = echo.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let (mut socket, _) = echo.accept().unwrap();
            std::io::copy(&mut socket.try_clone().unwrap(), &mut socket)
        });
        let far = Far::to(target, Duration::from_micros(500));
        let mut socket = std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, far.port())).unwrap();
        socket.set_nodelay(true).unwrap();
        let mut round_trips: Vec<Duration> = (0..200_u8)
            .map(|byte| {
                let mut back = [0];
                let from = Instant::now();
                std::io::Write::write_all(&mut socket, &[byte]).unwrap();
                std::io::Read::read_exact(&mut socket, &mut back).unwrap();
                assert_eq!(back, [byte]);
                from.elapsed()
            })
            .collect();
        round_trips.sort();
        println!("round trips: {:?}, median {:?}", round_trips[0], round_trips[100]);
        // What it takes at the most is the machine's affair.
        assert!(round_trips[0] >= Duration::from_millis(1), "{:?}", round_trips[0]);
    }
}
