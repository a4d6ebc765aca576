//! pgferry's own switchovers, asked for as a person asks: by the command.

use std::time::Duration;

use pgferry_plan::Kind;
use pgferry_tests::{MIGRATION, eventually};

use crate::arguments::Arguments;
use crate::stage::{Measured, Stage};

/// Both streams come to rest between two switchovers.
const READY_DEADLINE: Duration = Duration::from_secs(60);

/// Moves the writes there and back.
pub(crate) fn measure(stage: &mut Stage, arguments: &Arguments) -> Measured {
    let mut switched = Vec::new();
    for number in 0..arguments.switchovers {
        let kind = if number % 2 == 0 { Kind::Cutover } else { Kind::Rollback };
        wait_for_go(stage);
        // The sequences move on all the time in a real database.
        let advance = "SELECT count(setval(c.oid, pg_sequence_last_value(c.oid) + 7)) FROM pg_class c \
             WHERE c.relnamespace = 'many'::regnamespace AND c.relkind = 'S'";
        stage.pair.admin(stage.active).run(advance);
        switched.push(stage.switch(|stage| cut(stage, kind)));
        if (number + 1) % 10 == 0 {
            eprintln!("  {} of {}", number + 1, arguments.switchovers);
        }
    }
    stage.conclude(switched)
}

fn cut(stage: &mut Stage, kind: Kind) -> (f64, Vec<(String, f64)>) {
    let Some(daemon) = &stage.daemon else { panic!("pgferry's way needs its daemon") };
    let output = daemon.command(&[kind.as_str(), MIGRATION]);
    assert_eq!(output.code, Some(0), "{output:?}");
    let report = &daemon.migration()["last_switchover"];
    let steps = report["steps"].as_array().into_iter().flatten();
    let steps = steps.filter_map(|s| Some((s["step"].as_str()?.to_owned(), s["ms"].as_f64()?)));
    let stall = report["write_stall_ms"].as_f64();
    (stall.unwrap_or_else(|| panic!("no stall in {report}")), steps.collect())
}

fn wait_for_go(stage: &Stage) {
    let Some(daemon) = &stage.daemon else { panic!("pgferry's way needs its daemon") };
    eventually("the verdict to go", READY_DEADLINE, || {
        let verdict = daemon.try_get(&format!("/v1/migrations/{MIGRATION}/verdict"))?.body;
        if verdict["go"] == true { Ok(()) } else { Err(verdict.to_string()) }
    });
}
