//! Requests: a stream that begins with the name of the service that it is for (M-1), and who answers it.
//!
//! `server` reads the name and finds the [`Service`]; those of cabo itself are in `service`.

use std::fmt::Debug;
use std::io;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::stream::{RecvStream, SendStream};

/// One request being answered.
pub type Answering<'a> = Pin<Box<dyn Future<Output = io::Result<()>> + Send + 'a>>;

/// A service of a server: answers one request a stream (R8: a file, and one line where the server is made).
pub trait Service: Debug + Send + Sync {
    /// Its name on the wire, version included.
    fn name(&self) -> &'static str;

    /// Answers the request of a stream whose opening was already read. An error ends this stream alone.
    fn answer(&self, send: SendStream, recv: RecvStream) -> Answering<'_>;
}

/// The longest service name on the wire, version included (M-1.2).
pub const MAX_SERVICE_NAME_BYTES: usize = 63;

/// Why the first bytes of a request stream name no service (M-1).
#[derive(Debug, thiserror::Error)]
pub enum OpeningError {
    /// The stream broke before the name was whole, or could not be written.
    #[error("the stream ended before a service was named: {0}")]
    Io(#[from] io::Error),
    /// The name is empty, longer than [`MAX_SERVICE_NAME_BYTES`], or not `name/version` in printable ASCII.
    #[error("the stream does not begin with a service name")]
    NotAName,
}

/// Writes the service's name, such as `media/1`, as the first bytes of a request stream (M-1.2).
pub async fn write_opening<W: AsyncWrite + Unpin>(
    send: &mut W,
    service: &str,
) -> Result<(), OpeningError> {
    send.write_all(&opening(service)?).await?;
    Ok(())
}

/// The bytes that open a request stream of `service` (M-1.2), to be sent together with the request.
pub fn opening(service: &str) -> Result<Vec<u8>, OpeningError> {
    let length = u8::try_from(service.len()).map_err(|_| OpeningError::NotAName)?;
    if !is_service_name(service.as_bytes()) {
        return Err(OpeningError::NotAName);
    }
    let mut bytes = vec![length]; // below 64 a varint is its one byte
    bytes.extend_from_slice(service.as_bytes());
    Ok(bytes)
}

/// Reads which service a request stream is for (M-1.2). The caller sets the deadline.
pub async fn read_opening<R: AsyncRead + Unpin>(recv: &mut R) -> Result<String, OpeningError> {
    let length = usize::from(recv.read_u8().await?);
    if length > MAX_SERVICE_NAME_BYTES {
        return Err(OpeningError::NotAName);
    }
    let mut name = vec![0; length];
    recv.read_exact(&mut name).await?;
    if !is_service_name(&name) {
        return Err(OpeningError::NotAName);
    }
    String::from_utf8(name).map_err(|_| OpeningError::NotAName)
}

fn is_service_name(name: &[u8]) -> bool {
    let mut parts = name.split(|byte| *byte == b'/');
    let is_named = parts.next().is_some_and(|part| !part.is_empty());
    let is_versioned =
        parts.next().is_some_and(|part| !part.is_empty() && part.iter().all(u8::is_ascii_digit));
    let is_short = name.len() <= MAX_SERVICE_NAME_BYTES;
    is_short
        && is_named
        && is_versioned
        && parts.next().is_none()
        && name.iter().all(u8::is_ascii_graphic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_opening_is_the_hex_of_the_clause() {
        let mut bytes = Vec::new();
        write_opening(&mut bytes, "media/1").await.unwrap();
        assert_eq!(bytes, b"\x07media/1"); // M-1.2
        assert_eq!(read_opening(&mut bytes.as_slice()).await.unwrap(), "media/1");
    }

    #[tokio::test]
    async fn what_is_no_service_name_is_refused() {
        let long = [b"\x40\x40".as_slice(), &[b'a'; 62], b"/1"].concat();
        let cases: [&[u8]; 8] =
            [b"", b"\x00", b"\x07media", b"\x05media", b"\x02/1", b"\x03a/x", b"\x05a/1/2", &long];
        for bytes in cases {
            assert!(read_opening(&mut &bytes[..]).await.is_err(), "{bytes:?}");
        }
        assert!(read_opening(&mut b"\x04a\n/1".as_slice()).await.is_err(), "not graphic");
        assert!(opening("media").is_err());
    }
}
