//! When each agent of an API is asked for its mock status.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use crate::toggle::AgentId;

/// When the agents of an API are due. An agent that waits for the budget or is polled has no plan.
#[derive(Debug, Default)]
pub(super) struct AgentSchedule {
    agents: HashMap<AgentId, AgentTimes>,
    plans: BTreeSet<(Instant, AgentId)>,
}

#[derive(Debug, Default)]
struct AgentTimes {
    due: Option<Instant>,
    /// When its last request began.
    started: Option<Instant>,
}

// === impl AgentSchedule ===

impl AgentSchedule {
    /// Whether there is no agent.
    pub(super) fn is_empty(&self) -> bool {
        self.agents.is_empty()
    }

    /// Whether it has the agent.
    pub(super) fn contains(&self, agent: AgentId) -> bool {
        self.agents.contains_key(&agent)
    }

    /// Plans an agent, in place of the plan that it had.
    pub(super) fn plan(&mut self, due: Instant, agent: AgentId) {
        if let Some(before) = self.agents.entry(agent).or_default().due.replace(due) {
            self.plans.remove(&(before, agent));
        }
        self.plans.insert((due, agent));
    }

    /// Moves the plan of an agent, and returns whether it had one.
    pub(super) fn replan(&mut self, due: Instant, agent: AgentId) -> bool {
        let planned = self.due(agent).is_some();
        if planned {
            self.plan(due, agent);
        }
        planned
    }

    /// When the agent is due; `None` if it is not planned.
    pub(super) fn due(&self, agent: AgentId) -> Option<Instant> {
        self.agents.get(&agent)?.due
    }

    /// When the agent may be asked ahead of its plan: `spacing` after its last request began.
    pub(super) fn earliest(&self, agent: AgentId, spacing: Duration, now: Instant) -> Instant {
        let started = self.agents.get(&agent).and_then(|times| times.started);
        started.map_or(now, |started| now.max(started + spacing))
    }

    /// Records that a request of the agent begins.
    pub(super) fn start(&mut self, agent: AgentId, now: Instant) {
        if let Some(times) = self.agents.get_mut(&agent) {
            times.started = Some(now);
        }
    }

    /// Removes an agent.
    pub(super) fn remove(&mut self, agent: AgentId) {
        if let Some(due) = self.agents.remove(&agent).and_then(|times| times.due) {
            self.plans.remove(&(due, agent));
        }
    }

    /// Takes out the earliest plan, if it is not after `now`.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<(Instant, AgentId)> {
        let (due, agent) = *self.plans.first().filter(|(due, _)| *due <= now)?;
        self.plans.pop_first();
        if let Some(times) = self.agents.get_mut(&agent) {
            times.due = None;
        }
        Some((due, agent))
    }

    /// When the earliest agent is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.plans.first().map(|(due, _)| *due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(id: u64) -> AgentId {
        AgentId::of(id).unwrap()
    }

    #[test]
    fn an_agent_has_one_plan_at_most_and_comes_out_by_time() {
        let (mut schedule, start) = (AgentSchedule::default(), Instant::now());
        let at = |second| start + Duration::from_secs(second);
        (1..=3).for_each(|id| schedule.plan(at(10 - id), agent(id)));
        schedule.plan(at(1), agent(1));
        schedule.remove(agent(2));
        assert!(!schedule.replan(at(0), agent(2)), "it was removed");
        assert_eq!(schedule.pop_due(at(0)), None);
        assert_eq!(schedule.pop_due(at(9)), Some((at(1), agent(1))));
        assert!(!schedule.replan(at(0), agent(1)), "it is not planned while it is polled");
        assert_eq!((schedule.next_due(), schedule.is_empty()), (Some(at(7)), false));
        assert_eq!(schedule.pop_due(at(9)), Some((at(7), agent(3))));
        assert_eq!(schedule.next_due(), None);
    }

    #[test]
    fn an_agent_is_not_asked_ahead_of_its_plan_soon_after_its_last_request() {
        let (mut schedule, start) = (AgentSchedule::default(), Instant::now());
        let spacing = Duration::from_secs(5);
        schedule.plan(start, agent(1));
        assert_eq!(schedule.earliest(agent(1), spacing, start), start);
        schedule.start(agent(1), start);
        let later = start + Duration::from_secs(2);
        assert_eq!(schedule.earliest(agent(1), spacing, later), start + spacing);
        let much_later = start + Duration::from_secs(9);
        assert_eq!(schedule.earliest(agent(1), spacing, much_later), much_later);
    }
}
