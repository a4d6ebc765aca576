//! Certificates for a test: an authority, and what it signs.
//!
//! Made by the `openssl` program, so that the tests need no library of their own for it. The keys
//! live as long as the test and protect nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process;
use crate::tempdir::TempDir;

/// A certificate authority in a directory of its own.
#[derive(Debug)]
pub struct Authority {
    dir: TempDir,
}

/// A server's certificate and key, signed by an [`Authority`] for `localhost` and 127.0.0.1.
#[derive(Clone, Debug)]
pub struct Certificate {
    certificate: PathBuf,
    key: PathBuf,
}

impl Authority {
    /// A new authority; two of them do not trust each other's certificates.
    #[must_use]
    pub fn new(label: &str) -> Self {
        let dir = TempDir::new(label);
        write(dir.path().join("ca.cnf"), CA_CONFIG);
        write(dir.path().join("server.ext"), SERVER_EXTENSIONS);
        openssl(
            dir.path(),
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 \
             -config ca.cnf -keyout ca.key -out ca.crt",
        );
        Self { dir }
    }

    /// The file a client names in `sslrootcert`; readable for the servers, which are each other's
    /// clients.
    #[must_use]
    pub fn root_certificate(&self) -> PathBuf {
        self.dir.path().join("ca.crt")
    }

    /// A certificate for a server on this machine.
    #[must_use]
    pub fn sign_server(&self) -> Certificate {
        let dir = self.dir.path();
        openssl(
            dir,
            "req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -config ca.cnf \
             -subj /CN=localhost -keyout server.key -out server.csr",
        );
        openssl(
            dir,
            "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 \
             -extfile server.ext -out server.crt",
        );
        Certificate { certificate: dir.join("server.crt"), key: dir.join("server.key") }
    }
}

impl Certificate {
    /// Copies both files into a server's directory, with the permissions it insists on.
    pub(crate) fn install(&self, into: &Path) -> (PathBuf, PathBuf) {
        let place = |from: &Path, name: &str| {
            let to = into.join(name);
            fs::copy(from, &to).unwrap_or_else(|e| panic!("cannot copy {}: {e}", from.display()));
            fs::set_permissions(&to, fs::Permissions::from_mode(0o600))
                .unwrap_or_else(|e| panic!("cannot close {}: {e}", to.display()));
            process::give_to_server_user(&to);
            to
        };
        (place(&self.certificate, "server.crt"), place(&self.key, "server.key"))
    }
}

/// A configuration of our own, because the machine's may add extensions, and twice is an error.
const CA_CONFIG: &str = "\
[req]
distinguished_name = name
x509_extensions = ca
prompt = no
[name]
CN = pgferry test authority
[ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
";

const SERVER_EXTENSIONS: &str = "\
subjectAltName = DNS:localhost, IP:127.0.0.1
basicConstraints = CA:FALSE
extendedKeyUsage = serverAuth
";

fn openssl(dir: &Path, arguments: &str) {
    let mut command = Command::new("openssl");
    command.current_dir(dir).args(arguments.split_whitespace());
    process::run(command);
}

fn write(path: PathBuf, text: &str) {
    fs::write(&path, text).unwrap_or_else(|e| panic!("cannot write {}: {e}", path.display()));
}
