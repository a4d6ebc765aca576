//! What a migration carries, and whether both sides still agree on it.
//!
//! A table that is created after the replication sets is in none of them, and its rows would stay
//! behind without a word. So the two sides are compared as they are seen, never as they were when
//! the sets were made. Nothing here looks by itself.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::name::{MigrationName, RoleName, TableName};

mod drift;

pub use drift::{drift, table_differences};

/// Which tables a migration carries: every ordinary table of every schema that neither the system
/// nor an extension owns, less what these rules take out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScopeRules {
    /// Only these schemas; `None` for all.
    pub schemas: Option<Vec<String>>,
    /// Not these tables; a partitioned table stands for its partitions.
    pub exclude_tables: Vec<TableName>,
    /// Tables without a key whose rows are only ever added; a partitioned table stands for its
    /// partitions. A set, because every table is looked for in it.
    pub insert_only: BTreeSet<TableName>,
}

impl ScopeRules {
    /// Whether the rules name this table, or a partitioned table above it, as insert-only.
    #[must_use]
    pub fn is_insert_only(&self, table: &TableView) -> bool {
        let named = |name| self.insert_only.contains(name);
        named(&table.name) || table.ancestors.iter().any(named)
    }
}

/// The names of a migration's two replication sets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetNames {
    /// The set of the tables that have a key.
    pub keyed: String,
    /// The set that replicates INSERT and TRUNCATE only.
    pub insert_only: String,
}

impl SetNames {
    /// The names that this migration gives its sets.
    #[must_use]
    pub fn of(migration: &MigrationName) -> Self {
        Self {
            keyed: format!("pgferry_{migration}"),
            insert_only: format!("pgferry_{migration}_io"),
        }
    }

    /// The set that a table belongs in.
    #[must_use]
    pub fn for_table(&self, table: &TableView, rules: &ScopeRules) -> &str {
        if rules.is_insert_only(table) { &self.insert_only } else { &self.keyed }
    }
}

/// The replication sets that each table is in, on one side.
pub type SetMembership = BTreeMap<TableName, BTreeSet<String>>;

/// One table as one side's catalog has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableView {
    /// `pg_class.oid`, of this side only.
    pub oid: u32,
    /// Schema and name.
    pub name: TableName,
    /// The role that owns it.
    pub owner: RoleName,
    /// Its columns in their order, dropped ones left out.
    pub columns: Vec<ColumnView>,
    /// What rows can be found by.
    pub key: Key,
    /// The file that holds it; another number later means that it was rewritten or truncated.
    pub relfilenode: u32,
    /// Its size in bytes, without indexes: measured or estimated, as the look was asked to.
    pub bytes: u64,
    /// The planner's estimate; `None` when it was never analyzed.
    pub rows: Option<u64>,
    /// Row security as it is declared.
    pub row_security: RowSecurity,
    /// Whether row security filters what the looking role sees.
    pub row_security_active: bool,
    /// For a partition, the tables above it, nearest first.
    pub ancestors: Vec<TableName>,
    /// Whether it is unlogged: no replication set takes it, so it is copied and not streamed.
    pub unlogged: bool,
}

impl TableView {
    /// Whether pglogical can find a row of this table on the other side.
    #[must_use]
    pub fn has_key(&self) -> bool {
        matches!(self.key, Key::Usable { .. })
    }

    /// The partitioned table at the top, when this is a partition.
    #[must_use]
    pub fn root(&self) -> Option<&TableName> {
        self.ancestors.last()
    }
}

/// One column as one side's catalog has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnView {
    /// Its name.
    pub name: String,
    /// Its type with modifiers, independent of `search_path`.
    #[serde(rename = "type")]
    pub type_name: String,
    /// Its collation, when it is not the one of the type.
    pub collation: Option<String>,
    /// Whether it refuses NULL.
    pub not_null: bool,
    /// Whether it is computed, and how.
    pub generated: Option<Generated>,
    /// Whether it is an identity column, and of which kind.
    pub identity: Option<Identity>,
    /// `pg_attribute.attnum`; pglogical and COPY go by name, so the sides may differ in it.
    pub position: i16,
}

/// How a generated column gets its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Generated {
    /// Computed when a row is written.
    Stored,
    /// Computed when a row is read (PostgreSQL 18).
    Virtual,
}

/// How an identity column treats a value that is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Identity {
    /// `GENERATED ALWAYS`
    Always,
    /// `GENERATED BY DEFAULT`
    ByDefault,
}

/// What pglogical can find rows of a table by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Key {
    /// The primary key, or the index of `REPLICA IDENTITY USING INDEX`.
    Usable {
        /// The index.
        index: String,
        /// Its columns in their order.
        columns: Vec<String>,
    },
    /// There is one, and pglogical refuses it because it is deferrable.
    Deferrable {
        /// The index, and the constraint of the same name.
        index: String,
        /// Its columns in their order.
        columns: Vec<String>,
    },
    /// There is one, and its index is not valid.
    Invalid {
        /// The index.
        index: String,
    },
    /// There is one, and `REPLICA IDENTITY FULL` or `NOTHING` tells PostgreSQL not to use it.
    Ignored {
        /// The index.
        index: String,
    },
    /// There is none.
    Missing {
        /// A unique index that `REPLICA IDENTITY USING INDEX` would accept.
        candidate: Option<String>,
    },
}

/// Row security as a table declares it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RowSecurity {
    /// Not enabled.
    Off,
    /// Enabled: the owner and its members are exempt.
    Enabled,
    /// Forced: only roles with BYPASSRLS are exempt.
    Forced,
}
