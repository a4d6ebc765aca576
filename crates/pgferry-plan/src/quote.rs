//! Quoting for the statements that findings print, so that they run as printed.
//!
//! Nothing here builds a statement that pgferry itself runs: those live in the crate that speaks
//! to databases.

use crate::name::TableName;

/// An identifier, always in quotes.
pub(crate) fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A string literal, whatever `standard_conforming_strings` says.
pub(crate) fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') {
        format!("E'{}'", quoted.replace('\\', "\\\\"))
    } else {
        format!("'{quoted}'")
    }
}

/// A table's name in a statement.
pub(crate) fn table(name: &TableName) -> String {
    format!("{}.{}", ident(&name.schema), ident(&name.name))
}

/// A list as configuration writes it: `["public.a", "public.b"]`.
pub(crate) fn toml_list<'a>(names: impl IntoIterator<Item = &'a TableName>) -> String {
    let quoted: Vec<String> = names
        .into_iter()
        .map(|name| {
            let text = name.to_string().replace('\\', "\\\\").replace('"', "\\\"");
            format!("\"{text}\"")
        })
        .collect();
    format!("[{}]", quoted.join(", "))
}

/// The first ten of a list for a message, and how many there are when there are more.
pub(crate) fn first_ten<T: std::fmt::Display>(items: &[T]) -> String {
    const SHOWN: usize = 10;
    let shown: Vec<String> = items.iter().take(SHOWN).map(ToString::to_string).collect();
    let shown = shown.join(", ");
    if items.len() > SHOWN { format!("{shown}, … ({} in all)", items.len()) } else { shown }
}

/// "1 table", "2 tables".
pub(crate) fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_survive_hostile_names() {
        assert_eq!(ident("a\"b"), "\"a\"\"b\"");
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal("a\\'b"), "E'a\\\\''b'");
        assert_eq!(table(&TableName::new("Odd Schema", "t")), "\"Odd Schema\".\"t\"");
        assert_eq!(toml_list([&TableName::new("s", "a\"b")]), "[\"s.a\\\"b\"]");
    }

    #[test]
    fn long_lists_are_cut_and_counted() {
        let many: Vec<u32> = (1..=12).collect();
        assert_eq!(first_ten(&many), "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, … (12 in all)");
        assert_eq!(first_ten(&many[..2]), "1, 2");
    }
}
