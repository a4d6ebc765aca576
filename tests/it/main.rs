//! One binary for every test that needs a real server, a real daemon or the whole workspace.
#![allow(clippy::unwrap_used, reason = "the helper of a test may panic as the test itself may")]

mod appearing_roles;
mod arrows;
mod background;
mod bad_input;
mod bad_luck;
mod chaos;
mod copying;
mod crash;
mod crossing;
mod ending;
mod existing_schema;
mod forced;
mod harness;
mod large_objects;
mod lifting;
mod lopsided;
mod majors;
mod no_login;
mod pglogical_copy;
mod privileges;
mod schema;
mod settled;
mod strays;
mod traffic_hooks;
mod traffic_pgbouncer;
mod unlogged;
mod verify;
mod visible;
mod wal_guard;
