//! A configuration file for a pair of servers, which a test may bend.

use std::path::{Path, PathBuf};

use pgferry_plan::Side;
use toml::{Table, Value};

use crate::install;
use crate::pair::{MIGRATION, Pair};

/// The variable that holds the password of pgferry's role in every test.
pub const PASSWORD_VARIABLE: &str = "PGFERRY_TEST_PASSWORD";

/// A configuration as a tree of keys.
#[derive(Clone, Debug)]
pub struct ConfigFile {
    root: Table,
}

impl ConfigFile {
    /// The smallest configuration that moves the pair's database.
    #[must_use]
    pub fn for_pair(pair: &Pair) -> Self {
        let mut config = Self::for_dsns(&pair.dsn(Side::Source), &pair.dsn(Side::Destination));
        if install::chosen() {
            // The dump must not be older than the server it reads.
            let newer = [&pair.source, &pair.destination]
                .into_iter()
                .max_by_key(|cluster| install::major_version(cluster.bin()))
                .map(|cluster| cluster.bin().to_string_lossy().into_owned());
            if let Some(bin) = newer {
                config.set(&migration("schema.pg_bindir"), bin);
            }
        }
        config
    }

    /// The same for any two addresses.
    #[must_use]
    pub fn for_dsns(source: &str, destination: &str) -> Self {
        let mut config = Self { root: Table::new() };
        for (side, dsn) in [("source", source), ("destination", destination)] {
            config.set(&migration(&format!("{side}.dsn")), dsn);
            config.set(&migration(&format!("{side}.password_env")), PASSWORD_VARIABLE);
        }
        config
    }

    /// Names the tables without a key of which inserts alone are replicated.
    #[must_use]
    pub fn insert_only(mut self, tables: &[&str]) -> Self {
        let tables: Vec<Value> = tables.iter().map(|t| Value::from(*t)).collect();
        self.set(&migration("scope.insert_only"), tables);
        self
    }

    /// Sets a key, given by its dotted path, and returns the whole for chaining.
    #[must_use]
    pub fn with(mut self, path: &str, value: impl Into<Value>) -> Self {
        self.set(path, value);
        self
    }

    /// Sets a key, given by its dotted path.
    pub fn set(&mut self, path: &str, value: impl Into<Value>) {
        let (tables, key) = match path.rsplit_once('.') {
            Some((tables, key)) => (tables.split('.').collect(), key),
            None => (Vec::new(), path),
        };
        let mut at = &mut self.root;
        for name in tables {
            let next = at.entry(name).or_insert_with(|| Value::Table(Table::new()));
            let Value::Table(table) = next else { panic!("{path}: {name} is not a table") };
            at = table;
        }
        at.insert(key.to_owned(), value.into());
    }

    /// The file's text.
    #[must_use]
    pub fn text(&self) -> String {
        self.root.to_string()
    }

    /// Writes it as `pgferry.toml` into a directory.
    #[must_use]
    pub fn write(&self, dir: &Path) -> PathBuf {
        let path = dir.join("pgferry.toml");
        std::fs::write(&path, self.text())
            .unwrap_or_else(|e| panic!("cannot write {}: {e}", path.display()));
        path
    }
}

/// The path of a key of the test migration.
#[must_use]
pub fn migration(key: &str) -> String {
    format!("migrations.{MIGRATION}.{key}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dotted_path_makes_the_tables_on_its_way() {
        let config = ConfigFile::for_dsns("host=a", "host=b")
            .insert_only(&["public.events"])
            .with("server.listen", "127.0.0.1:1");
        let again: Table = config.text().parse().unwrap();
        assert_eq!(again["migrations"]["shop"]["source"]["dsn"].as_str(), Some("host=a"));
        assert_eq!(again["server"]["listen"].as_str(), Some("127.0.0.1:1"));
    }
}
