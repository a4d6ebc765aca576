//! The configuration before anyone knows what it means: a tree of keys.
//!
//! Knows TOML and nothing of pgferry's keys. Of a text that is not TOML it reports places and
//! reasons, never the text: the line at fault may hold a password.

use std::collections::BTreeMap;
use std::fmt;

use crate::Problem;

/// A node of the tree.
#[derive(Debug)]
pub(super) enum Raw {
    /// A section.
    Table(BTreeMap<String, Raw>),
    /// A value of the file.
    File(toml::Value),
    /// A value of the environment: text until its key's type is known.
    Environment { variable: String, text: String },
}

/// The way to a key: `migrations.orders.source.dsn`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct KeyPath(Vec<String>);

impl KeyPath {
    pub(super) fn root() -> Self {
        Self(Vec::new())
    }

    pub(super) fn key(&self, key: &str) -> Self {
        let mut keys = self.0.clone();
        keys.push(key.to_owned());
        Self(keys)
    }

    pub(super) fn keys(&self) -> &[String] {
        &self.0
    }

    pub(super) fn last(&self) -> &str {
        self.0.last().map_or("", String::as_str)
    }

    pub(super) fn parent(&self) -> Self {
        Self(self.0.split_last().map_or_else(Vec::new, |(_, before)| before.to_vec()))
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, key) in self.0.iter().enumerate() {
            let dot = if index == 0 { "" } else { "." };
            let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
            if !key.is_empty() && key.chars().all(bare) {
                write!(f, "{dot}{key}")?;
            } else {
                write!(f, "{dot}{key:?}")?;
            }
        }
        Ok(())
    }
}

/// The tree of a text; every place where it is not TOML otherwise.
pub(super) fn tree(text: &str) -> Result<Raw, Vec<Problem>> {
    let (_, errors) = toml::de::DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        return Err(errors.iter().map(|error| not_toml(text, error)).collect());
    }
    let table: toml::Table = toml::from_str(text).map_err(|error| vec![not_toml(text, &error)])?;
    Ok(node(toml::Value::Table(table)))
}

fn node(value: toml::Value) -> Raw {
    match value {
        toml::Value::Table(table) => {
            Raw::Table(table.into_iter().map(|(key, value)| (key, node(value))).collect())
        }
        // Tables in a list are sections under their numbers.
        toml::Value::Array(list) if !list.is_empty() && list.iter().all(toml::Value::is_table) => {
            let numbered = list.into_iter().enumerate();
            Raw::Table(numbered.map(|(index, raw)| (index.to_string(), node(raw))).collect())
        }
        value @ (toml::Value::String(_)
        | toml::Value::Integer(_)
        | toml::Value::Float(_)
        | toml::Value::Boolean(_)
        | toml::Value::Datetime(_)
        | toml::Value::Array(_)) => Raw::File(value),
    }
}

fn not_toml(text: &str, error: &toml::de::Error) -> Problem {
    let place = error.span().and_then(|span| text.get(..span.start)).map_or_else(
        || "the file".to_owned(),
        |before| {
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
            format!("line {line}, column {column}")
        },
    );
    Problem::new(place, format!("this is not TOML: {}", error.message()), "")
}
