//! Listing the agents of an API, page by page. Pure: time and chance are arguments.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::interval;
use crate::cekura::AgentPage;
use crate::config::Polling;
use crate::sources::ListedAgents;
use crate::toggle::{Failure, Reason, Text};

/// The time between two listings.
const INTERVAL: Duration = Duration::from_mins(10);

/// The most agents that are discovered.
const MAX_AGENTS: usize = 100_000;

/// The most pages of a listing.
const MAX_PAGES: usize = 10_000;

/// The listing of the agents of an API: one that runs, or the next one.
#[derive(Debug)]
pub(super) struct Discovery {
    /// When the next page is due; `None` while one is read.
    pub(super) due: Option<Instant>,
    /// When the listing began.
    began: Instant,
    found: ListedAgents,
    /// The URL of the next page; `None` for the first one.
    next: Option<String>,
    /// The URLs of the pages that were read.
    read: HashSet<String>,
    /// How many listings in a row have failed.
    failures: u32,
}

// === impl Discovery ===

impl Discovery {
    /// A listing that is due at once.
    pub(super) fn new(now: Instant) -> Self {
        Self { due: Some(now), began: now, found: ListedAgents::new(), next: None, read: HashSet::new(), failures: 0 }
    }

    /// Records that the page that is due is read from now on, and returns its URL; `None` is the first page.
    pub(super) fn start_page(&mut self, now: Instant) -> Option<String> {
        self.due = None;
        if self.next.is_none() {
            self.began = now;
        }
        self.next.clone()
    }

    /// Records the outcome of reading a page. Returns that of the listing, if it has ended.
    pub(super) fn end_page(
        &mut self,
        page: Result<AgentPage, Failure>,
        now: Instant,
        polling: &Polling,
        chance: f64,
    ) -> Option<Result<ListedAgents, Failure>> {
        match page.and_then(|page| self.take_page(page)) {
            Ok(true) => {
                self.due = Some(now);
                None
            }
            Ok(false) => {
                let found = std::mem::take(&mut self.found);
                *self = Self { due: Some(now.max(self.began + INTERVAL)), ..Self::new(now) };
                Some(Ok(found))
            }
            Err(failure) => {
                let failures = self.failures.saturating_add(1);
                let delay = interval::backoff(failures, polling, chance);
                *self = Self { due: Some(now + delay), failures, ..Self::new(now) };
                Some(Err(failure))
            }
        }
    }

    /// Begins the listing again at once if the last one failed, because the API is reached in another way or with
    /// another key from now on. Returns whether it does; not while a page is read, whose outcome does not count then.
    pub(super) fn restart_if_failing(&mut self, now: Instant) -> bool {
        let restarts = self.failures > 0 && self.due.is_some();
        if restarts {
            *self = Self::new(now);
        }
        restarts
    }

    /// Adds a page. Returns whether there is another one.
    fn take_page(&mut self, page: AgentPage) -> Result<bool, Failure> {
        self.found.extend(page.agents);
        if self.found.len() > MAX_AGENTS {
            let what = format!("the API lists over {MAX_AGENTS} agents: list those to ask under `agents`");
            return Err(Failure::new(Reason::TooLarge).with_detail(Text::own(&what)));
        }
        self.next = page.next;
        let Some(next) = &self.next else { return Ok(false) };
        if self.read.len() >= MAX_PAGES || !self.read.insert(next.clone()) {
            let what = "the pages of the list of agents do not end";
            return Err(Failure::new(Reason::Decode).with_detail(Text::own(what)));
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toggle::AgentId;

    fn page(ids: std::ops::Range<u64>, next: Option<&str>) -> AgentPage {
        let agents = ids.map(|id| (AgentId::of(id).unwrap(), None)).collect();
        AgentPage { agents, count: None, next: next.map(str::to_owned), malformed: Vec::new() }
    }

    fn end(discovery: &mut Discovery, page: Result<AgentPage, Failure>, now: Instant) -> Option<Result<usize, Reason>> {
        let ended = discovery.end_page(page, now, &Polling::default(), 1.0)?;
        Some(ended.map(|found| found.len()).map_err(|failure| failure.reason))
    }

    #[test]
    fn a_listing_reads_page_after_page_and_the_next_one_begins_ten_minutes_after_it_began() {
        let start = Instant::now();
        let mut discovery = Discovery::new(start);
        assert_eq!(discovery.start_page(start), None);
        assert_eq!(discovery.due, None);
        let later = start + Duration::from_secs(3);
        assert_eq!(end(&mut discovery, Ok(page(1..3, Some("second"))), later), None);
        assert_eq!((discovery.due, discovery.start_page(later).as_deref()), (Some(later), Some("second")));
        assert_eq!(end(&mut discovery, Ok(page(2..4, None)), later), Some(Ok(3)));
        assert_eq!((discovery.due, discovery.start_page(later)), (Some(start + INTERVAL), None));
    }

    #[test]
    fn a_listing_that_fails_begins_again_with_its_first_page_less_and_less_often() {
        let start = Instant::now();
        let mut discovery = Discovery::new(start);
        let mut delays = Vec::new();
        for _ in 0..7 {
            end(&mut discovery, Ok(page(1..3, Some("second"))), start);
            assert_eq!(discovery.start_page(start).as_deref(), Some("second"));
            let failed = end(&mut discovery, Err(Failure::new(Reason::Timeout)), start);
            assert_eq!((failed, discovery.found.len()), (Some(Err(Reason::Timeout)), 0));
            delays.push((discovery.due.unwrap() - start).as_secs());
            assert_eq!(discovery.start_page(start), None);
        }
        assert_eq!(delays, [10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(end(&mut discovery, Ok(page(1..3, None)), start), Some(Ok(2)));
        end(&mut discovery, Err(Failure::new(Reason::Timeout)), start);
        assert_eq!(discovery.due, Some(start + Duration::from_secs(10)), "a good listing ends the streak");
    }

    #[test]
    fn pages_that_do_not_end_and_too_many_agents_are_failures() {
        let start = Instant::now();
        let mut discovery = Discovery::new(start);
        assert_eq!(end(&mut discovery, Ok(page(1..3, Some("second"))), start), None);
        assert_eq!(end(&mut discovery, Ok(page(1..3, Some("second"))), start), Some(Err(Reason::Decode)));
        let mut discovery = Discovery::new(start);
        let ended = (0..=MAX_PAGES).find_map(|n| end(&mut discovery, Ok(page(1..1, Some(&n.to_string()))), start));
        assert_eq!(ended, Some(Err(Reason::Decode)));
        assert_eq!(end(&mut discovery, Ok(page(1..100_001, None)), start), Some(Ok(100_000)));
        assert_eq!(end(&mut discovery, Ok(page(1..100_002, None)), start), Some(Err(Reason::TooLarge)));
    }
}
