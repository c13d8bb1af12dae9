//! The configuration of the exporter, and the definitions that its sources list.

use serde_json::{Value, json};

use super::Settings;
use super::plan::{Api, Plan, Source};
use super::upstream::Upstreams;

/// The content of the configuration file. `storage` is where the exporter keeps what it knows: a key and its value.
pub(super) fn configuration(
    plan: &Plan,
    upstreams: &Upstreams,
    settings: &Settings,
    listed: &[Option<usize>],
    storage: &(&str, Value),
) -> Value {
    let api = |api: Api| {
        json!({
            "base_url": upstreams.base_url(api),
            "api_key": "sk-judge",
            "timeout": format!("{}ms", settings.timeout * 1000.0),
            "max_in_flight": 1000,
            "requests_per_second": api.requests_per_second(),
            "discover_agents": api == Api::Listed,
        })
    };
    let apis: serde_json::Map<_, _> = Api::ALL.into_iter().map(|name| (name.name().to_owned(), api(name))).collect();
    let interval = |seconds: f64| format!("{}ms", seconds * 1000.0);
    let kept = |seconds: f64| format!("{}ms", settings.scaled(seconds).ceil() * 1000.0);
    let (place, value) = storage;
    json!({
        "apis": apis,
        "agents": agents(plan, Source::Configuration),
        "polling": {
            "agent_interval": interval(settings.max_interval),
            "min_interval": interval(settings.min_interval),
            "max_interval": interval(settings.max_interval),
            "backoff_max": interval(settings.backoff_max),
        },
        *place: value,
        "registrations": {
            "enabled": true,
            "retention": {"completed": kept(3600.0), "failed": kept(86400.0), "unfinished": kept(86400.0)},
        },
        "watch_files": ["watches/*.json"],
        "watches": watches(plan, listed, Source::Configuration),
    })
}

/// The definition of a slot's watch.
pub(super) fn watch(plan: &Plan, slot: usize, run: usize) -> Value {
    let slot = &plan.slots[slot];
    let mut watch = json!({
        "agent_id": slot.agent_id,
        "progress_id": slot.progress_id(run),
        "api": slot.api.name(),
    });
    if let Some(expect) = slot.runs[run].expect {
        watch["expect"] = json!(expected(expect));
    }
    if let Some(team) = slot.team {
        watch["labels"] = json!({ "team": team });
    }
    watch
}

/// The watches that a source lists now.
fn watches(plan: &Plan, listed: &[Option<usize>], source: Source) -> Vec<Value> {
    let there = plan.slots.iter().enumerate().filter(|(_, slot)| slot.source == source);
    let named = there.filter_map(|(number, slot)| {
        let mut watch = watch(plan, number, listed[number]?);
        watch["name"] = json!(slot.name);
        Some(watch)
    });
    named.collect()
}

/// The definitions of the agents that a source has.
fn agents(plan: &Plan, source: Source) -> Vec<Value> {
    let agents = plan.slots.iter().filter_map(|slot| {
        let asked = slot.asked.as_ref().filter(|asked| !asked.discovered)?;
        // Agents cannot be registered.
        let is_there = if slot.source == Source::Http { Source::Configuration } else { slot.source };
        let mut agent = json!({"agent_id": slot.agent_id, "api": slot.api.name()});
        if let Some(expect) = asked.expect {
            agent["expect"] = json!(expected(expect));
        }
        if let Some(team) = slot.team {
            agent["labels"] = json!({ "team": team });
        }
        (is_there == source).then_some(agent)
    });
    agents.collect()
}

/// The content of a watch file.
pub(super) fn definitions(plan: &Plan, listed: &[Option<usize>], file: Source) -> Vec<Value> {
    let mut definitions = watches(plan, listed, file);
    definitions.extend(agents(plan, file));
    definitions
}

fn expected(on: bool) -> &'static str {
    if on { "enabled" } else { "disabled" }
}
