//! One connection, from the handshake to its end.

use std::convert::Infallible;
use std::error::Error;
use std::future::{Future, poll_fn};
use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::failure::ConnectionFailure;
use super::limiter::ConnectionPermit;
use super::plaintext;
use super::progress::{ConnectionProgress, ProgressStream, STALL_TIMEOUT};
use super::server::Server;
use crate::http::responses::body::ResponseBody;
use crate::http::site::Site;
use crate::web::Web;

/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// The most bytes that a request's header may have.
const MAX_HEADER: usize = 16 * 1024;

/// The most fields that a request's header may have.
const MAX_FIELDS: usize = 100;

/// The most bytes of a request or a response that are buffered.
const MAX_BUFFER: usize = 64 * 1024;

/// The maximum age of a connection. A request in progress is still answered.
const MAX_AGE: Duration = Duration::from_hours(1);

/// The idle time after which TCP probes whether the client is still connected.
const KEEPALIVE_TIME: Duration = Duration::from_mins(1);

/// How long a connection that should end waits for its first request.
const GRACE_TIME: Duration = Duration::from_secs(1);

/// Serves a connection to its end.
pub(super) async fn serve_connection(
    stream: TcpStream,
    peer: IpAddr,
    permit: ConnectionPermit,
    server: Arc<Server>,
    draining: watch::Receiver<bool>,
) {
    if let Err(failure) = serve_to_end(stream, peer, &permit.progress, &server.site, draining).await {
        server.failures.record(&failure);
    }
}

async fn serve_to_end(
    stream: TcpStream,
    peer: IpAddr,
    progress: &Arc<ConnectionProgress>,
    site: &Arc<Site>,
    draining: watch::Receiver<bool>,
) -> Result<(), ConnectionFailure> {
    set_socket_options(&stream);
    let mut web = site.web.clone();
    let tls = server_config(&web.borrow_and_update());
    let retire = wait_until_retired(web, tls.clone(), draining, progress);
    let Some(config) = tls else { return serve(stream, peer, site, progress, retire).await };
    match timeout(HANDSHAKE_TIMEOUT, handshake(stream, config)).await {
        Ok(Ok(stream)) => serve(stream, peer, site, progress, retire).await,
        Ok(Err(error)) => Err(ConnectionFailure::Handshake(error)),
        Err(_) => Err(ConnectionFailure::HandshakeTimeout),
    }
}

async fn handshake(mut stream: TcpStream, config: Arc<ServerConfig>) -> io::Result<TlsStream<TcpStream>> {
    plaintext::refuse(&mut stream).await?;
    TlsAcceptor::from(config).accept(stream).await
}

/// These options are optimisations and further limits, so errors are ignored.
fn set_socket_options(stream: &TcpStream) {
    // Otherwise a response waits for acknowledgements.
    let _ = stream.set_nodelay(true);
    let socket = SockRef::from(stream);
    let _ = socket.set_tcp_user_timeout(Some(STALL_TIMEOUT));
    let _ = socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE_TIME));
}

fn server_config(web: &Web) -> Option<Arc<ServerConfig>> {
    web.tls.as_ref().map(|tls| tls.server.clone())
}

/// Resolves when the connection should end: it is old or was evicted, the site drains, or the TLS settings have
/// changed, so that a certificate that was withdrawn is no longer in use.
async fn wait_until_retired(
    mut web: watch::Receiver<Arc<Web>>,
    tls: Option<Arc<ServerConfig>>,
    mut draining: watch::Receiver<bool>,
    progress: &ConnectionProgress,
) {
    let is_other = |web: &Arc<Web>| match (&tls, &web.tls) {
        (Some(before), Some(now)) => !Arc::ptr_eq(before, &now.server),
        (None, None) => false,
        _ => true,
    };
    let encryption_changed = async {
        if web.wait_for(is_other).await.is_err() {
            // Nobody can change it any more.
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = tokio::time::sleep(MAX_AGE) => {}
        () = progress.wait_until_evicted() => {}
        _ = draining.wait_for(|draining| *draining) => {}
        () = encryption_changed => {}
    }
    // The first request may be on its way.
    if progress.is_fresh() {
        tokio::time::sleep(GRACE_TIME).await;
    }
}

async fn serve<S>(
    stream: S,
    peer: IpAddr,
    site: &Site,
    progress: &Arc<ConnectionProgress>,
    retire: impl Future<Output = ()>,
) -> Result<(), ConnectionFailure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let service = service_fn(|request| async move {
        progress.begin_request(Instant::now());
        let response = site.handle(request, peer).await;
        let sending = progress.begin_response(Instant::now());
        Ok::<_, Infallible>(response.map(|body| body.with_guard(sending)))
    });
    let connection = http1::Builder::new()
        // hyper's own clock runs while a connection is idle, too.
        .header_read_timeout(None)
        .max_header_size(MAX_HEADER)
        .max_headers(MAX_FIELDS)
        .max_buf_size(MAX_BUFFER)
        .serve_connection(TokioIo::new(ProgressStream::new(stream, progress.clone())), service);
    drive_to_end(pin!(connection), pin!(retire), progress).await
}

/// Drives a connection to its end. When it retires, the request in progress is still answered.
async fn drive_to_end<I, S>(
    mut connection: Pin<&mut http1::Connection<I, S>>,
    mut retire: Pin<&mut impl Future<Output = ()>>,
    progress: &ConnectionProgress,
) -> Result<(), ConnectionFailure>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
    S: HttpService<Incoming, ResBody = ResponseBody>,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let mut retiring = false;
    let mut deadline = pin!(tokio::time::sleep_until(progress.deadline()));
    poll_fn(|cx| {
        // The connection comes first, so that a request that has arrived is read before a shutdown begins.
        let mut polled = connection.as_mut().poll(cx);
        if polled.is_pending() && !retiring && retire.as_mut().poll(cx).is_ready() {
            retiring = true;
            connection.as_mut().graceful_shutdown();
            polled = connection.as_mut().poll(cx);
        }
        if let Poll::Ready(closed) = polled {
            return Poll::Ready(closed.map_err(ConnectionFailure::Http));
        }
        // Polling the connection is what moves the deadline.
        if deadline.deadline() != progress.deadline() {
            deadline.as_mut().reset(progress.deadline());
        }
        // For an idle connection, the deadline is not an error.
        let timed_out = || if progress.is_idle() { Ok(()) } else { Err(ConnectionFailure::Timeout) };
        deadline.as_mut().poll(cx).map(|()| timed_out())
    })
    .await
}
