//! The integration tests: the real program, driven over loopback.

mod harness;
mod polling;
mod prometheus;
mod state;
