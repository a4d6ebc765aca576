//! One POST of a signed JSON body, over a connection of its own.
//!
//! Follows no redirect, because a body that is signed for one receiver is not for another; uses no
//! proxy; repeats nothing. hyper is there already, under the listener; a client library would bring
//! its own pool and another TLS.

use std::time::Duration;

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use pgferry_config::{Secret, WebhookConfig};
use pgferry_postgres::connect::ConnectError;
use pgferry_postgres::node::scrub;
use sha2::Sha256;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::hooks::Message;

/// The signature: `sha256=` and the hexadecimal HMAC of the body's bytes.
const SIGNATURE: &str = "X-Pgferry-Signature";

/// Of an answer, what is read, and of that, what is told.
const READ: usize = 64 << 10;
const TOLD: usize = 500;

/// A receiver, its key and how it is trusted.
pub(crate) struct Webhook {
    uri: Uri,
    secret: Secret,
    deadline: Duration,
    /// For https.
    tls: Option<tokio_native_tls::TlsConnector>,
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The path may be a secret of its own.
        f.debug_struct("Webhook").field("host", &self.uri.host()).finish_non_exhaustive()
    }
}

impl Webhook {
    pub(crate) fn new(config: &WebhookConfig) -> Result<Self, ConnectError> {
        let invalid = |reason: String| ConnectError::Configuration { reason };
        let uri: Uri = config
            .url
            .parse()
            .map_err(|error| invalid(format!("traffic.url cannot be used: {error}")))?;
        let tls = if uri.scheme_str() == Some("https") {
            let mut builder = native_tls::TlsConnector::builder();
            builder.min_protocol_version(Some(native_tls::Protocol::Tlsv12));
            if let Some(file) = &config.ca_file {
                let pem = std::fs::read(file)
                    .map_err(|error| invalid(format!("traffic.ca_file: {error}")))?;
                let certificates = native_tls::Certificate::stack_from_pem(&pem)
                    .map_err(|error| invalid(format!("traffic.ca_file: {error}")))?;
                builder.disable_built_in_roots(true);
                for certificate in certificates {
                    builder.add_root_certificate(certificate);
                }
            }
            let tls = builder.build().map_err(|error| invalid(format!("TLS: {error}")))?;
            Some(tls.into())
        } else {
            None
        };
        Ok(Self { uri, secret: config.secret.clone(), deadline: config.deadline, tls })
    }

    /// Sends one message; anything but a 2xx within the deadline is an error, in words.
    pub(crate) async fn send(&self, message: &Message) -> Result<(), String> {
        let body = serde_json::to_vec(message).map_err(|error| error.to_string())?;
        match tokio::time::timeout(self.deadline, self.post(body)).await {
            Ok(result) => result.map_err(|why| self.scrubbed(&why)),
            Err(_) => Err(format!("no answer within {} ms", self.deadline.as_millis())),
        }
    }

    async fn post(&self, body: Vec<u8>) -> Result<(), String> {
        let host = self.uri.host().unwrap_or_default();
        let default = if self.tls.is_some() { 443 } else { 80 };
        let port = self.uri.port_u16().unwrap_or(default);
        // An IPv6 address stands in brackets in a URL, and nowhere else.
        let name = host.trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((name, port))
            .await
            .map_err(|error| format!("{host}:{port} cannot be reached: {error}"))?;
        let request = self.request(body)?;
        match &self.tls {
            Some(tls) => {
                let stream = tls
                    .connect(name, stream)
                    .await
                    .map_err(|error| format!("no TLS with {host}:{port}: {error}"))?;
                exchange(stream, request).await
            }
            None => exchange(stream, request).await,
        }
    }

    fn request(&self, body: Vec<u8>) -> Result<Request<Full<Bytes>>, String> {
        let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
        let authority = self.uri.authority().map_or("", |authority| authority.as_str());
        Request::post(path)
            .header(HOST, authority)
            .header(USER_AGENT, concat!("pgferry/", env!("CARGO_PKG_VERSION")))
            .header(CONTENT_TYPE, "application/json")
            .header(SIGNATURE, signature(self.secret.expose().as_bytes(), &body)?)
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| error.to_string())
    }

    /// A receiver that repeats what it knows does not get it into a message.
    fn scrubbed(&self, why: &str) -> String {
        scrub(&why.replace(self.secret.expose(), "[redacted]"))
    }
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let words = |error: hyper::Error| format!("the exchange broke off: {error}");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(words)?;
    // Ends with this function, whatever becomes of it.
    let mut connections = tokio::task::JoinSet::new();
    connections.spawn(connection);
    let response = sender.send_request(request).await.map_err(words)?;
    let status = response.status();
    if status.is_success() {
        return Ok(());
    }
    let body = Limited::new(response.into_body(), READ).collect().await;
    let body = body.map(|body| body.to_bytes()).unwrap_or_default();
    let text: String = String::from_utf8_lossy(&body).trim().chars().take(TOLD).collect();
    Err(format!("the answer is {status}: {text}"))
}

fn signature(key: &[u8], body: &[u8]) -> Result<String, String> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).map_err(|error| error.to_string())?;
    mac.update(body);
    let digest = mac.finalize().into_bytes();
    let mut text = String::from("sha256=");
    for byte in digest {
        text.push_str(&format!("{byte:02x}"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_the_one_of_rfc_4231() {
        let signed = signature(b"Jefe", b"what do ya want for nothing?").unwrap();
        assert_eq!(
            signed,
            "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }
}
