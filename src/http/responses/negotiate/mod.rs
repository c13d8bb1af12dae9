//! Content negotiation: the format of the metrics and the compression that a client prefers.
//!
//! The headers are parsed as RFC 9110, 12.5.1 and 12.5.3 define them. Malformed clauses and unknown parameters
//! are ignored. Nobody is refused: a client that accepts neither format gets the text format.

use std::borrow::Cow;
use std::cmp::Reverse;

use hyper::header::{ACCEPT, ACCEPT_ENCODING, HeaderMap, HeaderName};

use crate::exposition::{Format, NameEscaping};

/// A format that is offered, as clauses name it.
struct MediaType {
    name: &'static str,
    /// The range of its type.
    type_range: &'static str,
    version: &'static str,
}

const TEXT: MediaType = MediaType { name: "text/plain", type_range: "text/*", version: "0.0.4" };

const OPEN_METRICS: MediaType =
    MediaType { name: "application/openmetrics-text", type_range: "application/*", version: "1.0.0" };

const HTML: MediaType = MediaType { name: "text/html", type_range: "text/*", version: "" };

const JSON: MediaType = MediaType { name: "application/json", type_range: "application/*", version: "" };

/// One clause of a list of preferences, such as `text/plain;version=0.0.4;q=0.5`.
struct AcceptClause<'a> {
    name: &'a [u8],
    version: Option<Cow<'a, [u8]>>,
    escaping: Option<Cow<'a, [u8]>>,
    quality: Quality,
}

/// A quality in thousandths.
type Quality = u16;

const MAX_QUALITY: Quality = 1000;

/// How specifically a clause names a media type.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Specificity {
    AnyType,
    TypeRange,
    Name,
    NameAndVersion,
}

/// How much a media type is preferred. The greatest one is served.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Preference {
    quality: Quality,
    /// The index of the clause, if it names the media type and not only a range: the first is preferred.
    named: Option<Reverse<usize>>,
}

/// The format that the client prefers.
pub(crate) fn format(headers: &HeaderMap) -> Format {
    if preference(headers, &OPEN_METRICS) > preference(headers, &TEXT) { Format::OpenMetrics } else { Format::Text }
}

/// The escaping of names in an answer in `OpenMetrics`; `None` if the client does not ask for one.
///
/// The scheme `dots` is not supported, because it also changes names that have nothing to escape. As for an unknown
/// scheme, the answer is in `underscores`, which the exporter's names need not be changed for.
pub(crate) fn escaping(headers: &HeaderMap) -> Option<NameEscaping> {
    let (_, clause) = most_specific(headers, &OPEN_METRICS)?;
    Some(match &*clause.escaping? {
        b"allow-utf-8" => NameEscaping::AllowUtf8,
        b"values" => NameEscaping::Values,
        _ => NameEscaping::Underscores,
    })
}

/// Whether the client prefers a page to JSON, as browsers do.
pub(crate) fn prefers_html(headers: &HeaderMap) -> bool {
    preference(headers, &HTML) > preference(headers, &JSON)
}

/// Whether the client prefers gzip to no compression.
pub(crate) fn gzip(headers: &HeaderMap) -> bool {
    let quality = |codings: &[&str]| {
        let clauses = clauses(headers, ACCEPT_ENCODING);
        clauses.filter(|clause| codings.iter().any(|coding| clause.names(coding))).map(|c| c.quality).max()
    };
    let gzip = quality(&["gzip", "x-gzip"]).or_else(|| quality(&["*"])).unwrap_or(0);
    gzip > 0 && quality(&["identity"]).is_none_or(|plain| gzip >= plain)
}

/// The preference of the most specific clause; `None` if the media type is not accepted.
fn preference(headers: &HeaderMap, media_type: &MediaType) -> Option<Preference> {
    most_specific(headers, media_type).map(|(preference, _)| preference).filter(|preference| preference.quality > 0)
}

/// The most specific clause that names a media type, and how much it prefers it.
fn most_specific<'a>(headers: &'a HeaderMap, media_type: &MediaType) -> Option<(Preference, AcceptClause<'a>)> {
    let clauses = clauses(headers, ACCEPT).enumerate();
    let matching = clauses.filter_map(|(place, clause)| {
        let specificity = clause.specificity(media_type)?;
        let named = (specificity >= Specificity::Name).then_some(Reverse(place));
        Some((specificity, Preference { quality: clause.quality, named }, clause))
    });
    let most_specific = matching.max_by_key(|(specificity, preference, _)| (*specificity, *preference));
    most_specific.map(|(_, preference, clause)| (preference, clause))
}

/// The clauses of a header, over all of its lines.
fn clauses(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = AcceptClause<'_>> {
    headers.get_all(name).into_iter().flat_map(|line| split(line.as_bytes(), b',')).filter_map(AcceptClause::parse)
}

// === impl AcceptClause ===

impl<'a> AcceptClause<'a> {
    fn parse(text: &'a [u8]) -> Option<Self> {
        let mut parts = split(text, b';');
        let mut clause = Self { name: parts.next()?, version: None, escaping: None, quality: MAX_QUALITY };
        for parameter in parts {
            let equals = parameter.iter().position(|byte| *byte == b'=').unwrap_or(parameter.len());
            let (name, value) = parameter.split_at(equals);
            let (name, value) = (name.trim_ascii(), value.get(1..).unwrap_or_default().trim_ascii());
            if name.eq_ignore_ascii_case(b"q") {
                clause.quality = quality(value)?;
            } else if name.eq_ignore_ascii_case(b"version") {
                clause.version = Some(unquoted(value));
            } else if name.eq_ignore_ascii_case(b"escaping") {
                clause.escaping = Some(unquoted(value));
            }
        }
        Some(clause)
    }

    fn names(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }

    /// How specifically this names the media type; `None` if it names another.
    fn specificity(&self, media_type: &MediaType) -> Option<Specificity> {
        if self.version.as_ref().is_some_and(|version| **version != *media_type.version.as_bytes()) {
            return None;
        }
        if self.names(media_type.name) {
            return Some(if self.version.is_some() { Specificity::NameAndVersion } else { Specificity::Name });
        }
        let any_of_type = self.names(media_type.type_range).then_some(Specificity::TypeRange);
        any_of_type.or_else(|| self.names("*/*").then_some(Specificity::AnyType))
    }
}

/// A quality as it is written: 0 to 1 with at most three decimals.
fn quality(text: &[u8]) -> Option<Quality> {
    let (whole, decimals) = match text {
        [whole] => (*whole, &[][..]),
        [whole, b'.', decimals @ ..] if decimals.len() <= 3 => (*whole, decimals),
        _ => return None,
    };
    if !decimals.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digit = |at: usize| decimals.get(at).map_or(0, |digit| Quality::from(digit - b'0'));
    let thousandths = digit(0) * 100 + digit(1) * 10 + digit(2);
    match whole {
        b'0' => Some(thousandths),
        b'1' if thousandths == 0 => Some(MAX_QUALITY),
        _ => None,
    }
}

/// The parts between separators that are not in a quoted string, without the space around them.
fn split(text: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let (mut quoted, mut escaped) = (false, false);
    let separates = move |byte: &u8| {
        let ends = *byte == separator && !quoted;
        (quoted, escaped) = match byte {
            _ if escaped => (quoted, false),
            b'\\' => (quoted, quoted),
            b'"' => (!quoted, false),
            _ => (quoted, false),
        };
        ends
    };
    text.split(separates).map(<[u8]>::trim_ascii)
}

/// The value of a parameter, without the quotes that it may have.
fn unquoted(value: &[u8]) -> Cow<'_, [u8]> {
    let Some(inner) = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")) else {
        return Cow::Borrowed(value);
    };
    if !inner.contains(&b'\\') {
        return Cow::Borrowed(inner);
    }
    let mut escaped = false;
    let is_text = |byte: &u8| {
        escaped = *byte == b'\\' && !escaped;
        !escaped
    };
    inner.iter().copied().filter(is_text).collect()
}

#[cfg(test)]
mod tests;
