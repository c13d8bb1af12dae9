//! The records of the state file, in JSON. Their types exist for it alone, so the format changes only on purpose.
//!
//! Unknown fields are ignored, and unknown words of a closed set (a status, a reason, an expected state) count as
//! unknown. So a later version may add some, and an earlier one can still read the file. A version whose file an
//! earlier one must not read raises the version of the file. Absent values are not written. Everything that is read
//! goes through the same checks as what users write.

mod toggle;

use toggle::FailingRecord;
pub(super) use toggle::{read_toggle, write_toggle};

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Registration, SavedAgent};
use crate::collections::inserted;
use crate::toggle::{
    AgentId, ApiName, Expect, LabelName, Labels, LiveMocks, ProgressId, Provider, Source, Text, Timestamp, ToldBy,
    ToldMocks, Watch, WatchName,
};

#[derive(Serialize, Deserialize)]
struct RegistrationRecord<'r> {
    #[serde(borrow)]
    api: Cow<'r, str>,
    agent_id: u64,
    #[serde(borrow)]
    progress_id: Cow<'r, str>,
    #[serde(default, skip_serializing_if = "is_default")]
    expect: Option<Cow<'r, str>>,
    #[serde(default, skip_serializing_if = "is_default")]
    labels: LabelsRecord<'r>,
    started: u64,
    registered: u64,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct AgentRecord<'r> {
    /// When the newest completed run finished, and the place of its watch in the watch list.
    #[serde(skip_serializing_if = "is_default")]
    newest: Option<(u64, u64)>,
    #[serde(skip_serializing_if = "is_default")]
    enabled_since: Option<u64>,
    /// The name of the watch whose run set the state, and its labels.
    #[serde(borrow, skip_serializing_if = "is_default")]
    told_by: Option<Cow<'r, str>>,
    #[serde(borrow, skip_serializing_if = "is_default")]
    labels: LabelsRecord<'r>,
    /// Whether a request made the exporter forget the state.
    #[serde(skip_serializing_if = "is_default")]
    forgotten: bool,
    #[serde(skip_serializing_if = "is_default")]
    unwatched_since: Option<u64>,
    #[serde(borrow, skip_serializing_if = "is_default")]
    live: LiveRecord<'r>,
    /// The number of the process that saved it.
    #[serde(skip_serializing_if = "is_default")]
    session: u64,
}

/// What the mock status said.
#[derive(Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct LiveRecord<'r> {
    #[serde(skip_serializing_if = "is_default")]
    enabled: Option<bool>,
    #[serde(skip_serializing_if = "is_default")]
    enabled_since: Option<u64>,
    #[serde(skip_serializing_if = "is_default")]
    asked: Option<u64>,
    #[serde(skip_serializing_if = "is_default")]
    last_success: Option<u64>,
    #[serde(borrow, skip_serializing_if = "is_default")]
    provider: Option<Cow<'r, str>>,
    #[serde(skip_serializing_if = "is_default")]
    mcp_endpoints: Option<u32>,
    #[serde(skip_serializing_if = "is_default")]
    tool_endpoints: Option<u32>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    failing: Option<FailingRecord<'r>>,
    #[serde(skip_serializing_if = "is_default")]
    polls: u64,
    #[serde(skip_serializing_if = "is_default")]
    failures: u64,
    #[serde(skip_serializing_if = "is_default")]
    run_finished: Option<u64>,
    #[serde(skip_serializing_if = "is_default")]
    unlisted_since: Option<u64>,
}

/// Labels by name.
type LabelsRecord<'r> = BTreeMap<Cow<'r, str>, Cow<'r, str>>;

// === Registrations ===

pub(super) fn write_registration(registration: &Registration) -> io::Result<Vec<u8>> {
    let Registration { watch, started, registered } = registration;
    json(&RegistrationRecord {
        api: watch.api.as_str().into(),
        agent_id: watch.agent_id.get(),
        progress_id: watch.progress_id.as_str().into(),
        expect: watch.expect.map(|expect| expect.as_str().into()),
        labels: labels_record(&watch.labels),
        started: started.as_millis(),
        registered: registered.as_millis(),
    })
}

pub(super) fn read_registration(name: WatchName, json: &[u8]) -> Result<Registration, String> {
    let record: RegistrationRecord<'_> = parse(json)?;
    let watch = Watch {
        name,
        api: ApiName::parse(&record.api)?,
        agent_id: agent_id(record.agent_id)?,
        progress_id: ProgressId::restore(&record.progress_id)?,
        expect: record.expect.and_then(|expect| Expect::parse(&expect).ok()),
        labels: labels(record.labels)?,
        source: Source::Http,
    };
    Ok(Registration {
        watch: Arc::new(watch),
        started: Timestamp::from_millis(record.started),
        registered: Timestamp::from_millis(record.registered),
    })
}

// === Agents ===

pub(super) fn write_agent(agent: &SavedAgent, session: u64) -> io::Result<Vec<u8>> {
    let SavedAgent { told: ToldMocks { newest, enabled_since, told_by, forgotten, unwatched_since }, live } = agent;
    json(&AgentRecord {
        newest: newest.map(|(at, place)| (at.as_millis(), place)),
        enabled_since: timestamp_millis(*enabled_since),
        told_by: told_by.as_ref().map(|teller| teller.toggle.as_str().into()),
        labels: told_by.as_ref().map(|teller| labels_record(&teller.labels)).unwrap_or_default(),
        forgotten: *forgotten,
        unwatched_since: timestamp_millis(*unwatched_since),
        live: LiveRecord::of(live),
        session,
    })
}

/// The state of an agent. Its counters start from zero if a process with a lower number than `counting_since` saved them.
pub(super) fn read_agent(json: &[u8], counting_since: u64) -> Result<SavedAgent, String> {
    let mut record: AgentRecord<'_> = parse(json)?;
    if record.session < counting_since {
        (record.live.polls, record.live.failures) = (0, 0);
    }
    let newest = record.newest.map(|(at, place)| (Timestamp::from_millis(at), place));
    let is_known = newest.is_some() && !record.forgotten;
    let told_by = match record.told_by.filter(|_| is_known) {
        Some(toggle) => Some(ToldBy { toggle: WatchName::parse(&toggle)?, labels: labels(record.labels)? }),
        None => None,
    };
    let told = ToldMocks {
        newest,
        enabled_since: timestamp(record.enabled_since).filter(|_| is_known),
        told_by,
        forgotten: record.forgotten,
        unwatched_since: timestamp(record.unwatched_since),
    };
    Ok(SavedAgent { told, live: record.live.restore() })
}

impl<'r> LiveRecord<'r> {
    fn of(live: &'r LiveMocks) -> Self {
        Self {
            enabled: live.enabled,
            enabled_since: timestamp_millis(live.enabled_since),
            asked: timestamp_millis(live.asked),
            last_success: timestamp_millis(live.last_success),
            provider: live.provider.map(|provider| provider.as_str().into()),
            mcp_endpoints: live.mcp_endpoints,
            tool_endpoints: live.tool_endpoints,
            failing: live.failing.as_deref().map(FailingRecord::of),
            polls: live.polls,
            failures: live.failures,
            run_finished: timestamp_millis(live.run_finished),
            unlisted_since: timestamp_millis(live.unlisted_since),
        }
    }

    fn restore(self) -> LiveMocks {
        let is_on = self.enabled == Some(true);
        LiveMocks {
            enabled: self.enabled,
            enabled_since: timestamp(self.enabled_since).filter(|_| is_on),
            asked: timestamp(self.asked),
            last_success: timestamp(self.last_success),
            provider: self.provider.map(|provider| Provider::of(&provider)),
            mcp_endpoints: self.mcp_endpoints,
            tool_endpoints: self.tool_endpoints,
            failing: self.failing.and_then(FailingRecord::restore).map(Arc::new),
            polls: self.polls,
            failures: self.failures,
            run_finished: timestamp(self.run_finished),
            unlisted_since: timestamp(self.unlisted_since),
        }
    }
}

// === Shared by all records ===

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn json(record: &impl Serialize) -> io::Result<Vec<u8>> {
    Ok(serde_json::to_vec(record)?)
}

fn parse<'r, T: Deserialize<'r>>(json: &'r [u8]) -> Result<T, String> {
    serde_json::from_slice(json).map_err(|error| error.to_string())
}

/// An agent id, checked like those that users write.
pub(super) fn agent_id(id: u64) -> Result<AgentId, String> {
    AgentId::parse(&id.to_string())
}

fn labels_record(labels: &Labels) -> LabelsRecord<'_> {
    inserted(labels.iter().map(|(name, value)| (name.as_str().into(), value.into())))
}

fn labels(record: LabelsRecord<'_>) -> Result<Labels, String> {
    record.into_iter().map(|(name, value)| Ok((LabelName::parse(&name)?, value.into()))).collect()
}

fn text(text: &Text) -> Cow<'_, str> {
    text.as_str().into()
}

fn timestamp_millis(time: Option<Timestamp>) -> Option<u64> {
    time.map(Timestamp::as_millis)
}

fn timestamp(millis: Option<u64>) -> Option<Timestamp> {
    millis.map(Timestamp::from_millis)
}
