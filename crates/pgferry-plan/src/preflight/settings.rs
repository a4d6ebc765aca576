//! Settings kept in the catalog for the database and its roles: what the apply worker would stumble
//! over, and what the application would miss on the other side.

use std::collections::BTreeMap;

use super::{CatalogSetting, Node};
use crate::finding::Finding;
use crate::quote::{first_ten, ident, literal};

/// Settings whose value is a list of names that the catalog keeps quoted one by one; as a single
/// literal the list would become one name (PostgreSQL's GUC_LIST_QUOTE).
const LISTS: [&str; 6] = [
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
];

pub(super) fn check_node(node: Node<'_>, findings: &mut Vec<Finding>) {
    let Some(settings) = node.facts.catalog_settings.present() else { return };
    for setting in settings.iter().filter(|setting| setting.is_worker) {
        match setting.name.as_str() {
            "pglogical.conflict_resolution" if setting.value != "apply_remote" => {
                findings.push(Finding::block(
                    "conflict_resolution",
                    node.about(&setting.name),
                    format!(
                        "the apply worker on the {} would run with {} = {}",
                        node.side, setting.name, setting.value
                    ),
                    format!("{} RESET {};", target(node, setting), name_of(&setting.name)),
                ));
            }
            "lock_timeout" if !setting.value.trim_start_matches('0').is_empty() => {
                findings.push(Finding::warn(
                    "lock_timeout_for_worker",
                    node.about(&setting.name),
                    format!(
                        "lock_timeout = {} on the {} makes the apply worker fail and start again \
                         whenever it waits that long for a lock",
                        setting.value, node.side
                    ),
                    format!("{} RESET \"lock_timeout\";", target(node, setting)),
                ));
            }
            _ => {}
        }
    }
}

/// Compared for the database and for the roles that matter to it; the fence's own setting is not,
/// because the fence keeps it per side.
pub(super) fn check_pair(source: Node<'_>, destination: Node<'_>, findings: &mut Vec<Finding>) {
    let (Some(here), Some(there), Some(roles)) = (
        source.facts.catalog_settings.present(),
        destination.facts.catalog_settings.present(),
        destination.facts.roles.present(),
    ) else {
        return;
    };
    let matters = |setting: &&CatalogSetting| {
        setting.name != "default_transaction_read_only"
            && setting.role.as_ref().is_none_or(|role| {
                roles.get(role).is_some_and(|role| !role.superuser) && used(source, role)
            })
    };
    let there: BTreeMap<Key<'_>, &CatalogSetting> =
        there.iter().filter(matters).map(|setting| (key(setting), setting)).collect();
    let here: BTreeMap<Key<'_>, &CatalogSetting> =
        here.iter().filter(matters).map(|setting| (key(setting), setting)).collect();
    let mut differing = Vec::new();
    let mut statements = Vec::new();
    for (key, setting) in &here {
        if there.get(key).is_none_or(|other| other.value != setting.value) {
            differing.push(described(setting));
            statements.push(format!(
                "{} SET {} TO {};",
                target(destination, setting),
                name_of(&setting.name),
                value_of(setting)
            ));
        }
    }
    for (key, setting) in &there {
        if !here.contains_key(key) {
            differing.push(described(setting));
            statements.push(format!(
                "{} RESET {};",
                target(destination, setting),
                name_of(&setting.name)
            ));
        }
    }
    if !differing.is_empty() {
        findings.push(Finding::warn(
            "settings_differ",
            destination.about("settings of roles and of the database"),
            format!(
                "set otherwise on the destination than on the source: {}",
                first_ten(&differing)
            ),
            format!("on the destination: {}", statements.join(" ")),
        ));
    }
}

type Key<'a> = (bool, Option<&'a str>, String);

fn key(setting: &CatalogSetting) -> Key<'_> {
    (setting.in_database, setting.role.as_deref(), setting.name.to_lowercase())
}

/// Whether the source's database has to do with this role.
fn used(source: Node<'_>, role: &str) -> bool {
    let referenced =
        source.facts.referenced_roles.present().is_some_and(|roles| roles.contains_key(role));
    let writes = source
        .facts
        .application_roles
        .present()
        .is_some_and(|roles| roles.iter().any(|known| known.name == role && known.may_write()));
    referenced || writes
}

fn described(setting: &CatalogSetting) -> String {
    match &setting.role {
        Some(role) => format!("{} of role {role}", setting.name),
        None => setting.name.clone(),
    }
}

fn target(node: Node<'_>, setting: &CatalogSetting) -> String {
    let database = ident(node.database());
    match (&setting.role, setting.in_database) {
        (None, true) => format!("ALTER DATABASE {database}"),
        (None, false) => "ALTER ROLE ALL".to_owned(),
        (Some(role), true) => format!("ALTER ROLE {} IN DATABASE {database}", ident(role)),
        (Some(role), false) => format!("ALTER ROLE {}", ident(role)),
    }
}

fn name_of(setting: &str) -> String {
    setting.split('.').map(ident).collect::<Vec<_>>().join(".")
}

fn value_of(setting: &CatalogSetting) -> String {
    if !LISTS.contains(&setting.name.as_str()) {
        return literal(&setting.value);
    }
    let names: Vec<String> = split_names(&setting.value).iter().map(|name| literal(name)).collect();
    if names.is_empty() { "''".to_owned() } else { names.join(", ") }
}

/// Splits `a, "b, c"` into `a` and `b, c`.
fn split_names(list: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut name = String::new();
    let mut quoted = false;
    let mut any = false;
    let mut characters = list.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                name.push('"');
            }
            '"' => {
                quoted = !quoted;
                any = true;
            }
            ',' if !quoted => {
                names.push(std::mem::take(&mut name));
                any = false;
            }
            _ if !quoted && character.is_whitespace() => {}
            _ => {
                name.push(character);
                any = true;
            }
        }
    }
    if any {
        names.push(name);
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_split_as_the_catalog_quotes_them() {
        assert_eq!(split_names("a, \"Weird, \"\"Name\", public"), ["a", "Weird, \"Name", "public"]);
        assert_eq!(split_names("\"\""), [""]);
        assert!(split_names("").is_empty());
    }
}
