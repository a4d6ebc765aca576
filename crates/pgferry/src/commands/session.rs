//! What a client command works with: the daemon, the console, and patience.

use std::thread;
use std::time::{Duration, Instant};

use pgferry_api::MigrationName;

use super::Failure;
use super::console::Console;
use crate::args::Named;
use crate::client::{Client, ClientError};

/// How long a waiting command goes on asking a daemon that does not answer. A daemon that is being
/// started again is back within seconds; an operation goes on without us in any case.
const PATIENCE: Duration = Duration::from_secs(60);

/// One command's means.
pub(super) struct Session<'a> {
    pub(super) client: Client,
    pub(super) console: Console<'a>,
    pub(super) interval: Duration,
}

impl Session<'_> {
    /// The migration that is meant: the named one, or the only one.
    pub(super) fn resolve(&self, named: Named) -> Result<MigrationName, Failure> {
        if let Some(name) = named.name {
            return Ok(name);
        }
        let mut names: Vec<_> =
            self.client.migrations()?.into_iter().map(|migration| migration.name).collect();
        match (names.pop(), names.is_empty()) {
            (Some(only), true) => Ok(only),
            (None, _) => Err(Failure::Usage("the daemon has no migration".to_owned())),
            (Some(last), false) => {
                names.push(last);
                let names: Vec<_> = names.iter().map(MigrationName::as_str).collect();
                Err(Failure::Usage(format!(
                    "there is more than one migration, name one of: {}",
                    names.join(", ")
                )))
            }
        }
    }

    /// Lets one interval pass between two looks.
    pub(super) fn pause(&self) {
        thread::sleep(self.interval);
    }

    /// Asks again while the daemon does not answer, within limits. Only for reads.
    pub(super) fn patiently<T>(
        &mut self,
        mut ask: impl FnMut(&Client) -> Result<T, ClientError>,
    ) -> Result<T, Failure> {
        let began = Instant::now();
        let mut silent = false;
        loop {
            match ask(&self.client) {
                Err(error) if error.may_pass() && began.elapsed() < PATIENCE => {
                    if !silent {
                        self.console.talk(&format!("{error}; still trying"));
                    }
                    silent = true;
                    self.pause();
                }
                Err(error) => return Err(error.into()),
                Ok(answer) => {
                    if silent {
                        self.console.talk("the daemon answers again");
                    }
                    return Ok(answer);
                }
            }
        }
    }
}
