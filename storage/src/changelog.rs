//! The changelog: which rows each transaction wrote.
//!
//! It holds keys only. What a row was at either end of a range of versions is read through views,
//! which hold it anyway; a transaction's rows are thus stored once as current and once as ended.

use std::collections::{BTreeSet, HashSet};
use std::ops::{ControlFlow, RangeInclusive};

use fjall::{Keyspace, OwnedWriteBatch, Slice};
use kelvin_protocol::Version;
use rkyv::with::{InlineAsBox, Map};
use rkyv::{Archive, Serialize, rancor};

use crate::error::{Error, Result};
use crate::layout::{changelog_key, changelog_version, part};
use crate::view::{View, ViewInner};
use crate::{RowChange, TableId, Written};

/// Format of a changelog record.
const FORMAT: u8 = 1;
/// Rows in one record.
const ROWS_PER_RECORD: usize = 256;

/// What the record of a sweep begins with. After it come numbers of spaces, four bytes each.
const SWEEP: u8 = 2;
const SPACE_BYTES: usize = 4;

#[derive(Archive, Serialize)]
struct RecordArchive<'a> {
    spaces: Vec<u32>,
    #[rkyv(with = Map<InlineAsBox>)]
    keys: Vec<&'a [u8]>,
}

/// How many records so many rows make.
pub(crate) fn records(rows: usize) -> usize {
    rows.div_ceil(ROWS_PER_RECORD)
}

/// Writes rows of one transaction, in records from number `first` on. Returns the bytes added.
pub(crate) fn write(
    batch: &mut OwnedWriteBatch,
    keyspace: &Keyspace,
    version: Version,
    first: u32,
    rows: &[(u32, Slice)],
) -> Result<u64> {
    let mut bytes = 0;
    for (sequence, rows) in (first..).zip(rows.chunks(ROWS_PER_RECORD)) {
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

/// Notes that the rows of a transaction are too many to tell, in these spaces. It is the first
/// record of its version, so that whoever wants to know nothing more passes over the rest. Returns
/// the bytes added.
pub(crate) fn write_sweep(
    batch: &mut OwnedWriteBatch,
    keyspace: &Keyspace,
    version: Version,
    spaces: &BTreeSet<u32>,
) -> u64 {
    let mut record = vec![SWEEP];
    record.extend(spaces.iter().flat_map(|space| space.to_be_bytes()));
    let bytes = record.len() as u64;
    batch.insert(keyspace, changelog_key(version, 0), record);
    bytes
}

/// Net changes between two views of one replica, `before` being the older, and the tables that were
/// swept in between, whose rows are left out. So are rows of tables that one of them does not have,
/// or has under other keys.
pub(crate) fn between(before: &View, after: &View) -> Result<(Vec<RowChange>, Vec<TableId>)> {
    let mut changes = Vec::new();
    let (before, after) = (before.inner(), after.inner());
    let (mut swept, mut seen, mut rows) = (HashSet::new(), HashSet::new(), Vec::new());
    walk(before, after, Sweeps::Tell, |_, entry| {
        match entry {
            Entry::Sweep(spaces) => swept.extend(spaces),
            Entry::Rows(touched) => {
                let new = touched.into_iter().filter(|row| seen.insert(row.clone()));
                rows.extend(new);
            }
        }
        Ok(ControlFlow::Continue(()))
    })?;
    for (number, key) in rows {
        let spaces = (before.era.space(number), after.era.space(number));
        let (Some(was), Some(is)) = spaces else {
            continue;
        };
        if swept.contains(&number) {
            continue;
        }
        let (old, new) = (before.row(was, &key)?, after.row(is, &key)?);
        if old.is_some() || new.is_some() {
            let table = is.table.id;
            changes.push(RowChange { table, old, new });
        }
    }
    // A table that is kept elsewhere now counts as altered.
    let swept = swept.into_iter();
    let tables = swept.filter_map(|number| Some(after.era.space(number)?.table.id));
    let mut tables: Vec<_> = tables.collect();
    tables.sort_unstable();
    Ok((changes, tables))
}

/// Which tables the transactions between two views of one replica wrote to, `before` being the
/// older. `None` where that are more than `most` pairs of a transaction and a table.
pub(crate) fn written(before: &View, after: &View, most: usize) -> Result<Option<Written>> {
    let (before, after) = (before.inner(), after.inner());
    let mut written = Written::default();
    let mut pairs = 0;
    walk(before, after, Sweeps::Tell, |version, entry| {
        let (spaces, swept) = match entry {
            Entry::Sweep(spaces) => (spaces, true),
            Entry::Rows(rows) => (rows.into_iter().map(|(space, _)| space).collect(), false),
        };
        for number in spaces {
            // What is kept elsewhere now, or no more, was altered.
            let Some(space) = after.era.space(number) else {
                continue;
            };
            if swept {
                written.broken.insert(space.table.id, version);
            } else {
                let versions = written.rows.entry(space.table.id).or_default();
                let rows = versions.entry(version).or_insert(0);
                pairs += usize::from(*rows == 0);
                *rows += 1;
            }
        }
        Ok(if pairs > most {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        })
    })?;
    for eras in after.shape.eras.windows(2) {
        let [was, is] = eras else { continue };
        if is.since > before.version && is.since <= after.version {
            for table in is.altered_since(was) {
                let broken = written.broken.entry(table).or_default();
                *broken = is.since.max(*broken);
            }
        }
    }
    Ok((pairs <= most).then_some(written))
}

/// What becomes of transactions that were written in parts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sweeps {
    /// They are told as such, without their rows.
    Tell,
    /// They are like others: all their rows are told, some of them more than once.
    Enter,
}

/// What one record says.
pub(crate) enum Entry {
    /// Rows that were written.
    Rows(Vec<(u32, Slice)>),
    /// Spaces in which rows were written that are too many to tell.
    Sweep(Vec<u32>),
}

/// Goes over what was written in `(before, after]`, record by record, until `visit` breaks it off.
pub(crate) fn walk(
    before: &ViewInner,
    after: &ViewInner,
    sweeps: Sweeps,
    mut visit: impl FnMut(Version, Entry) -> Result<ControlFlow<()>>,
) -> Result<()> {
    let (from, to) = (before.version, after.version);
    let Some(first) = from.checked_add(1) else {
        return Ok(());
    };
    for bucket in &after.shape.buckets {
        let range = &bucket.range;
        if range.from >= to || range.to.is_some_and(|end| end <= from) {
            continue;
        }
        let read = |first| {
            let range = changelog_range(first, to);
            fjall::Readable::range(&after.snapshot, &bucket.keyspace, range)
        };
        let mut records = read(first);
        while let Some(record) = records.next() {
            let (key, bytes) = record.into_inner()?;
            let is_sweep = bytes.first() == Some(&SWEEP);
            let entry = match (is_sweep, sweeps) {
                (true, Sweeps::Enter) => continue,
                (true, Sweeps::Tell) => Entry::Sweep(decode_sweep(&bytes)?),
                (false, _) => Entry::Rows(decode(&bytes)?),
            };
            let version = changelog_version(&key).ok_or_else(|| corrupt("a key is cut short"))?;
            if visit(version, entry)?.is_break() {
                return Ok(());
            }
            if is_sweep {
                match version.checked_add(1) {
                    Some(next) if next <= to => records = read(next),
                    _ => break,
                }
            }
        }
    }
    Ok(())
}

fn decode_sweep(bytes: &[u8]) -> Result<Vec<u32>> {
    let spaces = bytes.get(1..).unwrap_or_default().chunks(SPACE_BYTES);
    let space = |bytes: &[u8]| {
        let bytes = bytes.try_into().ok();
        bytes
            .map(u32::from_be_bytes)
            .ok_or_else(|| corrupt("a sweep is cut short"))
    };
    spaces.map(space).collect()
}

/// Keys of the records from one version to another, both included; none where they are inverted.
pub(crate) fn changelog_range(from: Version, to: Version) -> RangeInclusive<Vec<u8>> {
    changelog_key(from, 0)..=changelog_key(to, u32::MAX)
}

fn corrupt(what: &str) -> Error {
    Error::Corrupt(format!("unreadable changelog: {what}"))
}

/// The rows in one record. Their keys stay where they are.
pub(crate) fn decode(bytes: &Slice) -> Result<Vec<(u32, Slice)>> {
    let start = bytes.as_ptr() as usize;
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
