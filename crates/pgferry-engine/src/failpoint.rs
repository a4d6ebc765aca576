//! Places where a test lets the process die or hold: around every journal write and every effect.
//!
//! Compiled to nothing without the feature `failpoints`. Few lines of our own, because death and
//! holding are all that is needed and the places are always the same ones in the tick; the `fail`
//! crate brings a registry, a language and an old `rand` for that.

use pgferry_plan::Step;

/// The environment variable: the path of a file that says where and how, such as
/// `before_effect:yield die` or `after_effect:drain hold`; without a step `before_repair die`.
///
/// A file and no value, so that a running process can be told. Whoever gets to the place renames
/// the file to `….reached`, and so does it once. To hold is to wait until that file is gone; the
/// other tasks of the process go on meanwhile.
pub const VARIABLE: &str = "PGFERRY_FAILPOINT_FILE";

/// Dies like `kill -9` would, or holds, when the file names this place.
#[cfg(feature = "failpoints")]
pub async fn reach(place: &str, step: Option<Step>) {
    let Some(file) = std::env::var_os(VARIABLE) else { return };
    // Beside a migration at rest there is no step.
    let here = step.map_or(place.to_owned(), |step| format!("{place}:{step}"));
    let Ok(wanted) = std::fs::read_to_string(&file) else { return };
    let Some((wanted, what)) = wanted.trim().split_once(' ') else { return };
    let mut reached = file.clone();
    reached.push(".reached");
    // Of two daemons at the same place one gets the file.
    if wanted != here || std::fs::rename(&file, &reached).is_err() {
        return;
    }
    tracing::error!(here, what, "failpoint reached");
    if what == "die" {
        std::process::abort();
    }
    while std::fs::exists(&reached).unwrap_or(false) {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}

/// Does nothing: this build has no failpoints.
#[cfg(not(feature = "failpoints"))]
pub fn reach(_place: &str, _step: Option<Step>) -> std::future::Ready<()> {
    std::future::ready(())
}
