//! What was true of agents that are asked for their mock status.

use super::super::agents::{AskedAgent, told};
use super::super::plan::{Api, Slot, Time};
use super::super::upstream::{AgentRecord, Record};
use super::super::webhook::Subject;
use super::{Model, Scope, Span, receiver};

/// A time in which the mocks of an agent were not as they should be.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Drift {
    from: Time,
    to: Time,
    /// What they should be.
    expect: bool,
}

impl Model<'_> {
    /// The alerts on an agent that is asked.
    pub(super) fn asked_agent(
        &mut self,
        number: usize,
        slot: &Slot,
        asked: &AskedAgent,
        records: &[Record],
        served: &AgentRecord,
    ) {
        if matches!(slot.api, Api::Misplaced | Api::Statusless) {
            return;
        }
        let told = told(slot, records.iter().map(|record| record.ended));
        let live = asked.timeline(told.iter().copied());
        let drifts = match asked.expect {
            None if !asked.is_live_known() => Vec::new(),
            _ => drifts(&live, &self.should_be(number, asked, records, &told)),
        };
        for (number, drift) in drifts.iter().enumerate() {
            self.drift(slot, drift, &drifts[number + 1..], served);
        }
        self.unanswered(slot, asked, served);
        match asked.expect {
            Some(true) => {}
            _ if asked.is_live_known() => self.left_on(slot, &live, &drifts, served),
            // `CekuraAgentMocksDrifted` inhibits it.
            _ if !drifts.is_empty() => {}
            _ => self.agent(slot, records),
        }
    }

    /// What the mocks of an agent should be, from each of these times on; `None` while that is not judged.
    fn should_be(
        &self,
        number: usize,
        asked: &AskedAgent,
        records: &[Record],
        told: &[(Time, bool)],
    ) -> Vec<(Time, Option<bool>)> {
        let mut should_be = vec![(0.0, asked.expect)];
        for (handed, record) in self.happened.handed[number].iter().zip(records) {
            let Some(handed) = *handed else { continue };
            should_be.push((handed, None));
            if let Some(ended) = record.ended {
                let last_told = told.iter().rev().find(|(at, _)| *at <= ended).map(|(_, on)| *on);
                should_be.push((ended, last_told.or(asked.expect)));
            }
        }
        should_be
    }

    /// `later` are the drifts after this one.
    fn drift(&mut self, slot: &Slot, drift: &Drift, later: &[Drift], served: &AgentRecord) {
        let (seen, seen_over) = (served.first_answer(drift.from), served.first_answer(drift.to));
        let wait = self.settings.scaled(300.0);
        // From the first scrape that shows it to the last evaluation of the last one.
        let shown = seen_over - seen + self.settings.scrape_interval + self.bounds.lag.sum();
        if shown < wait {
            return;
        }
        let from = drift.from + wait;
        let over = over_for_good(drift, later, self.kept("CekuraAgentMocksDrifted"), |at| served.first_answer(at));
        let span = Span { from: (from, from), wait, shown: self.bounds.agent_detection, to: (drift.to, over) };
        self.of_agent("CekuraAgentMocksDrifted", slot, true, span);
    }

    /// Whether the API did not answer for the agent.
    fn unanswered(&mut self, slot: &Slot, asked: &AskedAgent, served: &AgentRecord) {
        let Some((from, to, _)) = asked.unanswered else { return };
        let wait = self.settings.scaled(900.0);
        // The request before it may have met a fault.
        let before = served.answers.iter().rev().find(|(at, _)| *at < from).map_or(from, |(at, _)| *at);
        let span = Span {
            from: (before + wait, from + wait),
            wait,
            shown: self.bounds.agent_detection,
            to: (to, self.answered_for_good(to, served)),
        };
        self.of_agent("CekuraAgentNotAnswering", slot, false, span);
    }

    /// When the agent was answered after this time. If an answer fails while the alert is kept firing, it goes on.
    fn answered_for_good(&self, at: Time, served: &AgentRecord) -> Time {
        let kept = self.kept("CekuraAgentNotAnswering");
        let mut answered = served.first_answer(at);
        for fault in &served.faults {
            if (answered..answered + kept).contains(fault) {
                answered = served.first_answer(*fault);
            }
        }
        answered
    }

    /// How long an alert is kept firing after its cause was last shown.
    fn kept(&self, alert: &str) -> Time {
        self.bounds.kept_firing.get(alert).copied().unwrap_or_default() + self.bounds.staleness()
    }

    /// Whether mocks were left on, as the API says.
    fn left_on(&mut self, slot: &Slot, live: &[(Time, bool)], drifts: &[Drift], served: &AgentRecord) {
        let age = self.settings.scaled(7200.0);
        for (on, off) in spans_on(live) {
            // `CekuraAgentMocksDrifted` inhibits it.
            if drifts.iter().any(|drift| !drift.expect && drift.from < off && drift.to > on) {
                continue;
            }
            let seen = self.unless_unsaved(slot, served.first_answer(on));
            let span =
                Span { from: (on + age, seen + age), wait: 0.0, shown: 0.0, to: (off, served.first_answer(off)) };
            self.of_agent("CekuraAgentLeftEnabled", slot, false, span);
        }
    }

    /// `CekuraSourceBroken`, for the list of the agents of an API.
    pub(super) fn listings(&mut self, listings: &[(Time, bool)]) {
        let wait = self.settings.scaled(900.0);
        let mut failing = None;
        let end = [(f64::INFINITY, true)];
        for (at, is_good) in listings.iter().chain(&end) {
            if !is_good {
                failing.get_or_insert(*at);
                continue;
            }
            let Some(from) = failing.take() else { continue };
            let api = Api::Listed.name().into();
            let subject = Subject { alert: "CekuraSourceBroken".into(), api, ..Subject::default() };
            let span = Span { from: (from + wait, from + wait), wait, shown: self.settings.timeout, to: (*at, *at) };
            self.expect(subject, receiver(None, false), Scope::Exporter, span, &[]);
        }
    }

    pub(super) fn of_agent(&mut self, alert: &str, slot: &Slot, critical: bool, span: Span) {
        let subject = Subject {
            alert: alert.into(),
            api: slot.api.name().into(),
            agent: slot.agent_id.to_string(),
            ..Subject::default()
        };
        let scope = Scope::Agent(slot.api, slot.agent_id);
        self.expect(subject, receiver(slot.team, critical), scope, span, &[]);
    }
}

impl AgentRecord {
    /// When the API first answered at that time or later.
    fn first_answer(&self, at: Time) -> Time {
        self.answers.iter().map(|(answered, _)| *answered).find(|answered| *answered >= at).unwrap_or(f64::INFINITY)
    }
}

/// When a drift was seen to be over. If the mocks drift again while the alert is kept firing, however short, it goes on
/// firing until that is over. `seen` is when the API first answered at that time or later.
fn over_for_good(drift: &Drift, later: &[Drift], kept: Time, seen: impl Fn(Time) -> Time) -> Time {
    let mut over = seen(drift.to);
    for again in later.iter().filter(|again| again.expect == drift.expect) {
        if seen(again.from) < over + kept {
            over = over.max(seen(again.to));
        }
    }
    over
}

/// The times in which mocks were on.
fn spans_on(live: &[(Time, bool)]) -> Vec<(Time, Time)> {
    let (mut spans, mut since) = (Vec::new(), None);
    for (at, on) in live {
        if *on {
            since.get_or_insert(*at);
        } else {
            spans.extend(since.take().map(|since| (since, *at)));
        }
    }
    spans.extend(since.map(|since| (since, f64::INFINITY)));
    spans
}

/// The times in which mocks were not as they should be.
fn drifts(live: &[(Time, bool)], should_be: &[(Time, Option<bool>)]) -> Vec<Drift> {
    let mut times: Vec<_> = live.iter().map(|(at, _)| *at).chain(should_be.iter().map(|(at, _)| *at)).collect();
    times.sort_by(Time::total_cmp);
    let mut drifts = Vec::<Drift>::new();
    for (number, from) in times.iter().copied().enumerate() {
        let to = times.get(number + 1).copied().unwrap_or(f64::INFINITY);
        let on = live.iter().rev().find(|(at, _)| *at <= from).map(|(_, on)| *on);
        let expect = should_be.iter().rev().find(|(at, _)| *at <= from).and_then(|(_, expect)| *expect);
        let Some(expect) = expect.filter(|expect| on == Some(!expect) && to > from) else { continue };
        match drifts.last_mut() {
            Some(last) if last.to >= from && last.expect == expect => last.to = to,
            _ => drifts.push(Drift { from, to, expect }),
        }
    }
    drifts
}

#[cfg(test)]
#[allow(dead_code, unused_imports, reason = "where this is a bench, it has no tests")]
mod tests {
    use super::*;

    #[test]
    fn mocks_drift_while_they_are_not_as_they_should_be() {
        let live = [(0.0, false), (10.0, true), (20.0, false)];
        let drift = |from, to, expect| Drift { from, to, expect };
        assert_eq!(drifts(&live, &[(0.0, Some(false))]), [drift(10.0, 20.0, false)]);
        assert_eq!(drifts(&live, &[(0.0, None)]), []);
        let told = [(0.0, Some(false)), (12.0, None), (15.0, Some(true))];
        assert_eq!(drifts(&live, &told), [drift(10.0, 12.0, false), drift(20.0, f64::INFINITY, true)]);
        assert_eq!(
            drifts(&[(0.0, true)], &[(0.0, Some(false)), (5.0, Some(false))]),
            [drift(0.0, f64::INFINITY, false)]
        );
    }

    #[test]
    fn a_drift_goes_on_if_the_mocks_drift_again_while_the_alert_is_kept_firing() {
        let drift = |from, to, expect| Drift { from, to, expect };
        let until = |over| drift(0.0, over, false);
        let over = |later: &[Drift]| until(over_for_good(&until(10.0), later, 5.0, |at| at + 1.0));
        assert_eq!(over(&[]), until(11.0));
        assert_eq!(over(&[drift(14.0, 15.0, false), drift(19.0, 21.0, false)]), until(22.0));
        assert_eq!(over(&[drift(15.0, 16.0, false)]), until(11.0), "it was resolved before");
        assert_eq!(over(&[drift(12.0, 13.0, true)]), until(11.0), "it is another alert");
    }

    #[test]
    fn mocks_are_on_from_when_they_are_switched_on_until_they_are_switched_off() {
        assert_eq!(spans_on(&[(0.0, false), (1.0, true), (2.0, true), (3.0, false)]), [(1.0, 3.0)]);
        assert_eq!(spans_on(&[(0.0, true)]), [(0.0, f64::INFINITY)]);
    }
}
