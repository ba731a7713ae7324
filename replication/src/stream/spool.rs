//! Transactions that PostgreSQL sends while they are in progress, kept until they commit.
//!
//! Their chunks come between those of others, and what a chunk holds may yet be taken back. So each
//! transaction has a file, and is assembled from it, like any other, when it commits.

mod file;
mod replay;

use std::collections::HashMap;
use std::path::PathBuf;

use bytes::Bytes;

pub(crate) use self::file::Write;
use self::file::{Piece, Spooled};
pub(crate) use self::replay::Replay;
use super::pgoutput::Streamed;
use crate::{Error, Result};

/// Bytes of a chunk that are held in memory before they are written.
const BUFFER: usize = 256 << 10;
/// Transactions that may be spooled at the same time; each has a file open.
const TRANSACTIONS: usize = 256;
/// Subtransactions with changes that all of them together may have. It is noted where each begins.
const PARTS: usize = 1 << 18;

/// What is in progress on one stream. Its files have no names, so that they go with the stream, or
/// with the process.
pub(crate) struct Spool {
    directory: PathBuf,
    /// Bytes beyond which all transactions together are not spooled.
    limit: u64,
    /// The transaction whose chunk comes.
    chunk: Option<u32>,
    /// That whose chunk came last.
    ended: Option<u32>,
    /// Bytes of all transactions together.
    used: u64,
    /// Their subtransactions.
    parts: usize,
    transactions: HashMap<u32, Spooled>,
    arrivals: Arrivals,
}

/// When tables were described last for rows outside of transactions in progress, by
/// `pg_class.oid`. Counted in descriptions.
#[derive(Debug, Default)]
struct Arrivals {
    count: u64,
    committed: HashMap<u32, u64>,
}

/// What is to be done with a message.
pub(crate) enum Step {
    /// It is one of an ordinary transaction.
    Pass(Bytes),
    /// It was taken in.
    Taken,
    /// A transaction that was in progress commits.
    Commit {
        replay: Replay,
        /// LSN of the commit record.
        commit_lsn: u64,
        /// LSN behind it.
        end_lsn: u64,
    },
}

impl Spool {
    /// With files in this directory, of so many bytes together.
    pub(crate) fn new(directory: PathBuf, limit: u64) -> Self {
        Self {
            directory,
            limit,
            chunk: None,
            ended: None,
            used: 0,
            parts: 0,
            transactions: HashMap::new(),
            arrivals: Arrivals::default(),
        }
    }

    /// Whether a chunk has begun and not ended.
    pub(crate) fn in_chunk(&self) -> bool {
        self.chunk.is_some()
    }

    /// Takes in a pgoutput message; `in_transaction` tells whether it comes within an ordinary one.
    ///
    /// # Errors
    /// [`Error::Unspooled`] where a bound is met, or a message that cannot come there.
    pub(crate) fn push(&mut self, bytes: Bytes, in_transaction: bool) -> Result<Step> {
        if let Some(xid) = self.chunk {
            return self.within(xid, bytes);
        }
        let Some(control) = Streamed::control(&bytes)? else {
            if let Some(oid) = relation_oid(&bytes) {
                let arrival = self.arrivals.next();
                self.arrivals.committed.insert(oid, arrival);
            }
            return Ok(Step::Pass(bytes));
        };
        if in_transaction {
            return Err(malformed("a chunk within a transaction"));
        }
        let step = self.control(control)?;
        // Whatever it was, it is seldom.
        self.used = self.transactions.values().map(Spooled::length).sum();
        self.parts = self.transactions.values().map(Spooled::parts).sum();
        Ok(step)
    }

    fn control(&mut self, control: Streamed) -> Result<Step> {
        match control {
            Streamed::Start { xid } => self.begin(xid)?,
            Streamed::Stop => return Err(malformed("a chunk ends that did not begin")),
            Streamed::Abort { xid, part } if xid == part => drop(self.transactions.remove(&xid)),
            Streamed::Abort { xid, part } => {
                if let Some(spooled) = self.transactions.get_mut(&xid) {
                    spooled.take_back(part);
                }
            }
            Streamed::Commit {
                xid,
                commit_lsn,
                end_lsn,
            } => {
                let spooled = self.transactions.remove(&xid);
                let spooled = spooled.ok_or_else(|| malformed("a commit of what did not begin"))?;
                return Ok(Step::Commit {
                    replay: Replay::new(spooled),
                    commit_lsn,
                    end_lsn,
                });
            }
        }
        Ok(Step::Taken)
    }

    fn begin(&mut self, xid: u32) -> Result<()> {
        if !self.transactions.contains_key(&xid) {
            if self.transactions.len() >= TRANSACTIONS {
                return Err(Error::Unspooled(format!(
                    "more than {TRANSACTIONS} large transactions are in progress"
                )));
            }
            self.transactions.insert(xid, Spooled::default());
        }
        self.chunk = Some(xid);
        Ok(())
    }

    /// Takes in a message of a chunk.
    fn within(&mut self, xid: u32, bytes: Bytes) -> Result<Step> {
        let piece = match bytes.first() {
            Some(b'E') => {
                self.ended = self.chunk.take();
                return Ok(Step::Taken);
            }
            // Origins and types do not matter here.
            Some(b'O' | b'Y') => return Ok(Step::Taken),
            Some(b'R' | b'I' | b'U' | b'D' | b'T' | b'M') => Piece::of(bytes)?,
            _ => return Err(malformed("a chunk holds what cannot be in one")),
        };
        let described = piece.describes().map(|oid| (oid, self.arrivals.next()));
        self.used += piece.length();
        if self.used > self.limit {
            return Err(Error::Unspooled(format!(
                "transactions in progress take more than {} bytes",
                self.limit
            )));
        }
        if let Some(spooled) = self.transactions.get_mut(&xid) {
            self.parts += spooled.push(xid, &piece, described)?;
        }
        if self.parts > PARTS {
            return Err(Error::Unspooled(format!(
                "transactions in progress have more than {PARTS} subtransactions"
            )));
        }
        Ok(Step::Taken)
    }

    /// What has to be written to a file before more comes, if there is anything.
    ///
    /// # Errors
    /// [`Error::Unspooled`] where a file cannot be made.
    pub(crate) fn due(&mut self) -> Result<Option<Write>> {
        let (xid, least) = match (self.chunk, self.ended) {
            (Some(xid), _) => (xid, BUFFER),
            (None, Some(xid)) => (xid, 1),
            (None, None) => return Ok(None),
        };
        match self.transactions.get_mut(&xid) {
            Some(spooled) if spooled.buffered() >= least => {
                spooled.write(&self.directory).map(Some)
            }
            _ => Ok(None),
        }
    }
}

impl Arrivals {
    fn next(&mut self) -> u64 {
        self.count += 1;
        self.count
    }
}

/// The table that a relation message describes, if it is one.
fn relation_oid(message: &[u8]) -> Option<u32> {
    match message {
        [b'R', a, b, c, d, ..] => Some(u32::from_be_bytes([*a, *b, *c, *d])),
        _ => None,
    }
}

fn malformed(what: &str) -> Error {
    Error::Protocol(format!("pgoutput: {what}"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::{BufMut, BytesMut};

    use super::*;
    use crate::backfill::Backfills;
    use crate::stream::assembler::{Assembler, StreamSchema};
    use crate::stream::pgoutput::Message;

    const LIMIT: u64 = 4 << 20;

    fn spool() -> Spool {
        Spool::new(std::env::temp_dir(), LIMIT)
    }

    fn assembler() -> Assembler {
        let schema = StreamSchema::new(Arc::default());
        Assembler::new(schema, None, Backfills::new(0), usize::MAX)
    }

    fn message(tag: u8, parts: &[&[u8]]) -> Bytes {
        let mut bytes = BytesMut::from(&[tag][..]);
        for part in parts {
            bytes.put_slice(part);
        }
        bytes.freeze()
    }

    fn start(xid: u32) -> Bytes {
        message(b'S', &[&xid.to_be_bytes(), b"\x01"])
    }

    fn abort(xid: u32, part: u32) -> Bytes {
        message(b'A', &[&xid.to_be_bytes(), &part.to_be_bytes()])
    }

    fn commit(xid: u32) -> Bytes {
        message(b'c', &[&xid.to_be_bytes(), &[0; 25]])
    }

    /// A logical message stands for whatever a transaction does.
    fn said(part: u32, what: &[u8]) -> Bytes {
        message(b'M', &[&part.to_be_bytes(), what])
    }

    fn described(part: Option<u32>, name: &str) -> Bytes {
        let part = part.map(u32::to_be_bytes);
        let part: &[u8] = part.as_ref().map_or(&[], |part| part);
        message(
            b'R',
            &[
                part,
                &7_u32.to_be_bytes(),
                b"public\0",
                name.as_bytes(),
                b"\0d\0\0",
            ],
        )
    }

    /// Takes in messages, and writes whatever is due.
    async fn take(spool: &mut Spool, messages: impl IntoIterator<Item = Bytes>) -> Option<Replay> {
        let mut committed = None;
        for message in messages {
            match spool.push(message, false).unwrap() {
                Step::Pass(_) => panic!("it was not kept"),
                Step::Taken => {}
                Step::Commit { replay, .. } => committed = Some(replay),
            }
            if let Some(write) = spool.due().unwrap() {
                write.run().await.unwrap();
            }
        }
        committed
    }

    async fn messages(mut replay: Replay) -> Vec<Bytes> {
        let (assembler, mut messages) = (assembler(), Vec::new());
        loop {
            while let Some(message) = replay.next(&assembler).unwrap() {
                messages.push(message);
            }
            match replay.read() {
                Some(read) => replay.give(&read.run().await.unwrap()),
                None => return messages,
            }
        }
    }

    #[tokio::test]
    async fn what_is_taken_back_is_missing_and_the_rest_is_in_order() {
        let mut spool = spool();
        // More than is held in memory, so that parts are taken back from the file.
        let long = |byte: u8| vec![byte; BUFFER / 2];
        let none = take(
            &mut spool,
            [
                start(1),
                said(1, b"a"),
                said(2, &long(b'b')),
                said(3, &long(b'c')),
                said(1, &long(b'd')),
                message(b'E', &[]),
                start(9),
                said(9, b"other"),
                message(b'E', &[]),
                abort(1, 3),
                start(1),
                said(4, b"e"),
                said(5, b"f"),
                message(b'E', &[]),
                abort(1, 5),
                abort(1, 4),
                abort(1, 6),
                abort(9, 9),
                start(1),
                said(5, b"g"),
                said(1, b"h"),
                message(b'E', &[]),
            ],
        );
        assert!(none.await.is_none());
        let replay = take(&mut spool, [commit(1)]).await.unwrap();
        let said = |what: &[u8]| message(b'M', &[what]);
        let expected = [said(b"a"), said(&long(b'b')), said(b"g"), said(b"h")];
        assert!(messages(replay).await == expected);
        assert!(spool.push(commit(1), false).is_err());
        assert!(spool.push(commit(9), false).is_err());
    }

    /// How the table is described behind a transaction in progress that comes between others.
    async fn name_behind(early: &str, within: &str, late: Option<&str>) -> String {
        let (mut spool, mut assembler) = (spool(), assembler());
        let mut outside = |spool: &mut Spool, name: &str| {
            let Step::Pass(message) = spool.push(described(None, name), true).unwrap() else {
                panic!("it was kept");
            };
            assembler.push(message).unwrap();
        };
        outside(&mut spool, early);
        let chunk = [start(1), described(Some(1), within), message(b'E', &[])];
        take(&mut spool, chunk).await;
        if let Some(late) = late {
            outside(&mut spool, late);
        }
        let mut replay = take(&mut spool, [commit(1)]).await.unwrap();
        let read = replay.read().unwrap().run().await.unwrap();
        replay.give(&read);
        assembler.take(Message::Begin { final_lsn: 9 }, 0).unwrap();
        while let Some(message) = replay.next(&assembler).unwrap() {
            assembler.push(message).unwrap();
        }
        for relation in replay.recalled(&mut spool) {
            assembler.recall(relation);
        }
        assembler.relation(7).unwrap().name.clone()
    }

    #[tokio::test]
    async fn rows_behind_a_transaction_look_as_was_said_last_and_not_as_it_says_when_it_commits() {
        assert_eq!(name_behind("a", "b", Some("c")).await, "c");
        assert_eq!(name_behind("a", "b", None).await, "b");
    }

    #[test]
    fn more_than_the_limit_is_not_kept() {
        let mut spool = Spool::new(std::env::temp_dir(), 100);
        assert!(matches!(spool.push(start(1), false), Ok(Step::Taken)));
        assert!(matches!(
            spool.push(said(1, &[0; 80]), false),
            Ok(Step::Taken)
        ));
        let more = spool.push(said(1, &[0; 80]), false);
        assert!(matches!(more, Err(Error::Unspooled(_))));
    }

    #[test]
    fn more_subtransactions_than_can_be_noted_are_not_kept() {
        let mut spool = spool();
        assert!(spool.push(start(1), false).is_ok());
        for part in 0..u32::try_from(PARTS).unwrap() {
            assert!(spool.push(said(part + 2, b""), false).is_ok());
        }
        let more = spool.push(said(0, b""), false);
        assert!(matches!(more, Err(Error::Unspooled(_))));
    }

    #[test]
    fn a_disk_that_cannot_be_written_is_told() {
        let mut spool = Spool::new("/nowhere/at/all".into(), LIMIT);
        for message in [start(1), said(1, b"a"), message(b'E', &[])] {
            assert!(spool.push(message, false).is_ok());
        }
        assert!(matches!(spool.due(), Err(Error::Unspooled(_))));
    }

    #[test]
    fn chunks_in_the_wrong_place_are_errors() {
        assert!(spool().push(start(1), true).is_err());
        assert!(spool().push(message(b'E', &[]), false).is_err());
        let mut spool = spool();
        assert!(spool.push(start(1), false).is_ok());
        assert!(spool.push(message(b'B', &[&[0; 20]]), false).is_err());
        assert!(spool.push(message(b'I', &[b"\0"]), false).is_err());
    }
}
