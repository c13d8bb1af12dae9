//! The process: flags, logs, signals, exit code.

use std::error::Error;
use std::io::{self, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use tokio::signal::unix::SignalKind;

use crate::cekura::Proxies;
use crate::check::{self, CheckResult};
use crate::cli::{Cli, ConfigCheck};
use crate::config::{self, ConfigReport, LoadedConfig};
use crate::document::{Problem, Problems};
use crate::intake::FollowedConfigFile;
use crate::signals::{self, CaughtSignal, Signals};
use crate::systemd::{self, Notifier, SocketError};
use crate::web::WebFile;
use crate::{BUILD, Service, database, demo, http, intake, run, telemetry, threads, web};

/// Sent when a write exceeds the limit of the size of a file. The number is the same on all supported systems.
const SIGXFSZ: i32 = 25;

/// The files that the service starts with.
struct StartFiles {
    /// `None` for the demo.
    configuration: Option<ConfigurationFile>,
    /// `None` for plain HTTP without logins.
    web: Option<WebFile>,
    web_warnings: Vec<Problem>,
}

/// The configuration, the file that it is in, and the proxies for its APIs.
struct ConfigurationFile {
    path: PathBuf,
    loaded: LoadedConfig,
    proxies: Proxies,
    /// `None` if changes of the file cause no reload.
    followed: Option<FollowedConfigFile>,
}

/// What the program does, and the exit code: 0, 2 for a bad configuration or bad flags, 1 for everything else.
pub fn main() -> ExitCode {
    // Before anything else, because a reload may be requested at any time.
    let hangup = signals::catch(SignalKind::hangup());
    let cli = Cli::read(std::env::args_os()).unwrap_or_else(|error| error.exit());
    let done = match cli.config_check {
        Some(kind) => check(&cli, kind),
        None => serve(&cli, hangup),
    };
    let Err(error) = done else { return ExitCode::SUCCESS };
    let causes = std::iter::successors(Some(&*error as &dyn Error), |error| (*error).source());
    print_error(&causes.map(ToString::to_string).collect::<Vec<_>>().join(": "));
    ExitCode::from(if error.is::<Problems>() { 2 } else { 1 })
}

/// Checks the configuration and the files that it names, and prints every problem.
fn check(cli: &Cli, kind: ConfigCheck) -> Result<(), Box<dyn Error>> {
    let file = cli.config_file();
    let read = file.as_ref().map(|file| config::read(file, std::env::vars_os()));
    let ConfigReport { config, mut problems, mut warnings } = read.unwrap_or_else(|problems| problems.clone().into());
    let found = check::files(config, &mut problems, &mut warnings);
    let proxies = proxies().map_err(|of_proxies| problems.extend(of_proxies.0));
    check::web(cli.web_config_file.as_deref(), &mut problems, &mut warnings);
    for warning in &warnings {
        print_error(&format!("warning: {warning}"));
    }
    let (Ok(file), Some(found), Ok(proxies), true) = (file, found, proxies, problems.is_empty()) else {
        return Err(Problems(problems).into());
    };
    print(&format!("{}: {found}: good", file.display()));
    let database = check_database(&found);
    let apis = if kind == ConfigCheck::Online { check_online(found, proxies) } else { Ok(()) };
    match (database, apis) {
        (Err(of_database), Err(of_apis)) => {
            print_error(&of_database.to_string());
            Err(of_apis)
        }
        (database, apis) => database.and(apis),
    }
}

/// Connects to the database, if there is one, and prints what it is.
fn check_database(found: &CheckResult) -> Result<(), Box<dyn Error>> {
    let Some(connector) = found.connector() else { return Ok(()) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    print(&format!("database: {}", runtime.block_on(database::check(&connector))?));
    Ok(())
}

/// Sends a few requests to each API, and prints the answers.
fn check_online(found: CheckResult, proxies: Proxies) -> Result<(), Box<dyn Error>> {
    let requests = check::requests(found, proxies)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answers = runtime.block_on(requests);
    for answer in &answers {
        print(&answer.to_string());
    }
    if answers.iter().all(|answer| answer.is_good) { Ok(()) } else { Err("not every API answered validly".into()) }
}

/// Sets up what must be set up before there are threads, and runs the service.
fn serve(cli: &Cli, hangup: io::Result<CaughtSignal>) -> Result<(), Box<dyn Error>> {
    // A signal to stop that comes during the start is a clean stop, too.
    let stops = [signals::catch(SignalKind::terminate())?, signals::catch(SignalKind::interrupt())?];
    let hangup = hangup?;
    // The signal would end the process. If it is caught, the write fails instead.
    let _file_size = signals::catch(SignalKind::from_raw(SIGXFSZ))?;
    let sockets = cli.systemd_socket.then(systemd::sockets);
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = threads::start_or_exit(|| builder.worker_threads(2).enable_all().build())?;
    let stopped = runtime.block_on(async {
        let signals = Signals::listen(hangup, stops);
        Box::pin(serve_until_stopped(cli, sockets, signals)).await
    });
    // The process ends here, so it does not wait for threads that still run.
    runtime.shutdown_background();
    stopped
}

async fn serve_until_stopped(
    cli: &Cli,
    sockets: Option<Result<Vec<TcpListener>, SocketError>>,
    signals: Signals,
) -> Result<(), Box<dyn Error>> {
    let flags = cli.clone();
    // A disk that hangs must not keep the process from being stopped.
    let StartFiles { configuration, web, web_warnings } = tokio::select! {
        read = threads::try_run("start", move || read(&flags)) => read??,
        () = signals.clone().stopped(1) => return Ok(()),
    };
    let _logs = threads::start_or_exit(|| telemetry::init(cli.log_level.clone(), cli.log_format))?;
    let [version, revision, rustc] = BUILD;
    tracing::info!(version, revision, rustc, demo = cli.demo, "starting");
    let mut service = match configuration {
        Some(ConfigurationFile { path, loaded, proxies, followed }) => {
            loaded.warnings.iter().for_each(intake::configuration_warning);
            let telemetry_path = cli.telemetry_path.clone();
            Service::from_file(path, loaded.config, proxies, telemetry_path, signals.hangups(), followed)
        }
        None => demo::start(cli.telemetry_path.clone(), signals.hangups()).await?,
    };
    web_warnings.iter().for_each(web::configuration_warning);
    (service.web, service.flags) = (web, cli.flags_in_force());
    let listeners = match sockets {
        Some(sockets) => systemd::listeners(sockets?, &cli.listen)?,
        None => http::bind(&cli.addresses())?,
    };
    if cli.demo {
        let encrypted = service.web.as_ref().is_some_and(|file| file.web().tls.is_some());
        for address in http::addresses(&listeners) {
            print_error(&demo::welcome(address, encrypted, &cli.telemetry_path));
        }
    }
    let notifier = Arc::new(Notifier::from_env());
    tokio::select! {
        stopped = run(service, listeners, notifier, signals.clone().stopped(1)) => Ok(stopped?),
        () = signals.stopped(2) => {
            tracing::warn!("stopped at once");
            Ok(())
        }
    }
}

/// Reads all files that the service starts with.
fn read(cli: &Cli) -> Result<StartFiles, Problems> {
    let configuration = || {
        let loaded = cli.config_file().and_then(|path| {
            let followed = cli.auto_reload.then(|| FollowedConfigFile::open(path.clone()));
            Ok((config::load(&path, std::env::vars_os())?, path, followed))
        });
        let ((loaded, path, followed), proxies) = Problems::of_both(loaded, proxies())?;
        Ok(ConfigurationFile { path, loaded, proxies, followed })
    };
    let configuration = (!cli.demo).then(configuration).transpose();
    let web = cli.web_config_file.as_deref().map(WebFile::open).transpose();
    let (configuration, web) = Problems::of_both(configuration, web)?;
    let (web, web_warnings) = web.unzip();
    Ok(StartFiles { configuration, web, web_warnings: web_warnings.unwrap_or_default() })
}

/// The proxies that the environment names.
fn proxies() -> Result<Proxies, Problems> {
    check::proxies(|name| std::env::var_os(name))
}

/// Writes a line to standard output, and ignores errors.
fn print(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// Writes a line to standard error, and ignores errors.
fn print_error(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}
