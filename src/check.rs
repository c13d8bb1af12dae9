//! Checking the files that a configuration names, without using them.

use std::ffi::OsString;
use std::path::Path;

use crate::cekura::{BadProxy, Proxies};
use crate::config::{Config, Problem, Problems};
use crate::sources::{Files, News, Origin, Scan, WatchList};
use crate::store::Store;
use crate::web::WebFile;

/// Reads the watch files and the state file of a configuration, as far as it could be read. Blocks.
///
/// A folder of watch files that is missing is a warning: it may come, as a key file may. What is
/// wrong in a watch file is a problem. A watch whose name belongs to another source is a warning.
pub fn files(config: Option<Config>, problems: &mut Vec<Problem>, warnings: &mut Vec<Problem>) {
    let Some(config) = config else { return };
    check_state_file(&config, problems);
    if problems.iter().any(|problem| problem.path.starts_with("apis")) {
        // It is not known which APIs a watch may name.
        return;
    }
    let apis = config.apis.iter().map(|api| api.name.clone()).collect();
    let mut scan = Files::new(config.watch_files.clone(), apis).scan();
    for news in std::mem::take(&mut scan.news) {
        match news {
            News::Astray { problems: of_glob, .. } => warnings.extend(of_glob),
            News::Failed { problems: of_file, .. } => problems.extend(of_file),
            News::Changed { .. } | News::Found { .. } | News::Mended { .. } | News::Removed { .. } => {}
        }
    }
    warnings.extend(refused(config, scan));
}

/// The proxies that these variables name.
///
/// # Errors
/// The variables that cannot be used.
pub fn proxies(variable: impl Fn(&str) -> Option<OsString>) -> Result<Proxies, Problems> {
    Proxies::from_env(variable).map_err(|bad| {
        let problem = |BadProxy { variable, what }| Problem { origin: variable.to_owned(), path: String::new(), what };
        Problems(bad.into_iter().map(problem).collect())
    })
}

/// Reads the web configuration, if there is one, and the files that it names. Blocks.
pub fn web(path: Option<&Path>, problems: &mut Vec<Problem>, warnings: &mut Vec<Problem>) {
    match path.map(WebFile::open) {
        Some(Ok((_, of_web))) => warnings.extend(of_web),
        Some(Err(of_web)) => problems.extend(of_web.0),
        None => {}
    }
}

fn check_state_file(config: &Config, problems: &mut Vec<Problem>) {
    if let Some(file) = &config.state_file
        && let Err(error) = Store::check(&file.path)
    {
        let origin = file.path.display().to_string();
        problems.push(Problem::new(origin, "", error.to_string()));
    }
}

/// The watches of files whose names belong to others.
fn refused(config: Config, scan: Scan) -> Vec<Problem> {
    let mut list = WatchList::default();
    let mut edit = list.edit();
    edit.set_apis(config.apis.into_iter().map(|api| api.name).collect());
    edit.replace(&Origin::Config, config.watches.into_iter().map(Into::into));
    for (path, watches) in scan.files {
        edit.replace(&Origin::File(path), watches.iter().cloned().map(Into::into));
    }
    let mut warnings = Vec::new();
    for refused in edit.finish(|_| false).refused {
        if let (Origin::File(path), Some(by)) = (&refused.origin, &refused.by) {
            let by = match by {
                Origin::File(path) => path.display().to_string(),
                Origin::Config | Origin::Http => "the configuration".to_owned(),
            };
            let what = format!("the name `{}` is taken by {by}: this watch is refused", refused.watch.name);
            warnings.push(Problem::new(path.display().to_string(), "", what));
        }
    }
    warnings
}
