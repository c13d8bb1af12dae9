//! Waiting for a run to finish, bound to that one run, and for what the API says of an agent.

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::board::{AgentRow, Board, ToggleRow};
use crate::clock;
use crate::config::parse_duration;
use crate::http::query::parse_query;
use crate::toggle::{AgentKey, Expect};

/// The longest time that a request waits, whatever it asks for.
const MAX_WAIT: Duration = Duration::from_mins(10);

/// How often an agent is asked for anew while somebody waits for an answer.
const ASK_INTERVAL: Duration = Duration::from_secs(5);

/// How far the clocks of two replicas may be apart without this being corrected.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(1);

/// The query of a toggle's path.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct WaitQuery {
    /// How long to wait for the run to finish.
    wait: Option<Duration>,
    /// The run that the client expects.
    progress_id: Option<String>,
}

/// The query of an agent's path: how long to wait, and for which state.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct AgentQuery(Option<(Duration, Expect)>);

/// How waiting for an agent ended.
#[derive(Debug)]
pub(crate) enum AgentOutcome {
    /// The API says that the mocks are in that state, or the time is over.
    Over(Box<AgentRow>),
    /// There is no such agent.
    Gone,
    /// Its mock status is not asked for.
    NotAsked,
    /// The exporter stops.
    Draining,
}

/// How waiting for a run ended.
#[derive(Debug)]
pub(crate) enum WaitOutcome {
    /// The run is finished, or the time is over.
    Over(Box<ToggleRow>),
    /// There is no watch of that name.
    Gone,
    /// Another run is watched under the name.
    OtherRun,
    /// The exporter stops.
    Draining,
}

// === impl WaitQuery ===

impl WaitQuery {
    /// # Errors
    /// If the query is not valid: what is wrong with it.
    pub(crate) fn parse(query: Option<&str>) -> Result<Self, String> {
        let mut parsed = Self::default();
        parse_query(query, |name, value| {
            match name {
                "wait" => parsed.wait = Some(parse_wait(&value)?),
                "progress_id" => parsed.progress_id = Some(value.into_owned()),
                _ => return Err("takes only the query parameters wait, progress_id and pretty".to_owned()),
            }
            Ok(())
        })?;
        Ok(parsed)
    }

    /// If the query asks for it, waits for the run that is watched under the name now, and for no other.
    pub(crate) async fn wait(&self, name: &str, board: &Board, mut draining: watch::Receiver<bool>) -> WaitOutcome {
        let Some(row) = board.row(name) else { return WaitOutcome::Gone };
        if self.means_another_run(&row) {
            return WaitOutcome::OtherRun;
        }
        let Some(wait) = self.wait.filter(|wait| !wait.is_zero() && row.toggle.run.finished.is_none()) else {
            return WaitOutcome::Over(Box::new(row));
        };
        let deadline = Instant::now() + wait;
        let Some(awaited) = board.awaited_run(name) else { return WaitOutcome::Gone };
        loop {
            // Created before the row is read, so that no later change is missed.
            let changed = awaited.changed.notified();
            match board.row_of(awaited.run) {
                None if board.row(name).is_some() => return WaitOutcome::OtherRun,
                None => return WaitOutcome::Gone,
                Some(row) if self.means_another_run(&row) => return WaitOutcome::OtherRun,
                Some(row) if row.toggle.run.finished.is_some() || Instant::now() >= deadline => {
                    return WaitOutcome::Over(Box::new(row));
                }
                Some(_) => {}
            }
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep_until(deadline) => {}
                _ = draining.wait_for(|draining| *draining) => return WaitOutcome::Draining,
            }
        }
    }

    fn means_another_run(&self, row: &ToggleRow) -> bool {
        self.progress_id.as_ref().is_some_and(|id| id != row.toggle.watch.progress_id.as_str())
    }
}

// === impl AgentQuery ===

impl AgentQuery {
    /// # Errors
    /// If the query is not valid: what is wrong with it.
    pub(crate) fn parse(query: Option<&str>) -> Result<Self, String> {
        let (mut wait, mut live) = (None, None);
        parse_query(query, |name, value| {
            match name {
                "wait" => wait = Some(parse_wait(&value)?),
                "live" => live = Some(Expect::parse(&value).map_err(|what| format!("live: {what}"))?),
                _ => return Err("takes only the query parameters wait, live and pretty".to_owned()),
            }
            Ok(())
        })?;
        match (wait, live) {
            (Some(wait), Some(live)) => Ok(Self(Some((wait, live)))),
            (None, None) => Ok(Self(None)),
            (Some(_), None) => Err("wait: needs live=enabled or live=disabled, the state to wait for".to_owned()),
            (None, Some(_)) => Err("live: needs wait, the time to wait for that state".to_owned()),
        }
    }

    /// If the query asks for it, waits until the API says that the mocks of the agent are in that state. Only an answer
    /// to a request that began after this call counts: an earlier one may be from before the mocks were toggled.
    pub(crate) async fn wait(
        &self,
        (api, id): &AgentKey,
        board: &Board,
        asks: &mpsc::UnboundedSender<AgentKey>,
        mut draining: watch::Receiver<bool>,
    ) -> AgentOutcome {
        let began = Instant::now();
        loop {
            // Created before the agent is read, so that no later change is missed.
            let awaited = board.awaited_agent(api, *id);
            let changed = awaited.as_ref().map(|awaited| awaited.notified());
            let Some(row) = board.agent(api, *id, clock::now()) else { return AgentOutcome::Gone };
            let (Self(Some((wait, state))), Some(changed), Some(asked)) = (self, changed, &row.asked) else {
                return if self.0.is_some() { AgentOutcome::NotAsked } else { AgentOutcome::Over(Box::new(row)) };
            };
            let deadline = began + *wait;
            let mut since = clock::now().before(began.elapsed());
            if !board.owns_agent(api, *id) {
                // The clock of the replica that asks may be a little ahead.
                since = since.after(CLOCK_TOLERANCE);
            }
            let is_so = asked.live.asked >= Some(since) && state.is_met_by(asked.live.enabled);
            if is_so || Instant::now() >= deadline {
                return AgentOutcome::Over(Box::new(row));
            }
            // The receiver is gone only while the process stops.
            let _ = asks.send((api.clone(), *id));
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep_until(deadline) => {}
                // Another replica may not have got the request.
                () = tokio::time::sleep(ASK_INTERVAL) => {}
                _ = draining.wait_for(|draining| *draining) => return AgentOutcome::Draining,
            }
        }
    }
}

fn parse_wait(value: &str) -> Result<Duration, String> {
    let wait = parse_duration(value).map_err(|what| format!("wait: {what}"))?;
    Ok(wait.min(MAX_WAIT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_names_a_time_and_a_run_each_once() {
        let asks = |wait: Option<u64>, id: Option<&str>| WaitQuery {
            wait: wait.map(Duration::from_secs),
            progress_id: id.map(str::to_owned),
        };
        for (query, expected) in [
            (None, asks(None, None)),
            (Some(""), asks(None, None)),
            (Some("wait=5m"), asks(Some(300), None)),
            (Some("wait=1d"), asks(Some(600), None)),
            (Some("progress_id=a%20b%2Fc&wait=0s"), asks(Some(0), Some("a b/c"))),
            (Some("progress_id=%C3%A9+x"), asks(None, Some("é x"))),
        ] {
            assert_eq!(WaitQuery::parse(query), Ok(expected), "{query:?}");
        }
        for query in
            ["wait", "wait=", "wait=5", "wait=1s&wait=2s", "wait=1s&x=1", "Wait=1s", "progress_id=a&progress_id=a"]
        {
            assert!(WaitQuery::parse(Some(query)).is_err(), "{query}");
        }
    }
}
