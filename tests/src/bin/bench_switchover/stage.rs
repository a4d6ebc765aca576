//! The servers, the road between them, and the clients that write all along.

use std::time::{Duration, Instant};

use pgferry_plan::Side;
use pgferry_tests::config::migration;
use pgferry_tests::pgbouncer::in_front;
use pgferry_tests::{
    Cluster, ConfigFile, Daemon, Far, Ledger, LedgerOptions, Pair, PairOptions, PgBouncer, Profile,
    Shutdown, content,
};

use crate::arguments::{Arguments, Way};

/// What is on its way when the writers hold is a few transactions.
const SETTLE_DEADLINE: Duration = Duration::from_secs(120);

/// Commits of each client between two switchovers.
const WRITE_ON: usize = 12;

/// About what a transaction takes under this load; together with the clients' pause it makes the rate.
const TRANSACTION: Duration = Duration::from_millis(3);

/// Everything that runs, in the order in which it must end: clients, daemon, servers.
pub(crate) struct Stage {
    pub(crate) ledger: Ledger,
    pub(crate) daemon: Option<Daemon>,
    _pgbouncer: Option<PgBouncer>,
    _far: Option<[Far; 2]>,
    pub(crate) pair: Pair,
    pub(crate) active: Side,
    writers: u16,
    began: Instant,
    began_with: u64,
}

/// One switchover.
#[derive(Clone, Debug)]
pub(crate) struct Switched {
    /// For how long writes were held, as who did it measured it, in milliseconds.
    pub(crate) stall_ms: f64,
    /// The longest time between two answers of one client around it, in milliseconds.
    pub(crate) gap_ms: f64,
    /// What each step of it took, in milliseconds, where who did it tells.
    pub(crate) steps: Vec<(String, f64)>,
}

/// What a way came to.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    pub(crate) switched: Vec<Switched>,
    /// Acknowledged writes a second, over all of it.
    pub(crate) per_second: f64,
    /// Errors that a client saw in one switchover, in the mean.
    pub(crate) errors_per_client: f64,
    /// What was broken, in words; empty when nothing was.
    pub(crate) broken: Vec<String>,
}

impl Stage {
    pub(crate) fn set(arguments: &Arguments, way: Way, rate: u32) -> Self {
        let settings = [("max_worker_processes", "16".to_owned())];
        let extension = way.over_pglogical();
        let options = PairOptions { fsync: true, extension, ..PairOptions::default() };
        let pair = Pair::start_with(options, &settings);
        pair.load_bank();
        pair.load(&fill(arguments));
        let far = far(&pair, arguments.delay_ms);
        let pgbouncer = (way == Way::Pgbouncer).then(|| PgBouncer::start(&pair));
        let daemon = way.over_pglogical().then(|| {
            let config = match &pgbouncer {
                Some(pgbouncer) => in_front(&pair, &[pgbouncer]),
                None => ConfigFile::for_pair(&pair).insert_only(&["bank.ledger_keyless"]),
            };
            let mut daemon = Daemon::prepare(&with_far(config, &pair, &far), Profile::Release);
            daemon.serve();
            daemon.bring_to_ready();
            daemon
        });
        let Arguments { pause, reconnect_after, .. } = *arguments;
        let each = 1.0 / (pause + TRANSACTION).as_secs_f64();
        let writers = (f64::from(rate) / each).ceil().clamp(1.0, 90.0) as u16;
        let options = LedgerOptions { writers, pause, reconnect_after };
        let ledger = match &pgbouncer {
            Some(pgbouncer) => Ledger::with_configs(&[pgbouncer.app_config()], options),
            None => Ledger::start(&pair, options),
        };
        ledger.wait_for_writes(WRITE_ON, SETTLE_DEADLINE);
        let began_with = ledger.acknowledged();
        Self {
            ledger,
            daemon,
            _pgbouncer: pgbouncer,
            _far: far,
            pair,
            active: Side::Source,
            writers,
            began: Instant::now(),
            began_with,
        }
    }

    pub(crate) fn cluster(&self, side: Side) -> &Cluster {
        self.pair.cluster(side)
    }

    /// Carries one switchover out under the clients' eyes; `act` returns the stall in milliseconds and
    /// its steps.
    pub(crate) fn switch(
        &mut self,
        act: impl FnOnce(&mut Self) -> (f64, Vec<(String, f64)>),
    ) -> Switched {
        self.ledger.wait_for_writes(WRITE_ON, SETTLE_DEADLINE);
        let from = Instant::now();
        let (stall_ms, steps) = act(self);
        self.active = self.active.other();
        self.ledger.wait_for_writes(WRITE_ON, SETTLE_DEADLINE);
        let gap = self.ledger.worst_gap(from, Instant::now());
        Switched { stall_ms, gap_ms: gap.as_secs_f64() * 1000.0, steps }
    }

    /// Ends the clients and compares what they were promised with what there is.
    pub(crate) fn conclude(&mut self, switched: Vec<Switched>) -> Measured {
        let seconds = self.began.elapsed().as_secs_f64();
        let written = self.ledger.acknowledged() - self.began_with;
        let errors: u64 = self.ledger.errors().values().sum();
        self.ledger.stop();
        let report = self.ledger.check(self.cluster(self.active));
        let mut broken = Vec::new();
        if !report.is_clean() {
            broken.push(format!("the ledger is not clean: {report:?}"));
        }
        if self.daemon.is_some() {
            content::wait_until_settled(&self.pair, SETTLE_DEADLINE);
            broken.extend(content::differences(&self.pair.source, &self.pair.destination));
        }
        let each = switched.len() as f64 * f64::from(self.writers);
        Measured {
            per_second: written as f64 / seconds,
            errors_per_client: errors as f64 / each.max(1.0),
            switched,
            broken,
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // A daemon that goes last would take its servers' end for trouble.
        self.daemon = None;
        for side in Side::BOTH {
            self.pair.cluster_mut(side).stop(Shutdown::Immediate);
        }
    }
}

/// The ways to the destination and back from it, when it is to be far.
fn far(pair: &Pair, delay_ms: u32) -> Option<[Far; 2]> {
    let each_way = Duration::from_millis(delay_ms.into()) / 2;
    let to = |side| Far::to(pair.cluster(side).port(), each_way);
    (delay_ms > 0).then(|| [to(Side::Destination), to(Side::Source)])
}

fn with_far(config: ConfigFile, pair: &Pair, far: &Option<[Far; 2]>) -> ConfigFile {
    let Some([to_destination, to_source]) = far else { return config };
    let through = |side: Side, far: &Far| {
        let near = format!("port={}", pair.cluster(side).port());
        pair.dsn(side).replace(&near, &format!("port={}", far.port()))
    };
    let destination = through(Side::Destination, to_destination);
    config
        .with(&migration("destination.dsn"), destination.clone())
        .with(&migration("destination.peer_dsn"), destination)
        .with(&migration("destination.self_dsn"), pair.dsn(Side::Destination))
        .with(&migration("source.peer_dsn"), through(Side::Source, to_source))
        .with(&migration("source.self_dsn"), pair.dsn(Side::Source))
}

/// Tables with a few rows, and sequences that have been used.
fn fill(arguments: &Arguments) -> String {
    format!(
        "CREATE SCHEMA many;
         DO $$ BEGIN
         FOR i IN 1..{tables} LOOP
             EXECUTE format('CREATE TABLE many.t%s (id int PRIMARY KEY, v text)', i);
             EXECUTE format('INSERT INTO many.t%s SELECT g, repeat(''x'', 50) FROM generate_series(1, 20) g', i);
         END LOOP;
         FOR i IN 1..{sequences} LOOP
             EXECUTE format('CREATE SEQUENCE many.s%s', i);
             PERFORM setval(format('many.s%s', i), 1000 + i);
         END LOOP; END $$;
         GRANT USAGE ON SCHEMA many TO app;
         GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA many TO app;
         GRANT USAGE ON ALL SEQUENCES IN SCHEMA many TO app;",
        tables = arguments.tables,
        sequences = arguments.sequences,
    )
}
