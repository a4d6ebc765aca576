//! Reading keys by their type: what is wrong becomes a problem, and reading goes on.
//!
//! Asking for a key is what makes it known, so there is no list of keys that could differ from what
//! is read. A faulty value yields the default beside its problem; no caller may conclude from a
//! default that the key was absent. Messages show values only where no secret can be.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use jiff::SignedDuration;

use super::raw::{KeyPath, Raw};
use super::size;
use crate::Problem;
use crate::config::Choice;
use crate::nearest::nearest;

/// The tree, what was asked of it, and what was wrong so far.
pub(super) struct Reader {
    root: Raw,
    known: BTreeMap<KeyPath, Known>,
    problems: Vec<Problem>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Known {
    Section,
    Key,
}

impl Reader {
    pub(super) fn new(root: Raw, problems: Vec<Problem>) -> Self {
        Self { root, known: BTreeMap::new(), problems }
    }

    /// Every problem, the keys that nobody asked for included, sorted by path.
    pub(super) fn finish(mut self) -> Vec<Problem> {
        self.refuse_unknown(&KeyPath::root());
        self.problems.sort();
        self.problems.dedup();
        self.problems
    }

    /// Every path that was asked for: the documentation is tested against it.
    #[cfg(test)]
    pub(super) fn known(&self) -> impl Iterator<Item = &KeyPath> {
        self.known.keys()
    }

    #[cfg(test)]
    pub(super) fn holds(&self, at: &KeyPath) -> bool {
        self.raw(at).is_some()
    }

    pub(super) fn refuse(
        &mut self,
        at: &KeyPath,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.problems.push(Problem::new(at, message, hint));
    }

    /// Makes a section known; a value in its place is a problem.
    pub(super) fn section(&mut self, at: &KeyPath) {
        self.known.insert(at.clone(), Known::Section);
        let kind = match self.raw(at) {
            Some(Raw::File(value)) => value.type_str().to_owned(),
            Some(Raw::Environment { variable, .. }) => format!("the text of {variable}"),
            Some(Raw::Table(_)) | None => return,
        };
        self.refuse(at, format!("a section is expected, not {kind}"), format!("write [{at}]"));
    }

    /// Makes a section of sections known, and names them.
    pub(super) fn sections(&mut self, at: &KeyPath) -> Vec<String> {
        self.section(at);
        match self.raw(at) {
            Some(Raw::Table(table)) => table.keys().cloned().collect(),
            Some(Raw::File(_) | Raw::Environment { .. }) | None => Vec::new(),
        }
    }

    /// Makes a key known, whatever its type; whether it is there.
    pub(super) fn given(&mut self, at: &KeyPath) -> bool {
        self.known.insert(at.clone(), Known::Key);
        self.raw(at).is_some()
    }

    /// Whether nothing but sections leads to `at`: else its absence is not worth a problem of its own.
    pub(super) fn readable(&self, at: &KeyPath) -> bool {
        let mut node = &self.root;
        for key in at.keys() {
            match node {
                Raw::Table(table) => match table.get(key) {
                    Some(next) => node = next,
                    None => return true,
                },
                Raw::File(_) | Raw::Environment { .. } => return false,
            }
        }
        matches!(node, Raw::Table(_))
    }

    pub(super) fn boolean(&mut self, at: &KeyPath, default: bool) -> bool {
        self.read(at, "true or false", "", |value| value.as_bool()).unwrap_or(default)
    }

    pub(super) fn integer(
        &mut self,
        at: &KeyPath,
        default: i64,
        range: RangeInclusive<i64>,
    ) -> i64 {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        self.read(at, &expected, "", |value| value.as_integer().filter(|n| range.contains(n)))
            .unwrap_or(default)
    }

    /// A text that is not empty; never shown in a message.
    pub(super) fn text(&mut self, at: &KeyPath) -> Option<String> {
        self.read(at, "a text that is not empty", "", |value| {
            value.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
        })
    }

    /// A list of texts; none when it is absent.
    pub(super) fn texts(&mut self, at: &KeyPath) -> Option<Vec<String>> {
        self.read(at, "a list of texts, none of them empty", "write [\"…\", \"…\"]", |value| {
            let text = |v: &toml::Value| v.as_str().filter(|t| !t.is_empty()).map(str::to_owned);
            value.as_array()?.iter().map(text).collect()
        })
    }

    pub(super) fn duration(
        &mut self,
        at: &KeyPath,
        default: Duration,
        range: RangeInclusive<Duration>,
    ) -> Duration {
        let limit = |limit: &Duration| {
            SignedDuration::try_from(*limit)
                .map_or_else(|_| format!("{limit:?}"), |l| format!("{l:#}"))
        };
        let expected =
            format!("a duration from {} to {}", limit(range.start()), limit(range.end()));
        self.read(
            at,
            &expected,
            "write a number with its unit: \"100ms\", \"1s\", \"5m\"",
            |value| {
                let duration: SignedDuration = value.as_str()?.parse().ok()?;
                Duration::try_from(duration).ok().filter(|duration| range.contains(duration))
            },
        )
        .unwrap_or(default)
    }

    /// Bytes: a text with a unit, or a whole number of them; none when it is absent.
    pub(super) fn size(&mut self, at: &KeyPath, range: RangeInclusive<u64>) -> Option<u64> {
        let limit = |bytes: &u64| size::write(*bytes);
        let expected = format!("a size from {} to {}", limit(range.start()), limit(range.end()));
        let hint = "write a whole number with its unit: \"64kB\", \"512MB\", \"100GB\"";
        self.read(at, &expected, hint, |value| {
            let bytes = match value {
                toml::Value::Integer(bytes) => u64::try_from(*bytes).ok(),
                other => size::parse(other.as_str()?),
            };
            bytes.filter(|bytes| range.contains(bytes))
        })
    }

    pub(super) fn address(&mut self, at: &KeyPath, default: SocketAddr) -> SocketAddr {
        let hint = format!("write a number and not a name, for instance \"{default}\"");
        self.read(at, "an IP address with a port", &hint, |value| value.as_str()?.parse().ok())
            .unwrap_or(default)
    }

    /// One of a few words.
    pub(super) fn choice<T: Choice>(&mut self, at: &KeyPath, default: T) -> T {
        let words: Vec<String> = T::WORDS.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        self.read(at, &format!("one of {}", words.join(", ")), "", |value| {
            let given = value.as_str()?;
            T::WORDS.iter().find(|(word, _)| *word == given).map(|(_, meaning)| *meaning)
        })
        .unwrap_or(default)
    }

    fn read<T>(
        &mut self,
        at: &KeyPath,
        expected: &str,
        hint: &str,
        interpret: impl Fn(&toml::Value) -> Option<T>,
    ) -> Option<T> {
        if !self.given(at) {
            return None;
        }
        let (found, source) = match self.raw(at)? {
            Raw::File(value) => (interpret(value), None),
            Raw::Environment { variable, text } => {
                (readings(text).iter().find_map(&interpret), Some(variable.clone()))
            }
            Raw::Table(_) => (None, None),
        };
        if found.is_none() {
            let source = source.map_or_else(String::new, |variable| format!(", in {variable}"));
            self.refuse(at, format!("{expected} is expected{source}"), hint);
        }
        found
    }

    fn raw(&self, at: &KeyPath) -> Option<&Raw> {
        at.keys().iter().try_fold(&self.root, |node, key| match node {
            Raw::Table(table) => table.get(key),
            Raw::File(_) | Raw::Environment { .. } => None,
        })
    }

    fn refuse_unknown(&mut self, at: &KeyPath) {
        let Some(Raw::Table(table)) = self.raw(at) else { return };
        let keys: Vec<(KeyPath, Option<String>)> = table
            .iter()
            .map(|(key, raw)| match raw {
                Raw::Environment { variable, .. } => (at.key(key), Some(variable.clone())),
                Raw::Table(_) | Raw::File(_) => (at.key(key), None),
            })
            .collect();
        for (key, variable) in keys {
            match self.known.get(&key) {
                Some(Known::Section) => self.refuse_unknown(&key),
                Some(Known::Key) => {}
                None => {
                    let source = variable.map_or_else(String::new, |v| format!(", set by {v}"));
                    let hint = self.hint_for(&key);
                    self.refuse(&key, format!("unknown key{source}"), hint);
                }
            }
        }
    }

    /// The same key in another section of the same parent, else the nearest one of its own section.
    fn hint_for(&self, unknown: &KeyPath) -> String {
        let section = unknown.parent();
        let elsewhere = self.known.keys().find(|known| {
            let family = known.parent().parent();
            known.last() == unknown.last()
                && (family == section || (family == section.parent() && !section.keys().is_empty()))
        });
        if let Some(known) = elsewhere {
            return format!("\"{}\" belongs in [{}]", known.last(), known.parent());
        }
        let siblings = self.known.keys().filter(|known| known.parent() == section);
        nearest(unknown.last(), siblings.map(KeyPath::last))
            .map_or_else(String::new, |near| format!("the nearest known key is \"{near}\""))
    }
}

/// What the text of a variable can mean; the first that its key's type accepts is taken.
///
/// A text needs no quotes and a list no brackets, because in a shell both are a nuisance.
fn readings(text: &str) -> Vec<toml::Value> {
    let toml = toml::from_str::<toml::Table>(&format!("value = {text}"));
    let toml = toml.ok().filter(|table| table.len() == 1).and_then(|mut t| t.remove("value"));
    let list = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    let list = list.map(|item| toml::Value::String(item.to_owned())).collect();
    let mut readings = vec![toml::Value::String(text.to_owned())];
    readings.extend(toml.filter(|value| !value.is_str()));
    if !text.trim_start().starts_with('[') {
        readings.push(toml::Value::Array(list));
    }
    readings
}
