//! Reading a transaction that was in progress, when it commits.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read as _, Seek, SeekFrom};
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};

use super::file::{HEADER, Spooled};
use super::{BUFFER, Spool, relation_oid};
use crate::prepare::blocking;
use crate::stream::assembler::Assembler;
use crate::stream::pgoutput::Relation;
use crate::{Error, Result};

/// The messages of a transaction, as those of an ordinary one.
pub(crate) struct Replay {
    file: Option<Arc<File>>,
    /// Bytes of the file that were read, of so many.
    read: u64,
    written: u64,
    /// What follows those of the file.
    rest: BytesMut,
    bytes: BytesMut,
    /// When it described tables last.
    relations: HashMap<u32, u64>,
    /// How tables looked for other transactions before this one described them.
    known: HashMap<u32, Relation>,
}

/// Bytes to be read from a file.
pub(crate) struct Read {
    file: Arc<File>,
    at: u64,
    length: usize,
}

impl Replay {
    pub(super) fn new(spooled: Spooled) -> Self {
        Self {
            file: spooled.file,
            read: 0,
            written: spooled.written,
            rest: spooled.buffer,
            bytes: BytesMut::new(),
            relations: spooled.relations,
            known: HashMap::new(),
        }
    }

    /// The next message, for the assembler. `None` at the end, or where more has to be
    /// [read](Replay::read).
    ///
    /// # Errors
    /// Where the file is not as it was written.
    pub(crate) fn next(&mut self, assembler: &Assembler) -> Result<Option<Bytes>> {
        if self.read == self.written && !self.rest.is_empty() {
            self.bytes.unsplit(self.rest.split());
        }
        let length = match self.bytes.first_chunk() {
            Some(length) => u32::from_be_bytes(*length) as usize,
            None if self.read == self.written && !self.bytes.is_empty() => return Err(damaged()),
            None => return Ok(None),
        };
        if self.bytes.len() - HEADER < length {
            let rest = self.written - self.read;
            let missing = (length - (self.bytes.len() - HEADER)) as u64;
            return if missing > rest {
                Err(damaged())
            } else {
                Ok(None)
            };
        }
        self.bytes.advance(HEADER);
        let message = self.bytes.split_to(length).freeze();
        if let Some(oid) = relation_oid(&message)
            && !self.known.contains_key(&oid)
            && let Some(relation) = assembler.relation(oid)
        {
            self.known.insert(oid, relation.clone());
        }
        Ok(Some(message))
    }

    /// What is to be read next, and then [given](Replay::give) back; `None` at the end.
    pub(crate) fn read(&self) -> Option<Read> {
        let file = self.file.as_ref()?;
        let rest = self.written - self.read;
        (rest > 0).then(|| Read {
            file: Arc::clone(file),
            at: self.read,
            length: usize::try_from(rest).map_or(BUFFER, |rest| rest.min(BUFFER)),
        })
    }

    /// Takes what was read.
    pub(crate) fn give(&mut self, bytes: &[u8]) {
        self.read += bytes.len() as u64;
        self.bytes.extend_from_slice(bytes);
    }

    /// The relations that rows of other transactions still have, though this one described the
    /// tables otherwise, for it did so before. All of it was read.
    pub(crate) fn recalled(self, spool: &mut Spool) -> Vec<Relation> {
        let committed = &mut spool.arrivals.committed;
        let is_newer = |oid: &u32| match (committed.get(oid), self.relations.get(oid)) {
            (Some(committed), Some(described)) => committed > described,
            _ => true,
        };
        let known = self.known.into_iter();
        let recalled = known.filter(|(oid, _)| is_newer(oid));
        let recalled = recalled.map(|(_, relation)| relation).collect();
        for (oid, described) in self.relations {
            let committed = committed.entry(oid).or_default();
            *committed = described.max(*committed);
        }
        recalled
    }
}

impl Read {
    /// Reads.
    ///
    /// # Errors
    /// [`Error::Unspooled`] where the file cannot be read.
    pub(crate) async fn run(self) -> Result<Vec<u8>> {
        blocking(move || {
            let mut bytes = vec![0; self.length];
            let mut file = &*self.file;
            let read = file.seek(SeekFrom::Start(self.at));
            let read = read.and_then(|_| file.read_exact(&mut bytes));
            match read {
                Ok(()) => Ok(bytes),
                Err(error) => Err(Error::Unspooled(format!(
                    "what was in progress cannot be read again: {error}"
                ))),
            }
        })
        .await
    }
}

fn damaged() -> Error {
    Error::Unspooled("the file of a transaction in progress is damaged".into())
}
