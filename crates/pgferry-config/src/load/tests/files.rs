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
    for file in ["ca.pem", "bin/pg_dump", "bin/pg_restore", "before", "after", "aborted", "rewrite"]
    {
        scratch.file(file, "");
    }
    for file in ["journal", "source", "source-peer", "destination", "destination-peer", "pgbouncer"]
    {
        scratch.file(&format!("{file}.password"), "secret\n");
    }
    scratch.file("webhook.secret", "secret\n");
    let variables = [
        "JOURNAL_PASSWORD",
        "ORDERS_SOURCE_PASSWORD",
        "ORDERS_SOURCE_PEER_PASSWORD",
        "ORDERS_DESTINATION_PASSWORD",
        "ORDERS_DESTINATION_PEER_PASSWORD",
        "ORDERS_PGBOUNCER_PASSWORD",
        "ORDERS_WEBHOOK_SECRET",
    ];
    (scratch, env(&variables.map(|variable| (variable, "secret"))))
}

fn placed(text: &str, scratch: &Scratch) -> String {
    text.replace("/etc/pgferry", scratch.0.to_str().unwrap())
}

/// The methods of the traffic, each with keys of its own.
const METHODS: [&str; 4] = ["multi_host", "pgbouncer", "command", "webhook"];

/// Takes the `#` from every key; from an alternative too, instead of the key before it, when asked.
/// Of the traffic's methods, from the keys of one.
fn uncommented(text: &str, alternatives: bool, method: &str) -> String {
    let mut lines: Vec<&str> = Vec::new();
    let mut taken = true;
    for line in text.lines() {
        let of_traffic = METHODS.iter().find(|known| {
            line.trim_start_matches("#or ").trim_start_matches('#')
                == format!("method = \"{known}\"")
        });
        if let Some(known) = of_traffic {
            taken = *known == method;
            if taken {
                lines.push(line.trim_start_matches("#or ").trim_start_matches('#'));
            }
        } else if !taken {
            lines.push("");
        } else if let Some(alternative) = line.strip_prefix("#or ") {
            if alternatives {
                lines.pop();
                lines.push(alternative);
            }
        } else if let Some(key) = line
            .strip_prefix('#')
            .filter(|key| key.starts_with(|c: char| c.is_alphabetic() || c == '['))
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
    for method in METHODS {
        for alternatives in [false, true] {
            let text = placed(&uncommented(&full_text(), alternatives, method), &scratch);
            assert!(text.contains(&format!("\nmethod = \"{method}\"")), "{text}");
            assert_eq!(problems(&text, &env), [""; 0], "{text}");
        }
    }
}

#[test]
fn every_key_that_is_read_is_shown() {
    let (scratch, env) = named("shown");
    // With and without the alternatives, because one file cannot hold both.
    let shown = METHODS.iter().flat_map(|method| {
        [false, true].map(|alternatives| uncommented(&full_text(), alternatives, method))
    });
    let readers: Vec<Reader> = shown
        .map(|text| Reader::new(raw::tree(&placed(&text, &scratch)).unwrap(), Vec::new()))
        .collect();
    // What is read within a PgBouncer is read only where there is one.
    let one = format!(
        "{MINIMAL}[migrations.orders.traffic]\nmethod = 'pgbouncer'\n[[migrations.orders.traffic.pgbouncers]]"
    );
    let mut reader = Reader::new(raw::tree(&one).unwrap(), Vec::new());
    read(&mut reader, &env);
    let hidden: Vec<String> = reader
        .known()
        .filter(|key| !readers.iter().any(|reader| reader.holds(key)))
        .map(ToString::to_string)
        .collect();
    // Tables that are refused until they are built: shown as prose.
    assert_eq!(hidden, ["server.tls", "server.tokens"]);
}

#[test]
fn values_shown_as_defaults_are_the_defaults() {
    let (scratch, env) = named("defaults");
    let [shown, default] =
        [uncommented(&full_text(), false, "multi_host"), full_text()].map(|text| {
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
fn values_shown_as_defaults_of_the_traffic_are_the_defaults() {
    let (scratch, env) = named("traffic-defaults");
    let defaults = ["pause_deadline", "on_pause_deadline", "rewrite_deadline", "deadline"];
    for method in METHODS {
        // With the alternatives, because one of them has a deadline of its own.
        let text = placed(&uncommented(&full_text(), true, method), &scratch);
        let without: Vec<&str> = text
            .lines()
            .filter(|line| !defaults.iter().any(|key| line.starts_with(&format!("{key} = "))))
            .collect();
        let [shown, default] = [text.clone(), without.join("\n")].map(|text| {
            let orders = parse(&text, &env).unwrap().migrations.pop_first().unwrap().1;
            format!("{:?}", orders.traffic)
        });
        assert_eq!(shown, default, "{method}");
    }
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
