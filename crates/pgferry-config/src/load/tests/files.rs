//! The files under `config/`: they parse, and show every key that there is.

use std::path::Path;

use super::*;

fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config")
}

fn full_text() -> String {
    std::fs::read_to_string(shipped().join("pgferry.toml")).unwrap()
}

/// What the shipped files name, at a place of this test.
fn named(test: &str) -> (Scratch, BTreeMap<String, String>) {
    let scratch = Scratch::new(test);
    for file in ["ca.pem", "bin/pg_dump", "bin/pg_restore"] {
        scratch.file(file, "");
    }
    for file in ["journal", "source", "source-peer", "destination", "destination-peer"] {
        scratch.file(&format!("{file}.password"), "secret\n");
    }
    let variables = [
        "JOURNAL_PASSWORD",
        "ORDERS_SOURCE_PASSWORD",
        "ORDERS_SOURCE_PEER_PASSWORD",
        "ORDERS_DESTINATION_PASSWORD",
        "ORDERS_DESTINATION_PEER_PASSWORD",
    ];
    (scratch, env(&variables.map(|variable| (variable, "secret"))))
}

fn placed(text: &str, scratch: &Scratch) -> String {
    text.replace("/etc/pgferry", scratch.0.to_str().unwrap())
}

/// Takes the `#` from every key; from an alternative too, instead of the key before it, when asked.
fn uncommented(text: &str, alternatives: bool) -> String {
    let mut lines: Vec<&str> = Vec::new();
    for line in text.lines() {
        if let Some(alternative) = line.strip_prefix("#or ") {
            if alternatives {
                lines.pop();
                lines.push(alternative);
            }
        } else if let Some(key) =
            line.strip_prefix('#').filter(|key| key.starts_with(char::is_alphabetic))
        {
            lines.push(key);
        } else {
            lines.push(line);
        }
    }
    lines.join("\n")
}

#[test]
fn every_file_is_valid_as_it_stands() {
    let (scratch, env) = named("as-it-stands");
    let mut seen = 0;
    for entry in std::fs::read_dir(shipped()).unwrap() {
        let file = entry.unwrap().path();
        if file.extension().is_some_and(|extension| extension == "toml") {
            let text = std::fs::read_to_string(&file).unwrap();
            assert_eq!(problems(&placed(&text, &scratch), &env), [""; 0], "{}", file.display());
            seen += 1;
        }
    }
    assert!(seen >= 2, "config/ lost its files");
}

#[test]
fn every_commented_key_is_valid_when_it_is_taken() {
    let (scratch, env) = named("uncommented");
    for alternatives in [false, true] {
        let text = placed(&uncommented(&full_text(), alternatives), &scratch);
        assert_eq!(problems(&text, &env), [""; 0], "{text}");
    }
}

#[test]
fn every_key_that_is_read_is_shown() {
    let (scratch, env) = named("shown");
    // With and without the alternatives, because one file cannot hold both.
    let shown = [false, true].map(|alternatives| {
        raw::tree(&placed(&uncommented(&full_text(), alternatives), &scratch)).unwrap()
    });
    let [first, second] = shown.map(|tree| Reader::new(tree, Vec::new()));
    let mut reader = Reader::new(raw::tree(MINIMAL).unwrap(), Vec::new());
    read(&mut reader, &env);
    let hidden: Vec<String> = reader
        .known()
        .filter(|key| !first.holds(key) && !second.holds(key))
        .map(ToString::to_string)
        .collect();
    // Tables that are refused until they are built: shown as prose.
    assert_eq!(hidden, ["server.tls", "server.tokens"]);
}

#[test]
fn values_shown_as_defaults_are_the_defaults() {
    let (scratch, env) = named("defaults");
    let [shown, default] = [uncommented(&full_text(), false), full_text()].map(|text| {
        let mut config = parse(&placed(&text, &scratch), &env).unwrap();
        let mut orders = config.migrations.pop_first().unwrap().1;
        // These have no default to show: their lines are examples.
        orders.scope.schemas = None;
        orders.scope.exclude_tables.clear();
        orders.scope.insert_only.clear();
        orders.schema.pg_bindir = None;
        orders.copy.max_bytes_per_second = None;
        orders.copy.maintenance_work_mem = None;
        orders.copy.max_retained_wal = None;
        orders.fence.roles = None;
        orders.fence.exclude_roles.clear();
        (config.server, config.journal.archive_dir, orders)
    });
    let without_nodes = |orders: &MigrationConfig| {
        format!(
            "{} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?}",
            orders.autostart,
            orders.heartbeat_interval,
            orders.poll_interval,
            orders.scope,
            orders.schema,
            orders.copy,
            orders.sequences,
            orders.cutover,
            orders.fence,
            orders.traffic
        )
    };
    assert_eq!(format!("{:?} {:?}", shown.0, shown.1), format!("{:?} {:?}", default.0, default.1));
    assert_eq!(without_nodes(&shown.2), without_nodes(&default.2));
}

#[test]
fn a_file_that_cannot_be_read_is_a_problem_with_its_name() {
    let error = load(Path::new("no/such/file.toml"), &env(&[])).unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("no/such/file.toml: 1 problem\n  cannot be read: "), "{text}");
}

#[test]
fn a_file_is_loaded_with_the_environment_over_it() {
    let scratch = Scratch::new("load");
    let file = scratch.file("pgferry.toml", MINIMAL);
    let set = env(&[("PGFERRY__SERVER__LISTEN", "[::1]:9000")]);
    let config = load(Path::new(&file), &set).unwrap();
    assert_eq!(config.server.listen.to_string(), "[::1]:9000");
    let set = env(&[("PGFERRY__SERVER__LISTEN", "nowhere")]);
    let error = load(Path::new(&file), &set).unwrap_err();
    assert_eq!((error.file.to_str(), error.problems.len()), (Some(file.as_str()), 1));
}
