//! The file with the one entry that pgferry changes: replaced as a whole, or not at all. What is
//! slow about it, the writing, is done before: while writes are held it is only put in place.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use pgferry_config::{PgbouncerConfig, PgbouncerEntry};
use pgferry_plan::Blocker;
use uuid::Uuid;

use super::console::Entry;

/// Holds no secret: the configuration refuses a password in an entry.
const MODE: u32 = 0o644;

/// In the names of the files that this process writes: what another has left may go, and its own is needed.
static OURS: LazyLock<Uuid> = LazyLock::new(Uuid::new_v4);

/// The whole content of the file.
pub(super) fn text(migration: &str, database: &str, entry: &str) -> String {
    format!(
        "; Written whole by pgferry for the migration {migration}: what is added here is lost.\n\
         [databases]\n{} = {entry}\n",
        name(database)
    )
}

/// A name as PgBouncer takes it in front of the `=`: in quotes, where it is not a plain word.
fn name(database: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if database.chars().all(plain) {
        database.to_owned()
    } else {
        format!("\"{}\"", database.replace('"', "\"\""))
    }
}

/// Whether the file says this already; not when it cannot be read.
pub(super) fn says(file: &Path, text: &str) -> bool {
    fs::read_to_string(file).is_ok_and(|standing| standing == text)
}

/// A new content of the file, on disk beside it. Removed when it is not put in place.
#[derive(Debug)]
pub(super) struct Prepared {
    file: PathBuf,
    beside: PathBuf,
}

impl Prepared {
    /// Writes the content durably, with the mode and the owner of the file that stands.
    pub(super) fn write(file: &Path, text: &str) -> io::Result<Self> {
        let (Some(directory), Some(name)) = (file.parent(), file.file_name()) else {
            return Err(io::Error::new(ErrorKind::InvalidInput, "the path names no file"));
        };
        let before = match fs::metadata(file) {
            Ok(metadata) => Some(metadata),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let mode = before.as_ref().map_or(MODE, |before| before.permissions().mode() & 0o777);
        let prefix = format!(".{}.pgferry-", name.to_string_lossy());
        let ours = format!("{prefix}{}-", *OURS);
        remove_left_behind(directory, &prefix, &ours);
        let beside = directory.join(format!("{ours}{}", Uuid::new_v4()));
        let prepared = Self { file: file.to_owned(), beside };
        let beside = &prepared.beside;
        let mut new = OpenOptions::new().write(true).create_new(true).mode(mode).open(beside)?;
        // Not by the mode of creation alone, which the umask narrows: PgBouncer could not read it.
        new.set_permissions(fs::Permissions::from_mode(mode))?;
        if let Some(before) = before
            && let Err(error) = chown(beside, Some(before.uid()), Some(before.gid()))
            && mode & 0o004 == 0
        {
            // Only its owner could read it, and that would be another one now.
            return Err(error);
        }
        new.write_all(text.as_bytes())?;
        new.sync_all()?;
        Ok(prepared)
    }

    /// Whether it was removed meanwhile, as another daemon does with what it takes for left behind.
    pub(super) fn is_gone(&self) -> bool {
        !self.beside.exists()
    }

    /// Replaces the file: as a whole, or not at all.
    pub(super) fn put_in_place(self) -> io::Result<()> {
        fs::rename(&self.beside, &self.file)
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        // Where it was put in place there is nothing any more.
        let _ = fs::remove_file(&self.beside);
    }
}

/// What a daemon that was killed has written and not put in place.
fn remove_left_behind(directory: &Path, prefix: &str, ours: &str) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(prefix) && !name.starts_with(ours) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Lets what was put in place outlast a crash of the machine.
pub(super) fn keep(file: &Path) -> io::Result<()> {
    File::open(file.parent().unwrap_or(Path::new("/")))?.sync_all()
}

/// What stands against changing the file, and whether it is the one that PgBouncer has read.
pub(super) fn blockers(config: &PgbouncerConfig, file: &Path, seen: &Entry) -> Vec<Blocker> {
    let mut blockers = Vec::new();
    let shown = file.display();
    let directory = file.parent().unwrap_or(Path::new("/"));
    let may = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    if let Err(error) = rustix::fs::access(directory, may) {
        blockers.push(Blocker::new(
            "pgbouncer_file_not_writable",
            format!("{} cannot be written, where {shown} is to be replaced: {error}", directory.display()),
            "give pgferry a directory of its own there, for instance /etc/pgbouncer/pgferry, or use rewrite_command",
        ));
    }
    let standing = match fs::read_to_string(file) {
        Ok(standing) => standing,
        Err(error) => {
            blockers.push(Blocker::new(
                "pgbouncer_file_missing",
                format!("{shown} cannot be read: {error}"),
                "create it with the sections and the entry that docs/traffic.md shows, %include it at the end of pgbouncer.ini, and RELOAD",
            ));
            return blockers;
        }
    };
    match only_entry(&standing, &config.database) {
        Err(line) => blockers.push(Blocker::new(
            "pgbouncer_file_foreign",
            format!("{shown} holds more than the entry of {}: line {line}", config.database),
            "move the rest into pgbouncer.ini: pgferry replaces this file as a whole",
        )),
        Ok(entry) => {
            let read = entry.as_ref().is_some_and(|entry| {
                (&entry.host, entry.port, &entry.dbname) == (&seen.host, seen.port, &seen.dbname)
            });
            if !read {
                blockers.push(Blocker::new(
                    "pgbouncer_file_not_read",
                    format!(
                        "PgBouncer {} leads to {}:{}/{}, and {shown} says otherwise",
                        config.name, seen.host, seen.port, seen.dbname
                    ),
                    "let pgbouncer.ini %include this file, take the entry out of everything else, and RELOAD",
                ));
            }
        }
    }
    blockers
}

/// The entry, when nothing else but comments stands in the text; else the number of the first line that does.
fn only_entry(text: &str, database: &str) -> Result<Option<PgbouncerEntry>, usize> {
    let mut found = None;
    for (line, number) in text.lines().map(str::trim).zip(1..) {
        if line.is_empty() || line.starts_with([';', '#']) || line == "[databases]" {
            continue;
        }
        let (key, value) = line.split_once('=').ok_or(number)?;
        let key = key.trim();
        if key != database && key != name(database) {
            return Err(number);
        }
        found = PgbouncerEntry::parse(value.trim(), database).ok();
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_replaced_with_its_mode_and_nothing_is_left_beside_it() {
        let directory = std::env::temp_dir().join(format!("pgferry-traffic-{}", Uuid::new_v4()));
        fs::create_dir(&directory).unwrap();
        let file = directory.join("orders.ini");
        Prepared::write(&file, "one").unwrap().put_in_place().unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o644);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let prepared = Prepared::write(&file, "two").unwrap();
        assert!(says(&file, "one"), "nothing is changed before it is put in place");
        prepared.put_in_place().unwrap();
        keep(&file).unwrap();
        assert!(says(&file, "two"));
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        drop(Prepared::write(&file, "three").unwrap());
        assert!(says(&file, "two"));
        fs::write(directory.join(".orders.ini.pgferry-of-one-that-was-killed"), "").unwrap();
        let (one, other) =
            (Prepared::write(&file, "four").unwrap(), Prepared::write(&file, "five").unwrap());
        assert!(!one.is_gone() && !other.is_gone(), "two PgBouncers may share a file");
        fs::remove_file(&one.beside).unwrap();
        assert!(one.is_gone());
        drop((one, other));
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
        assert!(Prepared::write(&directory.join("no/such/file"), "x").is_err());
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn what_is_written_is_read_back_and_anything_else_is_somebody_elses() {
        for database in ["orders", "Or ders"] {
            let written = text("shop", database, "host=a port=1 dbname=b");
            let entry = only_entry(&written, database).unwrap().unwrap();
            assert_eq!((entry.host.as_str(), entry.port, entry.dbname.as_str()), ("a", 1, "b"));
        }
        assert_eq!(only_entry("; nothing\n\n", "orders"), Ok(None));
        assert_eq!(only_entry("[databases]\nother = host=a", "orders"), Err(2));
        assert_eq!(only_entry("[pgbouncer]\n", "orders"), Err(1));
    }
}
