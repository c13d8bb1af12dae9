//! The integration tests: the real program, driven over loopback.

// Whatever goes wrong in a test ends it, in functions that tests call too.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod cli;
mod configuration;
mod demo;
mod harness;
mod logs;
mod polling;
mod reasons;
mod serving;
mod state;
