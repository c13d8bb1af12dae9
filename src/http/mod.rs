//! Who reads: metrics, JSON, health and the status page over HTTP. And what can be asked for:
//! registrations and reloads.

mod admission;
mod agents;
mod auth;
mod body;
mod connection;
mod etag;
mod events;
mod guard;
mod gzip;
mod history;
mod layout;
mod listen;
mod negotiate;
mod overview;
mod page;
mod plaintext;
mod progress;
mod renderings;
mod routes;
mod runbooks;
mod select;
mod server;
mod toggles;
mod wait;
mod write;

pub use auth::{Denied, Gate};
pub use listen::{addresses, bind};
pub use routes::{Known, Site};
pub use server::serve;
pub use write::Desk;
