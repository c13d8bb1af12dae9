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
    let bound =
        |address: &ListenAddress| bind_one(address).map_err(|source| BindError { address: address.clone(), source });
    addresses.iter().map(bound).collect()
}

/// Where the listeners listen.
pub fn addresses(listeners: &[TcpListener]) -> Vec<SocketAddr> {
    listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
}

fn bind_one(address: &ListenAddress) -> io::Result<TcpListener> {
    match address {
        ListenAddress::Address(address) => listener(*address),
        ListenAddress::Host { name, port } => {
            let first = (name.as_str(), *port).to_socket_addrs()?.next();
            listener(first.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address"))?)
        }
        ListenAddress::All { port } => match listener((Ipv6Addr::UNSPECIFIED, *port).into()) {
            // A machine without IPv6 has no such sockets or no such address.
            Err(error)
                if error.kind() != io::ErrorKind::AddrInUse && error.kind() != io::ErrorKind::PermissionDenied =>
            {
                listener((Ipv4Addr::UNSPECIFIED, *port).into())
            }
            done => done,
        },
    }
}

fn listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    if address.ip() == Ipv6Addr::UNSPECIFIED {
        // All interfaces means those of IPv4 too, whatever the machine's default is.
        socket.set_only_v6(false)?;
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
