//! Serving the router on a listener until the daemon stops.

use std::future::IntoFuture;
use std::io;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::handle::App;
use crate::routes::router;

/// How long open connections may take to end once the daemon stops. Answers come from memory, so
/// a connection that is still open then is an idle one or a peer that does not read.
const LINGER: Duration = Duration::from_secs(5);

/// Serves until `shutdown` is cancelled: then takes no further connection, lets the open ones end
/// for a few seconds, and returns.
pub async fn serve(listener: TcpListener, app: App, shutdown: CancellationToken) -> io::Result<()> {
    let server = axum::serve(listener, router(app))
        .with_graceful_shutdown(shutdown.clone().cancelled_owned())
        .into_future();
    let lingered = async {
        shutdown.cancelled().await;
        tokio::time::sleep(LINGER).await;
    };
    tokio::select! {
        result = server => result,
        () = lingered => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;
    use crate::fixture::Fixture;
    use crate::handle::NotReady;

    #[tokio::test]
    async fn answers_on_a_socket_and_returns_when_told() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn(serve(listener, Fixture::new().app(), shutdown.clone()));

        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut start = [0; 12];
        stream.read_exact(&mut start).await.unwrap();
        // The fixture's loop is this test's own variable, and it has been dropped.
        assert_eq!(&start, b"HTTP/1.1 503");

        shutdown.cancel();
        serving.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_refused_post_leaves_the_connection_for_the_next_one() {
        let fixture = Fixture::new();
        fixture.change(|state| {
            state.readiness = vec![NotReady::new(NotReady::NOT_LEADER, "another daemon leads")];
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn(serve(listener, fixture.app(), shutdown.clone()));

        let mut stream = TcpStream::connect(address).await.unwrap();
        for _ in 0..2 {
            let head = b"POST /v1/migrations/orders/start HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n";
            stream.write_all(head).await.unwrap();
            let early = tokio::time::timeout(Duration::from_millis(50), stream.readable()).await;
            assert!(early.is_err(), "answered before the body was there");
            stream.write_all(b"{}").await.unwrap();
            let mut answer = vec![0; 4096];
            let length = stream.read(&mut answer).await.unwrap();
            assert!(answer[..length].starts_with(b"HTTP/1.1 503"));
        }

        shutdown.cancel();
        serving.await.unwrap().unwrap();
    }
}
