//! Taking back the parts of a transaction that was not finished.
//!
//! The changelog of its version has every row that its parts wrote. Such a row goes back to what it
//! was by itself: what ended at that version stands again, what stands since that version goes, and
//! so do the index entries that follow from either. How often it was written in between does not
//! matter, for of that nothing is left.
//!
//! INVARIANT: it can be broken off anywhere and begun again. A row goes back in one batch with its
//! entries and its history, after which nothing of it has that version, so that it is left alone
//! the next time. Its record of the changelog goes in the same batch as the last of its rows or
//! later. The note that a transaction is under way goes last.

use std::collections::{BTreeSet, HashSet};

use fail::fail_point;
use fjall::{Keyspace, OwnedWriteBatch, Readable, Slice, Snapshot};
use kelvin_protocol::Version;

use crate::archive::{encode_entry, since};
use crate::changelog::decode;
use crate::era::Era;
use crate::error::{Error, Result};
use crate::gate::{WriteGate, unpinned};
use crate::layout::{changelog_key, ended_key};
use crate::meta::MetaWriter;
use crate::shape::{Bucket, Shape};
use crate::table_space::TableSpace;

/// Estimated bytes of a key and its record in a batch, beside their own.
const ITEM_BYTES: usize = 128;

/// Takes back what was written of the transaction at `version`, in bounded batches, and calls
/// `written` after each.
pub(crate) fn roll_back(
    gate: &WriteGate,
    meta: &Keyspace,
    shape: &Shape,
    version: Version,
    written: &dyn Fn() -> Result<()>,
) -> Result<()> {
    tracing::info!(version, "taking back a transaction that was half applied");
    let mut from = changelog_key(version, 0);
    loop {
        let mut undo = Undo::new(gate, shape, version)?;
        let Some(next) = undo.records(from)? else {
            let batch = &mut undo.batch;
            MetaWriter { meta, batch }.forget_under_way();
            undo.commit(Some(meta))?;
            return written();
        };
        undo.commit(None)?;
        written()?;
        from = next;
    }
}

/// One batch.
struct Undo<'a> {
    gate: &'a WriteGate,
    shape: &'a Shape,
    bucket: &'a Bucket,
    era: &'a Era,
    /// From before the batch. One for all batches would keep what they write in memory.
    snapshot: Snapshot,
    version: Version,
    batch: OwnedWriteBatch,
    /// Estimated bytes of the batch.
    bytes: usize,
    /// Spaces and rows the batch is about.
    spaces: BTreeSet<u32>,
    seen: HashSet<(u32, Slice)>,
}

impl<'a> Undo<'a> {
    fn new(gate: &'a WriteGate, shape: &'a Shape, version: Version) -> Result<Self> {
        Ok(Self {
            gate,
            shape,
            bucket: shape.active_bucket()?,
            era: shape.era()?,
            snapshot: gate.db.snapshot(),
            version,
            batch: gate.db.batch(),
            bytes: 0,
            spaces: BTreeSet::new(),
            seen: HashSet::new(),
        })
    }

    /// Takes back the rows of the changelog's records from this key on, until the batch is full.
    /// Returns the key of the record to go on with, if there is one.
    fn records(&mut self, from: Vec<u8>) -> Result<Option<Vec<u8>>> {
        let keyspace = &self.bucket.keyspace;
        let to = changelog_key(self.version, u32::MAX);
        for record in self.snapshot.range(keyspace, from..=to) {
            let (key, bytes) = record.into_inner()?;
            for (space, row) in decode(&bytes)? {
                if self.bytes >= self.gate.options.part_bytes {
                    return Ok(Some(key.to_vec()));
                }
                self.row(space, unpinned(&row))?;
            }
            self.remove(keyspace, unpinned(&key));
        }
        Ok(None)
    }

    /// Lets the row under a key be what it was.
    fn row(&mut self, number: u32, key: Slice) -> Result<()> {
        if self.seen.contains(&(number, key.clone())) {
            return Ok(());
        }
        let Some(space) = self.era.space(number) else {
            return Err(Error::Corrupt(
                "a transaction wrote to a table that is not there".into(),
            ));
        };
        let history = ended_key(number, &key, self.version);
        let now = self.snapshot.get(&space.keyspace, &key)?;
        let before = self.snapshot.get(&self.bucket.keyspace, &history)?;
        let now = match now {
            Some(record) if since(&record)? == self.version => Some(record),
            _ => None,
        };
        if now.is_none() && before.is_none() {
            return Ok(());
        }
        let mut kept = Vec::new();
        if let Some(record) = &before {
            kept = self.entries(space, &key, record)?;
        }
        if let Some(record) = &now {
            // No key may be in a batch twice.
            let moved = self.entries(space, &key, record)?.into_iter();
            let moved = moved.filter(|(entry, _)| kept.iter().all(|(other, _)| other != entry));
            for (entry, _) in moved {
                self.remove(&space.keyspace, entry);
            }
        }
        for (entry, record) in kept {
            let ended = ended_key(number, &entry, self.version);
            self.remove(&self.bucket.keyspace, ended);
            self.insert(&space.keyspace, entry, record);
        }
        match before {
            Some(record) => {
                self.remove(&self.bucket.keyspace, history);
                self.insert(&space.keyspace, key.clone(), unpinned(&record));
            }
            None => self.remove(&space.keyspace, key.clone()),
        }
        self.spaces.insert(number);
        self.seen.insert((number, key));
        Ok(())
    }

    /// The index entries of a row.
    fn entries(
        &self,
        space: &TableSpace,
        key: &[u8],
        record: &Slice,
    ) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let row = space.read(record.clone(), self.shape.loaded_at)?;
        let entry = |index: &crate::table_space::IndexSpace| {
            let (entry, offset) = index.entry_key(|at| row.value(at), key);
            let since = row.record().entry_since(index.id)?;
            Ok((entry, encode_entry(since, offset)))
        };
        space.indexes.iter().map(entry).collect()
    }

    fn insert(&mut self, keyspace: &Keyspace, key: impl Into<Slice>, record: impl Into<Slice>) {
        let (key, record) = (key.into(), record.into());
        self.bytes += key.len() + record.len() + ITEM_BYTES;
        self.batch.insert(keyspace, key, record);
    }

    fn remove(&mut self, keyspace: &Keyspace, key: impl Into<Slice>) {
        let key = key.into();
        self.bytes += key.len() + ITEM_BYTES;
        self.batch.remove(keyspace, key);
    }

    fn commit(self, meta: Option<&Keyspace>) -> Result<()> {
        let spaces = self.spaces.iter();
        let spaces = spaces.filter_map(|number| self.era.space(*number));
        let mut keyspaces: Vec<_> = spaces.map(|space| space.keyspace.clone()).collect();
        keyspaces.push(self.bucket.keyspace.clone());
        keyspaces.extend(meta.cloned());
        // A snapshot would keep in memory what has to be flushed first.
        drop(self.snapshot);
        self.gate.make_room(|| self.shape.keyspaces())?;
        self.gate.commit(self.batch, &keyspaces)?;
        fail_point!("undo-after-commit");
        Ok(())
    }
}
