//! What a client prefers, from the headers of its request: the format of the metrics, and whether
//! they are compressed.
//!
//! The syntax is that of RFC 9110, 12.5.1 and 12.5.3. A clause that is malformed is ignored, and so
//! are parameters that say nothing to us. Nobody is refused: who accepts nothing that we have gets
//! the text format.

use std::borrow::Cow;
use std::cmp::Reverse;

use hyper::header::{ACCEPT, ACCEPT_ENCODING, HeaderMap, HeaderName};

use crate::exposition::Format;

/// A format that can be had, as clauses name it.
struct Offer {
    range: &'static str,
    of_type: &'static str,
    version: &'static str,
}

const TEXT: Offer = Offer { range: "text/plain", of_type: "text/*", version: "0.0.4" };

const OPEN_METRICS: Offer = Offer { range: "application/openmetrics-text", of_type: "application/*", version: "1.0.0" };

/// One clause of a list of preferences: what it is about, and how much that is wanted.
struct Clause<'a> {
    subject: &'a [u8],
    version: Option<Cow<'a, [u8]>>,
    quality: Quality,
}

/// A quality in thousandths.
type Quality = u16;

const MOST: Quality = 1000;

/// How exactly a clause names an offer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Precision {
    Anything,
    Type,
    Format,
    Version,
}

/// How much an offer is wanted. The greater one is served.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Wish {
    quality: Quality,
    /// The place of the clause that names the format, if it is not just any: the first is wanted
    /// most.
    named: Option<Reverse<usize>>,
}

/// The format that the client prefers.
pub(crate) fn format(headers: &HeaderMap) -> Format {
    if wish(headers, &OPEN_METRICS) > wish(headers, &TEXT) { Format::OpenMetrics } else { Format::Text }
}

/// Whether the client wants the answer compressed by gzip.
pub(crate) fn gzip(headers: &HeaderMap) -> bool {
    let quality = |codings: &[&str]| {
        let clauses = clauses(headers, ACCEPT_ENCODING);
        clauses.filter(|clause| codings.iter().any(|coding| clause.is_about(coding))).map(|c| c.quality).max()
    };
    let gzip = quality(&["gzip", "x-gzip"]).or_else(|| quality(&["*"])).unwrap_or(0);
    gzip > 0 && quality(&["identity"]).is_none_or(|plain| gzip >= plain)
}

/// How much the offer is wanted, as the clause says that names it most precisely; `None` if it is
/// not accepted.
fn wish(headers: &HeaderMap, offer: &Offer) -> Option<Wish> {
    let clauses = clauses(headers, ACCEPT).enumerate();
    let matching = clauses.filter_map(|(place, clause)| {
        let precision = clause.precision(offer)?;
        let named = (precision >= Precision::Format).then_some(Reverse(place));
        Some((precision, Wish { quality: clause.quality, named }))
    });
    matching.max().map(|(_, wish)| wish).filter(|wish| wish.quality > 0)
}

/// The clauses of a header, over all of its lines.
fn clauses(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = Clause<'_>> {
    headers.get_all(name).into_iter().flat_map(|line| split(line.as_bytes(), b',')).filter_map(Clause::parse)
}

// === impl Clause ===

impl<'a> Clause<'a> {
    fn parse(text: &'a [u8]) -> Option<Self> {
        let mut parts = split(text, b';');
        let mut clause = Self { subject: parts.next()?, version: None, quality: MOST };
        for parameter in parts {
            let equals = parameter.iter().position(|byte| *byte == b'=').unwrap_or(parameter.len());
            let (name, value) = parameter.split_at(equals);
            let (name, value) = (name.trim_ascii(), value.get(1..).unwrap_or_default().trim_ascii());
            if name.eq_ignore_ascii_case(b"q") {
                clause.quality = quality(value)?;
            } else if name.eq_ignore_ascii_case(b"version") {
                clause.version = Some(unquoted(value));
            }
        }
        Some(clause)
    }

    fn is_about(&self, subject: &str) -> bool {
        self.subject.eq_ignore_ascii_case(subject.as_bytes())
    }

    /// How exactly this names the offer; `None` if it is about something else.
    fn precision(&self, offer: &Offer) -> Option<Precision> {
        if self.version.as_ref().is_some_and(|version| **version != *offer.version.as_bytes()) {
            return None;
        }
        if self.is_about(offer.range) {
            return Some(if self.version.is_some() { Precision::Version } else { Precision::Format });
        }
        let any_of_type = self.is_about(offer.of_type).then_some(Precision::Type);
        any_of_type.or_else(|| self.is_about("*/*").then_some(Precision::Anything))
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
        b'1' if thousandths == 0 => Some(MOST),
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
mod tests {
    use hyper::header::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    const PROTOBUF: &str = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";

    fn headers(name: &HeaderName, lines: &[&[u8]]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(name, HeaderValue::from_bytes(line).unwrap());
        }
        headers
    }

    fn accepted(accept: &str) -> Format {
        format(&headers(&ACCEPT, &[accept.as_bytes()]))
    }

    fn compressed(accept_encoding: &str) -> bool {
        gzip(&headers(&ACCEPT_ENCODING, &[accept_encoding.as_bytes()]))
    }

    #[track_caller]
    fn all_get(expected: Format, accepts: &[&str]) {
        for accept in accepts {
            assert_eq!(accepted(accept), expected, "{accept}");
        }
    }

    #[test]
    fn prometheus_gets_what_it_lists_first() {
        // The default of 2.42, and that of 3 with and without protobuf, which we do not have.
        let of_2_42 = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                       text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let of_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                    application/openmetrics-text;version=0.0.1;q=0.5,\
                    text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        let with_protobuf = format!(
            "{PROTOBUF};q=0.6,application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
             application/openmetrics-text;version=0.0.1;q=0.4,\
             text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
        );
        all_get(Format::OpenMetrics, &[of_2_42, of_3, &with_protobuf]);
        // 2.42 that scrapes native histograms, and 3 with the text formats put first.
        let native_histograms = format!("{PROTOBUF},text/plain;version=0.0.4;q=0.5,*/*;q=0.1");
        let text_first = "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.5,\
                          application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.4,*/*;q=0.3";
        let text_only = "text/plain;version=0.0.4;q=0.6,*/*;q=0.5";
        all_get(Format::Text, &[&native_histograms, text_first, text_only]);
    }

    #[test]
    fn people_and_their_tools_get_text() {
        let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8";
        all_get(Format::Text, &[browser, "*/*", "text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2"]);
        assert_eq!(format(&HeaderMap::new()), Format::Text);
    }

    #[test]
    fn who_accepts_nothing_that_there_is_gets_text() {
        all_get(
            Format::Text,
            &[
                "",
                " , ;,; ",
                "application/json",
                "application/openmetrics-text;q=0",
                "application/openmetrics-text;q=0,text/plain;q=0",
                "*/*;q=0",
                "application/openmetrics-text;version=0.0.1",
                "application/openmetrics-text;version=2.0.0",
                "application/openmetrics-text;version=",
                "application/openmetrics-text;version",
                "application/openmetrics",
                "*/openmetrics-text",
                "application openmetrics-text",
            ],
        );
    }

    #[test]
    fn the_higher_quality_decides() {
        all_get(
            Format::OpenMetrics,
            &[
                "text/plain;q=0.5,application/openmetrics-text;q=0.501",
                "text/plain;q=0.9,application/openmetrics-text",
                "application/openmetrics-text;q=0.001",
                "application/openmetrics-text;q=0.001,text/plain;q=0.000",
                "text/plain;q=0,*/*;q=0.1",
                "text/*;q=0.1,*/*;q=0.2",
                "application/*;q=0.2,*/*;q=0.1",
            ],
        );
        all_get(
            Format::Text,
            &[
                "application/openmetrics-text;q=0.5,text/plain;q=0.501",
                "application/openmetrics-text;q=0.9,text/plain;q=1.000",
                "application/openmetrics-text;q=0.5,*/*",
                "application/openmetrics-text;version=1.0.0;q=0.5,text/*;q=0.6",
                "application/openmetrics-text;q=0,*/*;q=0.1",
            ],
        );
    }

    #[test]
    fn at_equal_quality_a_name_goes_before_a_wildcard_the_first_name_before_the_other_and_else_text() {
        all_get(
            Format::OpenMetrics,
            &[
                "*/*,application/openmetrics-text",
                "text/*;q=0.3,application/openmetrics-text;q=0.3",
                "application/openmetrics-text,text/plain",
                "application/openmetrics-text;q=0.2,text/plain;version=0.0.4;q=0.2",
            ],
        );
        all_get(
            Format::Text,
            &[
                "application/*,text/plain",
                "text/plain,application/openmetrics-text;version=1.0.0",
                "application/*,*/*",
                "application/*;q=0.5,text/*;q=0.5",
            ],
        );
    }

    #[test]
    fn the_clause_that_names_a_format_most_precisely_says_how_much_it_is_wanted() {
        all_get(
            Format::OpenMetrics,
            &[
                "text/plain;version=0.0.4;q=0.1,text/plain;q=0.9,text/*,application/openmetrics-text;q=0.5",
                "text/*,text/plain;q=0.1,application/openmetrics-text;q=0.5",
                "*/*,text/*;q=0.1,application/openmetrics-text;q=0.5",
            ],
        );
        all_get(
            Format::Text,
            &[
                "application/openmetrics-text;version=1.0.0;q=0.1,application/openmetrics-text,text/plain;q=0.5",
                "application/*,application/openmetrics-text;q=0.1,text/plain;q=0.5",
            ],
        );
    }

    #[test]
    fn space_case_order_and_parameters_that_say_nothing_to_us_do_not_matter() {
        all_get(
            Format::OpenMetrics,
            &[
                "Application/OpenMetrics-Text;VERSION=1.0.0;Q=0.6,TEXT/PLAIN;q=0.5",
                "application/openmetrics-text \t; \tversion=1.0.0 ; q=0.6 , text/plain ;q=0.5",
                "application/openmetrics-text;q=0.6;version=1.0.0;charset=utf-8,text/plain;q=0.5",
                "application/openmetrics-text;;escaping=allow-utf-8;odd;=;q=1;,text/plain;q=0.5",
                ",, application/openmetrics-text,",
            ],
        );
    }

    #[test]
    fn quoted_values_may_have_separators_and_escapes() {
        all_get(
            Format::OpenMetrics,
            &[
                r#"application/openmetrics-text;version="1.0.0""#,
                r#"application/openmetrics-text;version="1\.0.\0""#,
                r#"application/openmetrics-text;x="a,b;q=0\"\\";q=0.6,text/plain;q=0.5"#,
                r#"text/plain;x=",application/json,";q=0.5,application/openmetrics-text;q=0.6"#,
            ],
        );
        all_get(
            Format::Text,
            &[
                r#"text/html;x=",application/openmetrics-text,""#,
                r#"text/html;x="\",application/openmetrics-text"#,
                r#"application/openmetrics-text;version="2.0.0""#,
                r#"application/openmetrics-text;version="1.0.0"#,
                r#"application/openmetrics-text;version="""#,
                r#"application/openmetrics-text;version=""#,
                r#"application/openmetrics-text;q="0.9""#,
            ],
        );
    }

    #[test]
    fn a_clause_with_a_malformed_quality_is_ignored_and_the_others_hold() {
        for quality in ["", "2", "1.1", "1.001", "-1", "+1", ".5", "0,5", "0.1234", "0.5x", "1e0", "NaN", "00", "0..1"]
        {
            all_get(Format::Text, &[&format!("application/openmetrics-text;q={quality}")]);
            let other = format!("text/plain;q={quality}, application/openmetrics-text;q=0.1");
            all_get(Format::OpenMetrics, &[&other]);
        }
        for quality in ["1", "1.", "1.0", "1.000", "0.5", "0.50", "0.999", " 0.7 "] {
            all_get(Format::OpenMetrics, &[&format!("application/openmetrics-text;q={quality}")]);
        }
    }

    #[test]
    fn lines_of_a_header_are_one_list() {
        let lines: [&[u8]; 3] = [b"text/plain;q=0.5", b"\xff\xfe;q=1,", b"application/openmetrics-text;q=0.6"];
        assert_eq!(format(&headers(&ACCEPT, &lines)), Format::OpenMetrics);
        assert!(gzip(&headers(&ACCEPT_ENCODING, &[b"br", b"gzip"])));
    }

    #[test]
    fn gzip_is_for_those_who_want_it_at_least_as_much_as_plain() {
        for wanted in [
            "gzip",
            "GZip",
            "x-gzip",
            "*",
            "deflate, gzip;q=1.0, *;q=0.5",
            "gzip, deflate, br, zstd",
            "gzip;q=0.001",
            "identity;q=0.5, gzip;q=0.5",
            "identity;q=0, *;q=0.1",
            "br;q=1, gzip;q=0.2",
        ] {
            assert!(compressed(wanted), "{wanted}");
        }
        for unwanted in [
            "",
            " ",
            "identity",
            "br, deflate",
            "gzip;q=0",
            "*;q=0",
            "gzip;q=0, *",
            "x-gzip;q=0.0, *;q=1",
            "identity, gzip;q=0.9",
            "identity;q=0.6, *;q=0.5",
            "gzip;q=2",
            "gzipped",
            "not-gzip",
            "x;y=\"gzip\"",
            "x;y=\",gzip,\"",
        ] {
            assert!(!compressed(unwanted), "{unwanted}");
        }
        assert!(!gzip(&HeaderMap::new()));
    }

    #[test]
    fn a_header_of_a_megabyte_costs_no_more_than_its_length() {
        // Anything that looked at what follows for each of these would not come to an end.
        for hostile in [&b",;"[..], b"\"", b"\\\"", b";=\",", b"application/openmetrics-text;version=\"\\\\", b" "] {
            let long = hostile.repeat((1 << 20) / hostile.len());
            assert_eq!(format(&headers(&ACCEPT, &[&long])), Format::Text);
            assert!(!gzip(&headers(&ACCEPT_ENCODING, &[&long])));
        }
    }

    /// Bytes that headers may have, the separators more often than by chance.
    fn line() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            "[,;=\"\\\\ \t*/q.01]".prop_map(String::into_bytes),
            Just(b"application/openmetrics-text".to_vec()),
            Just(b"text/plain;q=0.5".to_vec()),
            Just(b"version=\"1.0.0\"".to_vec()),
            Just(b"gzip".to_vec()),
            prop_oneof![b' '..=b'~', 0x80..=0xff_u8].prop_map(|byte| vec![byte]),
        ];
        prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_and_split_into_no_more_than_there_is(lines in prop::collection::vec(line(), 0..4)) {
            let lines: Vec<_> = lines.iter().map(Vec::as_slice).collect();
            format(&headers(&ACCEPT, &lines));
            gzip(&headers(&ACCEPT_ENCODING, &lines));
            for line in lines {
                // The parts and the separators between them are all that there is.
                let parts: Vec<_> = split(line, b',').collect();
                let least = parts.iter().map(|part| part.len()).sum::<usize>() + parts.len() - 1;
                prop_assert!(least <= line.len());
            }
        }

        #[test]
        fn clauses_of_others_change_nothing(before in "[a-z]{1,9}/[a-z]{1,9}(;[a-z]{2}=[a-z]{1,9}){0,3}") {
            let ours = "application/openmetrics-text;q=0.6,text/plain;q=0.5";
            prop_assert_eq!(accepted(&format!("{before},{ours}")), Format::OpenMetrics);
            prop_assert_eq!(accepted(&format!("{ours},{before}")), Format::OpenMetrics);
        }
    }
}
