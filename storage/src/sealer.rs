//! A thread that has the engine write full memtables to files.
//!
//! Whoever seals a memtable frees, entry by entry, those that were written to files since the last
//! time: for the writer that would be as long as dozens of commits.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use fjall::{AbstractTree, Keyspace};

/// Requests that may wait. More come to nothing.
const QUEUE: usize = 64;

/// Seals memtables for the writer. Dropping it waits for the one it is at.
pub(crate) struct Sealer(Option<Thread>);

struct Thread {
    requests: SyncSender<Request>,
    handle: JoinHandle<()>,
}

struct Request {
    keyspace: Keyspace,
    /// The memtable to be sealed. If it is another one now, that was done already.
    memtable: u64,
}

impl Sealer {
    /// Starts the thread. Where it cannot be started, requests come to nothing.
    pub(crate) fn start() -> Self {
        let (requests, queue) = sync_channel(QUEUE);
        let thread = std::thread::Builder::new().name("replica-seal".into());
        let handle = thread.spawn(move || work(&queue)).ok();
        Self(handle.map(|handle| Thread { requests, handle }))
    }

    /// Asks for the memtable of a keyspace to be sealed, which may be done many times over. What
    /// comes to nothing is asked for again before the next batch, or done by the writer.
    pub(crate) fn request(&self, keyspace: &Keyspace) {
        if let Some(thread) = &self.0 {
            let request = Request {
                keyspace: keyspace.clone(),
                memtable: keyspace.tree.active_memtable().id(),
            };
            let _queued = thread.requests.try_send(request);
        }
    }
}

impl Drop for Sealer {
    /// INVARIANT: nothing is sealed afterwards, and no handle to the engine is left, so that the
    /// directory can be opened anew.
    fn drop(&mut self) {
        if let Some(Thread { requests, handle }) = self.0.take() {
            drop(requests);
            // What a panic said is on standard error already.
            let _ended = handle.join();
        }
    }
}

fn work(queue: &Receiver<Request>) {
    while let Ok(Request { keyspace, memtable }) = queue.recv() {
        if keyspace.tree.active_memtable().id() != memtable {
            continue;
        }
        // The writer meets the same sooner or later: the memtable remains, or so do the journals.
        if let Err(error) = keyspace.rotate_memtable() {
            tracing::warn!(keyspace = %keyspace.name(), %error, "a memtable cannot be sealed");
        }
    }
}
