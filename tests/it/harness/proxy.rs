//! A network that fails when a test wants it to.

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::ReservedPort;

/// A loopback address that leads to another one over TCP. Dropping it closes all connections.
pub(crate) struct Proxy {
    to: SocketAddr,
    port: ReservedPort,
    network: watch::Sender<Network>,
    serving: JoinHandle<()>,
}

#[derive(Clone, Copy, PartialEq)]
enum Network {
    Open,
    Cut,
    Refusing,
}

// === impl Proxy ===

impl Proxy {
    pub(crate) fn to(to: SocketAddr) -> Self {
        let port = ReservedPort::new();
        let network = watch::Sender::new(Network::Open);
        let serving = serve(&port, to, &network);
        Self { to, port, network, serving }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.port.address
    }

    /// Has nothing pass any more, as a network that drops all packets: connections stay open, new ones are
    /// accepted, and all of them hang.
    pub(crate) fn cut(&mut self) {
        self.listen_as(Network::Cut);
    }

    /// Closes all connections, and refuses new ones.
    pub(crate) async fn refuse(&mut self) {
        self.network.send_replace(Network::Refusing);
        if !self.serving.is_finished() {
            (&mut self.serving).await.unwrap();
        }
    }

    /// Has everything pass again, and what was held back, too.
    pub(crate) fn heal(&mut self) {
        self.listen_as(Network::Open);
    }

    fn listen_as(&mut self, network: Network) {
        self.network.send_replace(network);
        if self.serving.is_finished() {
            self.serving = serve(&self.port, self.to, &self.network);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Accepts connections until they are to be refused.
fn serve(port: &ReservedPort, to: SocketAddr, network: &watch::Sender<Network>) -> JoinHandle<()> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(port.address).unwrap();
    tokio::spawn(accept(socket.listen(1024).unwrap(), to, network.subscribe()))
}

async fn accept(listener: TcpListener, to: SocketAddr, mut network: watch::Receiver<Network>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                connections.spawn(relay(accepted.unwrap().0, to, network.clone()));
            }
            Some(_) = connections.join_next() => {}
            () = becomes(&mut network, Network::Refusing) => break,
        }
    }
    drop(listener);
    connections.shutdown().await;
}

/// Copies both ways until both sides have closed their ends.
async fn relay(mut client: TcpStream, to: SocketAddr, network: watch::Receiver<Network>) {
    becomes(&mut network.clone(), Network::Open).await;
    // A client of a server that is not there is closed.
    let Ok(mut server) = TcpStream::connect(to).await else { return };
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    tokio::join!(forward(from_client, to_server, network.clone()), forward(from_server, to_client, network));
}

/// Copies one way while the network is open. Reads nothing while it is cut, so a side that sends on is held
/// up in the end, and a side that closes is not noticed.
async fn forward(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut network: watch::Receiver<Network>,
) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        becomes(&mut network, Network::Open).await;
        let read = tokio::select! {
            biased;
            changed = network.changed() => match changed {
                Ok(()) => continue,
                // The proxy is gone.
                Err(_) => return,
            },
            read = from.read(&mut buffer) => read.unwrap_or(0),
        };
        if read == 0 || to.write_all(&buffer[..read]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}

/// Waits until this is what the network does, or the proxy is gone.
async fn becomes(network: &mut watch::Receiver<Network>, wanted: Network) {
    let _ = network.wait_for(|network| *network == wanted).await;
}
