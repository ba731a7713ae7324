//! Transactions on their way into one batch: reads see what was written before them.

use std::collections::HashMap;
use std::sync::Arc;

use fjall::{Keyspace, OwnedWriteBatch, Readable, Slice};
use kelvin_protocol::{Value, Version};

use crate::archive::{Record, encode_entry, encode_row, entry_primary, since};
use crate::error::{Error, Result};
use crate::layout::{ended_key, space_key};
use crate::shape::{IndexSpace, TableSpace};
use crate::view::{View, ViewInner};
use crate::{Datum, IndexId, Row, RowChange, RowId, RowOp, TableId};

/// Bytes a record of the history takes beside its key and value, for accounting.
const HISTORY_OVERHEAD: u64 = 24;

/// One row the batch has looked at.
struct RowSlot {
    table: Arc<TableSpace>,
    key: Slice,
    before: Option<Row>,
    now: Option<Row>,
    /// Last transaction that wrote it, if any did.
    touched: Option<Version>,
}

/// One index entry the batch has moved.
struct EntrySlot {
    table: Arc<TableSpace>,
    key: Slice,
    existed: bool,
    now: Option<Slice>,
}

/// A record that ended within the batch.
struct Ended {
    table: TableId,
    key: Slice,
    end: Version,
    record: Slice,
}

/// Rows and index entries as the transactions so far leave them, over the view they started from.
pub(crate) struct Overlay<'a> {
    base: Arc<ViewInner>,
    rows: Vec<RowSlot>,
    row_at: HashMap<(TableId, Slice), usize>,
    entries: Vec<EntrySlot>,
    entry_at: HashMap<(TableId, Slice), usize>,
    ended: Vec<Ended>,
    /// Next free row numbers before the batch.
    free: &'a HashMap<TableId, RowId>,
    /// Next free row numbers of the tables that took some.
    taken: HashMap<TableId, RowId>,
    /// Rows written by the transaction under way, by their place in `rows`.
    touched: Vec<usize>,
}

impl<'a> Overlay<'a> {
    /// Over the newest view. `free` are the next free row numbers.
    pub(crate) fn new(base: &View, free: &'a HashMap<TableId, RowId>) -> Self {
        Self {
            base: base.inner().clone(),
            rows: Vec::new(),
            row_at: HashMap::new(),
            entries: Vec::new(),
            entry_at: HashMap::new(),
            ended: Vec::new(),
            free,
            taken: HashMap::new(),
            touched: Vec::new(),
        }
    }

    /// Applies one operation of the transaction at `version`.
    pub(crate) fn apply(&mut self, op: &RowOp, version: Version) -> Result<()> {
        match op {
            RowOp::Insert { table, row } => {
                let space = self.base.shape.table(*table)?.clone();
                self.upsert(&space, row, version)
            }
            RowOp::Update {
                table,
                old_key,
                row,
            } => {
                let space = self.base.shape.table(*table)?.clone();
                self.update(&space, old_key.as_deref(), row, version)
            }
            RowOp::Delete { table, key } => {
                let space = self.base.shape.table(*table)?.clone();
                let key = space.primary_key(key)?;
                let at = self.load(&space, key.into())?;
                self.replace(at, None, version)
            }
            RowOp::Truncate { tables } => {
                for table in tables {
                    let space = self.base.shape.table(*table)?.clone();
                    self.truncate(&space, version)?;
                }
                Ok(())
            }
        }
    }

    /// Keys of the rows the transaction under way has written; the next one begins.
    pub(crate) fn end_transaction(&mut self) -> Vec<(TableId, Slice)> {
        let touched = std::mem::take(&mut self.touched);
        let slots = touched.into_iter().filter_map(|at| self.rows.get(at));
        slots
            .map(|slot| (slot.table.table.id, slot.key.clone()))
            .collect()
    }

    /// Writes what changed in the tables, each key once, and what ended into `bucket`. Returns the
    /// bytes of history, roughly.
    pub(crate) fn write(&self, batch: &mut OwnedWriteBatch, bucket: &Keyspace) -> u64 {
        let rows = self.rows.iter().filter(|slot| slot.touched.is_some());
        let rows = rows.map(|slot| {
            let record = slot.now.as_ref().map(|row| row.record().bytes());
            (&slot.table, &slot.key, slot.before.is_some(), record)
        });
        let entries = self.entries.iter();
        let entries = entries.map(|slot| (&slot.table, &slot.key, slot.existed, slot.now.as_ref()));
        for (table, key, existed, record) in rows.chain(entries) {
            match record {
                Some(record) => batch.insert(&table.keyspace, key.clone(), record.clone()),
                None if existed => batch.remove(&table.keyspace, key.clone()),
                None => {}
            }
        }
        let mut bytes = 0;
        for ended in &self.ended {
            let key = ended_key(ended.table, &ended.key, ended.end);
            bytes += (key.len() + ended.record.len()) as u64 + HISTORY_OVERHEAD;
            batch.insert(bucket, key, ended.record.clone());
        }
        bytes
    }

    /// The net change of every row that was written and is or was there, and the next free row
    /// numbers of the tables that took some.
    pub(crate) fn finish(self) -> (Vec<RowChange>, HashMap<TableId, RowId>) {
        let written = self.rows.into_iter().filter(|slot| slot.touched.is_some());
        let changes = written
            .filter(|slot| slot.before.is_some() || slot.now.is_some())
            .map(|slot| RowChange {
                table: slot.table.table.id,
                old: slot.before,
                new: slot.now,
            })
            .collect();
        (changes, self.taken)
    }

    fn upsert(&mut self, space: &Arc<TableSpace>, row: &[Value], version: Version) -> Result<()> {
        let key = space.row_key(row)?;
        let at = self.load(space, key.into())?;
        let id = match self.current(at) {
            Some(row) => row.id,
            None => self.take_row_id(space.table.id)?,
        };
        let record = Record::read(encode_row(version, id, row)?.into())?;
        self.replace(at, Some(Row::new(version, id, record)), version)
    }

    fn update(
        &mut self,
        space: &Arc<TableSpace>,
        old_key: Option<&[Value]>,
        row: &[Datum],
        version: Version,
    ) -> Result<()> {
        let old_key = match old_key {
            Some(key) => key.to_vec(),
            None => key_of(space, row)?,
        };
        let old = self.load(space, space.primary_key(&old_key)?.into())?;
        let before = self.current(old);
        let value = |(at, datum): (usize, &Datum)| match datum {
            Datum::Value(value) => value.clone(),
            Datum::Unchanged => match space.table.key.iter().position(|column| *column == at) {
                Some(position) => old_key.get(position).cloned().unwrap_or(Value::Null),
                None => before.map_or(Value::Null, |row| row.value(at).to_value()),
            },
        };
        let values: Vec<_> = row.iter().enumerate().map(value).collect();
        let new_key = space.row_key(&values)?;
        if self.rows.get(old).is_some_and(|slot| *slot.key != *new_key) {
            self.replace(old, None, version)?;
        }
        self.upsert(space, &values, version)
    }

    fn truncate(&mut self, space: &Arc<TableSpace>, version: Version) -> Result<()> {
        let base = self.base.clone();
        let rows = base
            .snapshot
            .prefix(&space.keyspace, space_key(IndexId::PRIMARY));
        for row in rows {
            self.load(space, row.key()?)?;
        }
        let of_table = |slot: &RowSlot| slot.table.table.id == space.table.id;
        for at in 0..self.rows.len() {
            if self.rows.get(at).is_some_and(of_table) {
                self.replace(at, None, version)?;
            }
        }
        Ok(())
    }

    fn take_row_id(&mut self, table: TableId) -> Result<RowId> {
        let free = self.free.get(&table).copied().unwrap_or_default();
        let next = self.taken.entry(table).or_insert(free);
        let id = *next;
        *next = id.checked_add(1).ok_or(Error::Exhausted(table))?;
        Ok(id)
    }

    fn current(&self, at: usize) -> Option<&Row> {
        self.rows.get(at)?.now.as_ref()
    }

    /// The place in `rows` of the row under this key.
    fn load(&mut self, space: &Arc<TableSpace>, key: Slice) -> Result<usize> {
        let id = (space.table.id, key);
        if let Some(at) = self.row_at.get(&id) {
            return Ok(*at);
        }
        let before = match self.base.snapshot.get(&space.keyspace, &id.1)? {
            Some(bytes) => Some(self.base.decode(space, bytes)?),
            None => None,
        };
        let at = self.rows.len();
        self.rows.push(RowSlot {
            table: space.clone(),
            key: id.1.clone(),
            now: before.clone(),
            before,
            touched: None,
        });
        self.row_at.insert(id, at);
        Ok(at)
    }

    fn replace(&mut self, at: usize, new: Option<Row>, version: Version) -> Result<()> {
        let Some(slot) = self.rows.get_mut(at) else {
            return Ok(());
        };
        let old = slot.now.take();
        if old.is_none() && new.is_none() {
            return Ok(());
        }
        if slot.touched.replace(version) != Some(version) {
            self.touched.push(at);
        }
        let (space, key) = (slot.table.clone(), slot.key.clone());
        if let Some(old) = &old
            && since(old.record().bytes())? < version
        {
            self.ended.push(Ended {
                table: space.table.id,
                key: key.clone(),
                end: version,
                record: old.record().bytes().clone(),
            });
        }
        for index in &space.indexes {
            let entry = |row: &Row| index.entry_key(|at| row.value(at), &key);
            let (old, new) = (old.as_ref().map(entry), new.as_ref().map(entry));
            self.move_entry(&space, index, old, new, version)?;
        }
        if let Some(slot) = self.rows.get_mut(at) {
            slot.now = new;
        }
        Ok(())
    }

    fn move_entry(
        &mut self,
        space: &Arc<TableSpace>,
        index: &IndexSpace,
        old: Option<(Vec<u8>, usize)>,
        new: Option<(Vec<u8>, usize)>,
        version: Version,
    ) -> Result<()> {
        if old == new {
            return Ok(());
        }
        if let Some((key, _)) = old {
            let at = self.load_entry(space, key.into())?;
            let removed = self.entries.get_mut(at).and_then(|slot| slot.now.take());
            let Some(record) = removed else {
                return Err(Error::Corrupt(format!(
                    "index {} of table {:?} lacks the entry of a row",
                    index.id.0, space.table.name
                )));
            };
            if since(&record)? < version
                && let Some(slot) = self.entries.get(at)
            {
                self.ended.push(Ended {
                    table: space.table.id,
                    key: slot.key.clone(),
                    end: version,
                    record,
                });
            }
        }
        if let Some((key, offset)) = new {
            let at = self.load_entry(space, key.into())?;
            if let Some(slot) = self.entries.get_mut(at) {
                slot.now = Some(encode_entry(version, offset).into());
            }
        }
        Ok(())
    }

    fn load_entry(&mut self, space: &Arc<TableSpace>, key: Slice) -> Result<usize> {
        let id = (space.table.id, key);
        if let Some(at) = self.entry_at.get(&id) {
            return Ok(*at);
        }
        let now = self.base.snapshot.get(&space.keyspace, &id.1)?;
        if let Some(record) = &now {
            entry_primary(&id.1, record)?;
        }
        let at = self.entries.len();
        self.entries.push(EntrySlot {
            table: space.clone(),
            key: id.1.clone(),
            existed: now.is_some(),
            now,
        });
        self.entry_at.insert(id, at);
        Ok(at)
    }
}

/// The key of an updated row whose key did not change.
fn key_of(space: &TableSpace, row: &[Datum]) -> Result<Vec<Value>> {
    let value = |at: &usize| match row.get(*at) {
        Some(Datum::Value(value)) => Ok(value.clone()),
        _ => Err(Error::Invalid(format!(
            "an update of table {:?} does not say which row it is about",
            space.table.name
        ))),
    };
    space.table.key.iter().map(value).collect()
}
