//! The one shape of every error (RFC 9457), with pgferry's own three members.

use pgferry_plan::Blocker;
use serde::{Deserialize, Serialize};

/// The content type of every error.
pub const PROBLEM_CONTENT_TYPE: &str = "application/problem+json";

/// Why a request was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Always `about:blank`: the code below is what distinguishes problems.
    #[serde(rename = "type", default = "about_blank")]
    pub type_uri: String,
    /// The status in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// A stable word for programs, `snake_case`.
    #[serde(default)]
    pub code: String,
    /// One sentence for people.
    #[serde(default)]
    pub detail: String,
    /// What to do about it; empty when there is nothing to do.
    #[serde(default)]
    pub hint: String,
    /// Everything that stands in the way, at once.
    #[serde(default)]
    pub blockers: Vec<Blocker>,
}

fn about_blank() -> String {
    "about:blank".to_owned()
}

impl Problem {
    /// A problem without blockers, titled after its status.
    pub fn new(
        status: u16,
        code: impl Into<String>,
        detail: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self {
            type_uri: about_blank(),
            title: title(status).to_owned(),
            status,
            code: code.into(),
            detail: detail.into(),
            hint: hint.into(),
            blockers: Vec::new(),
        }
    }

    /// The same problem with everything that stands in the way.
    #[must_use]
    pub fn with_blockers(mut self, blockers: Vec<Blocker>) -> Self {
        self.blockers = blockers;
        self
    }
}

/// The reason phrases of the statuses that pgferry answers with; a number is not a closed set, so
/// any other one gets a neutral title.
fn title(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        413 => "Content Too Large",
        422 => "Unprocessable Content",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        _ => "Error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_exactly_the_members_of_the_contract() {
        let problem = Problem::new(409, "not_ready", "d", "h");
        let expected = serde_json::json!({"type": "about:blank", "title": "Conflict", "status": 409,
            "code": "not_ready", "detail": "d", "hint": "h", "blockers": []});
        assert_eq!(serde_json::to_value(&problem).unwrap(), expected);
        assert_eq!(serde_json::from_value::<Problem>(expected).unwrap(), problem);
    }

    #[test]
    fn a_stranger_s_problem_without_our_members_is_read_too() {
        let problem: Problem =
            serde_json::from_str(r#"{"title": "Bad Gateway", "status": 502}"#).unwrap();
        assert_eq!((problem.code.as_str(), problem.blockers.len()), ("", 0));
    }
}
