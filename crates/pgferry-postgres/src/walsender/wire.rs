//! The protocol under a replication session: socket, TLS, authentication, messages.
//!
//! Never sends a password before the TLS question is settled as `sslmode` says.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use fallible_iterator::FallibleIterator;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{
    self, ChannelBinding as ScramBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256,
};
use postgres_protocol::message::backend::{
    AuthenticationSaslBody, DataRowBody, ErrorResponseBody, Message,
};
use postgres_protocol::message::frontend;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_postgres::config::{ChannelBinding, SslMode};
use tokio_postgres::error::SqlState;

use super::WalsenderError;
use crate::connect::{ConnectError, Connector};

trait Socket: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin> Socket for S {}

/// One session's socket and what the server said of itself on it.
pub(super) struct Wire {
    socket: Box<dyn Socket>,
    /// Certificate hash for channel binding, when there is TLS.
    end_point: Option<Vec<u8>>,
    unread: BytesMut,
    server_major: u32,
    backend: Option<(i32, i32)>,
}

impl Wire {
    /// Opens the socket and settles TLS; says nothing of who we are yet.
    pub(super) async fn open(to: &Connector) -> Result<Self, WalsenderError> {
        let dsn = &to.login().dsn;
        let io = |error: io::Error| ConnectError::io(to, &error);
        let wire = |socket: Box<dyn Socket>, end_point| Self {
            socket,
            end_point,
            unread: BytesMut::new(),
            server_major: 0,
            backend: None,
        };
        if dsn.host().starts_with('/') {
            let path = format!("{}/.s.PGSQL.{}", dsn.host(), dsn.port());
            let socket = UnixStream::connect(path).await.map_err(io)?;
            return Ok(wire(Box::new(socket), None));
        }
        let address = dsn.get("hostaddr").unwrap_or(dsn.host());
        let mut socket = TcpStream::connect((address, dsn.port())).await.map_err(io)?;
        keep_alive(&socket).map_err(io)?;
        if to.config().get_ssl_mode() == SslMode::Disable {
            return Ok(wire(Box::new(socket), None));
        }
        let mut request = BytesMut::new();
        frontend::ssl_request(&mut request);
        socket.write_all(&request).await.map_err(io)?;
        match socket.read_u8().await.map_err(io)? {
            b'S' => {
                let tls = tokio_native_tls::TlsConnector::from(to.tls().clone());
                let socket = tls
                    .connect(dsn.host(), socket)
                    .await
                    .map_err(|error| ConnectError::tls(to, error.to_string()))?;
                let end_point = socket.get_ref().tls_server_end_point().ok().flatten();
                Ok(wire(Box::new(socket), end_point))
            }
            _ if to.config().get_ssl_mode() == SslMode::Prefer => Ok(wire(Box::new(socket), None)),
            _ => Err(ConnectError::tls(to, "server does not support TLS".to_owned()).into()),
        }
    }

    /// Start-up and authentication, until the server is ready for a command.
    pub(super) async fn start(
        &mut self,
        to: &Connector,
        application_name: &str,
    ) -> Result<(), WalsenderError> {
        let dsn = &to.login().dsn;
        let parameters = [
            ("client_encoding", "UTF8"),
            ("user", dsn.user()),
            ("database", dsn.dbname()),
            ("replication", "database"),
            ("application_name", application_name),
            ("options", to.options()),
        ];
        self.send(|buffer| frontend::startup_message(parameters, buffer)).await?;
        self.authenticate(to).await?;
        loop {
            match self.receive_connecting(to).await? {
                Message::ReadyForQuery(_) => return Ok(()),
                Message::ParameterStatus(status) => {
                    if status.name().is_ok_and(|name| name == "server_version") {
                        self.server_major = status.value().map_or(0, leading_number);
                    }
                }
                Message::BackendKeyData(key) => {
                    self.backend = Some((key.process_id(), key.secret_key()));
                }
                Message::NoticeResponse(_) => {}
                _ => return Err(unexpected("start-up")),
            }
        }
    }

    /// Runs one statement or replication command and returns its rows as text.
    pub(super) async fn query(
        &mut self,
        sql: &str,
    ) -> Result<Vec<Vec<Option<String>>>, WalsenderError> {
        self.send(|buffer| frontend::query(sql, buffer)).await?;
        let mut rows = Vec::new();
        let mut refused = None;
        loop {
            match self.receive().await? {
                Message::DataRow(row) => rows.push(row_text(&row)?),
                Message::ErrorResponse(body) => {
                    let (state, message) = error_fields(&body);
                    refused = Some(WalsenderError::Refused { state, message });
                }
                Message::ReadyForQuery(_) => return refused.map_or(Ok(rows), Err),
                Message::RowDescription(_)
                | Message::CommandComplete(_)
                | Message::EmptyQueryResponse
                | Message::NoticeResponse(_)
                | Message::ParameterStatus(_) => {}
                _ => return Err(unexpected("a simple query")),
            }
        }
    }

    /// The next message, whatever it is. Dropping the future loses nothing.
    pub(super) async fn receive(&mut self) -> Result<Message, WalsenderError> {
        loop {
            let parsed = Message::parse(&mut self.unread)
                .map_err(|error| WalsenderError::Protocol(error.to_string()))?;
            if let Some(message) = parsed {
                return Ok(message);
            }
            match self.socket.read_buf(&mut self.unread).await {
                Ok(0) => return Err(WalsenderError::Lost("the server closed it".to_owned())),
                Ok(_) => {}
                Err(error) => return Err(WalsenderError::Lost(error.to_string())),
            }
        }
    }

    /// Asks the server, over a socket of its own, to give up the command in flight; best effort.
    pub(super) async fn cancel_statement(&self, to: &Connector) {
        const PATIENCE: Duration = Duration::from_secs(2);
        let Some((process_id, secret_key)) = self.backend else { return };
        let asking = async {
            let mut wire = Wire::open(to).await?;
            wire.send(|buffer| {
                frontend::cancel_request(process_id, secret_key, buffer);
                Ok(())
            })
            .await
        };
        if !matches!(tokio::time::timeout(PATIENCE, asking).await, Ok(Ok(()))) {
            tracing::debug!("a replication command could not be cancelled");
        }
    }

    /// The server's major version, from its own words.
    pub(super) fn server_major(&self) -> u32 {
        self.server_major
    }

    async fn authenticate(&mut self, to: &Connector) -> Result<(), WalsenderError> {
        let refuse = |reason: &str| {
            let (server, reason) = (to.address(), reason.to_owned());
            WalsenderError::from(ConnectError::Authentication { server, reason })
        };
        let login = to.login();
        let must_bind = to.config().get_channel_binding() == ChannelBinding::Require;
        let password = || {
            login.password.as_ref().ok_or_else(|| refuse("it asks for a password, and none is set"))
        };
        let request = self.receive_connecting(to).await?;
        if must_bind && !matches!(request, Message::AuthenticationSasl(_)) {
            return Err(refuse("it did not use channel binding"));
        }
        match request {
            Message::AuthenticationOk => return Ok(()),
            Message::AuthenticationCleartextPassword => {
                let password = password()?.expose().as_bytes();
                self.send(|buffer| frontend::password_message(password, buffer)).await?;
            }
            Message::AuthenticationMd5Password(body) => {
                let password = password()?.expose().as_bytes();
                let hash = md5_hash(login.dsn.user().as_bytes(), password, body.salt());
                self.send(|buffer| frontend::password_message(hash.as_bytes(), buffer)).await?;
            }
            Message::AuthenticationSasl(body) => {
                let password = password()?.expose().as_bytes();
                self.scram(to, &body, password, must_bind).await?;
            }
            _ => return Err(refuse("it asks for a kind of authentication that is not supported")),
        }
        match self.receive_connecting(to).await? {
            Message::AuthenticationOk => Ok(()),
            _ => Err(unexpected("authentication")),
        }
    }

    async fn scram(
        &mut self,
        to: &Connector,
        offer: &AuthenticationSaslBody,
        password: &[u8],
        must_bind: bool,
    ) -> Result<(), WalsenderError> {
        let refuse = |reason: String| {
            WalsenderError::from(ConnectError::Authentication { server: to.address(), reason })
        };
        let offered: Vec<String> = offer
            .mechanisms()
            .map(|name| Ok(name.to_owned()))
            .collect()
            .map_err(|error: io::Error| WalsenderError::Protocol(error.to_string()))?;
        let offers = |name: &str| offered.iter().any(|offer| offer == name);
        let end_point = self
            .end_point
            .clone()
            .filter(|_| to.config().get_channel_binding() != ChannelBinding::Disable);
        let (mechanism, binding) = match end_point {
            Some(hash) if offers(SCRAM_SHA_256_PLUS) => {
                (SCRAM_SHA_256_PLUS, ScramBinding::tls_server_end_point(hash))
            }
            _ if must_bind => return Err(refuse("it did not use channel binding".to_owned())),
            Some(_) if offers(SCRAM_SHA_256) => (SCRAM_SHA_256, ScramBinding::unrequested()),
            None if offers(SCRAM_SHA_256) => (SCRAM_SHA_256, ScramBinding::unsupported()),
            Some(_) | None => return Err(refuse(format!("it offers only {offered:?}"))),
        };
        let mut scram: sasl::ScramSha256 = ScramSha256::new(password, binding);
        self.send(|buffer| frontend::sasl_initial_response(mechanism, scram.message(), buffer))
            .await?;
        match self.receive_connecting(to).await? {
            Message::AuthenticationSaslContinue(body) => {
                scram.update(body.data()).map_err(|error| refuse(error.to_string()))?;
            }
            _ => return Err(unexpected("SCRAM")),
        }
        self.send(|buffer| frontend::sasl_response(scram.message(), buffer)).await?;
        match self.receive_connecting(to).await? {
            Message::AuthenticationSaslFinal(body) => {
                scram.finish(body.data()).map_err(|error| refuse(error.to_string()))
            }
            _ => Err(unexpected("SCRAM")),
        }
    }

    async fn send(
        &mut self,
        encode: impl FnOnce(&mut BytesMut) -> io::Result<()>,
    ) -> Result<(), WalsenderError> {
        let mut buffer = BytesMut::new();
        encode(&mut buffer).map_err(|error| WalsenderError::Protocol(error.to_string()))?;
        let written = self.socket.write_all(&buffer).await;
        let flushed = match written {
            Ok(()) => self.socket.flush().await,
            Err(error) => Err(error),
        };
        flushed.map_err(|error| WalsenderError::Lost(error.to_string()))
    }

    /// Like `receive`, while connecting: an error is then about the connection.
    async fn receive_connecting(&mut self, to: &Connector) -> Result<Message, WalsenderError> {
        match self.receive().await {
            Ok(Message::ErrorResponse(body)) => {
                let (state, message) = error_fields(&body);
                Err(ConnectError::server(to, &SqlState::from_code(&state), message).into())
            }
            Ok(message) => Ok(message),
            Err(WalsenderError::Lost(reason)) => {
                Err(ConnectError::Unreachable { server: to.address(), reason }.into())
            }
            Err(error) => Err(error),
        }
    }
}

/// SQLSTATE and message of an error, as far as they can be read.
pub(super) fn error_fields(body: &ErrorResponseBody) -> (String, String) {
    let mut state = String::new();
    let mut message = String::new();
    let mut fields = body.fields();
    while let Ok(Some(field)) = fields.next() {
        let value = || String::from_utf8_lossy(field.value_bytes()).into_owned();
        match field.type_() {
            b'C' => state = value(),
            b'M' => message = value(),
            _ => {}
        }
    }
    (state, message)
}

fn row_text(row: &DataRowBody) -> Result<Vec<Option<String>>, WalsenderError> {
    let buffer = row.buffer();
    row.ranges()
        .map(|range| Ok(range.map(|range| String::from_utf8_lossy(&buffer[range]).into_owned())))
        .collect()
        .map_err(|error: io::Error| WalsenderError::Protocol(error.to_string()))
}

/// `15` of `15.18 (Debian …)`, of `17beta1`.
fn leading_number(version: &str) -> u32 {
    let digits = version.bytes().take_while(u8::is_ascii_digit).count();
    version[..digits].parse().unwrap_or(0)
}

fn keep_alive(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(20))
        .with_interval(Duration::from_secs(20))
        .with_retries(5);
    SockRef::from(socket).set_tcp_keepalive(&keepalive)
}

fn unexpected(during: &str) -> WalsenderError {
    WalsenderError::Protocol(format!("an unexpected message during {during}"))
}

#[cfg(test)]
mod tests {
    use super::leading_number;

    #[test]
    fn major_versions_are_read_from_the_servers_words() {
        assert_eq!(leading_number("15.18 (Debian 15.18-0+deb12u1)"), 15);
        assert_eq!(leading_number("17beta1"), 17);
        assert_eq!(leading_number("unknown"), 0);
    }
}
