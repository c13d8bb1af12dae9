//! Connections: listening, accepting, limits, deadlines, and serving requests.

pub(crate) mod connection;
pub(crate) mod failure;
pub(crate) mod limiter;
pub(crate) mod listen;
pub(crate) mod plaintext;
pub(crate) mod progress;
pub(crate) mod server;
