//! The integration tests: the real program, driven over loopback.

// Every build of it is a test anyway; clippy excuses unwrap and panic only where it sees this.
#![cfg(test)]

mod harness;
mod polling;
mod prometheus;
mod state;
