//! PgBouncer's admin console: what it says of an entry, read by the names of its columns, because
//! their order and number differ from version to version.

use pgferry_postgres::connect::{ConnectError, Connector};
use pgferry_postgres::console::{Console, ConsoleRow};

/// An open console, and whether it takes commands.
#[derive(Debug)]
pub(super) struct AdminConsole {
    console: Console,
    is_admin: bool,
}

/// A row of SHOW DATABASES.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) host: String,
    pub(super) port: u16,
    /// The database on the server.
    pub(super) dbname: String,
    pub(super) paused: bool,
    /// To the server.
    pub(super) connections: u64,
}

impl AdminConsole {
    pub(super) async fn open(connector: &Connector, name: &str) -> Result<Self, ConnectError> {
        let console = Console::open(connector, name).await?;
        // A setting that there is not: an admin is told so, and whoever may only look, that it may
        // not. Nothing is changed, and every command that is one would be.
        let probe = console.rows("SET pgferry_probe = '1'").await;
        let is_admin = !matches!(probe, Err(said) if said.contains("admin access"));
        Ok(Self { console, is_admin })
    }

    pub(super) fn is_admin(&self) -> bool {
        self.is_admin
    }

    pub(super) fn is_closed(&self) -> bool {
        self.console.is_closed()
    }

    pub(super) async fn say(&self, command: &str) -> Result<(), String> {
        self.console.rows(command).await.map(drop)
    }

    /// How many of its connections to this database's server are still logging in (SHOW POOLS).
    pub(super) async fn logging_in(&self, database: &str) -> Result<u64, String> {
        let rows = self.console.rows("SHOW POOLS").await?;
        let of_database = |row: &&ConsoleRow| {
            row.get("database").is_some_and(|name| name.as_deref() == Some(database))
        };
        let logging_in = |row: &ConsoleRow| row.get("sv_login")?.as_deref()?.parse::<u64>().ok();
        Ok(rows.iter().filter(of_database).filter_map(logging_in).sum())
    }

    /// The entry of this name; None when there is none.
    pub(super) async fn entry(&self, database: &str) -> Result<Option<Entry>, String> {
        let rows = self.console.rows("SHOW DATABASES").await?;
        let named =
            |row: &&ConsoleRow| row.get("name").is_some_and(|n| n.as_deref() == Some(database));
        rows.iter().find(named).map(entry).transpose()
    }
}

fn entry(row: &ConsoleRow) -> Result<Entry, String> {
    let text = |column: &str| match row.get(column) {
        Some(value) => Ok(value.clone().unwrap_or_default()),
        None => {
            Err(format!("SHOW DATABASES has no column {column}: PgBouncer 1.8 or later is needed"))
        }
    };
    let number = |column: &str| {
        let text = text(column)?;
        text.parse().map_err(|_| format!("SHOW DATABASES says {text:?} for {column}"))
    };
    Ok(Entry {
        host: text("host")?,
        port: text("port")?.parse().unwrap_or_default(),
        dbname: text("database")?,
        paused: text("paused")? == "1",
        connections: number("current_connections")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(pairs: &[(&str, Option<&str>)]) -> ConsoleRow {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), value.map(str::to_owned))).collect()
    }

    #[test]
    fn columns_are_read_by_name_and_missing_ones_named() {
        let mut seen = row(&[
            ("name", Some("orders")),
            ("host", None),
            ("port", Some("6000")),
            ("database", Some("shop")),
            ("paused", Some("1")),
            ("current_connections", Some("3")),
            ("new_in_some_version", Some("x")),
        ]);
        let expected = Entry {
            host: String::new(),
            port: 6000,
            dbname: "shop".to_owned(),
            paused: true,
            connections: 3,
        };
        assert_eq!(entry(&seen), Ok(expected));
        seen.remove("paused");
        assert!(entry(&seen).unwrap_err().contains("no column paused"));
    }
}
