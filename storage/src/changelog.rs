//! The changelog: which rows each transaction wrote.
//!
//! It holds keys only. What a row was at either end of a range of versions is read through views,
//! which hold it anyway; a transaction's rows are thus stored once as current and once as ended.

use std::collections::HashSet;

use fjall::{Keyspace, OwnedWriteBatch, Slice};
use kelvin_protocol::Version;
use rkyv::with::{InlineAsBox, Map};
use rkyv::{Archive, Serialize, rancor};

use crate::RowChange;
use crate::error::{Error, Result};
use crate::layout::{changelog_key, part};
use crate::view::{View, ViewInner};

/// Format of a changelog record.
const FORMAT: u8 = 1;
/// Rows in one record.
const ROWS_PER_RECORD: usize = 256;

#[derive(Archive, Serialize)]
struct RecordArchive<'a> {
    spaces: Vec<u32>,
    #[rkyv(with = Map<InlineAsBox>)]
    keys: Vec<&'a [u8]>,
}

/// Writes the rows of one transaction. Returns the bytes added.
pub(crate) fn write(
    batch: &mut OwnedWriteBatch,
    keyspace: &Keyspace,
    version: Version,
    rows: &[(u32, Slice)],
) -> Result<u64> {
    let mut bytes = 0;
    for (sequence, rows) in (0u32..).zip(rows.chunks(ROWS_PER_RECORD)) {
        let record = RecordArchive {
            spaces: rows.iter().map(|(space, _)| *space).collect(),
            keys: rows.iter().map(|(_, key)| &key[..]).collect(),
        };
        let record = rkyv::api::high::to_bytes_in::<_, rancor::Error>(&record, vec![FORMAT])
            .map_err(|error| Error::Invalid(format!("a change cannot be encoded: {error}")))?;
        bytes += record.len() as u64;
        batch.insert(keyspace, changelog_key(version, sequence), record);
    }
    Ok(bytes)
}

/// Net changes between two views of one replica, `before` being the older. Rows of tables that one of
/// them does not have, or has under other keys, are left out.
pub(crate) fn between(before: &View, after: &View) -> Result<Vec<RowChange>> {
    let mut changes = Vec::new();
    let (before, after) = (before.inner(), after.inner());
    for (number, key) in touched(before, after)? {
        let spaces = (before.era.space(number), after.era.space(number));
        let (Some(was), Some(is)) = spaces else {
            continue;
        };
        let (old, new) = (before.row(was, &key)?, after.row(is, &key)?);
        if old.is_some() || new.is_some() {
            let table = is.table.id;
            changes.push(RowChange { table, old, new });
        }
    }
    Ok(changes)
}

/// Rows written in `(before, after]`, each once, in the order of their first change.
pub(crate) fn touched(before: &ViewInner, after: &ViewInner) -> Result<Vec<(u32, Slice)>> {
    let (from, to) = (before.version, after.version);
    let mut seen = HashSet::new();
    let mut rows = Vec::new();
    let Some(first) = from.checked_add(1) else {
        return Ok(rows);
    };
    for bucket in &after.shape.buckets {
        let range = &bucket.range;
        if range.from >= to || range.to.is_some_and(|end| end <= from) {
            continue;
        }
        let range = changelog_key(first, 0)..=changelog_key(to, u32::MAX);
        for record in fjall::Readable::range(&after.snapshot, &bucket.keyspace, range) {
            let bytes = record.value()?;
            for row in decode(&bytes)? {
                if seen.insert(row.clone()) {
                    rows.push(row);
                }
            }
        }
    }
    Ok(rows)
}

/// The rows in one record. Their keys stay where they are.
pub(crate) fn decode(bytes: &Slice) -> Result<Vec<(u32, Slice)>> {
    let start = bytes.as_ptr() as usize;
    let corrupt = |what: &str| Error::Corrupt(format!("unreadable changelog: {what}"));
    let Some((&FORMAT, archive)) = bytes.split_first() else {
        return Err(corrupt("unknown format"));
    };
    let record = rkyv::access::<ArchivedRecordArchive<'_>, rancor::Error>(archive)
        .map_err(|error| corrupt(&error.to_string()))?;
    if record.spaces.len() != record.keys.len() {
        return Err(corrupt("spaces and keys do not match"));
    }
    let spaces = record.spaces.iter().map(|space| space.to_native());
    Ok(spaces
        .zip(record.keys.iter().map(|key| {
            // The archive is a part of these bytes, and so is each key in it.
            let at = (key.as_ptr() as usize).saturating_sub(start);
            part(bytes, at..at + key.len())
        }))
        .collect())
}
