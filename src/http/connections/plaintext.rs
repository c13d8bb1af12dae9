//! Plain HTTP on a port for TLS.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

use rustls::InvalidMessage;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The beginnings of requests.
const METHODS: [&[u8]; 9] =
    [b"GET ", b"HEAD ", b"POST ", b"PUT ", b"PATCH ", b"DELETE ", b"OPTIONS ", b"CONNECT ", b"TRACE "];

const RESPONSE: &[u8] = b"HTTP/1.0 400 Bad Request\r\n\
    Content-Type: text/plain; charset=utf-8\r\n\
    Connection: close\r\n\
    \r\n\
    This port takes HTTPS only, and the request came as plain HTTP.\n";

/// How many bytes are read of a request after it was answered.
const MAX_READ: u64 = 256 * 1024;

/// How long a client has to close the connection after it was answered.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A client that speaks plain HTTP.
#[derive(Debug)]
struct PlainHttp;

/// Waits for the first byte, and refuses a connection that does not begin like TLS: an HTTP request with a response
/// that says why. No byte of TLS is consumed. The caller limits the time.
///
/// # Errors
/// If it is not TLS, or the connection breaks.
pub(crate) async fn refuse(stream: &mut TcpStream) -> io::Result<()> {
    let mut first = [0];
    stream.peek(&mut first).await?;
    // A TLS record begins with a small number. Anything else that is no letter is refused by the handshake.
    if !first[0].is_ascii_uppercase() {
        return Ok(());
    }
    if !begins_request(stream).await? {
        let error = rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType);
        return Err(io::Error::new(io::ErrorKind::InvalidData, error));
    }
    // The connection ends whether the client reads the response or not.
    let _ = respond(stream).await;
    Err(io::Error::new(io::ErrorKind::InvalidData, PlainHttp))
}

async fn begins_request(stream: &mut TcpStream) -> io::Result<bool> {
    let mut begin = Vec::new();
    while METHODS.iter().any(|method| method.starts_with(&begin)) {
        begin.push(stream.read_u8().await?);
        if METHODS.contains(&begin.as_slice()) {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn respond(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(RESPONSE).await?;
    stream.shutdown().await?;
    // Closing with unread data resets the connection, and the client could lose the response.
    let rest = async { tokio::io::copy(&mut stream.take(MAX_READ), &mut tokio::io::sink()).await };
    let _ = timeout(CLOSE_TIMEOUT, rest).await;
    Ok(())
}

// === impl PlainHttp ===

impl fmt::Display for PlainHttp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the client speaks plain HTTP")
    }
}

impl Error for PlainHttp {}
