//! The body of an answer: whole, or encoded while it is sent.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

use crate::exposition::{Encoder, Snapshot};

/// The body of an answer.
pub(super) enum Body {
    /// All of it, until it is taken.
    Whole(Option<Bytes>),
    /// Chunks that are encoded when the connection takes them. Encoding one takes some ten
    /// microseconds, so it is done where the connection is served.
    Exposition(Box<(Snapshot, Encoder)>),
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let data = match &mut *self {
            Self::Whole(whole) => whole.take(),
            Self::Exposition(exposition) => {
                let (snapshot, encoder) = &mut **exposition;
                encoder.next_chunk(snapshot).map(Bytes::from)
            }
        };
        Poll::Ready(data.map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(whole) => SizeHint::with_exact(whole.as_ref().map_or(0, |whole| whole.len() as u64)),
            Self::Exposition(_) => SizeHint::new(),
        }
    }
}
