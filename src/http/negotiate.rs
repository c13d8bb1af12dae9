//! In which form an answer is wanted.

use hyper::header::HeaderMap;

use crate::exposition::Format;

/// The format of metrics; nothing is negotiated yet.
pub(super) fn format(_: &HeaderMap) -> Format {
    Format::Text
}

/// Whether an answer is to be compressed; nothing is negotiated yet.
pub(super) fn gzip(_: &HeaderMap) -> bool {
    false
}
