//! Polling a toggle once because somebody asks for it.

use std::time::Instant;

use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, HeaderMap, HeaderValue, RETRY_AFTER};

use super::api::debug_poll::{DebugPoll, DebugPollJson, DebugPollProblem, toggle_of_query};
use super::guard;
use super::page::debug_poll::DebugPollPage;
use super::responses::negotiate;
use super::responses::response::{HTML, HttpResponse, json, problem, response};
use super::site::Site;
use crate::board::ToggleRow;
use crate::cekura::TracedPoll;
use crate::clock;
use crate::toggle::Watch;

impl Site {
    /// Polls the toggle that the query names, and responds with what happened: to a browser as a page, else as JSON.
    /// The poll is cancelled when the client goes.
    pub(super) async fn debug_poll(&self, query: Option<&str>, headers: &HeaderMap) -> HttpResponse {
        let as_page = negotiate::prefers_html(headers);
        let mut draining = self.draining.clone();
        let polling = async {
            let watch = self.watch_to_poll(query).await?;
            self.poll_once(&watch.toggle.watch, as_page).await
        };
        let polled = tokio::select! {
            polled = polling => polled,
            _ = draining.wait_for(|draining| *draining) => Err(DebugPollProblem::unavailable("the exporter stops")),
        };
        polled.unwrap_or_else(|problem| self.refuse(&problem, as_page))
    }

    /// The toggle that the query names.
    async fn watch_to_poll(&self, query: Option<&str>) -> Result<ToggleRow, DebugPollProblem> {
        let name = toggle_of_query(query).map_err(|what| DebugPollProblem::new(StatusCode::BAD_REQUEST, what))?;
        let caught_up = self.write_api.catch_up().await;
        match (self.board.row(&name), caught_up) {
            (Some(row), _) => Ok(row),
            (None, Ok(())) => Err(DebugPollProblem::new(StatusCode::NOT_FOUND, "no such toggle")),
            (None, Err(why)) => Err(DebugPollProblem::unavailable(format!(
                "not known to this replica, but another one may have registered it: {why}"
            ))),
        }
    }

    async fn poll_once(&self, watch: &Watch, as_page: bool) -> Result<HttpResponse, DebugPollProblem> {
        let asked = Instant::now();
        let permit = self.debug_polls.permit(&watch.api).await?;
        let (waited, started) = (asked.elapsed(), clock::now());
        let polled: TracedPoll = permit.poll(watch).await;
        let replica = self.replica.as_ref().map(|replica| replica.database.id());
        let poll = DebugPoll { watch, replica, started, waited, polled: &polled };
        Ok(if as_page {
            page(StatusCode::OK, DebugPollPage::Polled(&poll).render(self.info()))
        } else {
            json(&DebugPollJson::of(&poll))
        })
    }

    /// The response of a toggle that was not polled.
    fn refuse(&self, refusal: &DebugPollProblem, as_page: bool) -> HttpResponse {
        let DebugPollProblem { status, error, retry_after } = refusal;
        let mut response = if as_page {
            page(*status, DebugPollPage::Refused(error).render(self.info()))
        } else {
            problem(*status, error)
        };
        if let Some(seconds) = retry_after {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(*seconds));
        }
        response
    }
}

/// A page, which is not kept: it is true of one moment.
fn page(status: StatusCode, html: String) -> HttpResponse {
    let mut response = response(status, Some(HTML), html);
    guard::protect_page(response.headers_mut());
    response.headers_mut().remove(CACHE_CONTROL);
    response
}
