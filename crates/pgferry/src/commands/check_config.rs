//! `check-config FILE`: every problem of a configuration at once. Connects to nothing.

use std::io;
use std::path::Path;

use pgferry_config::Config;

use super::Exit;
use super::console::Console;
use crate::args::Format;
use crate::config_file;

/// Prints a line when the file is good, else everything that is not.
pub(crate) fn check_config(file: &Path) -> Exit {
    let mut console =
        Console::new(Box::new(io::stdout()), Box::new(io::stderr()), Format::Text, false);
    match config_file::read(file) {
        Ok(config) => match console.data(&(), |()| good(file, &config)) {
            Ok(()) => Exit::Done,
            Err(_unwritable) => Exit::Failed,
        },
        Err(problems) => {
            console.talk(&problems.to_string());
            Exit::Usage
        }
    }
}

fn good(file: &Path, config: &Config) -> String {
    let names: Vec<_> = config.migrations.keys().map(|name| name.as_str()).collect();
    let noun = if names.len() == 1 { "migration" } else { "migrations" };
    format!("{} is good: {} {noun} ({})", file.display(), names.len(), names.join(", "))
}
