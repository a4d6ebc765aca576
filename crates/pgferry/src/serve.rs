//! The daemon. (Stub: the wiring comes with the engine.)

use std::path::Path;
use std::process::ExitCode;

/// Runs the daemon of this configuration until it is told to stop.
pub(crate) fn serve(_config: &Path) -> ExitCode {
    ExitCode::FAILURE
}
