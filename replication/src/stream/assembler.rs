//! Puts transactions together.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use kelvin_protocol::Version;
use kelvin_storage::{Catalog, RowOp, Transaction};

use super::pgoutput::{Message, Relation};
use super::relation::{Held, Target, is_new};
use crate::{Error, Result};

/// Estimated bytes an operation takes beside its values.
const OP_OVERHEAD: usize = 128;

/// What came of a message.
#[derive(Debug)]
pub(crate) enum Assembled {
    /// Nothing yet.
    Nothing,
    /// A table was described; its schema may have changed.
    Described,
    /// A transaction is complete.
    Transaction {
        transaction: Transaction,
        /// Estimated bytes in memory.
        weight: usize,
    },
    /// A transaction is complete that changed nothing that is held.
    Empty {
        /// LSN after its commit record.
        end_lsn: Version,
    },
}

/// Decodes one stream. What it knows of tables and of an open transaction ends with the stream.
pub(crate) struct Assembler {
    catalog: Arc<Catalog>,
    targets: HashMap<u32, Target>,
    open: Option<Open>,
}

struct Open {
    version: Version,
    ops: Vec<RowOp>,
    weight: usize,
}

impl Assembler {
    pub(crate) fn new(catalog: Arc<Catalog>) -> Self {
        Self {
            catalog,
            targets: HashMap::new(),
            open: None,
        }
    }

    /// Whether a transaction has begun and not ended.
    pub(crate) fn in_transaction(&self) -> bool {
        self.open.is_some()
    }

    /// Takes in one pgoutput message.
    pub(crate) fn push(&mut self, bytes: Bytes) -> Result<Assembled> {
        let length = bytes.len();
        match Message::parse(bytes)? {
            Message::Begin { .. } if self.open.is_some() => {
                // Going on would drop what has come of the one that is open.
                return Err(Error::Protocol(
                    "pgoutput: a transaction begins within another one".into(),
                ));
            }
            Message::Begin { final_lsn } => {
                self.open = Some(Open {
                    version: final_lsn,
                    ops: Vec::new(),
                    weight: OP_OVERHEAD,
                });
            }
            Message::Commit {
                commit_lsn,
                end_lsn,
            } => return self.commit(commit_lsn, end_lsn),
            Message::Relation(relation) => {
                self.describe(&relation)?;
                return Ok(Assembled::Described);
            }
            Message::Insert { oid, new } => {
                self.change(oid, length, |held| held.insert(&new))?;
            }
            Message::Update { oid, old, new } => {
                self.change(oid, length, |held| held.update(old.as_ref(), &new))?;
            }
            Message::Delete { oid, old } => self.change(oid, length, |held| held.delete(&old))?,
            Message::Truncate { oids } => self.truncate(&oids)?,
            Message::Other => {}
        }
        Ok(Assembled::Nothing)
    }

    fn describe(&mut self, relation: &Relation) -> Result<()> {
        let target = Target::resolve(relation, &self.catalog)?;
        self.targets.insert(relation.oid, target);
        Ok(())
    }

    fn change(
        &mut self,
        oid: u32,
        length: usize,
        decode: impl FnOnce(&Held) -> Result<RowOp>,
    ) -> Result<()> {
        let target = self.targets.get(&oid).ok_or_else(|| undescribed(oid))?;
        let open = self.open.as_mut().ok_or_else(outside)?;
        match target {
            Target::Held(held) => {
                open.ops.push(decode(held)?);
                open.weight += OP_OVERHEAD + length;
                Ok(())
            }
            Target::Ignored => Ok(()),
            Target::Unknown(name) => Err(is_new(name)),
        }
    }

    fn truncate(&mut self, oids: &[u32]) -> Result<()> {
        let open = self.open.as_mut().ok_or_else(outside)?;
        let mut tables = Vec::new();
        for oid in oids {
            match self.targets.get(oid).ok_or_else(|| undescribed(*oid))? {
                Target::Held(held) => tables.push(held.table().id),
                Target::Ignored => {}
                Target::Unknown(name) => return Err(is_new(name)),
            }
        }
        if !tables.is_empty() {
            open.ops.push(RowOp::Truncate { tables });
        }
        Ok(())
    }

    fn commit(&mut self, commit_lsn: Version, end_lsn: Version) -> Result<Assembled> {
        let open = self.open.take().ok_or_else(outside)?;
        if open.version != commit_lsn {
            return Err(Error::Protocol(
                "pgoutput: a commit is not at the LSN its transaction began with".into(),
            ));
        }
        if open.ops.is_empty() {
            return Ok(Assembled::Empty { end_lsn });
        }
        Ok(Assembled::Transaction {
            transaction: Transaction {
                version: open.version,
                ops: open.ops,
            },
            weight: open.weight,
        })
    }
}

fn undescribed(oid: u32) -> Error {
    Error::Protocol(format!(
        "pgoutput: a change of table {oid}, which was not described"
    ))
}

fn outside() -> Error {
    Error::Protocol("pgoutput: a change outside a transaction".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_within_another_one_ends_the_stream_instead_of_dropping_the_first() {
        let mut assembler = Assembler::new(Arc::new(Catalog::default()));
        let begin = Bytes::from_static(b"B\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\0\0\0\0\0\0");
        assert!(assembler.push(begin.clone()).is_ok());
        assert!(matches!(assembler.push(begin), Err(Error::Protocol(_))));
    }
}
