//! Which toggles a query asks for.

use url::form_urlencoded;

use crate::board::{Row, Rows};
use crate::toggle::{Status, Text};

/// Which toggles are asked for, in the order of their names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Selection {
    /// At most so many.
    pub(super) limit: Option<usize>,
    /// Only those whose names come after this.
    pub(super) after: Option<String>,
    /// Only those with this status.
    pub(super) status: Option<Status>,
    /// Only those that have each of its words somewhere, in upper or lower case.
    pub(super) text: String,
}

// === impl Selection ===

impl Selection {
    /// # Errors
    /// What is wrong, as a sentence for the user.
    pub(super) fn parse(query: Option<&str>) -> Result<Self, String> {
        let mut selection = Self::default();
        let mut given = Vec::new();
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            match &*name {
                "limit" => selection.limit = Some(limit(&value)?),
                "after" => selection.after = Some(value.into_owned()),
                "status" => selection.status = status(&value)?,
                "q" => selection.text = value.into_owned(),
                _ => return Err("takes only the query parameters limit, after, status and q".to_owned()),
            }
            if given.contains(&name) {
                return Err(format!("{name}: is given a second time: keep one of them"));
            }
            given.push(name);
        }
        Ok(selection)
    }

    /// What the address of the status page asks for, the first of each. What it does not know is for its
    /// script, which reads it alike.
    pub(super) fn of_page(query: Option<&str>) -> Self {
        let query = query.unwrap_or_default().as_bytes();
        let first =
            |wanted: &str| form_urlencoded::parse(query).find(|(name, _)| name == wanted).map(|(_, value)| value);
        let status = first("status").and_then(|status| Status::parse(&status));
        Self { status, text: first("q").unwrap_or_default().into_owned(), ..Self::default() }
    }

    /// Those of the rows that are asked for, whatever the limit.
    pub(super) fn of<'a>(&'a self, rows: &'a Rows) -> impl Iterator<Item = &'a Row> {
        rows.iter_after(self.after.as_deref()).filter(|row| self.holds(row))
    }

    fn holds(&self, row: &Row) -> bool {
        let status = row.toggle.run.shown.status;
        self.status.is_none_or(|wanted| wanted == status) && self.text.split_whitespace().all(|word| has(row, word))
    }
}

fn limit(text: &str) -> Result<usize, String> {
    let limit = if !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit()) {
        // What overflows is more than there ever are.
        text.parse().unwrap_or(usize::MAX)
    } else {
        0
    };
    if limit == 0 { Err("limit: is not a whole number above 0".to_owned()) } else { Ok(limit) }
}

/// None is what a form sends that lets the status open.
fn status(text: &str) -> Result<Option<Status>, String> {
    match Status::parse(text) {
        None if !text.is_empty() => Err("status: is none of in_progress, completed, failed and unknown".to_owned()),
        status => Ok(status),
    }
}

/// Whether the word is in anything that is shown of a toggle as text.
fn has(row: &Row, word: &str) -> bool {
    let (watch, run) = (&row.toggle.watch, &row.toggle.run);
    let failing = run.failing.as_ref();
    let texts = [&run.shown.message, &run.shown.error].into_iter().flatten();
    let texts = texts.chain(failing.and_then(|failing| failing.detail.as_ref())).map(Text::as_str);
    let names = [
        watch.name.as_str(),
        watch.progress_id.as_str(),
        watch.api.as_str(),
        watch.source.as_str(),
        run.shown.status.as_str(),
        failing.map_or("", |failing| failing.reason.as_str()),
    ];
    names.into_iter().chain(texts).any(|text| contains(text, word))
        || contains(itoa::Buffer::new().format(watch.agent_id.get()), word)
        || watch.labels.iter().any(|(name, value)| contains(&format!("{}={value}", name.as_str()), word))
}

fn contains(text: &str, word: &str) -> bool {
    text.as_bytes().windows(word.len()).any(|part| part.eq_ignore_ascii_case(word.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toggle::sample::{at, watch};
    use crate::toggle::{Failure, Reason, Toggle};

    #[test]
    fn a_query_is_read_as_it_was_written_each_parameter_once() {
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
            ("wait=5s", "limit, after, status and q"),
            ("Q=a", "limit, after, status and q"),
        ] {
            let problem = Selection::parse(Some(query)).unwrap_err();
            assert!(problem.contains(named), "{query}: {problem}");
        }
    }

    #[test]
    fn every_word_must_be_somewhere_in_upper_or_lower_case() {
        let mut toggle = Toggle::new(std::sync::Arc::new(watch("bookings-enable", "task-7")), at(0));
        toggle.apply(Err(Failure::new(Reason::Timeout).with_detail(Text::own("No answer in 5 s"))), at(1));
        let rows: Rows = [Row::new(toggle)].into_iter().collect();
        let found = |text: &str| Selection { text: text.into(), ..Selection::default() }.of(&rows).count();
        for text in ["", "BOOK", "book task", "TASK-7 timeout", "unknown", "answer no", "  config  ", "default"] {
            assert_eq!(found(text), 1, "{text}");
        }
        for text in ["bookingsx", "book nothing", "failed"] {
            assert_eq!(found(text), 0, "{text}");
        }
    }

    #[test]
    fn after_a_name_come_those_behind_it_whether_it_is_there_or_not() {
        let row = |name: &str| Row::new(Toggle::new(std::sync::Arc::new(watch(name, "1")), at(0)));
        let rows: Rows = ["b", "d", "f"].map(row).into_iter().collect();
        let names = |after: &str| {
            let selection = Selection { after: Some(after.into()), ..Selection::default() };
            selection.of(&rows).map(|row| row.toggle.watch.name.to_string()).collect::<Vec<_>>().concat()
        };
        for (after, expected) in [("", "bdf"), ("a", "bdf"), ("b", "df"), ("c", "df"), ("f", ""), ("z", "")] {
            assert_eq!(names(after), expected, "{after}");
        }
    }
}
