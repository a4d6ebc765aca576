//! What releases of pglogical cannot do by themselves, so that pgferry does it in their place.
//!
//! Pure: versions in, judgement out. No statement and no catalog is in here.

/// Releases before this one look whether the provider knows failover slots, and where it does they
/// ask for one in the words of a fork of old, which are a syntax error on every PostgreSQL (seen).
const WITHOUT_FAILOVER_SLOTS: Version = (2, 4, 5);

/// The first major version that knows failover slots.
const KNOWS_FAILOVER_SLOTS: i32 = 17;

/// Major, minor and patch of a release.
pub type Version = (u32, u32, u32);

/// A release as numbers; what is no number counts as 0.
#[must_use]
pub fn version(text: &str) -> Version {
    let mut parts = text.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    (next(), next(), next())
}

/// Whether a subscription on a server with this release can begin at a provider of this major
/// version: make its slot there, and call itself initialised.
#[must_use]
pub fn begins_by_itself(subscribers_release: &str, provider_major: i32) -> bool {
    provider_major < KNOWS_FAILOVER_SLOTS || version(subscribers_release) >= WITHOUT_FAILOVER_SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_releases_cannot_begin_at_a_server_that_knows_failover_slots() {
        for old in ["2.3.3", "2.4.2", "2.4.4", "2.4"] {
            assert!(!begins_by_itself(old, 17) && !begins_by_itself(old, 18), "{old}");
            assert!(begins_by_itself(old, 16), "{old}");
        }
        for new in ["2.4.5", "2.4.10", "2.5.0", "3.0"] {
            assert!(begins_by_itself(new, 17), "{new}");
        }
    }
}
