//! The bytes of a COPY TO STDOUT.

use bytes::Bytes;

use super::channel::{Channel, HEADER};
use super::handshake::unexpected;
use super::message::Fields;
use crate::Result;

/// Bytes read from the socket at once. PostgreSQL sends a message for each row, so that there are
/// many in it.
const READ_AHEAD: usize = 256 * 1024;

/// A connection that sends what a COPY gives. After an error it is of no more use, and neither is
/// it where this is dropped before the end.
pub(crate) struct CopyOut<'c> {
    channel: &'c mut Channel,
    /// Bytes that were lent and are still in front.
    lent: usize,
    /// Whether the server said that nothing more will come.
    complete: bool,
    /// Whether it takes the next command.
    ready: bool,
}

/// What has come of a COPY, message by message, where it was read to.
pub(crate) struct Pieces<'b> {
    messages: &'b [u8],
}

impl<'c> CopyOut<'c> {
    /// What the COPY gives whose statement has been sent over `channel`.
    pub(super) fn new(channel: &'c mut Channel) -> Self {
        Self {
            channel,
            lent: 0,
            complete: false,
            ready: false,
        }
    }

    /// What comes next, as much as is there; `None` at the end, where the connection takes the next
    /// command. Cancel-safe.
    ///
    /// # Errors
    /// [`Error::Server`](crate::Error::Server) where the COPY failed; else what is wrong with the
    /// connection.
    pub(crate) async fn next(&mut self) -> Result<Option<Pieces<'_>>> {
        self.channel.take(std::mem::take(&mut self.lent));
        while !self.ready {
            self.lent = self.whole_messages()?;
            if self.lent > 0 {
                break;
            }
            self.channel.fill(READ_AHEAD).await?;
        }
        let messages = self.channel.inbound().get(..self.lent).unwrap_or_default();
        Ok((self.lent > 0).then_some(Pieces { messages }))
    }

    /// Reads the messages that are here in full, up to the end of the COPY. Returns their bytes.
    fn whole_messages(&mut self) -> Result<usize> {
        let mut end = 0;
        while let Some((tag, length)) = self.channel.whole_at(end)? {
            match tag {
                b'd' if !self.complete => {}
                b'c' => self.complete = true,
                b'E' => {
                    let message = self.channel.inbound().get(end + HEADER..end + length);
                    let body = Bytes::copy_from_slice(message.unwrap_or_default());
                    return Err(Fields(body).server_error()?.into());
                }
                b'Z' if self.complete => self.ready = true,
                // That it begins or was carried out, parameters, notices, notifications.
                b'H' | b'C' | b'S' | b'N' | b'A' => {}
                other => return Err(unexpected("COPY", other)),
            }
            end += length;
            if self.ready {
                break;
            }
        }
        Ok(end)
    }
}

impl<'b> Iterator for Pieces<'b> {
    type Item = &'b [u8];

    fn next(&mut self) -> Option<&'b [u8]> {
        // They were seen to be whole before they were lent.
        while let Some((&[tag, a, b, c, d], rest)) = self.messages.split_first_chunk::<HEADER>() {
            let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).ok()?;
            let (body, rest) = rest.split_at_checked(length.checked_sub(HEADER - 1)?)?;
            self.messages = rest;
            if tag == b'd' {
                return Some(body);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncRead;

    use super::*;
    use crate::Error;

    const BEGUN: &[u8] = b"H\0\0\0\x07\0\0\0";
    const END: &[u8] = b"c\0\0\0\x04C\0\0\0\x0bCOPY 2\0Z\0\0\0\x05T";

    fn channel(socket: impl AsyncRead + Send + Unpin + 'static) -> Channel {
        let socket = tokio::io::join(socket, tokio::io::sink());
        Channel::new(Box::new(socket), 100)
    }

    /// All pieces of a COPY that comes like this.
    async fn read(channel: &mut Channel) -> Result<Vec<Vec<u8>>> {
        let (mut copy, mut all) = (CopyOut::new(channel), Vec::new());
        while let Some(pieces) = copy.next().await? {
            all.extend(pieces.map(<[u8]>::to_vec));
        }
        Ok(all)
    }

    fn whole() -> Vec<u8> {
        let data = b"d\0\0\0\x07oneN\0\0\0\x05\0d\0\0\0\x04d\0\0\0\x07two";
        [BEGUN, data, END].concat()
    }

    #[tokio::test]
    async fn a_copy_ends_where_the_next_answer_begins() {
        let bytes = [whole(), b"C\0\0\0\x0bBEGIN\0\0".to_vec()].concat();
        let mut channel = channel(std::io::Cursor::new(bytes));
        let expected = [&b"one"[..], b"", b"two"];
        assert_eq!(read(&mut channel).await.unwrap(), expected);
        assert_eq!(channel.message().await.unwrap().0, b'C');
    }

    #[tokio::test]
    async fn what_is_read_ahead_stays_bounded_while_more_waits_in_the_socket() {
        let row = [&b"d\0\0\0\x36"[..], &[b'x'; 50]].concat();
        let bytes = [BEGUN, &row.repeat(200_000), END].concat();
        let mut channel = channel(std::io::Cursor::new(bytes));
        let mut rows = 0;
        let mut copy = CopyOut::new(&mut channel);
        while let Some(pieces) = copy.next().await.unwrap() {
            rows += pieces.count();
            assert!(copy.channel.capacity() <= 3 * READ_AHEAD);
        }
        assert_eq!(rows, 200_000);
    }

    #[tokio::test]
    async fn a_copy_that_fails_halfway_says_why() {
        let bytes = [BEGUN, b"d\0\0\0\x05xE\0\0\0\x0dC57P01\0\0\0"].concat();
        let mut channel = channel(std::io::Cursor::new(bytes));
        let error = read(&mut channel).await.unwrap_err();
        assert_eq!(error.sqlstate(), Some("57P01"));
    }

    #[tokio::test]
    async fn a_connection_that_breaks_is_an_error_wherever_it_does() {
        let bytes = whole();
        for cut in 0..bytes.len() {
            let mut channel = channel(std::io::Cursor::new(bytes[..cut].to_vec()));
            let error = read(&mut channel).await.unwrap_err();
            assert!(matches!(error, Error::Io(_)), "{cut}: {error}");
        }
    }

    #[tokio::test]
    async fn what_is_no_copy_is_an_error() {
        for bytes in [
            &b"Z\0\0\0\x05I"[..],
            b"c\0\0\0\x04d\0\0\0\x05x",
            b"D\0\0\0\x06\0\0",
            b"d\0\0\x01\0",
        ] {
            let error = read(&mut channel(bytes)).await.unwrap_err();
            assert!(!matches!(error, Error::Io(_)), "{error}");
        }
    }

    fn block_on<T>(work: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.unwrap().block_on(work)
    }

    proptest! {
        #[test]
        fn pieces_are_the_same_however_the_bytes_come(at in 0_usize..60) {
            let bytes = whole();
            let (head, tail) = bytes.split_at(at.min(bytes.len()));
            let (head, tail) = (head.to_vec(), tail.to_vec());
            let socket = tokio::io::AsyncReadExt::chain(
                std::io::Cursor::new(head),
                std::io::Cursor::new(tail),
            );
            let all = block_on(read(&mut channel(socket))).unwrap();
            prop_assert_eq!(all, [&b"one"[..], b"", b"two"]);
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes: Vec<u8>, keep in 0_usize..60) {
            let mut all = whole();
            all.truncate(keep);
            all.extend(&bytes);
            let _ = block_on(read(&mut channel(std::io::Cursor::new(all))));
            let _ = block_on(read(&mut channel(std::io::Cursor::new(bytes.clone()))));
            let pieces = Pieces { messages: &bytes };
            prop_assert!(pieces.count() <= bytes.len());
        }
    }
}
