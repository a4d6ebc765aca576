//! The fault matrix: a switchover, a point in it, a fault at that point; and what must hold then.
//!
//! A [`Case`] names what is tried. A [`World`] is two servers, two daemons, clients that remember,
//! and wires between all of them that can be cut; it tries cases one after the other, and a case
//! that does not end whole panics with what does not hold.

mod case;
mod fault;
mod order;
mod random;
mod world;

pub use case::{Case, Place, SWITCHOVER};
pub use fault::{Fault, Reach};
pub use order::{Ordered, Outcome, SOON_AFTER};
pub use random::{Dice, Schedule};
pub use world::{JournalIn, World, WorldOptions};
