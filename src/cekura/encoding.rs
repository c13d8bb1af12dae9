//! Compressed responses. They are never requested, but some proxies send them anyway.

use std::io::Read;

use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use reqwest::header::{CONTENT_ENCODING, HeaderMap};

use crate::toggle::{Failure, Reason, Text};

/// The compression of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Identity,
    Gzip,
    /// In the zlib format, or raw, as some servers send it.
    Deflate,
}

// === impl Encoding ===

impl Encoding {
    /// The encoding that the headers name.
    ///
    /// # Errors
    /// [`Reason::Decode`] if it is not supported, with its name.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Failure> {
        let names = headers.get_all(CONTENT_ENCODING).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
        let names = names.collect::<Vec<_>>().join(", ").trim().to_ascii_lowercase();
        match names.as_str() {
            "" | "identity" => Ok(Self::Identity),
            "gzip" | "x-gzip" => Ok(Self::Gzip),
            "deflate" => Ok(Self::Deflate),
            other => {
                let what = format!("the body is compressed as {other:?}, which nobody asked for");
                Err(Failure::new(Reason::Decode).with_detail(Text::own(&what)))
            }
        }
    }

    /// Decompresses the body.
    ///
    /// # Errors
    /// [`Reason::TooLarge`] if the result is over `limit` bytes, [`Reason::Decode`] if the body is invalid.
    pub(super) fn decoded(self, body: Vec<u8>, limit: usize) -> Result<Vec<u8>, Failure> {
        match self {
            Self::Identity => Ok(body),
            Self::Gzip => read(MultiGzDecoder::new(&*body), limit, "gzip"),
            Self::Deflate => match read(ZlibDecoder::new(&*body), limit, "deflate") {
                Err(failure) if failure.reason == Reason::Decode => read(DeflateDecoder::new(&*body), limit, "deflate"),
                decoded => decoded,
            },
        }
    }
}

fn read(source: impl Read, limit: usize, name: &str) -> Result<Vec<u8>, Failure> {
    let (mut decoded, most) = (Vec::new(), limit as u64 + 1);
    if source.take(most).read_to_end(&mut decoded).is_err() {
        let what = format!("the body is said to be compressed as {name}, and is not");
        return Err(Failure::new(Reason::Decode).with_detail(Text::own(&what)));
    }
    if decoded.len() > limit {
        let what = format!("the body is over {limit} bytes when it is decompressed");
        return Err(Failure::new(Reason::TooLarge).with_detail(Text::own(&what)));
    }
    Ok(decoded)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use reqwest::header::HeaderValue;

    use super::*;

    fn of(value: &'static str) -> Result<Encoding, Failure> {
        Encoding::of(&HeaderMap::from_iter([(CONTENT_ENCODING, HeaderValue::from_static(value))]))
    }

    #[test]
    fn each_common_encoding_is_read_and_any_other_is_named() {
        assert_eq!(Encoding::of(&HeaderMap::new()), Ok(Encoding::Identity));
        for (name, encoding) in [
            ("identity", Encoding::Identity),
            ("GZIP", Encoding::Gzip),
            ("x-gzip", Encoding::Gzip),
            ("deflate", Encoding::Deflate),
        ] {
            assert_eq!(of(name), Ok(encoding), "{name}");
        }
        for name in ["br", "zstd", "gzip, gzip"] {
            let failure = of(name).unwrap_err();
            assert!(failure.reason == Reason::Decode && failure.detail.unwrap().as_str().contains(name), "{name}");
        }
    }

    #[test]
    fn a_body_is_decompressed_and_an_invalid_or_too_large_one_is_an_error() {
        let text = b"{\"status\":\"completed\"}".repeat(9);
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
        let mut bare = DeflateEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(&text).unwrap();
        zlib.write_all(&text).unwrap();
        bare.write_all(&text).unwrap();
        for (encoding, body) in [
            (Encoding::Identity, text.clone()),
            (Encoding::Gzip, gzip.finish().unwrap()),
            (Encoding::Deflate, zlib.finish().unwrap()),
            (Encoding::Deflate, bare.finish().unwrap()),
        ] {
            assert_eq!(encoding.decoded(body.clone(), text.len()).as_ref(), Ok(&text), "{encoding:?}");
            if encoding != Encoding::Identity {
                assert_eq!(encoding.decoded(body.clone(), text.len() - 1).unwrap_err().reason, Reason::TooLarge);
                assert_eq!(encoding.decoded(body[..body.len() / 2].to_vec(), 9999).unwrap_err().reason, Reason::Decode);
            }
        }
    }
}
