//! Changes of the schema.

use kelvin_protocol::Value;

use crate::{Column, IndexId, LoadedTable, Table, TableId, UnsyncedTable};

/// One change of the catalog. It takes effect with the transaction that carries it, for the
/// operations that follow it there; views at earlier versions keep the catalog they had.
#[derive(Clone, Debug)]
pub enum SchemaChange {
    /// A table there was not, without rows. Its number must never have been used before.
    CreateTable(Table),
    /// A table there was not, with the rows that were loaded into it beside the replica.
    LoadTable(LoadedTable),
    /// A table is gone, with its rows.
    DropTable(TableId),
    /// A table has another name, other columns or another key.
    AlterTable(Alteration),
    /// An index is gone.
    DropIndex {
        /// The table.
        table: TableId,
        /// The index.
        index: IndexId,
    },
    /// The tables that are published and not held, see [`Catalog::unsynced`](crate::Catalog).
    SetUnsynced(Vec<UnsyncedTable>),
}

/// The new form of a table.
///
/// Columns are recognised by their `attnum`, or by their names where the table was
/// [made anew](Alteration::made_anew): one with another name was renamed, one that is missing was
/// dropped. Rows are not rewritten for that. They are when the key changes, for then they are
/// kept under other keys; that takes time in proportion to the table, and commits wait.
#[derive(Clone, Debug)]
pub struct Alteration {
    /// The table as it is from now on, with the number it had. Its `indexes` are not looked at:
    /// those there are stay, without those over columns that are gone. New ones are built by
    /// [`Replica::add_index`](crate::Replica::add_index).
    pub table: Table,
    /// By `attnum`, what rows written before have in a column that is new, or whose values no
    /// longer stand because its type changed. A new column that is not named here is null in them.
    pub fills: Vec<(i16, Value)>,
    /// Whether it is another table upstream, which has the same columns under other `attnum`s.
    pub made_anew: bool,
}

impl Alteration {
    /// Whether a column of the new form is this one of the old.
    pub(crate) fn is_same(&self, new: &Column, old: &Column) -> bool {
        if self.made_anew {
            new.name == old.name
        } else {
            new.attnum == old.attnum
        }
    }

    /// What rows written before have in this column, if it is to be filled.
    pub(crate) fn fill(&self, attnum: i16) -> Option<&Value> {
        let mut fills = self.fills.iter();
        fills
            .find(|(filled, _)| *filled == attnum)
            .map(|(_, value)| value)
    }
}

impl SchemaChange {
    /// The table it is about.
    #[must_use]
    pub fn table(&self) -> Option<TableId> {
        match self {
            Self::CreateTable(table) => Some(table.id),
            Self::LoadTable(loaded) => Some(loaded.table().id),
            Self::DropTable(table) | Self::DropIndex { table, .. } => Some(*table),
            Self::AlterTable(alteration) => Some(alteration.table.id),
            Self::SetUnsynced(_) => None,
        }
    }
}
