//! Who reads: metrics, JSON, health and a landing page over HTTP.

mod body;
mod landing;
mod listen;
mod routes;
mod server;
mod toggles;

pub use listen::{addresses, bind};
pub use routes::Site;
pub use server::serve;
