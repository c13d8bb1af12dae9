//! Notifying systemd, and taking listeners from a socket unit.

use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::net;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net as unix;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use listenfd::ListenFd;
use rustix::time::{ClockId, clock_gettime};
use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use tokio::net::{TcpListener, UnixDatagram};
use tracing::warn;

use crate::cli::ListenAddress;

/// Notifies systemd of the state of the process. The default notifies nobody.
///
/// The protocol is that of `sd_notify(3)`: each message is a datagram to the socket that `NOTIFY_SOCKET`
/// names, by its path or, after an `@`, by its abstract name.
#[derive(Debug, Default)]
pub struct Notifier {
    socket: Option<OsString>,
    /// How long systemd waits for a notification before it restarts the process.
    watchdog: Option<Duration>,
    /// Whether a failure was logged.
    failure_logged: AtomicBool,
}

/// Why the sockets of systemd cannot be served.
#[derive(Debug)]
pub enum SocketError {
    /// It passed none.
    None,
    /// One does not listen for TCP connections.
    NoListener {
        /// Its number, from 1.
        number: usize,
    },
    /// The operating system refuses to use one.
    Unusable(io::Error),
}

/// How long systemd may take to receive a message.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// Takes the sockets that systemd passed. Call it once, and before threads are started, because it removes
/// variables from the environment.
///
/// # Errors
/// If there are none, or if one does not listen for TCP connections.
pub fn sockets() -> Result<Vec<net::TcpListener>, SocketError> {
    let mut passed = ListenFd::from_env();
    let sockets: Vec<_> = (0..passed.len()).map(|index| socket(&mut passed, index)).collect::<Result<_, _>>()?;
    if sockets.is_empty() { Err(SocketError::None) } else { Ok(sockets) }
}

/// Makes listeners of the sockets that systemd passed, and warns if there are listen addresses, which are not
/// used then. Needs a runtime.
///
/// # Errors
/// If the runtime refuses one.
pub fn listeners(sockets: Vec<net::TcpListener>, given: &[ListenAddress]) -> io::Result<Vec<TcpListener>> {
    if !given.is_empty() {
        warn!("listen addresses are not used: the listeners are those of systemd");
    }
    sockets.into_iter().map(TcpListener::from_std).collect()
}

fn socket(passed: &mut ListenFd, index: usize) -> Result<net::TcpListener, SocketError> {
    let no_listener = SocketError::NoListener { number: index + 1 };
    // This returns connections, too.
    let Ok(Some(socket)) = passed.take_tcp_listener(index) else { return Err(no_listener) };
    if !SockRef::from(&socket).is_listener().map_err(SocketError::Unusable)? {
        return Err(no_listener);
    }
    socket.set_nonblocking(true).map_err(SocketError::Unusable)?;
    Ok(socket)
}

// === impl Notifier ===

impl Notifier {
    /// Reads the environment that systemd sets.
    pub fn from_env() -> Self {
        Self::of(|name| std::env::var_os(name))
    }

    fn of(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let number = |name| variable(name)?.to_str()?.parse::<u64>().ok();
        let ours = variable("WATCHDOG_PID").is_none() || number("WATCHDOG_PID") == Some(std::process::id().into());
        Self {
            socket: variable("NOTIFY_SOCKET").filter(|socket| !socket.is_empty()),
            watchdog: number("WATCHDOG_USEC").filter(|usec| ours && *usec > 0).map(Duration::from_micros),
            failure_logged: AtomicBool::new(false),
        }
    }

    /// The exporter serves, or a reload has ended.
    pub async fn ready(&self) {
        self.notify("READY=1").await;
    }

    /// A reload begins. systemd compares the time with that of its request, to know which reload this is.
    pub async fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let usec = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
        self.notify(&format!("RELOADING=1\nMONOTONIC_USEC={usec}")).await;
    }

    /// The exporter stops.
    pub async fn stopping(&self) {
        self.notify("STOPPING=1").await;
    }

    /// Feeds the watchdog twice in its period, for as long as `is_healthy` says so. Never returns.
    pub async fn feed_watchdog(&self, is_healthy: impl Fn() -> bool) {
        let Some(period) = self.watchdog else { return std::future::pending().await };
        let mut ticks = tokio::time::interval((period / 2).max(Duration::from_millis(1)));
        loop {
            ticks.tick().await;
            if is_healthy() {
                self.notify("WATCHDOG=1").await;
            }
        }
    }

    /// Sends a message, if there is a socket. Only the first failure is logged, because nothing depends on it.
    async fn notify(&self, message: &str) {
        let Some(socket) = &self.socket else { return };
        let Err(error) = send(socket, message).await else { return };
        if !self.failure_logged.swap(true, Ordering::Relaxed) {
            warn!(socket = %socket.display(), %error, "systemd cannot be told how the exporter is doing");
        }
    }
}

/// Sends a message by a new socket, so that a systemd that was restarted gets it, too.
async fn send(socket: &OsStr, message: &str) -> io::Result<()> {
    let sender = Socket::new(Domain::UNIX, Type::DGRAM.nonblocking(), None)?;
    sender.connect(&address(socket)?)?;
    let sender = UnixDatagram::from_std(unix::UnixDatagram::from(sender))?;
    tokio::time::timeout(SEND_TIMEOUT, sender.send(message.as_bytes())).await??;
    Ok(())
}

fn address(socket: &OsStr) -> io::Result<SockAddr> {
    match socket.as_bytes() {
        [b'/', ..] => SockAddr::unix(socket),
        [b'@', name @ ..] => SockAddr::unix(OsString::from_vec([b"\0", name].concat())),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is neither a path nor an abstract name")),
    }
}

// === impl SocketError ===

impl fmt::Display for SocketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str(
                "systemd passed no socket: start the exporter by a socket unit with ListenStream=10058, or leave \
                 --web.systemd-socket out",
            ),
            Self::NoListener { number } => write!(
                f,
                "socket {number} that systemd passed does not listen for TCP connections: in the socket unit, \
                 use ListenStream= with a port or an address and a port, and Accept=no"
            ),
            Self::Unusable(_) => f.write_str("a socket that systemd passed cannot be used"),
        }
    }
}

impl Error for SocketError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Unusable(error) => Some(error),
            Self::None | Self::NoListener { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    fn of(variables: &[(&str, &str)]) -> Notifier {
        Notifier::of(|name| variables.iter().find(|(own, _)| *own == name).map(|(_, value)| value.into()))
    }

    #[test]
    fn the_watchdog_is_fed_if_it_watches_this_process() {
        let own = std::process::id().to_string();
        let other = (std::process::id() + 1).to_string();
        for (variables, period) in [
            (&[][..], None),
            (&[("WATCHDOG_USEC", "3000000")], Some(3)),
            (&[("WATCHDOG_USEC", "3000000"), ("WATCHDOG_PID", &own)], Some(3)),
            (&[("WATCHDOG_USEC", "3000000"), ("WATCHDOG_PID", &other)], None),
            (&[("WATCHDOG_USEC", "3000000"), ("WATCHDOG_PID", "x")], None),
            (&[("WATCHDOG_USEC", "0")], None),
            (&[("WATCHDOG_USEC", "-1")], None),
            (&[("WATCHDOG_USEC", "")], None),
        ] {
            assert_eq!(of(variables).watchdog, period.map(Duration::from_secs), "{variables:?}");
        }
    }

    #[tokio::test]
    async fn the_watchdog_is_not_fed_while_the_exporter_is_unhealthy() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let systemd = UnixDatagram::bind(&path).unwrap();
        let notifier = of(&[("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "2000")]);
        let checks = AtomicU32::new(0);
        let unhealthy = || {
            checks.fetch_add(1, Ordering::Relaxed);
            false
        };
        assert!(tokio::time::timeout(Duration::from_millis(100), notifier.feed_watchdog(unhealthy)).await.is_err());
        assert!(checks.into_inner() > 1);
        notifier.stopping().await;
        let received = async || {
            let mut message = [0; 64];
            let length = systemd.recv(&mut message).await.unwrap();
            String::from_utf8(message[..length].to_vec()).unwrap()
        };
        assert_eq!(received().await, "STOPPING=1", "nothing was sent before");
        tokio::select! {
            () = notifier.feed_watchdog(|| true) => {}
            message = received() => assert_eq!(message, "WATCHDOG=1"),
        }
    }

    #[tokio::test]
    async fn a_socket_that_nobody_reads_is_an_error_after_a_timeout() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let _systemd = UnixDatagram::bind(&path).unwrap();
        let full = async || while send(path.as_os_str(), "READY=1").await.is_ok() {};
        // Nobody reads.
        full().await;
        for socket in ["/none/such", "@none-such-name", "vsock:2:1", "notify", "@"] {
            assert!(send(OsStr::new(socket), "READY=1").await.is_err(), "{socket}");
        }
    }
}
