//! Accepting connections, and draining them.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::routes::Site;

/// How long a request's header may take to arrive.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// The most bytes that a request's header may have.
const MAX_HEADER: usize = 16 * 1024;

/// How long accepting pauses after an error that the next attempt would meet again.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Serves the site on every listener until `draining` turns true, and then until the requests
/// that are under way are answered, but no longer than `drain`.
pub async fn serve(listeners: Vec<TcpListener>, site: Arc<Site>, mut draining: watch::Receiver<bool>, drain: Duration) {
    let graceful = Arc::new(GracefulShutdown::new());
    let mut accepting = tokio::task::JoinSet::new();
    for listener in listeners {
        if let Ok(address) = listener.local_addr() {
            info!(address = %address, "listening");
        }
        accepting.spawn(accept(listener, site.clone(), graceful.clone()));
    }
    site.listening();
    // The sender is dropped only after it sent.
    let _ = draining.wait_for(|draining| *draining).await;
    accepting.shutdown().await;
    // With its tasks ended, nobody else holds it.
    let Some(graceful) = Arc::into_inner(graceful) else { return };
    if tokio::time::timeout(drain, graceful.shutdown()).await.is_err() {
        warn!("connections were cut off: they did not end in time");
    }
}

async fn accept(listener: TcpListener, site: Arc<Site>, graceful: Arc<GracefulShutdown>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(connection(stream, site.clone(), graceful.watcher()));
            }
            Err(error) if is_of_one_connection(&error) => {
                debug!(%error, "a connection was lost before it was accepted");
            }
            Err(error) => {
                warn!(%error, "connections cannot be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

async fn connection(stream: TcpStream, site: Arc<Site>, watcher: Watcher) {
    let open = site.connection_opened();
    // Without it an answer waits for acknowledgements; it is an optimisation, so failing is fine.
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| {
        let site = site.clone();
        async move { Ok::<_, Infallible>(site.answer(request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEADER)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = watcher.watch(connection).await {
        debug!(%error, "a connection ended early");
    }
    drop(open);
}
