//! What is wrong with a configuration: one problem, and all of them with their file.
//!
//! A problem never holds the value of a key that may be a secret (`dsn`, `password_*`): it names
//! the key, and whoever wrote the file can look.

use std::fmt;
use std::path::PathBuf;

/// One thing that has to be changed in the configuration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where: `migrations.orders.source.dsn`; a place in the text when it is not TOML; empty for the file.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub hint: String,
}

impl Problem {
    pub(crate) fn new(
        path: impl fmt::Display,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self { path: path.to_string(), message: message.into(), hint: hint.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        if !self.hint.is_empty() {
            write!(f, " ({})", self.hint)?;
        }
        Ok(())
    }
}

/// The file cannot be used, for all of these reasons. Displayed as one line per problem.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct LoadError {
    /// The file, as it was named.
    pub file: PathBuf,
    /// Every problem, at least one.
    pub problems: Vec<Problem>,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.problems.len();
        let noun = if count == 1 { "problem" } else { "problems" };
        write!(f, "{}: {count} {noun}", self.file.display())?;
        self.problems.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_has_its_line() {
        let error = LoadError {
            file: "pgferry.toml".into(),
            problems: vec![
                Problem::new("server.listen", "not an address", "use \"127.0.0.1:8432\""),
                Problem::new("", "cannot be read", ""),
            ],
        };
        assert_eq!(
            error.to_string(),
            "pgferry.toml: 2 problems\n  server.listen: not an address (use \"127.0.0.1:8432\")\n  cannot be read"
        );
    }
}
