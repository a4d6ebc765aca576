//! The known word that a mistyped one was probably meant to be.
//!
//! Only known words are ever returned; the mistyped one may be part of a secret, and whether it is
//! printed is for the caller to decide.

/// The known word most like `word`; none only when there is no known word.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    let likeness = |other: &str| {
        // Jaro-Winkler alone prefers a shared beginning ("sslmode" for "sslmodd" is fine, but
        // "port" for "prot" needs the transposition counted), so the two measures are added.
        strsim::jaro_winkler(&word, other) + strsim::normalized_damerau_levenshtein(&word, other)
    };
    known.into_iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
}

/// Whether two words differ by no more than a slip of the fingers.
pub(crate) fn is_near(word: &str, known: &str) -> bool {
    let allowed = if known.len() < 5 { 1 } else { 2 };
    strsim::damerau_levenshtein(&word.to_lowercase(), known) <= allowed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_meant() {
        let known = ["autostart", "heartbeat_interval", "poll_interval", "port", "passfile"];
        for (word, meant) in [
            ("autostrat", "autostart"),
            ("AutoStart", "autostart"),
            ("heartbeat", "heartbeat_interval"),
            ("pol_intervall", "poll_interval"),
            ("prot", "port"),
        ] {
            assert_eq!(nearest(word, known), Some(meant), "{word}");
        }
        assert_eq!(nearest("port", []), None);
    }

    #[test]
    fn a_slip_is_near_and_another_word_is_not() {
        assert!(is_near("pasword", "password"));
        assert!(is_near("prot", "port"));
        assert!(!is_near("sort_of", "port"));
    }
}
