//! Listeners, bound before anything runs.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

use crate::cli::ListenAddress;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// How many ports are tried until one is free on all addresses of a name.
const PORT_TRIES: u32 = 16;

/// An address that cannot be listened on.
#[derive(Debug)]
pub struct BindError {
    address: ListenAddress,
    source: io::Error,
}

/// Binds every address. Needs a runtime; resolving a host name blocks.
///
/// # Errors
/// The first address that cannot be bound.
pub fn bind(addresses: &[ListenAddress]) -> Result<Vec<TcpListener>, BindError> {
    let mut listeners = Vec::new();
    for address in addresses {
        let bound = bind_one(address, addresses).map_err(|source| BindError { address: address.clone(), source });
        listeners.extend(bound?);
    }
    Ok(listeners)
}

/// The addresses of the listeners.
pub fn addresses(listeners: &[TcpListener]) -> Vec<SocketAddr> {
    listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
}

fn bind_one(address: &ListenAddress, all: &[ListenAddress]) -> io::Result<Vec<TcpListener>> {
    match address {
        ListenAddress::Address(address) => Ok(vec![listener(*address, is_all_of_ipv4_beside(address.port(), all))?]),
        ListenAddress::Host { name, port } => bind_every(&resolve(name, *port)?),
        ListenAddress::All { port } => {
            let ipv4_beside = is_all_of_ipv4_beside(*port, all);
            match listener((Ipv6Addr::UNSPECIFIED, *port).into(), ipv4_beside) {
                Err(error) if lacks_ipv6(&error) && ipv4_beside => Ok(Vec::new()),
                Err(error) if lacks_ipv6(&error) => Ok(vec![listener((Ipv4Addr::UNSPECIFIED, *port).into(), false)?]),
                done => Ok(vec![done?]),
            }
        }
    }
}

/// Whether another listener is for all addresses of IPv4.
fn is_all_of_ipv4_beside(port: u16, all: &[ListenAddress]) -> bool {
    port != 0 && all.contains(&ListenAddress::Address((Ipv4Addr::UNSPECIFIED, port).into()))
}

/// The addresses of a name, each once. `localhost` is this machine, whatever a resolver says (RFC 6761).
fn resolve(name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if name.trim_end_matches('.').eq_ignore_ascii_case("localhost") {
        return Ok(vec![(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()]);
    }
    let mut addresses = Vec::new();
    for address in (name, port).to_socket_addrs()? {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

/// Binds all addresses of a name. If any port will do, it is the same for all.
fn bind_every(addresses: &[SocketAddr]) -> io::Result<Vec<TcpListener>> {
    let any_port = addresses.iter().any(|address| address.port() == 0);
    let mut tries = if any_port { PORT_TRIES } else { 1 };
    loop {
        tries -= 1;
        match try_every(addresses) {
            // Another process uses that port on another address.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries > 0 => {}
            done => return done,
        }
    }
}

fn try_every(addresses: &[SocketAddr]) -> io::Result<Vec<TcpListener>> {
    let mut listeners: Vec<TcpListener> = Vec::new();
    let mut error = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        let port = listeners.first().map(TcpListener::local_addr).transpose()?.map(|first| first.port());
        match listener(SocketAddr::new(address.ip(), port.unwrap_or(address.port())), false) {
            Ok(listener) => listeners.push(listener),
            Err(lacking) if address.is_ipv6() && lacks_ipv6(&lacking) => error = lacking,
            Err(error) => return Err(error),
        }
    }
    if listeners.is_empty() { Err(error) } else { Ok(listeners) }
}

/// A machine without IPv6 has no such sockets or no such address.
fn lacks_ipv6(error: &io::Error) -> bool {
    !matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied)
}

fn listener(address: SocketAddr, ipv6_only: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    if address.ip() == Ipv6Addr::UNSPECIFIED {
        // All interfaces means those of IPv4 too, whatever the machine's default is.
        socket.set_only_v6(ipv6_only)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

// === impl BindError ===

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot listen on {}", self.address)
    }
}

impl Error for BindError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.source)
    }
}
