//! `[server]` and `[journal]`.
//!
//! Binds nothing and creates nothing. What is not built yet is refused here by name, so that nobody
//! believes to have a protection that is not there.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use super::node;
use super::raw::KeyPath;
use super::reader::Reader;
use crate::{JournalConfig, Lookup, ServerConfig};

const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8432);

pub(super) fn server(reader: &mut Reader, at: &KeyPath) -> ServerConfig {
    reader.section(at);
    let listen = reader.address(&at.key("listen"), DEFAULT_LISTEN);
    if !listen.ip().is_loopback() {
        reader.refuse(
            &at.key("listen"),
            "only a loopback address is taken, because tokens are not built yet",
            format!("use \"{DEFAULT_LISTEN}\""),
        );
    }
    for key in ["tokens", "tls"] {
        if reader.given(&at.key(key)) {
            reader.refuse(
                &at.key(key),
                "not built yet",
                "remove it, and keep the listener on a loopback address",
            );
        }
    }
    if reader.boolean(&at.key("insecure"), false) {
        reader.refuse(
            &at.key("insecure"),
            "not built yet",
            "remove it, and keep the listener on a loopback address",
        );
    }
    ServerConfig { listen }
}

pub(super) fn journal(reader: &mut Reader, at: &KeyPath, env: &dyn Lookup) -> JournalConfig {
    reader.section(at);
    let dsn = at.key("dsn");
    let place = if reader.given(&dsn) {
        node::login(reader, at, env)
    } else {
        // Read all the same: its keys are known ones, and their mistakes are worth showing.
        if node::password(reader, at, "password", env).is_some() {
            reader.refuse(
                &dsn,
                "missing, although a password is given",
                "add it, or remove the password",
            );
        }
        None
    };
    let archive = at.key("archive_dir");
    let archive_dir = PathBuf::from(reader.text(&archive).unwrap_or_else(|| ".".to_owned()));
    // A directory that is not there yet can still be made at the end; a file in its place cannot.
    if archive_dir.exists() && !archive_dir.is_dir() {
        reader.refuse(&archive, "this is a file and not a directory", "name a directory");
    }
    JournalConfig { place, archive_dir }
}
