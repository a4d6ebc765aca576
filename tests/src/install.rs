//! Where PostgreSQL's programs are.
//!
//! A missing server fails the test that needs it and says what to install; it is never skipped.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use pgferry_plan::Side;

/// The directory with `postgres`, `initdb` and their companions for one side.
///
/// The variable of the side wins, then `PATH`, then `pg_config`, then the newest of Debian's
/// directories: the first that has pglogical beside it.
pub fn bin_dir(side: Side) -> PathBuf {
    if let Some(chosen) = env::var_os(variable(side)) {
        let chosen = PathBuf::from(chosen);
        assert!(
            has_pglogical(&chosen),
            "{}={} has no server with pglogical",
            variable(side),
            chosen.display()
        );
        return chosen;
    }
    candidates().into_iter().find(|dir| has_pglogical(dir)).unwrap_or_else(|| {
        panic!(
            "no PostgreSQL server with pglogical was found: run `make deps` \
             (apt-get install postgresql-15-pglogical), or point {} at a bin directory",
            variable(side)
        )
    })
}

/// Whether the person who runs the tests chose a version for either side.
#[must_use]
pub fn chosen() -> bool {
    Side::BOTH.into_iter().any(|side| env::var_os(variable(side)).is_some())
}

/// The server's major version, `15` for 15.18.
#[must_use]
pub fn major_version(bin: &Path) -> u32 {
    version_text(bin)
        .split(|c: char| !c.is_ascii_digit())
        .find_map(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("cannot read the version of {}", bin.display()))
}

/// What `postgres --version` says: it tells minor versions and builds apart.
#[must_use]
pub fn version_text(bin: &Path) -> String {
    output(Command::new(bin.join("postgres")).arg("--version"))
}

/// Whether this server has the setting `output_plugin_libraries`.
///
/// Servers that have it refuse `pglogical_output` unless it is listed there; servers without it
/// do not start when it is set. So the setting's presence decides, never a version number.
#[must_use]
pub fn lists_output_plugins(bin: &Path) -> bool {
    output(Command::new(bin.join("postgres")).arg("--describe-config"))
        .lines()
        .any(|line| line.starts_with("output_plugin_libraries\t"))
}

fn variable(side: Side) -> &'static str {
    match side {
        Side::Source => "PGFERRY_TEST_SOURCE_BIN",
        Side::Destination => "PGFERRY_TEST_DESTINATION_BIN",
    }
}

fn candidates() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        env::var_os("PATH").map(|p| env::split_paths(&p).collect()).unwrap_or_default();
    let told = output(Command::new("pg_config").arg("--bindir"));
    if !told.is_empty() {
        found.push(PathBuf::from(told));
    }
    found.extend(debian_directories());
    found
}

/// `/usr/lib/postgresql/<major>/bin`, the newest first.
fn debian_directories() -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir("/usr/lib/postgresql") else { return Vec::new() };
    let mut majors: Vec<u32> =
        entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect();
    majors.sort_unstable_by(|a, b| b.cmp(a));
    majors
        .into_iter()
        .map(|m| Path::new("/usr/lib/postgresql").join(m.to_string()).join("bin"))
        .collect()
}

fn has_pglogical(bin: &Path) -> bool {
    if !bin.join("postgres").is_file() || !bin.join("initdb").is_file() {
        return false;
    }
    // Beside the programs in Debian's packages, whose pg_config may name the place that they
    // were built for instead of the one they were unpacked into.
    let beside = bin.parent().is_some_and(|up| up.join("lib/pglogical.so").is_file());
    beside || {
        let library = output(Command::new(bin.join("pg_config")).arg("--pkglibdir"));
        !library.is_empty() && Path::new(&library).join("pglogical.so").is_file()
    }
}

/// Standard output without the last line end; empty when the program is missing or fails.
fn output(command: &mut Command) -> String {
    command
        .output()
        .ok()
        .filter(|o| o.status.success())
        .map(|o| String::from_utf8_lossy(&o.stdout).trim_end().to_owned())
        .unwrap_or_default()
}
