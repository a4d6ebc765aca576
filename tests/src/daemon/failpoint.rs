//! Telling a daemon where to die or to hold, also while it runs.
//!
//! The daemon reads a file; see `pgferry_engine::failpoint`. Each failpoint works once.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::expect::eventually;

/// The variable that names the file to the daemon.
pub(super) const VARIABLE: &str = "PGFERRY_FAILPOINT_FILE";

/// What the daemon does at the failpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtFailpoint {
    /// It aborts, as `kill -9` would end it.
    Die,
    /// Its loop waits until [`Failpoint::release`]; everything else of it goes on.
    Hold,
}

/// A daemon's failpoint.
#[derive(Clone, Debug)]
pub struct Failpoint {
    file: PathBuf,
    reached: PathBuf,
}

impl Failpoint {
    pub(super) fn in_dir(dir: &Path) -> Self {
        Self { file: dir.join("failpoint"), reached: dir.join("failpoint.reached") }
    }

    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// Sets it at a place and step, such as `before_effect:yield`. Replaces what was set before.
    pub fn arm(&self, point: &str, what: AtFailpoint) {
        self.disarm();
        let word = match what {
            AtFailpoint::Die => "die",
            AtFailpoint::Hold => "hold",
        };
        // Under another name first: a half-written file would be another place.
        let draft = self.file.with_extension("draft");
        fs::write(&draft, format!("{point} {word}"))
            .and_then(|()| fs::rename(&draft, &self.file))
            .unwrap_or_else(|e| panic!("cannot write {}: {e}", self.file.display()));
    }

    /// Takes it away, and lets go who holds.
    pub fn disarm(&self) {
        let _ = fs::remove_file(&self.file);
        let _ = fs::remove_file(&self.reached);
    }

    /// Whether a daemon has come to it.
    #[must_use]
    pub fn is_reached(&self) -> bool {
        self.reached.exists()
    }

    /// Waits until a daemon has come to it.
    pub fn wait_until_reached(&self, deadline: Duration) {
        eventually("the failpoint to be reached", deadline, || {
            if self.is_reached() { Ok(()) } else { Err("nobody came there".to_owned()) }
        });
    }

    /// Lets go who holds there.
    pub fn release(&self) {
        let _ = fs::remove_file(&self.reached);
    }
}
