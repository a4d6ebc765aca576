//! One database session for a test that is not asynchronous.
//!
//! Everything goes through the simple query protocol, so that values come back as the text a
//! person would see and any statement, several at once too, can be run.

use std::sync::LazyLock;

use tokio::runtime::{Builder, Runtime};
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

/// A row as text; `None` is NULL.
pub type Row = Vec<Option<String>>;

/// An open connection, used from blocking code.
#[derive(Debug)]
pub struct Session {
    client: Client,
}

/// The runtime that drives every session and every ledger client of this process.
pub(crate) fn runtime() -> &'static Runtime {
    static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
        Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap_or_else(|e| panic!("cannot start the runtime: {e}"))
    });
    &RUNTIME
}

impl Session {
    /// Connects, and says why not.
    pub fn connect(config: &Config) -> Result<Self, tokio_postgres::Error> {
        runtime().block_on(async {
            let (client, connection) = config.connect(NoTls).await?;
            // Ends with the client; its error is the one the client's next statement reports.
            tokio::spawn(connection);
            Ok(Self { client })
        })
    }

    /// Runs one or more statements and returns the rows of all of them, or the server's refusal.
    pub fn try_rows(&self, sql: &str) -> Result<Vec<Row>, tokio_postgres::Error> {
        let messages = runtime().block_on(self.client.simple_query(sql))?;
        Ok(messages
            .into_iter()
            .filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => {
                    Some((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect())
                }
                // The enum is marked non_exhaustive upstream; only rows carry values.
                _ => None,
            })
            .collect())
    }

    /// Runs one or more statements and returns the rows; panics with the server's words.
    #[must_use]
    pub fn rows(&self, sql: &str) -> Vec<Row> {
        self.try_rows(sql).unwrap_or_else(|e| panic!("{sql}\n{}", words_of(&e)))
    }

    /// Runs one or more statements for their effect.
    pub fn run(&self, sql: &str) {
        let _ = self.rows(sql);
    }

    /// The first column of the first row, as text.
    #[must_use]
    pub fn value(&self, sql: &str) -> Option<String> {
        self.rows(sql).into_iter().next().and_then(|row| row.into_iter().next()).flatten()
    }

    /// The first column of the first row as a number; panics when it is none.
    #[must_use]
    pub fn number(&self, sql: &str) -> i64 {
        let text = self.value(sql);
        text.as_deref()
            .and_then(|t| t.parse().ok())
            .unwrap_or_else(|| panic!("{sql}\nanswered {text:?}, not a number"))
    }

    /// The first column of every row.
    #[must_use]
    pub fn column(&self, sql: &str) -> Vec<String> {
        self.rows(sql).into_iter().filter_map(|row| row.into_iter().next().flatten()).collect()
    }
}

/// The server's message with its SQLSTATE; the library's own text hides both.
#[must_use]
pub fn words_of(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => format!("{} ({})", db.message(), db.code().code()),
        None => error.to_string(),
    }
}
