//! PostgreSQL's protocol on a socket, for what tokio-postgres does not do: replication commands, and
//! COPY passed on as it arrives, without a look at its rows. Simple queries only.
//!
//! Never sends a password before the TLS question is settled as `sslmode` says.

mod copy;

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

use crate::connect::{ConnectError, Connector, MAY_IDLE};

pub(crate) use copy::{Gate, Pump, PumpError};

/// Why a session failed.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// It could not be opened.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The server refused a command.
    #[error("{message} (SQLSTATE {state})")]
    Refused {
        /// The server's SQLSTATE.
        state: String,
        /// The server's words.
        message: String,
    },
    /// The session ended.
    #[error("the session was lost: {0}")]
    Lost(String),
    /// The server said something that the protocol does not allow here.
    #[error("the server's answer makes no sense: {0}")]
    Protocol(String),
}

impl WireError {
    /// The server's SQLSTATE, when it was the server that refused.
    pub(crate) fn state(&self) -> Option<&str> {
        match self {
            Self::Refused { state, .. } => Some(state),
            Self::Connect(_) | Self::Lost(_) | Self::Protocol(_) => None,
        }
    }

    /// Whether the same may well succeed on a new session: a connection that broke or could not be
    /// had, a server that restarts (class 57P), a deadlock.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Lost(_) => true,
            Self::Connect(error) => error.is_passing(),
            Self::Refused { state, .. } => {
                state.starts_with("57P")
                    || state.starts_with("08")
                    || matches!(state.as_str(), "40P01" | "40001" | "53300" | "55006" | "55P03")
            }
            Self::Protocol(_) => false,
        }
    }
}

/// What a session is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Replication commands on one database.
    Replication,
    /// SQL.
    Sql,
}

trait Socket: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin> Socket for S {}

/// One session's socket and what the server said of itself on it.
pub(crate) struct Wire {
    socket: Box<dyn Socket>,
    /// Certificate hash for channel binding, when there is TLS.
    end_point: Option<Vec<u8>>,
    unread: BytesMut,
    server_major: u32,
    backend: Option<(i32, i32)>,
}

impl Wire {
    /// Opens a session, within the connector's connect timeout, that may idle for as long as it likes.
    pub(crate) async fn connect(
        to: &Connector,
        application_name: &str,
        purpose: Purpose,
    ) -> Result<Self, WireError> {
        let opening = async {
            let mut wire = Self::open(to).await?;
            wire.start(to, application_name, purpose).await?;
            Ok::<_, WireError>(wire)
        };
        let mut wire = tokio::time::timeout(to.timeout(), opening)
            .await
            .map_err(|_| ConnectError::timeout(to))??;
        wire.query(MAY_IDLE).await?;
        Ok(wire)
    }

    /// Opens the socket and settles TLS; says nothing of who we are yet.
    async fn open(to: &Connector) -> Result<Self, WireError> {
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
    async fn start(
        &mut self,
        to: &Connector,
        application_name: &str,
        purpose: Purpose,
    ) -> Result<(), WireError> {
        let dsn = &to.login().dsn;
        let mut parameters = vec![
            ("client_encoding", "UTF8"),
            ("user", dsn.user()),
            ("database", dsn.dbname()),
            ("application_name", application_name),
            ("options", to.options()),
        ];
        if purpose == Purpose::Replication {
            parameters.push(("replication", "database"));
        }
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
    pub(crate) async fn query(&mut self, sql: &str) -> Result<Vec<Vec<Option<String>>>, WireError> {
        self.begin_query(sql).await?;
        self.query_answers().await
    }

    /// Reads the rows of a query that was begun, as text.
    pub(crate) async fn query_answers(&mut self) -> Result<Vec<Vec<Option<String>>>, WireError> {
        let mut rows = Vec::new();
        let mut refused = None;
        loop {
            match self.receive().await? {
                Message::DataRow(row) => rows.push(row_text(&row)?),
                Message::ErrorResponse(body) => {
                    let (state, message) = error_fields(&body);
                    refused = Some(WireError::Refused { state, message });
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

    /// The process that serves this session on its server.
    pub(crate) fn backend_pid(&self) -> Option<i32> {
        self.backend.map(|(pid, _)| pid)
    }

    /// Sends a query without waiting for its answers.
    pub(crate) async fn begin_query(&mut self, sql: &str) -> Result<(), WireError> {
        self.send(|buffer| frontend::query(sql, buffer)).await
    }

    /// The next message, whatever it is. Dropping the future loses nothing.
    async fn receive(&mut self) -> Result<Message, WireError> {
        loop {
            let parsed = Message::parse(&mut self.unread)
                .map_err(|error| WireError::Protocol(error.to_string()))?;
            if let Some(message) = parsed {
                return Ok(message);
            }
            self.fill().await?;
        }
    }

    /// Reads whatever has arrived, and waits for something when nothing has.
    async fn fill(&mut self) -> Result<(), WireError> {
        /// What the servers' send buffers make of a stream, many times over: fewer wake-ups.
        const READ_BYTES: usize = 256 * 1024;
        if self.unread.capacity() - self.unread.len() < READ_BYTES / 4 {
            self.unread.reserve(READ_BYTES);
        }
        match self.socket.read_buf(&mut self.unread).await {
            Ok(0) => Err(WireError::Lost("the server closed it".to_owned())),
            Ok(_) => Ok(()),
            Err(error) => Err(WireError::Lost(error.to_string())),
        }
    }

    /// Asks the server, over a socket of its own, to give up the command in flight; best effort.
    pub(crate) async fn cancel_statement(&self, to: &Connector) {
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
    pub(crate) fn server_major(&self) -> u32 {
        self.server_major
    }

    async fn authenticate(&mut self, to: &Connector) -> Result<(), WireError> {
        let refuse = |reason: &str| {
            let (server, reason) = (to.address(), reason.to_owned());
            WireError::from(ConnectError::Authentication { server, reason })
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
    ) -> Result<(), WireError> {
        let refuse = |reason: String| {
            WireError::from(ConnectError::Authentication { server: to.address(), reason })
        };
        let offered: Vec<String> = offer
            .mechanisms()
            .map(|name| Ok(name.to_owned()))
            .collect()
            .map_err(|error: io::Error| WireError::Protocol(error.to_string()))?;
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
    ) -> Result<(), WireError> {
        let mut buffer = BytesMut::new();
        encode(&mut buffer).map_err(|error| WireError::Protocol(error.to_string()))?;
        self.write(&buffer).await
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        let written = self.socket.write_all(bytes).await;
        let flushed = match written {
            Ok(()) => self.socket.flush().await,
            Err(error) => Err(error),
        };
        flushed.map_err(|error| WireError::Lost(error.to_string()))
    }

    /// Like `receive`, while connecting: an error is then about the connection.
    async fn receive_connecting(&mut self, to: &Connector) -> Result<Message, WireError> {
        match self.receive().await {
            Ok(Message::ErrorResponse(body)) => {
                let (state, message) = error_fields(&body);
                Err(ConnectError::server(to, &SqlState::from_code(&state), message).into())
            }
            Ok(message) => Ok(message),
            Err(WireError::Lost(reason)) => {
                Err(ConnectError::Unreachable { server: to.address(), reason }.into())
            }
            Err(error) => Err(error),
        }
    }
}

/// SQLSTATE and message of an error, as far as they can be read.
fn error_fields(body: &ErrorResponseBody) -> (String, String) {
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

fn row_text(row: &DataRowBody) -> Result<Vec<Option<String>>, WireError> {
    let buffer = row.buffer();
    row.ranges()
        .map(|range| Ok(range.map(|range| String::from_utf8_lossy(&buffer[range]).into_owned())))
        .collect()
        .map_err(|error: io::Error| WireError::Protocol(error.to_string()))
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

fn unexpected(during: &str) -> WireError {
    WireError::Protocol(format!("an unexpected message during {during}"))
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
