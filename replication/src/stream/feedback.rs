//! What may be confirmed to PostgreSQL.

use kelvin_protocol::Version;

/// Keeps track of how far the stream has come, over all its sessions. All positions are versions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Feedback {
    /// Version of the last transaction that went into the queue.
    enqueued: Version,
    /// Version that is durable here.
    durable: Version,
    /// Everything that commits before this position has been received.
    received: Version,
    /// What was confirmed.
    confirmed: Version,
}

impl Feedback {
    /// `durable` is where the replica stands, with nothing in the queue.
    pub(crate) fn new(durable: Version) -> Self {
        Self {
            enqueued: durable,
            durable,
            received: 0,
            confirmed: 0,
        }
    }

    /// Where the stream goes on: after the last transaction that was queued.
    pub(crate) fn start(&self) -> Version {
        self.enqueued + 1
    }

    /// The slot is confirmed this far. An older position is never confirmed again, for old servers
    /// would move the slot back.
    pub(crate) fn slot_confirmed(&mut self, confirmed: Version) {
        self.confirmed = self.confirmed.max(confirmed);
    }

    pub(crate) fn enqueued(&mut self, version: Version) {
        self.enqueued = version;
    }

    pub(crate) fn durable(&mut self, version: Version) {
        self.durable = version;
    }

    pub(crate) fn received(&mut self, position: Version) {
        self.received = self.received.max(position);
    }

    /// The position to confirm now.
    ///
    /// INVARIANT: everything that commits before it is durable here, or changes nothing here. A
    /// commit's own LSN may be confirmed when it is durable. A position that no transaction ends at
    /// only counts while nothing is on its way to the disk.
    pub(crate) fn confirm(&mut self) -> Version {
        let mut position = self.durable;
        if self.durable >= self.enqueued {
            position = position.max(self.received);
        }
        self.confirmed = self.confirmed.max(position);
        self.confirmed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_durable_is_confirmed() {
        let mut feedback = Feedback::new(100);
        feedback.enqueued(200);
        feedback.received(250);
        assert_eq!(feedback.confirm(), 100);
        feedback.durable(200);
        assert_eq!(feedback.confirm(), 250);
    }

    #[test]
    fn a_position_is_never_taken_back() {
        let mut feedback = Feedback::new(100);
        feedback.slot_confirmed(150);
        assert_eq!(feedback.confirm(), 150);
        feedback.enqueued(160);
        assert_eq!(feedback.confirm(), 150);
    }

    #[test]
    fn the_stream_goes_on_after_what_was_queued() {
        let mut feedback = Feedback::new(100);
        assert_eq!(feedback.start(), 101);
        feedback.enqueued(170);
        assert_eq!(feedback.start(), 171);
    }
}
