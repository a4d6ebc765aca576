//! One test per rule: text and environment in, every problem out.

mod files;
mod logins;
mod rules;
mod traffic;

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::*;
use crate::MigrationConfig;

/// The least that is valid; rules are tested by what they say about an addition to it.
const MINIMAL: &str = r#"
[migrations.orders.source]
dsn = "host=old dbname=orders user=pgferry"
[migrations.orders.destination]
dsn = "host=new dbname=orders user=pgferry"
"#;

fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn problems(text: &str, env: &BTreeMap<String, String>) -> Vec<String> {
    match parse(text, env) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    }
}

/// Exactly these problems, each compared without its hint unless the expectation shows one.
#[track_caller]
fn check(text: &str, pairs: &[(&str, &str)], expected: &[&str]) {
    let seen = problems(text, &env(pairs));
    let same = seen.len() == expected.len()
        && seen.iter().zip(expected).all(|(seen, expected)| {
            seen.strip_prefix(expected)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(" ("))
        });
    assert!(same, "{text}\nsaid:     {seen:#?}\nexpected: {expected:#?}");
}

/// The minimal configuration with sections added.
#[track_caller]
fn check_added(added: &str, expected: &[&str]) {
    check(&format!("{MINIMAL}{added}"), &[], expected);
}

#[track_caller]
fn valid(text: &str, pairs: &[(&str, &str)]) -> MigrationConfig {
    let config = parse(text, &env(pairs)).unwrap();
    config.migrations.into_values().next().unwrap()
}

/// A directory of one test, removed when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new(test: &str) -> Self {
        let directory =
            std::env::temp_dir().join(format!("pgferry-config-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        Self(directory)
    }

    fn file(&self, name: &str, content: &str) -> String {
        let file = self.0.join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, content).unwrap();
        file.to_str().unwrap().to_owned()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A directory left in the temporary place is no reason to fail a test.
        drop(std::fs::remove_dir_all(&self.0));
    }
}
