//! A model of two servers and their clients, small enough to be broken at every instruction.
//!
//! It keeps what the design's safety rests on: mutations guarded by epoch and revision, sessions
//! that keep the settings they began with, streams that carry changes later, and sequences.

mod faults;
mod model;
mod tests;
