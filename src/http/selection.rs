//! Which toggles a query selects.

use super::query::parse_query;
use crate::board::{ToggleRow, ToggleRows};
use crate::toggle::{Standing, Status, Text, Timestamp, WatchName};

/// The toggles that a query selects, in the order of their names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Selection {
    /// At most this number.
    pub(crate) limit: Option<usize>,
    /// Only those whose names come after this.
    pub(crate) after: Option<String>,
    /// Only those with this status.
    pub(crate) status: Option<Status>,
    /// Only those that contain each of its words, in upper or lower case.
    pub(crate) text: String,
}

/// The longest text that is searched for, in characters, and the most words in it: each word is searched in all
/// texts of all toggles.
pub(crate) const MAX_TEXT: usize = 256;
pub(crate) const MAX_WORDS: usize = 16;

// === impl Selection ===

impl Selection {
    /// # Errors
    /// If the query is not valid: what is wrong with it, for the user.
    pub(crate) fn parse(query: Option<&str>) -> Result<Self, String> {
        let mut selection = Self::default();
        parse_query(query, |name, value| {
            match name {
                "limit" => selection.limit = Some(parse_limit(&value)?),
                "after" => selection.after = Some(parse_after(value.into_owned())?),
                "status" => selection.status = parse_status(&value)?,
                "q" => selection.text = parse_text(value.into_owned())?,
                _ => return Err("takes only the query parameters limit, after, status, q and pretty".to_owned()),
            }
            Ok(())
        })?;
        Ok(selection)
    }

    /// The rows that are selected at `now`, without the limit.
    pub(crate) fn select<'a>(&'a self, rows: &'a ToggleRows, now: Timestamp) -> impl Iterator<Item = &'a ToggleRow> {
        let words: Vec<_> = self.words().collect();
        rows.iter_after(self.after.as_deref()).filter(move |row| {
            self.status.is_none_or(|wanted| wanted == row.toggle.run.last_answer.status)
                && words.iter().all(|word| row_contains(row, word, now))
        })
    }

    /// The words that each row must contain.
    pub(crate) fn words(&self) -> impl Iterator<Item = &str> {
        self.text.split_whitespace().take(MAX_WORDS)
    }

    /// Whether the selected toggles may change with the time alone.
    pub(crate) fn depends_on_time(&self) -> bool {
        !self.text.is_empty()
    }
}

fn parse_text(text: String) -> Result<String, String> {
    if text.chars().count() > MAX_TEXT || text.split_whitespace().count() > MAX_WORDS {
        return Err(format!("q: has over {MAX_WORDS} words or {MAX_TEXT} characters: look for less"));
    }
    Ok(text)
}

fn parse_after(text: String) -> Result<String, String> {
    if text.len() > WatchName::MAX_BYTES {
        return Err(format!("after: is longer than the {} bytes that a name may have", WatchName::MAX_BYTES));
    }
    Ok(text)
}

fn parse_limit(text: &str) -> Result<usize, String> {
    let limit = if !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit()) {
        // A number that overflows is more than there ever are.
        text.parse().unwrap_or(usize::MAX)
    } else {
        0
    };
    if limit == 0 { Err("limit: is not a whole number above 0".to_owned()) } else { Ok(limit) }
}

/// An empty status selects all: a form sends it when no status is chosen.
fn parse_status(text: &str) -> Result<Option<Status>, String> {
    match Status::parse(text) {
        None if !text.is_empty() => Err("status: is none of in_progress, completed, failed and unknown".to_owned()),
        status => Ok(status),
    }
}

/// Whether a text that is shown of a toggle, or its standing, contains the word.
fn row_contains(row: &ToggleRow, word: &str, now: Timestamp) -> bool {
    let (watch, run) = (&row.toggle.watch, &row.toggle.run);
    let failing = run.failing.as_ref();
    let texts =
        [run.raw_status(), run.last_answer.message.as_ref(), run.last_answer.error.as_ref()].into_iter().flatten();
    let texts = texts.chain(failing.and_then(|failing| failing.detail.as_ref())).map(Text::as_str);
    let names = [
        watch.name.as_str(),
        watch.progress_id.as_str(),
        watch.api.as_str(),
        watch.source.as_str(),
        run.last_answer.status.as_str(),
        Standing::of(&row.toggle, now).as_str(),
        failing.map_or("", |failing| failing.reason.as_str()),
    ];
    names.into_iter().chain(texts).any(|text| contains(text, word))
        || contains(itoa::Buffer::new().format(watch.agent_id.get()), word)
        || watch.labels.iter().any(|(name, value)| label_contains(name.as_str(), value, word))
}

/// Whether a label contains the word as it is shown, `name=value`.
pub(crate) fn label_contains(name: &str, value: &str, word: &str) -> bool {
    contains(name, word) || contains(value, word) || word.contains('=') && contains(&format!("{name}={value}"), word)
}

/// Whether a text contains the word, in upper or lower case.
pub(crate) fn contains(text: &str, word: &str) -> bool {
    text.as_bytes().windows(word.len()).any(|part| part.eq_ignore_ascii_case(word.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toggle::sample::{at, watch};
    use crate::toggle::{Failure, Reason, Toggle};

    #[test]
    fn a_query_is_parsed_and_each_parameter_may_be_given_once() {
        for (query, expected) in [
            (None, Selection::default()),
            (Some("status=&q="), Selection::default()),
            (Some("limit=99999999999999999999"), Selection { limit: Some(usize::MAX), ..Selection::default() }),
            (
                Some("limit=5&after=a.b&status=failed&q=a+b%26"),
                Selection {
                    limit: Some(5),
                    after: Some("a.b".into()),
                    status: Some(Status::Failed),
                    text: "a b&".into(),
                },
            ),
        ] {
            assert_eq!(Selection::parse(query), Ok(expected), "{query:?}");
        }
        for (query, named) in [
            ("limit=0", "limit"),
            ("limit=-1", "limit"),
            ("limit=", "limit"),
            ("limit=+1", "limit"),
            ("limit=000", "limit"),
            ("status=Failed", "status"),
            ("q=a&q=a", "q"),
            ("status=&status=failed", "status"),
            ("wait=5s", "limit, after, status, q and pretty"),
            ("Q=a", "limit, after, status, q and pretty"),
            (&*format!("q={}", "a+".repeat(17)), "16 words"),
            (&*format!("q={}", "é".repeat(257)), "256 characters"),
            (&*format!("after={}", "a".repeat(129)), "128 bytes"),
        ] {
            let problem = Selection::parse(Some(query)).unwrap_err();
            assert!(problem.contains(named), "{query}: {problem}");
        }
    }

    #[test]
    fn every_word_must_be_contained_in_upper_or_lower_case() {
        let mut toggle = Toggle::new(std::sync::Arc::new(watch("bookings-enable", "task-7")), at(0));
        toggle.apply(Err(Failure::new(Reason::Timeout).with_detail(Text::own("No answer in 5 s"))), at(1));
        let rows: ToggleRows = [ToggleRow::new(toggle)].into_iter().collect();
        let found = |text: &str| Selection { text: text.into(), ..Selection::default() }.select(&rows, at(1)).count();
        for text in
            ["", "BOOK", "book task", "TASK-7 timeout", "unknown", "answer no", "  config  ", "default", "failing"]
        {
            assert_eq!(found(text), 1, "{text}");
        }
        for text in ["bookingsx", "book nothing", "failed", "silent"] {
            assert_eq!(found(text), 0, "{text}");
        }
        let later = Selection { text: "silent".into(), ..Selection::default() };
        assert_eq!(later.select(&rows, at(901)).count(), 1);
    }

    #[test]
    fn after_a_name_come_the_following_ones_whether_it_exists_or_not() {
        let row = |name: &str| ToggleRow::new(Toggle::new(std::sync::Arc::new(watch(name, "1")), at(0)));
        let rows: ToggleRows = ["b", "d", "f"].map(row).into_iter().collect();
        let names = |after: &str| {
            let selection = Selection { after: Some(after.into()), ..Selection::default() };
            selection.select(&rows, at(1)).map(|row| row.toggle.watch.name.to_string()).collect::<Vec<_>>().concat()
        };
        for (after, expected) in [("", "bdf"), ("a", "bdf"), ("b", "df"), ("c", "df"), ("f", ""), ("z", "")] {
            assert_eq!(names(after), expected, "{after}");
        }
    }
}
