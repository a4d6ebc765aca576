//! The one place that puts names and text into SQL.
//!
//! Nothing else in this crate writes a quote character. A value that can be bound is bound; these
//! are for what cannot be: identifiers, utility statements and the replication grammar.

use pgferry_plan::TableName;
use postgres_protocol::escape::{escape_identifier, escape_literal};

/// An identifier, always in double quotes, so that no list of reserved words is needed.
pub fn ident(name: &str) -> String {
    escape_identifier(name)
}

/// A text literal, safe whatever `standard_conforming_strings` says.
pub fn literal(text: &str) -> String {
    escape_literal(text)
}

/// A table or sequence, qualified: sessions of pgferry have an empty `search_path`.
pub fn table(name: &TableName) -> String {
    format!("{}.{}", ident(&name.schema), ident(&name.name))
}

/// A list of columns, without the parentheses.
pub fn columns(names: &[String]) -> String {
    names.iter().map(|name| ident(name)).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_always_quoted() {
        assert_eq!(ident("orders"), "\"orders\"");
        assert_eq!(ident("Odd \"name\""), "\"Odd \"\"name\"\"\"");
        assert_eq!(table(&TableName::new("public", "a.b")), "\"public\".\"a.b\"");
        assert_eq!(columns(&["id".to_owned(), "to".to_owned()]), "\"id\", \"to\"");
    }

    #[test]
    fn literals_survive_quotes_and_backslashes() {
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal(r"a\b"), r" E'a\\b'");
    }
}
