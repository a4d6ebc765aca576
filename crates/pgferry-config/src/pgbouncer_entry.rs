//! An entry of PgBouncer's `[databases]`: what stands behind the `=`, read as PgBouncer reads it.

/// Where an entry leads, and its whole text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PgbouncerEntry {
    /// What stands behind the `=`.
    pub text: String,
    /// `host`
    pub host: String,
    /// `port`
    pub port: u16,
    /// `dbname`
    pub dbname: String,
}

impl PgbouncerEntry {
    /// The least that leads to a database.
    #[must_use]
    pub fn to(host: &str, port: u16, dbname: &str) -> Self {
        Self {
            text: format!("host={} port={port} dbname={}", quoted(host), quoted(dbname)),
            host: host.to_owned(),
            port,
            dbname: dbname.to_owned(),
        }
    }

    /// Reads an entry; `database` is its name, which stands for a dbname that is not given.
    ///
    /// # Errors
    /// In words that show nothing of the text.
    pub fn parse(text: &str, database: &str) -> Result<Self, &'static str> {
        let words = words(text)?;
        let word = |name: &str| {
            words.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.clone())
        };
        if word("password").is_some() {
            return Err("it holds a password");
        }
        let port = word("port").map_or(Ok(5432), |port| port.parse());
        Ok(Self {
            host: word("host").ok_or("it names no host")?,
            port: port.map_err(|_| "its port is no port number")?,
            dbname: word("dbname").unwrap_or_else(|| database.to_owned()),
            text: text.to_owned(),
        })
    }
}

/// The pairs of an entry, as PgBouncer reads them: a quote within quotes is doubled.
fn words(text: &str) -> Result<Vec<(String, String)>, &'static str> {
    if text.contains(['\n', '\r', '\0']) {
        return Err("it has several lines, or a NUL character");
    }
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (key, after) = rest.split_once('=').ok_or("a word has no =")?;
        let key = key.trim();
        if key.is_empty() || key.contains(char::is_whitespace) {
            return Err("a word has no =");
        }
        let after = after.trim_start();
        let (value, next) = if let Some(quoted) = after.strip_prefix('\'') {
            quoted_value(quoted).ok_or("a quote is not closed")?
        } else {
            let end = after.find(char::is_whitespace).unwrap_or(after.len());
            (after[..end].to_owned(), &after[end..])
        };
        words.push((key.to_owned(), value));
        rest = next.trim_start();
    }
    Ok(words)
}

fn quoted_value(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut rest = text;
    loop {
        let end = rest.find('\'')?;
        value.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('\'') {
            Some(more) => {
                value.push('\'');
                rest = more;
            }
            None => return Some((value, rest)),
        }
    }
}

fn quoted(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:,".contains(c);
    if !value.is_empty() && value.chars().all(plain) {
        return value.to_owned();
    }
    format!("'{}'", value.replace('\'', "''"))
}
