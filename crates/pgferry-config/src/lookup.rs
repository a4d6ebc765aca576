//! The environment as a parameter, so that no test has to change that of its process.
//!
//! Nothing here interprets a value: overrides and passwords are read by those who know their type.

use std::collections::BTreeMap;

/// Named values from outside the file.
pub trait Lookup {
    /// The value of `key`; none when it is not set, or is not UTF-8.
    fn get(&self, key: &str) -> Option<String>;

    /// Every name that is set.
    fn keys(&self) -> Vec<String>;
}

/// The environment of this process.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessEnv;

impl Lookup for ProcessEnv {
    fn get(&self, key: &str) -> Option<String> {
        std::env::var(key).ok()
    }

    fn keys(&self) -> Vec<String> {
        // A name that is not UTF-8 cannot begin with one of ours and name a key as well.
        std::env::vars_os().filter_map(|(key, _)| key.into_string().ok()).collect()
    }
}

impl Lookup for BTreeMap<String, String> {
    fn get(&self, key: &str) -> Option<String> {
        BTreeMap::get(self, key).cloned()
    }

    fn keys(&self) -> Vec<String> {
        BTreeMap::keys(self).cloned().collect()
    }
}
