//! What is hidden from texts, and what stays.

use super::*;
use proptest::prelude::*;

fn clean(raw: &str) -> String {
    Text::clean(raw, &Redactions::default().key("sk-key+1")).as_str().to_owned()
}

#[test]
fn a_very_long_text_is_cut_between_words_before_it_is_cleaned() {
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
fn the_key_is_hidden_plain_escaped_and_within_a_url() {
    assert_eq!(clean("bad key sk-key+1!"), "bad key <secret>!");
    assert_eq!(clean("bad key sk%2Dkey%2B1!"), "bad key <secret>!");
    for form in ["sk%2dkey%2b1", "SK-KEY+1", "sk-key&#43;1", r"sk-key\u002b1", "sk-\u{0}key\u{200b}+1"] {
        assert_eq!(clean(&format!("bad key {form}!")), "bad key <secret>!");
    }
    assert_eq!(clean("PUT https://u:sk-key+1@mock.example/mcp?token=1 failed"), "PUT <url> failed");
    assert_eq!(clean("https://mock.example/sk-key+1/mcp?token=1"), "<url>");
}

#[test]
fn parts_of_listed_urls_are_hidden_when_they_are_quoted_alone() {
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
fn the_query_of_a_quoted_request_target_is_hidden() {
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
fn the_query_of_the_request_is_hidden_even_if_it_is_decoded() {
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
fn listed_urls_are_hidden_without_their_scheme_and_with_what_follows_them() {
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
    let hidden = Redactions::default().url(listed).url("https://mock.example/it's").url("https://m.example/a%20secret");
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
fn a_key_is_hidden_despite_invisible_characters_in_it() {
    for invisible in ['\u{ad}', '\u{200b}', '\u{200c}', '\u{200d}', '\u{2060}', '\u{feff}', '\u{202e}', '\u{fe0f}'] {
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
fn a_url_or_key_at_the_cap_is_not_shown_in_part() {
    for tail in ["https://mock.example", "sk-key+1"] {
        for padding in 900..1100 {
            for text in [format!("{} {tail}", "x".repeat(padding)), format!("{}{tail}", "sk-key+1".repeat(padding))] {
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
fn stored_text_is_restored_unchanged_and_within_the_rules() {
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
    fn no_text_breaks_a_line_exceeds_the_cap_or_shows_a_url(
        before in ".{0,20}", after in ".{0,20}", host in "[a-z]{5,9}", slash in proptest::sample::select(vec!["/", r"\/", "%2f", "%252F", "&#47;", r"\u002F", r"\"])
    ) {
        let raw = format!("{before}https:{slash}{slash}{host}.sk-key+1.example{after}");
        let text = clean(&raw);
        prop_assert!(text.len() <= Text::MAX_BYTES);
        prop_assert!(!text.contains("://") && !text.contains(&host) && !text.contains("sk-key"), "{text}");
        prop_assert!(!text.chars().any(char::is_control));
    }

    #[test]
    fn no_listed_url_is_shown_whatever_it_contains(
        host in "[a-z]{5,9}", path in "/[a-z '\"%]{1,8}secret[ '\"a-z/]{0,6}", scheme in any::<bool>(), more in ".{0,20}"
    ) {
        let listed = format!("https://{host}:8443{path}");
        let quoted = if scheme { &listed } else { listed.trim_start_matches("https://") };
        let text = Text::clean(&format!("at {quoted} {more}"), &Redactions::default().url(&listed));
        prop_assert!(!text.as_str().contains("secret") && !text.as_str().contains(&host), "{text}");
    }

    #[test]
    fn no_query_of_a_path_is_shown(path in "/[a-z]{0,9}", value in "[A-Za-z0-9._~-]{6,20}", around in "[ '\"(]{0,2}") {
        let text = clean(&format!("{around}{path}?progress_id={value}{around}"));
        prop_assert!(!text.contains(&value) && text.contains(&path), "{text}");
    }
}
