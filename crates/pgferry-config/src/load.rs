//! From text and environment to a [`Config`], or to every problem at once.
//!
//! In order: the TOML text, the overrides of the environment laid over it, each section read by the
//! type of its keys, the checks across sections, the keys nobody asked for. Nothing stops at the first
//! problem but a text that is not TOML, of which nothing can be read.

mod across;
mod identifier;
mod migration;
mod node;
mod overrides;
mod raw;
mod reader;
mod server;
mod size;
mod traffic;

use std::collections::BTreeMap;
use std::path::Path;

use crate::{Config, LoadError, Lookup, Problem};
use across::Endpoint;
use raw::KeyPath;
use reader::Reader;

/// Reads the file and makes the configuration of it; every problem otherwise.
pub fn load(path: &Path, env: &dyn Lookup) -> Result<Config, LoadError> {
    let failed = |problems| LoadError { file: path.to_owned(), problems };
    let text = std::fs::read_to_string(path).map_err(|error| {
        failed(vec![Problem::new(
            "",
            format!("cannot be read: {error}"),
            "name a readable TOML file",
        )])
    })?;
    parse(&text, env).map_err(failed)
}

/// Makes the configuration of a file's text and the environment; every problem otherwise.
pub fn parse(text: &str, env: &dyn Lookup) -> Result<Config, Vec<Problem>> {
    let mut root = raw::tree(text)?;
    let problems = overrides::lay_over(&mut root, env);
    let mut reader = Reader::new(root, problems);
    let config = read(&mut reader, env);
    match (config, reader.finish()) {
        (Some(config), problems) if problems.is_empty() => Ok(config),
        (_, problems) => Err(problems),
    }
}

/// None only together with a problem.
fn read(reader: &mut Reader, env: &dyn Lookup) -> Option<Config> {
    let root = KeyPath::root();
    let server = server::server(reader, &root.key("server"));
    let journal = server::journal(reader, &root.key("journal"), env);

    let at = root.key("migrations");
    let names = reader.sections(&at);
    if names.is_empty() && reader.readable(&at) {
        reader.refuse(
            &at,
            "there is no migration",
            "add [migrations.NAME.source] and [migrations.NAME.destination], each with a dsn",
        );
    }
    let mut migrations = BTreeMap::new();
    let mut endpoints: Vec<Endpoint> = Vec::new();
    let mut complete = true;
    for name in &names {
        match migration::migration(reader, &at.key(name), name, env, &mut endpoints) {
            Some(migration) => {
                migrations.insert(migration.name.clone(), migration);
            }
            None => complete = false,
        }
    }
    across::check(reader, &endpoints);
    complete.then_some(Config { server, journal, migrations })
}

#[cfg(test)]
mod tests;
