//! Responses: their bodies, formats and encodings, and how large ones are rendered and shared.

pub(crate) mod body;
pub(crate) mod etag;
pub(crate) mod json_layout;
pub(crate) mod negotiate;
pub(crate) mod renderings;
pub(crate) mod response;
