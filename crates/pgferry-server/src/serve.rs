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
}
