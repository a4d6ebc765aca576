//! What of a definition is compared: everything but casts, brackets and blanks.
//!
//! PostgreSQL does not always print a restored definition as it printed the dumped one: `x IN
//! ('a', 'b')` over varchar comes as a cast of an array first, and as an array of casts after. A
//! difference that a restore makes by itself would never go away, so it must not count.

/// Words that go on with a type's name after a blank.
const TYPE_WORDS: [&str; 4] = [" varying", " precision", " with time zone", " without time zone"];

/// The definition without casts, round brackets and blanks; what stands in quotes is kept.
pub(crate) fn gist(definition: &str) -> String {
    let mut gist = String::with_capacity(definition.len());
    let mut rest = definition;
    while let Some(next) = rest.chars().next() {
        if matches!(next, '\'' | '"') {
            let (quoted, after) = split_quoted(rest, next);
            gist.push_str(quoted);
            rest = after;
        } else if let Some(after) = rest.strip_prefix("::") {
            rest = after_type(after);
        } else {
            if !next.is_whitespace() && !matches!(next, '(' | ')') {
                gist.push(next);
            }
            rest = &rest[next.len_utf8()..];
        }
    }
    gist
}

/// A doubled quote ends one quotation and begins the next, which comes to the same.
fn split_quoted(text: &str, quote: char) -> (&str, &str) {
    let end = text[1..].find(quote).map_or(text.len(), |at| at + 2);
    text.split_at(end)
}

fn after_type(text: &str) -> &str {
    let mut rest = text;
    loop {
        let before = rest;
        if rest.starts_with('"') {
            rest = split_quoted(rest, '"').1;
        }
        rest =
            rest.trim_start_matches(|c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '$'));
        for word in TYPE_WORDS {
            rest = rest.strip_prefix(word).unwrap_or(rest);
        }
        if let Some((inside, after)) = rest.strip_prefix('(').and_then(|r| r.split_once(')'))
            && inside.chars().all(|c| c.is_ascii_digit() || c == ',')
        {
            rest = after;
        }
        rest = rest.strip_prefix("[]").unwrap_or(rest);
        if rest.len() == before.len() {
            return rest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_of_casts_is_a_cast_array() {
        assert_eq!(
            gist("((s)::text = ANY ((ARRAY['a b'::character varying, 'b'::varchar(3)])::text[]))"),
            gist("s::text = ANY (ARRAY[('a b'::character varying)::text, ('b'::text)])")
        );
        assert_eq!(gist("(x)::timestamp(3) without time zone > y"), "x>y");
        assert_eq!(gist("a::\"My Type\"[] = 'it''s ::text ('"), "a='it''s ::text ('");
    }

    #[test]
    fn other_words_are_another_gist() {
        assert_ne!(gist("CHECK ((a > 1))"), gist("CHECK ((a > 2))"));
        assert_ne!(gist("USING btree (a)"), gist("USING btree (a, b)"));
        assert_ne!(gist("x = ' '"), gist("x = ''"));
        assert_eq!(gist("cut 'short"), "cut'short");
    }
}
