//! Three-valued observation: unknown, absent, present.

use serde::{Deserialize, Serialize};

/// What a look said about one thing.
///
/// `Unknown` is not `Absent`: a look that failed, or that was not asked for, proves nothing, and
/// no decision may act or conclude on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seen<T> {
    /// It was not seen, for this reason.
    Unknown(String),
    /// It was looked for, and is not there.
    Absent,
    /// It is there, like this.
    Present(T),
}

impl<T> Seen<T> {
    /// The value when it was seen.
    pub fn present(&self) -> Option<&T> {
        match self {
            Seen::Present(value) => Some(value),
            Seen::Absent | Seen::Unknown(_) => None,
        }
    }

    /// Whether it was looked for and not there.
    pub fn is_absent(&self) -> bool {
        matches!(self, Seen::Absent)
    }

    /// Borrows what was seen.
    pub fn as_ref(&self) -> Seen<&T> {
        match self {
            Seen::Unknown(reason) => Seen::Unknown(reason.clone()),
            Seen::Absent => Seen::Absent,
            Seen::Present(value) => Seen::Present(value),
        }
    }

    /// Converts the value, when it was seen.
    pub fn map<U>(self, convert: impl FnOnce(T) -> U) -> Seen<U> {
        match self {
            Seen::Unknown(reason) => Seen::Unknown(reason),
            Seen::Absent => Seen::Absent,
            Seen::Present(value) => Seen::Present(convert(value)),
        }
    }

    /// A failed look is Unknown with the error's words; a look that found nothing is Absent.
    pub fn from_look<E: std::fmt::Display>(look: Result<Option<T>, E>) -> Self {
        match look {
            Ok(Some(value)) => Seen::Present(value),
            Ok(None) => Seen::Absent,
            Err(error) => Seen::Unknown(error.to_string()),
        }
    }
}

impl<T> Default for Seen<T> {
    fn default() -> Self {
        Seen::Unknown("not looked at".to_owned())
    }
}
