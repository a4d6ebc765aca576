//! A large table, or a range of one: read by one COPY on the source, and written by many on the
//! destination, each of which is a transaction that goes on where the one before it has ended.
//!
//! How far a piece is stands in `pgferry.copied`, as a number of rows in the order of the source's
//! file, and is asked for each time that a worker takes the piece up: after a kill, a lost
//! connection or a lost answer to a commit the rest is read from there. Under one snapshot that order
//! never changes: no row that it sees moves, and a file that was written anew is noticed.

use std::sync::Arc;

use super::queue::Piece;
use super::sql::Brought;
use super::tally::{Counted, Tally};
use super::worker::{COMMIT, Worker, check_counts, failed_copy};
use super::{CopyError, Snapshot, files, sql};
use crate::wire::{Pump, PumpError};

const REACHED: &str = "SELECT row_count, byte_count, is_complete FROM pgferry.copied
WHERE schema_name = $1 AND table_name = $2 AND first_block = $3 AND snapshot_lsn = $4::text::pg_lsn";

/// How a read of the source has ended.
enum Read {
    /// At the end of the piece.
    Whole,
    /// Before it: somebody waits for the table.
    GaveWay,
}

impl Worker {
    /// Copies what is left of a piece, whoever has brought the rest of it.
    pub(super) async fn copy_in_parts(
        &mut self,
        snapshot: &Snapshot,
        piece: &mut Piece,
    ) -> Result<(), CopyError> {
        let shared = Arc::clone(&self.shared);
        let counters = &shared.counters[piece.table];
        loop {
            if self.take_up(snapshot, piece).await? {
                // Its last commit, whose answer was lost, may not have waited for the disk.
                let _no_other_is_last = COMMIT.lock().await;
                self.flush().await?;
                counters.piece_done();
                break;
            }
            match self.read_on(snapshot, piece).await? {
                Read::Whole => break,
                // The lock goes with the session, and the next read queues up behind who waits.
                Read::GaveWay => self.source = None,
            }
        }
        counters.add(0, 0, piece.bytes - piece.read(piece.there.1));
        Ok(())
    }

    /// Sees how much of a piece is there, and corrects what was counted of it. Returns whether it is
    /// all there.
    async fn take_up(&self, snapshot: &Snapshot, piece: &mut Piece) -> Result<bool, CopyError> {
        let shared = &self.shared;
        let name = &shared.tables[piece.table].name;
        let looking = |error| CopyError::on_destination("looking at what is copied", error);
        let client = shared.destination.client().await.map_err(|error| looking(error.into()))?;
        let first = i64::try_from(piece.range.first).unwrap_or(-1);
        let lsn = snapshot.lsn.to_string();
        let row = client.query_opt(REACHED, &[&name.schema, &name.name, &first, &lsn]).await;
        let row = row.map_err(|error| looking(error.into()))?;
        let (there, is_complete) = match row {
            None => ((0, 0), false),
            Some(row) => {
                let figure = |at: usize| u64::try_from(row.get::<_, i64>(at)).unwrap_or(0);
                ((figure(0), figure(1)), row.get(2))
            }
        };
        let counters = &shared.counters[piece.table];
        let (rows, bytes) = std::mem::replace(&mut piece.there, there);
        counters.take_back(rows, bytes, piece.read(bytes));
        counters.add(there.0, there.1, piece.read(there.1));
        Ok(is_complete)
    }

    /// One read of what is left of a piece, in as many transactions as that takes.
    async fn read_on(&mut self, snapshot: &Snapshot, piece: &mut Piece) -> Result<Read, CopyError> {
        let shared = Arc::clone(&self.shared);
        let table = &shared.tables[piece.table];
        self.open(Some(snapshot)).await?;
        let mut pump = None;
        loop {
            let counted = Counted::default();
            let part = self.part(snapshot, piece, &mut pump, &counted).await;
            let [rows, bytes, read] = counted.get();
            match part {
                Ok(is_end) => {
                    piece.there = (piece.there.0 + rows, piece.there.1 + bytes);
                    if is_end {
                        return Ok(Read::Whole);
                    }
                }
                Err(error) => {
                    shared.counters[piece.table].take_back(rows, bytes, read);
                    return Err(error);
                }
            }
            if files::is_waited_for(&shared, piece).await? {
                tracing::info!(table = %table.name, "somebody waits for the table: giving way");
                return Ok(Read::GaveWay);
            }
        }
    }

    /// One transaction of a piece. Returns whether nothing is left.
    async fn part(
        &mut self,
        snapshot: &Snapshot,
        piece: &Piece,
        pump: &mut Option<Pump>,
        counted: &Counted,
    ) -> Result<bool, CopyError> {
        let shared = Arc::clone(&self.shared);
        let table = &shared.tables[piece.table];
        let about = |error| failed_copy(&shared, std::slice::from_ref(piece), error);
        let (Some(source), Some(destination)) = (&mut self.source, &mut self.destination) else {
            return Err(CopyError::Worker("a session is missing".to_owned()));
        };
        let rows = piece.there.0;
        let copy_in = sql::copy_in_after(&shared.plan, &sql::lsn(snapshot), table, piece, rows);
        destination
            .begin_query(&copy_in)
            .await
            .map_err(|error| about(PumpError::Destination(error, false)))?;
        let pump = match pump {
            Some(pump) => pump,
            None => {
                let copy_out = sql::copy_out_after(table, piece.range, rows);
                source.begin_query(&copy_out).await.map_err(PumpError::Source).map_err(about)?;
                pump.insert(Pump::begin(source, !table.text).await.map_err(about)?)
            }
        };
        let gate = Tally::new(&shared, piece, counted);
        let enough = shared.plan.part_bytes;
        let carried = pump.carry(source, destination, enough, &gate).await.map_err(about)?;
        check_counts(&table.name, carried.sent, carried.written)?;
        if carried.is_end {
            source.until_ready().await.map_err(PumpError::Source).map_err(about)?;
        }
        let ended = destination.until_ready().await;
        ended.map_err(|error| about(PumpError::Destination(error, true)))?;
        files::check_same_files(&shared, std::slice::from_ref(piece)).await?;
        let brought =
            Brought { piece, rows: carried.sent, bytes: carried.bytes, completes: carried.is_end };
        self.commit(snapshot, &[brought]).await?;
        Ok(carried.is_end)
    }
}
