//! The two sides, the two directions, the two kinds of switchover.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One of the two servers of a migration. They never swap names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// Where the database is when the migration starts.
    Source,
    /// Where it goes.
    Destination,
}

impl Side {
    /// Both sides, the source first.
    pub const BOTH: [Side; 2] = [Side::Source, Side::Destination];

    /// The word used in SQL, HTTP, metrics and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Side::Source => "source",
            Side::Destination => "destination",
        }
    }

    /// The other side.
    #[must_use]
    pub fn other(self) -> Side {
        match self {
            Side::Source => Side::Destination,
            Side::Destination => Side::Source,
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The direction of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Source to destination.
    Forward,
    /// Destination to source.
    Reverse,
}

impl Direction {
    /// Both directions, forward first.
    pub const BOTH: [Direction; 2] = [Direction::Forward, Direction::Reverse];

    /// The word used in SQL, HTTP, metrics and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Direction::Forward => "forward",
            Direction::Reverse => "reverse",
        }
    }

    /// The side whose changes this direction carries.
    #[must_use]
    pub fn from(self) -> Side {
        match self {
            Direction::Forward => Side::Source,
            Direction::Reverse => Side::Destination,
        }
    }

    /// The side that this direction carries changes to.
    #[must_use]
    pub fn to(self) -> Side {
        self.from().other()
    }

    /// The direction that carries the changes of `side`.
    #[must_use]
    pub fn leaving(side: Side) -> Direction {
        match side {
            Side::Source => Direction::Forward,
            Side::Destination => Direction::Reverse,
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The two kinds of switchover: the active side moves forward, or back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// From the source to the destination.
    Cutover,
    /// From the destination to the source.
    Rollback,
}

impl Kind {
    /// Both kinds, cutover first.
    pub const BOTH: [Kind; 2] = [Kind::Cutover, Kind::Rollback];

    /// The word used in SQL, HTTP, metrics and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Cutover => "cutover",
            Kind::Rollback => "rollback",
        }
    }

    /// The side that is fenced.
    #[must_use]
    pub fn from(self) -> Side {
        match self {
            Kind::Cutover => Side::Source,
            Kind::Rollback => Side::Destination,
        }
    }

    /// The side that is opened.
    #[must_use]
    pub fn to(self) -> Side {
        self.from().other()
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
