//! The bounded queue between whoever sends to a connection and the task that writes to its socket.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::close::Close;
use super::frame::{MAX_HEAD, OpCode};

/// One message to a client. The bytes are shared, not copied.
#[derive(Clone, Debug)]
pub enum OutFrame {
    /// UTF-8 text; the caller answers for it.
    Text(Bytes),
    /// Anything.
    Binary(Bytes),
    /// Ends the connection after what was queued before it; what comes later is refused.
    Close(Close),
}

impl OutFrame {
    fn cost(&self) -> usize {
        match self {
            Self::Text(bytes) | Self::Binary(bytes) => bytes.len() + MAX_HEAD,
            Self::Close(_) => 0,
        }
    }
}

/// Why a message was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The client is slow: the queue is at its bound. Nothing of the call was queued.
    #[error("the connection's queue is full")]
    Full,
    /// The connection is closing or gone.
    #[error("the connection is closed")]
    Closed,
}

/// Bounds of a connection's queue.
#[derive(Clone, Copy, Debug)]
pub struct QueueBounds {
    /// Bytes, headers included.
    pub bytes: usize,
    /// Messages.
    pub messages: usize,
}

/// What the writing task does next.
pub(super) enum Work {
    /// Writes these frames; afterwards it reports the cost as written.
    Write(Vec<(OpCode, Bytes)>),
    /// Writes the close frame and goes.
    Close(Close),
}

#[derive(Default)]
struct State {
    queue: VecDeque<OutFrame>,
    /// Cost of what is queued or being written.
    bytes: usize,
    messages: usize,
    /// Only the newest ping has to be answered.
    pong: Option<Bytes>,
    /// Set once: nothing is queued any more.
    closing: bool,
}

/// The queue. Bounded in bytes and messages: a call passes as a whole while the queue is below its
/// bounds, however large it is, so that a result larger than the bound can be sent at all. The
/// queue therefore holds at most its bound and one call.
pub(super) struct Outbox {
    state: Mutex<State>,
    bounds: QueueBounds,
    /// Wakes the writing task.
    work: Notify,
    /// Fires when nothing more will be accepted.
    pub(super) closing: CancellationToken,
}

/// Frames handed to the writing task at once.
const BATCH_FRAMES: usize = 64;
/// Bytes after which a batch is not added to.
const BATCH_BYTES: usize = 256 * 1024;

impl Outbox {
    pub(super) fn new(bounds: QueueBounds) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            bounds,
            work: Notify::new(),
            closing: CancellationToken::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held, and a count that is off would do no harm.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues all of `frames` or none.
    pub(super) fn send(&self, frames: Vec<OutFrame>) -> Result<(), SendError> {
        let cost: usize = frames.iter().map(OutFrame::cost).sum();
        let mut state = self.state();
        if state.closing {
            return Err(SendError::Closed);
        }
        let ends = frames
            .iter()
            .any(|frame| matches!(frame, OutFrame::Close(_)));
        if !ends && !self.has_room(&state) {
            return Err(SendError::Full);
        }
        state.bytes += cost;
        state.messages += frames.len();
        state.queue.extend(frames);
        if ends {
            self.end(&mut state);
        }
        drop(state);
        self.work.notify_one();
        Ok(())
    }

    fn has_room(&self, state: &State) -> bool {
        state.bytes < self.bounds.bytes && state.messages < self.bounds.messages
    }

    /// Bytes queued or being written.
    pub(super) fn queued_bytes(&self) -> usize {
        self.state().bytes
    }

    /// Answers a ping.
    pub(super) fn pong(&self, payload: Bytes) {
        let mut state = self.state();
        if !state.closing {
            state.pong = Some(payload);
        }
        drop(state);
        self.work.notify_one();
    }

    /// Closes after what is queued.
    pub(super) fn close(&self, close: Close) {
        // Fails only when a close is queued already, which is as good.
        let _ = self.send(vec![OutFrame::Close(close)]);
    }

    /// Drops what is queued and closes at once.
    pub(super) fn abort(&self, close: Close) {
        let mut state = self.state();
        state.queue.clear();
        state.pong = None;
        state.queue.push_back(OutFrame::Close(close));
        self.end(&mut state);
        drop(state);
        self.work.notify_one();
    }

    /// Marks the connection as gone: the writing task has ended.
    pub(super) fn gone(&self) {
        let mut state = self.state();
        state.queue.clear();
        state.bytes = 0;
        state.messages = 0;
        self.end(&mut state);
    }

    fn end(&self, state: &mut State) {
        state.closing = true;
        self.closing.cancel();
    }

    /// Waits for work.
    pub(super) async fn work(&self) -> Work {
        loop {
            if let Some(work) = self.take() {
                return work;
            }
            self.work.notified().await;
        }
    }

    fn take(&self) -> Option<Work> {
        let mut state = self.state();
        let mut frames: Vec<(OpCode, Bytes)> = Vec::new();
        frames.extend(state.pong.take().map(|payload| (OpCode::Pong, payload)));
        let mut bytes = 0;
        while frames.len() < BATCH_FRAMES && bytes < BATCH_BYTES {
            match state.queue.pop_front() {
                Some(OutFrame::Text(payload)) => {
                    bytes += payload.len();
                    frames.push((OpCode::Text, payload));
                }
                Some(OutFrame::Binary(payload)) => {
                    bytes += payload.len();
                    frames.push((OpCode::Binary, payload));
                }
                Some(close @ OutFrame::Close(_)) if !frames.is_empty() => {
                    state.queue.push_front(close);
                    break;
                }
                Some(OutFrame::Close(close)) => return Some(Work::Close(close)),
                None => break,
            }
        }
        (!frames.is_empty()).then_some(Work::Write(frames))
    }

    /// Frames were written.
    pub(super) fn written(&self, bytes: usize, messages: usize) {
        let mut state = self.state();
        state.bytes = state.bytes.saturating_sub(bytes);
        state.messages = state.messages.saturating_sub(messages);
        drop(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::close::CloseCode;

    fn text(length: usize) -> OutFrame {
        OutFrame::Text(Bytes::from(vec![b'x'; length]))
    }

    fn outbox() -> Arc<Outbox> {
        Outbox::new(QueueBounds {
            bytes: 100,
            messages: 3,
        })
    }

    #[test]
    fn a_call_passes_as_a_whole_while_the_queue_is_below_its_bounds() {
        let outbox = outbox();
        outbox.send(vec![text(10)]).unwrap();
        outbox.send(vec![text(1000), text(50)]).unwrap();
        assert_eq!(outbox.send(vec![text(0)]), Err(SendError::Full));
        assert!(matches!(outbox.take(), Some(Work::Write(frames)) if frames.len() == 3));
        assert_eq!(
            outbox.send(vec![text(0)]),
            Err(SendError::Full),
            "it is not written yet"
        );
        outbox.written(1060 + 3 * MAX_HEAD, 3);
        assert_eq!(outbox.queued_bytes(), 0);
        outbox.send(vec![text(1)]).unwrap();
    }

    #[test]
    fn many_small_messages_fill_the_queue_too() {
        let outbox = outbox();
        for _ in 0..3 {
            outbox.send(vec![text(0)]).unwrap();
        }
        assert_eq!(outbox.send(vec![text(0)]), Err(SendError::Full));
    }

    #[test]
    fn a_close_passes_a_full_queue_comes_last_and_ends_it() {
        let outbox = outbox();
        outbox.send(vec![text(90)]).unwrap();
        outbox.close(Close::new(CloseCode::NORMAL, "bye"));
        assert_eq!(outbox.send(vec![text(1)]), Err(SendError::Closed));
        assert!(matches!(outbox.take(), Some(Work::Write(_))));
        assert!(matches!(outbox.take(), Some(Work::Close(close)) if close.reason == "bye"));
        assert!(outbox.closing.is_cancelled());
    }

    #[test]
    fn aborting_drops_the_queue_and_pongs_do_not_pile_up() {
        let outbox = outbox();
        for at in 0..1000_u16 {
            outbox.pong(Bytes::copy_from_slice(&at.to_be_bytes()));
        }
        assert!(matches!(outbox.take(), Some(Work::Write(frames)) if frames.len() == 1));
        outbox.send(vec![text(1)]).unwrap();
        outbox.abort(Close::new(CloseCode::POLICY, ""));
        assert!(matches!(outbox.take(), Some(Work::Close(_))));
    }
}
