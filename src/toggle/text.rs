//! Text that the upstream sent, made safe before it is kept anywhere.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

/// Text of the upstream, safe to log and to show: at most [`Text::MAX_BYTES`] bytes, control
/// characters escaped, URLs replaced by `<url>`, the queries of paths by `<query>`, API keys by `<secret>`.
///
/// Mock URLs lead to unauthenticated servers, so none may ever be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text(Arc<str>);

/// What must not show in a text, beside everything that looks like a URL.
#[derive(Debug, Clone, Default)]
pub struct Redactions {
    /// Parts of URLs that the same answer has, as they are meant, by length: hosts and paths can be quoted apart.
    urls: BTreeSet<(usize, String)>,
    /// The query of the request, with its question mark.
    query: Option<String>,
    /// The keys.
    keys: Vec<Zeroizing<String>>,
}

// === impl Redactions ===

impl Redactions {
    /// Shorter texts are not hidden: they would be found in ordinary words.
    const SHORTEST: usize = 4;

    /// Hides an API key.
    #[must_use]
    pub fn key(mut self, key: &str) -> Self {
        if key.len() >= Self::SHORTEST && !self.keys.iter().any(|known| **known == key) {
            self.keys.push(Zeroizing::new(key.to_owned()));
        }
        self
    }

    /// Hides the query of the request, which is not encoded here, wherever it is quoted behind a question mark.
    #[must_use]
    pub fn query(mut self, query: &str) -> Self {
        self.query = Some(format!("?{query}"));
        self
    }

    /// Hides a URL, its parts, and what follows either without a gap. The parts are the host, the path, the query
    /// and each of its values.
    #[must_use]
    pub fn url(mut self, url: &str) -> Self {
        let url = url.trim();
        let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
        let (authority, target) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let host = authority.rsplit('@').next().unwrap_or_default();
        let host = host.strip_prefix('[').and_then(|v6| v6.split(']').next()).or_else(|| host.split(':').next());
        let values = query.split('&').filter_map(|pair| pair.split_once('=')).map(|(_, value)| value);
        let parts = [rest, authority, host.unwrap_or_default(), target, path, query].into_iter().chain(values);
        let parts = parts.map(decoded).filter(|part| part.len() >= Self::SHORTEST);
        self.urls.extend(parts.map(|part| (part.len(), part)));
        self
    }
}

/// As much of a text as is looked at. It ends with a whole word: half of what is hidden would not be found.
fn whole_words(raw: &str) -> &str {
    if raw.len() <= Text::MOST_RAW_BYTES {
        return raw;
    }
    let begin = &raw[..raw.floor_char_boundary(Text::MOST_RAW_BYTES)];
    begin.rfind(char::is_whitespace).map_or("", |end| &begin[..end])
}

// === impl Text ===

impl Text {
    /// The longest text that is kept, in bytes, the ellipsis of a shortened one included.
    pub const MAX_BYTES: usize = 1024;

    /// What is looked at of a text, in bytes. Looking for all that is hidden takes time for each byte.
    const MOST_RAW_BYTES: usize = 16 * 1024;

    /// Cleans what the upstream sent.
    pub fn clean(raw: &str, hidden: &Redactions) -> Self {
        let raw = whole_words(raw);
        // URLs go before keys: a key within one must not end it. All go before the cap, which could
        // cut one of them in two.
        let mut clean = match &hidden.query {
            Some(query) => mask(raw, query, "?<query>", after_url_end),
            None => raw.to_owned(),
        };
        clean = cut_urls(&clean, hidden);
        // The longest first: a part may be within another one.
        for (_, url) in hidden.urls.iter().rev() {
            clean = mask(&clean, url, "<url>", after_rest_of_url);
        }
        clean = cut_queries(&cut_quoted_parts(&clean));
        for key in &hidden.keys {
            clean = mask(&clean, key, "<secret>", |rest| rest);
        }
        Self(cap(escape_controls(&clean)).into())
    }

    /// Text of our own, which has nothing to hide.
    pub fn own(text: &str) -> Self {
        Self::clean(text, &Redactions::default())
    }

    /// Text that was cleaned before it was stored. It is the same again, unless somebody changed
    /// it meanwhile: then control characters are escaped and the cap holds.
    pub fn restore(stored: &str) -> Self {
        Self(cap(escape_controls(stored)).into())
    }

    /// The cleaned text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Schemes that are taken for the begin of a URL even before a single slash.
const WEB_SCHEMES: [&str; 4] = ["http", "https", "ws", "wss"];

/// What HTML writes for characters that matter here.
const ENTITIES: [(&str, char); 11] = [
    ("amp", '&'),
    ("apos", '\''),
    ("bsol", '\\'),
    ("colon", ':'),
    ("gt", '>'),
    ("lt", '<'),
    ("quest", '?'),
    ("quot", '"'),
    ("shy", '\u{ad}'),
    ("sol", '/'),
    ("zwj", '\u{200d}'),
];

/// What Python's clients write before a host and before a path.
const QUOTED_PARTS: [(&str, char); 3] = [("host='", '\''), ("host=\"", '"'), ("with url: ", ' ')];

/// The longest name of a parameter by which a query is known, in characters.
const LONGEST_NAME: usize = 64;

/// Replaces URLs by `<url>`, in one pass over the text.
fn cut_urls(raw: &str, hidden: &Redactions) -> String {
    let mut clean = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.find([':', '%', '&', '\\', '/']) {
        clean.push_str(&rest[..at]);
        let after = &rest[at..];
        if begins_url(&clean, after) {
            clean.truncate(clean.trim_end_matches(is_of_scheme).len());
            clean.push_str("<url>");
            rest = after_url(after, hidden);
        } else {
            clean.push_str(&after[..1]);
            rest = &after[1..];
        }
    }
    clean.push_str(rest);
    clean
}

fn is_of_scheme(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.')
}

/// Whether a URL's scheme ends between `before` and `after`, or one without a scheme begins there.
fn begins_url(before: &str, after: &str) -> bool {
    let scheme = &before[before.trim_end_matches(is_of_scheme).len()..];
    let (first, rest) = unit(after);
    if first == Some(':') {
        return match slashes(rest).0 {
            0 => false,
            1 => WEB_SCHEMES.iter().any(|known| known.eq_ignore_ascii_case(scheme)),
            _ => true,
        };
    }
    // `//host/path`, which takes the scheme of the page that it is on.
    let host = after.strip_prefix("//").unwrap_or_default();
    let name = &host[..host.find(|c| !is_of_scheme(c)).unwrap_or(host.len())];
    let a_host = host.starts_with('[') || name.trim_matches('.').contains('.') || name == "localhost";
    a_host && !before.ends_with(is_of_scheme)
}

/// What follows the URL. Around its host there may be brackets of a template, or a line break. What ends a URL
/// does not end a listed one that has it.
fn after_url<'t>(text: &'t str, hidden: &Redactions) -> &'t str {
    let (first, rest) = unit(text);
    let (_, rest) = slashes(if first == Some(':') { rest } else { text });
    let after_listed = hidden.urls.iter().rev().find_map(|(_, url)| strip_start(rest, url));
    let host = || rest.trim_start_matches(|c: char| c.is_whitespace() || "\"<>`".contains(c));
    let after = after_url_end(after_listed.unwrap_or_else(host));
    // Where it had the query of the request.
    after.strip_prefix("<query>").unwrap_or(after)
}

/// Whether a URL ends before this character. A control character within does not end it.
fn ends_url(c: char) -> bool {
    c == '\n' || (c.is_whitespace() && !c.is_control()) || "\"<>`".contains(c)
}

fn after_url_end(text: &str) -> &str {
    &text[text.find(ends_url).unwrap_or(text.len())..]
}

/// What follows the rest of a URL of which a part was hidden: more of that part, a port, a path, a query.
fn after_rest_of_url(text: &str) -> &str {
    let goes_on = match unit(text) {
        // At the end of a sentence these end the URL.
        (Some('.' | ':'), rest) => rest.starts_with(char::is_alphanumeric),
        (Some(c), _) => c.is_alphanumeric() || "/\\?#&=-_~+@%".contains(c),
        (None, _) => false,
    };
    if goes_on { after_url_end(text) } else { text }
}

/// Replaces the queries of paths, and those that name a parameter, by `<query>`.
fn cut_queries(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let (mut rest, mut of_path) = (text, false);
    let matters = |c: char| matches!(c, '?' | '/' | '%' | '&' | '\\') || ends_url(c);
    while let Some(at) = rest.find(matters) {
        clean.push_str(&rest[..at]);
        rest = &rest[at..];
        let (c, after) = unit(rest);
        if c == Some('?') && begins_query(after, of_path) {
            clean.push_str("?<query>");
            rest = after_url_end(after);
        } else {
            of_path = !rest.starts_with(ends_url) && (of_path || c == Some('/'));
            clean.push_str(&rest[..rest.len() - after.len()]);
            rest = after;
        }
    }
    clean.push_str(rest);
    clean
}

/// Whether what follows a question mark is a query. At the end of a sentence it is none.
fn begins_query(mut text: &str, of_path: bool) -> bool {
    let is_of_name = |c: char| c.is_alphanumeric() || is_invisible(c) || "-_.".contains(c);
    if of_path && unit(text).0.is_some_and(|c| c != '.' && is_of_name(c) || "~[$@*+=&".contains(c)) {
        return true;
    }
    for length in 0..=LONGEST_NAME {
        match unit(text) {
            (Some('='), _) => return length > 0,
            (Some(c), rest) if is_of_name(c) => text = rest,
            _ => return false,
        }
    }
    false
}

/// How many slashes of any kind the text begins with, and what follows them.
fn slashes(mut text: &str) -> (usize, &str) {
    let mut count = 0;
    loop {
        match unit(text) {
            (Some('/' | '\\'), rest) => (count, text) = (count + 1, rest),
            // One that seems to begin an escape of something else may as well be one.
            _ => match text.strip_prefix('\\') {
                Some(rest) => (count, text) = (count + 1, rest),
                None => return (count, text),
            },
        }
    }
}

/// The character that the text begins with, as it is meant, and what follows it: `%2F`, `%252F`,
/// `\/`, `\u002f`, `\x2f`, `&#47;`, `&#x2f;` and `&sol;` all mean a slash.
fn unit(text: &str) -> (Option<char>, &str) {
    escaped(text).map_or_else(|| plain(text), |(c, rest)| (Some(c), rest))
}

fn plain(text: &str) -> (Option<char>, &str) {
    let mut chars = text.chars();
    (chars.next(), chars.as_str())
}

fn escaped(text: &str) -> Option<(char, &str)> {
    if text.starts_with('%') {
        return percent_encoded(text);
    }
    if let Some(entity) = text.strip_prefix('&') {
        // The longest that has a meaning here is `&#x0000002f;`, give or take zeros.
        let end = entity.bytes().take(16).position(|b| b == b';')?;
        let (name, rest) = (&entity[..end], &entity[end + 1..]);
        let number = match name.strip_prefix('#') {
            Some(number) => match number.strip_prefix(['x', 'X']) {
                Some(number) => u32::from_str_radix(number, 16).ok(),
                None => number.parse().ok(),
            },
            None => ENTITIES.iter().find(|(known, _)| *known == name).map(|(_, c)| u32::from(*c)),
        };
        return Some((char::from_u32(number?)?, rest));
    }
    let code = text.strip_prefix('\\')?;
    match code.chars().next()? {
        '/' => Some(('/', &code[1..])),
        'u' => hex(&code[1..], 4),
        'x' => hex(&code[1..], 2),
        _ => None,
    }
}

/// The character of one to four encoded bytes. A byte that is not UTF-8 stands for itself.
fn percent_encoded(text: &str) -> Option<(char, &str)> {
    let (first, after_first) = percent_encoded_byte(text)?;
    let (mut bytes, mut rest) = ([first, 0, 0, 0], after_first);
    for length in 1..=bytes.len() {
        if let Some(c) = str::from_utf8(&bytes[..length]).ok().and_then(|text| text.chars().next()) {
            return Some((c, rest));
        }
        let (Some(next), Some((byte, after))) = (bytes.get_mut(length), percent_encoded_byte(rest)) else { break };
        (*next, rest) = (byte, after);
    }
    Some((first.into(), after_first))
}

fn percent_encoded_byte(text: &str) -> Option<(u8, &str)> {
    let mut code = text.strip_prefix('%')?;
    while let Some(again) = code.strip_prefix("25").filter(|again| hex(again, 2).is_some()) {
        code = again;
    }
    let (byte, rest) = hex(code, 2)?;
    Some((u8::try_from(byte).ok()?, rest))
}

/// The text as it is meant, without what cannot be seen.
fn decoded(mut text: &str) -> String {
    let mut decoded = String::with_capacity(text.len());
    while let (Some(c), rest) = unit(text) {
        decoded.extend((!is_invisible(c)).then_some(c));
        text = rest;
    }
    decoded
}

fn hex(text: &str, digits: usize) -> Option<(char, &str)> {
    let (code, rest) = text.split_at_checked(digits)?;
    let plain = code.bytes().all(|b| b.is_ascii_hexdigit());
    Some((char::from_u32(u32::from_str_radix(code, 16).ok().filter(|_| plain)?)?, rest))
}

/// Replaces `secret` wherever it stands, however it is escaped and in whatever case, and what `after` skips
/// behind it.
fn mask(text: &str, secret: &str, mask: &str, after: impl Fn(&str) -> &str) -> String {
    let first = secret.chars().next();
    // It begins with its first character or with an escape, and most characters are neither.
    let may_begin =
        |c: char| matches!(c, '%' | '&' | '\\') || first.is_some_and(|first| first.eq_ignore_ascii_case(&c));
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(may_begin) {
        clean.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(behind) = strip_start(rest, secret) {
            clean.push_str(mask);
            rest = after(behind);
        } else {
            rest = push_first(&mut clean, rest);
        }
    }
    clean.push_str(rest);
    clean
}

/// Copies the first character of a text, and returns what follows it.
fn push_first<'t>(clean: &mut String, text: &'t str) -> &'t str {
    let (_, rest) = plain(text);
    clean.push_str(&text[..text.len() - rest.len()]);
    rest
}

/// What follows `start`, if the text begins with it, escaped or as it is.
fn strip_start<'t>(text: &'t str, start: &str) -> Option<&'t str> {
    strip_read(text, start, unit).or_else(|| strip_read(text, start, plain))
}

/// As [`strip_start`], with the text read so. What cannot be seen may stand between any two characters.
fn strip_read<'t>(text: &'t str, start: &str, read: impl Fn(&str) -> (Option<char>, &str)) -> Option<&'t str> {
    let after = start.chars().enumerate().try_fold(text, |text, (i, wanted)| {
        let (mut found, mut rest) = read(text);
        while i > 0 && found.is_some_and(is_invisible) {
            (found, rest) = read(rest);
        }
        found.filter(|found| found.eq_ignore_ascii_case(&wanted)).map(|_| rest)
    })?;
    (after.len() < text.len()).then_some(after)
}

/// Replaces the hosts and paths that HTTP clients quote apart in their errors.
fn cut_quoted_parts(text: &str) -> String {
    let mut clean = text.to_owned();
    for (before, end) in QUOTED_PARTS {
        let mut from = 0;
        while let Some(at) = clean[from..].find(before) {
            let start = from + at + before.len();
            let len = clean[start..].find(|c: char| c == end || c.is_whitespace()).unwrap_or(clean.len() - start);
            clean.replace_range(start..start + len, "<url>");
            from = start;
        }
    }
    clean
}

fn escape_controls(text: &str) -> String {
    let is_to_be_escaped = |c: char| c.is_control() || is_format_control(c);
    let mut escaped = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(is_to_be_escaped) {
        escaped.push_str(&rest[..at]);
        let (c, after) = plain(&rest[at..]);
        escaped.extend(c.into_iter().flat_map(char::escape_default));
        rest = after;
    }
    escaped.push_str(rest);
    escaped
}

/// Characters that show nothing by themselves, and so may stand within a text that looks like another one.
fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{34f}'
                | '\u{61c}'
                | '\u{180b}'..='\u{180f}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{fe00}'..='\u{fe0f}'
                | '\u{feff}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

/// Characters that break lines, or turn the direction of the text around them.
fn is_format_control(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

fn cap(mut text: String) -> String {
    const ELLIPSIS: &str = "…";
    if text.len() > Text::MAX_BYTES {
        text.truncate(text.floor_char_boundary(Text::MAX_BYTES - ELLIPSIS.len()));
        text.push_str(ELLIPSIS);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn clean(raw: &str) -> String {
        Text::clean(raw, &Redactions::default().key("sk-key+1")).as_str().to_owned()
    }

    #[test]
    fn of_a_very_long_text_whole_words_are_looked_at_and_nothing_hidden_is_cut_in_two() {
        let hidden = Redactions::default().key("sk-secret-key");
        for padding in 0..40 {
            let url = "https://mock.example/x ";
            let raw = format!("{}{} sk-secret-key", " ".repeat(padding), url.repeat(9_000));
            let text = Text::clean(&raw.replace(url, "sk-secret-key "), &hidden);
            assert!(!text.as_str().contains("sk-"), "{padding}: {text:?}");
            assert!(Text::clean(&raw, &hidden).as_str().starts_with(&" ".repeat(padding)), "{padding}");
        }
        assert_eq!(Text::own(&"x".repeat(99_999)).as_str(), "");
    }

    #[test]
    fn urls_are_replaced_whatever_surrounds_them() {
        for (raw, shown) in [
            ("see https://mock.example/x?y=1 now", "see <url> now"),
            ("(wss://a.b/c)", "(<url>"),
            ("é=http://a", "é=<url>"),
            (r#"{"url":"https:\/\/mock.example\/x"}"#, r#"{"url":"<url>"}"#),
            ("https://a https://b", "<url> <url>"),
            (r"ahttps:\\xaaaa.example", "<url>"),
            ("at https://mock.example/it's/token=1", "at <url>"),
            ("a: b %41 :// c / d\\e & f", "a: b %41 <url> / d\\e & f"),
            ("ratio 1:/2, either/or, 50%, C:\\x", "ratio 1:/2, either/or, 50%, C:\\x"),
            ("// a comment, //x and a//b.c", "// a comment, //x and a//b.c"),
        ] {
            assert_eq!(clean(raw), shown);
        }
    }

    #[test]
    fn urls_are_found_however_they_are_escaped() {
        for url in [
            "https%3A%2F%2Fmock.example",
            "https:%2F%2Fmock.example",
            "https%3a//mock.example",
            "https%253A%252F%252Fmock.example",
            r"https:\u002f\u002fmock.example",
            "https:&#47;&#47;mock.example",
            "https&#58;//mock.example",
            "https&#x3a;&#x2f;&#x2f;mock.example",
            "https:/mock.example",
            r"https:\\mock.example",
            "//mock.example/mcp",
            r"https\x3a\x2f\x2fmock.example",
            "https&colon;&sol;&sol;mock.example",
            "https&#058;&#047;&#047;mock.example",
            "https%25253A%25252F%25252Fmock.example",
            "//[2001:db8::99]:8080/x",
            "//localhost:9000/token",
            "https://\nmock.example/t",
            "https://mo\u{1}ck.example/t",
            "https://<mock.example",
        ] {
            assert_eq!(clean(&format!("at {url} now")), "at <url> now");
        }
    }

    #[test]
    fn the_key_is_cut_out_plain_encoded_and_within_a_url() {
        assert_eq!(clean("bad key sk-key+1!"), "bad key <secret>!");
        assert_eq!(clean("bad key sk%2Dkey%2B1!"), "bad key <secret>!");
        for form in ["sk%2dkey%2b1", "SK-KEY+1", "sk-key&#43;1", r"sk-key\u002b1", "sk-\u{0}key\u{200b}+1"] {
            assert_eq!(clean(&format!("bad key {form}!")), "bad key <secret>!");
        }
        assert_eq!(clean("PUT https://u:sk-key+1@mock.example/mcp?token=1 failed"), "PUT <url> failed");
        assert_eq!(clean("https://mock.example/sk-key+1/mcp?token=1"), "<url>");
    }

    #[test]
    fn parts_of_known_urls_are_cut_out_where_they_stand_alone() {
        let hidden = Redactions::default().url("https://mock.example:444/mcp/7?token=1");
        let text = "HTTPSConnectionPool(host='mock.example', port=444): no answer with url: /mcp/7?token=1";
        let shown = "HTTPSConnectionPool(host='<url>', port=444): no answer with url: <url>";
        assert_eq!(Text::clean(text, &hidden).as_str(), shown);
        assert_eq!(Text::own(text).as_str(), shown, "as Python's clients quote it");
        for part in ["mock.example", "MOCK.example", "%2Fmcp%2F7", "/mcp/7", "token=1", "mock.example:444"] {
            assert_eq!(Text::clean(&format!("at {part} now"), &hidden).as_str(), "at <url> now", "{part}");
        }
        let v6 = Redactions::default().url("https://[2001:db8::77]:8080/mcp?key=abcd");
        assert_eq!(Text::clean("2001:db8::77 refused abcd", &v6).as_str(), "<url> refused <url>");
    }

    #[test]
    fn the_query_of_a_quoted_request_target_does_not_show() {
        for (raw, shown) in [
            ("GET /a/v2/7/progress/?progress_id=SECRET HTTP/1.1", "GET /a/v2/7/progress/?<query> HTTP/1.1"),
            ("no such page: '/a?token'", "no such page: '/a?<query>"),
            ("at api.example/a?x=1&y=2, twice /b?c", "at api.example/a?<query> twice /b?<query>"),
            ("?progress_id=SECRET is unknown", "?<query> is unknown"),
            ("%2Fa%2F%3Fprogress_id%3DSECRET is unknown", "%2Fa%2F?<query> is unknown"),
            (r"\/a\/\u003fprogress_id=SECRET", r"\/a\/?<query>"),
            ("/a/&#63;progress_id=SECRET", "/a/?<query>"),
            ("/a?\u{200b}progress_id=SEC\u{1}RET", "/a?<query>"),
            ("/a?)?progress_id=SECRET", "/a?)?<query>"),
            ("why? either/or? \"and/or?\" x=1?", "why? either/or? \"and/or?\" x=1?"),
        ] {
            assert_eq!(clean(raw), shown);
            assert_eq!(clean(&clean(raw)), shown, "once more changes nothing");
        }
    }

    #[test]
    fn the_query_of_the_request_does_not_show_even_where_it_was_decoded() {
        let hidden = Redactions::default().query("progress_id=it's a \"secret\"");
        for raw in [
            "GET /a/?progress_id=it's a \"secret\" HTTP/1.1",
            "GET /a/?progress_id=it's a \"secret\"-and-more HTTP/1.1",
            "GET /a/?progress_id=it%27s%20a%20%22secret%22 HTTP/1.1",
            "GET /a/?progress_id=it's%20a &quot;secret&quot; HTTP/1.1",
        ] {
            assert_eq!(Text::clean(raw, &hidden).as_str(), "GET /a/?<query> HTTP/1.1", "{raw}");
        }
        assert_eq!(Text::clean("no task it's a", &hidden).as_str(), "no task it's a", "an id by itself is allowed");
    }

    #[test]
    fn listed_urls_do_not_show_without_their_scheme_nor_what_follows_them() {
        let hidden = Redactions::default().url("https://mock.example:8443/m/x").url("https://h1/m/y");
        for part in [
            "mock.example:8443/m/x",
            "mock.example:8443/m/x/tools/call",
            "mock.example/m/x?token=abc",
            "mock.example/other",
            "MOCK.example:9/m",
            "mock.example%3A8443%2Fm%2Fx",
            "mo\u{ad}ck.example:8443/m/x",
            "/m/x/more#token",
            "mock.example:8443/m/xtoken",
            "h1/m/y",
            "wss://mock.example:8443/m/x",
        ] {
            assert_eq!(Text::clean(&format!("at {part} now"), &hidden).as_str(), "at <url> now", "{part}");
        }
        let said = Text::clean("mock.example: refused; (mock.example) mock.example.", &hidden);
        assert_eq!(said.as_str(), "<url>: refused; (<url>) <url>.");
    }

    #[test]
    fn spaces_and_quotes_in_a_listed_url_do_not_end_it() {
        let listed = "https://mock.example/it's my/\"to ken\"?key=a b";
        let hidden =
            Redactions::default().url(listed).url("https://mock.example/it's").url("https://m.example/a%20secret");
        for part in [
            listed,
            "mock.example/it's my/\"to ken\"?key=a b",
            "/it's my/\"to ken\"?key=a b",
            "/it's my/\"to ken\"",
            "https://mock.example/it's%20my/%22to%20ken%22?key=a%20b",
            "https://mock.example/it's my/&quot;to ken&quot;?key=a b",
            "https://mock.example/it's my/\"to ken\"?key=a b&more=1",
            "m.example/a secret",
            "https://m.example/a secret",
        ] {
            let said = Text::clean(&format!("at {part} now"), &hidden);
            assert_eq!(said.as_str(), "at <url> now", "{part}");
        }
        let quoted = format!("HTTPSConnectionPool(host='mock.example', port=443): with url: {}", &listed[20..]);
        let said = Text::clean(&quoted, &hidden);
        assert_eq!(said.as_str(), "HTTPSConnectionPool(host='<url>', port=443): with url: <url>");
    }

    #[test]
    fn invisible_characters_within_a_key_do_not_keep_it_from_being_hidden() {
        for invisible in ['\u{ad}', '\u{200b}', '\u{200c}', '\u{200d}', '\u{2060}', '\u{feff}', '\u{202e}', '\u{fe0f}']
        {
            let apart: String = "sk-key+1".chars().flat_map(|c| [c, invisible]).collect();
            assert_eq!(clean(&format!("bad key {}!", apart.trim_end_matches(invisible))), "bad key <secret>!");
        }
        for form in ["sk-&shy;key+1", "sk-&#173;key+1", r"sk-\u00adkey\u200b+1", "sk-%C2%ADkey%E2%80%8B+1"] {
            assert_eq!(clean(&format!("bad key {form}!")), "bad key <secret>!", "{form}");
        }
    }

    #[test]
    fn a_key_that_looks_escaped_is_hidden_as_it_is() {
        let hidden = Redactions::default().key("sk%41&amp;b");
        assert_eq!(Text::clean("bad key sk%41&amp;b!", &hidden).as_str(), "bad key <secret>!");
    }

    #[test]
    fn what_is_cut_in_two_by_the_cap_does_not_show_in_part() {
        for tail in ["https://mock.example", "sk-key+1"] {
            for padding in 900..1100 {
                for text in [format!("{} {tail}", "x".repeat(padding)), format!("{}{tail}", "sk-key+1".repeat(padding))]
                {
                    let text = clean(&text);
                    assert!(!text.contains("mock") && !text.contains("sk-"), "{padding}: {text}");
                }
            }
        }
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(clean("a\nb\u{1b}[31m\u{202e}"), "a\\nb\\u{1b}[31m\\u{202e}");
    }

    #[test]
    fn stored_text_is_restored_as_it_was_and_still_keeps_to_the_rules() {
        for raw in ["a\nb\\n\u{202e}", "see https://mock.example now", "50% \\x2f &#47;", &"é\n".repeat(5000)] {
            let text = Text::own(raw);
            assert_eq!(Text::restore(text.as_str()), text);
        }
        assert_eq!(Text::restore("a\nb").as_str(), "a\\nb");
        assert!(Text::restore(&"x".repeat(5000)).as_str().len() <= Text::MAX_BYTES);
    }

    #[test]
    fn long_text_is_capped_between_characters() {
        let long = clean(&"é".repeat(5000));
        assert!(long.len() <= Text::MAX_BYTES && long.ends_with("é…"), "{}", long.len());
    }

    proptest! {
        #[test]
        fn no_text_breaks_a_line_outgrows_the_cap_or_shows_a_url(
            before in ".{0,20}", after in ".{0,20}", host in "[a-z]{5,9}", slash in proptest::sample::select(vec!["/", r"\/", "%2f", "%252F", "&#47;", r"\u002F", r"\"])
        ) {
            let raw = format!("{before}https:{slash}{slash}{host}.sk-key+1.example{after}");
            let text = clean(&raw);
            prop_assert!(text.len() <= Text::MAX_BYTES);
            prop_assert!(!text.contains("://") && !text.contains(&host) && !text.contains("sk-key"), "{text}");
            prop_assert!(!text.chars().any(char::is_control));
        }

        #[test]
        fn no_listed_url_shows_whatever_it_holds_and_whatever_is_left_out_of_it(
            host in "[a-z]{5,9}", path in "/[a-z '\"%]{1,8}secret[ '\"a-z/]{0,6}", scheme in any::<bool>(), more in ".{0,20}"
        ) {
            let listed = format!("https://{host}:8443{path}");
            let quoted = if scheme { &listed } else { listed.trim_start_matches("https://") };
            let text = Text::clean(&format!("at {quoted} {more}"), &Redactions::default().url(&listed));
            prop_assert!(!text.as_str().contains("secret") && !text.as_str().contains(&host), "{text}");
        }

        #[test]
        fn no_query_of_a_path_shows(path in "/[a-z]{0,9}", value in "[A-Za-z0-9._~-]{6,20}", around in "[ '\"(]{0,2}") {
            let text = clean(&format!("{around}{path}?progress_id={value}{around}"));
            prop_assert!(!text.contains(&value) && text.contains(&path), "{text}");
        }
    }
}
