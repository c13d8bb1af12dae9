//! The body of an answer, and what is noted when it was sent.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

use super::renderings::{Cut, SharedReader};
use crate::http::progress::Sending;

/// The body of an answer.
pub(crate) struct Body {
    content: BodyContent,
    /// Ends with the body.
    _sending: Option<Sending>,
}

enum BodyContent {
    /// All of it, until it is taken.
    Whole(Option<Bytes>),
    /// Parts of what others may read too.
    Shared(SharedReader),
}

// === impl Body ===

impl Body {
    pub(crate) fn whole(body: impl Into<Bytes>) -> Self {
        Self { content: BodyContent::Whole(Some(body.into())), _sending: None }
    }

    pub(crate) fn shared(reader: SharedReader) -> Self {
        Self { content: BodyContent::Shared(reader), _sending: None }
    }

    /// Changes the content, if it is all there.
    pub(crate) fn map<B: Into<Bytes>>(self, change: impl FnOnce(Bytes) -> B) -> Self {
        match self.content {
            BodyContent::Whole(Some(whole)) => Self { content: BodyContent::Whole(Some(change(whole).into())), ..self },
            content => Self { content, ..self },
        }
    }

    /// The same, with something that is dropped when it was sent.
    pub(crate) fn noted(self, sending: Sending) -> Self {
        Self { _sending: Some(sending), ..self }
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let part = match &mut self.content {
            BodyContent::Whole(whole) => whole.take().map(Ok),
            BodyContent::Shared(reader) => reader.next(),
        };
        Poll::Ready(part.map(|part| part.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.content, BodyContent::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            BodyContent::Whole(whole) => SizeHint::with_exact(whole.as_ref().map_or(0, |whole| whole.len() as u64)),
            BodyContent::Shared(reader) => reader.left().map_or_else(SizeHint::new, SizeHint::with_exact),
        }
    }
}
