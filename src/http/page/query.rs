//! What the query of the status page asks for.

use url::form_urlencoded;

use crate::http::selection::{MAX_TEXT, Selection};
use crate::toggle::{Standing, Status, WatchName};

/// How many toggles a page shows, unless its query asks for more.
const ROWS: usize = 500;

/// The query of the status page. It keeps what it understands and ignores the rest: an address that somebody shares
/// must show a page.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(in crate::http) struct PageQuery {
    pub(in crate::http) selection: Selection,
    /// Only toggles with this standing.
    pub(super) standing: Option<Standing>,
    pub(super) order: RowOrder,
    /// How many more times [`ROWS`] to show.
    pub(super) more: usize,
}

/// What the toggles are sorted by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) struct RowOrder {
    pub(super) by: SortKey,
    pub(super) descending: bool,
}

/// The column that toggles are sorted by. Toggles that are equal in it are sorted by name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) enum SortKey {
    /// The worst first.
    #[default]
    Standing,
    Name,
    Agent,
    Run,
    Polls,
}

// === impl PageQuery ===

impl PageQuery {
    /// What a query asks for: the first of each parameter.
    pub(in crate::http) fn parse(query: Option<&str>) -> Self {
        let query = query.unwrap_or_default().as_bytes();
        let first =
            |wanted: &str| form_urlencoded::parse(query).find(|(name, _)| name == wanted).map(|(_, value)| value);
        let selection = Selection {
            status: first("status").and_then(|status| Status::parse(&status)),
            text: first("q").unwrap_or_default().chars().take(MAX_TEXT).collect(),
            ..Selection::default()
        };
        Self {
            selection,
            standing: first("standing").and_then(|standing| Standing::parse(&standing)),
            order: first("sort").and_then(|sort| RowOrder::parse(&sort)).unwrap_or_default(),
            more: first("more").and_then(|more| more.parse().ok()).unwrap_or_default(),
        }
    }

    /// The toggle that a query asks for. Until toggles had pages of their own, addresses named them like this.
    pub(in crate::http) fn toggle(query: Option<&str>) -> Option<WatchName> {
        let mut parameters = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        parameters.find(|(name, _)| name == "toggle").and_then(|(_, name)| WatchName::parse(&name).ok())
    }

    /// How many toggles to show.
    pub(super) fn rows(&self) -> usize {
        self.more.saturating_add(1).saturating_mul(ROWS)
    }

    /// Whether all toggles are asked for.
    pub(super) fn is_all(&self) -> bool {
        self.standing.is_none() && self.selection == Selection::default()
    }

    /// The address of the page with this query, from the root of the site.
    pub(super) fn address(&self) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        if !self.selection.text.is_empty() {
            query.append_pair("q", &self.selection.text);
        }
        if let Some(status) = self.selection.status {
            query.append_pair("status", status.as_str());
        }
        if let Some(standing) = self.standing {
            query.append_pair("standing", standing.as_str());
        }
        if self.order != RowOrder::default() {
            query.append_pair("sort", &self.order.to_string());
        }
        if self.more > 0 {
            query.append_pair("more", &self.more.to_string());
        }
        let query = query.finish();
        if query.is_empty() { "./".to_owned() } else { format!("./?{query}") }
    }
}

// === impl RowOrder ===

impl RowOrder {
    fn parse(text: &str) -> Option<Self> {
        let (descending, key) = text.strip_prefix('-').map_or((false, text), |key| (true, key));
        SortKey::ALL.into_iter().find(|by| by.as_str() == key).map(|by| Self { by, descending })
    }

    /// The order after a click on a column: the other way round if it is sorted by that already.
    pub(super) fn clicked(self, by: SortKey) -> Self {
        Self { by, descending: self.by == by && !self.descending }
    }
}

impl std::fmt::Display for RowOrder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", if self.descending { "-" } else { "" }, self.by.as_str())
    }
}

// === impl SortKey ===

impl SortKey {
    const ALL: [Self; 5] = [Self::Standing, Self::Name, Self::Agent, Self::Run, Self::Polls];

    fn as_str(self) -> &'static str {
        match self {
            Self::Standing => "standing",
            Self::Name => "name",
            Self::Agent => "agent",
            Self::Run => "run",
            Self::Polls => "polls",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_leads_to_the_same_query() {
        for address in [
            "./",
            "./?q=a+b%26&status=failed&standing=mismatched&sort=-agent&more=3",
            "./?standing=in_progress",
            "./?sort=-standing",
        ] {
            let query = PageQuery::parse(address.strip_prefix("./?"));
            assert_eq!(query.address(), address);
        }
    }

    #[test]
    fn what_is_not_understood_is_ignored() {
        for query in
            ["standing=x", "sort=q", "sort=--name", "more=-1", "more=x", "toggle=a", "status=Failed", "%ff=%ff"]
        {
            assert_eq!(PageQuery::parse(Some(query)), PageQuery::default(), "{query}");
        }
        let query = PageQuery::parse(Some("standing=failed&standing=stuck&more=99999999999999999999"));
        assert_eq!((query.standing, query.more), (Some(Standing::Failed), 0));
        assert_eq!(PageQuery { more: usize::MAX, ..PageQuery::default() }.rows(), usize::MAX);
    }

    #[test]
    fn only_the_name_of_a_toggle_is_taken_for_one() {
        assert_eq!(PageQuery::toggle(Some("q=x&toggle=a.b")).map(|name| name.to_string()), Some("a.b".to_owned()));
        for query in ["toggle=", "toggle=a%2Fb", "toggle=%0d%0aa", "toggle=//evil", "q=toggle"] {
            assert_eq!(PageQuery::toggle(Some(query)), None, "{query}");
        }
    }

    #[test]
    fn a_second_click_on_a_column_turns_the_order_round() {
        let by_name = RowOrder::default().clicked(SortKey::Name);
        assert_eq!(by_name.to_string(), "name");
        assert_eq!(by_name.clicked(SortKey::Name).to_string(), "-name");
        assert_eq!(by_name.clicked(SortKey::Agent).to_string(), "agent");
    }
}
