//! Messages of the `pgoutput` plugin, protocol versions 1 and 2.

use bytes::Bytes;
use kelvin_protocol::Version;

use crate::wire::Fields;
use crate::{Error, Result};

/// A message.
#[derive(Debug)]
pub(crate) enum Message {
    /// A transaction begins.
    Begin {
        /// LSN of its commit record: its version.
        final_lsn: Version,
    },
    /// The transaction is complete.
    Commit {
        /// LSN of its commit record.
        commit_lsn: Version,
        /// LSN after the commit record.
        end_lsn: Version,
    },
    /// Describes a table before its first change, and again after its schema changed.
    Relation(Relation),
    /// A row is new.
    Insert { oid: u32, new: Tuple },
    /// A row changed.
    Update {
        oid: u32,
        old: Option<OldTuple>,
        new: Tuple,
    },
    /// A row is gone.
    Delete { oid: u32, old: OldTuple },
    /// All rows of some tables are gone.
    Truncate { oids: Vec<u32> },
    /// Somebody's words: `pg_logical_emit_message`.
    Logical { prefix: String, content: Bytes },
    /// Types and origins, which do not matter here.
    Other,
}

/// A table as the stream describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Relation {
    pub(crate) oid: u32,
    pub(crate) schema: String,
    pub(crate) name: String,
    /// `relreplident`: d, n, f or i.
    pub(crate) identity: u8,
    pub(crate) columns: Vec<RelationColumn>,
}

/// A column of a [`Relation`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RelationColumn {
    /// Whether the old value is told when it changes.
    pub(crate) key: bool,
    pub(crate) name: String,
    pub(crate) type_oid: u32,
}

/// One value for each column of the relation.
///
/// The values stay in the message, for most are only looked at once.
#[derive(Clone, Debug)]
pub(crate) struct Tuple {
    bytes: Bytes,
    places: Vec<Place>,
}

/// Where a value is in the bytes of its tuple.
#[derive(Clone, Copy, Debug)]
struct Place {
    kind: u8,
    start: u32,
    end: u32,
}

/// One value on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field<'a> {
    Null,
    /// A TOASTed value that did not change and is not sent.
    Unchanged,
    /// As the output function of its type prints it.
    Text(&'a [u8]),
    /// As the send function of its type writes it.
    Binary(&'a [u8]),
}

impl Tuple {
    /// Reads one that begins the rest of a message.
    fn read(fields: &mut Fields) -> Result<Self> {
        let count = usize::try_from(fields.i16()?).unwrap_or(0);
        // What is announced may not be there.
        let mut places = Vec::with_capacity(count.min(fields.0.len()));
        let (bytes, mut end) = (fields.0.clone(), 0);
        for _ in 0..count {
            let kind = fields.u8()?;
            let mut start = end + 1;
            end = match kind {
                b'n' | b'u' => start,
                b't' | b'b' => {
                    let length = fields.i32()?;
                    start += 4;
                    start + fields.skip(length)?
                }
                _ => return Err(malformed("a value of an unknown kind")),
            };
            let place = |at: usize| u32::try_from(at).map_err(|_| malformed("a row is too long"));
            places.push(Place {
                kind,
                start: place(start)?,
                end: place(end)?,
            });
        }
        Ok(Self { bytes, places })
    }

    /// The value of a column; `None` where there are fewer.
    pub(crate) fn get(&self, at: usize) -> Option<Field<'_>> {
        let Place { kind, start, end } = *self.places.get(at)?;
        let bytes = self.bytes.get(start as usize..end as usize)?;
        Some(match kind {
            b'n' => Field::Null,
            b'u' => Field::Unchanged,
            b'b' => Field::Binary(bytes),
            _ => Field::Text(bytes),
        })
    }
}

/// The row before a change.
#[derive(Debug)]
pub(crate) enum OldTuple {
    /// Only the key columns are meant.
    Key(Tuple),
    /// All of it.
    Full(Tuple),
}

/// What is said of a transaction that is sent while it is in progress, in chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Streamed {
    /// A chunk begins.
    Start { xid: u32 },
    /// It ends.
    Stop,
    /// The transaction commits.
    Commit {
        xid: u32,
        commit_lsn: u64,
        end_lsn: u64,
    },
    /// The transaction, or a part of it, is taken back.
    Abort { xid: u32, part: u32 },
}

impl Streamed {
    /// Reads a message that is about such transactions; `None` for another one.
    pub(crate) fn control(bytes: &Bytes) -> Result<Option<Self>> {
        if !matches!(bytes.first(), Some(b'S' | b'E' | b'c' | b'A')) {
            return Ok(None);
        }
        let mut fields = Fields(bytes.clone());
        Ok(Some(match fields.u8()? {
            b'S' => Self::Start { xid: fields.u32()? },
            b'E' => Self::Stop,
            b'c' => {
                let xid = fields.u32()?;
                let _flags = fields.u8()?;
                Self::Commit {
                    xid,
                    commit_lsn: fields.u64()?,
                    end_lsn: fields.u64()?,
                }
            }
            _ => Self::Abort {
                xid: fields.u32()?,
                part: fields.u32()?,
            },
        }))
    }
}

impl Message {
    /// Reads one message.
    pub(crate) fn parse(bytes: Bytes) -> Result<Self> {
        let mut fields = Fields(bytes);
        Ok(match fields.u8()? {
            b'B' => Self::Begin {
                final_lsn: fields.u64()?,
            },
            b'C' => {
                let _flags = fields.u8()?;
                Self::Commit {
                    commit_lsn: fields.u64()?,
                    end_lsn: fields.u64()?,
                }
            }
            b'R' => Self::Relation(relation(&mut fields)?),
            b'I' => Self::Insert {
                oid: fields.u32()?,
                new: new_tuple(&mut fields)?,
            },
            b'U' => update(&mut fields)?,
            b'D' => Self::Delete {
                oid: fields.u32()?,
                old: match fields.u8()? {
                    b'K' => OldTuple::Key(Tuple::read(&mut fields)?),
                    b'O' => OldTuple::Full(Tuple::read(&mut fields)?),
                    _ => return Err(malformed("a delete has no old row")),
                },
            },
            b'T' => {
                let count = fields.i32()?;
                let _options = fields.u8()?;
                Self::Truncate {
                    oids: (0..count).map(|_| fields.u32()).collect::<Result<_>>()?,
                }
            }
            b'M' => {
                let (_flags, _lsn) = (fields.u8()?, fields.u64()?);
                let prefix = fields.text()?;
                let length = fields.i32()?;
                Self::Logical {
                    prefix,
                    content: fields.bytes(length)?,
                }
            }
            b'Y' | b'O' => Self::Other,
            _ => return Err(malformed("an unknown message")),
        })
    }
}

fn malformed(what: &str) -> Error {
    Error::Protocol(format!("pgoutput: {what}"))
}

fn relation(fields: &mut Fields) -> Result<Relation> {
    let oid = fields.u32()?;
    let schema = fields.text()?;
    let name = fields.text()?;
    let identity = fields.u8()?;
    let count = fields.i16()?;
    let columns = (0..count).map(|_| {
        let key = fields.u8()? & 1 == 1;
        let name = fields.text()?;
        let type_oid = fields.u32()?;
        let _modifier = fields.i32()?;
        Ok(RelationColumn {
            key,
            name,
            type_oid,
        })
    });
    let columns = columns.collect::<Result<_>>()?;
    Ok(Relation {
        oid,
        // pgoutput says nothing for pg_catalog.
        schema: if schema.is_empty() {
            "pg_catalog".into()
        } else {
            schema
        },
        name,
        identity,
        columns,
    })
}

fn update(fields: &mut Fields) -> Result<Message> {
    let oid = fields.u32()?;
    let (old, new) = match fields.u8()? {
        b'K' => (
            Some(OldTuple::Key(Tuple::read(fields)?)),
            new_tuple(fields)?,
        ),
        b'O' => (
            Some(OldTuple::Full(Tuple::read(fields)?)),
            new_tuple(fields)?,
        ),
        b'N' => (None, Tuple::read(fields)?),
        _ => return Err(malformed("an update has no new row")),
    };
    Ok(Message::Update { oid, old, new })
}

fn new_tuple(fields: &mut Fields) -> Result<Tuple> {
    match fields.u8()? {
        b'N' => Tuple::read(fields),
        _ => Err(malformed("a change has no new row")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_update_with_its_old_key_is_read() {
        let bytes = Bytes::from_static(b"U\0\0\0\x07K\0\x01t\0\0\0\x01aN\0\x02t\0\0\0\x01bu");
        let Message::Update { oid, old, new } = Message::parse(bytes).unwrap() else {
            panic!("not an update");
        };
        assert_eq!(oid, 7);
        let Some(OldTuple::Key(old)) = old else {
            panic!("no old key");
        };
        assert_eq!((old.get(0), old.get(1)), (Some(Field::Text(b"a")), None));
        assert_eq!(new.get(0), Some(Field::Text(b"b")));
        assert_eq!((new.get(1), new.get(2)), (Some(Field::Unchanged), None));
    }

    #[test]
    fn a_tuple_may_have_values_of_either_form() {
        let bytes = Bytes::from_static(b"I\0\0\0\x07N\0\x03b\0\0\0\x02\0\x09nt\0\0\0\x01x");
        let Message::Insert { oid, new } = Message::parse(bytes).unwrap() else {
            panic!("not an insert");
        };
        assert_eq!(oid, 7);
        let fields = [Field::Binary(b"\0\x09"), Field::Null, Field::Text(b"x")];
        assert_eq!([0, 1, 2].map(|at| new.get(at)), fields.map(Some));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(
            tag in prop::sample::select(b"BCRIUDTYOM?".to_vec()),
            mut bytes: Vec<u8>,
        ) {
            bytes.insert(0, tag);
            let _ = Message::parse(bytes.into());
        }
    }
}
