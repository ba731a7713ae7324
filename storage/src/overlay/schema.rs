//! What a transaction does to the schema.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use fjall::Database;
use kelvin_protocol::Version;

use super::{Overlay, Readers};
use crate::era::{Era, Spaces};
use crate::error::{Error, Result};
use crate::evolution::StoredTable;
use crate::meta::{Garbage, MetaWriter};
use crate::schema::Alteration;
use crate::sorted_ingest::Scratch;
use crate::table_space::TableSpace;
use crate::{IndexId, LoadedTable, ReplicaOptions, SchemaChange, Table, TableId, UnsyncedTable};

/// What old rows are read with, and new and rewritten tables made with.
#[derive(Clone, Copy)]
pub(crate) struct Workshop<'a> {
    pub(crate) db: &'a Database,
    pub(crate) options: &'a ReplicaOptions,
    pub(crate) scratch: &'a Scratch,
    pub(crate) readers: &'a Readers,
    /// The next number of a space.
    pub(crate) next_space: u32,
    /// The next number of an index of each table that has lost or been given some.
    pub(crate) next_indexes: &'a HashMap<TableId, u16>,
}

/// The schema as the transaction leaves it.
pub(crate) struct SchemaDraft {
    tables: HashMap<TableId, Arc<TableSpace>>,
    unsynced: Vec<UnsyncedTable>,
    /// Tables that are new, gone or have another form.
    pub(crate) altered: BTreeSet<TableId>,
    /// Indexes that are gone.
    garbage: Vec<Garbage>,
    /// The next number for an index of tables that lost one, lest its number be given again.
    pub(crate) next_indexes: HashMap<TableId, u16>,
    pub(crate) next_space: u32,
    /// Tables that came with rows.
    loaded: Vec<LoadedTable>,
}

impl SchemaDraft {
    fn of(era: &Era, next_space: u32) -> Self {
        Self {
            tables: era.tables.clone(),
            unsynced: era.catalog.unsynced().to_vec(),
            altered: BTreeSet::new(),
            garbage: Vec::new(),
            next_indexes: HashMap::new(),
            next_space,
            loaded: Vec::new(),
        }
    }

    pub(super) fn table(&self, id: TableId) -> Result<&Arc<TableSpace>> {
        self.tables
            .get(&id)
            .ok_or_else(|| Error::Invalid(format!("there is no table {}", id.0)))
    }

    /// Whether there is a table of this number.
    pub(crate) fn has(&self, id: TableId) -> bool {
        self.tables.contains_key(&id)
    }

    /// Writes down what changed with `version`.
    pub(crate) fn record(&self, meta: &mut MetaWriter<'_>, version: Version) -> Result<()> {
        for id in &self.altered {
            let stored = self.tables.get(id).map(|space| &*space.stored);
            meta.table(*id, version, stored)?;
        }
        for garbage in &self.garbage {
            meta.garbage(*garbage)?;
        }
        for (table, next) in &self.next_indexes {
            meta.next_index(*table, *next)?;
        }
        meta.unsynced(&self.unsynced)?;
        meta.next_space(self.next_space)
    }

    /// Lets the keyspaces of loaded tables stay, whatever comes of the batch.
    pub(crate) fn keep_loaded(&self) {
        self.loaded.iter().for_each(LoadedTable::keep);
    }

    /// Indexes that are gone.
    pub(crate) fn garbage(&self) -> &[Garbage] {
        &self.garbage
    }

    /// The era that begins with `version`.
    pub(crate) fn into_era(self, version: Version) -> Era {
        Era::new(version, self.tables, self.unsynced)
    }

    pub(super) fn take_space(&mut self) -> Result<u32> {
        crate::era::take_space(&mut self.next_space)
    }

    pub(super) fn put(&mut self, space: Arc<TableSpace>) {
        self.altered.insert(space.table.id);
        self.tables.insert(space.table.id, space);
    }
}

impl Overlay<'_> {
    pub(super) fn change_schema(&mut self, change: &SchemaChange, version: Version) -> Result<()> {
        if self.schema.is_none() {
            self.schema = Some(SchemaDraft::of(&self.era, self.workshop.next_space));
        }
        match change {
            SchemaChange::CreateTable(table) => self.create_table(table),
            SchemaChange::LoadTable(loaded) => self.load_table(loaded, version),
            SchemaChange::DropTable(table) => self.drop_table(*table),
            SchemaChange::AlterTable(alteration) => self.alter_table(alteration, version),
            SchemaChange::DropIndex { table, index } => self.drop_index(*table, *index, version),
            SchemaChange::SetUnsynced(tables) => {
                let draft = self.draft()?;
                draft.unsynced.clone_from(tables);
                Ok(())
            }
        }
    }

    pub(super) fn draft(&mut self) -> Result<&mut SchemaDraft> {
        let draft = self.schema.as_mut();
        draft.ok_or_else(|| Error::Invalid("the schema does not change".into()))
    }

    /// Opens the keyspace of a table's form.
    pub(super) fn open(&self, stored: StoredTable) -> Result<Arc<TableSpace>> {
        let mut spaces = Spaces::new(self.workshop.db);
        Ok(Arc::new(spaces.table(stored)?))
    }

    fn create_table(&mut self, table: &Table) -> Result<()> {
        self.check_new(table)?;
        let number = self.draft()?.take_space()?;
        let space = self.open(StoredTable::new(table.clone(), number))?;
        self.taken.insert(table.id, 0);
        self.draft()?.put(space);
        Ok(())
    }

    /// A number that had rows would give these rows' numbers again.
    fn check_new(&mut self, table: &Table) -> Result<()> {
        if self.free.contains_key(&table.id) || self.draft()?.has(table.id) {
            return Err(Error::Invalid(format!(
                "number {} of the new table {:?} is not new",
                table.id.0, table.name
            )));
        }
        Ok(())
    }

    /// INVARIANT: nothing on disk speaks of the loaded keyspace before this batch does. Its rows
    /// are not newer than `version`, so that every view that sees the table sees all of them.
    fn load_table(&mut self, loaded: &LoadedTable, version: Version) -> Result<()> {
        let (space, rows) = (loaded.space().clone(), loaded.rows());
        self.check_new(&space.table)?;
        if loaded.version() > version {
            return Err(Error::Invalid(format!(
                "the rows of table {:?} are newer than the transaction",
                space.table.name
            )));
        }
        self.taken.insert(space.table.id, rows);
        *self.grown.entry(space.table.id).or_default() += i64::from(rows);
        let draft = self.draft()?;
        draft.loaded.push(loaded.clone());
        draft.put(space);
        // What was loaded is younger than the snapshot.
        self.snapshot = self.workshop.db.snapshot();
        Ok(())
    }

    fn drop_table(&mut self, id: TableId) -> Result<()> {
        let space = self.space(id)?;
        self.left.insert(space.number());
        let draft = self.draft()?;
        draft.tables.remove(&id);
        draft.altered.insert(id);
        Ok(())
    }

    fn alter_table(&mut self, alteration: &Alteration, version: Version) -> Result<()> {
        let old = self.space(alteration.table.id)?;
        let stored = old.stored.altered(alteration)?;
        let kept = |index: &IndexId| stored.table.indexes.iter().any(|other| other.id == *index);
        let indexes = old.indexes.iter().map(|index| index.id);
        let gone: Vec<_> = indexes.filter(|index| !kept(index)).collect();
        if stored.keys_differ(&old.stored) {
            let space = self.rewrite(&old, &stored)?;
            self.draft()?.put(space);
            return Ok(());
        }
        let space = Arc::new(TableSpace::new(stored, old.keyspace.clone())?);
        self.discard_indexes(&space, gone, version)?;
        self.read_anew(&space)?;
        self.draft()?.put(space);
        Ok(())
    }

    fn drop_index(&mut self, table: TableId, index: IndexId, version: Version) -> Result<()> {
        let old = self.space(table)?;
        old.index(index)?;
        let mut stored = (*old.stored).clone();
        stored.table.indexes.retain(|other| other.id != index);
        let space = Arc::new(TableSpace::new(stored, old.keyspace.clone())?);
        self.discard_indexes(&space, vec![index], version)?;
        self.read_anew(&space)?;
        self.draft()?.put(space);
        Ok(())
    }

    /// Notes that the entries of these indexes can be removed when no readable version has them.
    fn discard_indexes(
        &mut self,
        space: &TableSpace,
        gone: Vec<IndexId>,
        version: Version,
    ) -> Result<()> {
        let (number, table) = (space.number(), space.table.id);
        let given = self.workshop.next_indexes.get(&table).copied().unwrap_or(1);
        let draft = self.draft()?;
        for index in gone {
            let next = draft.next_indexes.entry(table).or_insert(given);
            *next = (*next).max(index.0.saturating_add(1));
            draft.garbage.push(Garbage {
                space: number,
                index,
                since: version,
            });
        }
        Ok(())
    }

    /// Lets the rows the transaction has looked at be read by the table's new form.
    fn read_anew(&mut self, space: &Arc<TableSpace>) -> Result<()> {
        let number = space.number();
        for slot in &mut self.slots.rows {
            if slot.space.number() != number {
                continue;
            }
            slot.space = space.clone();
            if let Some(row) = &slot.now {
                slot.now = Some(space.read(row.record().bytes().clone(), self.loaded_at)?);
            }
        }
        Ok(())
    }
}
