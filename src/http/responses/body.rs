//! The body of a response.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

use super::renderings::{RenderingCut, RenderingReader};
use crate::http::connections::progress::SendingGuard;

/// The body of a response.
pub(crate) struct ResponseBody {
    content: BodyContent,
    /// Reports the end of the response when it is dropped with the body.
    _sending: Option<SendingGuard>,
}

enum BodyContent {
    /// All of it, until it is sent.
    Whole(Option<Bytes>),
    /// A rendering, which others may read too.
    Shared(RenderingReader),
}

// === impl ResponseBody ===

impl ResponseBody {
    pub(crate) fn whole(body: impl Into<Bytes>) -> Self {
        Self { content: BodyContent::Whole(Some(body.into())), _sending: None }
    }

    pub(crate) fn shared(reader: RenderingReader) -> Self {
        Self { content: BodyContent::Shared(reader), _sending: None }
    }

    /// Changes the content of a whole body.
    pub(crate) fn map<B: Into<Bytes>>(self, change: impl FnOnce(Bytes) -> B) -> Self {
        match self.content {
            BodyContent::Whole(Some(whole)) => Self { content: BodyContent::Whole(Some(change(whole).into())), ..self },
            content => Self { content, ..self },
        }
    }

    /// The same, with a guard that is dropped when the body was sent.
    pub(crate) fn with_guard(self, sending: SendingGuard) -> Self {
        Self { _sending: Some(sending), ..self }
    }
}

impl hyper::body::Body for ResponseBody {
    type Data = Bytes;
    type Error = RenderingCut;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, RenderingCut>>> {
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
            BodyContent::Shared(reader) => reader.remaining().map_or_else(SizeHint::new, SizeHint::with_exact),
        }
    }
}
