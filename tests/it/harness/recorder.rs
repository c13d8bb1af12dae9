//! Who sits between a client and a server and keeps what the client says.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// A loopback address that leads to a server over TCP, and keeps the requests that pass. Dropping it closes all
/// connections.
pub(crate) struct Recorder {
    address: SocketAddr,
    /// What each connection's client sent so far.
    sent: Arc<Mutex<Vec<Vec<u8>>>>,
    serving: JoinHandle<()>,
}

// === impl Recorder ===

impl Recorder {
    /// A recorder of what is sent to an address, such as `127.0.0.1:1234`.
    pub(crate) async fn to(to: &str) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let sent = Arc::new(Mutex::new(Vec::new()));
        let serving = tokio::spawn(accept(listener, to.to_owned(), sent.clone()));
        Self { address, sent, serving }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The value of a header in the first request for a target that was sent in full, if there was one.
    pub(crate) fn header(&self, target: &str, name: &str) -> Option<String> {
        let sent = self.sent.lock().unwrap();
        let texts = sent.iter().map(|bytes| String::from_utf8_lossy(bytes));
        // A scrape has no body, so heads follow each other. What is behind the last one is not complete.
        let heads = texts.flat_map(|text| {
            let mut heads: Vec<_> = text.split("\r\n\r\n").map(str::to_owned).collect();
            heads.pop();
            heads
        });
        let mut of_target = heads.filter(|head| head.starts_with(&format!("GET {target} ")));
        let head = of_target.next()?;
        let lines = head.lines().skip(1).filter_map(|line| line.split_once(": "));
        let mut values = lines.filter(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned());
        values.next()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn accept(listener: TcpListener, to: String, sent: Arc<Mutex<Vec<Vec<u8>>>>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                connections.spawn(relay(accepted.unwrap().0, to.clone(), sent.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Copies both ways until one side has closed its end.
async fn relay(mut client: TcpStream, to: String, sent: Arc<Mutex<Vec<Vec<u8>>>>) {
    let connection = {
        let mut sent = sent.lock().unwrap();
        sent.push(Vec::new());
        sent.len() - 1
    };
    // A client of a server that is not there is closed.
    let Ok(mut server) = TcpStream::connect(to).await else { return };
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let requests = async {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let read = from_client.read(&mut buffer).await.unwrap_or(0);
            sent.lock().unwrap()[connection].extend_from_slice(&buffer[..read]);
            if read == 0 || to_server.write_all(&buffer[..read]).await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        () = requests => {}
        _ = copy(&mut from_server, &mut to_client) => {}
    }
}
