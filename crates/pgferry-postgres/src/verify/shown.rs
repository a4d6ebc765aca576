//! Waiting until what the active side has logged is also what it shows.
//!
//! A commit is in the log, and so may be on the passive side, before the active side shows it: its
//! backend may have to wait for a processor, or for a synchronous standby. Nothing that others commit
//! meanwhile says how that backend does, a marker neither; only that its transaction has ended does.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use tokio_postgres::Client;

/// Longer than a backend waits for a processor. A statement that takes longer is taken for one that
/// does not commit: `CREATE INDEX` may run for hours, and damage is to be found meanwhile.
const PATIENCE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(2);

/// Sessions that may be in the middle of a commit. Of one whose state may not be seen that is not known.
///
/// COMMIT PREPARED has no transaction of its own: the prepared one is shown when the statement ends.
const MAY_COMMIT: &str = "\
    SELECT pid, coalesce(backend_xid::text, query_start::text), \
    coalesce(wait_event = 'SyncRep', false) \
    FROM pg_catalog.pg_stat_activity \
    WHERE datname = current_database() AND pid <> pg_backend_pid() \
    AND (backend_xid IS NOT NULL AND coalesce(state NOT LIKE 'idle in transaction%', true) \
        OR state = 'active' AND query ~* 'commit\\s+prepared')";

/// A transaction of a session, or its statement where it has none.
type Transaction = (i32, String);

/// What was waited for on the active side, in one comparison of a few rows.
#[derive(Debug, Default)]
pub(super) struct Shown {
    /// Not waited for again.
    long: HashSet<Transaction>,
}

impl Shown {
    /// Returns when every commit that was logged before the call is shown; false when one of them
    /// waits for a standby, which may take for ever.
    pub(super) async fn wait(&mut self, active: &Client) -> Result<bool, tokio_postgres::Error> {
        let began = Instant::now();
        let mut first: Option<HashSet<Transaction>> = None;
        loop {
            let now = may_commit(active).await?;
            // A long one that waits for a standby by now has come to its commit.
            let counts = |(transaction, waits): &&(Transaction, bool)| {
                *waits || !self.long.contains(transaction)
            };
            let mut left: HashSet<Transaction> =
                now.iter().filter(counts).map(|(transaction, _)| transaction.clone()).collect();
            if let Some(first) = &first {
                left.retain(|transaction| first.contains(transaction));
            }
            if left.is_empty() {
                return Ok(true);
            }
            if began.elapsed() > PATIENCE {
                let waits = |(transaction, waits): &(Transaction, bool)| {
                    *waits && left.contains(transaction)
                };
                let standby_is_waited_for = now.iter().any(waits);
                if !standby_is_waited_for {
                    self.long.extend(left);
                }
                return Ok(!standby_is_waited_for);
            }
            first = Some(left);
            tokio::time::sleep(PAUSE).await;
        }
    }
}

async fn may_commit(active: &Client) -> Result<Vec<(Transaction, bool)>, tokio_postgres::Error> {
    let rows = active.query(MAY_COMMIT, &[]).await?;
    rows.iter().map(|row| Ok(((row.try_get(0)?, row.try_get(1)?), row.try_get(2)?))).collect()
}
