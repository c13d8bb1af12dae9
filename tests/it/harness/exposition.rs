//! An independent reading of text 0.0.4.

use std::collections::BTreeMap;

/// The series of one scrape.
#[derive(Debug)]
pub(crate) struct Exposition {
    pub(crate) text: String,
    series: Vec<(String, BTreeMap<String, String>, f64)>,
}

impl Exposition {
    /// Panics on what is not text 0.0.4.
    pub(crate) fn parse(text: String) -> Self {
        let series = text.split('\n').filter(|line| !line.is_empty() && !line.starts_with('#')).map(parse_line);
        Self { series: series.collect(), text }
    }

    /// The value of the one series with this name and at least these labels.
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let has = |own: &BTreeMap<String, String>| labels.iter().all(|(k, v)| own.get(*k).is_some_and(|own| own == v));
        let mut found = self.series.iter().filter(|(own_name, own, _)| own_name == name && has(own));
        let value = found.next().map(|(_, _, value)| *value);
        assert!(found.next().is_none(), "more than one {name} with {labels:?}");
        value
    }

    /// The status of a toggle.
    pub(crate) fn status(&self, toggle: &str) -> Option<String> {
        let of_toggle = |(name, labels, value): &&(String, BTreeMap<String, String>, f64)| {
            name == "cekura_toggle_status" && labels["toggle"] == toggle && *value > 0.0
        };
        let ones: Vec<_> = self.series.iter().filter(of_toggle).collect();
        assert!(ones.len() <= 1, "{toggle} has more than one status");
        ones.first().map(|(_, labels, _)| labels["status"].clone())
    }

    /// The reason of a toggle's poll error.
    pub(crate) fn poll_error(&self, toggle: &str) -> Option<String> {
        let of_toggle = |(name, labels, _): &&(String, BTreeMap<String, String>, f64)| {
            name == "cekura_toggle_poll_error" && labels["toggle"] == toggle
        };
        let errors: Vec<_> = self.series.iter().filter(of_toggle).collect();
        assert!(errors.len() <= 1, "{toggle} has more than one poll error");
        errors.first().map(|(_, labels, _)| labels["reason"].clone())
    }

    /// The name, the labels and the value of each series.
    pub(crate) fn series(&self) -> impl Iterator<Item = (&str, &BTreeMap<String, String>, f64)> {
        self.series.iter().map(|(name, labels, value)| (name.as_str(), labels, *value))
    }

    /// The name of each series, and those of its labels.
    pub(crate) fn names(&self) -> impl Iterator<Item = (&str, impl Iterator<Item = &str>)> {
        self.series.iter().map(|(name, labels, _)| (name.as_str(), labels.keys().map(String::as_str)))
    }

    /// How many series there are of this name.
    pub(crate) fn count(&self, name: &str) -> usize {
        self.series.iter().filter(|(own_name, ..)| own_name == name).count()
    }
}

fn parse_line(line: &str) -> (String, BTreeMap<String, String>, f64) {
    let Some((name, rest)) = line.split_once('{') else {
        let (name, value) = line.split_once(' ').unwrap();
        return (name.to_owned(), BTreeMap::new(), value.parse().unwrap());
    };
    let mut labels = BTreeMap::new();
    let mut rest = rest;
    while !rest.starts_with('}') {
        let (key, after) = rest.split_once("=\"").unwrap();
        let (value, after) = quoted(after);
        assert!(labels.insert(key.to_owned(), value).is_none(), "a label twice in {line}");
        rest = after.strip_prefix(',').unwrap_or(after);
    }
    (name.to_owned(), labels, rest[1..].trim().parse().unwrap())
}

/// The text up to the closing quote, unescaped, and what follows the quote.
fn quoted(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &text[at + 1..]),
            '\\' => match chars.next().unwrap().1 {
                'n' => value.push('\n'),
                escaped => value.push(escaped),
            },
            c => value.push(c),
        }
    }
    panic!("a label value without an end: {text}")
}
