//! Waiting for a run to finish, bound to that one run.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::board::{Board, ToggleRow};
use crate::config::parse_duration;
use crate::http::query::parse_query;

/// The longest time that a request waits, whatever it asks for.
const MAX_WAIT: Duration = Duration::from_mins(10);

/// The query of a toggle's path.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct WaitQuery {
    /// How long to wait for the run to finish.
    wait: Option<Duration>,
    /// The run that the client expects.
    progress_id: Option<String>,
}

/// How waiting ended.
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
                "wait" => {
                    let wait = parse_duration(&value).map_err(|what| format!("wait: {what}"))?;
                    parsed.wait = Some(wait.min(MAX_WAIT));
                }
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
