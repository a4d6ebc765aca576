//! A directory for a dump, readable by this user only and removed with its owner.
//!
//! A dump holds no rows, but it may hold the passwords of user mappings.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;

use super::SchemaError;

/// Removed, with all in it, when dropped.
#[derive(Debug)]
pub(super) struct PrivateDir(PathBuf);

impl PrivateDir {
    /// A new one under `TMPDIR`. Its name is not guessable, and making it fails if it is there.
    pub(super) fn new() -> Result<Self, SchemaError> {
        let path = std::env::temp_dir().join(format!("pgferry-{}", uuid::Uuid::new_v4()));
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(SchemaError::io(format!("making {}", path.display())))?;
        Ok(Self(path))
    }

    /// Where a file of this name is.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a new file.
    pub(super) fn write(&self, name: &str, text: impl AsRef<[u8]>) -> Result<PathBuf, SchemaError> {
        let path = self.path(name);
        let doing = format!("writing {}", path.display());
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(text.as_ref()))
            .map_err(SchemaError::io(doing))?;
        Ok(path)
    }
}

impl Drop for PrivateDir {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "a directory could not be removed");
        }
    }
}
