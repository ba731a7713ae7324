//! One WebSocket connection: messages in, messages out.
//!
//! The frames are read by code of our own, because bounds must hold for whole messages, unmasked
//! frames must be refused, and a read that is given up must lose nothing.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::{Instant, timeout_at};

use super::close::{Close, CloseCode};
use super::frame::{Head, OpCode, unmask};
use super::outbox::{Outbox, QueueBounds};
use super::writer::{ReadIo, SocketWriter, WriteTask};

/// Frames a message may come in.
const MAX_FRAGMENTS: usize = 1024;
/// Bytes asked of the socket at once.
const READ_AHEAD: usize = 16 * 1024;
/// A read buffer that grew beyond this is given back after the message.
const KEEP_BUFFER: usize = 64 * 1024;

/// Bounds of one connection.
#[derive(Clone, Copy, Debug)]
pub struct SocketBounds {
    /// Longest message of the client, bytes.
    pub max_message_bytes: usize,
    /// Longest time a message may take from its first byte to its last.
    pub message_timeout: Duration,
    /// Longest time the client may take no byte of what is written to it.
    pub send_timeout: Duration,
    /// Bounds of what is queued for the client.
    pub queue: QueueBounds,
}

/// A message of the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// Text; UTF-8 was checked.
    Text(String),
    /// Bytes.
    Binary(Bytes),
}

/// Why a connection cannot be read any further. It is being closed already.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The client broke the protocol or overstepped a bound.
    #[error("{reason} (closed with {})", .code.0)]
    Faulty {
        /// The code it was closed with.
        code: CloseCode,
        /// What it did.
        reason: &'static str,
    },
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(#[from] std::io::Error),
}

/// One WebSocket connection, to be split into its two halves.
pub struct Socket {
    /// Messages in.
    pub reader: SocketReader,
    /// Messages out.
    pub writer: SocketWriter,
}

impl Socket {
    /// Takes over a stream whose handshake is done, and starts the task that writes to it.
    /// `read_ahead` is what was already read from it.
    pub fn new(
        read: impl AsyncRead + Send + Unpin + 'static,
        write: impl AsyncWrite + Send + Unpin + 'static,
        read_ahead: &[u8],
        bounds: SocketBounds,
    ) -> Self {
        Self::start(Box::new(read), Box::new(write), read_ahead, bounds, None)
    }

    pub(super) fn start(
        read: ReadIo,
        write: super::writer::WriteIo,
        read_ahead: &[u8],
        bounds: SocketBounds,
        permit: Option<Arc<OwnedSemaphorePermit>>,
    ) -> Self {
        let outbox = Outbox::new(bounds.queue);
        let (give_back, reader) = oneshot::channel();
        let task = WriteTask {
            io: write,
            outbox: Arc::clone(&outbox),
            stall: bounds.send_timeout,
            reader,
            permit,
        };
        tokio::spawn(task.run());
        let reader = SocketReader {
            io: Some(read),
            give_back: Some(give_back),
            buffer: BytesMut::from(read_ahead),
            partial: None,
            started: None,
            bounds,
            outbox: Arc::clone(&outbox),
        };
        Self {
            reader,
            writer: SocketWriter::new(outbox),
        }
    }
}

/// Reads one connection. Pings and close frames are answered as they are met.
pub struct SocketReader {
    /// None once there is nothing more to read.
    io: Option<ReadIo>,
    give_back: Option<oneshot::Sender<ReadIo>>,
    buffer: BytesMut,
    partial: Option<Partial>,
    /// When the first byte of the message at hand was seen.
    started: Option<Instant>,
    bounds: SocketBounds,
    outbox: Arc<Outbox>,
}

/// A message of which some frames are there.
struct Partial {
    opcode: OpCode,
    bytes: BytesMut,
    fragments: usize,
}

/// A fault of the client: the code to close with and what it did.
type Fault = (CloseCode, &'static str);

enum Step {
    Message(Incoming),
    /// The client closed.
    Closed,
    /// A frame was consumed that is no message.
    Again,
    /// More bytes are needed.
    Starved,
}

impl SocketReader {
    /// The next message, or `None` once either side has closed.
    ///
    /// Cancel safe: what was read is kept when the future is dropped.
    ///
    /// # Errors
    /// The client was at fault or the connection broke; after that there is nothing to read.
    pub async fn next(&mut self) -> Result<Option<Incoming>, SocketError> {
        loop {
            if self.io.is_none() || self.outbox.closing.is_cancelled() {
                return Ok(None);
            }
            match self.step() {
                Ok(Step::Message(message)) => return Ok(Some(message)),
                Ok(Step::Again) => {}
                Ok(Step::Closed) => return Ok(None),
                Ok(Step::Starved) => {
                    if !self.fill().await? {
                        return Ok(None);
                    }
                }
                Err((code, reason)) => {
                    self.outbox.abort(Close::new(code, reason));
                    return Err(SocketError::Faulty { code, reason });
                }
            }
        }
    }

    /// Reads some bytes; false at the end of the stream.
    async fn fill(&mut self) -> Result<bool, SocketError> {
        let Some(io) = self.io.as_mut() else {
            return Ok(false);
        };
        let midway = !self.buffer.is_empty() || self.partial.is_some();
        self.started = midway.then(|| self.started.unwrap_or_else(Instant::now));
        self.buffer.reserve(READ_AHEAD);
        let read = io.read_buf(&mut self.buffer);
        let read = async {
            match self.started {
                None => Ok(read.await),
                Some(started) => timeout_at(started + self.bounds.message_timeout, read).await,
            }
        };
        let outcome = tokio::select! {
            () = self.outbox.closing.cancelled() => return Ok(false),
            outcome = read => outcome,
        };
        match outcome {
            Ok(Ok(0)) => {
                self.io = None;
                self.outbox.abort(Close::default());
                Ok(false)
            }
            Ok(Ok(_)) => Ok(true),
            Ok(Err(error)) => {
                self.io = None;
                self.outbox.abort(Close::default());
                Err(SocketError::Broken(error))
            }
            Err(_) => {
                let (code, reason) = (CloseCode::POLICY, "a message took too long to arrive");
                self.outbox.abort(Close::new(code, reason));
                Err(SocketError::Faulty { code, reason })
            }
        }
    }

    /// Consumes one frame, if it is there.
    fn step(&mut self) -> Result<Step, Fault> {
        let parsed = Head::parse(&self.buffer);
        let Some((head, at)) = parsed.map_err(|reason| (CloseCode::PROTOCOL, reason))? else {
            return Ok(Step::Starved);
        };
        // INVARIANT: checked before the payload is there, so that memory follows what was sent, not
        // what was announced.
        let held = self
            .partial
            .as_ref()
            .map_or(0, |partial| partial.bytes.len());
        let length = usize::try_from(head.length).unwrap_or(usize::MAX);
        let is_data = matches!(
            head.opcode,
            OpCode::Text | OpCode::Binary | OpCode::Continuation
        );
        if is_data && length.saturating_add(held) > self.bounds.max_message_bytes {
            return Err((CloseCode::TOO_BIG, "a message is too long"));
        }
        if self.buffer.len() < at.saturating_add(length) {
            return Ok(Step::Starved);
        }
        self.buffer.advance(at);
        let mut payload = self.buffer.split_to(length);
        unmask(&mut payload, head.mask);
        if self.buffer.is_empty() && self.buffer.capacity() > KEEP_BUFFER {
            self.buffer = BytesMut::new();
        }
        match head.opcode {
            OpCode::Ping => {
                self.outbox.pong(payload.freeze());
                Ok(Step::Again)
            }
            OpCode::Pong => Ok(Step::Again),
            OpCode::Close => {
                let close = Close::parse(&payload)?;
                // What is still queued is of no use to a client that has closed.
                self.outbox.abort(Close {
                    reason: String::new(),
                    ..close
                });
                Ok(Step::Closed)
            }
            OpCode::Text | OpCode::Binary | OpCode::Continuation => self.data(head, payload),
        }
    }

    fn data(&mut self, head: Head, payload: BytesMut) -> Result<Step, Fault> {
        let (opcode, bytes) = match (head.opcode, self.partial.take()) {
            (OpCode::Continuation, None) => {
                return Err((CloseCode::PROTOCOL, "a message begins with a continuation"));
            }
            (OpCode::Continuation, Some(mut partial)) => {
                partial.bytes.extend_from_slice(&payload);
                partial.fragments += 1;
                if partial.fragments > MAX_FRAGMENTS {
                    return Err((CloseCode::POLICY, "a message comes in too many fragments"));
                }
                if !head.fin {
                    self.partial = Some(partial);
                    return Ok(Step::Again);
                }
                (partial.opcode, partial.bytes)
            }
            (_, Some(_)) => {
                return Err((CloseCode::PROTOCOL, "a message begins within another"));
            }
            (opcode, None) if !head.fin => {
                self.partial = Some(Partial {
                    opcode,
                    bytes: payload,
                    fragments: 1,
                });
                return Ok(Step::Again);
            }
            (opcode, None) => (opcode, payload),
        };
        self.started = None;
        if opcode == OpCode::Binary {
            return Ok(Step::Message(Incoming::Binary(bytes.freeze())));
        }
        match String::from_utf8(bytes.into()) {
            Ok(text) => Ok(Step::Message(Incoming::Text(text))),
            Err(_) => Err((CloseCode::NOT_UTF8, "a text message is not UTF-8")),
        }
    }
}

impl Drop for SocketReader {
    fn drop(&mut self) {
        if let (Some(io), Some(give_back)) = (self.io.take(), self.give_back.take()) {
            // Fails when the writing task is gone, and then nobody needs it.
            let _ = give_back.send(io);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt as _, DuplexStream};

    use super::*;
    use crate::http::outbox::OutFrame;

    fn pair() -> (Socket, DuplexStream) {
        let (client, server) = tokio::io::duplex(1 << 20);
        let (read, write) = tokio::io::split(server);
        let bounds = SocketBounds {
            max_message_bytes: 1000,
            message_timeout: Duration::from_secs(60),
            send_timeout: Duration::from_secs(10),
            queue: QueueBounds {
                bytes: 10_000,
                messages: 100,
            },
        };
        (Socket::new(read, write, &[], bounds), client)
    }

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![first, 0xfe];
        frame.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
        if payload.len() < 126 {
            frame = vec![first, 0x80 | u8::try_from(payload.len()).unwrap()];
        }
        frame.extend([1, 2, 3, 4]);
        let mut masked = payload.to_vec();
        unmask(&mut masked, [1, 2, 3, 4]);
        frame.extend(masked);
        frame
    }

    async fn close_code(mut client: DuplexStream) -> u16 {
        let mut all = Vec::new();
        client.read_to_end(&mut all).await.unwrap();
        assert_eq!(all[0], 0x88, "{all:?}");
        u16::from_be_bytes([all[2], all[3]])
    }

    #[tokio::test]
    async fn fragments_are_joined_and_a_ping_between_them_is_answered() {
        let (mut socket, mut client) = pair();
        for part in [frame(0x01, b"he"), frame(0x89, b"p"), frame(0x80, b"llo")] {
            client.write_all(&part).await.unwrap();
        }
        let message = socket.reader.next().await.unwrap();
        assert_eq!(message, Some(Incoming::Text("hello".into())));
        let mut pong = [0; 3];
        client.read_exact(&mut pong).await.unwrap();
        assert_eq!(&pong, &[0x8a, 1, b'p']);
    }

    #[tokio::test]
    async fn a_read_that_is_given_up_loses_nothing() {
        let (mut socket, mut client) = pair();
        for byte in frame(0x81, b"hello") {
            client.write_all(&[byte]).await.unwrap();
            let read = socket.reader.next();
            if let Ok(message) = tokio::time::timeout(Duration::from_millis(1), read).await {
                assert_eq!(message.unwrap(), Some(Incoming::Text("hello".into())));
                return;
            }
        }
        let message = socket.reader.next().await.unwrap();
        assert_eq!(message, Some(Incoming::Text("hello".into())));
    }

    #[tokio::test]
    async fn every_broken_frame_closes_with_its_code() {
        let mut endless = vec![0x82, 0xff];
        endless.extend(u64::MAX.to_be_bytes());
        endless.extend([0; 4]);
        let cases = [
            (vec![0xc1, 0x80, 0, 0, 0, 0], CloseCode::PROTOCOL),
            (vec![0x83, 0x80, 0, 0, 0, 0], CloseCode::PROTOCOL),
            (vec![0x81, 0x01, b'x'], CloseCode::PROTOCOL),
            (vec![0x89, 0xfe, 0, 200], CloseCode::PROTOCOL),
            (frame(0x80, b"x"), CloseCode::PROTOCOL),
            (
                [frame(0x01, b"x"), frame(0x01, b"x")].concat(),
                CloseCode::PROTOCOL,
            ),
            (frame(0x88, &[3]), CloseCode::PROTOCOL),
            (frame(0x88, &[0, 1]), CloseCode::PROTOCOL),
            (frame(0x81, &[0xff, 0xfe]), CloseCode::NOT_UTF8),
            (endless, CloseCode::TOO_BIG),
            (frame(0x81, &[b'x'; 1001]), CloseCode::TOO_BIG),
            (
                [frame(0x01, &[b'x'; 600]), frame(0x80, &[b'x'; 600])].concat(),
                CloseCode::TOO_BIG,
            ),
            (
                [frame(0x01, b""), frame(0x00, b"").repeat(MAX_FRAGMENTS)].concat(),
                CloseCode::POLICY,
            ),
        ];
        for (bytes, code) in cases {
            let (mut socket, mut client) = pair();
            client.write_all(&bytes).await.unwrap();
            let error = socket.reader.next().await.unwrap_err();
            assert!(matches!(error, SocketError::Faulty { code: got, .. } if got == code));
            assert!(matches!(socket.reader.next().await, Ok(None)));
            drop(socket);
            assert_eq!(close_code(client).await, code.0, "{error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_never_ends_is_given_up() {
        let (mut socket, mut client) = pair();
        client.write_all(&frame(0x01, b"x")).await.unwrap();
        let error = socket.reader.next().await.unwrap_err();
        assert!(matches!(
            error,
            SocketError::Faulty {
                code: CloseCode::POLICY,
                ..
            }
        ));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_given_up() {
        let (mut socket, client) = pair();
        let text = Bytes::from(vec![b'x'; 2 << 20]);
        while socket.writer.send(OutFrame::Text(text.clone())).is_ok() {}
        assert!(matches!(socket.reader.next().await, Ok(None)));
        assert!(socket.writer.is_closed());
        drop(client);
    }

    #[tokio::test]
    async fn the_end_of_either_side_ends_reading() {
        let (mut socket, mut client) = pair();
        client
            .write_all(&frame(0x88, &[3, 232, b'x']))
            .await
            .unwrap();
        assert!(matches!(socket.reader.next().await, Ok(None)));
        drop(socket);
        assert_eq!(close_code(client).await, 1000);
        let (mut socket, client) = pair();
        socket.writer.close(Close::new(CloseCode::AUTH, "no"));
        assert!(matches!(socket.reader.next().await, Ok(None)));
        drop(socket);
        assert_eq!(close_code(client).await, 3000);
    }

    #[tokio::test]
    async fn dropping_both_halves_sends_the_rest_and_closes_without_a_code() {
        let (socket, mut client) = pair();
        let text = Bytes::from_static(b"bye");
        socket.writer.send(OutFrame::Text(text)).unwrap();
        drop(socket);
        let mut all = Vec::new();
        client.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, [0x81, 3, b'b', b'y', b'e', 0x88, 0]);
    }
}
