//! A session with what speaks PostgreSQL's protocol and is no database: PgBouncer's admin console.
//!
//! The simple query protocol only, because a console knows no other, and none of the settings that
//! every session with a server has. What is said, and what it means, is for whoever asks.

use std::collections::BTreeMap;

use tokio_postgres::{Client, SimpleQueryMessage};

use crate::connect::{ConnectError, Connector};
use crate::node::describe;

/// A row by the names of its columns, as text; `None` is NULL.
pub type ConsoleRow = BTreeMap<String, Option<String>>;

/// An open session. Whoever drops a statement in the middle must not use it again.
#[derive(Debug)]
pub struct Console(Client);

impl Console {
    /// Opens a session over a connector made by [`Connector::to_console`].
    ///
    /// # Errors
    /// When nobody answers, or the login is refused.
    pub async fn open(connector: &Connector, application_name: &str) -> Result<Self, ConnectError> {
        connector.connect(application_name).await.map(Self)
    }

    /// Whether the session has ended.
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    /// Says something, and returns the rows of the answer.
    ///
    /// # Errors
    /// The console's words, without a secret.
    pub async fn rows(&self, said: &str) -> Result<Vec<ConsoleRow>, String> {
        let messages = self.0.simple_query(said).await.map_err(|error| describe(&error))?;
        let row = |message: SimpleQueryMessage| match message {
            SimpleQueryMessage::Row(row) => {
                let columns = row.columns().iter().enumerate();
                let values = columns
                    .map(|(at, column)| (column.name().to_owned(), row.get(at).map(str::to_owned)));
                Some(values.collect())
            }
            // Not our enum, and marked to grow; only rows carry values.
            _ => None,
        };
        Ok(messages.into_iter().filter_map(row).collect())
    }
}
