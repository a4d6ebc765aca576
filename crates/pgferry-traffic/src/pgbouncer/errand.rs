//! Bringing one PgBouncer to a goal: what is said on its console, in which order, and what is seen of
//! it. Each change asks first whether this daemon still leads.

use std::time::{Duration, Instant};

use pgferry_config::Rewrite;
use pgferry_engine::Fault;
use pgferry_plan::traffic::TrafficGoal;
use pgferry_plan::{Blocker, Side};

use super::console::{AdminConsole, Entry};
use super::include_file::{self, Prepared};
use super::{Errand, Inner, LOOK_TIME, lock};
use crate::leadership::Leadership;
use crate::process::{self, Order};

/// How long the entry of SHOW DATABASES may take to change after RELOAD was answered.
const RELOAD_TIME: Duration = Duration::from_millis(500);
const RELOAD_LOOK: Duration = Duration::from_millis(10);
/// Between two looks for the last connection of one that holds its clients, or that logs in.
const QUIET_LOOK: Duration = Duration::from_millis(1);
/// Logins that hang, or that come one after another, keep no switchover from beginning.
const LOGIN_TIME: Duration = Duration::from_millis(200);
/// For how long an answer about who leads stands for asking again, counted from the question on a clock that
/// runs on while a process is frozen. So a command may come that late behind another daemon's lead, as one
/// may that was on its way: no write depends on it, and upkeep puts it right.
const LEADS_FOR: Duration = Duration::from_millis(20);

/// That this daemon was seen to lead.
#[derive(Clone, Copy, Debug)]
struct Leads {
    asked: Instant,
}

impl<L: Leadership> Inner<L> {
    pub(super) async fn pursue(&self, errand: Errand) -> Result<(), Fault> {
        let console = self.console().await?;
        let result = self.pursue_over(&console, errand).await;
        // One that was dropped in the middle, or that failed, is not used again.
        if result.is_ok() {
            lock(&self.spare).replace(console);
        }
        result
    }

    async fn pursue_over(&self, console: &AdminConsole, errand: Errand) -> Result<(), Fault> {
        match errand.goal {
            TrafficGoal::HoldFor(side) => {
                self.await_logins(console).await?;
                self.leads(errand).await?;
                // A PAUSE is answered when the last transaction has ended; that it holds is seen at
                // once. Meanwhile the disk is waited for, where that was not done before.
                let (paused, prepared) =
                    tokio::join!(self.say(console, "PAUSE"), self.prepared(side));
                paused?;
                // The servers are asked while the last connections are on their way out.
                let (leads, quiet) = tokio::try_join!(self.leads(errand), self.is_quiet(console))?;
                if quiet {
                    self.point(console, side, prepared, leads, errand).await?;
                }
                Ok(())
            }
            TrafficGoal::PointAt(side) => {
                let prepared = self.prepare(side).await;
                let leads = self.leads(errand).await?;
                self.point(console, side, prepared, leads, errand).await
            }
            TrafficGoal::LetGo(side) => {
                let mut entry = self.entry(console).await?;
                let points_at = self.side_of(&entry);
                // At rest one that leads to neither side was led there by somebody, and stays.
                let ours = errand.operation.is_some() || points_at.is_some() || entry.paused;
                if points_at != Some(side) && ours {
                    let prepared = self.prepare(side).await;
                    let leads = self.leads(errand).await?;
                    self.point(console, side, prepared, leads, errand).await?;
                    entry = self.entry(console).await?;
                }
                if entry.paused {
                    self.leads(errand).await?;
                    self.say(console, "RESUME").await?;
                }
                // Behind the RESUME: a file that cannot be written must hold nobody.
                if errand.operation.is_some() {
                    self.put_file_right(side, errand).await?;
                }
                Ok(())
            }
        }
    }

    /// Waits a little until no connection to the server is logging in. A PAUSE ends such a login, which
    /// counts as failed: for `server_login_retry`, 15 s by default, its clients would then be kept
    /// waiting behind the RESUME too.
    async fn await_logins(&self, console: &AdminConsole) -> Result<(), Fault> {
        let deadline = tokio::time::Instant::now() + LOGIN_TIME;
        loop {
            let look = console.logging_in(&self.config.database);
            let looked = tokio::time::timeout(LOOK_TIME, look).await;
            let looked = looked.unwrap_or_else(|_| Err("no answer".to_owned()));
            let logging_in = looked.map_err(|why| self.refused("SHOW POOLS", &why))?;
            if logging_in == 0 || tokio::time::Instant::now() >= deadline {
                return Ok(());
            }
            tokio::time::sleep(QUIET_LOOK).await;
        }
    }

    /// Waits until it holds no connection to the server; false when it holds its clients no more: one
    /// that is ended because its entry has changed would be a failed login, as above.
    async fn is_quiet(&self, console: &AdminConsole) -> Result<bool, Fault> {
        loop {
            let entry = self.entry(console).await?;
            if !entry.paused || entry.connections == 0 {
                return Ok(entry.paused);
            }
            tokio::time::sleep(QUIET_LOOK).await;
        }
    }

    /// Leads it to a side: the entry is changed, read again, and seen changed.
    async fn point(
        &self,
        console: &AdminConsole,
        side: Side,
        prepared: Result<Option<Prepared>, String>,
        leads: Leads,
        errand: Errand,
    ) -> Result<(), Fault> {
        let not_rewritten = |why: String| {
            failed(
                "pgbouncer_rewrite_failed",
                format!("the entry of PgBouncer {} could not be changed: {why}", self.config.name),
                "look at include_file or rewrite_command of this PgBouncer; nothing was let go",
            )
        };
        let prepared = match prepared.map_err(not_rewritten)? {
            Some(gone) if gone.is_gone() => self.prepare(side).await.map_err(not_rewritten)?,
            prepared => prepared,
        };
        let leads = self.still_leads(leads, errand).await?;
        self.rewrite(side, prepared, errand).await.map_err(not_rewritten)?;
        self.still_leads(leads, errand).await?;
        // What the entry says is believed, and not the answer: RELOAD fails, too, for what stands
        // elsewhere in the files, and changes the entry all the same.
        let reloaded = console.say("RELOAD").await;
        let deadline = tokio::time::Instant::now() + RELOAD_TIME;
        loop {
            let entry = self.entry(console).await?;
            if self.side_of(&entry) == Some(side) {
                return Ok(());
            }
            if tokio::time::Instant::now() >= deadline {
                reloaded.map_err(|why| self.refused("RELOAD", &why))?;
                return Err(failed(
                    "pgbouncer_not_led",
                    format!(
                        "PgBouncer {} leads to {}:{}/{} after its entry was changed and RELOAD was answered",
                        self.config.name, entry.host, entry.port, entry.dbname
                    ),
                    "its log says what it could not read; pgbouncer.ini has to %include the include_file, behind any other entry of this name",
                ));
            }
            tokio::time::sleep(RELOAD_LOOK).await;
        }
    }

    /// The whole include file for a side.
    fn text(&self, side: Side) -> String {
        let entry = &self.config.entries[side as usize].text;
        include_file::text(&self.migration.to_string(), &self.config.database, entry)
    }

    /// An include file that was changed and never read would be by whoever reloads next. Where that
    /// cannot be mended the verdict tells: `pgbouncer_file_not_read`.
    async fn put_file_right(&self, side: Side, errand: Errand) -> Result<(), Fault> {
        let Rewrite::IncludeFile(file) = &self.config.rewrite else { return Ok(()) };
        let (file, text) = (file.clone(), self.text(side));
        let prepared = blocking(move || {
            let right = include_file::says(&file, &text);
            if right { Ok(None) } else { Prepared::write(&file, &text).map(Some) }
        });
        let put_right = match prepared.await {
            Ok(None) => return Ok(()),
            Ok(prepared) => {
                self.leads(errand).await?;
                self.rewrite(side, prepared, errand).await
            }
            Err(why) => Err(why),
        };
        if let Err(why) = put_right {
            tracing::warn!(pgbouncer = self.config.name, why, "its include file leads astray");
        }
        Ok(())
    }

    /// The file for a side, as it was prepared when the switchover began.
    async fn prepared(&self, side: Side) -> Result<Option<Prepared>, String> {
        match self.take_file(side) {
            Some(prepared) => Ok(Some(prepared)),
            None => self.prepare(side).await,
        }
    }

    /// What can be done beforehand to lead it to a side.
    pub(super) async fn prepare(&self, side: Side) -> Result<Option<Prepared>, String> {
        let Rewrite::IncludeFile(file) = &self.config.rewrite else { return Ok(None) };
        let (file, text) = (file.clone(), self.text(side));
        blocking(move || Prepared::write(&file, &text)).await.map(Some)
    }

    async fn rewrite(
        &self,
        side: Side,
        prepared: Option<Prepared>,
        errand: Errand,
    ) -> Result<(), String> {
        let entry = &self.config.entries[side as usize];
        match &self.config.rewrite {
            Rewrite::IncludeFile(file) => {
                // Within this task, which may be stopped: nothing is put in place behind its back.
                prepared.map_or(Ok(()), Prepared::put_in_place).map_err(|e| e.to_string())?;
                let file = file.clone();
                // Nobody waits for it: what a crash of the machine takes back here, upkeep mends.
                tokio::task::spawn_blocking(move || include_file::keep(&file));
                Ok(())
            }
            Rewrite::Command { argv, deadline } => {
                let operation = errand.operation.map(|id| id.to_string()).unwrap_or_default();
                let variables = [
                    ("PGFERRY_MIGRATION", self.migration.to_string()),
                    ("PGFERRY_PGBOUNCER", self.config.name.clone()),
                    ("PGFERRY_DATABASE", self.config.database.clone()),
                    ("PGFERRY_ENTRY", entry.text.clone()),
                    ("PGFERRY_SIDE", side.to_string()),
                    ("PGFERRY_HOST", entry.host.clone()),
                    ("PGFERRY_PORT", entry.port.to_string()),
                    ("PGFERRY_DBNAME", entry.dbname.clone()),
                    ("PGFERRY_OPERATION", operation),
                    ("PGFERRY_EPOCH", errand.epoch.to_string()),
                ];
                let order = Order { argv, variables: &variables, pass: &[], deadline: *deadline };
                process::run(&order).await
            }
        }
    }

    async fn console(&self) -> Result<AdminConsole, Fault> {
        if let Some(spare) = lock(&self.spare).take().filter(|spare| !spare.is_closed()) {
            return Ok(spare);
        }
        self.connect().await.map_err(|reason| {
            failed(
                "pgbouncer_unreachable",
                format!("PgBouncer {}: {reason}", self.config.name),
                "start it, or mend its dsn",
            )
        })
    }

    async fn entry(&self, console: &AdminConsole) -> Result<Entry, Fault> {
        let looked = tokio::time::timeout(LOOK_TIME, console.entry(&self.config.database)).await;
        match looked {
            Ok(Ok(Some(entry))) => Ok(entry),
            Ok(Ok(None)) => Err(self.refused("SHOW DATABASES", "the entry is gone")),
            Ok(Err(why)) => Err(self.refused("SHOW DATABASES", &why)),
            Err(_) => Err(self.refused("SHOW DATABASES", "no answer")),
        }
    }

    async fn say(&self, console: &AdminConsole, command: &str) -> Result<(), Fault> {
        let said = format!("{command} {}", pgferry_postgres::quote::ident(&self.config.database));
        console.say(&said).await.map_err(|why| self.refused(command, &why))
    }

    fn refused(&self, command: &str, why: &str) -> Fault {
        failed(
            "pgbouncer_refused",
            format!("PgBouncer {}: {command}: {why}", self.config.name),
            "look into its log; it is tried again",
        )
    }

    async fn leads(&self, errand: Errand) -> Result<Leads, Fault> {
        let asked = Instant::now();
        self.leadership.still_leads(errand.epoch).await?;
        Ok(Leads { asked })
    }

    async fn still_leads(&self, leads: Leads, errand: Errand) -> Result<Leads, Fault> {
        if leads.asked.elapsed() < LEADS_FOR { Ok(leads) } else { self.leads(errand).await }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, String> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

fn failed(code: &str, message: String, hint: &str) -> Fault {
    Fault::Failed(Blocker::new(code, message, hint))
}
