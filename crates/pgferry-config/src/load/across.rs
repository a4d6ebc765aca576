//! What only shows when several sections are held side by side: one database named twice.
//!
//! By what is written, never by what it resolves to: that two names lead to one server is found by the
//! node record when they are connected to.

use pgferry_plan::Side;

use super::raw::KeyPath;
use super::reader::Reader;
use crate::Dsn;

/// One side of one migration.
pub(super) struct Endpoint {
    /// The section of the migration.
    pub(super) migration: KeyPath,
    pub(super) side: Side,
    pub(super) dsn: Dsn,
}

impl Endpoint {
    fn key(&self) -> KeyPath {
        self.migration.key(self.side.as_str()).key("dsn")
    }

    fn database(&self) -> (String, u16, &str) {
        let host = self.dsn.get("hostaddr").unwrap_or(self.dsn.host());
        let host = if host.starts_with('/') {
            host.trim_end_matches('/').to_owned()
        } else {
            host.trim_end_matches('.').to_ascii_lowercase()
        };
        (host, self.dsn.port(), self.dsn.dbname())
    }
}

/// Each database belongs to one side of one migration: pglogical has one node per database.
pub(super) fn check(reader: &mut Reader, endpoints: &[Endpoint]) {
    for (index, endpoint) in endpoints.iter().enumerate() {
        let same = |other: &&Endpoint| other.database() == endpoint.database();
        let Some(first) = endpoints[..index].iter().find(same) else { continue };
        if first.migration == endpoint.migration {
            reader.refuse(
                &endpoint.key(),
                "source and destination are the same database",
                "name two databases: host, port or dbname must differ",
            );
        } else {
            reader.refuse(
                &endpoint.key(),
                format!("{} names the same database", first.key()),
                "a database takes part in one migration: remove one of the two",
            );
        }
    }
}
