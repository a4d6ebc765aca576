//! The application's login roles: who may write, and who can be fenced.
//!
//! The fence is a setting, and settings follow the login role, so only roles that may log in
//! appear here. Superusers and pgferry's own roles never do: neither is ever fenced.

use serde::{Deserialize, Serialize};

use crate::name::RoleName;

/// One login role of one side, neither superuser nor pgferry's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApplicationRole {
    /// `pg_roles.rolname`
    pub name: RoleName,
    /// Whether it may connect to this database.
    pub may_connect: bool,
    /// Every way by which it could change rows in this database; none when it could not.
    pub writes: Vec<WriteAccess>,
    /// Its own value of `default_transaction_read_only` in this database, when it has one.
    pub read_only_here: Option<String>,
    /// Its own value of `default_transaction_read_only` in every database, when it has one.
    pub read_only_everywhere: Option<String>,
    /// Whether pgferry's role may change this role's settings.
    pub alterable: bool,
    /// Its client sessions in this database at the moment of the look.
    pub sessions: u32,
    /// Whether pgferry's role may take its LOGIN away, and give it back.
    pub login_alterable: bool,
    /// Other databases of the server that use it: its sessions at the moment of the look, what it
    /// owns or is granted there, its settings for them.
    pub other_databases: Vec<String>,
}

impl ApplicationRole {
    /// Whether a session of this role could change rows in this database.
    #[must_use]
    pub fn may_write(&self) -> bool {
        self.may_connect && !self.writes.is_empty()
    }
}

/// A way by which a role can change rows: its own, by membership, or through PUBLIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WriteAccess {
    /// INSERT, UPDATE, DELETE or TRUNCATE on a table, a view or a column.
    Grant,
    /// Ownership of a table or view.
    Ownership,
    /// Membership of `pg_write_all_data`.
    WriteAllData,
    /// EXECUTE on a SECURITY DEFINER function whose owner may write.
    SecurityDefiner,
    /// CREATE on a schema or on the database: it could write a table that does not exist yet.
    Create,
}

impl WriteAccess {
    /// The word used in SQL, HTTP and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            WriteAccess::Grant => "grant",
            WriteAccess::Ownership => "ownership",
            WriteAccess::WriteAllData => "write_all_data",
            WriteAccess::SecurityDefiner => "security_definer",
            WriteAccess::Create => "create",
        }
    }

    /// The access that [`WriteAccess::as_str`] names.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [
            WriteAccess::Grant,
            WriteAccess::Ownership,
            WriteAccess::WriteAllData,
            WriteAccess::SecurityDefiner,
            WriteAccess::Create,
        ]
        .into_iter()
        .find(|access| access.as_str() == word)
    }
}
