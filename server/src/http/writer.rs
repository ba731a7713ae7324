//! The task that writes to one socket, and the handle others send with.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::close::Close;
use super::frame::{MAX_HEAD, OpCode, write_head};
use super::outbox::{OutFrame, Outbox, SendError, Work};

/// Payloads up to this long are copied beside their header; longer ones are written from where
/// they are.
const COPY_BELOW: usize = 1024;
/// After our close frame the peer has so long to answer with its own.
const LINGER: Duration = Duration::from_secs(5);
/// What it may still send meanwhile; bytes.
const LINGER_BYTES: u64 = 1 << 20;

pub(super) type ReadIo = Box<dyn AsyncRead + Send + Unpin>;
pub(super) type WriteIo = Box<dyn AsyncWrite + Send + Unpin>;

/// Sends to one connection. Cloning gives another handle; when the last one is dropped, what is
/// queued is still sent and the connection is closed without a code.
#[derive(Clone)]
pub struct SocketWriter {
    handle: Arc<Handle>,
}

struct Handle {
    outbox: Arc<Outbox>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.outbox.close(Close::default());
    }
}

impl SocketWriter {
    pub(super) fn new(outbox: Arc<Outbox>) -> Self {
        let handle = Arc::new(Handle { outbox });
        Self { handle }
    }

    /// Queues one message. Never waits.
    ///
    /// # Errors
    /// [`SendError::Full`] if the client is slow, [`SendError::Closed`] if it is gone.
    pub fn send(&self, frame: OutFrame) -> Result<(), SendError> {
        self.handle.outbox.send(vec![frame])
    }

    /// Queues all of `frames` or none of them, with nothing between them. Never waits.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_all(&self, frames: Vec<OutFrame>) -> Result<(), SendError> {
        self.handle.outbox.send(frames)
    }

    /// Bytes that are queued or being written.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.handle.outbox.queued_bytes()
    }

    /// Closes the connection after what is queued.
    pub fn close(&self, close: Close) {
        self.handle.outbox.close(close);
    }

    /// Closes the connection at once; what is queued is dropped.
    pub fn abort(&self, close: Close) {
        self.handle.outbox.abort(close);
    }

    /// Whether nothing can be sent any more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.handle.outbox.closing.is_cancelled()
    }

    /// Waits until nothing can be sent any more.
    pub async fn closed(&self) {
        self.handle.outbox.closing.cancelled().await;
    }
}

/// What the writing task owns.
pub(super) struct WriteTask {
    pub(super) io: WriteIo,
    pub(super) outbox: Arc<Outbox>,
    /// Longest wait for the peer to take any byte at all.
    pub(super) stall: Duration,
    /// Where the reader leaves its half when it is dropped.
    pub(super) reader: oneshot::Receiver<ReadIo>,
    /// Held as long as the connection counts.
    pub(super) permit: Option<Arc<tokio::sync::OwnedSemaphorePermit>>,
}

impl WriteTask {
    /// Writes until a close frame is out or the peer is gone.
    pub(super) async fn run(mut self) {
        let closed = self.write_until_close().await;
        self.outbox.gone();
        if closed.is_ok() {
            // INVARIANT: the peer's data is read to its end before the socket is dropped. A socket
            // dropped with unread data is reset, and the peer may lose our close frame.
            let _ = timeout(LINGER, linger(self.reader)).await;
        }
        drop(self.permit);
    }

    async fn write_until_close(&mut self) -> std::io::Result<()> {
        loop {
            match self.outbox.work().await {
                Work::Write(frames) => {
                    let messages = frames.iter().filter(|(code, _)| *code != OpCode::Pong);
                    let (count, bytes) = messages.fold((0, 0), |(count, bytes), (_, payload)| {
                        (count + 1, bytes + payload.len() + MAX_HEAD)
                    });
                    self.write(Segments::new(frames)).await?;
                    self.outbox.written(bytes, count);
                }
                Work::Close(close) => {
                    self.write(Segments::new(vec![(OpCode::Close, close.payload())]))
                        .await?;
                    return self.io.shutdown().await;
                }
            }
        }
    }

    async fn write(&mut self, mut segments: Segments) -> std::io::Result<()> {
        while segments.has_remaining() {
            let write = self.io.write_buf(&mut segments);
            match timeout(self.stall, write).await {
                Ok(Ok(0)) => return Err(std::io::ErrorKind::WriteZero.into()),
                Ok(written) => written?,
                Err(_) => return Err(std::io::ErrorKind::TimedOut.into()),
            };
        }
        timeout(self.stall, self.io.flush()).await?
    }
}

async fn linger(reader: oneshot::Receiver<ReadIo>) {
    if let Ok(io) = reader.await {
        let mut rest = io.take(LINGER_BYTES);
        // Whether it ends by EOF or by an error: it ends.
        let _ = tokio::io::copy(&mut rest, &mut tokio::io::sink()).await;
    }
}

/// Frames as they go over the wire: headers and short payloads joined, long payloads shared.
struct Segments {
    parts: VecDeque<Bytes>,
}

impl Segments {
    fn new(frames: Vec<(OpCode, Bytes)>) -> Self {
        let mut parts = VecDeque::new();
        let mut joined = BytesMut::new();
        for (opcode, payload) in frames {
            write_head(&mut joined, opcode, payload.len());
            if payload.len() <= COPY_BELOW {
                joined.extend_from_slice(&payload);
            } else {
                parts.push_back(joined.split().freeze());
                parts.push_back(payload);
            }
        }
        if !joined.is_empty() {
            parts.push_back(joined.freeze());
        }
        Self { parts }
    }
}

impl Buf for Segments {
    fn remaining(&self) -> usize {
        self.parts.iter().map(Bytes::len).sum()
    }

    fn chunk(&self) -> &[u8] {
        self.parts.front().map_or(&[], Bytes::as_ref)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        for (slice, part) in slices.iter_mut().zip(&self.parts) {
            *slice = IoSlice::new(part);
            filled += 1;
        }
        filled
    }

    fn advance(&mut self, mut count: usize) {
        while let Some(front) = self.parts.front_mut() {
            if count < front.len() {
                front.advance(count);
                return;
            }
            count -= front.len();
            self.parts.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_payloads_are_shared_and_short_ones_joined() {
        let long = Bytes::from(vec![7; COPY_BELOW + 1]);
        let short = Bytes::from_static(b"ab");
        let frames = vec![
            (OpCode::Text, short.clone()),
            (OpCode::Binary, long.clone()),
            (OpCode::Text, short),
        ];
        let mut segments = Segments::new(frames);
        assert_eq!(segments.parts.len(), 3);
        assert_eq!(segments.parts[1].as_ptr(), long.as_ptr());
        assert_eq!(segments.remaining(), 4 + 4 + long.len() + 4);
        let first = segments.parts[0].len();
        segments.advance(first + 5);
        assert_eq!(segments.chunk().len(), long.len() - 5);
        segments.advance(segments.remaining());
        assert!(!segments.has_remaining());
    }
}
