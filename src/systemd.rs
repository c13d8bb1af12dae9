//! What systemd is told, and the listeners that it hands over.

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

/// Tells systemd how the process is doing. The default tells nobody.
///
/// The protocol is that of `sd_notify(3)`: a datagram a message, to a socket that is a file or,
/// with `@` before it, an abstract name.
#[derive(Debug, Default)]
pub struct Notifier {
    socket: Option<OsString>,
    /// How long systemd waits for a sign of life.
    watchdog: Option<Duration>,
    /// Whether it was said that systemd cannot be told.
    complained: AtomicBool,
}

/// Sockets that systemd did not hand over as they are needed.
#[derive(Debug)]
pub enum SocketError {
    /// There are none.
    None,
    /// One is nothing that TCP connections are accepted from.
    NoListener {
        /// Which, counted from 1.
        number: usize,
    },
    /// One cannot be used.
    Unusable(io::Error),
}

/// The longest that is waited for systemd to take a message.
const LONGEST_SEND: Duration = Duration::from_secs(1);

/// The sockets that systemd handed over. To be called before there are threads, because it takes
/// the variables that tell of them out of the environment; and once, because it takes the sockets.
///
/// # Errors
/// If there are none, or one is no listening TCP socket.
pub fn sockets() -> Result<Vec<net::TcpListener>, SocketError> {
    let mut handed = ListenFd::from_env();
    let sockets: Vec<_> = (0..handed.len()).map(|index| socket(&mut handed, index)).collect::<Result<_, _>>()?;
    if sockets.is_empty() { Err(SocketError::None) } else { Ok(sockets) }
}

/// Listeners of the sockets that systemd handed over, in place of the addresses that were given.
/// Needs a runtime.
///
/// # Errors
/// If the runtime cannot take one.
pub fn listeners(sockets: Vec<net::TcpListener>, given: &[ListenAddress]) -> io::Result<Vec<TcpListener>> {
    if !given.is_empty() {
        warn!("listen addresses are not used: the listeners are those of systemd");
    }
    sockets.into_iter().map(TcpListener::from_std).collect()
}

fn socket(handed: &mut ListenFd, index: usize) -> Result<net::TcpListener, SocketError> {
    let no_listener = SocketError::NoListener { number: index + 1 };
    // Of those that it takes for TCP sockets, some may be connections.
    let Ok(Some(socket)) = handed.take_tcp_listener(index) else { return Err(no_listener) };
    if !SockRef::from(&socket).is_listener().map_err(SocketError::Unusable)? {
        return Err(no_listener);
    }
    socket.set_nonblocking(true).map_err(SocketError::Unusable)?;
    Ok(socket)
}

// === impl Notifier ===

impl Notifier {
    /// Tells whom the environment says.
    pub fn from_env() -> Self {
        Self::of(|name| std::env::var_os(name))
    }

    fn of(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let number = |name| variable(name)?.to_str()?.parse::<u64>().ok();
        let ours = variable("WATCHDOG_PID").is_none() || number("WATCHDOG_PID") == Some(std::process::id().into());
        Self {
            socket: variable("NOTIFY_SOCKET").filter(|socket| !socket.is_empty()),
            watchdog: number("WATCHDOG_USEC").filter(|usec| ours && *usec > 0).map(Duration::from_micros),
            complained: AtomicBool::new(false),
        }
    }

    /// It serves, or a reload is over.
    pub async fn ready(&self) {
        self.tell("READY=1").await;
    }

    /// It reloads. That this takes the time along is how systemd knows which reload is meant.
    pub async fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let usec = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={usec}")).await;
    }

    /// It was told to stop.
    pub async fn stopping(&self) {
        self.tell("STOPPING=1").await;
    }

    /// Gives signs of life for as long as the exporter is healthy, twice as often as they are wanted,
    /// for ever.
    pub async fn watch_over(&self, is_healthy: impl Fn() -> bool) {
        let Some(period) = self.watchdog else { return std::future::pending().await };
        let mut ticks = tokio::time::interval((period / 2).max(Duration::from_millis(1)));
        loop {
            ticks.tick().await;
            if is_healthy() {
                self.tell("WATCHDOG=1").await;
            }
        }
    }

    /// Tells systemd, if it wants to know. If that fails it is logged once: nothing depends on it.
    async fn tell(&self, message: &str) {
        let Some(socket) = &self.socket else { return };
        let Err(error) = send(socket, message).await else { return };
        if !self.complained.swap(true, Ordering::Relaxed) {
            warn!(socket = %socket.display(), %error, "systemd cannot be told how the exporter is doing");
        }
    }
}

/// Sends it by a socket of its own, so that a systemd that was started anew gets it too.
async fn send(socket: &OsStr, message: &str) -> io::Result<()> {
    let sender = Socket::new(Domain::UNIX, Type::DGRAM.nonblocking(), None)?;
    sender.connect(&address(socket)?)?;
    let sender = UnixDatagram::from_std(unix::UnixDatagram::from(sender))?;
    tokio::time::timeout(LONGEST_SEND, sender.send(message.as_bytes())).await??;
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
                "systemd handed no socket over: start the exporter by a socket unit with ListenStream=10058, or leave \
                 --web.systemd-socket out",
            ),
            Self::NoListener { number } => write!(
                f,
                "socket {number} that systemd handed over does not listen for TCP connections: in the socket unit, \
                 use ListenStream= with a port or an address and a port, and Accept=no"
            ),
            Self::Unusable(_) => f.write_str("a socket that systemd handed over cannot be used"),
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
    fn a_watchdog_is_fed_if_it_waits_for_this_process() {
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
    async fn an_exporter_that_is_not_healthy_is_not_vouched_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let systemd = UnixDatagram::bind(&path).unwrap();
        let notifier = of(&[("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "2000")]);
        let looks = AtomicU32::new(0);
        let ill = || {
            looks.fetch_add(1, Ordering::Relaxed);
            false
        };
        assert!(tokio::time::timeout(Duration::from_millis(100), notifier.watch_over(ill)).await.is_err());
        assert!(looks.into_inner() > 1);
        notifier.stopping().await;
        let received = async || {
            let mut message = [0; 64];
            let length = systemd.recv(&mut message).await.unwrap();
            String::from_utf8(message[..length].to_vec()).unwrap()
        };
        assert_eq!(received().await, "STOPPING=1", "nothing was sent before");
        tokio::select! {
            () = notifier.watch_over(|| true) => {}
            message = received() => assert_eq!(message, "WATCHDOG=1"),
        }
    }

    #[tokio::test]
    async fn a_socket_that_takes_nothing_is_an_error_after_a_while() {
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
