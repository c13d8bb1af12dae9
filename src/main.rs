//! The process: flags, logs, signals, exit code.

use std::error::Error;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use cekura_exporter::cekura::Proxies;
use cekura_exporter::check::{self, CheckResult};
use cekura_exporter::cli::{Cli, ConfigCheck};
use cekura_exporter::config::{self, ConfigReport, LoadedConfig};
use cekura_exporter::document::{Problem, Problems};
use cekura_exporter::signals::{self, Caught, Signals};
use cekura_exporter::systemd::{self, Notifier};
use cekura_exporter::web::WebFile;
use cekura_exporter::{BUILD, Service, demo, http, intake, run, telemetry, threads, web};
use tokio::signal::unix::SignalKind;
use tokio::sync::watch;

/// Sent for a write beyond the limit of a file's size. The number is the same on every system that we know.
const SIGXFSZ: i32 = 25;

fn main() -> ExitCode {
    // First of all: whoever asks for a reload does not know how far the start is.
    let hangup = signals::catch(SignalKind::hangup());
    let cli = Cli::read(std::env::args_os()).unwrap_or_else(|error| error.exit());
    let done = match cli.config_check {
        Some(what) => check(&cli, what),
        None => serve(&cli, hangup),
    };
    let Err(error) = done else { return ExitCode::SUCCESS };
    let causes = std::iter::successors(Some(&*error as &dyn Error), |error| (*error).source());
    say(&causes.map(ToString::to_string).collect::<Vec<_>>().join(": "));
    // Bad configuration is 2, as bad usage is; what else hinders is 1.
    ExitCode::from(if error.is::<Problems>() { 2 } else { 1 })
}

fn check(cli: &Cli, what: ConfigCheck) -> Result<(), Box<dyn Error>> {
    let file = cli.config_file();
    let read = file.as_ref().map(|file| config::read(file, std::env::vars_os()));
    let ConfigReport { config, mut problems, mut warnings } = read.unwrap_or_else(|problems| problems.clone().into());
    let found = check::files(config, &mut problems, &mut warnings);
    let proxies = proxies().map_err(|of_proxies| problems.extend(of_proxies.0));
    check::web(cli.web_config_file.as_deref(), &mut problems, &mut warnings);
    for warning in &warnings {
        say(&format!("warning: {warning}"));
    }
    let (Ok(file), Some(found), Ok(proxies), true) = (file, found, proxies, problems.is_empty()) else {
        return Err(Problems(problems).into());
    };
    print(&format!("{}: {found}: good", file.display()));
    if what == ConfigCheck::Online { check_online(found, proxies) } else { Ok(()) }
}

/// A good configuration, where it was read, and the proxies beside it; and the web configuration with what
/// it warns of.
type Input = (Option<((LoadedConfig, PathBuf), Proxies)>, Option<(WebFile, Vec<Problem>)>);

/// Reads all that the service starts with.
fn read(cli: &Cli) -> Result<Input, Problems> {
    let configuration = || {
        let configuration = cli.config_file().and_then(|file| Ok((config::load(&file, std::env::vars_os())?, file)));
        Problems::of_both(configuration, proxies())
    };
    let web = cli.web_config_file.as_deref().map(WebFile::open).transpose();
    Problems::of_both((!cli.demo).then(configuration).transpose(), web)
}

/// Those that the environment names.
fn proxies() -> Result<Proxies, Problems> {
    check::proxies(|name| std::env::var_os(name))
}

fn check_online(found: CheckResult, proxies: Proxies) -> Result<(), Box<dyn Error>> {
    let polls = check::polls(found, proxies)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answers = runtime.block_on(polls);
    for answer in &answers {
        print(&answer.to_string());
    }
    if answers.iter().all(|answer| answer.is_good) { Ok(()) } else { Err("not every API answered validly".into()) }
}

fn serve(cli: &Cli, hangup: io::Result<Caught>) -> Result<(), Box<dyn Error>> {
    // A signal to stop that comes early is a clean stop too.
    let stops = [signals::catch(SignalKind::terminate())?, signals::catch(SignalKind::interrupt())?];
    let hangup = hangup?;
    // A file that may not grow is an error of writing it, and no end of the process.
    let _file_size = signals::catch(SignalKind::from_raw(SIGXFSZ))?;
    // Before there are threads.
    let sockets = cli.systemd_socket.then(systemd::sockets);
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = threads::start_or_exit(|| builder.worker_threads(2).enable_all().build())?;
    let stopped = runtime.block_on(async {
        let signals = Signals::listen(hangup, stops);
        let flags = cli.clone();
        // Whoever wants to stop does not wait for a disk that hangs.
        let (checked, web) = tokio::select! {
            read = threads::try_run("start", move || read(&flags)) => read??,
            () = signals.clone().told(1) => return Ok(()),
        };
        let _logs = threads::start_or_exit(|| telemetry::init(cli.log_level.clone(), cli.log_format))?;
        let [version, revision, rustc] = BUILD;
        tracing::info!(version, revision, rustc, demo = cli.demo, "starting");
        let mut service = match checked {
            Some(((checked, file), proxies)) => configured(checked, file, proxies, &signals, cli),
            None => demo::start(cli.telemetry_path.clone(), signals.hangups()).await?,
        };
        service.web = web.map(|(file, warnings)| {
            warnings.iter().for_each(web::configuration_warning);
            file
        });
        let encrypted = service.web.as_ref().is_some_and(|file| file.web().tls.is_some());
        let listeners = match sockets {
            Some(sockets) => systemd::listeners(sockets?, &cli.listen)?,
            None => http::bind(&cli.addresses())?,
        };
        for address in http::addresses(&listeners).into_iter().filter(|_| cli.demo) {
            say(&demo::welcome(address, encrypted, &cli.telemetry_path));
        }
        let notifier = Arc::new(Notifier::from_env());
        tokio::select! {
            stopped = run(service, listeners, notifier, signals.clone().told(1)) => Ok(stopped?),
            () = signals.told(2) => {
                tracing::warn!("stopped at once");
                Ok(())
            }
        }
    });
    // What still runs is not waited for: the process ends here.
    runtime.shutdown_background();
    stopped
}

fn configured(checked: LoadedConfig, file: PathBuf, proxies: Proxies, signals: &Signals, cli: &Cli) -> Service {
    checked.warnings.iter().for_each(intake::configuration_warning);
    Service {
        config: checked.config,
        lists: watch::Sender::new(Vec::new()).subscribe(),
        load: Some(Arc::new(move || config::load(&file, std::env::vars_os()))),
        web: None,
        hangups: signals.hangups(),
        telemetry_path: cli.telemetry_path.clone(),
        proxies,
    }
}

/// Writes to standard output. If nobody reads it, there is nobody to tell.
fn print(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// Writes to standard error. If nobody reads it, there is nobody to tell.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
