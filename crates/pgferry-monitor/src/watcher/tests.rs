use std::time::Duration;

use pgferry_config::Login;
use pgferry_plan::StreamStatus;
use pgferry_postgres::connect::Connector;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::*;
use crate::metrics::Metrics;
use crate::{NodeReach, run};

#[tokio::test]
async fn a_server_that_says_nothing_hides_neither_the_others_refusal_nor_the_end() {
    // Accepts connections and never answers: worse than a server that is away.
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let refusing = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (mute_port, free_port) =
        (mute.local_addr().unwrap().port(), refusing.local_addr().unwrap().port());
    drop(refusing);

    let lag = watch::Sender::new(LagReport::default());
    let nodes = watch::Sender::new(NodesReport::default());
    let (mut seen_lag, mut seen_nodes) = (lag.subscribe(), nodes.subscribe());
    let registry = prometheus::Registry::new();
    let metrics = Metrics::register(&registry).unwrap().migration("orders");
    let epoch = watch::Sender::new(Some(1));
    let cancel = CancellationToken::new();
    let running = tokio::spawn(run(
        watched(mute_port, free_port),
        epoch.subscribe(),
        Outlets { lag, nodes, metrics },
        cancel.clone(),
    ));

    let down = |nodes: &NodesReport| matches!(nodes.destination, NodeReach::Down(_));
    within(seen_nodes.wait_for(down)).await.unwrap();
    assert_eq!(seen_nodes.borrow().source, NodeReach::NotYet);
    let looked = within(seen_lag.wait_for(|report| report.observed_at.is_some())).await.unwrap();
    assert_eq!(looked.forward.status, StreamStatus::Unknown);
    assert_eq!(looked.forward.lag_seconds, None);
    drop(looked);

    cancel.cancel();
    within(running).await.unwrap();
}

#[test]
fn looks_never_keep_step_with_the_heartbeats() {
    let (poll, beat) = (Duration::from_secs(1), Duration::from_millis(100));
    let period = look_period(poll, beat);
    assert!(period < poll && period > poll * 9 / 10, "{period:?}");
    let phase = |looks: u32| (period * looks).as_micros() % beat.as_micros();
    for looks in 1..7 {
        assert_ne!(phase(looks), 0, "{looks}");
    }
    assert_eq!(look_period(poll, Duration::from_secs(60)), poll / 2, "never a busy loop");
}

fn watched(source: u16, destination: u16) -> Watched {
    Watched {
        migration: "orders".parse().unwrap(),
        forward_subscription: "orders_forward".to_owned(),
        reverse_subscription: "orders_reverse".to_owned(),
        source: connector(source),
        destination: connector(destination),
        poll_interval: Duration::from_millis(50),
        heartbeat_interval: Duration::from_millis(20),
        look_sooner: Arc::default(),
    }
}

fn connector(port: u16) -> Connector {
    let dsn = format!("host=127.0.0.1 port={port} dbname=orders user=pgferry sslmode=disable");
    Connector::new(&Login { dsn: dsn.parse().unwrap(), password: None }).unwrap()
}

async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), future).await.unwrap()
}
