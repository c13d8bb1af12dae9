//! Accepting connections, and draining them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tracing::{Instrument as _, error, error_span, info, warn};

use super::connection::serve_connection;
use super::failure::{ConnectionFailure, FailureLog};
use super::limiter::ConnectionLimiter;
use super::progress::ConnectionProgress;
use crate::http::site::Site;
use crate::tasks::boxed;

/// How long accepting pauses after an error that the next attempt would meet again.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// The state that all connections share.
pub(super) struct Server {
    pub(super) site: Arc<Site>,
    pub(super) failures: FailureLog,
    limiter: Arc<ConnectionLimiter>,
}

/// Serves the site on every listener until `draining` turns true, and then until the requests in progress are
/// answered, but no longer than `drain`.
pub async fn serve(listeners: Vec<TcpListener>, site: Arc<Site>, draining: watch::Receiver<bool>, drain: Duration) {
    let server = Arc::new(Server {
        failures: FailureLog::new(site.metrics.clone()),
        limiter: Arc::new(ConnectionLimiter::new(site.metrics.http_connections.clone())),
        site: site.clone(),
    });
    let mut accepting = JoinSet::new();
    for listener in listeners {
        if let Ok(address) = listener.local_addr() {
            info!(address = %address, "listening");
            accepting.spawn(boxed(accept(listener, address, server.clone(), draining.clone())));
        }
    }
    site.set_listening();
    let mut connections = Vec::new();
    // They accept until it is time to drain.
    while let Some(ended) = accepting.join_next().await {
        match ended {
            Ok(open) => connections.push(open),
            Err(died) => drop(died.try_into_panic().map(|panic| std::panic::resume_unwind(panic))),
        }
    }
    let ended = async {
        for mut open in connections {
            while open.join_next().await.is_some() {}
        }
    };
    if tokio::time::timeout(drain, ended).await.is_err() {
        warn!("connections were cut off: they did not end in time");
    }
}

/// Accepts connections until the site drains, and returns those that are open then.
async fn accept(
    listener: TcpListener,
    address: SocketAddr,
    server: Arc<Server>,
    draining: watch::Receiver<bool>,
) -> JoinSet<()> {
    let mut connections = JoinSet::new();
    let mut stop = draining.clone();
    let mut next_attempt = Instant::now();
    loop {
        let accepted = async {
            tokio::time::sleep_until(next_attempt).await;
            listener.accept().await
        };
        tokio::select! {
            _ = stop.wait_for(|draining| *draining) => break,
            Some(ended) = connections.join_next() => log_panic(ended),
            accepted = accepted => match accepted {
                Ok((stream, peer)) => server.admit(stream, peer, address, &mut connections, &draining),
                Err(error) if affects_one_connection(&error) => {}
                Err(error) => {
                    server.failures.record(&ConnectionFailure::NotAccepted(error));
                    next_attempt = Instant::now() + ACCEPT_PAUSE;
                }
            },
        }
    }
    // Clients that the system accepted before are still served.
    while let Ok((socket, peer)) = SockRef::from(&listener).accept() {
        let stream = socket.set_nonblocking(true).and_then(|()| TcpStream::from_std(socket.into()));
        if let (Ok(stream), Some(peer)) = (stream, peer.as_socket()) {
            server.admit(stream, peer, address, &mut connections, &draining);
        }
    }
    connections
}

// === impl Server ===

impl Server {
    /// Serves a connection if there are not too many.
    fn admit(
        self: &Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        listener: SocketAddr,
        connections: &mut JoinSet<()>,
        draining: &watch::Receiver<bool>,
    ) {
        // The level is error, so that a log filter that shows a line never hides the line's span.
        let span = error_span!("connection", %peer, %listener);
        let progress = ConnectionProgress::new(Instant::now());
        match self.limiter.admit(peer.ip(), self.site.connection_limits(), progress) {
            Some(permit) => {
                let connection = serve_connection(stream, peer.ip(), permit, self.clone(), draining.clone());
                drop(connections.spawn(boxed(connection.instrument(span))));
            }
            None => span.in_scope(|| self.failures.record(&ConnectionFailure::Refused)),
        }
    }
}

fn log_panic(ended: Result<(), JoinError>) {
    if let Err(panic) = ended {
        error!(error = %panic, "serving a connection died");
    }
}

fn affects_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
