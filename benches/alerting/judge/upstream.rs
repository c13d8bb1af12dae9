//! The simulated APIs, and the record of what they served.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use cekura_exporter::demo::fault::Fault;
use cekura_exporter::demo::simulator::{Reply, Request, Simulator};
use fastrand::Rng;

use super::Settings;
use super::plan::{Api, End, Plan, Run, Silence, Time, parse_progress_id};

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
            records: Mutex::new(Records { rng: Rng::with_seed(settings.seed.wrapping_add(1)), runs }),
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
        let records = self.state.records.lock().unwrap_or_else(PoisonError::into_inner);
        records.runs.get(slot).and_then(|runs| runs.get(run)).cloned().unwrap_or_default()
    }
}

// === impl State ===

impl State {
    fn answer(&self, api: Api, request: &Request) -> Reply {
        let now = self.begun.elapsed().as_secs_f64();
        let id = request.progress_id().and_then(|id| parse_progress_id(&id));
        let run = id.and_then(|(slot, run)| Some((slot, run, self.plan.slots.get(slot)?.runs.get(run)?)));
        let Some((slot, number, run)) = run else { return Reply::detail(400, "no such id") };
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let Records { rng, runs } = &mut *records;
        let Some(record) = runs.get_mut(slot).and_then(|runs| runs.get_mut(number)) else {
            return Reply::detail(400, "no such id");
        };
        record.first_request.get_or_insert(now);
        if api == Api::Misplaced {
            return Reply::new(404, "<html>Not Found</html>");
        }
        if let Some(outage) = self.plan.outages.iter().find(|outage| outage.api == api && outage.is_on(now)) {
            return match api {
                Api::Locked => Reply::detail(401, "Authentication credentials were not provided."),
                _ if outage.long => down(now - outage.from),
                _ => Reply::new(503, "try again later"),
            };
        }
        if let Some(reply) = refusal(run, now) {
            return reply;
        }
        // A fault at the busy API would last until its next poll, which may be long after.
        if api != Api::Busy && !record.faulty && rng.u32(..self.fault_every) == 0 {
            let fault = self.faults[rng.usize(..self.faults.len())];
            // If nothing but this is ever answered, the id counts as unknown.
            let is_unknown_id = matches!(fault, Fault::BadRequest | Fault::NotFound);
            if !is_unknown_id || record.last_valid.is_some() {
                record.faulty = true;
                return fault.reply();
            }
        }
        record.faulty = false;
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
        return Some(Reply::detail(403, "You do not have permission to perform this action."));
    }
    if run.forgotten.is_some_and(|from| from <= now) {
        return Some(Reply::detail(400, "Invalid progress ID or progress not found"));
    }
    match run.silent {
        Some((from, to, how)) if (from..to).contains(&now) => Some(match how {
            Silence::Hangs => Reply::Silence,
            Silence::Breaks => Reply::new(500, "<html>Server Error</html>"),
            Silence::Resets => Reply::Reset(Vec::new()),
            Silence::Babbles => Reply::new(200, "<html>Welcome</html>"),
        }),
        _ => None,
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
