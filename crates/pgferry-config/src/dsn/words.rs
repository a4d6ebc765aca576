//! libpq's words, and what pgferry refuses in them.
//!
//! Judges all words of a DSN and reports every fault. The values of `host`, `dbname` and the like
//! are not judged: only a server knows. No fault quotes a value.

use super::{DsnFault, SslMode};
use crate::nearest::{is_near, nearest};

/// What libpq takes up to PostgreSQL 18 and pgferry passes on.
const WORDS: &[&str] = &[
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "passfile",
    "require_auth",
    "channel_binding",
    "connect_timeout",
    "client_encoding",
    "options",
    "application_name",
    "fallback_application_name",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
    "sslmode",
    "sslnegotiation",
    "sslcompression",
    "sslcert",
    "sslkey",
    "sslcertmode",
    "sslrootcert",
    "sslcrl",
    "sslcrldir",
    "sslsni",
    "requirepeer",
    "ssl_min_protocol_version",
    "ssl_max_protocol_version",
    "min_protocol_version",
    "max_protocol_version",
    "gssencmode",
    "gssdelegation",
    "gsslib",
    "krbsrvname",
    "target_session_attrs",
    "load_balance_hosts",
];

/// libpq's words whose values are secrets.
const SECRETS: &[&str] = &["password", "sslpassword", "oauth_client_secret", "scram_client_key"];

/// libpq's words that pgferry must not pass on, and what to do instead.
const UNSUITABLE: &[(&str, &str)] = &[
    ("service", "write the words of the service here"),
    ("servicefile", "write the words of the service here"),
    ("replication", "remove it: pglogical and pgferry set it where it belongs"),
];

const WHOLE_NUMBERS: &[&str] = &[
    "connect_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
];

/// Whether a word's value must not be shown.
pub(super) fn is_secret(key: &str) -> bool {
    SECRETS.contains(&key)
}

/// Everything that is wrong with these words.
pub(super) fn faults(pairs: &[(String, String)]) -> Vec<DsnFault> {
    let mut faults: Vec<DsnFault> =
        pairs.iter().filter_map(|(key, _)| word_fault(key, pairs)).collect();
    let value = |wanted: &str| {
        let last = pairs.iter().rev().find(|(key, _)| key == wanted);
        last.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    };

    for key in ["host", "dbname", "user"] {
        if value(key).is_none() {
            faults.push(DsnFault::new(
                format!("\"{key}\" is missing"),
                format!("write {key}=… : nothing is taken from the environment"),
            ));
        }
    }
    if ["host", "hostaddr", "port"].iter().any(|key| value(key).is_some_and(|v| v.contains(','))) {
        faults.push(DsnFault::new("it names several servers", "a node is one server: name one"));
    } else if let Some(port) = value("port")
        && !port.parse::<u16>().is_ok_and(|port| port > 0)
    {
        faults.push(DsnFault::new(
            "\"port\" is not a number from 1 to 65535",
            "5432 is PostgreSQL's own",
        ));
    }
    if let Some(mode) = value("sslmode")
        && SslMode::named(mode).is_none()
    {
        let modes = SslMode::ALL.map(SslMode::as_str).join(", ");
        faults.push(DsnFault::new("\"sslmode\" is not a mode of libpq", format!("one of {modes}")));
    }
    for key in WHOLE_NUMBERS {
        if value(key).is_some_and(|v| v.trim().parse::<i32>().is_err()) {
            faults.push(DsnFault::new(
                format!("\"{key}\" is not a whole number"),
                "write it without a unit: 10",
            ));
        }
    }
    faults
}

fn word_fault(key: &str, pairs: &[(String, String)]) -> Option<DsnFault> {
    if WORDS.contains(&key) {
        return None;
    }
    if key == "password" {
        return Some(DsnFault::new(
            "it contains a password",
            "take it out of the DSN and name password_env or password_file",
        ));
    }
    if is_secret(key) {
        return Some(DsnFault::new(
            format!("it contains \"{key}\", a secret"),
            "configuration files get committed: use a key without a passphrase that only pgferry can read",
        ));
    }
    if let Some((_, instead)) = UNSUITABLE.iter().find(|(word, _)| *word == key) {
        return Some(DsnFault::new(format!("\"{key}\" cannot be used here"), *instead));
    }
    // In `password=my secret=1` the word "secret" is a piece of the password. A word is quoted only
    // where nothing in the text looks like the beginning of a password.
    let speaks_of_password =
        pairs.iter().any(|(key, _)| SECRETS.iter().any(|secret| is_near(key, secret)));
    let shown = if speaks_of_password { String::new() } else { format!(" \"{key}\"") };
    let hint = match nearest(key, WORDS.iter().chain(SECRETS).copied()) {
        Some(near) => format!("the nearest word of libpq is \"{near}\""),
        None => String::new(),
    };
    Some(DsnFault::new(format!("unknown word{shown}"), hint))
}
