//! The simulated APIs, and the record of what they served.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use cekura_exporter::demo::fault::Fault;
use cekura_exporter::demo::simulator::{Reply, Request, Simulator};
use fastrand::Rng;
use serde_json::json;

use super::Settings;
use super::agents::{Unanswered, told};
use super::plan::{Api, End, Plan, Run, Silence, Slot, Time, parse_progress_id};

/// The number of agents on a page of the list.
const PAGE: usize = 100;

/// The simulated APIs.
pub(crate) struct Upstreams {
    serving: Vec<(Api, Simulator)>,
    state: Arc<State>,
}

struct State {
    begun: Instant,
    plan: Arc<Plan>,
    /// Silences from this length on are recorded.
    long_silence: Time,
    records: Mutex<Records>,
    /// One answer in so many is a fault. The next answer for the same run is none.
    fault_every: u32,
    /// The faults that are injected.
    faults: Vec<Fault>,
}

struct Records {
    rng: Rng,
    runs: Vec<Vec<Record>>,
    agents: Vec<AgentRecord>,
    /// When the first page of agents was served, and whether validly.
    listings: Vec<(Time, bool)>,
}

/// What was served for a run.
#[derive(Clone, Default)]
pub(crate) struct Record {
    /// When the exporter first asked for it.
    pub(crate) first_request: Option<Time>,
    /// The last valid answer.
    pub(crate) last_valid: Option<Time>,
    /// When its end was first served.
    pub(crate) ended: Option<Time>,
    /// Long times without a valid answer: from the last one, or the first request, to the next one.
    pub(crate) silences: Vec<(Time, Time)>,
    /// Whether the last answer was an injected fault.
    faulty: bool,
}

/// What was served for an agent.
#[derive(Clone, Default)]
pub(crate) struct AgentRecord {
    /// When each valid answer was served, and whether it said that mocks are on.
    pub(crate) answers: Vec<(Time, bool)>,
    /// When each injected fault was served.
    pub(crate) faults: Vec<Time>,
    /// Whether the last answer was an injected fault.
    faulty: bool,
}

// === impl Upstreams ===

impl Upstreams {
    pub(crate) async fn start(plan: &Arc<Plan>, settings: &Settings, begun: Instant) -> io::Result<Self> {
        let runs = plan.slots.iter().map(|slot| vec![Record::default(); slot.runs.len()]).collect();
        let mut left_out = vec![
            // The first two pause the whole API. The others hold a request until its timeout.
            Fault::ThrottledForASecond,
            Fault::UnavailableForASecond,
            Fault::Silence,
            Fault::Drip,
            Fault::Endless,
        ];
        if settings.scaled(300.0) < 4.0 * settings.scrape_interval {
            // With few evaluations within the `for` of an alert, two refusals by chance would look like a lasting one.
            left_out.extend([Fault::Unauthorized, Fault::Forbidden]);
        }
        let state = Arc::new(State {
            begun,
            plan: plan.clone(),
            long_silence: settings.scaled(900.0) / 2.0,
            fault_every: settings.fault_every,
            records: Mutex::new(Records {
                rng: Rng::with_seed(settings.seed.wrapping_add(1)),
                runs,
                agents: vec![AgentRecord::default(); plan.slots.len()],
                listings: Vec::new(),
            }),
            faults: Fault::ALL.into_iter().filter(|fault| !left_out.contains(fault)).collect(),
        });
        let mut serving = Vec::new();
        for api in Api::ALL {
            let state = state.clone();
            serving.push((api, Simulator::start(move |request| state.answer(api, request)).await?));
        }
        Ok(Self { serving, state })
    }

    /// The `base_url` of an API.
    pub(crate) fn base_url(&self, api: Api) -> String {
        let address = self.serving.iter().find(|(served, _)| *served == api).map(|(_, simulator)| simulator.address());
        let path = if api == Api::Misplaced { "/v2/of/another/product" } else { "" };
        address.map(|address| format!("http://{address}{path}")).unwrap_or_default()
    }

    /// What was served for a run so far.
    pub(crate) fn record(&self, slot: usize, run: usize) -> Record {
        self.state.lock().runs.get(slot).and_then(|runs| runs.get(run)).cloned().unwrap_or_default()
    }

    /// What was served for the agent of a slot so far.
    pub(crate) fn agent_record(&self, slot: usize) -> AgentRecord {
        self.state.lock().agents.get(slot).cloned().unwrap_or_default()
    }

    /// When the agents were listed so far, and whether validly.
    pub(crate) fn listings(&self) -> Vec<(Time, bool)> {
        self.state.lock().listings.clone()
    }
}

// === impl State ===

impl State {
    fn lock(&self) -> MutexGuard<'_, Records> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, api: Api, request: &Request) -> Reply {
        let now = self.begun.elapsed().as_secs_f64();
        if let Some(page) = request.page_of_agents() {
            return self.list(api, page, now);
        }
        if let Some(agent) = request.mock_status_of() {
            return self.mock_status(api, agent, now);
        }
        self.progress(api, request, now)
    }

    /// The answer of an API that answers nothing validly now.
    fn outage(&self, api: Api, now: Time) -> Option<Reply> {
        if api == Api::Misplaced {
            return Some(Reply::new(404, "<html>Not Found</html>"));
        }
        let outage = self.plan.outages.iter().find(|outage| outage.api == api && outage.is_on(now))?;
        Some(match api {
            Api::Locked => Reply::detail(401, "Authentication credentials were not provided."),
            _ if outage.long => down(now - outage.from),
            _ => Reply::new(503, "try again later"),
        })
    }

    fn progress(&self, api: Api, request: &Request, now: Time) -> Reply {
        let id = request.progress_id().and_then(|id| parse_progress_id(&id));
        let run = id.and_then(|(slot, run)| Some((slot, run, self.plan.slots.get(slot)?.runs.get(run)?)));
        let Some((slot, number, run)) = run else { return Reply::detail(400, "no such id") };
        let mut records = self.lock();
        let Records { rng, runs, .. } = &mut *records;
        let Some(record) = runs.get_mut(slot).and_then(|runs| runs.get_mut(number)) else {
            return Reply::detail(400, "no such id");
        };
        record.first_request.get_or_insert(now);
        if let Some(reply) = self.outage(api, now) {
            return reply;
        }
        if api == Api::Toggleless {
            return Reply::new(404, "<html>Not Found</html>");
        }
        if let Some(reply) = refusal(run, now) {
            return reply;
        }
        if let Some(fault) = self.fault(api, &mut record.faulty, record.last_valid.is_some(), rng) {
            return fault.reply();
        }
        record.note_valid(now, self.long_silence);
        match run.ends {
            Some((at, end)) if at <= now => {
                record.ended.get_or_insert(now);
                match end {
                    End::Completed(said) => Reply::task("completed", said),
                    End::Failed => Reply::task("failed", None),
                }
            }
            _ => Reply::task("in_progress", None),
        }
    }

    /// A fault now and then, but never twice in a row.
    fn fault(&self, api: Api, faulty: &mut bool, was_answered: bool, rng: &mut Rng) -> Option<Fault> {
        // A fault at the busy API would last until its next poll, which may be long after.
        let fault = (api != Api::Busy && !*faulty && rng.u32(..self.fault_every) == 0)
            .then(|| self.faults[rng.usize(..self.faults.len())])
            // If nothing but this is ever answered, the id counts as unknown.
            .filter(|fault| was_answered || !matches!(fault, Fault::BadRequest | Fault::NotFound));
        *faulty = fault.is_some();
        fault
    }

    fn mock_status(&self, api: Api, agent: u64, now: Time) -> Reply {
        let number = usize::try_from(agent).ok().and_then(|agent| agent.checked_sub(1));
        let slot = number.and_then(|number| Some((number, self.plan.slots.get(number)?)));
        let asked = slot.and_then(|(number, slot)| Some((number, slot, slot.asked.as_ref()?)));
        if let Some(reply) = self.outage(api, now) {
            return reply;
        }
        let Some((number, slot, asked)) = asked.filter(|_| api != Api::Statusless) else {
            return Reply::detail(404, "Not found.");
        };
        match asked.unanswered {
            Some((from, to, how)) if (from..to).contains(&now) => {
                return match how {
                    Unanswered::Forbidden => foreign(),
                    Unanswered::Silent(how) => silent(how),
                };
            }
            _ => {}
        }
        let mut records = self.lock();
        let Records { rng, runs, agents, .. } = &mut *records;
        let (Some(record), Some(runs)) = (agents.get_mut(number), runs.get(number)) else {
            return Reply::detail(404, "Not found.");
        };
        let fault = self.fault(api, &mut record.faulty, !record.answers.is_empty(), rng);
        // A mock status has no status, so this is a valid one, which says that mocks are on.
        if let Some(fault) = fault.filter(|fault| *fault != Fault::NoStatus) {
            record.faults.push(now);
            return fault.reply();
        }
        let timeline = asked.timeline(told(slot, runs.iter().map(|run| run.ended)));
        let on = timeline.iter().rev().find(|(at, _)| *at <= now).is_some_and(|(_, on)| *on);
        record.answers.push((now, on));
        Reply::mock_status(on, asked.provider)
    }

    fn list(&self, api: Api, page: usize, now: Time) -> Reply {
        if api != Api::Listed || page == 0 {
            return Reply::detail(404, "Not found.");
        }
        let (from, to) = self.plan.broken_list;
        let is_good = !(from..to).contains(&now);
        if page == 1 {
            self.lock().listings.push((now, is_good));
        }
        if !is_good {
            return Reply::new(500, "<html>Server Error</html>");
        }
        let discovered = |slot: &&Slot| slot.api == api && slot.asked.as_ref().is_some_and(|asked| asked.discovered);
        let agents: Vec<_> = self.plan.slots.iter().filter(discovered).collect();
        let listed = |slot: &&Slot| {
            let provider = slot.asked.as_ref().map(|asked| asked.provider);
            json!({"id": slot.agent_id, "mock_tools": [{"name": "book"}], "provider": {"type": provider}})
        };
        let mut results: Vec<_> = agents.iter().skip((page - 1) * PAGE).take(PAGE).map(listed).collect();
        // Its mock status would not be answered.
        results.push(json!({"id": u32::MAX, "mock_tools": [], "provider": null}));
        let next = (page * PAGE < agents.len()).then(|| format!("/test_framework/v2/aiagents/?page={}", page + 1));
        Reply::new(200, json!({"count": agents.len(), "next": next, "previous": null, "results": results}).to_string())
    }
}

/// The answers of an API that is down. They change every few seconds.
fn down(since: Time) -> Reply {
    match since.rem_euclid(12.0) {
        0.0..4.0 => Reply::new(502, "<html>Bad Gateway</html>"),
        4.0..8.0 => Reply::Reset(Vec::new()),
        _ => Reply::Silence,
    }
}

/// The answer for a run that is refused, unknown or silent.
fn refusal(run: &Run, now: Time) -> Option<Reply> {
    if run.foreign {
        return Some(foreign());
    }
    if run.forgotten.is_some_and(|from| from <= now) {
        return Some(Reply::detail(400, "Invalid progress ID or progress not found"));
    }
    match run.silent {
        Some((from, to, how)) if (from..to).contains(&now) => Some(silent(how)),
        _ => None,
    }
}

/// The answer for an agent of another project.
fn foreign() -> Reply {
    Reply::detail(403, "You do not have permission to perform this action.")
}

fn silent(how: Silence) -> Reply {
    match how {
        Silence::Hangs => Reply::Silence,
        Silence::Breaks => Reply::new(500, "<html>Server Error</html>"),
        Silence::Resets => Reply::Reset(Vec::new()),
        Silence::Babbles => Reply::new(200, "<html>Welcome</html>"),
    }
}

// === impl Record ===

impl Record {
    fn note_valid(&mut self, now: Time, long: Time) {
        let before = self.last_valid.or(self.first_request).unwrap_or(now);
        if now - before > long {
            self.silences.push((before, now));
        }
        self.last_valid = Some(now);
    }
}

// === impl Outage ===

impl super::plan::Outage {
    fn is_on(&self, now: Time) -> bool {
        (self.from..self.to).contains(&now)
    }
}
