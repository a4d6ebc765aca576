//! A node's three logins: the daemon's, the other server's, its own server's.
//!
//! The only place where secrets enter. No message holds a DSN, a password or the path of its file:
//! people paste passwords into the wrong key.

use super::raw::KeyPath;
use super::reader::Reader;
use crate::{Dsn, Login, Lookup, NodeConfig, Secret, SslMode};

/// Reads a node; none together with a problem.
pub(super) fn node(reader: &mut Reader, at: &KeyPath, env: &dyn Lookup) -> Option<NodeConfig> {
    reader.section(at);
    let login = login(reader, at, env);
    let peer_dsn = dsn(reader, &at.key("peer_dsn"));
    let peer_password = password(reader, at, "peer_password", env);
    let self_dsn = dsn(reader, &at.key("self_dsn"));

    if peer_password.is_some() && !reader.given(&at.key("peer_dsn")) {
        reader.refuse(
            &at.key("peer_dsn"),
            "missing, although a password of its own is given",
            "add it, with the replication role as its user",
        );
    }
    let login = login?;
    for (key, other) in [("peer_dsn", &peer_dsn), ("self_dsn", &self_dsn)] {
        if other.as_ref().is_some_and(|other| other.dbname() != login.dsn.dbname()) {
            reader.refuse(
                &at.key(key),
                "it names another database than dsn",
                "it is another way to the same database: give both the same dbname",
            );
        }
    }

    let peer_dsn = peer_dsn.unwrap_or_else(|| login.dsn.clone());
    let peer = Login {
        password: peer_password.or_else(|| password_of(peer_dsn.user(), &[&login])),
        dsn: peer_dsn,
    };
    let own_dsn = self_dsn.unwrap_or_else(|| login.dsn.with("user", peer.dsn.user()));
    let own = Login { password: password_of(own_dsn.user(), &[&peer, &login]), dsn: own_dsn };
    Some(NodeConfig { login, peer, own })
}

/// A password goes only with the role it was given for: with another one it can but fail, and it
/// would be sent to a server as that other role's.
fn password_of(user: &str, logins: &[&Login]) -> Option<Secret> {
    let login = logins.iter().find(|login| login.dsn.user() == user)?;
    login.password.clone()
}

/// Reads `dsn` and its password: a login from this machine, so the files it names must be here.
pub(super) fn login(reader: &mut Reader, at: &KeyPath, env: &dyn Lookup) -> Option<Login> {
    let key = at.key("dsn");
    let dsn = dsn(reader, &key);
    let password = password(reader, at, "password", env);
    if !reader.given(&key) && reader.readable(at) {
        reader.refuse(
            &key,
            "missing",
            "write dsn = \"host=… port=5432 dbname=… user=… sslmode=verify-full sslrootcert=…\"",
        );
    }
    let dsn = dsn?;
    check_root_cert(reader, &key, &dsn);
    Some(Login { dsn, password })
}

fn check_root_cert(reader: &mut Reader, at: &KeyPath, dsn: &Dsn) {
    if let Some(bundle) = dsn.ssl_root_cert() {
        if let Err(error) = std::fs::read(bundle) {
            reader.refuse(
                at,
                format!("the file that its sslrootcert names cannot be read: {error}"),
                "name a file of certificates in PEM form that is on this machine",
            );
        }
        return;
    }
    if dsn.get("sslrootcert").is_some() && dsn.ssl_mode() != SslMode::VerifyFull {
        // Anybody can get a certificate for some name from the machine's authorities.
        reader.refuse(
            at,
            format!("sslrootcert=system with sslmode={}", dsn.ssl_mode().as_str()),
            "write sslmode=verify-full, or name the bundle of a private authority",
        );
        return;
    }
    match dsn.ssl_mode() {
        SslMode::Disable | SslMode::Allow | SslMode::Prefer | SslMode::Require => {}
        // libpq would take a file of the home directory, which is another one for pg_dump, for the
        // daemon and for each server.
        SslMode::VerifyCa | SslMode::VerifyFull => {
            if dsn.get("sslrootcert").is_none() {
                reader.refuse(
                    at,
                    format!("sslmode={} without sslrootcert", dsn.ssl_mode().as_str()),
                    "add sslrootcert=… with the bundle to verify against",
                );
            }
        }
    }
}

fn dsn(reader: &mut Reader, at: &KeyPath) -> Option<Dsn> {
    match Dsn::parse(&reader.text(at)?) {
        Ok(dsn) => Some(dsn),
        Err(invalid) => {
            for fault in invalid.faults {
                reader.refuse(at, fault.message, fault.hint);
            }
            None
        }
    }
}

/// Reads `{name}_env` or `{name}_file`; none given is allowed, for trust, peer and certificates.
pub(super) fn password(
    reader: &mut Reader,
    at: &KeyPath,
    name: &str,
    env: &dyn Lookup,
) -> Option<Secret> {
    let (env_key, file_key) = (at.key(&format!("{name}_env")), at.key(&format!("{name}_file")));
    let (variable, file) = (reader.text(&env_key), reader.text(&file_key));
    if variable.is_some() && file.is_some() {
        let message = format!("given together with {name}_file");
        reader.refuse(&env_key, message, "keep one of the two");
    }
    let from_variable =
        variable.and_then(|variable| from_variable(reader, &env_key, &variable, env));
    let from_file = file.and_then(|file| from_file(reader, &file_key, &file));
    from_variable.or(from_file)
}

fn from_variable(
    reader: &mut Reader,
    at: &KeyPath,
    variable: &str,
    env: &dyn Lookup,
) -> Option<Secret> {
    if let Some(value) = env.get(variable).filter(|value| !value.is_empty()) {
        return checked(reader, at, value);
    }
    // Only what looks like a variable is repeated: it may be the password itself.
    let looks_like_one = !variable.starts_with(|c: char| c.is_ascii_digit())
        && variable.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
    if looks_like_one {
        reader.refuse(
            at,
            format!("the environment variable {variable} is missing or empty"),
            "set it where pgferry runs, or use a file",
        );
    } else {
        reader.refuse(
            at,
            "no environment variable has this name, or it is empty",
            "write the name of a variable here, not the password",
        );
    }
    None
}

fn from_file(reader: &mut Reader, at: &KeyPath, file: &str) -> Option<Secret> {
    match std::fs::read_to_string(file) {
        Ok(text) => {
            let text = text.strip_suffix('\n').unwrap_or(&text);
            let password = text.strip_suffix('\r').unwrap_or(text);
            checked(reader, at, password.to_owned())
        }
        Err(error) => {
            reader.refuse(
                at,
                format!("the file cannot be read: {error}"),
                "write the path of a file that holds nothing but the password",
            );
            None
        }
    }
}

fn checked(reader: &mut Reader, at: &KeyPath, password: String) -> Option<Secret> {
    if password.is_empty() || password.contains(['\0', '\n', '\r']) {
        reader.refuse(
            at,
            "the password is empty, or has several lines or a NUL character",
            "give the password alone, on one line",
        );
        return None;
    }
    Some(Secret::new(password))
}
