//! One copy worker: a session on each side, one thing after another from the queue.
//!
//! Never holds more of a table in memory than one frame, and never lets a piece be committed whose
//! file is not the one that the snapshot saw.

use std::sync::Arc;
use std::time::Duration;

use pgferry_engine::Fault;
use pgferry_plan::TableName;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::queue::{Building, Piece, Work};
use super::sql::Brought;
use super::tally::{Counted, Tally};
use super::{CopyError, Shared, Snapshot, files, sql};
use crate::node::{LookError, Node};
use crate::statements::{EPOCH_RAISED, Guard, guarded};
use crate::wire::{Pump, PumpError, Purpose, Wire, WireError};

/// A session of one origin at a time: PostgreSQL refuses a second one. And of two that bring a
/// table's last rows, one knows that it is the last.
pub(super) static COMMIT: Mutex<()> = Mutex::const_new(());

/// New sessions for the same work, one after the other, before the copy gives up.
const TRIES: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// SQLSTATE of a row that is there already, and of an index.
const UNIQUE_VIOLATION: &str = "23505";
const DUPLICATE_TABLE: &str = "42P07";

/// Pieces that are entered as copied, of those asked for.
const ENTERED: &str = "SELECT pg_catalog.count(*) FROM pgferry.copied AS c
JOIN unnest($1::text[], $2::text[], $3::bigint[]) AS w (schema_name, table_name, first_block)
USING (schema_name, table_name, first_block) WHERE c.snapshot_lsn = $4::text::pg_lsn";

const END_SESSIONS: &str = "SELECT pg_catalog.pg_terminate_backend(pid)
FROM pg_catalog.pg_stat_activity WHERE application_name = $1 AND ($2::int IS NULL OR pid = $2)";

/// One worker and its sessions, opened when they are first needed.
pub(super) struct Worker {
    pub(super) shared: Arc<Shared>,
    pub(super) source: Option<Wire>,
    pub(super) destination: Option<Wire>,
}

impl Worker {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, source: None, destination: None }
    }

    /// Works until nothing is left. At an error that stays, or when told to stop, gives up the
    /// statements in flight on both servers before it hangs up.
    pub(super) async fn run(mut self, stop: &CancellationToken) -> Result<(), CopyError> {
        let shared = Arc::clone(&self.shared);
        let mut last = None;
        let mut failures = 0;
        loop {
            let next = tokio::select! {
                biased;
                () = stop.cancelled() => return Err(CopyError::Cancelled),
                next = shared.queue.next(last) => next,
            };
            let Some(mut work) = next else { return Ok(()) };
            if !matches!(work, Work::Copy(_)) && !shared.queue.has_pieces() {
                // The snapshot holds vacuum back on the source for as long as anybody reads it.
                self.source = None;
            }
            last = work.table();
            let done = tokio::select! {
                biased;
                () = stop.cancelled() => Err(CopyError::Cancelled),
                done = self.perform(&mut work) => done,
            };
            match done {
                Ok(()) => {
                    failures = 0;
                    if shared.queue.done(&work) {
                        shared.rows_arrived.notify_one();
                    }
                }
                Err(error) if error.is_passing() && failures < TRIES => {
                    tracing::warn!(%error, "a copy session broke; on with a new one");
                    let pause = FIRST_PAUSE * 2_u32.pow(failures);
                    failures += 1;
                    let ended = tokio::select! {
                        ended = self.hang_up() => ended,
                        () = stop.cancelled() => Err(CopyError::Cancelled),
                    };
                    shared.queue.give_back(work);
                    ended?;
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        () = stop.cancelled() => return Err(CopyError::Cancelled),
                    }
                }
                Err(error) => {
                    self.cancel_statements().await;
                    return Err(error);
                }
            }
        }
    }

    async fn perform(&mut self, work: &mut Work) -> Result<(), CopyError> {
        let shared = Arc::clone(&self.shared);
        let snapshot = || {
            let nothing = || CopyError::SnapshotLost("nothing was to be copied".to_owned());
            shared.plan.snapshot.as_ref().ok_or_else(nothing)
        };
        match work {
            Work::Copy(pieces) => match pieces.as_mut_slice() {
                [piece] if shared.tables[piece.table].in_parts => {
                    self.copy_in_parts(snapshot()?, piece).await
                }
                pieces => self.copy(snapshot()?, pieces).await,
            },
            Work::Index(building) => self.build(*building).await,
            Work::Complete(table) => self.complete(*table).await,
        }
    }

    /// Some whole tables, one transaction on the destination.
    async fn copy(&mut self, snapshot: &Snapshot, pieces: &[Piece]) -> Result<(), CopyError> {
        let shared = Arc::clone(&self.shared);
        let counted: Vec<Counted> = pieces.iter().map(|_| Counted::default()).collect();
        let copied = self.copy_counting(snapshot, pieces, &counted).await;
        if copied.is_err() {
            for (piece, counted) in pieces.iter().zip(&counted) {
                let [rows, bytes, read] = counted.get();
                shared.counters[piece.table].take_back(rows, bytes, read);
            }
            // A lost answer to a commit, or a session of an earlier try that came through.
            if let Err(CopyError::AlreadyCopied) = copied
                && self.are_entered(pieces).await?
            {
                (self.source, self.destination) = (None, None);
                self.flush().await?;
                for piece in pieces {
                    shared.counters[piece.table].add(0, 0, piece.bytes);
                    shared.counters[piece.table].piece_done();
                }
                self.count_built_within(pieces);
                return Ok(());
            }
        }
        copied
    }

    async fn copy_counting(
        &mut self,
        snapshot: &Snapshot,
        pieces: &[Piece],
        counted: &[Counted],
    ) -> Result<(), CopyError> {
        let shared = Arc::clone(&self.shared);
        let tables = &shared.tables;
        self.open(Some(snapshot)).await?;
        let (Some(source), Some(destination)) = (&mut self.source, &mut self.destination) else {
            return Err(CopyError::Worker("a session is missing".to_owned()));
        };
        let copy_out = sql::copy_out(tables, pieces);
        let copy_in = sql::copy_in(&shared.plan, &sql::lsn(snapshot), tables, pieces);
        let about = |error| failed_copy(&shared, pieces, error);
        begin_both(source, &copy_out, destination, &copy_in).await.map_err(about)?;
        let mut brought = Vec::with_capacity(pieces.len());
        for (piece, counted) in pieces.iter().zip(counted) {
            let table = &tables[piece.table];
            let about = |error| failed_copy(&shared, std::slice::from_ref(piece), error);
            let gate = Tally::new(&shared, piece, counted);
            let mut pump = Pump::begin(source, !table.text).await.map_err(about)?;
            let carried = pump.carry(source, destination, u64::MAX, &gate).await.map_err(about)?;
            check_counts(&table.name, carried.sent, carried.written)?;
            let (rows, bytes) = (carried.sent, carried.bytes);
            brought.push(Brought { piece, rows, bytes, completes: true });
        }
        end_both(source, destination).await.map_err(about)?;
        files::check_same_files(&shared, pieces).await?;
        for piece in pieces.iter().filter(|piece| shared.queue.builds_with(piece)) {
            self.build_within(piece.table).await?;
        }
        self.commit(snapshot, &brought).await?;
        self.count_built_within(pieces);
        for (piece, counted) in pieces.iter().zip(counted) {
            // What was counted on the way was an estimate.
            let [_, _, read] = counted.get();
            shared.counters[piece.table].add(0, 0, piece.bytes - read);
        }
        Ok(())
    }

    /// Commits under the origin, one session at a time, and counts the pieces that are done.
    pub(super) async fn commit(
        &mut self,
        snapshot: &Snapshot,
        brought: &[Brought<'_>],
    ) -> Result<(), CopyError> {
        let shared = Arc::clone(&self.shared);
        let _one_at_a_time = COMMIT.lock().await;
        let is_last = |brought: &Brought<'_>| {
            brought.completes && shared.counters[brought.piece.table].pieces_left() == 1
        };
        let durable = brought.iter().any(is_last);
        let commit = sql::commit(&shared.plan, snapshot, &shared.tables, brought, durable);
        self.on_destination("committing", &commit).await?;
        for Brought { piece, rows, bytes, completes } in brought {
            let last = *completes && shared.counters[piece.table].piece_done();
            let table = &shared.tables[piece.table].name;
            if last {
                tracing::info!(%table, rows, bytes, "the last rows have arrived");
            } else {
                tracing::debug!(%table, rows, bytes, first_block = piece.range.first, "rows copied");
            }
        }
        Ok(())
    }

    /// Whether every one of these pieces is entered as copied.
    async fn are_entered(&self, pieces: &[Piece]) -> Result<bool, CopyError> {
        let shared = &self.shared;
        let looking = |error| CopyError::on_destination("looking at what is copied", error);
        let client = shared.destination.client().await.map_err(|error| looking(error.into()))?;
        let names = || pieces.iter().map(|piece| &shared.tables[piece.table].name);
        let schemas: Vec<&str> = names().map(|name| name.schema.as_str()).collect();
        let tables: Vec<&str> = names().map(|name| name.name.as_str()).collect();
        let first: Vec<i64> =
            pieces.iter().map(|piece| i64::try_from(piece.range.first).unwrap_or(-1)).collect();
        let under = shared.plan.snapshot.as_ref().map(|snapshot| snapshot.lsn.to_string());
        let row = client.query_one(ENTERED, &[&schemas, &tables, &first, &under]).await;
        let entered: i64 = row.map_err(|error| looking(error.into()))?.get(0);
        Ok(usize::try_from(entered) == Ok(pieces.len()))
    }

    /// One index of a table whose rows are there. However many help share its memory.
    async fn build(&mut self, building: Building) -> Result<(), CopyError> {
        let Building { table, index, helpers } = building;
        let shared = Arc::clone(&self.shared);
        self.open(None).await?;
        let Some(create) = &shared.tables[table].indexes[index].create else { return Ok(()) };
        let before = sql::before_index(shared.plan.maintenance_work_mem, helpers);
        self.on_destination("preparing to build indexes", &before).await?;
        let began = Instant::now();
        self.mutate(create, table, index).await?;
        let name = &shared.tables[table].indexes[index].name;
        tracing::info!(table = %shared.tables[table].name, index = name, helpers,
            seconds = began.elapsed().as_secs_f64(), "index built");
        shared.counters[table].index_done();
        Ok(())
    }

    /// What turns indexes into constraints and the like, once none of the table is being built.
    async fn complete(&mut self, table: usize) -> Result<(), CopyError> {
        let shared = Arc::clone(&self.shared);
        self.open(None).await?;
        for (position, index) in shared.tables[table].indexes.iter().enumerate() {
            if !index.complete.is_empty() {
                self.mutate(&index.complete.join("; "), table, position).await?;
            }
        }
        Ok(())
    }

    /// The indexes of a small table, in the transaction that has brought its rows.
    async fn build_within(&mut self, table: usize) -> Result<(), CopyError> {
        let shared = Arc::clone(&self.shared);
        for index in &shared.tables[table].indexes {
            let statements: Vec<&str> =
                index.create.iter().chain(&index.complete).map(String::as_str).collect();
            let built = self.query_destination(&statements.join("; ")).await;
            built.map_err(|error| failed_index(&shared, table, &index.name, error))?;
        }
        Ok(())
    }

    fn count_built_within(&self, pieces: &[Piece]) {
        let shared = &self.shared;
        for piece in pieces.iter().filter(|piece| shared.queue.builds_with(piece)) {
            let indexes = &shared.tables[piece.table].indexes;
            for _ in indexes.iter().filter(|index| index.create.is_some()) {
                shared.counters[piece.table].index_done();
            }
        }
    }

    /// A commit that waits for the disk, and so for every commit before it: those whose answer was
    /// lost may not have waited.
    pub(super) async fn flush(&self) -> Result<(), CopyError> {
        let shared = &self.shared;
        let guard = Guard::of_epoch(shared.plan.epoch);
        // The guard's lock on the record is WAL enough to wait for. A line of pgferry.copied is not
        // touched: the open part of another worker holds it, and wants the mutex of our caller.
        let wait = "SET LOCAL synchronous_commit = on; SELECT 1";
        shared.destination.mutate(guard, wait).await.map_err(|fault| match fault {
            Fault::EpochRaised => CopyError::EpochRaised(shared.plan.epoch),
            Fault::Failed(blocker) => {
                let said = LookError::Said(blocker.message);
                CopyError::on_destination("waiting for the disk", said.into())
            }
        })
    }

    async fn mutate(&mut self, body: &str, table: usize, index: usize) -> Result<(), CopyError> {
        let shared = Arc::clone(&self.shared);
        let guard = Guard::of_epoch(shared.plan.epoch);
        match self.query_destination(&guarded(shared.destination.side(), guard, body)).await {
            Err(error) if error.state() == Some(DUPLICATE_TABLE) => Ok(()),
            Err(error) if error.state() == Some(EPOCH_RAISED) => {
                Err(CopyError::EpochRaised(shared.plan.epoch))
            }
            Err(error) => {
                let name = &shared.tables[table].indexes[index].name;
                Err(failed_index(&shared, table, name, error))
            }
            Ok(()) => Ok(()),
        }
    }

    async fn on_destination(&mut self, doing: &str, sql: &str) -> Result<(), CopyError> {
        let result = self.query_destination(sql).await;
        result.map_err(|error| CopyError::on_destination(doing, error.into()))
    }

    async fn query_destination(&mut self, sql: &str) -> Result<(), WireError> {
        match &mut self.destination {
            Some(destination) => destination.query(sql).await.map(drop),
            None => Err(WireError::Lost("it was never opened".to_owned())),
        }
    }

    /// Opens what is missing: the destination's session, and the source's with its snapshot.
    pub(super) async fn open(&mut self, snapshot: Option<&Snapshot>) -> Result<(), CopyError> {
        let shared = Arc::clone(&self.shared);
        if self.destination.is_none() {
            let opening = open(&shared.destination, sql::PREPARE_DESTINATION).await;
            let opened = opening.map_err(|e| CopyError::on_destination("connecting", e.into()))?;
            self.destination = Some(opened);
        }
        let Some(snapshot) = snapshot.filter(|_| self.source.is_none()) else { return Ok(()) };
        let opening = open(&shared.source, sql::PREPARE_SOURCE).await;
        let mut source =
            opening.map_err(|error| CopyError::on_source("connecting", error.into()))?;
        match source.query(&sql::import(snapshot)).await {
            Ok(_) => {}
            // Every way in which the server refuses the name means that its exporter has ended.
            Err(WireError::Refused { message, .. }) => {
                return Err(CopyError::SnapshotLost(message));
            }
            Err(error) => return Err(CopyError::on_source("importing the snapshot", error.into())),
        }
        self.source = Some(source);
        Ok(())
    }

    /// Drops both sessions, and sees the destination's gone: its transaction may still commit.
    async fn hang_up(&mut self) -> Result<(), CopyError> {
        self.cancel_statements().await;
        self.source = None;
        let pid = self.destination.take().and_then(|session| session.backend_pid());
        let Some(pid) = pid else { return Ok(()) };
        end_sessions(&self.shared.destination, Some(pid)).await
    }

    async fn cancel_statements(&self) {
        tokio::join!(
            cancel(&self.source, &self.shared.source),
            cancel(&self.destination, &self.shared.destination)
        );
    }
}

async fn cancel(wire: &Option<Wire>, node: &Node) {
    if let Some(wire) = wire {
        wire.cancel_statement(node.connector()).await;
    }
}

impl Work {
    /// The table that a range was copied of: its next one continues it.
    fn table(&self) -> Option<usize> {
        match self {
            Self::Copy(pieces) => pieces.first().map(|piece| piece.table),
            Self::Index(..) | Self::Complete(_) => None,
        }
    }
}

/// `application_name` of a copy's own sessions: those of one leadership, told from its others so
/// that a new try can end them.
pub(super) fn copy_session(node: &Node) -> String {
    format!("{}/copy", node.application_name())
}

/// Ends one session of the copy on a server, or all of them, and returns once they are gone.
pub(super) async fn end_sessions(node: &Node, pid: Option<i32>) -> Result<(), CopyError> {
    let name = copy_session(node);
    let deadline = Instant::now() + sql::END_PATIENCE;
    loop {
        // A server that restarts has no sessions of before; until it answers, none is seen.
        if let Ok(client) = node.client().await
            && let Ok(0) = client.execute(END_SESSIONS, &[&name, &pid]).await
        {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(CopyError::SessionStays(node.side()));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn open(node: &Node, prepare: &str) -> Result<Wire, WireError> {
    let name = copy_session(node);
    let mut wire = Wire::connect(node.connector(), &name, Purpose::Sql).await?;
    wire.query(prepare).await?;
    Ok(wire)
}

/// Asks both sides for the same COPYs, in the same order, as one query each; what stands before them
/// in a query is carried out.
async fn begin_both(
    source: &mut Wire,
    copy_out: &str,
    destination: &mut Wire,
    copy_in: &str,
) -> Result<(), PumpError> {
    source.begin_query(copy_out).await.map_err(PumpError::Source)?;
    let asked = destination.begin_query(copy_in).await;
    asked.map_err(|error| PumpError::Destination(error, false))
}

/// Reads both queries to their end.
async fn end_both(source: &mut Wire, destination: &mut Wire) -> Result<(), PumpError> {
    source.until_ready().await.map_err(PumpError::Source)?;
    destination.until_ready().await.map_err(|error| PumpError::Destination(error, true))
}

pub(super) fn check_counts(table: &TableName, read: u64, written: u64) -> Result<(), CopyError> {
    if read == written {
        return Ok(());
    }
    Err(CopyError::RowsDiffer { table: table.clone(), read, written })
}

/// What a COPY that failed means, for the pieces that it may have been about.
pub(super) fn failed_copy(shared: &Shared, pieces: &[Piece], error: PumpError) -> CopyError {
    let names: Vec<String> =
        pieces.iter().map(|piece| shared.tables[piece.table].name.to_string()).collect();
    let doing = match names.as_slice() {
        [one] => format!("COPY of {one}"),
        [one, .., last] => format!("COPY of {one} to {last}, {} tables", names.len()),
        [] => "COPY".to_owned(),
    };
    match error {
        PumpError::Source(error) => CopyError::on_source(doing, error.into()),
        PumpError::Destination(error, begun) => match error.state() {
            Some(EPOCH_RAISED) => CopyError::EpochRaised(shared.plan.epoch),
            Some(UNIQUE_VIOLATION) if !begun => CopyError::AlreadyCopied,
            _ => CopyError::on_destination(doing, error.into()),
        },
    }
}

fn failed_index(shared: &Shared, table: usize, index: &str, error: WireError) -> CopyError {
    let table = shared.tables[table].name.clone();
    if let WireError::Refused { state, message } = &error
        && !error.is_passing()
    {
        let (state, message) = (state.clone(), crate::node::scrub(message));
        return CopyError::IndexNotBuilt { table, index: index.to_owned(), message, state };
    }
    CopyError::on_destination(format!("building index {index} of {table}"), error.into())
}
