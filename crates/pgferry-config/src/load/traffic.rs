//! `[migrations.NAME.traffic]`: how clients come to the other side, and `[[…pgbouncers]]` within it.
//!
//! A key of another method is refused by name and not left unread: whoever wrote it believes that it
//! does something.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pgferry_plan::Side;
use pgferry_plan::traffic::OnPauseDeadline;

use super::node;
use super::raw::KeyPath;
use super::reader::Reader;
use crate::config::TrafficMethod;
use crate::{
    CommandConfig, Dsn, Lookup, PgbouncerConfig, PgbouncerEntry, PgbouncersConfig, Rewrite,
    TrafficConfig, WebhookConfig,
};

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// Each key, and the methods that read it.
const KEYS: [(&str, &[&str]); 12] = [
    ("pgbouncers", &["pgbouncer"]),
    ("pause_deadline", &["pgbouncer"]),
    ("on_pause_deadline", &["pgbouncer"]),
    ("before_line", &["command"]),
    ("after_line", &["command"]),
    ("aborted", &["command"]),
    ("pass_env", &["command"]),
    ("url", &["webhook"]),
    ("secret_env", &["webhook"]),
    ("secret_file", &["webhook"]),
    ("ca_file", &["webhook"]),
    ("deadline", &["command", "webhook"]),
];

/// Reads the section; none together with a problem. `nodes` are the sides' own addresses.
pub(super) fn traffic(
    reader: &mut Reader,
    at: &KeyPath,
    env: &dyn Lookup,
    nodes: &[Option<Dsn>; 2],
    stall_budget: Duration,
) -> Option<TrafficConfig> {
    reader.section(at);
    let method = reader.choice(&at.key("method"), TrafficMethod::MultiHost);
    let word = match method {
        TrafficMethod::MultiHost => "multi_host",
        TrafficMethod::Pgbouncer => "pgbouncer",
        TrafficMethod::Command => "command",
        TrafficMethod::Webhook => "webhook",
    };
    for (key, methods) in KEYS {
        if reader.given(&at.key(key)) && !methods.contains(&word) {
            reader.refuse(
                &at.key(key),
                format!("method = \"{word}\" does not read it"),
                format!("remove it, or choose method = \"{}\"", methods.join("\" or \"")),
            );
        }
    }
    match method {
        TrafficMethod::MultiHost => Some(TrafficConfig::MultiHost),
        TrafficMethod::Pgbouncer => {
            pgbouncers(reader, at, env, nodes, stall_budget).map(TrafficConfig::Pgbouncer)
        }
        TrafficMethod::Command => command(reader, at).map(TrafficConfig::Command),
        TrafficMethod::Webhook => webhook(reader, at, env).map(TrafficConfig::Webhook),
    }
}

fn pgbouncers(
    reader: &mut Reader,
    at: &KeyPath,
    env: &dyn Lookup,
    nodes: &[Option<Dsn>; 2],
    stall_budget: Duration,
) -> Option<PgbouncersConfig> {
    let key = at.key("pause_deadline");
    // Half of what writes may be held for leaves the other half to the rest of the switchover.
    let default = (2 * SECOND).min(stall_budget / 2);
    let pause_deadline = reader.duration(&key, default, MILLISECOND..=10 * 60 * SECOND);
    if pause_deadline >= stall_budget {
        reader.refuse(
            &key,
            "it must be below cutover.stall_budget: writes are held from the PAUSE on",
            "lower it, or raise cutover.stall_budget",
        );
    }
    let on_pause_deadline = reader.choice(&at.key("on_pause_deadline"), OnPauseDeadline::Abort);

    let list = at.key("pgbouncers");
    let mut keys = reader.sections(&list);
    keys.sort_by_key(|key| (key.parse::<usize>().unwrap_or(usize::MAX), key.clone()));
    if keys.is_empty() && reader.readable(&list) {
        reader.refuse(
            &list,
            "no PgBouncer is named",
            format!("add [[{list}]] with dsn, database and include_file for each of them"),
        );
    }
    let mut pgbouncers: Vec<PgbouncerConfig> = Vec::new();
    let (mut complete, mut names, mut places) =
        (!keys.is_empty(), BTreeSet::new(), BTreeSet::new());
    for key in keys {
        let at = list.key(&key);
        let Some(one) = pgbouncer(reader, &at, env, nodes) else {
            complete = false;
            continue;
        };
        let dsn = &one.login.dsn;
        let place = (dsn.host().to_owned(), dsn.port(), one.database.clone());
        if !places.insert(place) {
            reader.refuse(&at, "the same PgBouncer and entry stand here twice", "name each once");
        } else if !names.insert(one.name.clone()) {
            reader.refuse(
                &at.key("name"),
                "two PgBouncers have this name",
                "give each a name of its own",
            );
        }
        pgbouncers.push(one);
    }
    complete.then_some(PgbouncersConfig { pause_deadline, on_pause_deadline, pgbouncers })
}

fn pgbouncer(
    reader: &mut Reader,
    at: &KeyPath,
    env: &dyn Lookup,
    nodes: &[Option<Dsn>; 2],
) -> Option<PgbouncerConfig> {
    reader.section(at);
    let name = reader.text(&at.key("name"));
    let login = node::login(reader, at, env);
    if let Some(login) = login.as_ref().filter(|login| login.dsn.dbname() != "pgbouncer") {
        reader.refuse(
            &at.key("dsn"),
            format!("its dbname is \"{}\", which is no admin console", login.dsn.dbname()),
            "write dbname=pgbouncer: the entry that clients use is named by `database`",
        );
    }
    let database = reader.text(&at.key("database"));
    if database.is_none() && !reader.given(&at.key("database")) {
        reader.refuse(
            &at.key("database"),
            "missing",
            "write the name that clients use as dbname at this PgBouncer",
        );
    }
    let rewrite = rewrite(reader, at);
    let source = entry(reader, at, Side::Source, nodes, database.as_deref());
    let destination = entry(reader, at, Side::Destination, nodes, database.as_deref());
    if let (Some(source), Some(destination)) = (&source, &destination)
        && (&source.host, source.port, &source.dbname)
            == (&destination.host, destination.port, &destination.dbname)
    {
        reader.refuse(
            &at.key("destination_entry"),
            "it leads where source_entry does",
            "let each name the host, port and dbname of its side",
        );
    }
    let (login, database) = (login?, database?);
    let dsn = &login.dsn;
    Some(PgbouncerConfig {
        name: name.unwrap_or_else(|| format!("{}:{}", dsn.host(), dsn.port())),
        login,
        database,
        rewrite: rewrite?,
        entries: [source?, destination?],
    })
}

fn rewrite(reader: &mut Reader, at: &KeyPath) -> Option<Rewrite> {
    let (file_key, command_key) = (at.key("include_file"), at.key("rewrite_command"));
    let (file_given, command_given) = (reader.given(&file_key), reader.given(&command_key));
    let file = reader.text(&file_key).map(PathBuf::from);
    let argv = argv(reader, &command_key);
    let deadline =
        reader.duration(&at.key("rewrite_deadline"), 2 * SECOND, 100 * MILLISECOND..=60 * SECOND);
    match (file_given, command_given) {
        (true, true) => {
            reader.refuse(
                &command_key,
                "given together with include_file",
                "keep include_file where pgferry shares the disk with this PgBouncer, and rewrite_command where not",
            );
            None
        }
        (false, false) => {
            reader.refuse(
                &file_key,
                "missing: nothing says how the entry is changed",
                "name a file that pgbouncer.ini includes, or give rewrite_command",
            );
            None
        }
        (true, false) => {
            let file = file?;
            if !file.is_absolute() {
                reader.refuse(
                    &file_key,
                    "it is no absolute path",
                    "write it as pgbouncer.ini's %include does",
                );
            }
            Some(Rewrite::IncludeFile(file))
        }
        (false, true) => Some(Rewrite::Command { argv: argv?, deadline }),
    }
}

/// What stands behind the `=` in `[databases]` for one side: as given, else as the side's dsn says.
fn entry(
    reader: &mut Reader,
    at: &KeyPath,
    side: Side,
    nodes: &[Option<Dsn>; 2],
    database: Option<&str>,
) -> Option<PgbouncerEntry> {
    let key = at.key(&format!("{side}_entry"));
    let Some(text) = reader.text(&key) else {
        let dsn = nodes[side as usize].as_ref()?;
        return Some(PgbouncerEntry::to(dsn.host(), dsn.port(), dsn.dbname()));
    };
    match PgbouncerEntry::parse(&text, database.unwrap_or_default()) {
        Ok(entry) => Some(entry),
        Err(fault) => {
            reader.refuse(
                &key,
                fault,
                "write what stands behind the = in [databases], without a password: \"host=… port=… dbname=…\"",
            );
            None
        }
    }
}

fn command(reader: &mut Reader, at: &KeyPath) -> Option<CommandConfig> {
    let hooks = ["before_line", "after_line", "aborted"];
    let [before_line, after_line, aborted] = hooks.map(|key| argv(reader, &at.key(key)));
    let any = hooks.map(|key| reader.given(&at.key(key))).contains(&true);
    if !any {
        reader.refuse(
            &at.key("before_line"),
            "missing: no command is given",
            "give before_line, after_line, or both: a program with its arguments each",
        );
    }
    let deadline = hook_deadline(reader, at);
    let pass_env = reader.texts(&at.key("pass_env")).unwrap_or_default();
    any.then_some(CommandConfig { before_line, after_line, aborted, deadline, pass_env })
}

/// A program with its arguments. It is looked for here where the path says where it is.
fn argv(reader: &mut Reader, at: &KeyPath) -> Option<Vec<String>> {
    let argv = reader.texts(at)?;
    let Some(program) = argv.first() else {
        reader.refuse(at, "no program is named", "write [\"/path/to/program\", \"argument\"]");
        return None;
    };
    if !Path::new(program).is_absolute() {
        reader.refuse(
            at,
            "the program is not named by an absolute path",
            "write [\"/path/to/program\", \"argument\"]: no shell looks for it, and none reads the arguments",
        );
        return None;
    }
    if !Path::new(program).is_file() {
        reader.refuse(
            at,
            "there is no such program on this machine",
            "name one that is here, where pgferry runs",
        );
        return None;
    }
    Some(argv)
}

/// Below a switchover's longest time before its fence, which is a minute.
fn hook_deadline(reader: &mut Reader, at: &KeyPath) -> Duration {
    reader.duration(&at.key("deadline"), 10 * SECOND, 100 * MILLISECOND..=50 * SECOND)
}

fn webhook(reader: &mut Reader, at: &KeyPath, env: &dyn Lookup) -> Option<WebhookConfig> {
    let key = at.key("url");
    let url = reader.text(&key);
    match &url {
        None if !reader.given(&key) => {
            reader.refuse(&key, "missing", "write url = \"https://…\"");
        }
        Some(url) if !is_url(url) => reader.refuse(
            &key,
            "this is no URL that a webhook can be sent to",
            "write \"https://host/path\", without user, password and fragment",
        ),
        Some(_) | None => {}
    }
    let secret = node::password(reader, at, "secret", env);
    if !reader.given(&at.key("secret_env")) && !reader.given(&at.key("secret_file")) {
        reader.refuse(
            &at.key("secret_env"),
            "missing: nothing to sign with",
            "add secret_env or secret_file, with a long random text that the receiver knows too",
        );
    }
    let deadline = hook_deadline(reader, at);
    let ca_file = reader.text(&at.key("ca_file")).map(PathBuf::from);
    if let Some(Err(error)) = ca_file.as_ref().map(std::fs::read) {
        reader.refuse(
            &at.key("ca_file"),
            format!("the file cannot be read: {error}"),
            "name a file of certificates in PEM form that is on this machine",
        );
    }
    Some(WebhookConfig { url: url?, secret: secret?, deadline, ca_file })
}

fn is_url(url: &str) -> bool {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    rest.is_some_and(|rest| {
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        let graphic = url.chars().all(|c| c.is_ascii_graphic());
        graphic && !authority.is_empty() && !authority.contains('@') && !url.contains('#')
    })
}
