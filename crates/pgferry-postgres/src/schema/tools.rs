//! Finding `pg_dump`, `pg_restore` and `psql` of a version that suits both servers.
//!
//! Never takes tools older than the source: pg_dump refuses a server that is newer than itself.

use std::path::{Path, PathBuf};

use super::SchemaError;
use super::child::Child;
use tokio_util::sync::CancellationToken;

/// The three of them; a directory that lacks one is passed over.
const PROGRAMS: [&str; 3] = ["pg_dump", "pg_restore", "psql"];

/// Where distributions put every version beside the others.
const VERSIONED: [(&str, &str); 2] = [("/usr/lib/postgresql", ""), ("/usr", "pgsql-")];

/// A directory with the tools of one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaTools {
    bindir: PathBuf,
    major: u32,
}

impl SchemaTools {
    /// Takes `configured` if it is new enough; otherwise looks in the distributions' directories,
    /// in `PATH`, and where `pg_config` points.
    pub async fn find(
        configured: Option<&Path>,
        source_major: u32,
        destination_major: u32,
    ) -> Result<Self, SchemaError> {
        let directories = match configured {
            Some(directory) => vec![directory.to_owned()],
            None => candidates().await,
        };
        let mut found = Vec::new();
        for bindir in directories {
            if PROGRAMS.iter().all(|program| bindir.join(program).is_file())
                && let Some(major) = version(&bindir).await
            {
                found.push(Self { bindir, major });
            }
        }
        choose(&found, source_major, destination_major).cloned().ok_or_else(|| {
            let seen = |tools: &Self| format!("{} in {}", tools.major, tools.bindir.display());
            SchemaError::ToolsMissing {
                needed: source_major,
                seen: found.iter().map(seen).collect(),
            }
        })
    }

    /// Their major version.
    pub fn major(&self) -> u32 {
        self.major
    }

    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.bindir.join(name)
    }
}

/// The oldest that is not older than either server: a newer one may write settings that an older
/// destination does not know (`transaction_timeout` of 17). When the destination is the newer and
/// has no tools here, the newest that can read the source.
fn choose(found: &[SchemaTools], source: u32, destination: u32) -> Option<&SchemaTools> {
    let suits_both = |tools: &&SchemaTools| tools.major >= source.max(destination);
    let reads_source = |tools: &&SchemaTools| tools.major >= source;
    // `min_by_key` returns the first of equals, which is the distribution's own directory;
    // Debian's /usr/bin/pg_dump is a wrapper that picks a version by rules of its own.
    found
        .iter()
        .filter(suits_both)
        .min_by_key(|tools| tools.major)
        .or_else(|| found.iter().filter(reads_source).rev().max_by_key(|tools| tools.major))
}

async fn candidates() -> Vec<PathBuf> {
    let mut directories = Vec::new();
    for (parent, prefix) in VERSIONED {
        let Ok(entries) = std::fs::read_dir(parent) else { continue };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.strip_prefix(prefix).is_some_and(|rest| rest.parse::<u32>().is_ok()) {
                directories.push(entry.path().join("bin"));
            }
        }
    }
    directories.sort();
    directories.extend(
        std::env::var_os("PATH").iter().flat_map(std::env::split_paths).collect::<Vec<_>>(),
    );
    let mut pg_config = Child::new("pg_config".into());
    pg_config.arg("--bindir");
    if let Ok(bindir) = pg_config.run(&CancellationToken::new()).await {
        directories.push(PathBuf::from(bindir.trim()));
    }
    directories
}

async fn version(bindir: &Path) -> Option<u32> {
    let mut pg_dump = Child::new(bindir.join("pg_dump"));
    pg_dump.arg("--version");
    major(&pg_dump.run(&CancellationToken::new()).await.ok()?)
}

/// `15` of `pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`.
fn major(said: &str) -> Option<u32> {
    let version = said.split_once("(PostgreSQL) ")?.1;
    let digits = version.bytes().take_while(u8::is_ascii_digit).count();
    version[..digits].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(majors: &[u32], source: u32, destination: u32) -> Option<u32> {
        let found: Vec<SchemaTools> = majors
            .iter()
            .map(|&major| SchemaTools { bindir: format!("/{major}").into(), major })
            .collect();
        choose(&found, source, destination).map(|tools| tools.major)
    }

    #[test]
    fn the_oldest_that_suits_both_is_taken() {
        assert_eq!(chosen(&[13, 15, 17], 13, 15), Some(15));
        assert_eq!(chosen(&[13, 15, 17], 15, 13), Some(15));
        assert_eq!(chosen(&[17, 16], 15, 15), Some(16));
    }

    #[test]
    fn the_newest_that_reads_the_source_will_do() {
        assert_eq!(chosen(&[14, 15], 14, 16), Some(15));
        assert_eq!(chosen(&[14], 15, 15), None);
        assert_eq!(chosen(&[], 15, 15), None);
    }

    #[test]
    fn versions_are_read_from_what_pg_dump_prints() {
        assert_eq!(major("pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some(15));
        assert_eq!(major("pg_dump (PostgreSQL) 17beta1\n"), Some(17));
        assert_eq!(major("not pg_dump"), None);
    }
}
