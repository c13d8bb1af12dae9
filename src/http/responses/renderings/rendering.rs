//! One rendering, and those who read it.

use std::error::Error;
use std::fmt;
use std::io::Write as _;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::time::Instant;

use crate::exposition::{Encoder, Format, Snapshot};

/// How much of a body is kept and sent in one piece, in bytes.
pub(super) const PIECE: usize = 64 * 1024;

/// The source of a body.
pub(crate) enum RenderingSource {
    Metrics(Snapshot, Format),
    Text(Vec<u8>),
}

/// A body, for any number of readers.
pub(super) struct Rendering {
    /// `None` after it was cut.
    content: RwLock<Option<RenderingContent>>,
    last_read: Mutex<Instant>,
}

/// The content of a body.
pub(super) enum RenderingContent {
    /// Metrics, which each reader encodes while it sends them. That takes some ten microseconds a piece, and
    /// no memory beside the rows.
    Metrics(Snapshot, Format),
    Pieces(Vec<Bytes>),
}

/// Reads a rendering from its beginning.
pub(crate) struct RenderingReader {
    rendering: Arc<Rendering>,
    position: ReadPosition,
    /// How many bytes remain; `None` if they are not known beforehand.
    remaining: Option<u64>,
}

enum ReadPosition {
    Encoding(Box<Encoder>),
    /// The index of the next piece.
    Piece(usize),
}

/// The rendering was cut.
#[derive(Debug)]
pub(crate) struct RenderingCut;

// === impl Rendering ===

impl Rendering {
    pub(super) fn new(content: RenderingContent) -> Self {
        Self { content: RwLock::new(Some(content)), last_read: Mutex::new(Instant::now()) }
    }

    /// When a reader last took something, or else when it was rendered.
    pub(super) fn last_read(&self) -> Instant {
        *self.last_read.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes out the content. The connections of the readers end when they want the next piece.
    pub(super) fn cut(&self) -> Option<RenderingContent> {
        self.content.write().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn content(&self) -> RwLockReadGuard<'_, Option<RenderingContent>> {
        self.content.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn record_read(&self) {
        *self.last_read.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
}

// === impl RenderingContent ===

impl RenderingContent {
    pub(super) fn new(source: RenderingSource, gzip: bool) -> Self {
        match source {
            RenderingSource::Metrics(snapshot, format) if gzip => {
                let mut encoder = Encoder::new(&snapshot, format);
                Self::Pieces(compressed(std::iter::from_fn(|| encoder.next_chunk(&snapshot))))
            }
            RenderingSource::Metrics(snapshot, format) => Self::Metrics(snapshot, format),
            RenderingSource::Text(text) if gzip => Self::Pieces(compressed(text.chunks(PIECE))),
            // Each piece is an allocation of its own, so a client that holds one holds no more.
            RenderingSource::Text(text) => Self::Pieces(text.chunks(PIECE).map(Bytes::copy_from_slice).collect()),
        }
    }
}

fn compressed(text: impl Iterator<Item: AsRef<[u8]>>) -> Vec<Bytes> {
    let mut pieces = Vec::new();
    let mut gzip = GzEncoder::new(Vec::with_capacity(PIECE), Compression::fast());
    for chunk in text {
        // Writing to a Vec cannot fail.
        let _ = gzip.write_all(chunk.as_ref());
        if gzip.get_ref().len() >= PIECE {
            pieces.push(std::mem::take(gzip.get_mut()).into());
        }
    }
    pieces.extend(gzip.finish().map(Bytes::from));
    pieces
}

// === impl RenderingReader ===

impl RenderingReader {
    pub(super) fn new(rendering: Arc<Rendering>) -> Self {
        let (position, remaining) = match &*rendering.content() {
            Some(RenderingContent::Metrics(snapshot, format)) => {
                (ReadPosition::Encoding(Box::new(Encoder::new(snapshot, *format))), None)
            }
            Some(RenderingContent::Pieces(pieces)) => {
                (ReadPosition::Piece(0), Some(pieces.iter().map(|piece| piece.len() as u64).sum()))
            }
            None => (ReadPosition::Piece(0), None),
        };
        Self { rendering, position, remaining }
    }

    /// The next piece of the body.
    pub(crate) fn next(&mut self) -> Option<Result<Bytes, RenderingCut>> {
        let piece = match (&*self.rendering.content(), &mut self.position) {
            (Some(RenderingContent::Metrics(snapshot, _)), ReadPosition::Encoding(encoder)) => {
                Bytes::from(encoder.next_chunk(snapshot)?)
            }
            (Some(RenderingContent::Pieces(pieces)), ReadPosition::Piece(next)) => {
                let piece = pieces.get(*next)?.clone();
                *next += 1;
                piece
            }
            _ => return Some(Err(RenderingCut)),
        };
        self.rendering.record_read();
        self.remaining = self.remaining.map(|remaining| remaining - piece.len() as u64);
        Some(Ok(piece))
    }

    /// How many bytes remain; `None` if they are not known beforehand.
    pub(crate) fn remaining(&self) -> Option<u64> {
        self.remaining
    }
}

// === impl RenderingCut ===

impl fmt::Display for RenderingCut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the body was cut: its readers were the slowest, and others needed the memory")
    }
}

impl Error for RenderingCut {}
