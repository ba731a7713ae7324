//! Transactions on their way into one batch: reads see what was written before them.

mod parts;
mod prefetch;
mod rewrite;
mod schema;
mod slots;
mod write;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use fjall::{Readable, Slice, Snapshot};
use kelvin_protocol::{Value, ValueRef, Version};

use crate::archive::{RowEncoder, encode_entry, since};
use crate::era::Era;
use crate::error::{Error, Result};
use crate::gate::unpinned;
use crate::layout::{ended_key, space_key};
use crate::table_space::TableSpace;
use crate::view::View;
use crate::{Datum, IndexId, Row, RowChange, RowId, RowOp, TableId};

pub(crate) use prefetch::{Readers, WINDOW};
pub(crate) use schema::{SchemaDraft, Workshop};
pub(crate) use slots::Slots;

use prefetch::Ahead;
use slots::{Ended, EntrySlot, Place, RowSlot};

/// Rows and index entries as the transactions so far leave them, over the view they started from.
pub(crate) struct Overlay<'a> {
    /// What was there before the batch, and what a rewrite has put beside it since.
    snapshot: Snapshot,
    /// The version of that, and whether it holds parts of the transaction besides.
    base: Version,
    partial: bool,
    loaded_at: Version,
    era: Arc<Era>,
    /// What the transaction makes of the schema, if it touches it.
    schema: Option<SchemaDraft>,
    workshop: Workshop<'a>,
    slots: Slots,
    /// Rows of the operations to come.
    ahead: Option<Ahead>,
    /// Spaces that the batch leaves as they were, because their table is gone or kept elsewhere
    /// now.
    left: HashSet<u32>,
    /// Next free row numbers before the batch.
    free: &'a HashMap<TableId, RowId>,
    /// Next free row numbers of the tables that took some.
    taken: HashMap<TableId, RowId>,
    /// By how many rows tables have grown.
    grown: HashMap<TableId, i64>,
    encoder: RowEncoder,
    /// Estimated bytes of memory.
    weight: usize,
}

/// What a batch comes to.
pub(crate) struct Outcome {
    /// The net change of every row that was written and is or was there.
    pub(crate) changes: Vec<RowChange>,
    /// The next free row numbers of the tables that took some.
    pub(crate) taken: HashMap<TableId, RowId>,
    /// By how many rows tables have grown.
    pub(crate) grown: HashMap<TableId, i64>,
    /// The new schema, if there is one.
    pub(crate) schema: Option<SchemaDraft>,
    /// For the next overlay.
    pub(crate) slots: Slots,
}

impl<'a> Overlay<'a> {
    /// Over the newest view. `free` are the next free row numbers, `slots` are empty.
    pub(crate) fn new(
        base: &View,
        free: &'a HashMap<TableId, RowId>,
        workshop: Workshop<'a>,
        slots: Slots,
    ) -> Self {
        let base = base.inner();
        Self {
            snapshot: base.snapshot.clone(),
            base: base.version,
            partial: base.partial,
            loaded_at: base.shape.loaded_at,
            era: base.era.clone(),
            schema: None,
            workshop,
            slots,
            ahead: None,
            left: HashSet::new(),
            free,
            taken: HashMap::new(),
            grown: HashMap::new(),
            encoder: RowEncoder::default(),
            weight: 0,
        }
    }

    /// Applies one operation of the transaction at `version`.
    pub(crate) fn apply(&mut self, op: &RowOp, version: Version) -> Result<()> {
        match op {
            RowOp::Insert { table, row } => {
                let space = self.space(*table)?;
                self.upsert(&space, row, version)
            }
            RowOp::Update {
                table,
                old_key,
                row,
            } => {
                let space = self.space(*table)?;
                self.update(&space, old_key.as_deref(), row, version)
            }
            RowOp::Delete { table, key } => {
                let space = self.space(*table)?;
                let key = space.primary_key(key)?;
                let at = self.load(&space, key.into())?;
                self.replace(at, None, version)
            }
            RowOp::Truncate { tables } => {
                for table in tables {
                    let space = self.space(*table)?;
                    self.truncate(&space, version)?;
                }
                Ok(())
            }
            RowOp::Schema(change) => self.change_schema(change, version),
        }
    }

    /// The table as it is now.
    fn space(&self, id: TableId) -> Result<Arc<TableSpace>> {
        match &self.schema {
            Some(draft) => draft.table(id).cloned(),
            None => self.era.table(id).cloned(),
        }
    }

    /// Keys of the rows the transaction under way has written; the next one begins.
    pub(crate) fn end_transaction(&mut self) -> Vec<Place> {
        let (rows, left) = (&self.slots.rows, &self.left);
        let slots = self.slots.touched.drain(..).filter_map(|at| rows.get(at));
        slots
            .map(|slot| (slot.space.number(), slot.key.clone()))
            .filter(|(space, _)| !left.contains(space))
            .collect()
    }

    /// What it all comes to.
    pub(crate) fn finish(mut self) -> Outcome {
        let left = std::mem::take(&mut self.left);
        let written = self.slots.rows.drain(..).filter(|slot| {
            let there = slot.before.is_some() || slot.now.is_some();
            there && slot.touched.is_some() && !left.contains(&slot.space.number())
        });
        let changes = written.map(|slot| RowChange {
            table: slot.space.table.id,
            old: slot.before,
            new: slot.now,
        });
        Outcome {
            changes: changes.collect(),
            slots: self.slots.emptied(),
            taken: self.taken,
            grown: self.grown,
            schema: self.schema,
        }
    }

    fn upsert(&mut self, space: &Arc<TableSpace>, row: &[Value], version: Version) -> Result<()> {
        let key = space.row_key(row)?;
        let at = self.load(space, key.into())?;
        let id = match self.current(at) {
            Some(old) => old.id,
            None => self.take_row_id(space.table.id)?,
        };
        let older = match self.current(at) {
            Some(old) => kept_entries(space, old, row, version)?,
            None => Vec::new(),
        };
        let values = row.iter().map(Value::as_ref);
        let row = space.write(&mut self.encoder, version, id, &older, values)?;
        self.replace(at, Some(row), version)
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
        if self
            .slots
            .rows
            .get(old)
            .is_some_and(|slot| *slot.key != *new_key)
        {
            self.replace(old, None, version)?;
        }
        self.upsert(space, &values, version)
    }

    fn truncate(&mut self, space: &Arc<TableSpace>, version: Version) -> Result<()> {
        let rows = space_key(IndexId::PRIMARY);
        for row in self.snapshot.clone().prefix(&space.keyspace, rows) {
            self.load(space, unpinned(&row.key()?))?;
        }
        let number = space.number();
        for at in 0..self.slots.rows.len() {
            if self
                .slots
                .rows
                .get(at)
                .is_some_and(|slot| slot.space.number() == number)
            {
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
        self.slots.rows.get(at)?.now.as_ref()
    }

    /// The place in `rows` of the row under this key.
    fn load(&mut self, space: &Arc<TableSpace>, key: Slice) -> Result<usize> {
        if let Some(at) = self.slots.row_at.get(&(space.number(), key.clone())) {
            return Ok(*at);
        }
        let row = match self.snapshot.get(&space.keyspace, &key)? {
            Some(bytes) => Some(space.read(bytes, self.loaded_at)?),
            None => None,
        };
        self.take_in(space, key, row)
    }

    /// The place in `rows` of a row that was read, unless it is there already.
    ///
    /// INVARIANT: what the row was is told in the form the table had before the batch. A
    /// transaction can give a table another form and take it back, and then nobody is told that it
    /// was altered.
    fn take_in(&mut self, space: &Arc<TableSpace>, key: Slice, row: Option<Row>) -> Result<usize> {
        let (era, loaded_at) = (&self.era, self.loaded_at);
        let before = |row: &Row| match era.space(space.number()) {
            Some(form) if !Arc::ptr_eq(form, space) => {
                form.read(row.record().bytes().clone(), loaded_at)
            }
            _ => Ok(row.clone()),
        };
        match self.slots.row_at.entry((space.number(), key)) {
            Entry::Occupied(known) => Ok(*known.get()),
            Entry::Vacant(vacant) => {
                let at = self.slots.rows.len();
                self.weight += parts::row_weight(&vacant.key().1, row.as_ref());
                self.slots.rows.push(RowSlot {
                    space: space.clone(),
                    key: vacant.key().1.clone(),
                    before: row.as_ref().map(before).transpose()?,
                    now: row,
                    touched: None,
                });
                Ok(*vacant.insert(at))
            }
        }
    }

    fn replace(&mut self, at: usize, new: Option<Row>, version: Version) -> Result<()> {
        let Some(slot) = self.slots.rows.get_mut(at) else {
            return Ok(());
        };
        let old = slot.now.take();
        if old.is_none() && new.is_none() {
            return Ok(());
        }
        if slot.touched.replace(version) != Some(version) {
            self.slots.touched.push(at);
        }
        let (space, key) = (slot.space.clone(), slot.key.clone());
        let growth = i64::from(new.is_some()) - i64::from(old.is_some());
        if growth != 0 {
            *self.grown.entry(space.table.id).or_default() += growth;
        }
        if let Some(old) = &old {
            let record = old.record().bytes();
            self.end(&space, &key, since(record)?, version, record.clone());
        }
        for index in &space.indexes {
            if let (Some(old), Some(new)) = (&old, &new)
                && index.agrees(old, |at| new.value(at))
            {
                continue;
            }
            let entry = |row: &Row| index.entry_key(|at| row.value(at), &key);
            if let Some(old) = &old {
                let since = old.record().entry_since(index.id)?;
                self.end_entry(&space, entry(old), since, version);
            }
            if let Some((entry, offset)) = new.as_ref().map(entry) {
                let record = encode_entry(version, offset).into();
                self.entry_slot(&space, entry.into(), false).now = Some(record);
            }
        }
        if let Some(slot) = self.slots.rows.get_mut(at) {
            self.weight += new.as_ref().map_or(0, |row| row.record().bytes().len());
            slot.now = new;
        }
        Ok(())
    }

    /// Takes away an entry that stood since `since`. It is not read: it follows from its row.
    fn end_entry(
        &mut self,
        space: &Arc<TableSpace>,
        (key, offset): (Vec<u8>, usize),
        since: Version,
        version: Version,
    ) {
        let slot = self.entry_slot(space, key.into(), true);
        slot.now = None;
        let key = slot.key.clone();
        self.end(
            space,
            &key,
            since,
            version,
            encode_entry(since, offset).into(),
        );
    }

    /// Takes note of a record that stood since `since`, unless no version saw it.
    fn end(
        &mut self,
        space: &TableSpace,
        key: &[u8],
        since: Version,
        version: Version,
        record: Slice,
    ) {
        if since < version {
            self.slots.ended.push(Ended {
                space: space.number(),
                history_key: ended_key(space.number(), key, version).into(),
                since,
                end: version,
                record,
            });
        }
    }

    /// The slot of an entry; `existed` tells of one the batch has not moved yet whether it is
    /// there.
    fn entry_slot(&mut self, space: &Arc<TableSpace>, key: Slice, existed: bool) -> &mut EntrySlot {
        let at = match self.slots.entry_at.entry((space.number(), key)) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(vacant) => {
                let at = self.slots.entries.len();
                self.weight += parts::entry_weight(&vacant.key().1);
                self.slots.entries.push(EntrySlot {
                    space: space.clone(),
                    key: vacant.key().1.clone(),
                    existed,
                    now: None,
                });
                vacant.insert(at);
                at
            }
        };
        &mut self.slots.entries[at]
    }
}

/// The entries of a row that stay as they are when it gets these values, since when each stands.
fn kept_entries(
    space: &TableSpace,
    old: &Row,
    new: &[Value],
    version: Version,
) -> Result<Vec<(IndexId, Version)>> {
    let value_at = |at: usize| new.get(at).map_or(ValueRef::Null, Value::as_ref);
    let kept = space.indexes.iter();
    let kept = kept.filter(|index| index.agrees(old, value_at));
    let since = kept.map(|index| Ok((index.id, old.record().entry_since(index.id)?)));
    let older = since.filter(|entry| !matches!(entry, Ok((_, since)) if *since == version));
    older.collect()
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
