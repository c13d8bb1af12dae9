//! Reading characters however they are escaped: as percent encoding, as HTML entities or with backslashes.

/// The HTML entities of characters that matter here.
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

/// The first character of a text, decoded, and the rest: `%2F`, `%252F`, `\/`, `\u002f`, `\x2f`, `&#47;`,
/// `&#x2f;` and `&sol;` are all a slash.
pub(super) fn first_decoded(text: &str) -> (Option<char>, &str) {
    escaped(text).map_or_else(|| first_char(text), |(c, rest)| (Some(c), rest))
}

/// The first character of a text as it is, and the rest.
pub(super) fn first_char(text: &str) -> (Option<char>, &str) {
    let mut chars = text.chars();
    (chars.next(), chars.as_str())
}

/// The decoded text without invisible characters.
pub(super) fn decoded(mut text: &str) -> String {
    let mut decoded = String::with_capacity(text.len());
    while let (Some(c), rest) = first_decoded(text) {
        decoded.extend((!is_invisible(c)).then_some(c));
        text = rest;
    }
    decoded
}

/// Whether a character shows nothing by itself, so that it can be within a text that looks the same without it.
pub(super) fn is_invisible(c: char) -> bool {
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

fn escaped(text: &str) -> Option<(char, &str)> {
    if text.starts_with('%') {
        return percent_encoded(text);
    }
    if let Some(entity) = text.strip_prefix('&') {
        return html_entity(entity);
    }
    let code = text.strip_prefix('\\')?;
    match code.chars().next()? {
        '/' => Some(('/', &code[1..])),
        'u' => hex(&code[1..], 4),
        'x' => hex(&code[1..], 2),
        _ => None,
    }
}

/// The character of an entity, given without its ampersand.
fn html_entity(entity: &str) -> Option<(char, &str)> {
    // The longest entity that matters is `&#x0000002f;`, give or take zeros.
    let end = entity.bytes().take(16).position(|b| b == b';')?;
    let (name, rest) = (&entity[..end], &entity[end + 1..]);
    let code = match name.strip_prefix('#') {
        Some(number) => match number.strip_prefix(['x', 'X']) {
            Some(number) => u32::from_str_radix(number, 16).ok(),
            None => number.parse().ok(),
        },
        None => ENTITIES.iter().find(|(known, _)| *known == name).map(|(_, c)| u32::from(*c)),
    };
    Some((char::from_u32(code?)?, rest))
}

/// The character of one to four encoded bytes. A byte that is not part of UTF-8 is taken as a code point.
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

/// One encoded byte, whose percent sign may itself be encoded any number of times.
fn percent_encoded_byte(text: &str) -> Option<(u8, &str)> {
    let mut code = text.strip_prefix('%')?;
    while let Some(again) = code.strip_prefix("25").filter(|again| hex(again, 2).is_some()) {
        code = again;
    }
    let (byte, rest) = hex(code, 2)?;
    Some((u8::try_from(byte).ok()?, rest))
}

fn hex(text: &str, digits: usize) -> Option<(char, &str)> {
    let (code, rest) = text.split_at_checked(digits)?;
    let plain = code.bytes().all(|b| b.is_ascii_hexdigit());
    Some((char::from_u32(u32::from_str_radix(code, 16).ok().filter(|_| plain)?)?, rest))
}
