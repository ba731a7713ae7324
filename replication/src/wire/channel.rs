//! Messages over a socket.

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::message::Fields;
use super::socket::Duplex;
use crate::{Error, Result};

/// Size of a message's tag and length.
pub(super) const HEADER: usize = 5;
/// Bytes read from the socket at once.
const READ_AHEAD: usize = 64 * 1024;

/// Frames messages over a socket.
///
/// INVARIANT: a message beyond the size limit ends the connection. It is never skipped, for it may
/// carry changes.
pub(crate) struct Channel {
    socket: Box<dyn Duplex>,
    inbound: BytesMut,
    /// Messages to send with the next [`Channel::flush`].
    pub(crate) outbound: BytesMut,
    max_message: usize,
}

impl Channel {
    pub(crate) fn new(socket: Box<dyn Duplex>, max_message: usize) -> Self {
        Self {
            socket,
            inbound: BytesMut::with_capacity(READ_AHEAD),
            outbound: BytesMut::new(),
            max_message,
        }
    }

    /// Sends what is in `outbound`. Not cancel-safe.
    pub(crate) async fn flush(&mut self) -> Result<()> {
        self.socket.write_all(&self.outbound).await?;
        self.outbound.clear();
        self.socket.flush().await?;
        Ok(())
    }

    /// The next message: its tag and its body. Cancel-safe.
    pub(crate) async fn message(&mut self) -> Result<(u8, Fields)> {
        loop {
            if let Some((tag, body)) = self.buffered()? {
                return Ok((tag, Fields(body)));
            }
            self.fill(READ_AHEAD).await?;
        }
    }

    /// Reads what the socket has, up to `bytes` if it has more. Cancel-safe.
    pub(super) async fn fill(&mut self, bytes: usize) -> Result<()> {
        if self.inbound.capacity() - self.inbound.len() < bytes / 8 {
            self.inbound.reserve(bytes);
        }
        if self.socket.read_buf(&mut self.inbound).await? == 0 {
            return Err(Error::Io(std::io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(())
    }

    /// The next message, if it is here in full.
    pub(super) fn buffered(&mut self) -> Result<Option<(u8, Bytes)>> {
        let Some((tag, whole)) = self.whole_at(0)? else {
            return Ok(None);
        };
        let mut message = self.inbound.split_to(whole);
        message.advance(HEADER);
        Ok(Some((tag, message.freeze())))
    }

    /// Bytes of memory for what is read from the socket.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.inbound.capacity()
    }

    /// What was read from the socket and not taken yet.
    pub(super) fn inbound(&self) -> &[u8] {
        &self.inbound
    }

    /// Takes bytes off what was read from the socket.
    pub(super) fn take(&mut self, bytes: usize) {
        self.inbound.advance(bytes.min(self.inbound.len()));
    }

    /// Tag and length, with both of these, of the message that begins at `offset` of
    /// [`Channel::inbound`], if it is here in full. Else, where it is the first, there will be room
    /// for it.
    pub(super) fn whole_at(&mut self, offset: usize) -> Result<Option<(u8, usize)>> {
        let inbound = self.inbound.get(offset..).unwrap_or_default();
        let Some((&[tag, a, b, c, d], _)) = inbound.split_first_chunk::<HEADER>() else {
            return Ok(None);
        };
        // The length counts itself but not the tag.
        let length = usize::try_from(i32::from_be_bytes([a, b, c, d]))
            .ok()
            .filter(|length| *length >= HEADER - 1)
            .ok_or_else(|| Error::Protocol("a message has an impossible length".into()))?;
        if length > self.max_message {
            return Err(Error::Config(format!(
                "PostgreSQL sent a message of {length} bytes, more than the limit of {}; raise \
                 the limit or make the row smaller",
                self.max_message
            )));
        }
        let (whole, here) = (length + 1, inbound.len());
        if here < whole {
            // Behind others it waits until they are taken: room made now would come on top of
            // theirs, and double the buffer whenever it is full.
            if offset == 0 {
                self.inbound.reserve(whole - here);
            }
            return Ok(None);
        }
        Ok(Some((tag, whole)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn channel(bytes: &'static [u8]) -> Channel {
        let socket = tokio::io::join(bytes, tokio::io::sink());
        Channel::new(Box::new(socket), 100)
    }

    #[tokio::test]
    async fn messages_are_split_at_their_lengths() {
        let mut channel = channel(b"A\0\0\0\x05xB\0\0\0\x04");
        let (tag, body) = channel.message().await.unwrap();
        assert_eq!((tag, &body.0[..]), (b'A', &b"x"[..]));
        let (tag, body) = channel.message().await.unwrap();
        assert_eq!((tag, body.0.is_empty()), (b'B', true));
        assert!(channel.message().await.is_err());
    }

    #[tokio::test]
    async fn an_oversized_message_ends_the_session() {
        let error = channel(b"A\0\0\x01\0").message().await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Config);
    }

    #[tokio::test]
    async fn an_impossible_length_is_an_error() {
        for bytes in [b"A\0\0\0\0", b"A\xff\xff\xff\xff"] {
            assert!(channel(bytes).message().await.is_err());
        }
    }
}
