//! `status` and `events`: reading, once or on and on.

use pgferry_api::{CopyState, Event, Events, MigrationName, Migrations, Phase};

use super::session::Session;
use super::{AT_WORK, Exit, Failure};
use crate::args::Named;
use crate::render;

/// `pgferry status`
pub(super) fn status(
    session: &mut Session<'_>,
    named: Named,
    all: bool,
    tables: bool,
) -> Result<Exit, Failure> {
    if all {
        let all = Migrations { migrations: session.client.migrations()? };
        session.console.data(&all, |all| render::overview(&all.migrations))?;
    } else {
        let name = session.resolve(named)?;
        let migration = session.client.migration(&name)?;
        if tables {
            let report = session.client.copy(&name, CopyState::ALL)?;
            let shown = |report: &_| render::status_with_tables(&migration, report);
            session.console.data(&report, shown)?;
        } else {
            let copies = migration.phase == Phase::Copying && !session.console.is_json();
            let report = copies.then(|| session.client.copy(&name, &AT_WORK)).transpose()?;
            let shown = |migration: &_| render::status(migration, report.as_ref());
            session.console.data(&migration, shown)?;
        }
    }
    Ok(Exit::Done)
}

/// `pgferry events`
pub(super) fn events(
    session: &mut Session<'_>,
    named: Named,
    after: u64,
    follow: bool,
) -> Result<Exit, Failure> {
    let name = session.resolve(named)?;
    let events = session.client.events(&name, after)?;
    if follow {
        return follow_events(session, &name, after, events);
    }
    let events = Events { events };
    session.console.data(&events, |all| render::events(&all.events))?;
    Ok(Exit::Done)
}

/// Ends when it is interrupted, when nobody reads any longer, or when the daemon stays away.
fn follow_events(
    session: &mut Session<'_>,
    name: &MigrationName,
    mut after: u64,
    mut events: Vec<Event>,
) -> Result<Exit, Failure> {
    loop {
        for event in &events {
            session.console.data(event, render::event)?;
            after = after.max(event.seq);
        }
        session.pause();
        events = session.patiently(|client| client.events(name, after))?;
    }
}
