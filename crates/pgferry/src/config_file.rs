//! The configuration file, with every login tried as far as that goes without a connection.

use std::path::Path;

use pgferry_config::{Config, LoadError, Login, Problem, ProcessEnv, TrafficConfig, load};
use pgferry_plan::Side;
use pgferry_postgres::connect::{ConnectError, Connector};

/// Reads the file. A certificate or key that is there and of no use is a problem of it, like every other:
/// the daemon would end at it.
pub(crate) fn read(file: &Path) -> Result<Config, LoadError> {
    let config = load(file, &ProcessEnv)?;
    let problems = unusable_logins(&config);
    if problems.is_empty() {
        Ok(config)
    } else {
        Err(LoadError { file: file.to_owned(), problems })
    }
}

fn unusable_logins(config: &Config) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut try_login = |path: String, login: &Login, make: Make| {
        if let Err(error) = make(login) {
            let (message, hint) = (error.to_string(), error.hint().to_owned());
            problems.push(Problem { path, message, hint });
        }
    };
    if let Some(place) = &config.journal.place {
        try_login("journal.dsn".to_owned(), place, Connector::new);
    }
    for (name, migration) in &config.migrations {
        for side in Side::BOTH {
            let login = &migration.node(side).login;
            try_login(format!("migrations.{name}.{side}.dsn"), login, Connector::new);
        }
        let TrafficConfig::Pgbouncer(traffic) = &migration.traffic else { continue };
        for (index, pgbouncer) in traffic.pgbouncers.iter().enumerate() {
            let path = format!("migrations.{name}.traffic.pgbouncers[{index}].dsn");
            try_login(path, &pgbouncer.login, Connector::to_console);
        }
    }
    problems
}

type Make = fn(&Login) -> Result<Connector, ConnectError>;
