//! Why a session could not be opened, in words that a program can act on.
//!
//! Never holds a password: the texts come from the server, the TLS library and the kernel, none of
//! which is told one.

use std::error::Error as _;

use tokio_postgres::error::SqlState;

use super::Connector;

/// Why a session could not be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The login itself cannot be used: a certificate file, a word in the DSN.
    #[error("{reason}")]
    Configuration {
        /// What is wrong with it.
        reason: String,
    },
    /// No answer, a refused connection, or a name that does not resolve.
    #[error("{server} cannot be reached: {reason}")]
    Unreachable {
        /// `host:port/database`
        server: String,
        /// What the system said.
        reason: String,
    },
    /// The server is there and starts up, shuts down or recovers.
    #[error("{server} takes no connections now: {reason}")]
    NotReady {
        /// `host:port/database`
        server: String,
        /// What the server said.
        reason: String,
    },
    /// Wrong password, unknown role, or no line in `pg_hba.conf`.
    #[error("{server} refuses the login: {reason}")]
    Authentication {
        /// `host:port/database`
        server: String,
        /// What the server said.
        reason: String,
    },
    /// The server's certificate does not satisfy `sslmode`.
    #[error("the certificate of {server} is not accepted: {reason}")]
    Certificate {
        /// `host:port/database`
        server: String,
        /// What the TLS library said.
        reason: String,
    },
    /// TLS is demanded and the server does not speak it, or the handshake failed otherwise.
    #[error("no TLS with {server}: {reason}")]
    Tls {
        /// `host:port/database`
        server: String,
        /// What went wrong.
        reason: String,
    },
    /// There is no such database.
    #[error("{server}: {reason}")]
    DatabaseMissing {
        /// `host:port/database`
        server: String,
        /// What the server said.
        reason: String,
    },
    /// The server, the database or the role has no connection left.
    #[error("{server} has no connection left: {reason}")]
    TooManyConnections {
        /// `host:port/database`
        server: String,
        /// What the server said.
        reason: String,
    },
    /// Anything else.
    #[error("cannot connect to {server}: {reason}")]
    Other {
        /// `host:port/database`
        server: String,
        /// What was said.
        reason: String,
    },
}

impl ConnectError {
    /// Whether it may well succeed a little later, without anybody's help.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::NotReady { .. } | Self::TooManyConnections { .. } => {
                true
            }
            Self::Configuration { .. }
            | Self::Authentication { .. }
            | Self::Certificate { .. }
            | Self::Tls { .. }
            | Self::DatabaseMissing { .. }
            | Self::Other { .. } => false,
        }
    }

    /// The word for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Configuration { .. } => "login_invalid",
            Self::Unreachable { .. } => "unreachable",
            Self::NotReady { .. } => "not_ready",
            Self::Authentication { .. } => "authentication_failed",
            Self::Certificate { .. } => "certificate_invalid",
            Self::Tls { .. } => "tls_failed",
            Self::DatabaseMissing { .. } => "database_missing",
            Self::TooManyConnections { .. } => "too_many_connections",
            Self::Other { .. } => "connect_failed",
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Configuration { .. } => "correct the dsn in the configuration",
            Self::Unreachable { .. } => {
                "check host and port, name resolution, firewalls and security groups"
            }
            Self::NotReady { .. } => "wait until the server has started",
            Self::Authentication { .. } => "check user, password and pg_hba.conf",
            Self::Certificate { .. } => {
                "check sslrootcert, and that the host in the dsn is a name in the certificate"
            }
            Self::Tls { .. } => "check that the server has ssl = on, or choose another sslmode",
            Self::DatabaseMissing { .. } => "create the database, or correct dbname in the dsn",
            Self::TooManyConnections { .. } => {
                "raise max_connections or the role's CONNECTION LIMIT, or end idle sessions"
            }
            Self::Other { .. } => "see the server's log",
        }
    }

    pub(crate) fn timeout(to: &Connector) -> Self {
        let seconds = to.timeout().as_secs();
        Self::Unreachable { server: to.address(), reason: format!("no answer in {seconds} s") }
    }

    pub(crate) fn io(to: &Connector, error: &std::io::Error) -> Self {
        Self::Unreachable { server: to.address(), reason: error.to_string() }
    }

    /// What the TLS library says, told apart by its words: native-tls has one opaque error type.
    pub(crate) fn tls(to: &Connector, reason: String) -> Self {
        let server = to.address();
        let words = reason.to_ascii_lowercase();
        let about_certificate = ["certificate", "hostname mismatch", "ip address mismatch"];
        if about_certificate.iter().any(|word| words.contains(word)) {
            Self::Certificate { server, reason }
        } else {
            Self::Tls { server, reason }
        }
    }

    pub(crate) fn server(to: &Connector, state: &SqlState, reason: String) -> Self {
        let server = to.address();
        if [&SqlState::INVALID_PASSWORD, &SqlState::INVALID_AUTHORIZATION_SPECIFICATION]
            .contains(&state)
        {
            Self::Authentication { server, reason }
        } else if *state == SqlState::INVALID_CATALOG_NAME {
            Self::DatabaseMissing { server, reason }
        } else if *state == SqlState::TOO_MANY_CONNECTIONS {
            Self::TooManyConnections { server, reason }
        } else if [
            &SqlState::CANNOT_CONNECT_NOW,
            &SqlState::ADMIN_SHUTDOWN,
            &SqlState::CRASH_SHUTDOWN,
        ]
        .contains(&state)
        {
            Self::NotReady { server, reason }
        } else {
            Self::Other { server, reason: format!("{reason} (SQLSTATE {})", state.code()) }
        }
    }

    pub(crate) fn from_driver(to: &Connector, error: &tokio_postgres::Error) -> Self {
        if let Some(answer) = error.as_db_error() {
            return Self::server(to, answer.code(), answer.message().to_owned());
        }
        let cause = error.source();
        let reason = cause.map_or_else(|| error.to_string(), ToString::to_string);
        // The driver's kinds are private; what it prints for each is fixed text.
        match error.to_string().as_str() {
            text if text.starts_with("error performing TLS handshake") => Self::tls(to, reason),
            text if text.starts_with("authentication error")
                || text.starts_with("invalid configuration") =>
            {
                Self::Authentication { server: to.address(), reason }
            }
            _ if error.is_closed() || cause.is_some_and(|cause| cause.is::<std::io::Error>()) => {
                Self::Unreachable { server: to.address(), reason }
            }
            text if text.starts_with("timeout") => Self::timeout(to),
            _ => Self::Other { server: to.address(), reason },
        }
    }
}
