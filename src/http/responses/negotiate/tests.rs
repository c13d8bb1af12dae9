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
fn browsers_get_pages_and_programs_json() {
    let prefers = |accept: &str| prefers_html(&headers(&ACCEPT, &[accept.as_bytes()]));
    for browser in ["text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "text/html"] {
        assert!(prefers(browser), "{browser}");
    }
    for program in ["*/*", "", "application/json", "application/json, text/html;q=0.9", "text/html;q=0", "text/plain"] {
        assert!(!prefers(program), "{program}");
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
fn browsers_and_tools_get_text() {
    let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8";
    all_get(Format::Text, &[browser, "*/*", "text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2"]);
    assert_eq!(format(&HeaderMap::new()), Format::Text);
}

#[test]
fn a_client_that_accepts_neither_format_gets_text() {
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
fn the_most_specific_clause_decides() {
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
fn space_case_order_and_unknown_parameters_do_not_matter() {
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
fn the_escaping_of_names_is_what_the_clause_of_openmetrics_says() {
    let asked = |accept: &str| escaping(&headers(&ACCEPT, &[accept.as_bytes()]));
    for (accept, expected) in [
        ("application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6", Some(NameEscaping::AllowUtf8)),
        ("application/openmetrics-text;escaping=underscores", Some(NameEscaping::Underscores)),
        ("application/openmetrics-text; Escaping = \"values\"", Some(NameEscaping::Values)),
        // No name has a dot, and names with `_` are not changed.
        ("application/openmetrics-text;version=1.0.0;escaping=dots", Some(NameEscaping::Underscores)),
        ("application/openmetrics-text;version=1.0.0;escaping=odd!", Some(NameEscaping::Underscores)),
        ("application/openmetrics-text;version=1.0.0;escaping", Some(NameEscaping::Underscores)),
        ("application/openmetrics-text;version=1.0.0", None),
        ("application/openmetrics-text;version=0.0.1;escaping=values", None),
        ("text/plain;version=1.0.0;escaping=allow-utf-8,application/openmetrics-text", None),
        // The most specific clause is the one that counts.
        (
            "application/openmetrics-text;escaping=values,application/openmetrics-text;version=1.0.0;escaping=underscores;q=0.1",
            Some(NameEscaping::Underscores),
        ),
        ("", None),
    ] {
        assert_eq!(asked(accept), expected, "{accept}");
    }
    assert_eq!(escaping(&HeaderMap::new()), None);
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
    for quality in ["", "2", "1.1", "1.001", "-1", "+1", ".5", "0,5", "0.1234", "0.5x", "1e0", "NaN", "00", "0..1"] {
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
fn gzip_is_used_if_it_is_preferred_at_least_as_much_as_none() {
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
    fn any_bytes_are_accepted_and_split_into_no_more_than_there_is(lines in prop::collection::vec(line(), 0..4)) {
        let lines: Vec<_> = lines.iter().map(Vec::as_slice).collect();
        format(&headers(&ACCEPT, &lines));
        escaping(&headers(&ACCEPT, &lines));
        gzip(&headers(&ACCEPT_ENCODING, &lines));
        for line in lines {
            // The parts and the separators between them are all that there is.
            let parts: Vec<_> = split(line, b',').collect();
            let least = parts.iter().map(|part| part.len()).sum::<usize>() + parts.len() - 1;
            prop_assert!(least <= line.len());
        }
    }

    #[test]
    fn unknown_media_types_change_nothing(before in "[a-z]{1,9}/[a-z]{1,9}(;[a-z]{2}=[a-z]{1,9}){0,3}") {
        let ours = "application/openmetrics-text;q=0.6,text/plain;q=0.5";
        prop_assert_eq!(accepted(&format!("{before},{ours}")), Format::OpenMetrics);
        prop_assert_eq!(accepted(&format!("{ours},{before}")), Format::OpenMetrics);
    }
}
