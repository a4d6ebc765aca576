//! Connections to one server: how it is reached, how it is trusted, and what every session has set.
//!
//! Nothing here retries, keeps a connection for itself, or lets a password out: the password goes
//! into the start-up exchange and nowhere else.

mod error;
mod tls;

use std::net::IpAddr;
use std::ops::Deref;
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, RecyclingMethod};
use pgferry_config::{Login, SslMode};
use postgres_native_tls::MakeTlsConnector;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config};

pub use error::ConnectError;

/// A server that does not answer within this time is away; libpq itself would wait for minutes.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A host that vanished is noticed after about two minutes, as pglogical's own connections do it.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(20);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_RETRIES: u32 = 5;

/// How long an answer may go unacknowledged on a session of short statements. Never on one that
/// copies rows: there a receiver that is busy closes its window for longer than this.
const UNACKNOWLEDGED: Duration = Duration::from_secs(60);

/// What every session of pgferry has set, whatever the role, the database or the server say.
///
/// They travel in the start-up packet, so that there is no instant at which a session lacks them.
/// Only settings that every supported version knows: an unknown one refuses the connection.
const SESSION_SETTINGS: &[(&str, &str)] = &[
    // Copies and index builds take hours; deadlines belong to the caller, who knows the statement.
    ("statement_timeout", "0"),
    // An exported snapshot and a copy transaction count as idle in transaction.
    ("idle_in_transaction_session_timeout", "0"),
    // A statement that waits for a lock makes every later one wait behind it.
    ("lock_timeout", "10s"),
    // The database or the role may be fenced or read-only by default; pgferry is not.
    ("default_transaction_read_only", "off"),
    ("default_transaction_deferrable", "off"),
    ("default_transaction_isolation", "read committed"),
    // A record of ours that a crash of the server forgets is worse than none.
    ("synchronous_commit", "on"),
    // Statements over the catalogs of many tables look expensive enough to be compiled first, which
    // takes longer than they do.
    ("jit", "off"),
    // An error instead of rows that are silently left out.
    ("row_security", "off"),
    // Every name is qualified, so nobody's object can stand in for another.
    ("search_path", ""),
    // Text of values must be the same on both sides.
    ("TimeZone", "UTC"),
    ("DateStyle", "ISO, YMD"),
    ("IntervalStyle", "postgres"),
    ("extra_float_digits", "3"),
    ("bytea_output", "hex"),
    ("quote_all_identifiers", "off"),
    ("standard_conforming_strings", "on"),
    // The server too must notice that this host is gone, or its locks stay for hours.
    ("tcp_keepalives_idle", "20"),
    ("tcp_keepalives_interval", "20"),
    ("tcp_keepalives_count", "5"),
];

/// For sessions that wait long between two statements. Servers before 14 have no such setting and
/// would refuse a connection that names it, so it is set where it exists.
pub(crate) const MAY_IDLE: &str = "SELECT set_config(name, '0', false) FROM pg_settings
WHERE name IN ('idle_session_timeout', 'transaction_timeout')";

/// How to reach one database as one role, checked and ready to be used any number of times.
#[derive(Clone)]
pub struct Connector {
    login: Login,
    config: Config,
    tls: native_tls::TlsConnector,
}

impl Connector {
    /// Reads the certificates that the login names and prepares everything; does not connect.
    pub fn new(login: &Login) -> Result<Self, ConnectError> {
        Self::with_options(login, &startup_options(login.dsn.options()))
    }

    /// The same for what speaks the protocol and is no server, and so knows no settings: it would
    /// refuse a connection that brings some.
    pub fn to_console(login: &Login) -> Result<Self, ConnectError> {
        Self::with_options(login, login.dsn.options().unwrap_or_default())
    }

    fn with_options(login: &Login, options: &str) -> Result<Self, ConnectError> {
        let dsn = &login.dsn;
        let invalid = |reason: String| ConnectError::Configuration { reason };
        let mut config = Config::new();
        config
            .host(dsn.host())
            .port(dsn.port())
            .dbname(dsn.dbname())
            .user(dsn.user())
            .connect_timeout(connect_timeout(login))
            .keepalives(true)
            .keepalives_idle(KEEPALIVE_IDLE)
            .keepalives_interval(KEEPALIVE_INTERVAL)
            .keepalives_retries(KEEPALIVE_RETRIES)
            .ssl_mode(wire_ssl_mode(dsn.host(), dsn.ssl_mode()));
        if let Some(address) = dsn.get("hostaddr") {
            let address: IpAddr = address
                .parse()
                .map_err(|_| invalid(format!("hostaddr \"{address}\" is not an IP address")))?;
            config.hostaddr(address);
        }
        if let Some(word) = dsn.get("channel_binding") {
            use tokio_postgres::config::ChannelBinding;
            config.channel_binding(match word {
                "disable" => ChannelBinding::Disable,
                "prefer" => ChannelBinding::Prefer,
                "require" => ChannelBinding::Require,
                other => return Err(invalid(format!("channel_binding cannot be \"{other}\""))),
            });
        }
        if !options.is_empty() {
            config.options(options);
        }
        if let Some(password) = &login.password {
            config.password(password.expose());
        }
        Ok(Self { login: login.clone(), config, tls: tls::connector(dsn)? })
    }

    /// Opens a session for short statements. Its connection task ends with the client, or, when
    /// the client is dropped in the middle of a statement, with that statement.
    pub async fn connect(&self, application_name: &str) -> Result<Client, ConnectError> {
        let (client, driver) = self.open(application_name, Some(UNACKNOWLEDGED)).await?;
        drop(driver);
        Ok(client)
    }

    /// Opens a session whose socket is closed the moment it is dropped, even in the middle of a
    /// statement: for whatever may run for hours and must not outlive its owner.
    pub async fn session(&self, application_name: &str) -> Result<Session, ConnectError> {
        let (client, driver) = self.open(application_name, None).await?;
        let session = Session { client, driver, tls: self.make_tls() };
        session
            .batch_execute(MAY_IDLE)
            .await
            .map_err(|error| ConnectError::from_driver(self, &error))?;
        Ok(session)
    }

    /// What makes the connections of a pool. A check of who the server is belongs into the pool's
    /// `post_create` hook, because a name may come to mean another server at any time.
    pub fn manager(&self, application_name: &str) -> Manager {
        let mut config = self.config.clone();
        config.application_name(application_name).tcp_user_timeout(UNACKNOWLEDGED);
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        Manager::from_config(config, self.make_tls(), recycling)
    }

    /// The login that this was made from.
    pub fn login(&self) -> &Login {
        &self.login
    }

    /// `host:port/database`, for messages.
    pub fn address(&self) -> String {
        let dsn = &self.login.dsn;
        format!("{}:{}/{}", dsn.host(), dsn.port(), dsn.dbname())
    }

    /// The time within which a connection must be open and authenticated.
    pub(crate) fn timeout(&self) -> Duration {
        connect_timeout(&self.login)
    }

    /// The start-up packet's `options`, for the session that tokio-postgres cannot open.
    pub(crate) fn options(&self) -> &str {
        self.config.get_options().unwrap_or_default()
    }

    pub(crate) fn tls(&self) -> &native_tls::TlsConnector {
        &self.tls
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    fn make_tls(&self) -> MakeTlsConnector {
        MakeTlsConnector::new(self.tls.clone())
    }

    async fn open(
        &self,
        application_name: &str,
        unacknowledged: Option<Duration>,
    ) -> Result<(Client, JoinHandle<()>), ConnectError> {
        let mut config = self.config.clone();
        config.application_name(application_name);
        if let Some(limit) = unacknowledged {
            config.tcp_user_timeout(limit);
        }
        // tokio-postgres limits each TCP connect only; a server that accepts and then says
        // nothing would hold the caller for ever.
        let opened = tokio::time::timeout(self.timeout(), config.connect(self.make_tls())).await;
        let (client, connection) = opened
            .map_err(|_| ConnectError::timeout(self))?
            .map_err(|error| ConnectError::from_driver(self, &error))?;
        let driver = tokio::spawn(async move {
            if let Err(error) = connection.await {
                // The statement in flight reports the loss; here it would be said twice.
                tracing::debug!(%error, "connection ended");
            }
        });
        Ok((client, driver))
    }
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").field("address", &self.address()).finish_non_exhaustive()
    }
}

/// A session that ends with its owner; see [`Connector::session`].
pub struct Session {
    client: Client,
    driver: JoinHandle<()>,
    tls: MakeTlsConnector,
}

impl Session {
    /// Asks the server to give up the statement in flight; best effort, within two seconds. A
    /// closed socket alone is noticed only when the server next writes to it.
    pub async fn cancel_statement(&self) {
        const PATIENCE: Duration = Duration::from_secs(2);
        let request = self.client.cancel_token();
        let cancelling = request.cancel_query(self.tls.clone());
        if !matches!(tokio::time::timeout(PATIENCE, cancelling).await, Ok(Ok(()))) {
            tracing::debug!("a running statement could not be cancelled");
        }
    }
}

impl Deref for Session {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Without this tokio-postgres would read a dropped COPY to its end before it hangs up.
        self.driver.abort();
    }
}

/// `options` of the start-up packet: the DSN's own first, pgferry's after them, because the last
/// mention of a setting wins and these are not a matter of taste.
fn startup_options(own: Option<&str>) -> String {
    let mut options = own.map(str::to_owned).unwrap_or_default();
    for (name, value) in SESSION_SETTINGS {
        if !options.is_empty() {
            options.push(' ');
        }
        let value = value.replace('\\', r"\\").replace(' ', r"\ ");
        options.push_str(&format!("-c {name}={value}"));
    }
    options
}

/// Zero means "for ever" to libpq; here it means the default, because the loop must not stand.
fn connect_timeout(login: &Login) -> Duration {
    login.dsn.connect_timeout().filter(|limit| !limit.is_zero()).unwrap_or(CONNECT_TIMEOUT)
}

/// Whether TLS is asked for on the wire. How far the certificate is checked is `tls::connector`'s.
fn wire_ssl_mode(host: &str, mode: SslMode) -> tokio_postgres::config::SslMode {
    use tokio_postgres::config::SslMode as Wire;
    if host.starts_with('/') {
        // libpq too ignores sslmode on a Unix socket.
        return Wire::Disable;
    }
    match mode {
        SslMode::Disable => Wire::Disable,
        // libpq's `allow` tries without first; nobody who cares about the difference uses it.
        SslMode::Allow | SslMode::Prefer => Wire::Prefer,
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => Wire::Require,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_postgres::config::SslMode as Wire;

    #[test]
    fn own_options_come_first_and_spaces_are_escaped() {
        let options = startup_options(Some("-c work_mem=1GB"));
        assert!(options.starts_with("-c work_mem=1GB -c statement_timeout=0 "), "{options}");
        assert!(
            options.contains(r"-c default_transaction_isolation=read\ committed "),
            "{options}"
        );
        assert!(options.contains("-c search_path= -c "), "{options}");
    }

    #[test]
    fn tls_is_asked_for_as_libpq_does() {
        for (mode, wire) in [
            (SslMode::Disable, Wire::Disable),
            (SslMode::Allow, Wire::Prefer),
            (SslMode::Prefer, Wire::Prefer),
            (SslMode::Require, Wire::Require),
            (SslMode::VerifyCa, Wire::Require),
            (SslMode::VerifyFull, Wire::Require),
        ] {
            assert_eq!(wire_ssl_mode("db.example", mode), wire, "{mode:?}");
            assert_eq!(wire_ssl_mode("/run/postgresql", mode), Wire::Disable, "{mode:?}");
        }
    }
}
