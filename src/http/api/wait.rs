//! Waiting for a run to finish, bound to that one run.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use url::form_urlencoded;

use crate::board::{Board, ToggleRow};
use crate::config::parse_duration;

/// The longest that is waited, whatever was asked for.
const LONGEST: Duration = Duration::from_mins(10);

/// What the query of a toggle's path asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Query {
    /// How long to wait for the run to finish.
    wait: Option<Duration>,
    /// The run that is meant.
    progress_id: Option<String>,
}

/// How waiting ended.
#[derive(Debug)]
pub(crate) enum Waited {
    /// The run finished, or the time is over.
    Over(Box<ToggleRow>),
    /// There is no watch of that name.
    Gone,
    /// Another run is watched under the name.
    OtherRun,
    /// The exporter stops.
    Draining,
}

// === impl Query ===

impl Query {
    /// # Errors
    /// What is wrong, as a sentence for the user.
    pub(crate) fn parse(query: Option<&str>) -> Result<Self, String> {
        let mut asked = Self::default();
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            let twice = match &*name {
                "wait" => {
                    let wait = parse_duration(&value).map_err(|what| format!("wait: {what}"))?;
                    asked.wait.replace(wait.min(LONGEST)).is_some()
                }
                "progress_id" => asked.progress_id.replace(value.into_owned()).is_some(),
                _ => return Err("takes only the query parameters wait, progress_id and pretty".to_owned()),
            };
            if twice {
                return Err(format!("{name}: is given a second time: keep one of them"));
            }
        }
        Ok(asked)
    }

    /// Looks at the toggle of that name, and waits if that is asked for. The run that is watched
    /// now is the one that is waited for, and no other.
    pub(crate) async fn answer(&self, name: &str, board: &Board, mut draining: watch::Receiver<bool>) -> Waited {
        let Some(row) = board.row(name) else { return Waited::Gone };
        if self.means_another_run(&row) {
            return Waited::OtherRun;
        }
        let Some(wait) = self.wait.filter(|wait| !wait.is_zero() && row.toggle.run.finished.is_none()) else {
            return Waited::Over(Box::new(row));
        };
        let deadline = Instant::now() + wait;
        let Some(awaited) = board.awaited_run(name) else { return Waited::Gone };
        loop {
            // Made before looking, so that no change after the look is missed.
            let changed = awaited.changed.notified();
            match board.row_of(awaited.run) {
                None if board.row(name).is_some() => return Waited::OtherRun,
                None => return Waited::Gone,
                Some(row) if self.means_another_run(&row) => return Waited::OtherRun,
                Some(row) if row.toggle.run.finished.is_some() || Instant::now() >= deadline => {
                    return Waited::Over(Box::new(row));
                }
                Some(_) => {}
            }
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep_until(deadline) => {}
                _ = draining.wait_for(|draining| *draining) => return Waited::Draining,
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
        let asks = |wait: Option<u64>, id: Option<&str>| Query {
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
            assert_eq!(Query::parse(query), Ok(expected), "{query:?}");
        }
        for query in
            ["wait", "wait=", "wait=5", "wait=1s&wait=2s", "wait=1s&x=1", "Wait=1s", "progress_id=a&progress_id=a"]
        {
            assert!(Query::parse(Some(query)).is_err(), "{query}");
        }
    }
}
