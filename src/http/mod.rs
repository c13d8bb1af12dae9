//! Who reads: metrics, JSON, health and the status page over HTTP. And what can be asked for:
//! registrations and reloads.

mod api;
mod auth;
mod connections;
mod events;
mod guard;
mod page;
mod progress;
mod responses;
mod routes;
mod select;

pub use api::write::WriteApi;
pub use auth::{Denied, Gate};
pub use connections::listen::{addresses, bind};
pub use connections::server::serve;
pub use routes::{Site, SiteData};
