//! The tools that pgferry's comparison is measured beside: whether they are here, and one run of each.

use std::path::PathBuf;
use std::process::{Command, Output};

use pgferry_tests::tempdir::TempDir;
use pgferry_tests::{Cluster, process};

use crate::{Tool, servers};

/// The tables with a key, and the key: `pgbench_history` has none, which neither tool from PyPI takes.
const KEYED: [(&str, &str); 4] = [
    ("pgbench_accounts", "aid"),
    ("docs", "id"),
    ("pgbench_tellers", "tid"),
    ("pgbench_branches", "bid"),
];

/// Characters of what a tool said that are told.
const TOLD: usize = 400;

/// What a tool calls its version, or why it cannot be run here.
pub(crate) fn version(tool: Tool, server: &Cluster) -> Result<String, String> {
    match tool {
        Tool::Pgferry => Ok("of this tree".to_owned()),
        Tool::DataDiff | Tool::Reladiff => {
            let program = from_pypi(tool);
            if !program.exists() {
                return Err(format!("{} is not installed", program.display()));
            }
            let mut command = process::bound(program, "TERM");
            command.arg("--version");
            let output = finished(command)?;
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        }
        Tool::Pgcopydb => {
            let mut command = servers::program(server, "pgcopydb");
            command.args(["compare", "data", "--help"]);
            let output = process::output(command).map_err(|error| error.to_string())?;
            let mut command = servers::program(server, "pgcopydb");
            command.arg("--version");
            let words = finished(command)?.stdout;
            let words = String::from_utf8_lossy(&words).into_owned();
            let version = words.lines().next().unwrap_or_default().to_owned();
            if output.status.success() {
                Ok(version)
            } else {
                Err(format!("{version} cannot compare data"))
            }
        }
    }
}

/// Compares both sides with one tool.
pub(crate) fn compare(
    tool: Tool,
    server: &Cluster,
    from: &str,
    to: &str,
    jobs: usize,
) -> Result<(), String> {
    match tool {
        Tool::Pgferry => Err("pgferry is asked over HTTP".to_owned()),
        Tool::DataDiff | Tool::Reladiff => KEYED.iter().try_for_each(|(table, key)| {
            let mut command = process::bound(from_pypi(tool), "TERM");
            command.args([from, table, to, table, "-k", key, "-c", "%"]);
            command.args(["--threads", &jobs.to_string()]);
            // A warning of a library of theirs is no difference: those are on stdout. An error ends them
            // with success, and is only said.
            let output = finished(command)?;
            let failed = String::from_utf8_lossy(&output.stderr).contains(" ERROR ");
            if output.stdout.is_empty() && !failed { Ok(()) } else { Err(tail(&output)) }
        }),
        Tool::Pgcopydb => {
            let dir = TempDir::new("pgcopydb");
            let mut command = servers::program(server, "pgcopydb");
            command.args(["compare", "data", "--source", from, "--target", to]);
            command.args(["--jobs", &jobs.to_string(), "--dir"]);
            command.arg(dir.path().join("work"));
            let output = process::output(command).map_err(|error| error.to_string())?;
            // pgferry's own tables differ by design: only the application's tables count.
            if output.stdout.is_empty() && !output.status.success() {
                return Err(tail(&output));
            }
            Ok(())
        }
    }
}

/// Where `benches/verify` has put the tools from PyPI.
fn from_pypi(tool: Tool) -> PathBuf {
    let place = std::env::var_os("PGFERRY_BENCH_PEERS").map(PathBuf::from).unwrap_or_default();
    place.join("bin").join(tool.name())
}

fn finished(command: Command) -> Result<Output, String> {
    let output = process::output(command).map_err(|error| error.to_string())?;
    if output.status.success() { Ok(output) } else { Err(tail(&output)) }
}

/// The end of what a tool said.
fn tail(output: &Output) -> String {
    let said = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    said.chars().skip(said.chars().count().saturating_sub(TOLD)).collect()
}
