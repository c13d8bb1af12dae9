//! The server: metrics, the JSON API, health and the status page over HTTP, registrations and reloads.

mod api;
mod auth;
mod connections;
mod debug_poll;
mod guard;
mod handlers;
mod log_limiter;
mod page;
mod query;
mod responses;
mod route;
mod selection;
mod site;
mod views;

pub use api::write::WriteApi;
pub use connections::listen::{addresses, bind};
pub use connections::server::serve;
pub use site::{ReplicaAccess, Site, SiteData, StartFacts};
