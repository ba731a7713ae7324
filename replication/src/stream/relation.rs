//! A table of the stream and the table of the replica it goes to.

use std::sync::Arc;

use kelvin_protocol::Value;
use kelvin_storage::{Catalog, Datum, RowOp, Table};

use super::modes::taken_as_text;
use super::pgoutput::{Field, Message, OldTuple, Relation, Tuple};
use crate::decode::Decoder;
use crate::discovery::client_name;
use crate::{Error, Result};

/// What is done with the changes of a table.
#[derive(Debug)]
pub(super) enum Target {
    /// They are written to the replica.
    Held(Held),
    /// The table is not synced.
    Ignored,
    /// The table is to be copied, and its changes are kept until it is.
    Outstanding,
    /// The table is new, and a survey will find it. What comes of it until then will be in its
    /// copy. Partitions are described too, though their changes come as those of their root.
    Unknown,
}

/// A table that is held.
#[derive(Debug)]
pub(super) struct Held {
    table: Arc<Table>,
    /// For each column of the table, where its value is in a tuple and how it is decoded.
    columns: Vec<Source>,
}

/// Where the values of a column come from.
#[derive(Clone, Copy, Debug)]
struct Source {
    /// Place in a tuple.
    at: usize,
    decoder: Decoder,
    /// Whether it decodes the binary form.
    binary: bool,
}

impl Target {
    /// Finds the table.
    ///
    /// # Errors
    /// [`Error::Resync`] where the stream's table is not as it is held.
    pub(super) fn resolve(relation: &Relation, catalog: &Catalog) -> Result<Self> {
        let name = client_name(&relation.schema, &relation.name);
        let changed = |what: &str| Error::Resync(format!("{what} of table {name:?} changed"));
        let Some(table) = held(relation, catalog) else {
            if catalog.unsynced().iter().any(|table| table.name == name) {
                return Ok(Self::Ignored);
            }
            return Ok(Self::Unknown);
        };
        if table.name != name {
            return Err(changed("the name"));
        }
        let mut columns = Vec::with_capacity(table.columns.len());
        for column in &table.columns {
            let at = relation
                .columns
                .iter()
                .position(|there| there.name == column.name && there.type_oid == column.type_oid)
                .ok_or_else(|| changed(&format!("column {:?}", column.name)))?;
            columns.push(Source {
                at,
                decoder: Decoder::of(column),
                binary: Decoder::reads_sent(column),
            });
        }
        let known = |name: &String| {
            table.column(name).is_some()
                || table
                    .unsynced_columns
                    .iter()
                    .any(|(column, _)| column == name)
        };
        if let Some(new) = relation.columns.iter().find(|column| !known(&column.name)) {
            return Err(changed(&format!("column {:?}", new.name)));
        }
        let told = |at: &usize| {
            let there = columns
                .get(*at)
                .and_then(|source| relation.columns.get(source.at));
            there.is_some_and(|column| column.key)
        };
        // Identity FULL flags every column, and a table without identity takes only inserts.
        let only_inserts = !relation.columns.iter().any(|column| column.key);
        if relation.identity == b'n' || (!only_inserts && !table.key.iter().all(told)) {
            return Err(changed("the replica identity"));
        }
        Ok(Self::Held(Held {
            table: Arc::clone(table),
            columns,
        }))
    }
}

/// The table of the replica that a relation message is about.
pub(super) fn held<'a>(relation: &Relation, catalog: &'a Catalog) -> Option<&'a Arc<Table>> {
    let mut tables = catalog.tables().iter();
    tables.find(|table| table.oid == relation.oid)
}

impl Held {
    pub(super) fn table(&self) -> &Table {
        &self.table
    }

    /// What a message about rows of the table does, if it is one.
    pub(super) fn change(&self, message: &Message) -> Result<Option<RowOp>> {
        Ok(Some(match message {
            Message::Insert { new, .. } => self.insert(new)?,
            Message::Update { old, new, .. } => self.update(old.as_ref(), new)?,
            Message::Delete { old, .. } => self.delete(old)?,
            Message::Truncate { .. } => RowOp::Truncate {
                tables: vec![self.table.id],
            },
            _ => return Ok(None),
        }))
    }

    fn insert(&self, new: &Tuple) -> Result<RowOp> {
        let mut row = Vec::with_capacity(self.columns.len());
        for at in 0..self.columns.len() {
            row.push(self.value(new, at)?);
        }
        Ok(RowOp::Insert {
            table: self.table.id,
            row,
        })
    }

    fn update(&self, old: Option<&OldTuple>, new: &Tuple) -> Result<RowOp> {
        let mut row = Vec::with_capacity(self.columns.len());
        for at in 0..self.columns.len() {
            row.push(match self.datum(new, at)? {
                Datum::Unchanged => self.unchanged(old, at)?,
                datum => datum,
            });
        }
        let old_key = old.map(|old| self.key(old)).transpose()?;
        let same = |key: &Vec<Value>| {
            let mut pairs = self.table.key.iter().zip(key);
            pairs.all(|(at, value)| matches!(row.get(*at), Some(Datum::Value(new)) if new == value))
        };
        let old_key = old_key.filter(|key| !same(key));
        Ok(RowOp::Update {
            table: self.table.id,
            old_key,
            row,
        })
    }

    fn delete(&self, old: &OldTuple) -> Result<RowOp> {
        Ok(RowOp::Delete {
            table: self.table.id,
            key: self.key(old)?,
        })
    }

    /// A column that the new tuple leaves out, from the old one where that has it.
    fn unchanged(&self, old: Option<&OldTuple>, at: usize) -> Result<Datum> {
        let in_key = self.table.key.contains(&at);
        match old {
            Some(OldTuple::Full(old)) => self.datum(old, at),
            Some(OldTuple::Key(old)) if in_key => self.datum(old, at),
            _ if in_key => Err(self.fault(at, "an unchanged key is not told")),
            _ => Ok(Datum::Unchanged),
        }
    }

    fn key(&self, old: &OldTuple) -> Result<Vec<Value>> {
        let (OldTuple::Key(old) | OldTuple::Full(old)) = old;
        let values = self.table.key.iter().map(|at| self.value(old, *at));
        values.collect()
    }

    fn value(&self, tuple: &Tuple, at: usize) -> Result<Value> {
        match self.datum(tuple, at)? {
            Datum::Value(value) => Ok(value),
            Datum::Unchanged => Err(self.fault(at, "a value that is needed is not sent")),
        }
    }

    fn datum(&self, tuple: &Tuple, at: usize) -> Result<Datum> {
        let field = self
            .columns
            .get(at)
            .and_then(|source| Some((tuple.get(source.at)?, source)));
        match field {
            None => Err(self.fault(at, "the row is too short")),
            Some((Field::Null, _)) => Ok(Datum::Value(Value::Null)),
            Some((Field::Unchanged, _)) => Ok(Datum::Unchanged),
            Some((Field::Text(text), source)) => match source.decoder.text(text) {
                Ok(value) => Ok(Datum::Value(value)),
                Err(error) => Err(self.fault(at, error.0)),
            },
            Some((Field::Binary(bytes), source)) if source.binary => {
                match source.decoder.binary(bytes) {
                    Ok(value) => Ok(Datum::Value(value.into_value())),
                    Err(error) => Err(self.fault(at, error.0)),
                }
            }
            Some((Field::Binary(_), _)) => Err(self.not_in_binary(at)),
        }
    }

    fn not_in_binary(&self, at: usize) -> Error {
        let column = self.table.columns.get(at);
        let why = column.map(|column| taken_as_text(&self.table, column));
        Error::NotInBinary(why.unwrap_or_default())
    }

    fn fault(&self, at: usize, what: &str) -> Error {
        let column = self.table.columns.get(at);
        let column = column.map_or("", |column| column.name.as_str());
        Error::Protocol(format!(
            "change of table {:?}, column {column:?}: {what}",
            self.table.name
        ))
    }
}
