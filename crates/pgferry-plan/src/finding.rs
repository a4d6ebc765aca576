//! What a look found in the way: findings of preflight, blockers of a step or a switchover.

use serde::{Deserialize, Serialize};

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The migration cannot start, or go on, while it stands.
    Block,
    /// It can, at the cost that the finding names.
    Warn,
}

/// One thing that preflight found: what, about which object, and the exact remedy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Whether it stands in the way.
    pub severity: Severity,
    /// A stable word for programs, `snake_case`.
    pub code: String,
    /// The object it is about: a side, a table, a role, a setting.
    pub subject: String,
    /// One sentence for people.
    pub message: String,
    /// The remedy: a statement, a setting or a configuration key.
    pub hint: String,
}

impl Finding {
    /// A finding that stands in the way.
    pub fn block(
        code: &str,
        subject: impl Into<String>,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self::new(Severity::Block, code, subject, message, hint)
    }

    /// A finding that has a cost, and does not stand in the way.
    pub fn warn(
        code: &str,
        subject: impl Into<String>,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self::new(Severity::Warn, code, subject, message, hint)
    }

    fn new(
        severity: Severity,
        code: &str,
        subject: impl Into<String>,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self {
            severity,
            code: code.to_owned(),
            subject: subject.into(),
            message: message.into(),
            hint: hint.into(),
        }
    }
}

/// Why something does not go on: code for programs, message and hint for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocker {
    /// A stable word for programs, `snake_case`.
    pub code: String,
    /// One sentence for people.
    pub message: String,
    /// What to do about it.
    pub hint: String,
}

impl Blocker {
    /// A blocker from its three parts.
    pub fn new(code: &str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into(), hint: hint.into() }
    }
}

impl From<&Finding> for Blocker {
    fn from(finding: &Finding) -> Self {
        Self {
            code: finding.code.clone(),
            message: finding.message.clone(),
            hint: finding.hint.clone(),
        }
    }
}
