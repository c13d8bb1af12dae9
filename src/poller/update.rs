//! Changes of the schedule from outside: updates of the watch list and the settings, and renewed keys.

use std::collections::BTreeSet;
use std::time::Instant;

use super::queue::ApiQueue;
use super::{Poller, PollerSettings, PollerUpdate, interval};
use crate::board::{RunChanges, RunId, StartedRun, ToggleRow};
use crate::cekura::Renewal;
use crate::clock;
use crate::toggle::ApiName;

impl Poller {
    /// Applies changes of the settings and the watch list.
    pub(super) fn update(&mut self, mut update: PollerUpdate) {
        let apis = update.settings.map(|settings| self.apply_settings(settings));
        // Only this thread makes the clock jump, so it does not jump in here.
        let unapplied = clock::total_jump() - update.applied_jump;
        for definition in update.changes.iter_mut().filter_map(|change| change.definition.as_mut()) {
            definition.started = definition.started.map(|started| started.shifted(unapplied));
        }
        let RunChanges { started, stale } = self.board.update(&update.changes, clock::now());
        for run in stale {
            self.queues.values_mut().for_each(|queue| queue.remove(run));
            self.schedule.cancel(run);
        }
        self.schedule.reserve(started.len());
        let now = Instant::now();
        for StartedRun { run, finished } in started {
            if finished {
                self.plan_by_state(run, now);
            } else {
                self.plan_at_once(run, now);
            }
        }
        if let Some(apis) = apis {
            // Only now, because the watches of an API that is removed are gone before it is.
            for (api, _) in self.queues.extract_if(.., |api, _| !apis.contains(api)) {
                self.metrics.forget_api(&api);
            }
        }
        // Nobody may wait for it any more.
        let _ = update.taken.send(());
    }

    /// Plans the first poll of a run that has not finished. Runs that are planned together are polled in the order
    /// of the list.
    fn plan_at_once(&mut self, run: RunId, now: Instant) {
        self.schedule.plan(now, run);
        if let Some(watch) = self.board.watch(run)
            && let Some(queue) = self.queues.get_mut(&watch.api)
        {
            queue.outage.add(run);
        }
    }

    /// Plans the next poll of a run by its state, counted from now.
    fn plan_by_state(&mut self, run: RunId, now: Instant) {
        let Some(row) = self.board.row_of(run) else { return };
        let Some(queue) = self.queues.get_mut(&row.toggle.watch.api) else { return };
        let clock = clock::now();
        let delay = interval::next_delay(&row.toggle.run, &self.polling, clock, fastrand::f64());
        if let Some(delay) = delay {
            queue.outage.add(run);
            self.schedule.plan(now + delay, run);
        } else {
            queue.stop_polling(run);
            self.schedule.cancel(run);
        }
        self.board.set_next_poll(run, delay.map(|delay| clock.after(delay)));
    }

    /// Sets up a queue for each API, and returns the names of all of them.
    fn apply_settings(&mut self, settings: PollerSettings) -> BTreeSet<ApiName> {
        let now = Instant::now();
        let apis = settings.apis.iter().map(|(api, _)| api.name.clone()).collect();
        for (api, client) in settings.apis {
            let name = api.name.clone();
            if let Some(queue) = self.queues.get_mut(&name) {
                if queue.reconfigure(api, client, now) {
                    // Polls that failed on the old route are repeated on the new one at once.
                    for run in self.board.failing(&name, |_| true) {
                        self.replan(now, run);
                    }
                }
            } else {
                self.queue_count += 1;
                let queue = ApiQueue::new(api, client, self.metrics.api(&name), self.queue_count, now);
                self.queues.insert(name, queue);
            }
        }
        if self.polling != settings.polling {
            self.polling = settings.polling;
            self.intervals_changed(now);
        }
        apis
    }

    /// Applies other intervals: no run waits for longer than they say, and finished runs are rechecked or no
    /// longer rechecked.
    fn intervals_changed(&mut self, now: Instant) {
        let clock = clock::now();
        let late = |run, row: &ToggleRow| {
            let delay = interval::next_delay(&row.toggle.run, &self.polling, clock, fastrand::f64());
            let is_late = match (self.schedule.due(run), delay) {
                (Some(due), Some(delay)) => due > now + delay,
                (Some(_), None) => true,
                // It is queued, or running, or was not to be polled again.
                (None, delay) => row.next_poll.is_none() && delay.is_some(),
            };
            is_late.then_some(run)
        };
        let late = self.board.map_runs(late);
        late.into_iter().flatten().for_each(|run| self.plan_by_state(run, now));
    }

    /// An API has another key or other authorities: polls that failed for want of these are repeated at once.
    pub(super) fn renewed(&mut self, api: &ApiName, renewal: Renewal) {
        let now = Instant::now();
        let Some(queue) = self.queues.get_mut(api) else { return };
        queue.key_generation += 1;
        let runs = self.board.failing(api, |reason| renewal.may_mend(reason));
        if runs.is_empty() {
            queue.outage.probe_at_once(now);
        } else {
            queue.outage.reset();
        }
        for run in runs {
            self.replan(now, run);
        }
    }

    /// Moves the planned poll of a run; does nothing if that is queued or running.
    pub(super) fn replan(&mut self, due: Instant, run: RunId) {
        if self.schedule.replan(due, run) {
            let until = due.saturating_duration_since(Instant::now());
            self.board.set_next_poll(run, Some(clock::now().after(until)));
        }
    }
}
