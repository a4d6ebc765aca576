//! A server that is farther away than it is: a TCP proxy on loopback that holds every byte for a while.
//!
//! It carries as much as comes and in order; only the time is added, each way. Namespaces with a
//! queueing discipline would do the same where the kernel has one.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

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
        let accepting = runtime().spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, target, each_way));
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

async fn carry(client: TcpStream, target: u16, each_way: Duration) {
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)).await else { return };
    for socket in [&client, &server] {
        let _ = socket.set_nodelay(true);
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::join!(
        delayed(from_client, to_server, each_way),
        delayed(from_server, to_client, each_way)
    );
}

/// Reading goes on while what was read waits, so that nothing but time is added.
async fn delayed(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, by: Duration) {
    let (sender, mut under_way) = mpsc::channel::<(Instant, Vec<u8>)>(1024);
    let reading = async move {
        let mut bytes = vec![0; 64 << 10];
        while let Ok(length @ 1..) = from.read(&mut bytes).await {
            let arrives = Instant::now() + by;
            if sender.send((arrives, bytes[..length].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let writing = async move {
        while let Some((arrives, bytes)) = under_way.recv().await {
            sleep_until(arrives).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    };
    tokio::join!(reading, writing);
}
