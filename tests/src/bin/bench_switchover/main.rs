//! How long a switchover holds writes: pgferry beside what people do by hand, under the same load.
//!
//! Two servers whose commits reach the disk, hundreds of tables and sequences, clients that remember
//! every answer. A way that loses a write, or hands a number out twice, is told as failed and not as
//! fast. Leaves no server running, however it ends.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a table is what this program is for"
)]

mod arguments;
mod by_hand;
mod ferry;
mod report;
mod stage;

use std::process::ExitCode;

use pgferry_tests::{Profile, expect};

use arguments::{Arguments, Way};
use report::Report;
use stage::Stage;

fn main() -> ExitCode {
    let arguments = match Arguments::parse() {
        Ok(arguments) => arguments,
        Err(usage) => {
            eprintln!("{usage}");
            return ExitCode::from(64);
        }
    };
    expect::unwind_on_interrupt();
    Profile::Release.build();

    let mut report = Report::new(&arguments);
    for &rate in &arguments.rates {
        for &way in &arguments.ways {
            eprintln!("{way} at {rate} writes a second: setting up");
            let mut stage = Stage::set(&arguments, way, rate);
            let measured = match way {
                Way::MultiHost | Way::Pgbouncer => ferry::measure(&mut stage, &arguments),
                Way::ReadOnlyRole => by_hand::read_only_role(&mut stage, &arguments),
                Way::Native => by_hand::native(&mut stage, &arguments),
            };
            report.add(way, rate, measured);
        }
    }
    println!("{}", report.table());
    if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
