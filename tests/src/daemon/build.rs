//! Building the binary under test, once for each process.
//!
//! The tests' binary has the feature `failpoints`; the demo's is a release build without it, and
//! the two never share a file.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

use crate::process;

/// Which binary runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// A debug build with failpoints.
    Test,
    /// What a user would run.
    Release,
}

impl Profile {
    /// Builds it now and not at its first use, where that would be in the way.
    pub fn build(self) {
        let _ = binary(self);
    }
}

/// The path of the binary, built now if this process has not built it yet.
pub(crate) fn binary(profile: Profile) -> &'static Path {
    type Built = OnceLock<Result<PathBuf, String>>;
    static TEST: Built = OnceLock::new();
    static RELEASE: Built = OnceLock::new();
    let built = match profile {
        Profile::Test => TEST.get_or_init(|| {
            // Any other build of the package replaces the file that cargo names, perhaps with one
            // that has no failpoints; the link keeps the file that was built here.
            build(&["--features", "pgferry/failpoints"]).map(|built| keep(&built))
        }),
        Profile::Release => RELEASE.get_or_init(|| build(&["--release"])),
    };
    // A build that failed is remembered: every test says so, and none tries it again.
    built.as_deref().unwrap_or_else(|error| panic!("{error}"))
}

fn build(flags: &[&str]) -> Result<PathBuf, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        // The whole workspace is selected although one binary is built: so the dependencies have
        // the features they already have in the build of the tests, and are not built twice.
        .args(["build", "--quiet", "--locked", "--workspace", "--bin", "pgferry"])
        .args(flags)
        .arg("--message-format=json-render-diagnostics")
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = process::output(command).map_err(|e| format!("cannot run cargo: {e}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("cargo could not build pgferry\n{said}"));
    }
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == "pgferry")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .ok_or_else(|| "cargo built pgferry and named no executable".to_owned())
}

/// Links the binary under a name of this process, and removes what earlier ones left.
fn keep(built: &Path) -> PathBuf {
    let dir = built.with_file_name("under-test");
    fs::create_dir_all(&dir).unwrap_or_else(|e| panic!("cannot create {}: {e}", dir.display()));
    for old in fs::read_dir(&dir).into_iter().flatten().flatten() {
        let owner = old.file_name().to_string_lossy().replace("pgferry-", "");
        if !Path::new("/proc").join(owner).exists() {
            let _ = fs::remove_file(old.path());
        }
    }
    let kept = dir.join(format!("pgferry-{}", std::process::id()));
    let _ = fs::remove_file(&kept);
    fs::hard_link(built, &kept)
        .or_else(|_| fs::copy(built, &kept).map(drop))
        .unwrap_or_else(|e| panic!("cannot keep {}: {e}", built.display()));
    kept
}
