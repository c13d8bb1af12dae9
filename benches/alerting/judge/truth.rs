//! What was true, and therefore who had to be notified of what and when. It is computed from the plan and from what
//! the upstreams served, independently of the rules. The ages and times are those that the runbooks state.

mod agents;
mod exporters;

use std::collections::HashMap;

use super::driver::{Absence, Happened};
use super::plan::{Api, End, Plan, Run, Script, Slot, Time};
use super::upstream::{Record, Upstreams};
use super::webhook::Subject;
use super::{Bounds, Settings};

pub(crate) use self::exporters::GoneForGood;

/// What the exporter learned in this time before a kill may be lost.
const UNSAVED: Time = 5.0;

/// Each run is asked of its API within this time, even if the API has an outage or few requests are allowed.
const POLLED: Time = 60.0;

/// What an alert is about.
#[derive(Clone, Copy)]
enum Scope {
    Agent(Api, u32),
    Api(Api),
    Exporter,
}

/// The notifications that are required and allowed for one subject.
pub(crate) struct Expected {
    pub(crate) subject: Subject,
    /// The receiver of the notifications.
    pub(crate) receiver: String,
    pub(crate) must: Vec<Must>,
    /// The times in which a notification that it fires is allowed.
    pub(crate) may: Vec<(Time, Time)>,
    /// Whether the plan has it fire.
    pub(crate) is_planned: bool,
}

/// A time in which an alert must be firing for its receiver.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Must {
    /// When the alert became true.
    pub(crate) since: Time,
    /// When the receiver must have been notified.
    pub(crate) due: Time,
    /// Before this time it must not be resolved.
    pub(crate) until: Time,
    /// Whether no outage or restart put the notification off.
    pub(crate) calm: bool,
}

/// A time in which a condition was true.
#[derive(Clone, Copy)]
struct Span {
    /// The earliest and the latest time at which it may have begun.
    from: (Time, Time),
    /// The `for` of the alert, which has passed by then.
    wait: Time,
    /// How long the exporter takes to see it.
    shown: Time,
    /// The earliest and the latest time at which it may have ended.
    to: (Time, Time),
}

/// The problem of a slot.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Problem {
    Failed,
    NotOn,
    NotOff,
}

/// Computes what is expected.
struct Model<'a> {
    plan: &'a Plan,
    settings: &'a Settings,
    bounds: &'a Bounds,
    happened: &'a Happened,
    expected: HashMap<Subject, Expected>,
}

/// Computes the notifications that are required and allowed, for each subject.
pub(crate) fn expected(
    plan: &Plan,
    settings: &Settings,
    bounds: &Bounds,
    happened: &Happened,
    upstreams: &Upstreams,
) -> HashMap<Subject, Expected> {
    let mut model = Model { plan, settings, bounds, happened, expected: HashMap::new() };
    let records: Vec<Vec<_>> = (0..plan.slots.len())
        .map(|slot| (0..plan.slots[slot].runs.len()).map(|run| upstreams.record(slot, run)).collect())
        .collect();
    for (number, slot) in plan.slots.iter().enumerate() {
        model.problems(number, slot, &records[number]);
        match &slot.asked {
            Some(asked) => model.asked_agent(number, slot, asked, &records[number], &upstreams.agent_record(number)),
            None => model.agent(slot, &records[number]),
        }
        for (run, record) in records[number].iter().enumerate() {
            model.run(number, slot, run, record);
        }
    }
    model.apis(&records);
    model.listings(&upstreams.listings());
    model.files();
    model.exporters();
    model.expected
}

/// The receiver of a team's alerts.
fn receiver(team: Option<&str>, critical: bool) -> String {
    format!("{}-{}", team.unwrap_or("platform"), if critical { "pager" } else { "chat" })
}

// === impl Scope ===

impl Scope {
    /// Whether it is about an agent of an API.
    fn is_of(self, api: Api) -> bool {
        matches!(self, Self::Agent(of, _) if of == api)
    }
}

// === impl Model ===

impl Model<'_> {
    fn problems(&mut self, number: usize, slot: &Slot, records: &[Record]) {
        let mut ends: Vec<(Time, Time, Option<Problem>)> = Vec::new();
        for (run, record) in slot.runs.iter().zip(records) {
            let (Some((planned, end)), Some(served), Some(asked)) = (run.ends, record.ended, record.first_request)
            else {
                continue;
            };
            ends.push((planned.max(asked), served, problem(run, end)));
        }
        if let Some(removed) = self.happened.removed[number] {
            ends.push((removed, removed + self.bounds.detection, None));
        }
        ends.push((f64::INFINITY, f64::INFINITY, None));
        for pair in ends.windows(2) {
            let [(since, served, Some(problem)), (to, to_served, _)] = pair else { continue };
            let (alert, critical) = match problem {
                Problem::Failed => ("CekuraToggleFailed", slot.runs[0].expect != Some(true)),
                Problem::NotOn => ("CekuraToggleMocksNotOn", true),
                Problem::NotOff => ("CekuraToggleMocksNotOff", true),
            };
            let span = Span {
                from: (*since, *since),
                wait: 0.0,
                shown: self.bounds.detection,
                // The exporter cannot know that before it is served.
                to: (to.max(*served), *to_served),
            };
            self.toggle(alert, slot, critical, span, &[]);
        }
    }

    /// Whether mocks were left on.
    fn agent(&mut self, slot: &Slot, records: &[Record]) {
        let mut since: Option<(Time, Time)> = None;
        let mut spans = Vec::new();
        let mut muted = false;
        for (run, record) in slot.runs.iter().zip(records) {
            let (Some((planned, end)), Some(served), Some(asked)) = (run.ends, record.ended, record.first_request)
            else {
                continue;
            };
            // `CekuraToggleMocksNotOff` inhibits it.
            muted |= problem(run, end) == Some(Problem::NotOff);
            match end {
                End::Completed(Some(true)) if since.is_none() => since = Some((planned.max(asked), served)),
                End::Completed(Some(false)) => spans.extend(since.take().map(|since| (since, served))),
                _ => {}
            }
        }
        spans.extend(since.map(|since| (since, f64::INFINITY)));
        if muted {
            return;
        }
        for (since, to) in spans {
            let age = self.settings.scaled(7200.0);
            // The age counts from when the exporter saw it.
            let from = (since.0 + age, since.1 + age);
            let span = Span { from, wait: 0.0, shown: 0.0, to: (to, to) };
            self.of_agent("CekuraAgentLeftEnabled", slot, false, span);
        }
    }

    /// The alerts on an unfinished run.
    fn run(&mut self, number: usize, slot: &Slot, run: usize, record: &Record) {
        let handed = self.happened.handed[number][run];
        let (Some(handed), Some(asked)) = (handed, record.first_request) else { return };
        let replaced = self.happened.handed[number].get(run + 1).copied().flatten();
        let gone = replaced.or(self.happened.removed[number]).unwrap_or(f64::INFINITY);
        let planned = &slot.runs[run];
        let started = (handed, self.unless_unsaved(slot, asked));
        let aged = |age: f64| {
            let age = self.settings.scaled(age);
            (started.0 + age, started.1 + age)
        };
        if matches!(slot.api, Api::Misplaced | Api::Toggleless) {
            return;
        }
        if planned.foreign {
            let wait = self.settings.scaled(300.0);
            let span = Span { from: aged(300.0), wait, shown: self.bounds.detection, to: (gone, gone) };
            self.toggle("CekuraToggleForbidden", slot, false, span, &[]);
            return;
        }
        if planned.forgotten.is_some() && record.last_valid.is_none() {
            let span = Span { from: aged(900.0), wait: 0.0, shown: 0.0, to: (gone, gone) };
            let muted = self.muted(slot.api);
            self.toggle("CekuraToggleExpiredId", slot, false, span, &muted);
            return;
        }
        self.stuck(slot, planned, record, aged(1800.0), gone);
        self.silences(slot, planned, record, handed, gone);
    }

    fn stuck(&mut self, slot: &Slot, planned: &Run, record: &Record, from: (Time, Time), gone: Time) {
        let silent = planned.silent.map(|(from, ..)| from);
        let stops = silent.into_iter().chain(planned.forgotten).chain(record.ended).fold(gone, f64::min);
        // During a long outage some toggles keep the last `up`, and others do not.
        let unknown: Vec<_> = self
            .long_outages(slot.api)
            .map(|(from, to)| (from, to + self.bounds.detection + self.bounds.notification()))
            .collect();
        // The exporter notices with the next poll that the toggle does not answer any more.
        let (surely, _) = self.put_off(Scope::Agent(slot.api, slot.agent_id), stops, stops + self.bounds.detection);
        let span = Span { from, wait: 0.0, shown: self.bounds.detection, to: (stops, surely) };
        self.toggle("CekuraToggleStuck", slot, false, span, &unknown);
    }

    fn silences(&mut self, slot: &Slot, planned: &Run, record: &Record, handed: Time, gone: Time) {
        let age = self.settings.scaled(900.0);
        let last = (record.ended.is_none()).then(|| (record.last_valid.or(record.first_request), f64::INFINITY));
        let last = last.and_then(|(from, to)| Some((from?, to)));
        for (from, to) in record.silences.iter().copied().chain(last) {
            let to = to.min(gone);
            let is_its_own = planned.silent.is_some_and(|(begins, ends, _)| begins < to && ends > from + age / 2.0)
                || planned.forgotten.is_some_and(|begins| begins < to);
            // The silence of a whole API has its own alert.
            if !is_its_own || to < from + age {
                continue;
            }
            let since_handed = record.last_valid.is_none() || record.first_request == Some(from);
            let earliest = if since_handed { handed } else { from };
            let unsaved = self
                .absences(Scope::Agent(slot.api, slot.agent_id))
                .any(|absence| absence.from >= earliest && absence.from < from + UNSAVED);
            let earliest = if unsaved { earliest - UNSAVED } else { earliest };
            let latest = if since_handed { self.unless_unsaved(slot, from) } else { from };
            let muted = self.muted(slot.api);
            let span = Span { from: (earliest + age, latest + age), wait: 0.0, shown: 0.0, to: (to, to) };
            self.toggle("CekuraToggleNotAnswering", slot, false, span, &muted);
        }
    }

    fn apis(&mut self, records: &[Vec<Record>]) {
        let wait = self.settings.scaled(300.0);
        for outage in self.plan.outages.iter().filter(|outage| outage.long) {
            let alert = if outage.api == Api::Locked { "CekuraApiUnauthorized" } else { "CekuraApiDown" };
            let from = outage.from + wait;
            let span = Span { from: (from, from), wait, shown: self.bounds.api_detection, to: (outage.to, outage.to) };
            self.api(alert, outage.api, true, span);
        }
        // What an API lacks, and a wrong path, show from the first request on. A budget is too small from the last slot on.
        for (api, alert, critical, wait) in [
            (Api::Misplaced, "CekuraApiDown", true, wait),
            (Api::Busy, "CekuraApiThrottled", false, self.settings.scaled(600.0)),
            (Api::Toggleless, "CekuraApiNoToggleEndpoint", false, self.settings.scaled(900.0)),
            (Api::Statusless, "CekuraApiNoMockStatusEndpoint", false, self.settings.scaled(900.0)),
        ] {
            let slots = self.plan.slots.iter().zip(records).filter(|(slot, _)| slot.api == api);
            let asked = slots.flat_map(|(_, records)| records.iter().filter_map(|record| record.first_request));
            let (first, last) = asked
                .fold((f64::INFINITY, 0.0), |(first, last): (Time, Time), asked| (first.min(asked), last.max(asked)));
            let surely = if api == Api::Busy { last } else { first };
            let from = (first + wait, surely + wait);
            let span = Span { from, wait, shown: self.bounds.api_detection, to: (f64::INFINITY, f64::INFINITY) };
            self.api(alert, api, critical, span);
        }
    }

    fn api(&mut self, alert: &str, api: Api, critical: bool, span: Span) {
        let subject = Subject { alert: alert.into(), api: api.name().into(), ..Subject::default() };
        self.expect(subject, receiver(None, critical), Scope::Api(api), span, &[]);
    }

    fn files(&mut self) {
        let wait = self.settings.scaled(300.0);
        for (alert, (from, to)) in [
            ("CekuraSourceBroken", self.happened.broken_file),
            ("CekuraConfigReloadFailed", self.happened.broken_configuration),
        ] {
            let subject = Subject { alert: alert.into(), ..Subject::default() };
            // The exporter checks files every two seconds.
            let span = Span { from: (from + wait, from + wait), wait, shown: 2.0, to: (to, to + 2.0) };
            self.expect(subject, receiver(None, false), Scope::Exporter, span, &[]);
        }
    }

    fn toggle(&mut self, alert: &str, slot: &Slot, critical: bool, span: Span, unknown: &[(Time, Time)]) {
        let subject = Subject {
            alert: alert.into(),
            api: slot.api.name().into(),
            toggle: slot.name.clone(),
            agent: slot.agent_id.to_string(),
        };
        let scope = Scope::Agent(slot.api, slot.agent_id);
        self.expect(subject, receiver(slot.team, critical), scope, span, unknown);
    }

    /// Adds what follows from a condition. In the `unknown` times, notifications are allowed but not required.
    fn expect(&mut self, subject: Subject, receiver: String, scope: Scope, span: Span, unknown: &[(Time, Time)]) {
        let ((from, surely), (to, surely_over)) = (span.from, span.to);
        // Until it is scraped and evaluated, what is over is still shown.
        let (shown_until, _) = self.put_off(scope, surely_over, surely_over + self.bounds.staleness());
        if from >= shown_until {
            return;
        }
        let (mut over, _) = self.put_off(scope, surely_over, surely_over + self.bounds.resolution(&subject.alert));
        for (unknown_from, unknown_to) in unknown {
            // What is resolved while it is inhibited is notified after that.
            if *unknown_from < over && *unknown_to > from {
                over = over.max(*unknown_to + self.settings.resend_delay() + self.bounds.notification());
            }
        }
        // If the clock jumped forward, what depends on an age is true earlier.
        let may = (from - self.bounds.lag.clock, over);
        let (due, calm) = self.put_off(scope, surely - span.wait, surely + span.shown + self.bounds.notification());
        let mut must = vec![Must { since: surely, due, until: to, calm }];
        for (unknown_from, unknown_to) in unknown.iter().chain(&self.too_long_absences()) {
            let split = |must: Must| {
                if *unknown_to <= must.since || *unknown_from >= must.until {
                    return vec![must];
                }
                let before = Must { until: must.until.min(*unknown_from), ..must };
                let after = Must {
                    since: must.since.max(*unknown_to),
                    due: must.due.max(*unknown_to + self.bounds.notification()),
                    calm: must.calm && must.due < *unknown_from,
                    ..must
                };
                vec![before, after]
            };
            must = must.into_iter().flat_map(split).collect();
        }
        must.retain(|must| must.due < must.until);
        let expected = self.expected.entry(subject.clone());
        let expected = expected.or_insert_with(|| Expected {
            subject,
            receiver,
            must: Vec::new(),
            may: Vec::new(),
            is_planned: true,
        });
        expected.must.extend(must);
        expected.may.push(may);
    }

    /// Puts a deadline off: when an outage or a restart falls between `from` and the deadline, the time allowed
    /// begins again at its end. Returns whether there was none, too.
    fn put_off(&self, scope: Scope, from: Time, due: Time) -> (Time, bool) {
        let outages = self.plan.outages.iter().filter(|outage| scope.is_of(outage.api));
        let mut wrong: Vec<_> = outages.map(|outage| (outage.from, outage.to)).collect();
        wrong.extend(self.absences(scope).map(|absence| (absence.from, absence.to)));
        wrong.extend(&self.bounds.absences);
        wrong.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut put_off = due;
        for (begins, ends) in wrong {
            if begins < put_off && ends > from {
                put_off = put_off.max(ends + due - from);
            }
        }
        (put_off, put_off <= due)
    }

    /// The latest time that the exporter may remember for something that happened to an agent at `at`, if a kill lost
    /// it.
    fn unless_unsaved(&self, slot: &Slot, at: Time) -> Time {
        let mut absences = self.absences(Scope::Agent(slot.api, slot.agent_id));
        let absence = absences.find(|absence| absence.from >= at && absence.from < at + UNSAVED);
        absence.map_or(at, |absence| absence.to + self.bounds.detection)
    }

    /// The times in which nobody may have exposed what an alert is about.
    ///
    /// The end of one replica concerns only the agents that it owned. An API and the sources are shown by those that go
    /// on, too: only if none of them has an agent of the API, it is not.
    fn absences(&self, scope: Scope) -> impl Iterator<Item = &Absence> {
        self.happened.away.iter().filter(move |absence| match scope {
            Scope::Agent(_, id) => !absence.unconcerned.contains(&id),
            Scope::Api(api) => {
                let mut slots = self.plan.slots.iter().filter(|slot| slot.api == api);
                !slots.any(|slot| absence.unconcerned.contains(&slot.agent_id))
            }
            Scope::Exporter => self.settings.replicas == 1,
        })
    }

    /// The times in which the exporter could not be scraped for longer than `keep_firing_for` bridges, and the time
    /// that alerts need to fire again.
    fn too_long_absences(&self) -> Vec<(Time, Time)> {
        let kept = self.bounds.kept_firing.values().copied().fold(f64::INFINITY, f64::min);
        let bearable = kept - self.bounds.lag.scrape;
        let absences = self.bounds.absences.iter().filter(|(from, to)| to - from > bearable);
        absences.map(|(from, to)| (*from, to + self.settings.scaled(300.0) + self.bounds.notification())).collect()
    }

    /// The times in which the alert on an API inhibits those on its toggles.
    fn muted(&self, api: Api) -> Vec<(Time, Time)> {
        let over = self.bounds.resolution("CekuraApiDown") + self.bounds.detection;
        self.long_outages(api).map(|(from, to)| (from, to + over)).collect()
    }

    fn long_outages(&self, api: Api) -> impl Iterator<Item = (Time, Time)> {
        let outages = self.plan.outages.iter().filter(move |outage| outage.api == api && outage.long);
        outages.map(|outage| (outage.from, outage.to))
    }
}

/// The problem that a run leaves when it ends.
fn problem(run: &Run, end: End) -> Option<Problem> {
    match (end, run.expect) {
        (End::Failed, _) => Some(Problem::Failed),
        (End::Completed(said), Some(true)) => (said != Some(true)).then_some(Problem::NotOn),
        (End::Completed(said), Some(false)) => (said != Some(false)).then_some(Problem::NotOff),
        (End::Completed(_), None) => None,
    }
}

/// The runs that were handed over more than this time before the end and not asked of the API since. A registration that
/// was accepted and lost would have no other consequence: nothing is expected of what was never polled.
pub(crate) fn never_polled(plan: &Plan, happened: &Happened, upstreams: &Upstreams, end: Time) -> Vec<String> {
    let mut never = Vec::new();
    for (number, slot) in plan.slots.iter().enumerate() {
        for (run, handed) in happened.handed[number].iter().enumerate() {
            let is_old = handed.is_some_and(|handed| handed < end - POLLED);
            if is_old && upstreams.record(number, run).first_request.is_none() {
                never.push(format!("{} run {run} of {}", slot.name, slot.api.name()));
            }
        }
    }
    never
}

/// The script of a subject's slot, for the examples in the report.
pub(crate) fn script_of(plan: &Plan, subject: &Subject) -> Option<Script> {
    let number: u32 = subject.agent.parse().ok()?;
    Some(plan.slots.iter().find(|slot| slot.agent_id == number)?.script)
}
