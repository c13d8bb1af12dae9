//! The flags.

use std::borrow::Cow;
use std::collections::HashSet;
use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, ValueEnum};
use tracing_subscriber::filter::{LevelFilter, Targets};

use crate::document::{Problem, Problems};
use crate::input_file;

/// A Prometheus exporter for Cekura's toggle-mock-tools tasks.
#[derive(Debug, Clone, Parser)]
#[command(name = "cekura-exporter", version = VERSION, disable_help_subcommand = true, after_help = AFTER_HELP)]
pub struct Cli {
    /// The configuration file [default: config.yaml]
    #[arg(long = "config.file", value_name = "PATH", value_parser = config_path)]
    pub config_file: Option<PathBuf>,

    /// Validate the configuration and the files that it names, print one line per problem, or one that says what
    /// was found, and exit; with =online, also ask each API for what the configuration uses of it
    #[arg(long = "config.check", value_name = "online", conflicts_with = "demo", num_args = 0..=1)]
    #[arg(require_equals = true, default_missing_value = "offline", hide_possible_values = true)]
    pub config_check: Option<ConfigCheck>,

    /// Reload when the configuration file changes; without it, on SIGHUP or POST /-/reload only
    #[arg(long = "config.auto-reload", conflicts_with = "demo")]
    pub auto_reload: bool,

    /// Where to listen; repeatable; ":10058" means all interfaces [default: :10058; with --demo localhost:10058]
    #[arg(long = "web.listen-address", value_name = "ADDR")]
    pub listen: Vec<ListenAddress>,

    /// Take the listeners from systemd
    #[arg(long = "web.systemd-socket")]
    pub systemd_socket: bool,

    /// The path of the metrics
    #[arg(long = "web.telemetry-path", value_name = "PATH", default_value = "/metrics", value_parser = telemetry_path)]
    pub telemetry_path: String,

    /// TLS, headers and users, in the format of the Prometheus exporter-toolkit
    #[arg(long = "web.config.file", value_name = "PATH", value_parser = path)]
    pub web_config_file: Option<PathBuf>,

    /// error, warn, info, debug or trace, or a tracing filter like `info,cekura_exporter::poller=debug`
    #[arg(long = "log.level", value_name = "LEVEL", default_value = "info")]
    pub log_level: LogFilter,

    /// How a log line is written [default: text on a terminal, else json]
    #[arg(long = "log.format", value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,

    /// Run against an embedded simulated Cekura API: no configuration, no key, no network; listens for this machine
    /// alone unless --web.listen-address is given
    #[arg(long, conflicts_with = "config_file")]
    pub demo: bool,
}

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    /// All interfaces, IPv6 included where the machine has it.
    All {
        /// The port; 0 for any free one.
        port: u16,
    },
    /// One address.
    Address(SocketAddr),
    /// All addresses of a host name.
    Host {
        /// The name.
        name: String,
        /// The port.
        port: u16,
    },
}

/// What `--config.check` checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ConfigCheck {
    /// The files only.
    Offline,
    /// The APIs, too.
    Online,
}

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One flat JSON object per line.
    Json,
    /// Text for people.
    Text,
}

/// The targets and levels whose log lines are written.
#[derive(Debug, Clone)]
pub struct LogFilter(pub Targets);

/// The default port.
const DEFAULT_PORT: u16 = 10058;

/// The default path of the configuration.
const DEFAULT_CONFIG: &str = "config.yaml";

/// The end of the text of `--help`.
const AFTER_HELP: &str = "\
Environment:
  CEKURA_EXPORTER__…  set a key of the configuration: its path in capitals, levels joined by two
                      underscores, as in CEKURA_EXPORTER__APIS__DEFAULT__BASE_URL
  CEKURA_API_KEY      the key of the API `default` where the configuration gives it none
  CEKURA_DATABASE_URL
                      the URL of the database where the configuration gives it none
  HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY
                      proxies for polling
  NO_COLOR            log text without colours

Signals:
  SIGHUP              reload the configuration, as POST /-/reload does
  SIGTERM, SIGINT     drain and stop; again after a second: stop at once

Exit codes:
  0                   clean stop, or a good check
  1                   could not start or run; with --config.check also: the database cannot be used; with
                      --config.check=online also: an API did not answer validly
  2                   bad usage or configuration

Documentation: README.md and docs/, and config.yaml for every key; a running exporter has its runbooks at /runbooks.";

/// The text of `--version`.
const VERSION: &str =
    concat!(env!("CARGO_PKG_VERSION"), " (revision ", env!("BUILD_REVISION"), ", rustc ", env!("BUILD_RUSTC"), ")");

/// The paths that the exporter serves itself.
const RESERVED_PATHS: [&str; 4] = ["/", "/config", "/api", "/-"];

fn telemetry_path(path: &str) -> Result<String, String> {
    let plain = path.starts_with('/')
        && path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-._~".contains(&b))
        && !path.contains("//")
        // Clients remove such segments from a path.
        && !path.split('/').any(|segment| segment == "." || segment == "..");
    let taken =
        RESERVED_PATHS.iter().any(|taken| path == *taken || (*taken != "/" && path.starts_with(&format!("{taken}/"))));
    if !plain {
        Err("must be a path like /metrics, of letters, digits and - . _ ~ /".to_owned())
    } else if taken {
        Err("is a path that the exporter serves itself; choose another one".to_owned())
    } else {
        Ok(path.to_owned())
    }
}

/// The path of a file. A path that only a shell could expand is refused.
fn path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() {
        return Err("is empty: the path of a file is needed".to_owned());
    }
    input_file::plain_path(text).map(PathBuf::from).map_err(str::to_owned)
}

/// Like [`path`], but also refuses `-`, which some programs take for standard input.
fn config_path(text: &str) -> Result<PathBuf, String> {
    if text == "-" {
        let what = "does not stand for standard input: name a file (a pipe is not read either, as /dev/stdin)";
        return Err(what.to_owned());
    }
    path(text)
}

/// The name of the long flag that was written with one dash.
fn long_flag(argument: &str) -> Option<&str> {
    let name = argument.strip_prefix('-')?.split('=').next()?;
    let is_long = name.len() > 1 && name.starts_with(|c: char| c.is_ascii_alphabetic());
    // Short flags may be combined.
    (is_long && !name.bytes().all(|b| b"hV".contains(&b))).then_some(name)
}

// === impl Cli ===

impl Cli {
    /// Reads the arguments of a process, the first of which is its name.
    ///
    /// # Errors
    /// What is wrong with them, or the text of `--help` or `--version`.
    pub fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let arguments: Vec<_> = arguments.into_iter().collect();
        let wrong = |kind, what: String| Self::command().error(kind, what);
        for argument in arguments.iter().skip(1) {
            if let Some(name) = argument.to_str().and_then(long_flag) {
                return Err(wrong(ErrorKind::UnknownArgument, format!("flags take two dashes: --{name}")));
            }
        }
        let cli = Self::try_parse_from(arguments)?;
        match cli.repeated_address() {
            Some(address) => {
                let what = format!("--web.listen-address {address} is given twice: keep one of them");
                Err(wrong(ErrorKind::ValueValidation, what))
            }
            None => Ok(cli),
        }
    }

    /// An address that is given twice, which cannot be bound twice.
    fn repeated_address(&self) -> Option<&ListenAddress> {
        let mut before = HashSet::new();
        self.listen.iter().filter(|address| !address.is_any_port()).find(|address| !before.insert(*address))
    }

    /// The configuration file.
    ///
    /// # Errors
    /// If no file is named and the default one does not exist.
    pub fn config_file(&self) -> Result<PathBuf, Problems> {
        let path = self.config_file.clone().unwrap_or_else(|| DEFAULT_CONFIG.into());
        if self.config_file.is_none() && !path.exists() {
            let what = "is not in the working directory, and no other is named: write one (README.md has an example), \
                        name one with --config.file, or try --demo, which needs none";
            return Err(Problems(vec![Problem::new(DEFAULT_CONFIG, "", what)]));
        }
        Ok(path)
    }

    /// The flags in force with their values, defaults included. None of them is secret.
    pub fn flags_in_force(&self) -> Vec<(&'static str, String)> {
        let absolute =
            |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone()).display().to_string();
        let mut flags = Vec::new();
        if self.demo {
            flags.push(("--demo", String::new()));
        } else {
            let file = self.config_file.clone().unwrap_or_else(|| DEFAULT_CONFIG.into());
            flags.push(("--config.file", absolute(&file)));
            if self.auto_reload {
                flags.push(("--config.auto-reload", String::new()));
            }
        }
        if self.systemd_socket {
            flags.push(("--web.systemd-socket", String::new()));
        } else {
            flags.extend(self.addresses().iter().map(|address| ("--web.listen-address", address.to_string())));
        }
        flags.push(("--web.telemetry-path", self.telemetry_path.clone()));
        flags.extend(self.web_config_file.as_ref().map(|file| ("--web.config.file", absolute(file))));
        flags.push(("--log.level", self.log_level.0.to_string()));
        let format = self.log_format.and_then(|format| format.to_possible_value());
        flags.extend(format.map(|format| ("--log.format", format.get_name().to_owned())));
        flags
    }

    /// The addresses to listen at, unless systemd provides the listeners.
    pub fn addresses(&self) -> Cow<'_, [ListenAddress]> {
        if self.listen.is_empty() {
            // The demo has no logins, so it is not offered to the network.
            let localhost = || ListenAddress::Host { name: "localhost".to_owned(), port: DEFAULT_PORT };
            Cow::Owned(vec![if self.demo { localhost() } else { ListenAddress::All { port: DEFAULT_PORT } }])
        } else {
            Cow::Borrowed(&self.listen)
        }
    }
}

// === impl ListenAddress ===

impl ListenAddress {
    /// Whether the system chooses the port.
    fn is_any_port(&self) -> bool {
        matches!(self, Self::All { port: 0 } | Self::Host { port: 0, .. })
            || matches!(self, Self::Address(address) if address.port() == 0)
    }
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "must be HOST:PORT, [IPV6]:PORT or :PORT".to_owned();
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().map_err(|_| wrong())?;
        let a_name = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
        match host {
            "" => Ok(Self::All { port }),
            name if a_name(name) => Ok(Self::Host { name: name.to_owned(), port }),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All { port } => write!(f, ":{port}"),
            Self::Address(address) => address.fmt(f),
            Self::Host { name, port } => write!(f, "{name}:{port}"),
        }
    }
}

// === impl LogFilter ===

impl FromStr for LogFilter {
    type Err = String;

    /// A single level applies to the exporter; of its libraries only warnings and errors are written. A list is used as
    /// it is.
    ///
    /// A misspelt level would be taken for a target and silence everything else, so a directive without `=` must be a
    /// level or a target of the exporter.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "must be error, warn, info, debug or trace, or a list of TARGET=LEVEL".to_owned();
        if let Ok(level) = level(text) {
            let libraries = level.min(LevelFilter::WARN);
            return Ok(Self(Targets::new().with_default(libraries).with_target(env!("CARGO_CRATE_NAME"), level)));
        }
        let good = |directive: &str| match directive.rsplit_once('=') {
            Some((target, of_target)) => !target.is_empty() && level(of_target).is_ok(),
            None => level(directive).is_ok() || directive.starts_with(env!("CARGO_CRATE_NAME")),
        };
        let directives: Vec<_> = text.split(',').map(str::trim).collect();
        if !directives.iter().all(|directive| good(directive)) {
            return Err(wrong());
        }
        directives.join(",").parse().map(Self).map_err(|_| wrong())
    }
}

fn level(text: &str) -> Result<LevelFilter, ()> {
    match text.to_ascii_lowercase().as_str() {
        "off" => Ok(LevelFilter::OFF),
        "error" => Ok(LevelFilter::ERROR),
        "warn" => Ok(LevelFilter::WARN),
        "info" => Ok(LevelFilter::INFO),
        "debug" => Ok(LevelFilter::DEBUG),
        "trace" => Ok(LevelFilter::TRACE),
        _ => Err(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Cli, clap::Error> {
        Cli::read(["cekura-exporter"].iter().chain(args).map(OsString::from))
    }

    #[test]
    fn the_defaults_are_those_of_the_contract() {
        let cli = parse(&[]).unwrap();
        // That of this crate, which is in the working directory of its tests.
        assert_eq!(cli.config_file(), Ok(PathBuf::from("config.yaml")));
        assert_eq!(*cli.addresses(), [ListenAddress::All { port: 10058 }]);
        assert_eq!((cli.telemetry_path.as_str(), cli.log_format), ("/metrics", None));
    }

    #[test]
    fn the_demo_listens_for_this_machine_alone_unless_it_is_told_where() {
        let addresses = |args: &[&str]| {
            parse(args).unwrap().addresses().iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(addresses(&["--demo"]), "localhost:10058");
        assert_eq!(addresses(&["--demo", "--web.listen-address=:1"]), ":1");
    }

    #[test]
    fn listen_addresses_are_repeatable_and_of_every_form() {
        let cli =
            parse(&["--web.listen-address=:1", "--web.listen-address", "[::1]:2", "--web.listen-address=localhost:3"]);
        let texts: Vec<_> = cli.unwrap().addresses().iter().map(ToString::to_string).collect();
        assert_eq!(texts, [":1", "[::1]:2", "localhost:3"]);
    }

    #[test]
    fn bad_flags_are_refused() {
        for args in [
            &["--web.listen-address=10058"][..],
            &["--web.listen-address=:x"],
            &["--web.listen-address=:65536"],
            &["--web.listen-address=::1:1"],
            &["--web.listen-address="],
            &["--web.telemetry-path=metrics"],
            &["--web.telemetry-path=/"],
            &["--web.telemetry-path=/api/v1/toggles"],
            &["--web.telemetry-path=/-/ready"],
            &["--web.telemetry-path=/a?b"],
            &["--web.telemetry-path=/a/.."],
            &["--log.level=loud"],
            &["--log.level=inof"],
            &["--log.level=cekura_exporter=loud"],
            &["--log.level="],
            &["--log.format=xml"],
            &["--demo", "--config.file=x"],
            &["--demo", "--config.check"],
            &["--config.check=on-line"],
            &["--config.check", "online"],
            &["-config.file=x"],
            &["-demo"],
            &["--config.file", "-"],
            &["--config.file=~/x"],
            &["--web.config.file=~me/x"],
            &["--web.listen-address=:1", "--web.listen-address=:1"],
            &["--web.listen-address=localhost:1", "--web.listen-address=:2", "--web.listen-address=localhost:1"],
            &["--web.config.file="],
            &["--web.systemd-socket=yes"],
            &["--no-such-flag"],
            &["argument"],
        ] {
            assert_eq!(parse(args).unwrap_err().exit_code(), 2, "{args:?}");
        }
    }

    #[test]
    fn an_address_whose_port_the_system_chooses_may_be_given_twice() {
        assert!(parse(&["--web.listen-address=127.0.0.1:0", "--web.listen-address=127.0.0.1:0"]).is_ok());
        assert!(parse(&["--web.listen-address=127.0.0.1:1", "--web.listen-address=127.0.0.1:2"]).is_ok());
    }

    #[test]
    fn a_check_is_offline_unless_it_is_said_to_be_online() {
        for (args, check) in [
            (&[][..], None),
            (&["--config.check"], Some(ConfigCheck::Offline)),
            (&["--config.check=online"], Some(ConfigCheck::Online)),
            (&["--config.check", "--config.file", "-x"], None),
        ] {
            assert_eq!(parse(args).ok().and_then(|cli| cli.config_check), check, "{args:?}");
        }
        assert!(parse(&["-hV"]).unwrap_err().exit_code() == 0 && parse(&["-V"]).unwrap_err().exit_code() == 0);
    }

    #[test]
    fn log_filters_are_levels_or_lists() {
        for good in [
            "error",
            "WARN",
            "trace",
            "off",
            "info,cekura_exporter::poller=debug",
            "cekura_exporter=trace",
            "warn,cekura_exporter",
        ] {
            assert!(good.parse::<LogFilter>().is_ok(), "{good}");
        }
    }
}
