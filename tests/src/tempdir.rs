//! Directories that go when their owner goes.
//!
//! They are under the system's temporary directory and not under the target directory, because
//! the servers run as another user when the tests run as root, and a checkout in a home directory
//! is closed to that user. Only directories with this module's prefix are ever removed.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::process;

/// A directory that belongs to the servers' user and is removed on drop.
#[derive(Debug)]
pub struct TempDir {
    path: PathBuf,
}

/// Every directory's name begins so; the process id follows.
const PREFIX: &str = "pgferry-tests-";

impl TempDir {
    /// Makes a new empty directory, owned by the user the servers run as.
    #[must_use]
    pub fn new(label: &str) -> Self {
        static SWEPT: Once = Once::new();
        static NEXT: AtomicU32 = AtomicU32::new(1);
        SWEPT.call_once(remove_what_dead_processes_left);

        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}-{label}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap_or_else(|e| panic!("cannot create {}: {e}", path.display()));
        process::give_to_server_user(&path);
        Self { path }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // A directory that cannot be removed is swept by a later run; failing here would hide the
        // test's own failure.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// A test process that was killed could not clean up; whoever comes next does.
fn remove_what_dead_processes_left() {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(owner) = name.to_str().and_then(owner_of) else { continue };
        if !Path::new("/proc").join(owner.to_string()).exists() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn owner_of(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_names_have_an_owner() {
        assert_eq!(owner_of("pgferry-tests-41-1-source"), Some(41));
        assert_eq!(owner_of("pgferry-tests-"), None);
        assert_eq!(owner_of("somebody-else-41-1"), None);
    }

    #[test]
    fn goes_when_its_owner_goes() {
        let dir = TempDir::new("unit");
        let path = dir.path().to_owned();
        assert!(path.is_dir());
        drop(dir);
        assert!(!path.exists());
    }
}
