//! The archive: the journal of a migration that has ended, as JSON lines in a file.

use std::io::Write;
use std::path::Path;

use pgferry_plan::{Entry, Facts, MigrationName};

use super::{JournalError, Place};

impl Place {
    /// Whether a journal of this migration has been archived: it was ended before, by a person.
    pub fn has_archive(&self, migration: &MigrationName) -> bool {
        let prefix = format!("pgferry-{migration}-");
        let Ok(files) = std::fs::read_dir(&self.archive_dir) else { return false };
        files.flatten().any(|file| {
            let name = file.file_name();
            let name = name.to_string_lossy();
            name.starts_with(&prefix) && name.ends_with(".jsonl")
        })
    }

    /// Writes every entry to a file under `archive_dir`, durably: written beside, synced, renamed,
    /// and the directory synced. A second call writes the same file again.
    ///
    /// # Errors
    /// When the journal could not be read or the file not be written.
    pub async fn archive(
        &self,
        migration: &MigrationName,
        facts: &Facts,
    ) -> Result<(), JournalError> {
        let entries = self.load(migration).await?.unwrap_or_default();
        let run = facts.operations.first().map(|start| start.id.simple().to_string());
        let name = format!("pgferry-{migration}-{}.jsonl", run.unwrap_or_default());
        let path = self.archive_dir.join(name);
        let shown = path.display().to_string();
        let written = tokio::task::spawn_blocking(move || write(&path, &entries)).await;
        let failed = |reason: String| JournalError::Archive { path: shown.clone(), reason };
        match written {
            Ok(Ok(())) => {
                tracing::info!(path = shown, "archived the journal");
                Ok(())
            }
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(error) => Err(failed(error.to_string())),
        }
    }
}

fn write(path: &Path, entries: &[Entry]) -> std::io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory)?;
    let beside = path.with_extension("jsonl.part");
    let mut file = std::fs::File::create(&beside)?;
    for entry in entries {
        serde_json::to_writer(&mut file, entry)?;
        file.write_all(b"\n")?;
    }
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    std::fs::File::open(directory)?.sync_all()
}
