//! The integration tests: the real program, driven over loopback.

// Every build of it is a test anyway; clippy excuses unwrap and panic only where it sees this.
#![cfg(test)]

mod agents;
mod budgets;
mod cli;
mod client_certificates;
mod clocks;
mod compression;
mod configuration;
mod corpora;
mod curves;
mod database;
mod debug_polls;
mod demo;
mod deploy;
mod discovery;
mod documents;
mod encryption;
mod examples;
mod harness;
mod hostile;
mod lists;
mod logins;
mod logs;
mod mock_status;
mod modules;
mod openapi;
mod openmetrics;
mod page;
mod polling;
mod postgres;
mod prometheus;
mod protection;
mod raw;
mod readme;
mod reasons;
mod registrations;
mod reloading;
mod renewals;
mod replica_operations;
mod replicas;
mod restarts;
mod runbooks;
mod serving;
mod state;
mod stopping;
mod stores;
mod systemd;
mod threads;
mod transport;
mod waiting;
mod watch_files;
mod web_configuration;
