//! Names: parsed once, never quoted here. Quoting belongs to the crate that speaks SQL.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::side::{Direction, Side};

/// The name of a migration: `[a-z][a-z0-9_]{0,15}`.
///
/// Sixteen characters, because pglogical shortens each part of a slot's name to sixteen
/// (pglogical `gen_slot_name`) and two long names could then collide.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MigrationName(String);

/// The text cannot name a migration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" cannot name a migration: use a lower-case letter, then up to 15 lower-case letters, digits or underscores"
)]
pub struct InvalidMigrationName(pub String);

impl MigrationName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// pglogical's node on a side (`pglogical.node.node_name`).
    #[must_use]
    pub fn node(&self, side: Side) -> String {
        format!("pgferry_{self}_{side}")
    }

    /// pglogical's subscription of a direction (`pglogical.subscription.sub_name`).
    #[must_use]
    pub fn subscription(&self, direction: Direction) -> String {
        format!("pgferry_{self}_{direction}")
    }

    /// The replication set of tables with a key; heartbeat and marker are in it too.
    #[must_use]
    pub fn set(&self) -> String {
        format!("pgferry_{self}")
    }

    /// The replication set of tables without a key: only their inserts are replicated.
    #[must_use]
    pub fn insert_only_set(&self) -> String {
        format!("pgferry_{self}_io")
    }

    /// The set without tables on which the forward subscription initialises.
    #[must_use]
    pub fn empty_set(&self) -> String {
        format!("pgferry_{self}_boot")
    }
}

impl FromStr for MigrationName {
    type Err = InvalidMigrationName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = text.bytes();
        let starts = bytes.next().is_some_and(|b| b.is_ascii_lowercase());
        let goes_on = bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if starts && goes_on && text.len() <= 16 {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidMigrationName(text.to_owned()))
        }
    }
}

impl TryFrom<String> for MigrationName {
    type Error = InvalidMigrationName;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<MigrationName> for String {
    fn from(name: MigrationName) -> Self {
        name.0
    }
}

impl fmt::Display for MigrationName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A table's schema and name, exactly as the catalog holds them, unquoted.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TableName {
    /// `pg_namespace.nspname`
    pub schema: String,
    /// `pg_class.relname`
    pub name: String,
}

impl TableName {
    /// A table's name from its two parts.
    pub fn new(schema: impl Into<String>, name: impl Into<String>) -> Self {
        Self { schema: schema.into(), name: name.into() }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

/// A sequence's schema and name; the same shape as a table's, because the catalog's is the same.
pub type SequenceName = TableName;

/// A role's name, `pg_roles.rolname`, unquoted.
pub type RoleName = String;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_the_documented_pattern_and_nothing_else() {
        for good in ["a", "orders", "o2_x", "abcdefghijklmnop"] {
            assert!(good.parse::<MigrationName>().is_ok(), "{good}");
        }
        for bad in ["", "2a", "_a", "Orders", "a-b", "abcdefghijklmnopq", "é"] {
            assert!(bad.parse::<MigrationName>().is_err(), "{bad}");
        }
    }
}
