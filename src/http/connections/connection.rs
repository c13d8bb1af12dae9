//! One connection, from the handshake to its end.

use std::convert::Infallible;
use std::error::Error;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
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

use super::admission::Admitted;
use super::plaintext;
use crate::http::progress::{Noted, Progress, STALL};
use crate::http::responses::body::Body;
use crate::http::routes::Site;
use crate::web::Web;

/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// The most bytes that a request's header may have.
const MAX_HEADER: usize = 16 * 1024;

/// The most fields that a request's header may have.
const MAX_FIELDS: usize = 100;

/// The most bytes of a request or an answer that wait in memory.
const MAX_BUFFER: usize = 64 * 1024;

/// How old a connection may get. A request that is under way then is still answered.
const MAX_AGE: Duration = Duration::from_hours(1);

/// After so long without a sign of a client that is waiting, it is asked whether it is there.
const KEEPALIVE: Duration = Duration::from_mins(1);

/// How long a connection that should end is given for its first request to arrive.
const GRACE: Duration = Duration::from_secs(1);

/// How a connection ended.
enum End {
    /// It came to its end, or broke.
    Closed(Result<(), hyper::Error>),
    /// It did not get further in time.
    Late,
}

/// Serves a connection to its end. It holds its place for as long.
pub(crate) async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    _place: Admitted,
    site: Arc<Site>,
    draining: watch::Receiver<bool>,
) {
    let _open = site.connection_opened();
    let began = Instant::now();
    tune(&stream);
    let mut web = site.web();
    let tls = server_config(&web.borrow_and_update());
    let retire = retirement(web, tls.clone(), draining);
    match tls {
        None => serve(stream, peer, site, began, retire).await,
        Some(config) => match timeout(HANDSHAKE, handshake(stream, config)).await {
            Ok(Ok(stream)) => serve(stream, peer, site, began, retire).await,
            Ok(Err(error)) => site.events.handshake_failed(peer, &error),
            Err(_) => site.events.handshake_late(peer),
        },
    }
}

async fn handshake(mut stream: TcpStream, config: Arc<ServerConfig>) -> io::Result<TlsStream<TcpStream>> {
    plaintext::refuse(&mut stream).await?;
    TlsAcceptor::from(config).accept(stream).await
}

/// These are optimisations and further bounds, so failing is fine.
fn tune(stream: &TcpStream) {
    // Else an answer waits for acknowledgements.
    let _ = stream.set_nodelay(true);
    let socket = SockRef::from(stream);
    let _ = socket.set_tcp_user_timeout(Some(STALL));
    let _ = socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE));
}

fn server_config(web: &Web) -> Option<Arc<ServerConfig>> {
    web.tls.as_ref().map(|tls| tls.server.clone())
}

/// Ends when the connection should: it got old, the site drains, or the web configuration is another
/// one and it is encrypted, so that a certificate that was withdrawn is not in use for longer.
async fn retirement(
    mut web: watch::Receiver<Arc<Web>>,
    tls: Option<Arc<ServerConfig>>,
    mut draining: watch::Receiver<bool>,
) {
    let other = |web: &Arc<Web>| match (&tls, &web.tls) {
        (Some(before), Some(now)) => !Arc::ptr_eq(before, &now.server),
        (None, None) => false,
        _ => true,
    };
    let encrypted_otherwise = async {
        if web.wait_for(other).await.is_err() {
            // Nobody can change it any more.
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = tokio::time::sleep(MAX_AGE) => {}
        _ = draining.wait_for(|draining| *draining) => {}
        () = encrypted_otherwise => {}
    }
}

async fn serve<S>(stream: S, peer: SocketAddr, site: Arc<Site>, began: Instant, retire: impl Future<Output = ()>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let progress = Progress::new(began);
    let service = service_fn(|request| {
        progress.request(Instant::now());
        let (site, progress) = (site.clone(), progress.clone());
        async move {
            let answer = site.answer(request, peer.ip()).await;
            let sending = progress.answer(Instant::now());
            Ok::<_, Infallible>(answer.map(|body| body.noted(sending)))
        }
    });
    let connection = http1::Builder::new()
        // Its own clock runs while a connection is idle, too.
        .header_read_timeout(None)
        .max_header_size(MAX_HEADER)
        .max_headers(MAX_FIELDS)
        .max_buf_size(MAX_BUFFER)
        .serve_connection(TokioIo::new(Noted::new(stream, progress.clone())), service);
    let retire = async {
        retire.await;
        // Its first request may be on its way.
        if progress.is_fresh() {
            tokio::time::sleep(GRACE).await;
        }
    };
    match until_end(pin!(connection), pin!(retire), &progress).await {
        End::Closed(Ok(())) => {}
        End::Closed(Err(error)) => site.events.broke(peer, &error),
        // It was no longer used.
        End::Late if progress.is_idle() => {}
        End::Late => site.events.late(peer),
    }
}

/// Drives a connection to its end, which comes after the request that is under way when it retires.
async fn until_end<I, S>(
    mut connection: Pin<&mut http1::Connection<I, S>>,
    mut retire: Pin<&mut impl Future<Output = ()>>,
    progress: &Progress,
) -> End
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
    S: HttpService<Incoming, ResBody = Body>,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let mut retiring = false;
    let mut clock = pin!(tokio::time::sleep_until(progress.deadline()));
    poll_fn(|cx| {
        // What has arrived is read before it is asked whether it is time to go.
        let mut polled = connection.as_mut().poll(cx);
        if polled.is_pending() && !retiring && retire.as_mut().poll(cx).is_ready() {
            retiring = true;
            connection.as_mut().graceful_shutdown();
            polled = connection.as_mut().poll(cx);
        }
        if let Poll::Ready(closed) = polled {
            return Poll::Ready(End::Closed(closed));
        }
        // Polling the connection is what moves the deadline.
        if clock.deadline() != progress.deadline() {
            clock.as_mut().reset(progress.deadline());
        }
        clock.as_mut().poll(cx).map(|()| End::Late)
    })
    .await
}
