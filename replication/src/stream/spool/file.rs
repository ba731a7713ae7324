//! What is kept of one transaction in progress.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write as _};
use std::path::Path;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::malformed;
use crate::prepare::blocking;
use crate::{Error, Result};

/// Bytes before each message: its length.
pub(super) const HEADER: usize = 4;

/// A message of a chunk, which is as that of an ordinary transaction but for the transaction's
/// number.
pub(super) struct Piece {
    tag: u8,
    /// The transaction or the part of it, which may be taken back alone.
    part: u32,
    rest: Bytes,
}

impl Piece {
    pub(super) fn of(mut message: Bytes) -> Result<Self> {
        if message.len() < 5 {
            return Err(malformed("a message of a chunk ends too early"));
        }
        Ok(Self {
            tag: message.get_u8(),
            part: message.get_u32(),
            rest: message,
        })
    }

    /// Bytes it takes.
    pub(super) fn length(&self) -> u64 {
        (HEADER + 1 + self.rest.len()) as u64
    }

    /// The table it describes, if it does.
    pub(super) fn describes(&self) -> Option<u32> {
        let oid = self.rest.first_chunk();
        oid.filter(|_| self.tag == b'R')
            .map(|oid| u32::from_be_bytes(*oid))
    }
}

/// The messages of a transaction: what is in its file, then what is in memory.
#[derive(Default)]
pub(super) struct Spooled {
    pub(super) file: Option<Arc<File>>,
    /// Bytes of the file that count.
    pub(super) written: u64,
    /// Whether the file is longer than that.
    cut: bool,
    pub(super) buffer: BytesMut,
    /// Where the first message of each part is, in order.
    parts: Vec<(u32, u64)>,
    places: HashMap<u32, u64>,
    /// By `pg_class.oid`, when a table was described last.
    pub(super) relations: HashMap<u32, u64>,
}

impl Spooled {
    /// Bytes of its messages.
    pub(super) fn length(&self) -> u64 {
        self.written + self.buffered() as u64
    }

    /// Bytes that are not in the file.
    pub(super) fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// Subtransactions that may be taken back alone. Where each begins is held in memory.
    pub(super) fn parts(&self) -> usize {
        self.parts.len()
    }

    /// Adds a message; `described` says which table it describes, and when that was. Gives how many
    /// parts begin with it.
    pub(super) fn push(
        &mut self,
        xid: u32,
        piece: &Piece,
        described: Option<(u32, u64)>,
    ) -> Result<usize> {
        let place = self.length();
        let begins = piece.part != xid && !self.places.contains_key(&piece.part);
        if begins {
            self.parts.push((piece.part, place));
            self.places.insert(piece.part, place);
        }
        let length = u32::try_from(1 + piece.rest.len());
        self.buffer
            .put_u32(length.map_err(|_| malformed("a message is too long"))?);
        self.buffer.put_u8(piece.tag);
        self.buffer.put_slice(&piece.rest);
        self.relations.extend(described);
        Ok(usize::from(begins))
    }

    /// Takes back a part, and with it whatever came since it began: while a part is open, only its
    /// own parts do anything.
    ///
    /// INVARIANT: PostgreSQL describes tables anew after that, also those it had described before
    /// the part began. So how they look to other transactions is not known from here.
    pub(super) fn take_back(&mut self, part: u32) {
        self.relations.clear();
        let Some(place) = self.places.get(&part).copied() else {
            return;
        };
        while let Some((later, _)) = self.parts.pop_if(|(_, at)| *at >= place) {
            self.places.remove(&later);
        }
        match place.checked_sub(self.written) {
            Some(kept) => self
                .buffer
                .truncate(usize::try_from(kept).unwrap_or(usize::MAX)),
            None => {
                self.written = place;
                self.cut = true;
                self.buffer.clear();
            }
        }
    }

    /// Moves what is in memory to the file, which is made in `directory` if there is none.
    pub(super) fn write(&mut self, directory: &Path) -> Result<Write> {
        let file = match &self.file {
            Some(file) => Arc::clone(file),
            None => {
                // Without a name it goes with the process, however that ends.
                let file = tempfile::tempfile_in(directory).map_err(|error| {
                    Error::Unspooled(format!(
                        "no file can be made in {}: {error}",
                        directory.display()
                    ))
                })?;
                Arc::clone(self.file.insert(Arc::new(file)))
            }
        };
        let write = Write {
            file,
            at: self.written,
            cut: std::mem::take(&mut self.cut),
            bytes: self.buffer.split().freeze(),
        };
        self.written += write.bytes.len() as u64;
        Ok(write)
    }
}

/// Bytes on their way to a file.
pub(crate) struct Write {
    file: Arc<File>,
    at: u64,
    cut: bool,
    bytes: Bytes,
}

impl Write {
    /// Writes them. Nothing of the transaction may be done before that has ended.
    ///
    /// # Errors
    /// [`Error::Unspooled`] where the disk is full or fails.
    pub(crate) async fn run(self) -> Result<()> {
        blocking(move || {
            self.write().map_err(|error| {
                Error::Unspooled(format!(
                    "what is in progress cannot be written to a file: {error}"
                ))
            })
        })
        .await
    }

    fn write(&self) -> std::io::Result<()> {
        let mut file = &*self.file;
        if self.cut {
            file.set_len(self.at)?;
        }
        file.seek(SeekFrom::Start(self.at))?;
        file.write_all(&self.bytes)
    }
}
