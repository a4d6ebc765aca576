//! A value that prints nowhere.
//!
//! One type for every password, token and connection string that holds one. It must never gain
//! `Display`, `Serialize` or `PartialEq`: each would be a way for the value to leave by accident.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};

/// A password, or a text that contains one. Wiped from memory when dropped.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Wraps a value; from here on it is only seen through [`Secret::expose`].
    #[must_use]
    pub fn new(value: String) -> Self {
        Self(value.into())
    }

    /// The value, for the one call that needs it. Never for a message.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_that_there_is_a_secret_and_nothing_of_it() {
        assert_eq!(format!("{:?}", Some(Secret::new("hunter2".into()))), "Some([redacted])");
        assert_eq!(Secret::new("hunter2".into()).expose(), "hunter2");
    }
}
