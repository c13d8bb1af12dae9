//! The configuration in force as YAML with secrets masked, which `/config` shows.

use std::fmt::{self, Write as _};

use super::{Config, ConnectionLimits, Registrations, format_duration};
use crate::cekura::{Api, KeySource};
use crate::database::{DatabaseSettings, UrlSource};
use crate::toggle::{AgentDefinition, ApiName, Expect, Labels, Watch};

/// Every key with the value in force. The text can be read back, except for the masked keys.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("apis:\n")?;
        self.apis.iter().try_for_each(|api| write_api(f, api))?;
        f.write_str(if self.agents.is_empty() { "agents: []\n" } else { "agents:\n" })?;
        self.agents.iter().try_for_each(|agent| write_agent(f, agent))?;
        let polling = &self.polling;
        writeln!(f, "polling:")?;
        writeln!(f, "  agent_interval: {}", format_duration(polling.agent_interval))?;
        writeln!(f, "  min_interval: {}", format_duration(polling.min_interval))?;
        writeln!(f, "  max_interval: {}", format_duration(polling.max_interval))?;
        writeln!(f, "  backoff_max: {}", format_duration(polling.backoff_max))?;
        writeln!(f, "  recheck_finished: {}", format_duration(polling.recheck_finished))?;
        f.write_str(if self.watches.is_empty() { "watches: []\n" } else { "watches:\n" })?;
        self.watches.iter().try_for_each(|watch| write_watch(f, watch))?;
        f.write_str(if self.watch_files.is_empty() { "watch_files: []\n" } else { "watch_files:\n" })?;
        self.watch_files.iter().try_for_each(|glob| writeln!(f, "  - {}", Quoted(glob.configured())))?;
        let Registrations { enabled, max, retention } = &self.registrations;
        writeln!(f, "registrations:\n  enabled: {enabled}\n  max: {max}\n  retention:")?;
        writeln!(f, "    completed: {}", format_duration(retention.completed))?;
        writeln!(f, "    failed: {}", format_duration(retention.failed))?;
        writeln!(f, "    unfinished: {}", format_duration(retention.unfinished))?;
        if let Some(database) = &self.database {
            write_database(f, database)?;
        }
        let state_file = self.state_file.as_ref().map_or("", |file| &file.configured);
        writeln!(f, "state_file: {}", Quoted(state_file))?;
        writeln!(f, "external_url: {}", Quoted(self.external_url.as_deref().unwrap_or_default()))?;
        writeln!(f, "shutdown:\n  linger: {}", format_duration(self.linger))?;
        let ConnectionLimits { total, per_peer } = self.connections;
        writeln!(f, "web:\n  max_connections: {total}\n  max_connections_per_peer: {per_peer}")
    }
}

fn write_api(f: &mut fmt::Formatter<'_>, api: &Api) -> fmt::Result {
    writeln!(f, "  {}:", Quoted(api.name.as_str()))?;
    writeln!(f, "    base_url: {}", Quoted(api.base_url.as_str()))?;
    match &api.key {
        KeySource::Given(secret) => writeln!(f, "    api_key: {secret}")?,
        KeySource::File(file) => writeln!(f, "    api_key_file: {}", Quoted(&file.path().to_string_lossy()))?,
        KeySource::Unusable(_) => writeln!(f, "    api_key: <secret>")?,
        KeySource::None => {}
    }
    if let Some(ca) = &api.ca {
        writeln!(f, "    ca_file: {}", Quoted(&ca.path().to_string_lossy()))?;
    }
    writeln!(f, "    timeout: {}", format_duration(api.timeout))?;
    writeln!(f, "    max_in_flight: {}", api.max_in_flight)?;
    writeln!(f, "    requests_per_second: {}", api.requests_per_second.per_second())?;
    writeln!(f, "    discover_agents: {}", api.discover_agents)
}

fn write_database(f: &mut fmt::Formatter<'_>, database: &DatabaseSettings) -> fmt::Result {
    writeln!(f, "database:")?;
    match &database.url {
        UrlSource::Given(url) => writeln!(f, "  url: {}", Quoted(&url.to_string()))?,
        UrlSource::File(path) => writeln!(f, "  url_file: {}", Quoted(&path.to_string_lossy()))?,
    }
    for (key, path) in [("password_file", &database.password_file), ("ca_file", &database.ca_file)] {
        if let Some(path) = path {
            writeln!(f, "  {key}: {}", Quoted(&path.to_string_lossy()))?;
        }
    }
    writeln!(f, "  lease: {}", format_duration(database.lease))
}

fn write_agent(f: &mut fmt::Formatter<'_>, agent: &AgentDefinition) -> fmt::Result {
    writeln!(f, "  - agent_id: {}", agent.agent_id)?;
    write_rest(f, agent.expect, &agent.api, &agent.labels)
}

fn write_watch(f: &mut fmt::Formatter<'_>, watch: &Watch) -> fmt::Result {
    writeln!(f, "  - name: {}", Quoted(watch.name.as_str()))?;
    writeln!(f, "    agent_id: {}", watch.agent_id)?;
    writeln!(f, "    progress_id: {}", Quoted(watch.progress_id.as_str()))?;
    write_rest(f, watch.expect, &watch.api, &watch.labels)
}

/// The keys that watches and agents both have.
fn write_rest(f: &mut fmt::Formatter<'_>, expect: Option<Expect>, api: &ApiName, labels: &Labels) -> fmt::Result {
    if let Some(expect) = expect {
        writeln!(f, "    expect: {}", expect.as_str())?;
    }
    if *api != ApiName::default_api() {
        writeln!(f, "    api: {}", Quoted(api.as_str()))?;
    }
    if !labels.is_empty() {
        writeln!(f, "    labels:")?;
        for (name, value) in labels {
            writeln!(f, "      {}: {}", Quoted(name.as_str()), Quoted(value))?;
        }
    }
    Ok(())
}

/// Text as a YAML scalar: plain if YAML reads it as the same text, else in double quotes.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = self.0.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
            && self.0.chars().all(|c| c.is_ascii_alphanumeric() || "_-./:".contains(c))
            && !self.0.ends_with(':')
            && !["null", "Null", "NULL", "true", "True", "TRUE", "false", "False", "FALSE", "y", "Y", "n", "N"]
                .contains(&self.0)
            && !["yes", "Yes", "YES", "no", "No", "NO", "on", "On", "ON", "off", "Off", "OFF"].contains(&self.0);
        if plain {
            return f.write_str(self.0);
        }
        f.write_char('"')?;
        for c in self.0.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}') => {
                    write!(f, "\\U{:08x}", u32::from(c))?;
                }
                c => f.write_char(c)?,
            }
        }
        f.write_char('"')
    }
}
