//! From `sslmode` and `sslrootcert` to a TLS connector, as libpq reads them.
//!
//! Never falls back to the system's roots when a bundle is given: a private authority is named in
//! order to exclude all others.

use std::path::{Path, PathBuf};

use native_tls::{Certificate, Identity, Protocol, TlsConnector};
use pgferry_config::{Dsn, SslMode};

use super::ConnectError;

/// How far the server's certificate is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    Nothing,
    Chain,
    ChainAndName,
}

/// Where the trusted roots come from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Roots {
    System,
    Bundle(PathBuf),
}

/// The connector for a DSN. With `sslmode=disable` it is made and never used.
pub(super) fn connector(dsn: &Dsn) -> Result<TlsConnector, ConnectError> {
    let given = dsn.get("sslrootcert").map(Path::new);
    let check = check(dsn.ssl_mode(), given.is_some());
    let mut builder = TlsConnector::builder();
    // libpq's own default for ssl_min_protocol_version.
    builder.min_protocol_version(Some(Protocol::Tlsv12));
    match check {
        Check::Nothing => {
            builder.danger_accept_invalid_certs(true).danger_accept_invalid_hostnames(true);
        }
        Check::Chain => {
            builder.danger_accept_invalid_hostnames(true);
        }
        Check::ChainAndName => {}
    }
    if check != Check::Nothing {
        match roots(check, given)? {
            Roots::System => {}
            Roots::Bundle(file) => {
                builder.disable_built_in_roots(true);
                for certificate in read_bundle(&file)? {
                    builder.add_root_certificate(certificate);
                }
            }
        }
    }
    if let (Some(certificate), Some(key)) = (dsn.get("sslcert"), dsn.get("sslkey")) {
        let identity = Identity::from_pkcs8(&read(certificate)?, &read(key)?).map_err(|error| {
            configuration(format!("sslcert and sslkey cannot be used together: {error}"))
        })?;
        builder.identity(identity);
    }
    builder.build().map_err(|error| configuration(format!("TLS cannot be set up: {error}")))
}

/// libpq: `require` checks nothing, unless a root certificate is there; then it is `verify-ca`.
fn check(mode: SslMode, root_given: bool) -> Check {
    match mode {
        SslMode::Disable | SslMode::Allow | SslMode::Prefer => Check::Nothing,
        SslMode::Require if root_given => Check::Chain,
        SslMode::Require => Check::Nothing,
        SslMode::VerifyCa => Check::Chain,
        SslMode::VerifyFull => Check::ChainAndName,
    }
}

fn roots(check: Check, given: Option<&Path>) -> Result<Roots, ConnectError> {
    match given {
        Some(word) if word == Path::new("system") => {
            // Anybody can get a certificate for some name, so the name must be checked too.
            if check == Check::ChainAndName {
                Ok(Roots::System)
            } else {
                Err(configuration("sslrootcert=system needs sslmode=verify-full".to_owned()))
            }
        }
        Some(file) => Ok(Roots::Bundle(file.to_owned())),
        // pg_dump reads the same DSN through libpq, which knows no other default.
        None => std::env::var_os("HOME")
            .map(|home| Path::new(&home).join(".postgresql/root.crt"))
            .filter(|file| file.exists())
            .map(Roots::Bundle)
            .ok_or_else(|| {
                configuration(
                    "sslmode verify-ca and verify-full need sslrootcert: a PEM bundle, or \"system\""
                        .to_owned(),
                )
            }),
    }
}

fn read_bundle(file: &Path) -> Result<Vec<Certificate>, ConnectError> {
    let unusable = |reason: String| {
        configuration(format!("sslrootcert {} cannot be used: {reason}", file.display()))
    };
    let pem = std::fs::read(file).map_err(|error| unusable(error.to_string()))?;
    let certificates =
        Certificate::stack_from_pem(&pem).map_err(|error| unusable(error.to_string()))?;
    if certificates.is_empty() {
        return Err(unusable("it holds no certificate".to_owned()));
    }
    Ok(certificates)
}

fn read(file: &str) -> Result<Vec<u8>, ConnectError> {
    std::fs::read(file).map_err(|error| configuration(format!("{file} cannot be read: {error}")))
}

fn configuration(reason: String) -> ConnectError {
    ConnectError::Configuration { reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_checked_as_libpq_does() {
        for (mode, without, with) in [
            (SslMode::Disable, Check::Nothing, Check::Nothing),
            (SslMode::Allow, Check::Nothing, Check::Nothing),
            (SslMode::Prefer, Check::Nothing, Check::Nothing),
            (SslMode::Require, Check::Nothing, Check::Chain),
            (SslMode::VerifyCa, Check::Chain, Check::Chain),
            (SslMode::VerifyFull, Check::ChainAndName, Check::ChainAndName),
        ] {
            assert_eq!(check(mode, false), without, "{mode:?} without a root");
            assert_eq!(check(mode, true), with, "{mode:?} with a root");
        }
    }

    #[test]
    fn system_roots_are_refused_where_the_name_is_not_checked() {
        let system = Some(Path::new("system"));
        assert_eq!(roots(Check::ChainAndName, system).unwrap(), Roots::System);
        assert!(roots(Check::Chain, system).is_err());
    }
}
