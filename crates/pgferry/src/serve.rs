//! The daemon: what it is built of, and how it stops.
//!
//! Wiring only. Bad configuration ends it with 64 before anything is started; afterwards nothing
//! but a signal does: a server that is away is waited for.

mod copy;
mod daemon;
mod state;
mod view;

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use pgferry_config::Config;
use pgferry_monitor::Metrics;
use pgferry_server::App;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing_subscriber::EnvFilter;

use crate::commands::Exit;
use crate::config_file;
use daemon::Daemon;

/// Runs the daemon of this configuration until it is told to stop.
pub(crate) fn serve(file: &Path) -> ExitCode {
    let config = match config_file::read(file) {
        Ok(config) => config,
        Err(error) => {
            complain(&error.to_string());
            return Exit::Usage.into();
        }
    };
    start_logging();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.max(THREADS))
        .enable_all()
        .thread_stack_size(THREAD_STACK)
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("could not start: {error}"));
            return Exit::Failed.into();
        }
    };
    match runtime.block_on(run(config)) {
        Ok(()) => Exit::Done.into(),
        Err(error) => {
            complain(&error);
            Exit::Failed.into()
        }
    }
}

/// Comparing thousands of tables keeps a thread busy for some tenths of a second, once for each
/// migration; whoever asks for the state is answered by another.
const THREADS: usize = 4;

/// Looks are deep futures; twice tokio's default, of which only what is touched costs memory.
const THREAD_STACK: usize = 4 << 20;

async fn run(config: Config) -> Result<(), String> {
    let shutdown = CancellationToken::new();
    watch_signals(&shutdown).map_err(|error| format!("could not watch for signals: {error}"))?;
    let listen = config.server.listen;
    let listener = TcpListener::bind(listen)
        .await
        .map_err(|error| format!("could not listen on {listen}: {error}"))?;
    let registry = prometheus::Registry::new();
    let metrics = Metrics::register(&registry)
        .map_err(|error| format!("could not register metrics: {error}"))?;
    metrics.set_build(env!("CARGO_PKG_VERSION"));

    let tasks = TaskTracker::new();
    let mut handles = Vec::new();
    for migration in config.migrations.values() {
        let metrics = metrics.migration(migration.name.as_str());
        let (daemon, handle) = Daemon::build(&config, migration, metrics, shutdown.clone())
            .map_err(|error| format!("migrations.{}: {error}", migration.name))?;
        handles.push(handle);
        tasks.spawn(daemon.run());
    }
    tasks.close();
    // Port 0 stands for any that is free.
    let listen = listener.local_addr().unwrap_or(listen);
    tracing::info!(%listen, migrations = handles.len(), "pgferry serves");
    // The listener ends last: while a switchover is brought to its end, status must be there.
    let stop_serving = CancellationToken::new();
    let server = tokio::spawn(pgferry_server::serve(
        listener,
        App::new(handles, registry),
        stop_serving.clone(),
    ));
    tasks.wait().await;
    stop_serving.cancel();
    match server.await {
        Ok(Ok(())) => {
            tracing::info!("stopped");
            Ok(())
        }
        Ok(Err(error)) => Err(format!("the listener failed: {error}")),
        Err(error) => Err(format!("the listener failed: {error}")),
    }
}

fn watch_signals(shutdown: &CancellationToken) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let shutdown = shutdown.clone();
    tokio::spawn(async move {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        shutdown.cancel();
        tracing::info!(signal = name, "stopping");
    });
    Ok(())
}

/// Server messages of the driver are repeated at INFO by its connection task: too many for a log
/// that people read at night.
const DEFAULT_LOG: &str = "info,tokio_postgres=warn,refinery_core=warn";

fn start_logging() {
    let filter = EnvFilter::try_from_env("PGFERRY_LOG").unwrap_or_else(|_| DEFAULT_LOG.into());
    // Whatever is asked for: at DEBUG the driver prints statements, and pglogical's carry DSNs.
    let filter = match "tokio_postgres=warn".parse() {
        Ok(directive) => filter.add_directive(directive),
        Err(_) => DEFAULT_LOG.into(),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        // Who read the log may be gone. Saying so there would end the task that logs with a panic, the
        // one that holds writes as well.
        .log_internal_errors(false)
        .init();
}

fn complain(message: &str) {
    // As above.
    let _ = writeln!(std::io::stderr(), "{message}");
}
