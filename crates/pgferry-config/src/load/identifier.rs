//! `schema.table` as it is written in the file, to the names that the catalog holds.
//!
//! Never guesses about letter case: SQL would fold `Orders` to `orders`, the catalog may hold either,
//! so an unquoted upper-case letter is refused.

use pgferry_plan::TableName;

/// Why a text is not the name of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum InvalidTable {
    #[error("a table is written schema.table")]
    NotQualified,
    #[error(
        "a name that is not all lower-case letters, digits, \"_\" and \"$\" must be in double quotes"
    )]
    NeedsQuotes,
    #[error("a double quote is not closed, or not followed by a dot or the end")]
    Quotes,
}

/// Reads `public.orders`, `"My Schema"."T"`, with `""` for a quote inside quotes.
pub(super) fn table(text: &str) -> Result<TableName, InvalidTable> {
    let (schema, rest) = part(text)?;
    let (name, rest) = part(rest.ok_or(InvalidTable::NotQualified)?)?;
    match rest {
        None => Ok(TableName::new(schema, name)),
        Some(_) => Err(InvalidTable::NotQualified),
    }
}

/// One name, and what follows its dot.
fn part(text: &str) -> Result<(String, Option<&str>), InvalidTable> {
    if let Some(quoted) = text.strip_prefix('"') {
        return quoted_part(quoted);
    }
    let (name, rest) = match text.split_once('.') {
        Some((name, rest)) => (name, Some(rest)),
        None => (text, None),
    };
    let starts = |c: char| c.is_ascii_lowercase() || c == '_' || !c.is_ascii();
    let goes_on = |c: char| starts(c) || c.is_ascii_digit() || c == '$';
    if name.is_empty() {
        Err(InvalidTable::NotQualified)
    } else if !name.starts_with(starts) || !name.chars().all(goes_on) {
        Err(InvalidTable::NeedsQuotes)
    } else {
        Ok((name.to_owned(), rest))
    }
}

fn quoted_part(text: &str) -> Result<(String, Option<&str>), InvalidTable> {
    let mut name = String::new();
    let mut rest = text;
    loop {
        let (before, after) = rest.split_once('"').ok_or(InvalidTable::Quotes)?;
        name.push_str(before);
        match after.strip_prefix('"') {
            Some(more) => {
                name.push('"');
                rest = more;
            }
            None if name.is_empty() => return Err(InvalidTable::NotQualified),
            None if after.is_empty() => return Ok((name, None)),
            None => {
                let rest = after.strip_prefix('.').ok_or(InvalidTable::Quotes)?;
                return Ok((name, Some(rest)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<(&str, &str), InvalidTable>) {
        assert_eq!(table(text), expected.map(|(s, t)| TableName::new(s, t)), "{text}");
    }

    #[test]
    fn reads_plain_and_quoted_names() {
        check("public.orders", Ok(("public", "orders")));
        check("_a.b$1", Ok(("_a", "b$1")));
        check("\"My Schema\".\"T\"", Ok(("My Schema", "T")));
        check("public.\"a.b\"\"c\"", Ok(("public", "a.b\"c")));
        check("\"s\".t", Ok(("s", "t")));
        check("größe.maß", Ok(("größe", "maß")));
    }

    #[test]
    fn refuses_what_is_ambiguous() {
        for text in ["orders", "", ".", "public.", ".orders", "a.b.c", "\"\".t", "\"s\""] {
            check(text, Err(InvalidTable::NotQualified));
        }
        for text in ["public.Orders", "Public.orders", "public.my table", "1.t", "a.b-c"] {
            check(text, Err(InvalidTable::NeedsQuotes));
        }
        for text in ["\"s.t", "\"s\"x.t", "\"s\".\"t\"x", "\"s\".\"t"] {
            check(text, Err(InvalidTable::Quotes));
        }
    }
}
