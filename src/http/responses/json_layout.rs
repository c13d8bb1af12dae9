//! The layout of JSON: on one line for programs, or indented for people, who ask for it with `?pretty`.

use hyper::header::CONTENT_TYPE;
use url::form_urlencoded;

use super::response::{HttpResponse, JSON};

/// The layout of JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum JsonLayout {
    /// All on one line.
    Compact,
    /// Each field and element on a line of its own.
    Indented,
}

/// One level of indentation.
const INDENT: &[u8] = b"  ";

// === impl JsonLayout ===

impl JsonLayout {
    /// The layout that a query asks for, and the rest of the query. `pretty` needs no value; with `false` or
    /// `0` it asks for the compact layout.
    pub(crate) fn from_query(query: Option<&str>) -> (Self, Option<String>) {
        let Some(query) = query else { return (Self::Compact, None) };
        let mut layout = Self::Compact;
        let rest: Vec<_> = query
            .split('&')
            .filter(|parameter| match form_urlencoded::parse(parameter.as_bytes()).next() {
                Some((name, value)) if name == "pretty" => {
                    layout = if matches!(&*value, "false" | "0") { Self::Compact } else { Self::Indented };
                    false
                }
                _ => true,
            })
            .collect();
        (layout, Some(rest.join("&")))
    }

    /// Lays out JSON that is on one line.
    pub(crate) fn lay_out(self, json: Vec<u8>) -> Vec<u8> {
        match self {
            Self::Compact => json,
            Self::Indented => indented(&json),
        }
    }

    /// Lays out a response if it is JSON. Large responses are laid out when they are rendered.
    pub(crate) fn apply(self, response: HttpResponse) -> HttpResponse {
        let is_json = response.headers().get(CONTENT_TYPE).is_some_and(|content_type| content_type == JSON);
        if self == Self::Indented && is_json { response.map(|body| body.map(|json| indented(&json))) } else { response }
    }
}

fn indented(json: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len() * 2);
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    let mut bytes = json.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        if matches!(byte, b'}' | b']') && !in_text {
            depth = depth.saturating_sub(1);
            begin_line(&mut out, depth);
        }
        out.push(byte);
        match byte {
            _ if in_text => {
                in_text = escaped || byte != b'"';
                escaped = byte == b'\\' && !escaped;
            }
            b'"' => in_text = true,
            b':' => out.push(b' '),
            b',' => begin_line(&mut out, depth),
            b'{' | b'[' => {
                if let Some(end) = bytes.next_if(|next| matches!(next, b'}' | b']')) {
                    out.push(end);
                } else {
                    depth += 1;
                    begin_line(&mut out, depth);
                }
            }
            _ => {}
        }
    }
    out
}

fn begin_line(out: &mut Vec<u8>, depth: usize) {
    out.push(b'\n');
    (0..depth).for_each(|_| out.extend_from_slice(INDENT));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    #[test]
    fn pretty_is_removed_from_a_query_wherever_it_is_and_whatever_its_value() {
        for (query, layout, rest) in [
            (None, JsonLayout::Compact, None),
            (Some(""), JsonLayout::Compact, Some("")),
            (Some("wait=5m&q=a%26pretty"), JsonLayout::Compact, Some("wait=5m&q=a%26pretty")),
            (Some("pretty"), JsonLayout::Indented, Some("")),
            (Some("pretty="), JsonLayout::Indented, Some("")),
            (Some("pretty=true&wait=5m"), JsonLayout::Indented, Some("wait=5m")),
            (Some("wait=5m&pr%65tty&progress_id=a"), JsonLayout::Indented, Some("wait=5m&progress_id=a")),
            (Some("pretty&pretty=1"), JsonLayout::Indented, Some("")),
            (Some("pretty=false"), JsonLayout::Compact, Some("")),
            (Some("pretty=0&limit=1"), JsonLayout::Compact, Some("limit=1")),
            (Some("prettyish"), JsonLayout::Compact, Some("prettyish")),
        ] {
            assert_eq!(JsonLayout::from_query(query), (layout, rest.map(str::to_owned)), "{query:?}");
        }
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            r#"[a\\"\[\]{},: \n]{0,8}"#.prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(r#"[a\\"{:,]{0,4}"#, inner, 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn json_is_indented_as_serde_does_it(value in json()) {
            let compact = serde_json::to_vec(&value).unwrap();
            prop_assert_eq!(indented(&compact), serde_json::to_vec_pretty(&value).unwrap());
        }
    }
}
