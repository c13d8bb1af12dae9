//! Responses: what they consist of, in which format and encoding, and how large ones are shared.

pub(crate) mod answer;
pub(crate) mod body;
pub(crate) mod etag;
pub(crate) mod gzip;
pub(crate) mod layout;
pub(crate) mod negotiate;
pub(crate) mod renderings;
