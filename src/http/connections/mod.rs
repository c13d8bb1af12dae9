//! Connections: listening, accepting, their limits and deadlines, and serving what is asked over them.

pub(crate) mod admission;
pub(crate) mod connection;
pub(crate) mod listen;
pub(crate) mod plaintext;
pub(crate) mod server;
