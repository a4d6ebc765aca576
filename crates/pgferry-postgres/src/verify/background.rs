//! Rounds of the verification in the background: one at a time, at a low rate, given up at once.
//!
//! When one is due is judged in `pgferry-plan`. What a round has come to is on the destination, so
//! that it holds over a restart without a line in the journal.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use pgferry_plan::verify::background::{BackgroundView, Round};
use pgferry_plan::verify::{DifferenceKind, Differing, NAMED, Verified};
use pgferry_plan::{Blocker, Seen, Side};
use uuid::Uuid;

use super::{Running, VerifyError, VerifyFigures, Wish, lock, run};
use crate::cluster::PgCluster;
use crate::migrate::migrate_node;
use crate::node::{LookError, is_missing};
use crate::quote::literal;
use crate::statements::Guard;

/// A table counts for at least so many bytes: thousands of small ones cost statements, not bytes.
const LEAST_CHARGE: u64 = 256 << 10;

/// Without them nothing begins, and the look at rest is not held up by them.
const LOOK_TIME: Duration = Duration::from_secs(3);

/// How a round goes about it, other than a verification that somebody waits for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gently {
    pub(super) bytes_per_second: u64,
    /// Whose findings are still to be told.
    pub(super) keep: Option<Uuid>,
}

impl Gently {
    /// What reading so many bytes counts for.
    pub(super) fn charge(bytes: u64) -> u64 {
        bytes.max(LEAST_CHARGE)
    }
}

/// The rounds of one cluster.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    /// Of the round that runs, or of the last one that did.
    pub(super) figures: Arc<Mutex<VerifyFigures>>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// What earlier processes left was read.
    recalled: bool,
    unfinished: Option<(Uuid, Side)>,
    last: Option<Verified>,
    failed: Option<(Blocker, Timestamp)>,
}

impl Rounds {
    /// A round has ended by itself; returns whether its figures are to be shown.
    pub(super) fn ended(&self, result: Result<Verified, Blocker>) -> bool {
        let mut known = lock(&self.known);
        match result {
            Ok(verified) => {
                (known.unfinished, known.failed) = (None, None);
                known.last = Some(verified);
                true
            }
            Err(blocker) => {
                tracing::warn!(
                    code = blocker.code,
                    message = blocker.message,
                    "a verification in the background came to no end"
                );
                known.failed = Some((blocker, Timestamp::now()));
                false
            }
        }
    }
}

impl Rounds {
    /// What a round has found holds, whatever it was given up for.
    pub(super) fn given_up(&self, run: Uuid, active: Side) {
        let found = found(&lock(&self.figures), run, active);
        if found.is_some() {
            lock(&self.known).last = found;
        }
    }
}

const RECALL: &str = "SELECT run, active, verified::text FROM pgferry.background";

impl PgCluster {
    /// Begins a round, or goes on with it. What somebody has asked for is never displaced.
    pub(crate) async fn verify_in_background(
        &self,
        run: Uuid,
        active: Side,
        epoch: i64,
        keep: Option<Uuid>,
    ) {
        let Some(background) = self.config.verify.background else { return };
        if self.verifier.take_in().running.is_some() {
            return;
        }
        lock(&self.verifier.rounds.known).unfinished = Some((run, active));
        let gently = Gently { bytes_per_second: background.bytes_per_second, keep };
        let figures = Arc::clone(&self.verifier.rounds.figures);
        self.set_to_work(figures, |figures, cancel| run::Run {
            cluster: self.clone(),
            run,
            active,
            epoch,
            at_rest: true,
            wish: Wish::default(),
            gently: Some(gently),
            figures,
            cancel,
        });
    }

    /// The rounds as this process knows them; asks no server.
    pub(crate) fn background_view(&self) -> Seen<BackgroundView> {
        let state = self.verifier.take_in();
        let known = lock(&self.verifier.rounds.known);
        if !known.recalled {
            return Seen::Unknown("what earlier rounds came to was not read yet".to_owned());
        }
        let running = state.running.as_ref().and_then(|running| {
            let Running { run, round: Some(active), .. } = running else { return None };
            let figures = lock(&self.verifier.rounds.figures);
            Some(Round {
                run: *run,
                active: *active,
                progress: progress(&figures),
                found: found(&figures, *run, *active),
            })
        });
        Seen::Present(BackgroundView {
            running,
            unfinished: known.unfinished,
            last: known.last.clone(),
            failed: known.failed.clone(),
        })
    }

    /// Reads what earlier processes left, unless it was read.
    pub(crate) async fn see_rounds(&self) -> Seen<BackgroundView> {
        let recalled = lock(&self.verifier.rounds.known).recalled;
        if !recalled {
            self.recall_background().await;
        }
        self.background_view()
    }

    /// Reads what earlier leaderships left of the verification in the background, and returns what its
    /// last round came to.
    pub async fn recall_background(&self) -> Option<Verified> {
        let node = self.node(Side::Destination);
        let recalled = match tokio::time::timeout(LOOK_TIME, self.recalled()).await {
            Ok(recalled) => recalled,
            Err(_) => {
                node.forget_connections();
                Err(LookError::Said("no answer in time".to_owned()))
            }
        };
        let mut known = lock(&self.verifier.rounds.known);
        *known = recalled.unwrap_or_else(|error| {
            tracing::debug!(%error, "the rounds in the background were not read");
            Known::default()
        });
        known.last.clone()
    }

    async fn recalled(&self) -> Result<Known, LookError> {
        let client = self.node(Side::Destination).client().await?;
        let rows = match client.query(RECALL, &[]).await {
            Ok(rows) => rows,
            // Nothing is installed yet, or by an older pgferry.
            Err(error) if is_missing(&error) => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        let mut known = Known { recalled: true, ..Known::default() };
        for row in rows {
            let verified: Option<String> = row.try_get(2)?;
            match verified {
                // What cannot be read any more is compared again.
                Some(text) => known.last = serde_json::from_str(&text).ok(),
                None => {
                    let active: String = row.try_get(1)?;
                    let side = Side::BOTH.into_iter().find(|side| side.as_str() == active);
                    known.unfinished = side
                        .map(|side| Ok((row.try_get(0)?, side)))
                        .transpose()
                        .map_err(|error: tokio_postgres::Error| LookError::from(error))?;
                }
            }
        }
        Ok(known)
    }
}

/// Writes down that a round is under way.
pub(super) async fn note_begun(
    cluster: &PgCluster,
    run: Uuid,
    active: Side,
    epoch: i64,
) -> Result<(), VerifyError> {
    let node = cluster.node(Side::Destination);
    {
        let mut client = node.client().await.map_err(|error| node.fault(&error))?;
        match client.query(RECALL, &[]).await {
            Ok(_) => {}
            // Installed by an older pgferry: as at the installation, the lease alone guards this.
            Err(error) if is_missing(&error) => {
                migrate_node(&mut client).await.map_err(|error| {
                    node.fault(&LookError::Said(format!("pgferry's own tables: {error}")))
                })?
            }
            Err(error) => return Err(VerifyError::on(Side::Destination)(error)),
        }
    }
    let run = literal(&run.to_string());
    let sql = format!(
        "DELETE FROM pgferry.background WHERE verified IS NULL AND run <> {run}::uuid; \
         INSERT INTO pgferry.background (run, active) VALUES ({run}::uuid, {}) \
         ON CONFLICT (run) DO NOTHING",
        literal(active.as_str())
    );
    Ok(node.mutate(Guard::of_epoch(epoch), &sql).await?)
}

/// Writes down what a round came to, in the place of the one before.
pub(super) async fn note_ended(
    cluster: &PgCluster,
    epoch: i64,
    verified: &Verified,
) -> Result<(), VerifyError> {
    let run = literal(&verified.run.to_string());
    let text = serde_json::to_string(verified).map_err(|error| {
        VerifyError::Blocked(Blocker::new(
            "verification_died",
            format!("what the round came to cannot be written: {error}"),
            "look into the daemon's log; it is tried again",
        ))
    })?;
    let sql = format!(
        "UPDATE pgferry.background SET verified = {}::jsonb WHERE run = {run}::uuid; \
         DELETE FROM pgferry.background WHERE run <> {run}::uuid",
        literal(&text)
    );
    let node = cluster.node(Side::Destination);
    Ok(node.mutate(Guard::of_epoch(epoch), &sql).await?)
}

fn progress(figures: &VerifyFigures) -> String {
    match figures.tables_total {
        None => "a round begins".to_owned(),
        Some(total) => {
            format!("a round has compared {} of {total} tables again", figures.tables_done)
        }
    }
}

/// What a round that has not come to its end found, once it has found anything.
fn found(figures: &VerifyFigures, run: Uuid, active: Side) -> Option<Verified> {
    if figures.mismatched_rows == 0 {
        return None;
    }
    let mut rows: BTreeMap<&str, u64> = BTreeMap::new();
    for difference in &figures.differences {
        if difference.kind == DifferenceKind::Row && !difference.mended {
            *rows.entry(&difference.object).or_default() += difference.rows;
        }
    }
    let mut differing: Vec<Differing> =
        rows.into_iter().map(|(name, rows)| Differing { name: name.to_owned(), rows }).collect();
    differing.sort_by(|a, b| b.rows.cmp(&a.rows).then_with(|| a.name.cmp(&b.name)));
    differing.truncate(NAMED);
    let now = Timestamp::now();
    Some(Verified {
        run,
        background: true,
        active,
        began_at: figures.began_at.unwrap_or(now),
        finished_at: now,
        tables: figures.tables_done,
        rows: figures.rows,
        mismatched_rows: figures.mismatched_rows,
        at_least: true,
        unsettled_rows: figures.unsettled_rows,
        mended_rows: 0,
        other_differences: 0,
        differing,
    })
}
