//! Reading the configuration: file and environment in, [`Config`] out.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use zeroize::Zeroize;

use super::Config;
use super::environment::{Variable, misspelt_variables, variables};
use super::merge::merge;
use super::validate::{DATABASE, GivenSecrets, WATCHES, validate};
use crate::cekura::{KEY_VARIABLE, KeySource, Secret, how_to_give_key, without_endpoint};
use crate::database::{DatabaseSettings, DatabaseUrl, URL_VARIABLE};
use crate::document::yaml::Parsed;
use crate::document::{
    DocumentSource, Map, Node, Problem, Problems, Validation, Value, ValueKind, ValueOrigin, text_of, yaml,
};
use crate::input_file::{self, Content};
use crate::toggle::ApiName;

/// The text that replaces a secret in the tree.
const LIFTED: &str = "<secret>";

/// A configuration without problems, and its warnings.
#[derive(Debug)]
pub struct LoadedConfig {
    /// The configuration.
    pub config: Config,
    /// What is valid but perhaps a mistake.
    pub warnings: Vec<Problem>,
}

/// What the environment lays over the file.
struct Environment {
    overlays: Vec<Variable>,
    key_of_default: KeySource,
    database_url: Option<Result<DatabaseUrl, String>>,
    problems: Vec<Problem>,
}

/// A configuration as far as it could be read, and all of its problems.
#[derive(Debug)]
pub struct ConfigReport {
    /// The configuration without what is wrong; `None` if it could not be read at all.
    pub config: Option<Config>,
    /// Everything that is wrong.
    pub problems: Vec<Problem>,
    /// Settings that are valid but perhaps a mistake.
    pub warnings: Vec<Problem>,
}

impl From<Problems> for ConfigReport {
    fn from(Problems(problems): Problems) -> Self {
        Self { config: None, problems, warnings: Vec::new() }
    }
}

/// Reads and validates the configuration in `file`, with the variables of `environment` laid over it. Blocks.
///
/// # Errors
/// Every problem.
pub fn load(
    file: &Path,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<LoadedConfig, Problems> {
    let ConfigReport { config, problems, warnings } = read(file, environment);
    let config = usable(config, problems)?;
    Ok(LoadedConfig { config, warnings })
}

/// Like [`load`], but leaves out what is wrong instead of failing. Then there are no warnings.
pub fn read(file: &Path, environment: impl IntoIterator<Item = (OsString, OsString)>) -> ConfigReport {
    let variables: Vec<_> = environment.into_iter().collect();
    let misspelt = misspelt_variables(&variables);
    let source = DocumentSource::File(file);
    // The content is dropped before the tree is validated, because both are large if the watch list is long.
    let parsed = content(file)
        .map_err(|what| Problem::new(source.name(), "", what))
        .and_then(|content| yaml::parse(text_of(source, &content)?, source));
    let mut read = assemble(source, parsed, Environment::of(variables));
    if read.problems.is_empty() {
        read.warnings.splice(..0, misspelt);
    }
    read
}

/// Validates a configuration that is in no file. Relative paths in it start at the working directory.
///
/// # Errors
/// Every problem.
pub fn parse(text: &str) -> Result<Config, Problems> {
    let source = DocumentSource::Text("configuration");
    let ConfigReport { config, problems, .. } =
        assemble(source, yaml::parse(text, source), Environment::of(Vec::new()));
    usable(config, problems)
}

fn usable(config: Option<Config>, problems: Vec<Problem>) -> Result<Config, Problems> {
    config.filter(|_| problems.is_empty()).ok_or(Problems(problems))
}

/// Lays the environment over the file, and validates. Without problems there is a configuration.
fn assemble(source: DocumentSource<'_>, parsed: Result<Parsed, Problem>, environment: Environment) -> ConfigReport {
    let Environment { mut overlays, key_of_default, database_url, problems: of_variables } = environment;
    let map = parsed.and_then(|(tree, problems)| match tree.kind {
        ValueKind::Map(map) => Ok((map, problems)),
        ValueKind::Null => Ok((Map::EMPTY, problems)),
        _ => Err(Problem::new(source.name(), "", "must be a map of keys to values")),
    });
    let (mut file, mut problems) = match map {
        Ok(read) => read,
        // Problems with keys would be told without knowing the keys of the file.
        Err(problem) => return Problems([vec![problem], of_variables].concat()).into(),
    };
    problems.extend(of_variables);

    let mut secrets = GivenSecrets {
        api_keys: BTreeMap::new(),
        key_of_default,
        database_url: None,
        database_url_of_variable: database_url,
    };
    if let Some(apis) = file.get_mut("apis") {
        secrets.lift_keys(apis);
    }
    if let Some(database) = file.get_mut(DATABASE) {
        secrets.lift_url_from(database);
    }
    for variable in &mut overlays {
        variable.lift_secrets(&mut secrets);
    }
    let mut merged = merge(file, &overlays);
    let entries = merged.get_mut(WATCHES).map(Value::take_elements).unwrap_or_default();
    let tree = Value { origin: ValueOrigin::Document, kind: ValueKind::Map(merged) };

    let names: Vec<_> = overlays.into_iter().map(|variable| variable.name).collect();
    let validation = Validation::new(source, &names);
    let root = validation.root(&tree);
    let config = validate(&root, entries, &secrets);
    let warnings = config.as_ref().map(|config| warnings(config, &root)).unwrap_or_default();
    problems.extend(validation.into_problems());
    let warnings = if problems.is_empty() { warnings } else { Vec::new() };
    ConfigReport { config, problems, warnings }
}

/// The content of a configuration file, or why it cannot be read.
fn content(file: &Path) -> Result<Content, String> {
    // It means that there is no file, because variables set all keys.
    if file == Path::new("/dev/null") {
        return Ok(Content::default());
    }
    input_file::read(file, MAX_FILE_BYTES).map_err(|error| format!("{error}; --config.file names the configuration"))
}

/// What is valid but perhaps a mistake.
fn warnings(config: &Config, root: &Node<'_>) -> Vec<Problem> {
    let mut warnings = Vec::new();
    for api in &config.apis {
        let name = api.name.as_str();
        if let Some(meant) = without_endpoint(&api.base_url) {
            let what = format!("ends in a part of the endpoint's path, which is added to it: write {meant}");
            warnings.push(root.warning_at(&["apis", name, "base_url"], what));
        }
        let (key, what) = match &api.key {
            KeySource::File(key) => match key.read() {
                Ok(_) => continue,
                Err(what) => ("api_key_file", format!("{} {what}", key.path().display())),
            },
            KeySource::Unusable(what) => ("api_key", (*what).to_owned()),
            KeySource::None => {
                warnings.push(root.warning_at(&["apis", name], no_key(&api.name)));
                continue;
            }
            KeySource::Given(_) => continue,
        };
        let what = format!("{what}; until that is mended, polls fail with `credentials`");
        warnings.push(root.warning_at(&["apis", name, key], what));
    }
    for what in config.database.iter().flat_map(DatabaseSettings::warnings) {
        warnings.push(root.warning_at(&[DATABASE], what));
    }
    // Watch files and registrations may have watches, and agents are polled, too.
    let discovers = config.apis.iter().any(|api| api.discover_agents);
    let has_no_other_source =
        config.watch_files.is_empty() && !config.registrations.enabled && config.agents.is_empty() && !discovers;
    match config.watches.len() {
        0 if has_no_other_source => {
            warnings.push(
                root.warning_at(
                    &["watches"],
                    "the watch list is empty, and so is the list of agents: nothing is polled",
                ),
            );
        }
        many if many > Config::MANY_WATCHES => {
            let series = many * Config::SERIES_PER_WATCH;
            warnings.push(root.warning_at(&["watches"], format!("{many} watches are about {series} series a scrape")));
        }
        _ => {}
    }
    if config.agents.len() > Config::MANY_WATCHES {
        let (many, series) = (config.agents.len(), config.agents.len() * Config::SERIES_PER_AGENT);
        warnings.push(root.warning_at(&["agents"], format!("{many} agents are about {series} series a scrape")));
    }
    warnings
}

/// The warning of an API without any key.
fn no_key(api: &ApiName) -> String {
    format!("has no key, so its polls fail with `credentials`: {}", how_to_give_key(api))
}

fn key_of_default(environment: &[(OsString, OsString)]) -> KeySource {
    let set = environment.iter().find(|(name, value)| name == KEY_VARIABLE && !value.is_empty());
    set.map_or(KeySource::None, |(_, value)| value.to_str().map_or(KeySource::Unusable("is not UTF-8 text"), given_key))
}

fn database_url(environment: &[(OsString, OsString)]) -> Option<Result<DatabaseUrl, String>> {
    let (_, value) = environment.iter().find(|(name, value)| name == URL_VARIABLE && !value.is_empty())?;
    Some(value.to_str().ok_or_else(|| "is not UTF-8 text".to_owned()).and_then(DatabaseUrl::parse))
}

fn given_key(text: &str) -> KeySource {
    Secret::parse(text).map_or_else(KeySource::Unusable, KeySource::Given)
}

/// The largest configuration that is read, in bytes; the same limit as for a watch file.
pub const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;

// === impl GivenSecrets ===

impl GivenSecrets {
    /// Takes the keys of all APIs out of the value of `apis`, because figment leaves copies of its input in memory.
    fn lift_keys(&mut self, apis: &mut Value) {
        for (name, api) in apis.as_map_mut().into_iter().flat_map(Map::iter_mut) {
            self.lift_key_from(name, api);
        }
    }

    fn lift_key_from(&mut self, name: &str, api: &mut Value) {
        if let Some(key) = api.as_map_mut().and_then(|api| api.get_mut("api_key")) {
            self.lift_key(name, key);
        }
    }

    /// Moves the key of an API out of the tree, and wipes it there.
    fn lift_key(&mut self, name: &str, key: &mut Value) {
        if let ValueKind::Text(key) = &mut key.kind {
            self.api_keys.insert(name.to_owned(), given_key(key));
            key.zeroize();
            *key = LIFTED.into();
        }
    }

    /// Takes the URL out of the value of `database`, because it may have a password.
    fn lift_url_from(&mut self, database: &mut Value) {
        if let Some(url) = database.as_map_mut().and_then(|database| database.get_mut("url")) {
            self.lift_url(url);
        }
    }

    fn lift_url(&mut self, url: &mut Value) {
        if let ValueKind::Text(url) = &mut url.kind {
            self.database_url = Some(DatabaseUrl::parse(url));
            url.zeroize();
            *url = LIFTED.into();
        }
    }
}

// === impl Variable ===

impl Variable {
    /// Moves out the secrets that this variable gives: one key, that of one API, those of all APIs, or the URL of the
    /// database.
    fn lift_secrets(&mut self, secrets: &mut GivenSecrets) {
        match &self.keys.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["apis"] => secrets.lift_keys(&mut self.value),
            ["apis", name] => secrets.lift_key_from(name, &mut self.value),
            ["apis", name, "api_key"] => secrets.lift_key(name, &mut self.value),
            ["database"] => secrets.lift_url_from(&mut self.value),
            ["database", "url"] => secrets.lift_url(&mut self.value),
            _ => {}
        }
    }
}

// === impl Environment ===

impl Environment {
    fn of(variables_of_process: Vec<(OsString, OsString)>) -> Self {
        let mut problems = Vec::new();
        let key_of_default = key_of_default(&variables_of_process);
        let database_url = database_url(&variables_of_process);
        let overlays = variables(variables_of_process, &mut problems);
        Self { overlays, key_of_default, database_url, problems }
    }
}
