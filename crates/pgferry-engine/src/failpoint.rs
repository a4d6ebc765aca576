//! Places where a test lets the process die: between every journal write and its effect.
//!
//! Compiled to nothing without the feature `failpoints`. Thirty lines of our own, because the
//! only action needed is a sudden death and the place is always the same one in the tick; the
//! `fail` crate brings a registry, a language and an old `rand` for that.

/// The environment variable: `before_effect:STEP` or `after_effect:STEP`.
pub const VARIABLE: &str = "PGFERRY_FAILPOINT";

/// Dies like `kill -9` would when the variable names this place.
#[cfg(feature = "failpoints")]
pub fn reach(place: &str, step: Option<pgferry_plan::Step>) {
    let Some(step) = step else { return };
    if std::env::var(VARIABLE).is_ok_and(|wanted| wanted == format!("{place}:{step}")) {
        tracing::error!(place, %step, "failpoint reached");
        std::process::abort();
    }
}

/// Dies like `kill -9` would when the variable names this place.
#[cfg(not(feature = "failpoints"))]
pub fn reach(_place: &str, _step: Option<pgferry_plan::Step>) {}
