//! A libpq connection string without its password.
//!
//! Parsed here because tokio-postgres knows only some of libpq's words, while the same string has to
//! serve the daemon, `pg_dump` and pglogical inside both servers. A [`Dsn`] never holds a secret: what
//! contains one is refused, so that it may be printed anywhere. No message quotes a value, because a
//! badly quoted password looks like one.

mod text;
mod words;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use crate::Secret;

/// Where one database is and as whom to log in: libpq's words, checked, the password apart.
///
/// `port` and `sslmode` are always written out, so that `PGPORT` or `PGSSLMODE` in the environment of
/// whoever reads the string (a server's own, too) cannot change where it leads.
#[derive(Clone, PartialEq, Eq)]
pub struct Dsn {
    words: BTreeMap<String, String>,
}

/// Why a text is not a DSN that pgferry takes: every reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct InvalidDsn {
    /// At least one.
    pub faults: Vec<DsnFault>,
}

/// One reason, without any value of the DSN.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct DsnFault {
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub hint: String,
}

impl DsnFault {
    fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: hint.into() }
    }
}

/// libpq's `sslmode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SslMode {
    /// Never TLS.
    Disable,
    /// TLS only when the server insists.
    Allow,
    /// TLS when the server offers it.
    Prefer,
    /// TLS, with any certificate.
    Require,
    /// TLS, with a certificate of a trusted authority.
    VerifyCa,
    /// TLS, with such a certificate for this very host.
    VerifyFull,
}

impl SslMode {
    /// Every mode, the weakest first.
    pub const ALL: [SslMode; 6] = [
        SslMode::Disable,
        SslMode::Allow,
        SslMode::Prefer,
        SslMode::Require,
        SslMode::VerifyCa,
        SslMode::VerifyFull,
    ];

    /// libpq's word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            SslMode::Disable => "disable",
            SslMode::Allow => "allow",
            SslMode::Prefer => "prefer",
            SslMode::Require => "require",
            SslMode::VerifyCa => "verify-ca",
            SslMode::VerifyFull => "verify-full",
        }
    }

    fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.as_str() == word)
    }
}

impl Dsn {
    /// Reads the keyword/value form (`host=… dbname=…`, with libpq's quoting) or a `postgresql://` URI.
    pub fn parse(text: &str) -> Result<Dsn, InvalidDsn> {
        let pairs = text::pairs(text).map_err(|fault| InvalidDsn { faults: vec![fault] })?;
        let faults = words::faults(&pairs);
        if !faults.is_empty() {
            return Err(InvalidDsn { faults });
        }
        // A word given twice counts the second time, as in libpq.
        let mut words: BTreeMap<String, String> = pairs.into_iter().collect();
        words.retain(|_, value| !value.is_empty());
        words.entry("port".to_owned()).or_insert_with(|| "5432".to_owned());
        words.entry("sslmode".to_owned()).or_insert_with(|| "prefer".to_owned());
        Ok(Dsn { words })
    }

    /// One word's value, when it is there.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.words.get(key).map(String::as_str)
    }

    /// The host name, the address, or the directory of a Unix socket (begins with `/`).
    #[must_use]
    pub fn host(&self) -> &str {
        self.get("host").unwrap_or_default()
    }

    /// The port; 5432 when the text named none.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.get("port").and_then(|port| port.parse().ok()).unwrap_or(5432)
    }

    /// The database.
    #[must_use]
    pub fn dbname(&self) -> &str {
        self.get("dbname").unwrap_or_default()
    }

    /// The login role.
    #[must_use]
    pub fn user(&self) -> &str {
        self.get("user").unwrap_or_default()
    }

    /// How TLS is used; `prefer` when the text named no mode.
    #[must_use]
    pub fn ssl_mode(&self) -> SslMode {
        self.get("sslmode").and_then(SslMode::named).unwrap_or(SslMode::Prefer)
    }

    /// The bundle of trusted authorities; none also for `system`, the authorities of the machine.
    #[must_use]
    pub fn ssl_root_cert(&self) -> Option<&Path> {
        self.get("sslrootcert").filter(|cert| *cert != "system").map(Path::new)
    }

    /// Server settings for the session: `-c name=value …`.
    #[must_use]
    pub fn options(&self) -> Option<&str> {
        self.get("options")
    }

    /// How long to try; none, as in libpq, when the text says nothing, zero or less.
    #[must_use]
    pub fn connect_timeout(&self) -> Option<Duration> {
        let seconds: i64 = self.get("connect_timeout")?.trim().parse().ok()?;
        u64::try_from(seconds).ok().filter(|seconds| *seconds > 0).map(Duration::from_secs)
    }

    /// The same with one word replaced, for instance `options`; an empty value removes the word.
    ///
    /// Not for a password: it would be left out of every text but this value's own [`Dsn::get`].
    #[must_use]
    pub fn with(&self, key: &str, value: &str) -> Dsn {
        let mut words = self.words.clone();
        if value.is_empty() {
            words.remove(key);
        } else {
            words.insert(key.to_owned(), value.to_owned());
        }
        Dsn { words }
    }

    /// The complete text for libpq, in keyword/value form, with the password when there is one.
    ///
    /// The same `Dsn` always gives the same text: pglogical refuses a node's DSN that is merely
    /// equivalent to the one it has stored.
    #[must_use]
    pub fn to_conninfo(&self, password: Option<&Secret>) -> Secret {
        let mut text = self.to_conninfo_without_password();
        if let Some(password) = password {
            text.push_str(" password=");
            text.push_str(&quoted(password.expose()));
        }
        Secret::new(text)
    }

    /// The text for libpq without any secret: for a password that travels by itself, and for messages.
    #[must_use]
    pub fn to_conninfo_without_password(&self) -> String {
        const FIRST: [&str; 4] = ["host", "port", "dbname", "user"];
        let first = FIRST.iter().filter_map(|key| self.words.get_key_value(*key));
        let rest = self.words.iter().filter(|(key, _)| !FIRST.contains(&key.as_str()));
        first
            .chain(rest)
            .filter(|(key, _)| !words::is_secret(key))
            .map(|(key, value)| format!("{key}={}", quoted(value)))
            .collect::<Vec<_>>()
            .join(" ")
    }
}

impl FromStr for Dsn {
    type Err = InvalidDsn;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Dsn::parse(text)
    }
}

impl fmt::Display for Dsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_conninfo_without_password())
    }
}

impl fmt::Debug for Dsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dsn({self})")
    }
}

/// A value as libpq reads it back; plain values stay plain, for people.
fn quoted(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:,@+%".contains(c);
    if !value.is_empty() && value.chars().all(plain) {
        return value.to_owned();
    }
    let escaped = value.replace('\\', "\\\\").replace('\'', "\\'");
    format!("'{escaped}'")
}

#[cfg(test)]
mod tests;
