//! `PGFERRY__SECTION__KEY=value`: the environment laid over the file.
//!
//! Places texts in the tree and interprets none: what a key's type is, and whether the key exists,
//! is for its reader to say. Variables with a single underscore (`PGFERRY_URL`, `PGFERRY_TOKEN`)
//! belong to the client and are not looked at.

use std::collections::BTreeMap;

use super::raw::{KeyPath, Raw};
use crate::nearest::nearest;
use crate::{Lookup, Problem};

const PREFIX: &str = "PGFERRY__";
const MIGRATIONS: &str = "migrations";

/// Puts every override in its place; those that have none are problems.
pub(super) fn lay_over(root: &mut Raw, env: &dyn Lookup) -> Vec<Problem> {
    let Raw::Table(root) = root else { return Vec::new() };
    let mut variables = env.keys();
    variables.sort();
    let ours = variables.iter().filter_map(|v| Some((v, v.strip_prefix(PREFIX)?)));
    ours.filter_map(|(variable, rest)| lay(root, variable, rest, env).err()).collect()
}

fn lay(
    root: &mut BTreeMap<String, Raw>,
    variable: &str,
    rest: &str,
    env: &dyn Lookup,
) -> Result<(), Problem> {
    let path = key_path(root, variable, rest)?;
    let text = env.get(variable).ok_or_else(|| {
        Problem::new(
            &path,
            format!("{variable} is not valid UTF-8"),
            "set it to a text, or unset it",
        )
    })?;
    insert(root, &path, Raw::Environment { variable: variable.to_owned(), text })
}

fn key_path(root: &BTreeMap<String, Raw>, variable: &str, rest: &str) -> Result<KeyPath, Problem> {
    if rest.bytes().any(|b| b.is_ascii_lowercase()) {
        return Err(Problem::new(
            KeyPath::root(),
            format!("the variable {variable} is not in upper case"),
            format!("write {PREFIX}{}", rest.to_ascii_uppercase()),
        ));
    }
    let rest = rest.to_ascii_lowercase();
    let (mut path, keys) = match rest.strip_prefix("migrations__") {
        Some(rest) => within_migration(root, variable, rest)?,
        None => (KeyPath::root(), rest.as_str()),
    };
    for key in keys.split("__") {
        path = path.key(key);
    }
    Ok(path)
}

/// A migration's name may hold underscores, also two in a row, so it is not found by splitting: it is
/// the longest name of the file that fits. A name the file does not have is refused and not added,
/// because there it is far more often a slip than a migration that is configured by variables alone.
fn within_migration<'a>(
    root: &BTreeMap<String, Raw>,
    variable: &str,
    rest: &'a str,
) -> Result<(KeyPath, &'a str), Problem> {
    let migrations = KeyPath::root().key(MIGRATIONS);
    let names: Vec<&str> = match root.get(MIGRATIONS) {
        Some(Raw::Table(table)) => table.keys().map(String::as_str).collect(),
        Some(Raw::File(_) | Raw::Environment { .. }) | None => Vec::new(),
    };
    let within = |name| Some((name, rest.strip_prefix(name)?.strip_prefix("__")?));
    let fitting = names.iter().copied().filter_map(within);
    if let Some((name, keys)) = fitting.max_by_key(|(name, _): &(&str, &str)| name.len()) {
        return Ok((migrations.key(name), keys));
    }
    let meant = rest.split("__").next().unwrap_or_default();
    let hint = match nearest(meant, names) {
        Some(near) => format!("the nearest migration is \"{near}\"; an override does not add one"),
        None => "an override does not add a migration: write it in the file".to_owned(),
    };
    Err(Problem::new(
        migrations.key(meant),
        format!("unknown migration, named by {variable}"),
        hint,
    ))
}

fn insert(root: &mut BTreeMap<String, Raw>, path: &KeyPath, value: Raw) -> Result<(), Problem> {
    let Raw::Environment { variable, .. } = &value else { return Ok(()) };
    let Some((last, before)) = path.keys().split_last() else { return Ok(()) };
    let mut table = root;
    for key in before {
        match table.entry(key.clone()).or_insert_with(|| Raw::Table(BTreeMap::new())) {
            Raw::Table(next) => table = next,
            // A value where a section belongs: its reader says so.
            Raw::File(_) => return Ok(()),
            Raw::Environment { variable: other, .. } => {
                return Err(Problem::new(
                    path,
                    format!("{variable} and {other} exclude each other"),
                    format!("unset {other}: it names a section and not a key"),
                ));
            }
        }
    }
    match table.get(last) {
        Some(Raw::Table(_)) => Err(Problem::new(
            path,
            format!("{variable} names a section and not a key"),
            format!("append \"__\" and a key: {variable}__…"),
        )),
        Some(Raw::File(_) | Raw::Environment { .. }) | None => {
            table.insert(last.clone(), value);
            Ok(())
        }
    }
}
