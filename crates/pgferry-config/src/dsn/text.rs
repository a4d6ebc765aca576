//! The two written forms of a DSN, as libpq's `conninfo_parse` and `conninfo_uri_parse` read them.
//!
//! Form only: which words exist and what they may say is judged in `words`. A fault names a position
//! and never quotes the text, which may hold a password.

use super::DsnFault;

const FORM: &str =
    "write \"host=… port=5432 dbname=… user=…\" or \"postgresql://user@host:5432/dbname\"";

/// Every word with its value, in the order of the text, a repeated word more than once.
pub(super) fn pairs(text: &str) -> Result<Vec<(String, String)>, DsnFault> {
    let found = match ["postgresql://", "postgres://"].iter().find_map(|p| text.strip_prefix(p)) {
        Some(rest) => uri_pairs(rest),
        None => keyword_pairs(text),
    }?;
    if found.iter().any(|(_, value)| value.contains('\0')) {
        // Every reader of it is C, and would stop there.
        return Err(DsnFault::new("it contains a NUL character", "remove it"));
    }
    Ok(found)
}

fn keyword_pairs(text: &str) -> Result<Vec<(String, String)>, DsnFault> {
    let mut pairs = Vec::new();
    let mut at = Cursor { chars: text.chars().collect(), next: 0 };
    loop {
        at.skip_spaces();
        if at.peek().is_none() {
            return Ok(pairs);
        }
        let begin = at.next + 1;
        let key = at.take_while(|c| c != '=' && !is_space(c));
        at.skip_spaces();
        if at.take() != Some('=') || key.is_empty() {
            return Err(DsnFault::new(
                format!("a word and \"=\" are expected at character {begin}"),
                format!("put a value that contains spaces in single quotes; {FORM}"),
            ));
        }
        at.skip_spaces();
        pairs.push((key, value(&mut at)?));
    }
}

/// A value, quoted or not; a backslash takes the next character as it is in both.
fn value(at: &mut Cursor) -> Result<String, DsnFault> {
    let mut value = String::new();
    let quote = at.next + 1;
    let quoted = at.peek() == Some('\'');
    if quoted {
        at.take();
    }
    loop {
        match at.take() {
            Some('\\') => value.extend(at.take()),
            Some('\'') if quoted => return Ok(value),
            Some(c) if !quoted && is_space(c) => return Ok(value),
            Some(c) => value.push(c),
            None if quoted => {
                return Err(DsnFault::new(
                    format!("the quote at character {quote} is not closed"),
                    "inside quotes write \\' for a quote and \\\\ for a backslash",
                ));
            }
            None => return Ok(value),
        }
    }
}

/// What follows `postgresql://`: `[user[:password]@][host][:port][/dbname][?word=value[&…]]`.
fn uri_pairs(rest: &str) -> Result<Vec<(String, String)>, DsnFault> {
    let mut pairs = Vec::new();
    let mut push = |key: &str, value: &str| -> Result<(), DsnFault> {
        pairs.push((key.to_owned(), decoded(value)?));
        Ok(())
    };

    let (credentials, rest) = match rest.find(['@', '/']) {
        Some(at) if rest.as_bytes()[at] == b'@' => (Some(&rest[..at]), &rest[at + 1..]),
        Some(_) | None => (None, rest),
    };
    if let Some(credentials) = credentials {
        let (user, password) = match credentials.split_once(':') {
            Some((user, password)) => (user, Some(password)),
            None => (credentials, None),
        };
        push("user", user)?;
        if let Some(password) = password {
            push("password", password)?;
        }
    }

    let (address, query) = match rest.split_once('?') {
        Some((address, query)) => (address, Some(query)),
        None => (rest, None),
    };
    let (server, dbname) = match address.split_once('/') {
        Some((server, dbname)) => (server, Some(dbname)),
        None => (address, None),
    };
    let (host, port) = host_and_port(server)?;
    // "postgresql:///db?host=/tmp": an empty place says nothing, and a parameter may say it.
    for (key, place) in [("host", Some(host)), ("port", port), ("dbname", dbname)] {
        if let Some(place) = place.filter(|place| !place.is_empty()) {
            push(key, place)?;
        }
    }

    let query = query.map(|query| query.strip_suffix('&').unwrap_or(query));
    for parameter in query.filter(|query| !query.is_empty()).into_iter().flat_map(|q| q.split('&'))
    {
        match parameter.split_once('=') {
            // JDBC's word, which libpq takes in a URI.
            Some(("ssl", "true")) => push("sslmode", "require")?,
            Some((key, value)) if !value.contains('=') => push(&decoded(key)?, value)?,
            Some(_) | None => {
                return Err(DsnFault::new(
                    "a parameter after \"?\" is not of the form word=value",
                    "write %3D for \"=\" and %26 for \"&\" inside a value",
                ));
            }
        }
    }
    Ok(pairs)
}

fn host_and_port(server: &str) -> Result<(&str, Option<&str>), DsnFault> {
    let malformed = || {
        DsnFault::new(
            "the host of the URI is malformed",
            "an IPv6 address goes in brackets: [::1]:5432; in user names write %40 for \"@\"",
        )
    };
    if let Some(rest) = server.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or_else(malformed)?;
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err(malformed()),
        };
    }
    match server.split_once(':') {
        // With a comma it is a list of servers: refused later, in words that fit.
        Some(_) if server.contains(',') => Ok((server, None)),
        Some((_, port)) if port.contains(':') => Err(malformed()),
        Some((host, port)) => Ok((host, Some(port))),
        None => Ok((server, None)),
    }
}

fn decoded(text: &str) -> Result<String, DsnFault> {
    let invalid = || {
        DsnFault::new(
            "a \"%\" in the URI is not followed by two hexadecimal digits of a UTF-8 text",
            "write %25 for \"%\" itself",
        )
    };
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|b| char::from(b).to_digit(16));
        let (high, low) = (digit().ok_or_else(invalid)?, digit().ok_or_else(invalid)?);
        bytes.push(u8::try_from(high * 16 + low).map_err(|_| invalid())?);
    }
    String::from_utf8(bytes).map_err(|_| invalid())
}

/// C's `isspace` in the C locale.
fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\u{b}' | '\u{c}')
}

struct Cursor {
    chars: Vec<char>,
    next: usize,
}

impl Cursor {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.next).copied()
    }

    fn take(&mut self) -> Option<char> {
        let c = self.peek();
        self.next += usize::from(c.is_some());
        c
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> String {
        let mut taken = String::new();
        while let Some(c) = self.peek().filter(|c| wanted(*c)) {
            taken.push(c);
            self.next += 1;
        }
        taken
    }

    fn skip_spaces(&mut self) {
        self.take_while(is_space);
    }
}
