//! The tools that pgferry's comparison is measured beside: whether they are here, and one run of each.

use std::path::PathBuf;
use std::process::{Command, Output};

use pgferry_tests::tempdir::TempDir;
use pgferry_tests::{Cluster, process};
use serde_json::Value;

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
            let mut command = servers::pgcopydb(server);
            command.args(["compare", "data", "--help"]);
            let output = process::output(command).map_err(|error| error.to_string())?;
            let mut command = servers::pgcopydb(server);
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
            let mut command = servers::pgcopydb(server);
            command.args(["compare", "data", "--json", "--source", from, "--target", to]);
            command.args(["--jobs", &jobs.to_string(), "--dir"]);
            command.arg(dir.path().join("work"));
            let output = finished(command)?;
            compared_by_pgcopydb(&output.stdout).map_err(|why| format!("{why}: {}", tail(&output)))
        }
    }
}

/// Whether pgcopydb has compared every table of the application and called it equal, and has told
/// the difference that is always there: pgferry's record of a side. It ends with success either way.
fn compared_by_pgcopydb(stdout: &[u8]) -> Result<(), String> {
    let compared: Vec<Value> =
        serde_json::from_slice(stdout).map_err(|error| format!("not a list of tables: {error}"))?;
    let equal = |schema: &str, name: &str| {
        let table =
            compared.iter().find(|table| table["schema"] == schema && table["name"] == name);
        let table = table.ok_or_else(|| format!("{schema}.{name} was not compared"))?;
        let both_read = ["source", "target"].iter().all(|side| table[side]["rowcount"].is_u64());
        let both_read = both_read.then_some(table["source"] == table["target"]);
        both_read.ok_or_else(|| format!("{schema}.{name} was not read on both sides"))
    };
    let keyed = KEYED.iter().map(|(table, _)| *table);
    for table in keyed.chain(["pgbench_history"]) {
        if !equal("public", table)? {
            return Err(format!("{table} was called different"));
        }
    }
    if equal("pgferry", "node")? { Err("a difference was not told".to_owned()) } else { Ok(()) }
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What pgcopydb prints about tables of which these differ.
    fn printed(different: &[&str]) -> Vec<Value> {
        let keyed = KEYED.iter().map(|(table, _)| ("public", *table));
        let tables = keyed.chain([("public", "pgbench_history"), ("pgferry", "node")]);
        let tables = tables.map(|(schema, name)| {
            let target = if different.contains(&name) { "another" } else { "sum" };
            json!({
                "schema": schema,
                "name": name,
                "source": {"rowcount": 7, "checksum": "sum"},
                "target": {"rowcount": 7, "checksum": target},
            })
        });
        tables.collect()
    }

    fn judged(tables: &[Value]) -> Result<(), String> {
        compared_by_pgcopydb(json!(tables).to_string().as_bytes())
    }

    #[test]
    fn a_comparison_counts_when_all_tables_are_equal_and_a_difference_was_told() {
        assert_eq!(judged(&printed(&["node"])), Ok(()));
        for (tables, word) in [
            (printed(&["node", "docs"]), "docs was called different"),
            (printed(&[]), "a difference was not told"),
            (printed(&["node"]).split_off(1), "pgbench_accounts was not compared"),
            (Vec::new(), "was not compared"),
        ] {
            let told = judged(&tables).unwrap_err();
            assert!(told.contains(word), "{told}");
        }
        let mut unread = printed(&["node"]);
        unread[1]["target"]["rowcount"] = Value::Null;
        assert!(judged(&unread).unwrap_err().contains("docs was not read on both sides"));
        assert!(compared_by_pgcopydb(b"").unwrap_err().contains("not a list"));
    }
}
