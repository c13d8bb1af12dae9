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
use tracing::{error, info, warn};

use super::admission::Admission;
use super::connection::connection;
use crate::http::routes::Site;

/// How long accepting pauses after an error that the next attempt would meet again.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Serves the site on every listener until `draining` turns true, and then until the requests
/// that are under way are answered, but no longer than `drain`.
pub async fn serve(listeners: Vec<TcpListener>, site: Arc<Site>, draining: watch::Receiver<bool>, drain: Duration) {
    let admission = Arc::new(Admission::default());
    let mut accepting = JoinSet::new();
    for listener in listeners {
        if let Ok(address) = listener.local_addr() {
            info!(address = %address, "listening");
        }
        accepting.spawn(accept(listener, site.clone(), admission.clone(), draining.clone()));
    }
    site.listening();
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

/// Accepts connections until the site drains, and hands over those that are open then.
async fn accept(
    listener: TcpListener,
    site: Arc<Site>,
    admission: Arc<Admission>,
    draining: watch::Receiver<bool>,
) -> JoinSet<()> {
    let mut connections = JoinSet::new();
    let mut stop = draining.clone();
    let admit = |stream, peer: SocketAddr, connections: &mut JoinSet<()>| match admission
        .admit(peer.ip(), site.connection_limits())
    {
        Some(place) => drop(connections.spawn(connection(stream, peer, place, site.clone(), draining.clone()))),
        None => site.events.refused(peer),
    };
    let mut again = Instant::now();
    loop {
        let accepted = async {
            tokio::time::sleep_until(again).await;
            listener.accept().await
        };
        tokio::select! {
            _ = stop.wait_for(|draining| *draining) => break,
            Some(ended) = connections.join_next() => note_panic(ended),
            accepted = accepted => match accepted {
                Ok((stream, peer)) => admit(stream, peer, &mut connections),
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    site.events.not_accepted(&error);
                    again = Instant::now() + ACCEPT_PAUSE;
                }
            },
        }
    }
    // Who got through to the system before is still served.
    while let Ok((socket, peer)) = SockRef::from(&listener).accept() {
        let stream = socket.set_nonblocking(true).and_then(|()| TcpStream::from_std(socket.into()));
        if let (Ok(stream), Some(peer)) = (stream, peer.as_socket()) {
            admit(stream, peer, &mut connections);
        }
    }
    connections
}

fn note_panic(ended: Result<(), JoinError>) {
    if let Err(panic) = ended {
        error!(error = %panic, "serving a connection died");
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
